"""``require.count(value, "what")`` and its like: each returns a sound value, or raises ValueError with its name.

``True`` is no number, ``7.0`` no count, ``"p"`` no list of names: a metadata document is read from files that
anybody may have written, so a wrong type must be told here instead of raising TypeError somewhere later.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def fields(
    owner: object, check: Callable[[object, str], object], *names: str, of: str = "", optional: bool = False
) -> None:
    """Check attributes of an object one by one; ``of`` stands in front of their names, ``optional`` allows None."""
    for name in names:
        value = getattr(owner, name)
        if value is not None or not optional:
            check(value, f"{of} {name}".strip())


def number(value: object, what: str) -> float:
    """A finite int or float."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise ValueError(f"{what} must be a finite number, got {value!r}")
    return value


def fraction(value: object, what: str) -> float:
    """An int or float within 0 .. 1."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{what} must be a number, got {value!r}")  # noqa: TRY004 - one error type for malformed data
    if not 0 <= value <= 1:
        raise ValueError(f"{what} must lie in 0..1, got {value!r}")
    return value


def count(value: object, what: str, *, low: int = 1, high: int = 2**31 - 1) -> int:
    """An int within ``low`` .. ``high``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{what} must be a whole number in {low}..{high}, got {value!r}")
    return value


def flag(value: object, what: str) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{what} must be true or false, got {value!r}")  # noqa: TRY004 - one error type for malformed data
    return value


def text(value: object, what: str) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{what} must be text, got {value!r}")
    return value


def release(value: object, what: str) -> str:
    """A release as ``"1.24"``: whole numbers with dots between them."""
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}", text(value, what)) is None:
        raise ValueError(f"{what} must be a release such as '1.24', got {value!r}")
    return str(value)


def texts(value: object, what: str) -> tuple[str, ...]:
    """A list or tuple of texts; a bare text is none."""
    return tuple(text(entry, f"each of {what}") for entry in entries(value, what))


def entries(value: object, what: str) -> Sequence[object]:
    """A list or tuple."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{what} must be a list, got {value!r}")  # noqa: TRY004 - one error type for malformed data
    return value


def pair(value: object, what: str) -> tuple[float, float]:
    """A (width, height) pair of numbers above 0."""
    sides = [number(entry, f"each of {what}") for entry in entries(value, what)]
    if len(sides) != 2 or min(sides) <= 0:
        raise ValueError(f"{what} must be a (width, height) pair above 0, got {value!r}")
    return sides[0], sides[1]


def choice(value: object, literal: object, what: str) -> str:
    """One of the texts of a ``Literal``."""
    choices = get_args(literal)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(choices)}, got {value!r}")
    return value


def instance(value: object, kind: type | tuple[type, ...], what: str) -> None:
    """An object of a class that validates itself."""
    if not isinstance(value, kind):
        names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{what} must be a {names}, got {value!r}")  # noqa: TRY004 - one error type for malformed data


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond the range of a float
        return False
