"""Writing results: a file appears whole or not at all.

The bytes go to a temporary name in the target's folder, which then moves over the target: no
reader, crash or full disk finds half a file. A symbolic link is followed; a device such as ``/dev/null`` is
written to directly.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

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
        target = path.resolve()
        if target.exists() and not target.is_file():
            target.write_bytes(data)
        else:
            _replace_atomically(target, data)
    except (OSError, RuntimeError, ValueError) as error:
        raise OutputError(f"cannot write '{path}': {_reason(error, path)}") from error


def write_text(path: Path, text: str) -> None:
    r"""Write ``text`` to ``path`` as UTF-8 with ``\n`` line ends on every system.

    Lone surrogates (file names that are no UTF-8) become ``\udcXX``, which JSON reads back as the same name.

    Raises:
        OutputError: as ``write_bytes``.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


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
        raise OutputError(f"cannot create the folder '{path}': {_reason(error, path)}") from error


def _replace_atomically(target: Path, data: bytes) -> None:
    temporary = target.with_name(f".xdet-{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _reason(error: Exception, path: Path) -> str:
    """What went wrong, in words, and what to do about it."""
    if isinstance(error, IsADirectoryError) or (isinstance(error, PermissionError) and path.is_dir()):
        return "it is a folder; give a file name"
    if isinstance(error, FileNotFoundError):
        return f"the folder '{path.parent}' does not exist; create it or choose another"
    if isinstance(error, PermissionError):
        return "permission denied; choose a place you may write to"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"not a usable path ({error})"
