"""Text for people: tables, sizes, durations."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

import xdet.detections
import xdet.writing.text
from xdet.detections import Detections
from xdet.writing.text import detections_table, format_duration, format_size, format_table, wrap_sentences


def found(image: str, count: int) -> Detections:
    return Detections(
        image=image,
        width=100,
        height=50,
        boxes_xyxy=np.array([[0.1, 0.0, 0.5, 1.0]] * count, np.float32).reshape(count, 4),
        scores=np.full(count, 0.9, np.float32),
        classes=np.zeros(count, np.int32),
        anchors=np.arange(count, dtype=np.int32),
        class_names=("person",),
    )


def test_a_table_of_detections_has_one_line_each_and_one_for_nothing() -> None:
    assert detections_table([found("photos/a.png", 2), found("b.png", 0)]).splitlines() == [
        "image  class          score    x1   y1    x2    y2",
        "-----  -------------  -----  ----  ---  ----  ----",
        "a.png  person          0.90  10.0  0.0  50.0  50.0",
        "a.png  person          0.90  10.0  0.0  50.0  50.0",
        "b.png  nothing found",
    ]


def test_a_table_is_never_cut() -> None:
    long = "x" * 500
    assert format_table(("name", "n"), [(long, "1")]).splitlines()[2] == f"{long}  1"


def test_numbers_with_units_stand_on_the_right_and_text_on_the_left() -> None:
    table = format_table(
        ("step", "time", "size"), [("read", "4.40 ms", "812 B"), ("convert all", "12.3 us", "")]
    )
    assert table.splitlines()[2:] == ["read         4.40 ms  812 B", "convert all  12.3 us"]


def test_wide_and_combining_characters_stay_aligned() -> None:
    lines = format_table(("a", "b"), [("\u732b", "x"), ("e\u0301", "y")]).splitlines()
    assert lines[2:] == ["\u732b  x", "e\u0301   y"]


def test_control_characters_are_shown_not_sent() -> None:
    assert format_table(("a",), [("x\x1b[31m\ny",)]).splitlines()[2] == "x\\x1b[31m\\ny"


def test_a_table_without_rows_is_its_header() -> None:
    assert format_table(("a", "bc"), []) == "a  bc\n-  --"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (10**13, "10000.0 GB"),
    ],
)
def test_sizes_are_decimal(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 us"),
        (9.994e-6, "9.99 us"),
        (0.9994e-3, "999 us"),
        (0.99951e-3, "1.00 ms"),
        (0.0999, "99.9 ms"),
        (0.9996, "1.00 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (3600.4, "60 min 0 s"),
    ],
)
def test_durations_have_three_digits(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("module", [xdet.writing.text, xdet.detections])
def test_the_examples_in_the_docstrings_run(module: object) -> None:
    results = doctest.testmod(module)  # type: ignore[arg-type]
    assert results.attempted > 0
    assert results.failed == 0


def test_sentences_break_between_words_at_any_width_and_rows_of_tables_stay_whole() -> None:
    text = "PASSED   static: same\n         boxes-follow from their own head; expected [1, 2]\nruntime  images  max LSB"
    wrapped = wrap_sentences(text, 26).splitlines()
    assert wrapped == [
        "PASSED   static: same",
        "         boxes-follow from",
        "           their own head;",
        "           expected [1, 2]",
        "runtime  images  max LSB",
    ]
    assert " ".join(wrapped).split() == text.split()
