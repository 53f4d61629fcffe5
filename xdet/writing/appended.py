"""A file of lines that grows while a command works, so that an interrupted one goes on where it stopped.

The file begins with a header, which tells it from every other. Each further line is appended with a single write. The
half line of a killed process is cut off. Any other file is refused, and keeps every byte.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from converters.files import open_regular
from xdet.errors import DataError, OutputError
from xdet.writing.text import reason

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO
    from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LARGEST = 1 << 30  # about 100,000 photographs with 100 boxes each


class AppendedFile:
    """The file, open for more; a new one is made if it is missing or empty.

    Args:
        path: the file.
        header: its first bytes, whole lines.
        line_start: how every further line begins; b"" where lines begin in any way.
        read_line: takes a line that is there, without its end; gives whose record it belongs to, or None if it is none
            of ours.
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
        read_line: Callable[[bytes], str | None],
        what: str,
        advice: tuple[str, str],
        redo_last: bool = False,
        headless: bool = False,
        alone: bool = False,
        anew: bool = False,
    ) -> None:
        self.cut: str | None = None
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
        self, header: bytes, line_start: bytes, read_line: Callable[[bytes], str | None], *, headless: bool
    ) -> tuple[int, tuple[int, str | None]]:
        """Where the whole records end, where the last of them begins, and whose it is.

        A foreign file may be of any kind and size, so its beginning is looked at first.
        """
        with open_regular(self._path, LARGEST) as file:
            start = file.read(len(header))
            number = end = 0
            if start == header:
                number, end = start.count(b"\n"), len(start)
            elif headless and start.startswith(line_start):
                file.seek(0)
            elif start:
                raise self._problem(1)
            last: tuple[int, str | None] = (end, None)
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
        with open_regular(path, LARGEST):  # a pipe, which would wait for a reader, is refused
            pass
    with ExitStack() as stack:
        file = stack.enter_context(path.open("ab", buffering=0))
        try:
            if sys.platform == "win32":
                os.lseek(file.fileno(), 1 << 60, os.SEEK_SET)  # what is locked cannot be read: a byte behind all lines
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise OutputError(
                f"another process writes to '{path}'; wait until it has ended, or name another file"
            ) from error
        stack.pop_all()
    return file
