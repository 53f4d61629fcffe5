"""PRELU gives LiteRT's codes, all of them, at any scales and slopes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.single_operator import Quant, assert_exact, codes, run_everywhere, run_single


@settings(max_examples=100, deadline=None)
@given(
    st.floats(1e-3, 0.3),
    st.floats(0.3, 20.0),
    st.floats(1e-3, 0.1),
    st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255)),
    st.sampled_from(["int8", "uint8"]),
)
def test_every_prelu_is_exact(
    scale: float, ratio: float, slope_scale: float, zeros: tuple[int, int, int], dtype: str
) -> None:
    first, last, own = (zero + int(np.iinfo(dtype).min) for zero in zeros)
    slopes = (codes((1, 1, 3), dtype, seed=1), Quant(slope_scale, own))
    shape = (1, 16, 32, 3)
    runs = run_single("PRELU", (shape, shape), (Quant(scale, first), Quant(scale * ratio, last)), slopes, dtype=dtype)
    assert_exact(runs)


def test_scales_are_divided_in_float32() -> None:
    """140 codes times 0.0390625 are 5.46875, of which both roundings make 6; a float64 quotient of the scales would make 5."""
    shape, quants = (1, 16, 32, 1), (Quant(1 / 256, 74), Quant(0.1, 51))
    slopes = codes((1, 1, 1), "uint8"), Quant(0.005, 255)
    assert_exact(run_single("PRELU", (shape, shape), quants, slopes, dtype="uint8"))


@pytest.mark.parametrize("slopes", [(1,), (4,), (6, 4), (3, 6, 4), (1, 3, 1, 1)], ids=str)
def test_slopes_are_spread_over_the_input(slopes: tuple[int, ...]) -> None:
    shape = (1, 3, 6, 4)
    quants = Quant(0.05, -3), Quant(0.04, 5)
    assert_exact(run_single("PRELU", (shape, shape), quants, (codes(slopes, seed=2), Quant(0.004, 1))))


def test_a_prelu_of_three_axes_is_exact() -> None:
    quants = Quant(0.05, -3), Quant(0.04, 5)
    assert_exact(run_single("PRELU", ((1, 6, 4), (1, 6, 4)), quants, (codes((4,), seed=2), Quant(0.004, 1))))


@pytest.mark.parametrize("op", ["PRELU", "HARD_SWISH"])
def test_the_real_function_stays_within_one_code(op: str) -> None:
    b = TfliteBuilder()
    x = b.input("x", (1, 16, 16, 3), "int8", 0.05, -3)
    slopes = [b.constant(codes((1, 1, 3), seed=2), 0.004, 1)] if op == "PRELU" else []
    y = b.op(op, [x, *slopes], (1, 16, 16, 3), "int8", 0.04, 5, name="y")
    assert run_everywhere(b.build([y]), [codes((1, 16, 16, 3))], leaky_relu="float").worst <= 1
