"""JSON of another program, member by member: what is missing or of another type is an error that names file and place."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from xdet.errors import DataError
from xdet.report import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Member:
    """A value and where it stands.

    Attributes:
        file: the file as the caller named it.
        path: such as ``columns[1].cpu``; empty for the whole document.
        value: what ``json`` made of it.
        advice: what to do about a bad file.
    """

    file: str
    path: str
    value: Any
    advice: str

    def at(self, name: str) -> Member:
        """A member of an object, which must be there."""
        if not isinstance(self.value, dict):
            self.refuse("an object")
        path = f"{self.path}.{printable(name)}" if self.path else printable(name)
        if name not in self.value:
            raise DataError(f"'{self.file}' has no {path}; {self.advice}")
        return Member(self.file, path, self.value[name], self.advice)

    def items(self) -> tuple[Member, ...]:
        """All members of a list."""
        if not isinstance(self.value, list):
            self.refuse("a list")
        return tuple(
            Member(self.file, f"{self.path}[{i}]", value, self.advice) for i, value in enumerate(self.value)
        )

    def names(self) -> tuple[str, ...]:
        """The names of an object's members."""
        if not isinstance(self.value, dict):
            self.refuse("an object")
        return tuple(self.value)

    @property
    def is_null(self) -> bool:
        """Whether the value is null."""
        return self.value is None

    def text(self) -> str:
        """A text that is not empty."""
        return self.value if isinstance(self.value, str) and self.value else self.refuse("a text")

    def choice(self, *among: str) -> Any:
        """One of some texts."""
        return self.value if self.value in among else self.refuse(f"one of {', '.join(among)}")

    def flag(self) -> bool:
        """True or false."""
        return self.value if isinstance(self.value, bool) else self.refuse("true or false")

    def count(self, *, most: int | None = None) -> int:
        """An integer from 0 to ``most``."""
        whole = isinstance(self.value, int) and not isinstance(self.value, bool) and self.value >= 0
        if not whole or (most is not None and self.value > most):
            self.refuse("a count" if most is None else f"a count of at most {most}")
        return int(self.value)

    def distance(self) -> float:
        """A number that is not negative; null is infinite."""
        if self.value is None:
            return math.inf
        number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        if not number or not 0 <= self.value <= sys.float_info.max:
            self.refuse("a distance (a number from 0, or null)")
        return float(self.value)

    def sha256(self) -> str:
        """A digest in lower-case hex digits."""
        digits = isinstance(self.value, str) and re.fullmatch("[0-9a-f]{64}", self.value)
        return str(self.value) if digits else self.refuse("a SHA-256 in hex digits")

    def require(self, expected: Sequence[str | int], what: str) -> None:
        """Refuse any value that is none of ``expected``, in words of the caller's."""
        if self.value not in expected or isinstance(self.value, bool):
            self.refuse(what)

    def refuse(self, expected: str) -> NoReturn:
        """Raise the error that says what stands here and what should."""
        told = json.dumps(self.value)
        told = told if len(told) <= 60 else told[:57] + "..."
        raise DataError(
            f"'{self.file}': {self.path or 'the document'} is {told}, expected {expected}; {self.advice}"
        )


def read_json_member(path: Path, advice: str) -> Member:
    """A whole file as a member.

    Raises:
        DataError: it cannot be read, is no JSON, repeats a name, or holds numbers that are none.
    """
    try:
        value = json.loads(
            path.read_text("utf-8"), object_pairs_hook=_without_repeats, parse_constant=_refuse_constant
        )
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}; {advice}") from error
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise DataError(f"'{path}' is no JSON: {error}; {advice}") from error
    return Member(str(path), "", value, advice)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"repeated names: {', '.join(map(repr, repeated))}")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
