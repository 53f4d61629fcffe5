"""Model files: reading a source once, writing a result whole or not at all, telling formats apart.

Writing: the bytes go to a temporary name in the target's folder, which then moves over the target: no reader, crash or
full disk finds half a file. A symbolic link is followed; a device such as ``/dev/null`` is written to directly.

What may be replaced: never a file that the same command reads, whatever name or link leads to it, and another file only
where the user forces it or its first bytes prove that this program made it.

Reading: only regular files, never more bytes than files of the kind have, and of a large file no more than its
beginning until that tells that it is a model. A pipe, a device or a folder is refused at once and never waited for.

Formats (``converters.sources`` says which there are) are told from the bytes alone: names and suffixes lie. Only the
standard library is imported, so whoever runs a finished model can ask, too. Every check looks at a few bytes near the
start; a file that was cut off later keeps its format: its own reader says what is missing.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

from converters.errors import OptionError, OutputError

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from io import BufferedReader
    from pathlib import Path

# What writing can raise: RuntimeError is a loop of links, ValueError a path with a NUL character.
WRITE_ERRORS = (OSError, RuntimeError, ValueError)
LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # what Git leaves where LFS did not fetch a file
MARK_BYTES = 1024  # what is read of a file to see whose it is


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, replacing what was there; the folder must exist.

    Raises:
        OSError: the folder is missing or not writable, the target is a folder, or the disk is full.
        RuntimeError: the path is a loop of links.
        ValueError: no system accepts the path.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        target.write_bytes(data)
        return
    temporary = target.with_name(f".xdet-{os.urandom(6).hex()}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def refuse_replacing(
    targets: Mapping[Path, re.Pattern[bytes] | None], inputs: Iterable[Path], *, force: bool
) -> str | None:
    """Why these targets may not be written, by the rule above; None where they may.

    Args:
        targets: each file to write, with the mark that such a file of ours begins with; None where it has none.
        inputs: the files that the command reads; looked at only where a target exists.
        force: replace files that are not provably ours, too.
    """
    identities = {target: _identity(target) for target in targets}
    existing = {identity: target for target, identity in identities.items() if identity is not None}
    for path in inputs if existing else ():
        identity = _identity(path)
        if identity in existing:
            return f"'{existing[identity]}' is a file that this command reads ('{path}'); name another to write to"
    for target, mark in () if force else targets.items():
        if identities[target] is not None and (mark is None or not mark.match(_beginning(target))):
            return f"'{target}' exists already; give `force` to replace it, or name another"
    return None


def _identity(path: Path) -> tuple[int, int] | None:
    """What is the same for all names and links of one regular file; None where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None  # missing, or writing and reading it tells why not
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MARK_BYTES)
    except OSError:
        return b""  # not to be read: not provably ours


def write_problem(error: Exception, path: Path) -> str:
    """What went wrong while writing ``path``, in words, and what to do about it."""
    if isinstance(error, IsADirectoryError) or (isinstance(error, PermissionError) and path.is_dir()):
        return "it is a folder; give a file name"
    if isinstance(error, FileNotFoundError):
        return f"the folder '{path.parent}' does not exist; create it or choose another"
    if isinstance(error, PermissionError):
        return "permission denied; choose a place you may write to"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"not a usable path ({error})"


LARGEST_MODEL = 2**31 - 1  # both ONNX (protobuf) and TFLite (32-bit offsets) end here
SNIFFED_BYTES = 1 << 20  # of a larger file no more is read, unless they begin a model
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@contextmanager
def open_regular(path: Path, largest: int) -> Iterator[BufferedReader]:
    """Open a regular file of at most ``largest`` bytes for reading; nothing else is opened in a way that waits.

    Raises:
        OSError: there is none, it cannot be read, is no regular file, or is larger; ``strerror`` says which, in words.
        ValueError: no system accepts the path.
    """
    _require_regular(path.stat(), largest)  # first, since opening a device may already do something
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        _require_regular(os.fstat(descriptor), largest)  # again, since it may have been exchanged in between
        yield file


def read_regular(path: Path, largest: int) -> bytes:
    """All bytes of a regular file of at most ``largest`` bytes.

    Raises:
        OSError: as ``open_regular``, or it does not fit into memory.
        ValueError: no system accepts the path.
    """
    try:
        with open_regular(path, largest) as file:
            data = file.read(largest + 1)
    except MemoryError as error:
        raise OSError(errno.ENOMEM, "it does not fit into memory") from error
    if len(data) > largest:  # it grew, or its system does not tell sizes, as Linux's /proc
        raise OSError(errno.EFBIG, f"it has more than {largest:,} bytes, the most that such a file may have")
    return data


def read_model_bytes(path: Path, is_model: Callable[[bytes], object]) -> bytes:
    """A model's bytes; of a file that ``is_model`` tells to be none by its beginning, the beginning.

    Raises:
        OSError: as ``read_regular``, or the file is a Git LFS pointer.
        ValueError: no system accepts the path.
    """
    with open_regular(path, LARGEST_MODEL) as file:
        start = file.read(SNIFFED_BYTES)
    if start.startswith(LFS_POINTER):
        raise OSError(
            errno.EINVAL,
            "it is a Git LFS pointer, not the model; run git lfs pull in its repository, or download the file itself",
        )
    if len(start) < SNIFFED_BYTES or not is_model(start):
        return start
    return read_regular(path, LARGEST_MODEL)


def _require_regular(status: os.stat_result, largest: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, expected a file")
    if status.st_size > largest:
        raise OSError(
            errno.EFBIG, f"it has {status.st_size:,} bytes, more than {largest:,}, the most that such a file may have"
        )


def require_writable(output: Path, *, inputs: Iterable[Path], force: bool) -> None:
    """Refuse an output that exists (unless ``force``), is an input, or has no folder, before any work is done.

    Raises:
        OptionError: the file exists and ``force`` is not set, or it is one of ``inputs``.
        OutputError: the folder is missing, or ``output`` is a folder or no usable path.
    """
    with _output_errors(output):
        if output.is_dir():
            raise OutputError(f"{output}: is a folder; name the ONNX file to write")
        problem = refuse_replacing({output: None}, inputs, force=force)
        if problem is not None:
            raise OptionError(f"{problem} with -o")
        if not output.parent.is_dir():
            raise OutputError(f"{output}: its folder {output.parent} does not exist; create it first")


def write_output(output: Path, data: bytes) -> None:
    """Write ``data`` whole or not at all.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    with _output_errors(output):
        write_whole(output, data)


@contextmanager
def _output_errors(output: Path) -> Iterator[None]:
    try:
        yield
    except WRITE_ERRORS as error:
        raise OutputError(f"{output}: cannot be written: {write_problem(error, output)}") from error


HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
KERAS_MEMBERS = (b"metadata.json", b"config.json", b"model.weights.h5")

# ModelProto's fields by number (onnx.proto): those with wire type 0, a varint, and 2, length-delimited.
ONNX_VARINTS = frozenset((1, 5))
ONNX_MESSAGES = frozenset((2, 3, 4, 6, 7, 8, 14, 20, 25, 26))
ONNX_GRAPH = 7
ONNX_METADATA = (14, 2)
FINISHED = "onnx"  # the format of finished models, which are no sources
DOCUMENT_ENTRY = b"\n\x04xdet"  # how an entry with the key of our document begins
ONNX_MAX_IR_VERSION = 127
ONNX_MAX_FIELDS = 4096  # that many may stand before the graph; exporters write fewer than ten


def is_finished(data: bytes) -> bool:
    """An ONNX file that carries our document, or one that does not end where its fields say: its reader tells that."""
    if not is_onnx(data):
        return False
    position = 0
    while position < len(data):
        key, position = _read_varint(data, position)
        number, wire_type = key >> 3, key & 7
        length, behind = _read_varint(data, position) if wire_type in (0, 2) else (0, position)
        size = {0: 0, 1: 8, 2: length, 5: 4}.get(wire_type)
        if number == 0 or size is None or position >= len(data) or behind + size > len(data):
            return True
        position = behind + size
        if (number, wire_type) == ONNX_METADATA and data[behind : behind + len(DOCUMENT_ENTRY)] == DOCUMENT_ENTRY:
            return True
    return False


def is_tflite(data: bytes) -> bool:
    """A FlatBuffer's file identifier follows the offset of its root table."""
    return data[4:8] == b"TFL3"


def is_h5(data: bytes) -> bool:
    """An HDF5 superblock starts at byte 0, or behind a user block of 512, 1024, 2048, ... bytes."""
    starts = [0]
    while (behind := max(512, 2 * starts[-1])) < len(data):
        starts.append(behind)
    return any(data.startswith(HDF5_SIGNATURE, start) for start in starts)


def is_keras(data: bytes) -> bool:
    """A zip archive whose first member is one that Keras writes."""
    if not data.startswith(b"PK\x03\x04") or len(data) < 30:
        return False
    (length,) = struct.unpack_from("<H", data, 26)
    return data[30 : 30 + length] in KERAS_MEMBERS


def is_onnx(data: bytes) -> bool:
    """A protobuf message that starts with ModelProto's ir_version and has only its fields up to the graph."""
    if not (data.startswith(b"\x08") and 0 < _read_varint(data, 1)[0] <= ONNX_MAX_IR_VERSION):
        return False
    position = 0
    for _ in range(ONNX_MAX_FIELDS):
        key, position = _read_varint(data, position)
        number, wire_type = key >> 3, key & 7
        if number == ONNX_GRAPH and wire_type == 2:
            return True
        value, position = _read_varint(data, position)
        if wire_type == 2 and number in ONNX_MESSAGES:
            position += value
        elif wire_type != 0 or number not in ONNX_VARINTS:
            return False
    return False


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """A protobuf varint and the position behind it; 0 where the data ends, which is no field's key."""
    value = 0
    for i, byte in enumerate(data[position : position + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, position + i + 1
    return 0, len(data)
