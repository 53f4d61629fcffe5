"""Class names: as an option or a file gives them, and what classes are called when nobody names them.

Unnamed classes are ``class_0``, ``class_1``, ...: also when there is only one, because a file does not say
what its one class is. Names may repeat (label maps do), may hold any printable characters, and are never
empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from converters.description.text_files import names_a_file, read_small_text
from converters.errors import OptionError, SourceFileError

_FILE_ENDINGS = (".txt", ".names", ".csv", ".json", ".yaml", ".yml")


def parse_class_names(text_or_path: str) -> tuple[str, ...]:
    """Read what ``--classes`` was given: names with commas between them, or a file with one name per line.

    An existing file wins; text that looks like a path (a slash, a file ending, no comma) must be one.

    Raises:
        OptionError: a name is empty or unprintable, or the file does not exist.
        SourceFileError: the file cannot be read, is empty, or holds an empty or unprintable name.
    """
    if names_a_file(text_or_path):
        return _names_from_file(Path(text_or_path))
    looks_like_path = (
        "/" in text_or_path or "\\" in text_or_path or text_or_path.lower().endswith(_FILE_ENDINGS)
    )
    if looks_like_path and "," not in text_or_path:
        raise OptionError(
            f"--classes '{text_or_path}': no such file; give one, or names like --classes person,car"
        )
    try:
        return check_class_names([name.strip() for name in text_or_path.split(",")])
    except ValueError as error:
        raise OptionError(
            f"--classes '{text_or_path}': {error}; write them like --classes person,car"
        ) from error


def check_class_names(value: object) -> tuple[str, ...]:
    """Check a list of names that came from an option, JSON or yaml.

    Raises:
        ValueError: no list, an empty list, or an entry that is no printable text.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        raise ValueError(f"expected a list of names, found {value!r}")
    for index, name in enumerate(value):
        if not isinstance(name, str):
            raise ValueError(f"class {index} is {name!r}, expected text (quote it)")  # noqa: TRY004 - malformed data
        if not name.strip() or not name.isprintable():
            raise ValueError(f"the name of class {index} is empty or unprintable: {name!r}")
    return tuple(value)


def default_class_names(count: int) -> tuple[str, ...]:
    """``class_0`` .. for classes that nobody named."""
    return tuple(f"class_{index}" for index in range(count))


def _names_from_file(path: Path) -> tuple[str, ...]:
    """One name per line; blank lines at the end do not count, any other blank line is refused."""
    lines = [line.strip() for line in read_small_text(path, "class list").rstrip().splitlines()]
    if not lines:
        raise SourceFileError(f"class list '{path}' is empty: write one name per line")
    for number, line in enumerate(lines, 1):
        if not line or not line.isprintable():
            raise SourceFileError(f"class list '{path}', line {number}: empty or unprintable name: {line!r}")
    return tuple(lines)
