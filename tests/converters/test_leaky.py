"""LeakyReLU's table: the recipe is LiteRT's, the float form and the sum reproduce it, or are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from converters.leaky import (
    LeakyCase,
    SumForm,
    fitted_sum,
    float_table,
    is_monotone,
    matched_leaky,
    plain_form,
    sum_table,
    xnnpack_multipliers,
    xnnpack_table,
)
from converters.sources.tflite.ops import activations as activation
from converters.sources.tflite.reader import read_tflite
from tests.converters.sessions import session_of
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.single_operator import Runs, assert_exact, run_everywhere, translated

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXT = """<ir_version: 9, opset_import: ["" : 19]>
g (uint8[256] x) => (uint8[256] y)
<uint8 z = {0}, float w = {1.0}, float e = {1.0}, float s = {1.0}, uint8 o = {0}>
{
  r = Max(x, z)
  a = DequantizeLinear(x, w, z)
  b = DequantizeLinear(r, e, z)
  c = Add(a, b)
  y = QuantizeLinear(c, s, o)
}"""
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
    """The 8-bit multipliers are off by at most half a 256th, which 255 steps make half a code; rounding adds one."""
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


@st.composite
def ordinary(draw: st.DrawFn) -> LeakyCase:
    return case(draw(st.floats(0.1, 4)), draw(st.floats(0.01, 0.9)), draw(CODES), draw(CODES))


def run_sum(form: SumForm, of: LeakyCase, *, fused: bool) -> NDArray[np.int64]:
    """ONNX Runtime's codes for all 256, by its integer kernel or in float32 operator by operator."""
    model = onnx.parser.parse_model(TEXT)
    numbers = {
        "z": np.uint8(of.zero_point_in + 128),
        "w": form.whole,
        "e": form.excess,
        "s": of.scale_out,
        "o": np.uint8(of.zero_point_out + 128),
    }
    del model.graph.initializer[:]
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.array(v), k) for k, v in numbers.items())
    session = session_of(model.SerializeToString(), fuse=fused)
    codes = session.run(None, {"x": np.arange(256, dtype=np.uint8)})[0]
    return np.asarray(codes, np.int64) - 128


@settings(max_examples=60, deadline=None)
@given(ordinary())
@example(case(1.0, 0.5))
@example(case(1.0, 0.1))
@example(case(256 / 255, 0.25, zero_in=0))
def test_the_sum_has_the_codes_of_xnnpack_on_integer_and_float_kernels(of: LeakyCase) -> None:
    wanted = xnnpack_table(of)
    form = None if wanted is None else fitted_sum(of, wanted)
    if form is None or wanted is None:
        return
    np.testing.assert_array_equal(sum_table(of, form), wanted)
    for fused in (True, False):
        np.testing.assert_array_equal(run_sum(form, of, fused=fused), wanted)


def test_nearly_every_ordinary_leaky_relu_has_a_sum() -> None:
    rng = np.random.default_rng(0)
    zeros = rng.integers(-118, 118, (400, 2)).tolist()
    some = [case(rng.uniform(0.5, 1.5), 0.1, *zero) for zero in zeros]
    exact = [(of, table) for of in some if (table := xnnpack_table(of)) is not None]
    found = sum(fitted_sum(of, table) is not None for of, table in exact)
    real = sum(fitted_sum(of, float_table(of, plain_form(of))) is not None for of in some)
    assert (len(exact), found, real) == (400, 400, 400)


def test_the_sum_of_an_adjusted_form_is_that_of_its_table() -> None:
    of = case(1.03, 0.1)
    adjusted, wanted = matched_leaky(of), xnnpack_table(of)
    assert adjusted is not None
    assert wanted is not None
    assert fitted_sum(of, float_table(of, adjusted)) == fitted_sum(of, wanted)


@pytest.mark.parametrize(
    ("of", "why"),
    [
        (case(1.0, 0.1, zero_in=-128), "no code is negative"),
        (case(1.0, 0.1, zero_in=127), "no code is positive"),
        (case(1.0, 1.5), "negative codes have the larger factor"),
        (case(1.0, -0.5), "the table falls"),
        (case(1.0, 0.0005), "negative codes are all zero: nothing bounds their factor away from 0"),
        (case(140.0, 0.1, zero_in=0, zero_out=127), "every positive code saturates"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_table_that_no_sum_gives_is_refused(of: LeakyCase, why: str) -> None:
    form = fitted_sum(of, float_table(of, plain_form(of)))
    assert form is None, why


def test_a_table_that_is_no_leaky_relu_is_refused() -> None:
    of = case(1.0, 0.1)
    table = float_table(of, plain_form(of))
    table[200] += 1
    assert fitted_sum(of, table) is None


def test_a_table_whose_ties_fall_both_ways_is_refused() -> None:
    of = case(1.0, 0.5, zero_in=0, zero_out=0)  # -1.5 becomes -2 and -2.5 becomes -2: half to even
    assert fitted_sum(of, float_table(of, plain_form(of))) is None
    assert fitted_sum(of, matched_table(of)) is not None  # all ties up, as XNNPACK lets them


def matched_table(of: LeakyCase) -> NDArray[np.int64]:
    table = xnnpack_table(of)
    assert table is not None
    return table
