"""Containers of Keras files, HDF5 and zip, that are no more than they seem.

HDF5 can point outside itself (external links, virtual datasets, external storage), can name code to load (filter
plug-ins), and can declare terabytes in a few bytes. A file that Keras wrote has none of that: groups, hard links, plain
numeric datasets, and attributes of text and numbers. Everything else is refused before a byte of weights is read.

The HDF5 library ends the process that reads some damaged files. So a process of its own, which is this module as a
program, reads every object and attribute of a file first; what it refuses, or does not survive, is not opened here.

A ``.keras`` archive is a zip with three members of known names and bounded size. Nothing is unpacked to a path that the
archive names, so names such as ``../x`` cannot do harm; they are refused like every other unknown member, because Keras
does not write them.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from converters.errors import MissingExtraError, SourceFileError, reason_of

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
READING_S = 120  # for a file of 2 GiB; a small one takes 0.1 s
AGAIN = "save the model or copy the file again"
DAMAGED = (OSError, LookupError, RuntimeError, TypeError, ValueError, OverflowError, AttributeError)
_sound: set[bytes] = set()  # SHA-256 of what a process has read to its end: a conversion opens its source several times


@contextmanager
def open_hdf5(data: bytes, where: str) -> Iterator[Any]:
    """Open HDF5 bytes in memory, which a process of its own has read before; yields the ``h5py.File``.

    Raises:
        MissingExtraError: h5py is not installed.
        SourceFileError: damaged, or anything but groups, hard links, plain numeric datasets, and attributes of text or
            numbers.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("h5py, which reads Keras files,", "keras") from error
    _require_ending_heaps(data, where)
    _require_sound(data, where)
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            yield file
    except DAMAGED as error:
        raise _damaged(where, reason_of(error)) from error


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
        found = f"{len(value)} characters" if isinstance(value, str) else type(value).__name__
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
                    reason = f"the heap at byte {heap} has a rest of {size} bytes, expected {end - place}"
                    raise _damaged(where, reason)
                break
            place += HEAP_HEADER + size + -size % 8
        heap = data.find(HEAP, heap + len(HEAP))


def _require_sound(data: bytes, where: str) -> None:
    """Let a process of its own read all that the file holds: it must neither refuse the file, nor end, nor hang."""
    digest = hashlib.sha256(data).digest()
    if digest in _sound:
        return
    most_bytes = min(MAX_EXPANDED_BYTES, SMALL_BYTES + MOST_TIMES * len(data))
    paths = os.pathsep.join(path for path in sys.path if path)
    try:
        done = subprocess.run(  # noqa: S603 - this Python, this module, two numbers
            [sys.executable, "-P", "-m", __name__, str(MAX_OBJECTS), str(most_bytes)],
            input=data,
            capture_output=True,
            timeout=READING_S,
            check=False,
            env={**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired as error:
        raise _damaged(where, f"the HDF5 library reads it for more than {READING_S} s") from error
    if done.returncode == REFUSED:
        raise SourceFileError(f"{where}: {done.stdout.decode('utf-8', 'replace')}")
    if done.returncode:
        raise _damaged(where, f"the HDF5 library ended the process that read it (exit code {done.returncode})")
    _sound.add(digest)


def _damaged(where: str, reason: str, container: str = "HDF5") -> SourceFileError:
    return SourceFileError(f"{where}: damaged {container}: {reason}; {AGAIN}")


REFUSED = 3


def main() -> int:
    """Read the HDF5 file on stdin whole; what is wrong with it goes to stdout."""
    import h5py

    most_objects, most_bytes = map(int, sys.argv[1:])
    try:
        with h5py.File(io.BytesIO(sys.stdin.buffer.read()), "r") as file:
            _read_all(h5py, file, most_objects, most_bytes)
    except SourceFileError as error:
        reason = str(error)
    except (*DAMAGED, MemoryError) as error:
        reason = f"damaged HDF5: {reason_of(error)}; {AGAIN}"
    else:
        return 0
    sys.stdout.buffer.write(reason.encode("utf-8", "backslashreplace"))
    return REFUSED


def _read_all(h5py: Any, file: Any, most_objects: int, most_bytes: int) -> None:
    """Visit every object once, by hard links alone, then read them and their attributes."""
    visited: set[int] = set()
    total = 0
    waiting: list[tuple[str, Any]] = [("", h5py.h5g.open(file.id, b"/"))]
    datasets: list[Any] = []
    _read_attributes(h5py, waiting[0][1], "/")
    while waiting:
        path, group = waiting.pop()
        for name in group:
            child = f"{path}/{name.decode('utf-8', 'backslashreplace')}"
            if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                raise SourceFileError(
                    f"{child!r} is a link to somewhere else, which is not followed; save the model again"
                )
            address = h5py.h5g.get_objinfo(group, name).objno
            if address in visited:
                continue
            visited.add(address)
            if len(visited) > most_objects:
                raise SourceFileError(f"more than {most_objects} objects: this is no Keras model")
            opened = h5py.h5o.open(group, name)
            if isinstance(opened, h5py.h5g.GroupID):
                waiting.append((child, opened))
            else:
                total += _plain_bytes(h5py, opened, child)
                datasets.append(opened)
            if total > most_bytes:
                raise SourceFileError(
                    f"its datasets unfold to more than {most_bytes} bytes: this is no detector of this family"
                )
            _read_attributes(h5py, opened, child)
    for dataset in datasets:
        h5py.Dataset(dataset)[()]


def _read_attributes(h5py: Any, opened: Any, name: str) -> None:
    """Read an object's attributes; refuse all but text and numbers."""
    attributes = (h5py.Group if isinstance(opened, h5py.h5g.GroupID) else h5py.Dataset)(opened).attrs
    for key in attributes:
        dtype = attributes.get_id(key).dtype
        if dtype.kind not in NUMERIC_KINDS | {"S"} and h5py.check_string_dtype(dtype) is None:
            raise SourceFileError(
                f"attribute {key!r} of {name!r} holds {dtype}, expected text or numbers; save the model again"
            )
        attributes[key]


def _plain_bytes(h5py: Any, opened: Any, name: str) -> int:
    """The unfolded size of a plain numeric dataset; refuse anything else."""
    if not isinstance(opened, h5py.h5d.DatasetID):
        raise SourceFileError(f"{name!r} is neither a group nor a dataset: save the model again")
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
        raise SourceFileError(f"dataset {name!r} {reason}; save the model again")
    return math.prod((int(length) for length in opened.shape), start=int(opened.dtype.itemsize))


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
    most = SMALL_BYTES + MOST_TIMES * len(data)  # numbers of a network hardly shrink
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            names, members = [info.filename for info in infos], ", ".join(LIMITS)
            unknown = ", ".join(repr(name) for name in sorted(set(names) - LIMITS.keys()))
            if unknown:
                raise SourceFileError(f"{where}: unknown members {unknown}; a Keras file has {members}")
            if sorted(names) != sorted(LIMITS):
                listed = ", ".join(names) or "nothing"
                raise SourceFileError(f"{where}: expected each of {members} once, found {listed}")
            for info in infos:
                _require_small(info, len(data), most, where)
            return {info.filename: _read(archive, info, where) for info in infos}
    except (*DAMAGED_ZIP, OSError) as error:
        raise _damaged(where, reason_of(error), "zip archive") from error


def _require_small(info: zipfile.ZipInfo, size: int, most: int, where: str) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
