"""Reports on a terminal: what fits, what wraps, and that nothing is cut or obeyed."""

from __future__ import annotations

import doctest
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xdet.writing.terminal
from xdet.detection.report import detections_report
from xdet.detections import Detections
from xdet.writing.blocks import Facts, Folded, Items, Report, Section, Table, Text, Verdict, Wrong
from xdet.writing.terminal import block_text, display_width, report_text

if TYPE_CHECKING:
    from collections.abc import Sequence


def format_table(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]], width: int = 10**6) -> str:
    return block_text(Table(headers, tuple(rows)), width)


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
    assert report_text(detections_report([found("photos/a.png", 2), found("b.png", 0)])).splitlines() == [
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
    table = format_table(("step", "time", "size"), [("read", "4.40 ms", "812 B"), ("convert all", "12.3 us", "")])
    assert table.splitlines()[2:] == ["read         4.40 ms  812 B", "convert all  12.3 us"]


def test_wide_and_combining_characters_stay_aligned() -> None:
    lines = format_table(("a", "b"), [("\u732b", "x"), ("e\u0301", "y")]).splitlines()
    assert lines[2:] == ["\u732b  x", "e\u0301   y"]


def test_control_characters_are_shown_not_sent() -> None:
    assert format_table(("a",), [("x\x1b[31m\ny",)]).splitlines()[2] == "x\\x1b[31m\\ny"


def test_a_table_without_rows_is_its_header() -> None:
    assert format_table(("a", "bc"), []) == "a  bc\n-  --"


def test_a_table_that_is_too_wide_wraps_between_words_and_never_inside_numbers() -> None:
    told = format_table(("runtime", "max LSB", "told"), [("a:b", "4.40 ms", "some words here that go on")], 30)
    assert told.splitlines() == [
        "runtime  max LSB  told",
        "-------  -------  ------------",
        "a:b      4.40 ms  some words",
        "                  here that go",
        "                  on",
    ]


def test_names_that_leave_no_room_stand_above_their_rows_once() -> None:
    rows = [("x" * 30, "1", "2"), ("x" * 30, "3", "4"), ("y", "5", "6")]
    assert format_table(("name", "a", "b"), rows, 30).splitlines() == [
        "name",
        "  a  b",
        "  -  -",
        "x" * 30,
        "  1  2",
        "  3  4",
        "y",
        "  5  6",
    ]


def test_a_table_with_too_many_columns_becomes_several_that_repeat_the_names_of_rows() -> None:
    table = Table(("name", "one", "two", "three"), (("a", 1, 2, 3), ("b", 4, 5, 6)))
    assert block_text(table, 16).splitlines() == [
        "name  one  two",
        "----  ---  ---",
        "a       1    2",
        "b       4    5",
        "",
        "name  three",
        "----  -----",
        "a         3",
        "b         6",
    ]


@given(rows=st.lists(st.tuples(*[st.text("ab 1.", max_size=12)] * 4), min_size=1, max_size=4), width=st.integers(6, 60))
def test_every_word_of_a_table_is_there_whole_at_any_width(rows: list[tuple[str, ...]], width: int) -> None:
    told = format_table(("name", "first title", "second", "third"), rows, width)
    words = {word for row in rows for cell in row for word in cell.split()}
    assert words <= {word.rstrip(";") for word in told.split()}
    longest = max(len(word) for row in rows for word in [*(cell for cell in row), "second"])
    assert max(map(display_width, told.splitlines())) <= max(width, longest + len("second") + 4)


def test_sentences_break_between_words_and_what_cannot_break_stays_whole() -> None:
    digest = "0" * 64
    report = Report(
        "",
        (
            Section("", (Facts((("SHA-256", digest), ("what", "one two three"))),)),
            Section("Parts", (Verdict("failed", "exact: equal", ("all of it",), (Wrong("layer", "it is", "go"),)),)),
            Section("Folded", (Folded("more", (Text("hidden"),)),)),
        ),
        lead=("a lead that says what it is",),
        verdict="FAILED: layer",
    )
    assert report_text(report, 20).splitlines() == [
        "a lead that says",
        "  what it is",
        "",
        f"SHA-256  {digest}",
        "what     one two",
        "         three",
        "",
        "Parts:",
        "FAILED     exact:",
        "           equal",
        "           all of it",
        "           layer: it",
        "             is",
        "             -> go",
        "",
        "FAILED: layer",
    ]


def test_a_hash_that_does_not_fit_beside_its_title_stands_below_it() -> None:
    assert block_text(Facts((("SHA-256", "0" * 64),)), 70).splitlines() == ["SHA-256", f"  {'0' * 64}"]


def test_a_long_list_is_counted_where_it_ends() -> None:
    told = block_text(Items(("a", "b", "c"), title="Left out:", most=2))
    assert told.splitlines() == ["Left out:", "  a", "  b", "  ... and 1 more (--json has them all)"]


@pytest.mark.parametrize("text", ["x\x1b[2J", "a\nb", "\u202eabc"])
def test_no_text_reaches_the_terminal_as_a_command_or_a_line_of_its_own(text: str) -> None:
    report = Report(text, (Section(text, (Text(text), Items((text,), title=text), Facts(((text, text),)))),), (text,))
    assert all(line.isprintable() for line in report_text(report).split("\n"))
    assert text.encode("unicode_escape").decode() in report_text(report)


def test_the_examples_run() -> None:
    assert doctest.testmod(xdet.writing.terminal).failed == 0
