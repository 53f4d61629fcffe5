"""Two thousand of the generated models; docs/operators.md says how many more were run once."""

from __future__ import annotations

import pytest

from converters.sources.tflite.operators import OPERATORS
from tests.converters.sources.tflite.drawings import BUILDERS, NOT_DRAWN
from tests.converters.sources.tflite.generated import run_case
from tests.slow import mostly_slow

FIRST, PARTS, CASES = 500_000, 20, 100


@pytest.mark.parametrize("part", mostly_slow(range(PARTS), fast=2))
def test_generated_models_are_what_their_rows_say(part: int) -> None:
    outcomes = [run_case(FIRST + part * CASES + i) for i in range(CASES)]
    assert [outcome for outcome in outcomes if not outcome.is_as_said] == []
    assert sum(outcome.worst is not None for outcome in outcomes) > CASES * 0.7


def test_every_row_is_drawn_or_says_why_not() -> None:
    drawn = {name.split(",")[0].removesuffix(" from float") for name in BUILDERS} - {"SiLU"}
    assert drawn | NOT_DRAWN.keys() == OPERATORS.keys()
    assert not drawn & NOT_DRAWN.keys()
