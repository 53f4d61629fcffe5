"""A few hundred of the generated models; docs/operators.md says how many more were run once."""

from __future__ import annotations

import pytest

from tests.converters.sources.tflite.generated import BUILDERS, run_case

FIRST, PARTS, CASES = 500_000, 8, 40


@pytest.mark.parametrize("part", range(PARTS))
def test_generated_models_are_what_their_rows_say(part: int) -> None:
    outcomes = [run_case(FIRST + part * CASES + i) for i in range(CASES)]
    ran = [outcome for outcome in outcomes if outcome.worst is not None]
    assert len(ran) > CASES * 0.8
    assert [outcome for outcome in ran if outcome.worst is None or outcome.worst > outcome.bound] == []
    assert {outcome.name for outcome in ran} <= BUILDERS.keys()
