"""Text for people: sizes, durations."""

from __future__ import annotations

import doctest

import pytest

import xdet.detections
import xdet.writing.text
from xdet.writing.text import format_duration, format_size


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (10**13, "10000.0 GB")],
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
