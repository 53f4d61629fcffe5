"""Class names from an option or a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from converters.description.values import check_class_names, parse_class_names
from converters.errors import OptionError, SourceFileError

if TYPE_CHECKING:
    from pathlib import Path


def test_names_are_separated_by_commas_and_trimmed() -> None:
    assert parse_class_names("person, traffic light") == ("person", "traffic light")


def test_one_word_is_one_class() -> None:
    assert parse_class_names("person") == ("person",)


@pytest.mark.parametrize("content", ["person\ncar\n", "\ufeffperson\r\ncar\r\n\r\n", "  person \ncar"])
def test_a_file_holds_one_name_per_line(content: str, tmp_path: Path) -> None:
    file = tmp_path / "my classes, é.txt"
    file.write_text(content, encoding="utf-8", newline="")
    assert parse_class_names(str(file)) == ("person", "car")


@pytest.mark.parametrize("text", ["", "person,", "a,,b", "a\nb"])
def test_an_empty_or_unprintable_name_is_a_usage_error(text: str) -> None:
    with pytest.raises(OptionError, match="empty or unprintable"):
        parse_class_names(text)


@pytest.mark.parametrize("text", ["labels.txt", "coco.names", "./labels", "C:\\labels"])
def test_a_path_that_does_not_exist_is_not_taken_for_a_name(text: str) -> None:
    with pytest.raises(OptionError, match="no such file"):
        parse_class_names(text)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"a\n\nb\n", "line 2: empty"),
        (b"a\nb\x07\n", "line 2: empty or unprintable"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_bad_file_is_named_with_its_line(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "c.txt"
    file.write_bytes(content)
    with pytest.raises(SourceFileError, match=said):
        parse_class_names(str(file))


@pytest.mark.parametrize("value", [None, "person", [], [1], [None], [True]])
def test_what_is_no_list_of_text_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        check_class_names(value)


def test_text_too_long_or_too_odd_for_a_path_is_a_list_of_names() -> None:
    assert parse_class_names("x" * 5000) == ("x" * 5000,)
    with pytest.raises(OptionError, match="unprintable"):
        parse_class_names("a\0b")
