"""LeakyReLU's table: the recipe is LiteRT's, the float form reproduces it, and what neither covers is written honestly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from converters.leaky import (
    LeakyCase,
    float_table,
    is_monotone,
    matched_leaky,
    plain_form,
    xnnpack_multipliers,
    xnnpack_table,
)
from converters.sources.tflite.ops import activations as activation
from converters.sources.tflite.reader import read_tflite
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.single_operator import Runs, assert_exact, run_everywhere, translated

ALL_CODES = np.arange(-128, 128).astype(np.int8).reshape(1, 16, 16, 1)
CODES = st.integers(-128, 127)


def case(ratio: float, slope: float, zero_in: int = -3, zero_out: int = 5, scale_out: float = 0.05) -> LeakyCase:
    return LeakyCase(np.float32(scale_out * ratio), zero_in, np.float32(scale_out), zero_out, np.float32(slope))


def build(c: LeakyCase) -> bytes:
    b = TfliteBuilder()
    x = b.input("x", ALL_CODES.shape, "int8", float(c.scale_in), c.zero_point_in)
    y = b.op(
        "LEAKY_RELU", [x], ALL_CODES.shape, "int8", float(c.scale_out), c.zero_point_out, name="y", alpha=float(c.slope)
    )
    return b.build([y])


def run(c: LeakyCase) -> Runs:
    return run_everywhere(build(c), [ALL_CODES])


@st.composite
def cases(draw: st.DrawFn) -> LeakyCase:
    """Cases up to and beyond XNNPACK's limits of both multipliers."""
    ratio = draw(st.one_of(st.floats(0.003, 4), st.floats(4, 140), st.sampled_from([2.0**-8, 0.5, 1.0, 2.0, 128.0])))
    slope = draw(st.one_of(st.floats(-2, 2), st.sampled_from([0.1, 0.2, 0.25, 0.01, 1.0, -0.25, 1e-4, 0.0])))
    scale_out = draw(st.floats(2**-10, 1, width=32))
    return case(ratio, slope, draw(CODES), draw(CODES), scale_out)


@settings(max_examples=60)
@given(cases())
@example(case(2.0**-8, 1.0))
@example(case(128.0, 0.5))
@example(case(1.0, 2.0**-8))
@example(case(1.0, -1.0))
def test_the_recipe_is_xnnpacks_and_the_graph_follows_it(c: LeakyCase) -> None:
    runs = run(c)
    wanted = xnnpack_table(c)
    assert runs.delegated == (wanted is not None)
    if wanted is not None:
        np.testing.assert_array_equal(runs.litert[0].reshape(-1), wanted)
        assert_exact(runs)
    else:  # LiteRT's built-in kernel rounds twice in fixed point, the graph holds the real function
        assert runs.worst <= 1


@settings(max_examples=200)
@given(st.floats(0.1, 4), st.floats(0.05, 0.9), CODES, CODES, st.floats(2**-10, 1, width=32))
def test_ordinary_slopes_need_no_table(ratio: float, slope: float, zero_in: int, zero_out: int, scale: float) -> None:
    c = case(ratio, slope, zero_in, zero_out, scale)
    assume(xnnpack_table(c) is not None)
    form = matched_leaky(c)
    assert form is not None
    np.testing.assert_array_equal(float_table(c, form), xnnpack_table(c))


@given(cases())
def test_the_real_function_is_never_far(c: LeakyCase) -> None:
    """The 8-bit multipliers are off by at most half a 256th, which 255 steps make half a code, and rounding adds one."""
    wanted = xnnpack_table(c)
    assume(wanted is not None)
    assert wanted is not None
    assert np.abs(wanted - float_table(c, plain_form(c))).max() <= 1


@given(cases())
def test_monotone_means_that_no_multiplier_is_negative(c: LeakyCase) -> None:
    multipliers, table = xnnpack_multipliers(c), xnnpack_table(c)
    assume(multipliers is not None)
    assert multipliers is not None
    assert table is not None
    if min(multipliers) >= 0:
        assert is_monotone(table)


def test_a_falling_branch_is_not_monotone() -> None:
    table = xnnpack_table(case(1.0, -1.0, 0, 0))
    assert table is not None
    assert not is_monotone(table)


@pytest.mark.parametrize(
    ("ratio", "slope"),
    [(2.0**-8.5, 1.0), (130.0, 0.1), (1.0, 2.0**-9), (100.0, 1.5), (100.0, -1.5)],
    ids=["ratio too small", "ratio too large", "slope too small", "slope too large", "slope too negative"],
)
def test_beyond_xnnpacks_limits_there_is_no_recipe(ratio: float, slope: float) -> None:
    c = case(ratio, slope)
    assert xnnpack_multipliers(c) is None
    assert xnnpack_table(c) is None
    assert matched_leaky(c) is None


def test_a_table_no_float_form_reproduces_is_written_as_a_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "matched_leaky", lambda _: None)
    c = case(0.9, 0.2)
    kinds = [node.op_type for node in translated(read_tflite(build(c), "leaky.tflite")).graph]
    assert "Gather" in kinds
    assert "LeakyRelu" not in kinds
    assert_exact(run(c))


def test_the_float_option_is_the_real_function_within_one_code() -> None:
    c = case(0.9, 0.2)
    runs = run_everywhere(build(c), [ALL_CODES], leaky_relu="float")
    np.testing.assert_array_equal(runs.uint8[0].reshape(-1), float_table(c, plain_form(c)))
    assert runs.worst <= 1
    assert runs.dialects_agree


@pytest.mark.filterwarnings("error")
def test_codes_of_a_denormal_scale_saturate_without_a_warning() -> None:
    denormal = LeakyCase(np.float32(1.0), 3, np.float32(1e-45), 5, np.float32(0.1))
    expected = np.where(np.arange(-128, 128) < 3, -128, 127)
    expected[3 + 128] = 5
    np.testing.assert_array_equal(float_table(denormal, plain_form(denormal)), expected)
