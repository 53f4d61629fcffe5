"""Writing results: a file appears whole or not at all, or grows line by line; trouble is an ``OutputError``.

Every command names its outputs and inputs to ``require_outputs`` before it works. What it makes carries a mark near its
beginning, by which a later run knows that it may replace it.

A file of lines grows while a command works, so that an interrupted one goes on where it stopped. It begins with a
header, which tells it from every other. Each further line is appended with a single write. The half line of a killed
process is cut off. Any other file is refused, and keeps every byte.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.files import MARK_BYTES, WRITE_ERRORS, open_regular, refuse_replacing, write_problem, write_whole
from xdet.errors import DataError, OutputError, UsageError
from xdet.writing.text import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from io import FileIO

SOFTWARE = "xdet"  # the Software text of a PNG, and the comment of a JPEG
PICTURE_MARK = re.compile(
    rb"\x89PNG\r\n\x1a\n.{25}.{4}tEXtSoftware\x00xdet|\xff\xd8\xff\xe0\x00\x10JFIF\x00.{9}\xff\xfe\x00\x06xdet",
    re.DOTALL,
)
MODEL_MARK = re.compile(rb"\x08.\x12\x04xdet", re.DOTALL)  # ONNX: ir_version, then producer_name
PAGE_START = '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="generator" content="xdet">'
PAGE_MARK = re.compile(re.escape(PAGE_START.encode()))
LARGEST_GROWN = 1 << 30  # bytes of a file of lines: about 100,000 photographs with 100 boxes each


def to_json(schema: str, version: int, members: Mapping[str, Any]) -> str:
    """A result as JSON text with a final newline; equal members give equal bytes; inf and NaN are null."""
    document = {"schema": schema, "version": version, **members}
    return json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(member) for key, member in value.items()}
    return [_finite(member) for member in value] if isinstance(value, list | tuple) else value


def json_mark(schema: str) -> re.Pattern[bytes]:
    """How a JSON file of this schema begins."""
    return re.compile(rb'\{\s*"schema": "' + re.escape(schema.encode()) + b'"')


def has_mark(path: Path, mark: re.Pattern[bytes]) -> bool:
    """Whether a file begins as one of ours; False where it cannot be read."""
    try:
        with open_regular(path, 1 << 62) as file:
            return mark.match(file.read(MARK_BYTES)) is not None
    except (OSError, ValueError):
        return False


@dataclass(frozen=True, slots=True)
class Output:
    """A file that a command is going to write, perhaps in a folder that it makes.

    ``mark`` is what such a file of ours begins with; None where nothing proves whose a file is.
    """

    path: Path
    mark: re.Pattern[bytes] | None = None
    in_new_folder: bool = False


def require_outputs(outputs: Sequence[Output], inputs: Iterable[Path], *, force: bool) -> None:
    """Refuse outputs that would destroy something or cannot be written, before any work; nothing is written yet.

    ``inputs`` are all files that the command reads: models with their sidecars, pictures, annotations. ``force``
    replaces existing files that are not provably ours, too, but never an input.

    Raises:
        UsageError: an output is an input, exists and is not ours, or is named twice.
        OutputError: one cannot be written.
    """
    problem = refuse_replacing({output.path: output.mark for output in outputs}, inputs, force=force)
    if problem is not None:
        raise UsageError(problem)
    places: set[str] = set()
    for output in outputs:
        if is_folder(output.path.parent) or not output.in_new_folder:
            require_target(output.path)
        place = os.path.realpath(output.path)
        if place in places and not output.path.is_char_device():
            raise UsageError(f"'{output.path}' is named for two outputs; name two files")
        places.add(place)


def require_apart(folder: Path, photographs: Sequence[Path]) -> None:
    """Refuse to put pictures among the photographs that they are made of.

    Raises:
        UsageError: a photograph, or what its link points to, lies in ``folder``.
    """
    if not is_folder(folder):
        return
    for photograph in photographs:
        for place in (photograph.parent, Path(os.path.realpath(photograph)).parent):
            if is_folder(place) and place.samefile(folder):
                raise UsageError(
                    f"'{folder}' holds the photograph '{photograph}'; name another folder for the pictures"
                )


def with_sidecars(models: Iterable[Path]) -> Iterator[Path]:
    """Each model and the place of its sidecar."""
    from converters.spec import SIDECAR_SUFFIX  # with numpy, which --help can do without

    for model in models:
        yield model
        yield model.parent / f"{model.stem}{SIDECAR_SUFFIX}"


def write_changed(
    contents: Mapping[Path, bytes], marks: Mapping[Path, re.Pattern[bytes]], inputs: Iterable[Path], *, force: bool
) -> None:
    """Write files in their order, with their folders, but for those that hold the same bytes already.

    Raises:
        UsageError, OutputError: as ``require_outputs``, before the first is written.
    """
    changed = {path: data for path, data in contents.items() if not _holds(path, data)}
    require_outputs([Output(path, marks.get(path), in_new_folder=True) for path in changed], inputs, force=force)
    for path, data in changed.items():
        make_folder(path.parent)
        write_bytes(path, data)


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data
    except (OSError, ValueError):
        return False


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, replacing what was there.

    Raises:
        OutputError: the folder is missing or not writable, the target is a folder, or the disk is full.
    """
    try:
        write_whole(path, data)
    except WRITE_ERRORS as error:
        raise OutputError(f"cannot write '{path}': {write_problem(error, path)}") from error


def write_text(path: Path, text: str) -> None:
    r"""Write ``text`` to ``path`` as ``encode_text`` gives it: with ``\n`` line ends on every system.

    Raises:
        OutputError: as ``write_bytes``.
    """
    write_bytes(path, encode_text(text))


def encode_text(text: str) -> bytes:
    r"""UTF-8; lone surrogates (file names that are no UTF-8) become ``\udcXX``, which JSON reads as the same name."""
    return text.encode("utf-8", "backslashreplace")


def require_target(path: Path) -> None:
    """Refuse a file that cannot be written, before the work whose result it is to hold; nothing is written yet.

    Raises:
        OutputError: the target is a folder, its own folder is missing or not writable, or no system takes the path.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError
        path.resolve()
        if not path.parent.is_dir():
            raise FileNotFoundError
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise PermissionError
    except WRITE_ERRORS as error:
        raise OutputError(f"cannot write '{path}': {write_problem(error, path)}") from error


def make_folder(path: Path) -> None:
    """Create the folder ``path`` with its parents, unless it is there.

    Raises:
        OutputError: a file is in the way, or the parent cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"cannot create the folder '{path}': a file of that name is in the way") from error
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot create the folder '{path}': {write_problem(error, path)}") from error


def is_folder(path: Path) -> bool:
    """Whether it is one; False for what no system takes, such as a name that is too long: using it tells."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises


class AppendedFile:
    """The file, open for more; a new one is made if it is missing or empty.

    Args:
        path: the file.
        header: its first bytes, whole lines.
        line_start: how every further line begins; b"" where lines begin in any way.
        read_line: takes a line that is there, without its end; gives its record, equal for all lines of one, or None
            if it is none of ours.
        what: what a line is, for messages.
        advice: what to do about a file of another kind, and about one that cannot be written.
        redo_last: cut off the lines of the last record, too: where a record has several, some may be missing.
        headless: a file that begins with ``line_start`` is ours, too.
        alone: no other process may write to it until ``close``.
        anew: empty it first, whatever it holds.

    Attributes:
        cut: the record whose lines were cut off; None where there was none.

    Raises:
        DataError: the file exists and is of another kind.
        OutputError: it cannot be read or written, or another process writes to it.
    """

    def __init__(
        self,
        path: Path,
        header: bytes,
        *,
        line_start: bytes,
        read_line: Callable[[bytes], object],
        what: str,
        advice: tuple[str, str],
        redo_last: bool = False,
        headless: bool = False,
        alone: bool = False,
        anew: bool = False,
    ) -> None:
        self.cut: Any = None
        self._path = path
        self._unlike = f"is no {what}; {advice[0]}"
        with ExitStack() as lock:
            try:
                if alone:
                    lock.enter_context(_lock(path))
                end = 0
                if path.exists() and not anew:
                    whole, last = self._read(header, line_start, read_line, headless=headless)
                    end, self.cut = last if redo_last else (whole, None)
                with path.open("ab") as file:
                    file.truncate(end)
            except (OSError, ValueError) as error:
                raise OutputError(f"cannot write '{path}': {reason(error)}; {advice[1]}") from error
            if not end:
                self.append(header)
            self._lock = lock.pop_all()

    def close(self) -> None:
        """Let other processes write to it."""
        self._lock.close()

    def append(self, lines: bytes) -> None:
        """Add whole lines.

        Raises:
            OutputError: they cannot be written.
        """
        try:
            with self._path.open("ab", buffering=0) as file:
                written = file.write(lines)
        except OSError as error:
            raise OutputError(f"cannot write '{self._path}': {reason(error)}") from error
        if written != len(lines):
            raise OutputError(f"cannot write '{self._path}': only a part of a line fits; make room on the disk")

    def _read(
        self, header: bytes, line_start: bytes, read_line: Callable[[bytes], object], *, headless: bool
    ) -> tuple[int, tuple[int, object]]:
        """Where the whole records end, where the last of them begins, and whose it is.

        A foreign file may be of any kind and size, so its beginning is looked at first.
        """
        with open_regular(self._path, LARGEST_GROWN) as file:
            start = file.read(len(header))
            number = end = 0
            if start == header:
                number, end = start.count(b"\n"), len(start)
            elif headless and start.startswith(line_start):
                file.seek(0)
            elif start:
                raise self._problem(1)
            last: tuple[int, object] = (end, None)
            for line in file:
                number += 1
                if not line.endswith(b"\n"):
                    if number == 1 or not (line.startswith(line_start) or line_start.startswith(line)):
                        raise self._problem(number)
                    break  # the half line of a killed process
                record = read_line(line[:-1])
                if record is None:
                    raise self._problem(number)
                if record != last[1]:
                    last = (end, record)
                end += len(line)
        return end, last

    def _problem(self, number: int) -> DataError:
        return DataError(f"'{self._path}', line {number}, {self._unlike}")


def _lock(path: Path) -> FileIO:
    """The file, made where it is missing, locked until it is closed, or the process ends in any way.

    Raises:
        OutputError: another process holds the lock.
    """
    if path.exists():
        with open_regular(path, LARGEST_GROWN):  # a pipe, which would wait for a reader, is refused
            pass
    with ExitStack() as stack:
        file = stack.enter_context(path.open("ab", buffering=0))
        try:
            if sys.platform == "win32":
                import msvcrt

                os.lseek(file.fileno(), 1 << 60, os.SEEK_SET)  # what is locked cannot be read: a byte behind all lines
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise OutputError(
                f"another process writes to '{path}'; wait until it has ended, or name another file"
            ) from error
        stack.pop_all()
    return file
