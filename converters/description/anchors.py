"""Anchors as people write them: an option's text, a file, a yaml or JSON list -> (width, height) pairs.

Accepted, with any blanks and line breaks: ``w,h w,h``; ``w,h,w,h``; ``w h w h``; ``[w,h],[w,h]`` with square
or round brackets; ``[[w, h], [w, h]]`` (JSON). Where the text shows groups, each group must be one pair:
``1,2,3 4`` is a slip of the pen, not two anchors. The unit is another matter (``converters.description.anchor_unit``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from converters.description.text_files import finite_float, names_a_file, read_small_text
from converters.errors import OptionError, SourceFileError
from converters.spec import Anchors

if TYPE_CHECKING:
    from collections.abc import Sequence

SizesWh = tuple[tuple[float, float], ...]

EXAMPLE = '--anchors "0.57,0.68 1.87,2.06"'
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_ONLY_NUMBERS = re.compile(r"[-+0-9.eE,\[\]()\s]*[0-9][-+0-9.eE,\[\]()\s]*")
_INNER_GROUP = re.compile(r"\[([^\[\]]*)\]")


def parse_anchors(text_or_path: str) -> SizesWh:
    """Read what ``--anchors`` was given: a list, or the name of a file that holds one.

    Text made only of digits, separators and brackets is a list; anything else is a file name.

    Returns:
        (width, height) pairs in the unit they were written in, in their order.

    Raises:
        OptionError: the text is neither a sound list nor a file.
        SourceFileError: the file cannot be read, or holds no sound list.
    """
    if _ONLY_NUMBERS.fullmatch(text_or_path):
        try:
            return sizes_from_text(text_or_path)
        except ValueError as error:
            raise OptionError(f"--anchors '{text_or_path}': {error}; write them like {EXAMPLE}") from error
    if not names_a_file(text_or_path):
        raise OptionError(
            f"--anchors '{text_or_path}' is neither a list of numbers nor a file; write {EXAMPLE}"
        )
    try:
        return sizes_from_text(read_small_text(Path(text_or_path), "anchor file"))
    except ValueError as error:
        raise SourceFileError(
            f"anchor file '{text_or_path}': {error}; write pairs like 0.57,0.68 1.87,2.06"
        ) from error


def sizes_from_text(text: str) -> SizesWh:
    """Read pairs from text (see the module's docstring).

    Raises:
        ValueError: something is no number, a group is no pair, or a size is not finite and above 0.
    """
    square = text.replace("(", "[").replace(")", "]")
    groups = _bracketed_groups(square) if "[" in square or "]" in square else _plain_groups(square)
    return sizes_from_values([[_number(token) for token in group] for group in groups])


def sizes_from_values(value: object) -> SizesWh:
    """Check pairs that a JSON or yaml reader already took apart: ``[[w, h], ...]`` or ``[w, h, w, h, ...]``.

    Raises:
        ValueError: not a list of pairs or an even list of numbers, or a size is not finite and above 0.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"expected a list of width, height pairs, found {value!r}")
    rows = value if all(isinstance(row, list) for row in value) else [value]
    numbers = [[_as_float(entry) for entry in row] for row in rows]
    if len(numbers) == 1:
        pairs = _pair_up(numbers[0])
    else:
        for number, row in enumerate(numbers, 1):
            if len(row) != 2:
                raise ValueError(f"group {number} has {len(row)} numbers, expected a width and a height")
        pairs = tuple((row[0], row[1]) for row in numbers)
    return Anchors(
        pairs, "cell"
    ).sizes_wh  # "cell" allows every size: only finiteness and sign are checked here


def _pair_up(numbers: Sequence[float]) -> SizesWh:
    if len(numbers) % 2:
        raise ValueError(f"{len(numbers)} numbers do not pair up as width, height")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _bracketed_groups(square: str) -> list[list[str]]:
    """The innermost brackets' contents, each split into tokens."""
    rest = _INNER_GROUP.sub("", square).strip().strip(",")
    if rest.replace(",", "").split() not in ([], ["[", "]"], ["[]"]):
        raise ValueError("brackets do not match, or something stands outside them")
    return [re.sub(r"[,\s]+", " ", group).split() for group in _INNER_GROUP.findall(square)]


def _plain_groups(text: str) -> list[list[str]]:
    """Blank-separated groups of comma-separated tokens; one group when every token stands alone."""
    groups = [group.strip(",").split(",") for group in re.sub(r"\s*,\s*", ",", text).split()]
    if all(len(group) == 1 for group in groups):
        return [[group[0] for group in groups]]
    return groups


def _number(token: str) -> float:
    if not _NUMBER.fullmatch(token):
        raise ValueError(f"'{token}' is not a number")
    return float(token)


def _as_float(entry: object) -> float:
    if isinstance(entry, bool) or not isinstance(entry, int | float):
        raise ValueError(f"{entry!r} is not a number")  # noqa: TRY004 - one error type for one malformed list
    return finite_float(entry)
