"""A LeakyReLU as a sum gives the codes of its table on every runtime, or is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from converters.leaky import (
    LeakyCase,
    SumForm,
    fitted_sum,
    float_table,
    matched_leaky,
    plain_form,
    sum_table,
    xnnpack_table,
)
from tests.converters.sessions import session_of

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


def case(ratio: float, slope: float, zero_in: int = -3, zero_out: int = 5) -> LeakyCase:
    scale_out = np.float32(0.05)
    return LeakyCase(np.float32(0.05 * ratio), zero_in, scale_out, zero_out, np.float32(slope))


@st.composite
def cases(draw: st.DrawFn) -> LeakyCase:
    zero = st.integers(-128, 127)
    return case(draw(st.floats(0.1, 4)), draw(st.floats(0.01, 0.9)), draw(zero), draw(zero))


def run(form: SumForm, of: LeakyCase, *, fused: bool) -> NDArray[np.int64]:
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
@given(cases())
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
        np.testing.assert_array_equal(run(form, of, fused=fused), wanted)


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
