"""Which images a command line names: files, folders, patterns, and lists in a file or on standard input."""

from __future__ import annotations

import glob
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from converters.files import open_regular
from xdet.errors import DataError, UsageError
from xdet.pictures.images import SUFFIXES, find_images

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LARGEST_LIST = 1 << 28  # bytes: some million names
STDIN = Path("-")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # longer than a drive's letter
# Suffix -> what it is, and what to do.
_UNSUPPORTED = {
    **dict.fromkeys(
        (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"), ("an archive", "unpack it and name its folder")
    ),
    **dict.fromkeys(
        (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"),
        ("a video", "save its frames as pictures first, such as with: ffmpeg -i VIDEO frames/%06d.png"),
    ),
}


def list_images(named: Sequence[Path], *, recursive: bool = False) -> list[Path]:
    """The image files that a command line names, each once, in its order.

    Args:
        named: files; folders; patterns with ``*``, ``?``, ``[]``, ``**``; ``@FILE`` with a name per line; ``-`` for such a list
            on standard input.
        recursive: search the subfolders of folders, too, by name, but for hidden ones.

    Raises:
        UsageError: an address, a video or an archive.
        DataError: a list, folder or pattern gives no image, or cannot be read.
    """
    paths: dict[Path, None] = {}
    for path in _names(named):
        _require_supported(path)
        paths.update(dict.fromkeys(_walk(path) if recursive and path.is_dir() else [path]))
    return find_images(list(paths))


def _names(named: Sequence[Path]) -> Iterator[Path]:
    """Lists read and patterns expanded; a file that is there by its very name is no list or pattern."""
    for path in named:
        text = str(path)
        if path == STDIN:
            yield from _lines(sys.stdin.buffer.read(LARGEST_LIST), "the list on standard input")
        elif os.path.lexists(path):
            yield path
        elif text.startswith("@"):
            yield from _lines(_read_list(Path(text[1:])), f"the list '{text[1:]}'")
        elif glob.has_magic(text) and not _ADDRESS.match(text):
            found = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - absolute patterns, too
            if not found:
                raise DataError(f"no file fits the pattern '{text}'; check it, or name the files")
            yield from (
                Path(name) for name in found if not ("**" in text and Path(name).is_dir())
            )  # its files are there, too
        else:
            yield path


def _read_list(path: Path) -> bytes:
    try:
        with open_regular(path, LARGEST_LIST) as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read the list '{path}': {getattr(error, 'strerror', None) or error}"
        ) from error


def _lines(data: bytes, what: str) -> Iterator[Path]:
    """A path per line, spaces at the ends left out; names are as the file system spells them."""
    if b"\0" in data:
        raise DataError(
            f"{what} is no text; write a path on each line, and name pictures themselves as files"
        )
    lines = [line.strip() for line in os.fsdecode(data).splitlines()]
    if not any(lines):
        raise DataError(f"{what} names no image; write a path on each line")
    yield from (Path(line) for line in lines if line)


def _require_supported(path: Path) -> None:
    if _ADDRESS.match(str(path)):
        raise UsageError(f"'{path}' is an address; xdet reads files: download it first")
    what = _UNSUPPORTED.get(path.suffix.lower())
    if what is not None and not path.is_dir():
        raise UsageError(f"'{path}' is {what[0]}, which xdet does not read; {what[1]}")


def _walk(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read the folder '{error.filename}': {error.strerror}") from error

    found: list[Path] = []
    for place, subfolders, names in os.walk(folder, onerror=refuse):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [
            Path(place, name)
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    if not found:
        raise DataError(
            f"no image in the folder '{folder}' and its subfolders; looked for {' '.join(sorted(SUFFIXES))}"
        )
    return found
