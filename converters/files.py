"""Model files: reading a source once, writing a result whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from converters.errors import OptionError, OutputError, SourceFileError

MAX_SOURCE_BYTES = 1 << 31


def read_source(path: Path) -> bytes:
    """All bytes of a source model.

    Raises:
        SourceFileError: no such file, not a file, unreadable, or larger than 2 GiB.
    """
    try:
        if path.is_dir():
            msg = f"{path}: expected a model file, found a folder"
            raise SourceFileError(msg)
        if path.stat().st_size > MAX_SOURCE_BYTES:
            msg = f"{path}: {path.stat().st_size} bytes; models of this family have far less than {MAX_SOURCE_BYTES}"
            raise SourceFileError(msg)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"
        raise SourceFileError(msg) from error


def require_writable(output: Path, *, force: bool) -> None:
    """Refuse an output that exists (unless ``force``) or whose folder is missing, before any work is done.

    Raises:
        OptionError: the file exists and ``force`` is not set.
        OutputError: the folder is missing, or ``output`` is a folder.
    """
    if output.is_dir():
        msg = f"{output}: is a folder; name the ONNX file to write"
        raise OutputError(msg)
    if output.exists() and not force:
        msg = f"{output}: exists already; give --force to replace it, or another name with -o"
        raise OptionError(msg)
    if not output.parent.is_dir():
        msg = f"{output}: its folder {output.parent} does not exist; create it first"
        raise OutputError(msg)


def write_atomically(output: Path, data: bytes) -> None:
    """Write ``data`` under a temporary name in the same folder, then rename: readers see the old file or the whole new one.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=output.parent, prefix=f".{output.name}.", delete=False
        ) as stream:
            temporary = Path(stream.name)
            stream.write(data)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(output)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        msg = f"{output}: cannot be written: {error.strerror or error}"
        raise OutputError(msg) from error


def _umask() -> int:
    """The process's file mode mask; reading it means setting it, so it is set back at once."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
