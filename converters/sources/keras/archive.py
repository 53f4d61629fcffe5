"""The ``.keras`` archive: a zip with three members of known names and bounded size, each taken at its word and no further.

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

    Args:
        data: the archive's bytes.
        where: the file, as messages name it.

    Raises:
        SourceFileError: damaged, a member missing, unknown, repeated, encrypted, oddly packed, or larger than it may
            be.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            _require_known(infos, where)
            _require_room(infos, len(data), where)
            return {info.filename: _read(archive, info, where) for info in infos}
    except (*DAMAGED_ZIP, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SourceFileError(
            f"{where}: damaged zip archive: {reason}; save the model or copy the file again"
        ) from error


def _require_known(infos: list[zipfile.ZipInfo], where: str) -> None:
    names = [info.filename for info in infos]
    unknown = sorted({name for name in names if name not in LIMITS})
    if unknown:
        raise SourceFileError(
            f"{where}: unknown members {', '.join(map(repr, unknown))}; a Keras file has {', '.join(LIMITS)}"
        )
    missing = [name for name in LIMITS if name not in names]
    if missing or len(names) != len(set(names)):
        raise SourceFileError(
            f"{where}: expected each of {', '.join(LIMITS)} once, found {', '.join(names) or 'nothing'}"
        )
    for info in infos:
        limit = LIMITS[info.filename]
        if info.flag_bits & 1 or info.compress_type not in METHODS:
            raise SourceFileError(f"{where}: {info.filename!r} is encrypted or packed in an unusual way")
        if info.file_size > limit:
            raise SourceFileError(f"{where}: {info.filename!r} unfolds to {info.file_size} bytes, more than {limit}")


def _require_room(infos: list[zipfile.ZipInfo], size: int, where: str) -> None:
    """Refuse members that unfold to far more than the archive: numbers of a network hardly shrink."""
    for info in infos:
        if info.file_size > SMALL_BYTES + MOST_TIMES * size:
            raise SourceFileError(
                f"{where}: {info.filename!r} unfolds to {info.file_size} bytes, an archive of {size} bytes holds at most "
                f"{SMALL_BYTES + MOST_TIMES * size}; save the model again"
            )


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> bytes:
    """One member's bytes; zipfile checks size and CRC while reading."""
    with archive.open(info) as stream:
        content = stream.read(info.file_size + 1)
    if len(content) != info.file_size:
        raise SourceFileError(f"{where}: {info.filename!r} has {len(content)} bytes, its header says {info.file_size}")
    return content
