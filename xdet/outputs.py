"""Writing results: a file appears whole or not at all (``converters.atomic``), and trouble is an ``OutputError``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from converters.atomic import WRITE_ERRORS, write_problem, write_whole
from xdet.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, replacing what was there.

    Args:
        path: the target; its folder must exist.
        data: the whole content.

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
    r"""UTF-8; lone surrogates (file names that are no UTF-8) become ``\udcXX``, which JSON reads back as the same name."""
    return text.encode("utf-8", "backslashreplace")


def require_target(path: Path) -> None:
    """Refuse a file that cannot be written, before the work whose result it is to hold; nothing is written yet.

    Raises:
        OutputError: the target is a folder, its own folder is missing or not writable, or no system takes the path.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError
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
