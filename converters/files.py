"""Model files: reading a source once, writing a result whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.atomic import WRITE_ERRORS, refuse_replacing, write_problem, write_whole
from converters.errors import OptionError, OutputError, SourceFileError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

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


def require_writable(output: Path, *, inputs: Iterable[Path], force: bool) -> None:
    """Refuse an output that exists (unless ``force``), is an input, or has no folder, before any work is done.

    Raises:
        OptionError: the file exists and ``force`` is not set, or it is one of ``inputs``.
        OutputError: the folder is missing, or ``output`` is a folder or no usable path.
    """
    try:
        if output.is_dir():
            msg = f"{output}: is a folder; name the ONNX file to write"
            raise OutputError(msg)
        problem = refuse_replacing({output: None}, inputs, force=force)
        if problem is not None:
            raise OptionError(f"{problem} with -o")
        if not output.parent.is_dir():
            msg = f"{output}: its folder {output.parent} does not exist; create it first"
            raise OutputError(msg)
    except WRITE_ERRORS as error:
        msg = f"{output}: cannot be written: {write_problem(error, output)}"
        raise OutputError(msg) from error


def write_output(output: Path, data: bytes) -> None:
    """Write ``data`` whole or not at all.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    try:
        write_whole(output, data)
    except WRITE_ERRORS as error:
        msg = f"{output}: cannot be written: {write_problem(error, output)}"
        raise OutputError(msg) from error
