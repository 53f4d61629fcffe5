"""Anchor lists and class names: every way of writing them, and every way of getting them wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.description.values import (
    SizesWh,
    StatedAnchors,
    check_class_names,
    parse_anchors,
    parse_class_names,
    settle_unit,
    sizes_from_values,
)
from converters.errors import ConversionError, OptionError, SourceFileError
from converters.facts import SourceFacts, SourceOutput

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TWO: SizesWh = ((0.5, 1.25), (2.0, 3.5))
GRID = (6, 6)
FACTS = SourceFacts("m.tflite", 192, 192, (SourceOutput("grid", (6, 6, 12)),), "uint8", None)


@pytest.mark.parametrize(
    "text",
    [
        "0.5,1.25 2,3.5",
        "0.5,1.25,2,3.5",
        " 0.5, 1.25,\n 2, 3.5,\n",
        "0.5 1.25\n2 3.5",
        "0.5,1.25\n2,3.5",
        "(0.5, 1.25), (2, 3.5)",
        "[0.5,1.25] [2,3.5]",
        "[[0.5, 1.25], [2, 3.5]]",
        "[[0.5 1.25]\n [2.  3.5]]",
        "[0.5, 1.25, 2, 3.5]",
        "5e-1,125E-2,+2,.35e1",
    ],
)
def test_every_way_of_writing_two_anchors_gives_the_same_pairs(text: str, tmp_path: Path) -> None:
    file = tmp_path / "anchors (ä).txt"
    file.write_text(text, encoding="utf-8")
    assert parse_anchors(text) == TWO
    assert parse_anchors(str(file)) == TWO


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2,3", "3 numbers do not pair up"),
        ("1,2,3 4", "group 1 has 3 numbers"),
        ("[[1,2],[3]]", "group 2 has 1 numbers"),
        ("[[1,2],[3,4]", "brackets do not match"),
        ("[1,2] 3,4", "brackets do not match"),
        ("1,,2", "'' is not a number"),
        ("1-2,3", "'1-2' is not a number"),
        ("0,1", "above 0"),
        ("-1,1", "above 0"),
        ("1e999,1", "not a finite number"),
        ("anchors.txt", "neither a list of numbers, nor a file"),
        ("", "neither a list of numbers, nor a file"),
        ("__import__('os')", "neither a list of numbers, nor a file"),
    ],
)
def test_a_malformed_list_is_a_usage_error_that_shows_how_to_write_it(text: str, said: str) -> None:
    with pytest.raises(OptionError, match="--anchors") as caught:
        parse_anchors(text)
    assert said in str(caught.value)
    assert "0.57,0.68 1.87,2.06" in str(caught.value)


def test_a_malformed_file_is_named_with_its_fault(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("0.5,nan")
    with pytest.raises(SourceFileError, match=r"anchor file '.*a.txt': 'nan' is not a number"):
        parse_anchors(str(file))
    file.write_bytes(b"1" * (1 << 20) + b"1")
    with pytest.raises(SourceFileError, match="more than 1,048,576, the most"):
        parse_anchors(str(file))


SIZES = st.lists(st.tuples(*[st.floats(1e-6, 1e6)] * 2), min_size=1, max_size=9)
WRITERS: list[Callable[[list[tuple[float, float]]], str]] = [
    json.dumps,
    lambda pairs: " ".join(f"{w!r},{h!r}" for w, h in pairs),
    lambda pairs: ",".join(f"{w!r},{h!r}" for w, h in pairs),
    lambda pairs: str(tuple(pairs)) if len(pairs) > 1 else str(pairs),
]


@given(SIZES, st.sampled_from(WRITERS))
def test_what_python_writes_is_read_back_bit_for_bit(
    pairs: list[tuple[float, float]], write: Callable[[list[tuple[float, float]]], str]
) -> None:
    assert parse_anchors(write(pairs)) == tuple(pairs)


@given(st.one_of(st.text(), st.text(alphabet="0123456789.,[]() e-+\n")))
def test_no_text_raises_anything_but_a_conversion_error(text: str) -> None:
    try:
        sizes = parse_anchors(text)
    except ConversionError:
        return
    assert sizes
    assert all(w > 0 and h > 0 for w, h in sizes)


@pytest.mark.parametrize("value", [None, {}, "1,2", [], [True, 1], [[1, 2], 3], [10**400, 1], [["1", 2]]])
def test_values_that_are_no_pairs_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected|is not a number|too large"):
        sizes_from_values(value)


def test_an_unknown_unit_shows_both_readings_in_pixels_and_the_options_to_paste() -> None:
    with pytest.raises(OptionError) as caught:
        settle_unit(StatedAnchors(((0.25, 0.5), (0.75, 1.0)), None, "--anchors"), None, FACTS, GRID)
    assert str(caught.value).splitlines() == [
        "'m.tflite': the unit of the anchors (--anchors) is not stated; two readings are possible "
        "in the 192 x 192 image:",
        "  width x height        in grid cells           as fractions of the image",
        "  0.25 x 0.5            8.0 x 16.0 px           48.0 x 96.0 px",
        "  0.75 x 1              24.0 x 32.0 px          144.0 x 192.0 px",
        "These sizes do not decide: training makes up for any unit. A look at photographs does: add --try-units PHOTOS "
        "to xdet convert, which shows all readings side by side. Then give one:",
        "  --anchor-unit cell",
        "  --anchor-unit image",
    ]
    assert caught.value.exit_code == 2


def test_an_anchor_above_one_can_only_be_in_cells() -> None:
    stated = StatedAnchors(((0.25, 0.5), (0.75, 1.01)), None, "--anchors")
    assert settle_unit(stated, None, FACTS, GRID).unit == "cell"
    with pytest.raises(OptionError, match="--anchors with unit 'image': an anchor above 1"):
        settle_unit(stated, "image", FACTS, GRID)


def test_a_family_of_the_zoo_names_its_default_list_without_a_unit() -> None:
    sizes = parse_anchors("st_yolo_lc_v1")
    assert sizes[0] == (0.0252, 0.06)
    with pytest.raises(OptionError, match="--anchor-unit cell"):
        settle_unit(StatedAnchors(sizes, None, "--anchors"), None, FACTS, GRID)


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
