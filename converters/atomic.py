"""Writing a file whole or not at all.

The bytes go to a temporary name in the target's folder, which then moves over the target: no reader, crash or full
disk finds half a file. A symbolic link is followed; a device such as ``/dev/null`` is written to directly.

What may be replaced: never a file that the same command reads, whatever name or link leads to it, and another file only where
the user forces it or its first bytes prove that this program made it.
"""

from __future__ import annotations

import secrets
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Mapping
    from pathlib import Path

# What writing can raise: RuntimeError is a loop of links, ValueError a path with a NUL character.
WRITE_ERRORS = (OSError, RuntimeError, ValueError)
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
    temporary = target.with_name(f".xdet-{secrets.token_hex(6)}.tmp")
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
    found = {target: _identity(target) for target in targets}
    existing = {identity: target for target, identity in found.items() if identity is not None}
    for path in inputs if existing else ():
        identity = _identity(path)
        if identity in existing:
            return f"'{existing[identity]}' is a file that this command reads ('{path}'); name another to write to"
    for target, mark in () if force else targets.items():
        if found[target] is not None and (mark is None or not mark.match(_beginning(target))):
            return f"'{target}' exists already; give --force to replace it, or name another"
    return None


def _identity(path: Path) -> tuple[int, int] | None:
    """What is the same for all names and links of one regular file; None where there is none."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None  # missing, or writing and reading it tells why not
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


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
