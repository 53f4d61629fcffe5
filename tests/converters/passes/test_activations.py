"""A pool moves in front of a LeakyReLU, and a LeakyReLU becomes a sum, where no number changes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.passes.activations import LeakyAsSum, PoolBeforeActivation
from tests.converters.passes.networks import assert_bits_stay, assert_declined, assert_equal, kinds, parse, run

POOL = """
g (uint8[1,2,8,8] x) => (float[1,2,4,4] y)
<float sa = {0.05}, uint8 za = {125}, float sl = {0.0495}, float s = {0.04}, uint8 z = {128}>
{
  xf = DequantizeLinear(x, sa, za)
  n = Neg(xf)
  q = QuantizeLinear(n, sa, za)
  f = DequantizeLinear(q, sl, za)
  a = LeakyRelu<alpha = SLOPE>(f)
  c = QuantizeLinear(a, s, z)
  d = DequantizeLinear(c, s, z)
  p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(d)
  o = QuantizeLinear(p, s, z)
  y = DequantizeLinear(o, s, z)
}"""

LEAKY = """
g (uint8[1,2,3,4] x) => (float[1,2,3,4] y)
<float s = {0.05}, uint8 z = {125}, float so = {0.0487}, uint8 zo = {30}>
{
  d = DequantizeLinear(x, s, z)
  a = LeakyRelu<alpha = SLOPE>(d)
  q = QuantizeLinear(a, so, zo)
  y = DequantizeLinear(q, so, zo)
}"""


def test_a_pool_moves_in_front_of_the_activation() -> None:
    model = assert_bits_stay(PoolBeforeActivation(), lambda: parse(POOL, SLOPE="0.2"))
    assert kinds(model) == (
        "DequantizeLinear Neg QuantizeLinear DequantizeLinear MaxPool QuantizeLinear "
        "DequantizeLinear LeakyRelu QuantizeLinear DequantizeLinear"
    )


@pytest.mark.parametrize(
    ("text", "slope", "reason"),
    [
        pytest.param(POOL, "-0.2", "do not commute", id="it falls"),
        pytest.param(
            POOL.replace("(float[1,2,4,4] y)", "(float[1,2,4,4] y, uint8[1,2,8,8] c)"), "0.2", "used elsewhere",
            id="it is read elsewhere",
        ),
        pytest.param(
            POOL.replace("QuantizeLinear(p, s, z)", "QuantizeLinear(p, sl, z)"), "0.2", "changes scale",
            id="the pool rescales",
        ),
    ],
)  # fmt: skip
def test_an_activation_keeps_its_place(text: str, slope: str, reason: str) -> None:
    assert_declined(PoolBeforeActivation(), parse(text, SLOPE=slope), reason)


@settings(max_examples=25)
@given(st.floats(-1, 1).filter(lambda slope: abs(slope) > 1e-3), st.integers(0, 2**16))
def test_a_pool_moves_only_where_no_number_changes(slope: float, seed: int) -> None:
    model = parse(POOL, SLOPE=f"{slope:.6f}")
    before = run(model, seed=seed)
    assert PoolBeforeActivation()(model).modified == (slope > 0) or slope > -0.01
    assert_equal(run(model, seed=seed), before)


def test_a_leaky_relu_becomes_a_sum() -> None:
    model = assert_bits_stay(LeakyAsSum(), lambda: parse(LEAKY, SLOPE="0.1"))
    assert kinds(model) == "Max DequantizeLinear DequantizeLinear Add QuantizeLinear DequantizeLinear"


@pytest.mark.parametrize(
    ("text", "slope", "reason"),
    [
        pytest.param(LEAKY, "1.0", "no two scales", id="slope of 1"),
        pytest.param(
            LEAKY.replace("uint8[1,2,3,4] x", "int8[1,2,3,4] x").replace("uint8 z = {125}", "int8 z = {-3}"), "0.1",
            "its codes are int8", id="int8",
        ),
        pytest.param(
            LEAKY.replace("(float[1,2,3,4] y)", "(float[1,2,3,4] y, float[1,2,3,4] a)"), "0.1", "nothing else reads",
            id="read in float",
        ),
    ],
)  # fmt: skip
def test_another_leaky_relu_stays(text: str, slope: str, reason: str) -> None:
    assert_declined(LeakyAsSum(), parse(text, SLOPE=slope), reason)


@settings(max_examples=25)
@given(st.floats(0.001, 0.999), st.integers(0, 2**16))
def test_a_leaky_relu_becomes_a_sum_only_where_no_code_changes(slope: float, seed: int) -> None:
    model = parse(LEAKY, SLOPE=f"{slope:.6f}")
    before = run(model, seed=seed)
    LeakyAsSum()(model)
    assert_equal(run(model, seed=seed), before)
