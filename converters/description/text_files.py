"""Small text files that people write by hand: sidecars, zoo yaml, anchor lists, class lists.

They are UTF-8 (a byte order mark is allowed) and at most one mebibyte; what is larger was named by mistake.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from converters.errors import SourceFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 1 << 20


def read_small_text(path: Path, what: str) -> str:
    """Read a text file of at most ``MAX_BYTES``.

    Args:
        path: the file.
        what: what it is meant to be, for the message: ``"sidecar"``, ``"class list"``.

    Raises:
        SourceFileError: the file is missing, unreadable, too large, or not UTF-8.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceFileError(f"{what} '{path}' cannot be read: {reason}") from error
    if len(data) > MAX_BYTES:
        raise SourceFileError(f"{what} '{path}' is larger than {MAX_BYTES} bytes: is it the right file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = (
            f"{what} '{path}' is not UTF-8 text (byte {error.start}): save it as UTF-8, or name another file"
        )
        raise SourceFileError(msg) from error


def names_a_file(text: str) -> bool:
    """Whether ``text`` is the path of an existing file; text that cannot be a path is none."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def finite_float(value: float) -> float:
    """A JSON or yaml number as a float.

    Raises:
        ValueError: it is not finite, or an integer beyond the range of a float.
    """
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError("the number is too large") from error
    if not math.isfinite(number):
        raise ValueError(f"{value} is not a finite number")
    return number


@contextmanager
def located(where: str) -> Iterator[None]:
    """Turn a ValueError about some value into a SourceFileError that says where the value stands."""
    try:
        yield
    except ValueError as error:
        raise SourceFileError(f"{where}: {error}") from error
