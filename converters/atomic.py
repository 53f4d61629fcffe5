"""Writing a file whole or not at all.

The bytes go to a temporary name in the target's folder, which then moves over the target: no reader, crash or full
disk finds half a file. A symbolic link is followed; a device such as ``/dev/null`` is written to directly.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# What writing can raise: RuntimeError is a loop of links, ValueError a path with a NUL character.
WRITE_ERRORS = (OSError, RuntimeError, ValueError)


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
    temporary = target.with_name(f".xdet-{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


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
