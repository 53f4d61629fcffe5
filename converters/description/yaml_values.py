"""Yaml as data: a mapping from text, a value by its key path, numbers such as ``1/127.5``, shapes.

Nothing is evaluated. Aliases are refused, since a kilobyte of them can unfold into gigabytes, and so is
nesting that no training yaml has, since the parser's time grows with its square.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import yaml

from converters.description.text_files import finite_float
from converters.errors import SourceFileError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_DEPTH = 32
_DECIMAL = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_NUMBER = re.compile(rf"\s*({_DECIMAL})\s*(?:/\s*({_DECIMAL})\s*)?")
_SHAPE = re.compile(r"\s*[\[(]\s*([0-9]{1,6})\s*,\s*([0-9]{1,6})\s*,\s*([0-9]{1,6})\s*,?\s*[\])]\s*")


def load_mapping(text: str, where: str) -> Mapping[str, object]:
    """Load one yaml document that must be a mapping.

    Raises:
        SourceFileError: no yaml, an alias, or another kind of document; with the line.
    """
    try:
        _refuse_what_explodes(text, where)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SourceFileError(f"{where}{line}: not yaml: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or number that is none
        raise SourceFileError(f"{where}: not yaml: {str(error).splitlines()[0]}") from error
    if not isinstance(data, dict):
        raise SourceFileError(f"{where}: expected a yaml mapping, found {type(data).__name__}")
    return data


def _refuse_what_explodes(text: str, where: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise SourceFileError(f"{where}, line {line}: yaml alias *{event.anchor}: write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise SourceFileError(f"{where}, line {line}: nested more than {MAX_DEPTH} levels deep")


def lookup(data: Mapping[str, object], key_path: str, where: str) -> object:
    """The value at ``a.b.c``, None where any part is missing or empty.

    Raises:
        SourceFileError: something on the way is no mapping.
    """
    value: object = data
    walked: list[str] = []
    for key in key_path.split("."):
        if value is None:
            return None
        if not isinstance(value, dict):
            raise SourceFileError(f"{where}: {'.'.join(walked)}: expected keys below it, found {value!r}")
        value = value.get(key)
        walked.append(key)
    return value


def number_from_yaml(value: object) -> float:
    """A number, or text like ``"1/127.5"``.

    Raises:
        ValueError: neither, a division by zero, or not finite.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return finite_float(value)
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        found = "nothing" if value is None else repr(value)
        raise ValueError(f"expected a number or a fraction like 1/255, found {found}")
    numerator, denominator = float(match[1]), float(match[2] or 1)
    if denominator == 0:
        raise ValueError(f"{value!r} divides by zero")
    return finite_float(numerator / denominator)


def count_from_yaml(value: object) -> int:
    """A whole number above 0.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"expected a whole number above 0, found {value!r}")
    return value


def shape_from_yaml(value: object) -> tuple[int, int, int]:
    """Height, width, channels from ``"(192, 192, 3)"`` or ``[192, 192, 3]``.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, str) and (match := _SHAPE.fullmatch(value)):
        return int(match[1]), int(match[2]), int(match[3])
    if isinstance(value, list) and len(value) == 3:
        return count_from_yaml(value[0]), count_from_yaml(value[1]), count_from_yaml(value[2])
    raise ValueError(f"expected (height, width, channels), found {value!r}")
