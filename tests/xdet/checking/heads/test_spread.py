"""Distances are counted in steps of the source's head, and judged by LiteRT's own spread."""

from __future__ import annotations

import numpy as np
import pytest

from xdet.checking.heads.spread import (
    FLOAT_BOUND,
    allowed,
    distance,
    histogram,
    judge_exact,
    judge_spread,
    nearest,
    on_most_images,
    own_spread,
)
from xdet.checking.runs import Run

STEP = 0.05


def run_of(name: str, *codes: float) -> Run:
    """A run whose head holds these codes times ``STEP``, rounded to float32."""
    head = np.array(codes, np.float32).reshape(1, 1, 1, -1) * np.float32(STEP)
    return Run(name, exact=True, heads=head)


XNNPACK, BUILTIN, REFERENCE = (
    run_of("litert:xnnpack", 0, 0, 0, 0),
    run_of("litert:builtin", 0, 4, 0, 0),
    run_of("litert:reference", 0, 2, 2, 0),
)
SOURCES = [XNNPACK, BUILTIN, REFERENCE]


def test_a_distance_counts_values_steps_and_their_mean() -> None:
    found = distance(run_of("a", 1, 0, -3, 7), run_of("b", 1, 2, 0, 7), STEP)
    assert (found.differing, found.values, found.max_steps, found.mean_steps) == (2, 4, 3.0, 1.25)


def test_outputs_that_are_joined_are_each_measured_in_their_own_steps() -> None:
    first, second = np.array([[0, 0.5, 3, 0]], np.float32), np.zeros((1, 4), np.float32)
    steps = np.array([0.25, 0.25, 1.5, 1.5])
    a, b = (Run(name, exact=True, heads=head) for name, head in (("a", first), ("b", second)))
    found = distance(a, b, steps)
    assert (found.differing, found.max_steps, found.mean_steps) == (2, 2.0, 1.0)
    assert [bar.values for bar in histogram(a, b, steps)][:3] == [2, 0, 2]


def test_a_distance_to_nothing_finite_is_infinite() -> None:
    found = distance(run_of("a", np.nan, 0), run_of("b", 0, 0), STEP)
    assert (found.differing, found.max_steps) == (1, np.inf)


def test_a_difference_in_the_last_bit_is_a_difference_but_no_step() -> None:
    off = Run("a", exact=True, heads=np.nextafter(XNNPACK.heads + np.float32(1), np.float32(2)))
    found = distance(off, Run("b", exact=True, heads=XNNPACK.heads + np.float32(1)), STEP)
    assert found.differing == 4
    assert 0 < found.max_steps < 1e-4


def test_runs_on_fewer_images_are_compared_on_those() -> None:
    both = Run("a", exact=True, heads=np.zeros((3, 1, 1, 2), np.float32))
    assert distance(both, run_of("b", 0, 1), STEP).values == 2


def test_the_yardstick_is_the_widest_pair_and_the_limits_are_the_largest_of_each() -> None:
    widest = own_spread(SOURCES, STEP)
    assert widest is not None
    assert (widest.first, widest.second, widest.max_steps, widest.mean_steps) == (
        *("litert:xnnpack", "litert:builtin", 4.0, 1.0),
    )
    assert allowed(SOURCES, STEP) == (4.0, 1.0)
    assert allowed([XNNPACK], STEP) is None


def test_of_a_slow_kernel_on_fewer_images_the_largest_difference_counts_and_no_mean() -> None:
    def twice(run: Run) -> Run:
        return Run(run.name, exact=True, heads=np.concatenate([run.heads, run.heads]))

    slow = run_of("litert:reference", 9, 9, 9, 9)
    sources = [twice(XNNPACK), twice(BUILTIN), slow]
    assert on_most_images(sources) == sources[:2]
    assert allowed(sources, STEP) == (9.0, 1.0)
    assert allowed([twice(XNNPACK), slow], STEP) is None


def test_kernels_that_agree_still_allow_one_code_on_one_value_in_a_hundred() -> None:
    assert allowed([XNNPACK, XNNPACK], STEP) == (1.0, 0.01)


def test_float_heads_have_a_stated_bound() -> None:
    assert allowed([XNNPACK], None) == (FLOAT_BOUND, FLOAT_BOUND)
    found = distance(run_of("a", 100, 1), run_of("b", 100, 0), None)
    assert found.max_steps == pytest.approx(0.01, rel=1e-6)


def test_the_nearest_kernel_is_the_one_with_the_smallest_mean() -> None:
    found = nearest(run_of("a", 0, 3, 2, 0), SOURCES, STEP)
    assert found is not None
    assert (found.second, found.max_steps, found.mean_steps) == ("litert:reference", 1.0, 0.25)
    assert nearest(XNNPACK, [], STEP) is None


def test_a_run_within_the_spread_passes_and_the_smallest_tolerance_is_told() -> None:
    inside = distance(run_of("a", 4, 0, 0, 0), XNNPACK, STEP)
    verdict = judge_spread([inside], (4.0, 1.0), "LSB", "")
    assert verdict.status == "passed"
    assert verdict.summary == "allowed: max 4 LSB, mean 1; the smallest tolerance that passes: max 4, mean 1"


@pytest.mark.parametrize("codes", [(5, 0, 0, 0), (4, 1, 0, 0)], ids=["by the largest", "by the mean"])
def test_a_run_beyond_the_spread_fails(codes: tuple[int, ...]) -> None:
    beyond = distance(run_of("a", *codes), XNNPACK, STEP)
    verdict = judge_spread([beyond], (4.0, 1.0), "LSB", "")
    assert verdict.status == "failed"
    (finding,) = verdict.findings
    assert (finding.part, finding.cause, finding.runtime) == ("spread", "layer", "a")
    assert finding.message.endswith("allowed are 4 (mean 1)")


def test_a_run_of_not_a_number_fails() -> None:
    verdict = judge_spread([distance(run_of("a", np.nan, 0), run_of("b", 0, 0), STEP)], (4.0, 1.0), "LSB", "")
    assert verdict.status == "failed"


def test_an_exact_pair_fails_with_one_differing_value() -> None:
    one = run_of("onnxruntime:cpu", 0, 1, 0, 0)
    verdict = judge_exact({one.name: distance(one, XNNPACK, STEP)}, None)
    assert verdict.status == "failed"
    assert verdict.findings[0].message == (
        "onnxruntime:cpu differs from litert:xnnpack in 1 of 4 head values, by up to 1 LSB (mean 0.25); expected 0"
    )


def test_without_anything_to_compare_parts_are_skipped_with_the_reason() -> None:
    assert judge_exact({}, "converted otherwise").summary == "converted otherwise"
    assert judge_exact({}, None).status == "skipped"
    assert judge_spread([], None, "LSB", "no kernels").summary == "no kernels"
    assert judge_spread([], (1.0, 1.0), "LSB", "").status == "skipped"
