"""The ``.keras`` archive: a zip with three members of known names and bounded size.

Nothing is unpacked to a path that the archive names, so names such as ``../x`` cannot do harm; they are refused like
every other unknown member, because Keras does not write them.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from converters.errors import SourceFileError
from converters.sources.keras.hdf5 import MAX_CONFIG_BYTES, MAX_EXPANDED_BYTES, MOST_TIMES, SMALL_BYTES

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
LIMITS = {CONFIG: MAX_CONFIG_BYTES, METADATA: 1 << 16, WEIGHTS: MAX_EXPANDED_BYTES}
# What zipfile raises on damaged archives: it indexes and unpacks without looking whether there is enough.
DAMAGED_ZIP = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, NotImplementedError, LookupError, OverflowError,
    RuntimeError,
)  # fmt: skip
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})


def read_members(data: bytes, where: str) -> dict[str, bytes]:
    """Unpack the three members in memory.

    Raises:
        SourceFileError: damaged, a member missing, unknown, repeated, encrypted, oddly packed, or larger than it may
            be.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            _require_known(infos, where)
            _require_small(infos, len(data), where)
            return {info.filename: _read(archive, info, where) for info in infos}
    except (*DAMAGED_ZIP, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SourceFileError(
            f"{where}: damaged zip archive: {reason}; save the model or copy the file again"
        ) from error


def _require_known(infos: list[zipfile.ZipInfo], where: str) -> None:
    names, members = [info.filename for info in infos], ", ".join(LIMITS)
    unknown = ", ".join(repr(name) for name in sorted(set(names) - LIMITS.keys()))
    if unknown:
        raise SourceFileError(f"{where}: unknown members {unknown}; a Keras file has {members}")
    if sorted(names) != sorted(LIMITS):
        raise SourceFileError(f"{where}: expected each of {members} once, found {', '.join(names) or 'nothing'}")


def _require_small(infos: list[zipfile.ZipInfo], size: int, where: str) -> None:
    """Refuse members above their limit, or far larger than the archive: numbers of a network hardly shrink."""
    most = SMALL_BYTES + MOST_TIMES * size
    for info in infos:
        name, limit = info.filename, LIMITS[info.filename]
        if info.flag_bits & 1 or info.compress_type not in METHODS:
            raise SourceFileError(f"{where}: {name!r} is encrypted or packed in an unusual way")
        if info.file_size > limit:
            raise SourceFileError(f"{where}: {name!r} unfolds to {info.file_size} bytes, more than {limit}")
        if info.file_size > most:
            raise SourceFileError(
                f"{where}: {name!r} unfolds to {info.file_size} bytes, an archive of {size} bytes holds at most {most};"
                " save the model again"
            )


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> bytes:
    """One member's bytes; zipfile checks size and CRC while reading."""
    with archive.open(info) as stream:
        content = stream.read(info.file_size + 1)
    if len(content) != info.file_size:
        raise SourceFileError(f"{where}: {info.filename!r} has {len(content)} bytes, its header says {info.file_size}")
    return content
