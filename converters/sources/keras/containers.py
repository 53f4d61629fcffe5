"""HDF5 files that are no more than they seem.

HDF5 can point outside itself (external links, virtual datasets, external storage), can name code to load (filter
plug-ins), and can declare terabytes in a few bytes. A file that Keras wrote has none of that: groups, hard links, and
plain numeric datasets. Everything else is refused before a byte of weights is read.

The ``.keras`` archive: a zip with three members of known names and bounded size, each taken at its word and no further.

Nothing is unpacked to a path that the archive names, so names such as ``../x`` cannot do harm; they are refused like
every other unknown member, because Keras does not write them.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from converters.errors import MissingExtraError, SourceFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_OBJECTS = 100_000
MAX_EXPANDED_BYTES = 1 << 31
MAX_CONFIG_BYTES = 16 << 20
SMALL_BYTES = 64 << 20  # whatever unfolds to no more is harmless
MOST_TIMES = 20  # beyond that a file unfolds to so many times its size at most; weights hardly shrink
FILTERS = frozenset({1, 2, 3})  # deflate, shuffle, fletcher32: part of every HDF5 library
NUMERIC_KINDS = frozenset("fiub")
HEAP = b"GCOL\1\0\0\0"  # begins a collection of HDF5's global heap, where text attributes lie
HEAP_HEADER = 16  # bytes of a collection's header, and of each of its objects


@contextmanager
def open_hdf5(data: bytes, where: str) -> Iterator[Any]:
    """Open HDF5 bytes in memory and check every object in them; yields the ``h5py.File``.

    Args:
        data: the file's bytes.
        where: the file, as messages name it.

    Raises:
        MissingExtraError: h5py is not installed.
        SourceFileError: damaged, or anything but groups, hard links and plain numeric datasets.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("h5py, which reads Keras files,", "keras") from error
    _require_ending_heaps(data, where)
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            _require_plain(h5py, file, min(MAX_EXPANDED_BYTES, SMALL_BYTES + MOST_TIMES * len(data)), where)
            yield file
    except (
        OSError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
        OverflowError,
        AttributeError,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SourceFileError(
            f"{where}: damaged HDF5: {reason}; save the model or copy the file again"
        ) from error


def text_attribute(file: Any, name: str, where: str) -> str | None:
    """The text of a root attribute, None where there is none.

    Raises:
        SourceFileError: it is no text, or longer than any configuration.
    """
    if name not in file.attrs:
        return None
    value = file.attrs[name]
    if isinstance(value, bytes):
        value = value.decode("utf-8")
    if not isinstance(value, str) or len(value) > MAX_CONFIG_BYTES:
        found = type(value).__name__ if not isinstance(value, str) else f"{len(value)} characters"
        raise SourceFileError(
            f"{where}: attribute {name!r}: expected text of at most {MAX_CONFIG_BYTES}, found {found}"
        )
    return value


def _require_ending_heaps(data: bytes, where: str) -> None:
    """Refuse a heap whose rest does not reach its end: the HDF5 library reads what follows for ever.

    Source of the layout: "HDF5 File Format Specification" 3.0, III.E, with lengths of 8 bytes, as Keras writes them.
    """
    heap = data.find(HEAP)
    while heap >= 0:
        place = heap + HEAP_HEADER
        end = heap + int.from_bytes(data[heap + 8 : place], "little")
        while place <= min(end, len(data)) - HEAP_HEADER:
            number, size = struct.unpack_from("<H6xQ", data, place)
            if number == 0:
                if place + size != end:
                    raise SourceFileError(
                        f"{where}: damaged HDF5: the heap at byte {heap} has a rest of {size} bytes, expected "
                        f"{end - place}; save the model or copy the file again"
                    )
                break
            place += HEAP_HEADER + size + -size % 8
        heap = data.find(HEAP, heap + len(HEAP))


def _require_plain(h5py: Any, file: Any, most_bytes: int, where: str) -> None:
    """Visit every object once, by hard links alone."""
    seen: set[int] = set()
    total = 0
    waiting: list[tuple[str, Any]] = [("", h5py.h5g.open(file.id, b"/"))]
    while waiting:
        path, group = waiting.pop()
        for name in group:
            child = f"{path}/{name.decode('utf-8', 'backslashreplace')}"
            if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                raise SourceFileError(
                    f"{where}: {child!r} is a link to somewhere else, which is not followed; save the model again"
                )
            address = h5py.h5g.get_objinfo(group, name).objno
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > MAX_OBJECTS:
                raise SourceFileError(f"{where}: more than {MAX_OBJECTS} objects: this is no Keras model")
            opened = h5py.h5o.open(group, name)
            if isinstance(opened, h5py.h5g.GroupID):
                waiting.append((child, opened))
            else:
                total += _plain_bytes(h5py, opened, child, where)
            if total > most_bytes:
                raise SourceFileError(
                    f"{where}: its datasets unfold to more than {most_bytes} bytes: this is no detector of this family"
                )


def _plain_bytes(h5py: Any, opened: Any, name: str, where: str) -> int:
    """The unfolded size of a plain numeric dataset.

    Raises:
        SourceFileError: it is something else.
    """
    if not isinstance(opened, h5py.h5d.DatasetID):
        raise SourceFileError(f"{where}: {name!r} is neither a group nor a dataset: save the model again")
    layout = opened.get_create_plist()
    filters = {layout.get_filter(i)[0] for i in range(layout.get_nfilters())}
    reason = None
    if layout.get_external_count() or layout.get_layout() == h5py.h5d.VIRTUAL:
        reason = "keeps its numbers in other files, which are not opened"
    elif not filters <= FILTERS:
        reason = f"is packed with filters {sorted(filters - FILTERS)}, which need code from elsewhere"
    elif opened.dtype.kind not in NUMERIC_KINDS:
        reason = f"holds {opened.dtype}, expected numbers"
    if reason is not None:
        raise SourceFileError(f"{where}: dataset {name!r} {reason}; save the model again")
    size = int(opened.dtype.itemsize)
    for length in opened.shape:
        size *= int(length)
    return size


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
        SourceFileError: damaged, a member missing, unknown, repeated, encrypted, oddly packed, or larger than it may be.
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
            raise SourceFileError(
                f"{where}: {info.filename!r} unfolds to {info.file_size} bytes, more than {limit}"
            )


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
        raise SourceFileError(
            f"{where}: {info.filename!r} has {len(content)} bytes, its header says {info.file_size}"
        )
    return content
