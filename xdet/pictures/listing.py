"""What a command line names: files, folders, addresses, patterns, and lists in a file or on standard input."""

from __future__ import annotations

import glob
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from converters.files import read_regular
from xdet.errors import DataError, UsageError, import_extra
from xdet.pictures.addresses import Address, is_address, is_stored
from xdet.pictures.images import SUFFIXES, find_images, walk_images
from xdet.pictures.video import STREAM_SUFFIXES, VIDEO_SUFFIXES, Film
from xdet.writing.files import PICTURE_MARK, has_mark
from xdet.writing.text import reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LARGEST_LIST = 1 << 28  # bytes: some million names
STDIN = "-"
_ARCHIVES = frozenset((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"))


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a command line names, each once, in its order."""

    images: list[Path | Address]
    films: list[Film]
    left_out: int  # pictures in subfolders that xdet has drawn boxes in


def list_inputs(
    named: Sequence[str], *, recursive: bool = False, without: Path | None = None, stores: bool = False
) -> Inputs:
    """The pictures and films that a command line names.

    Args:
        named: files; addresses; folders, which give their pictures; patterns with ``*``, ``?``, ``[]``, ``**``;
            ``@FILE`` with a name per line; ``-`` for such a list on standard input.
        recursive: search the subfolders of folders, too, by name, but for hidden ones; pictures there that xdet has
            drawn boxes in are left out.
        without: a folder that is not searched: where pictures with boxes go.
        stores: list addresses in stores (``s3://bucket/photos``), too, instead of refusing them.

    Raises:
        UsageError: an address of another kind, an archive, or pictures with boxes would go among the photographs.
        DataError: a list, folder or pattern gives no image, or cannot be read.
    """
    images: dict[Path | Address, None] = {}
    films: dict[Film, None] = {}
    left_out: list[Path] = []
    for name in _names(named):
        if stores and is_stored(name):
            images.update(dict.fromkeys(list_stored(name, recursive=recursive)))
            continue
        if is_address(name) and not os.path.lexists(name):
            address = Address(name)
            if _is_film(address):
                films[Film.of_address(address)] = None
            else:
                images[address] = None
            continue
        path = Path(name)
        if path.suffix.lower() in _ARCHIVES and not path.is_dir():
            raise UsageError(f"'{path}' is an archive, which xdet does not read; unpack it and name its folder")
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir():
            films[Film.of_file(path)] = None
        else:
            if recursive and without is not None and path.is_dir() and without.is_dir() and path.samefile(without):
                raise UsageError(f"'{without}' holds the photographs; name another folder for the pictures")
            within = _walk(path, without, left_out) if recursive and path.is_dir() else find_images([path])
            images.update(dict.fromkeys(within))
    return Inputs(list(images), list(films), len(left_out))


def list_stored(uri: str, *, recursive: bool = False) -> list[Address]:
    """The photograph at an address in a store, or those of the folder at it, by name.

    Raises:
        DataError: there is none, or the store does not answer.
        MissingExtraError: pyarrow is not installed.
    """
    import_extra("pyarrow", "pyarrow, which reads stores,", "ray")
    from pyarrow import fs

    scheme = uri.partition("://")[0]
    try:
        store, path = fs.FileSystem.from_uri(uri)
        if store.get_file_info(path).type == fs.FileType.File:
            return [Address(uri, in_store=True)]
        entries = store.get_file_info(fs.FileSelector(path, recursive=recursive, allow_not_found=True))
        files = sorted(entry.path for entry in entries if entry.type == fs.FileType.File)
    except (OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"cannot list '{uri}': {reason(error)}") from error
    images = [name for name in files if Path(name).suffix.lower() in SUFFIXES]
    if not images:
        below = "" if recursive else "; --recursive searches below it"
        raise DataError(f"no image at '{uri}'; looked for {' '.join(sorted(SUFFIXES))}{below}")
    return [Address(f"{scheme}://{name}", in_store=True) for name in images]


def _is_film(address: Address) -> bool:
    if address.is_stream or address.suffix in VIDEO_SUFFIXES | STREAM_SUFFIXES:
        return True
    if address.suffix in SUFFIXES:
        return False
    from xdet.pictures.download import is_film

    return is_film(address)


def _names(named: Sequence[str]) -> Iterator[str]:
    """Lists read and patterns expanded; a file that is there by its very name is no list or pattern."""
    for text in named:
        if text == STDIN:
            yield from _lines(sys.stdin.buffer.read(LARGEST_LIST), "the list on standard input")
        elif os.path.lexists(text):
            yield text
        elif text.startswith("@"):
            try:
                data = read_regular(Path(text[1:]), LARGEST_LIST)
            except (OSError, ValueError) as error:
                raise DataError(f"cannot read the list '{text[1:]}': {reason(error)}") from error
            yield from _lines(data, f"the list '{text[1:]}'")
        elif glob.has_magic(text) and not is_address(text):
            fitting = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - absolute patterns, too
            if not fitting:
                raise DataError(f"no file fits the pattern '{text}'; check it, or name the files")
            # of folders that ** names their files are there, too
            yield from (name for name in fitting if "**" not in text or not Path(name).is_dir())
        else:
            yield text


def _lines(data: bytes, what: str) -> Iterator[str]:
    """A path per line, spaces at the ends left out; names are as the file system spells them."""
    if b"\0" in data:
        raise DataError(f"{what} is no text; write a path on each line, and name pictures themselves as files")
    lines = [line.strip() for line in os.fsdecode(data).splitlines()]
    if not any(lines):
        raise DataError(f"{what} names no image; write a path on each line")
    yield from (line for line in lines if line)


def _walk(folder: Path, without: Path | None, left_out: list[Path]) -> list[Path]:
    images: list[Path] = []
    for path in walk_images(folder, recursive=True, without=without):
        (left_out if has_mark(path, PICTURE_MARK) else images).append(path)
    if not images:
        drawn = f" but {len(left_out)} pictures with boxes of xdet" if left_out else ""
        raise DataError(
            f"no image in the folder '{folder}' and its subfolders{drawn}; looked for {' '.join(sorted(SUFFIXES))}"
        )
    return images
