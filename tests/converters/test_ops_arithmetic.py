"""Arithmetic, activations and requantisation against LiteRT, over all pairs or all codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.converters.single_operator import Quant, Runs, assert_exact, codes, run_everywhere, run_single
from tests.converters.tflite_builder import TfliteBuilder

LEFT = np.repeat(np.arange(-128, 128), 256).astype(np.int8).reshape(1, 16, 16, 256)
RIGHT = np.tile(np.arange(-128, 128), 256).astype(np.int8).reshape(1, 16, 16, 256)
IRREGULAR = [
    (Quant(0.0371, -3), Quant(0.0583, 17), Quant(0.0911, 5)),
    (Quant(0.0712, -128), Quant(0.0229, 127), Quant(0.0633, -128)),
    (Quant(0.0513, 127), Quant(0.0872, -128), Quant(0.1531, 127)),
]
ZERO_POINT_IDS = ["inner zero-points", "rims", "other rims"]


def combine(op: str, quants: tuple[Quant, Quant, Quant], **options: Any) -> Runs:
    """All 65536 pairs of codes."""
    b = TfliteBuilder()
    x, y = (
        b.input(n, LEFT.shape, "int8", q.scale, q.zero_point) for n, q in zip("xy", quants[:2], strict=True)
    )
    z = b.op(op, [x, y], LEFT.shape, "int8", quants[2].scale, quants[2].zero_point, name="z", **options)
    return run_everywhere(b.build([z]), [LEFT, RIGHT])


@pytest.mark.parametrize("quants", IRREGULAR, ids=ZERO_POINT_IDS)
@pytest.mark.parametrize("op", ["ADD", "SUB"])
def test_a_sum_of_all_pairs_differs_at_near_ties_only(op: str, quants: tuple[Quant, Quant, Quant]) -> None:
    """XNNPACK rounds 21-bit multipliers and ties up, ONNX Runtime float32 half to even: a few of 65536 pairs, by 1 code."""
    runs = combine(op, quants)
    assert runs.delegated
    assert runs.worst <= 1
    assert runs.differing <= 12
    assert runs.dialects_agree


@pytest.mark.parametrize("op", ["ADD", "SUB"])
def test_a_sum_at_half_the_scale_is_one_code_away_at_every_other_tie(op: str) -> None:
    """The worst there is: half of all sums are exact ties, which go up in XNNPACK and to even in ONNX Runtime."""
    runs = combine(op, (Quant(0.05), Quant(0.05), Quant(0.1)))
    assert runs.worst == 1
    assert runs.differing == 65536 // 4


@pytest.mark.parametrize("op", ["ADD", "SUB"])
def test_a_sum_at_one_scale_is_exact(op: str) -> None:
    assert_exact(combine(op, (Quant(0.05, -3), Quant(0.05, 12), Quant(0.05, 40))))


@pytest.mark.parametrize("quants", IRREGULAR, ids=ZERO_POINT_IDS)
def test_a_product_of_all_pairs_is_exact(quants: tuple[Quant, Quant, Quant]) -> None:
    runs = combine("MUL", (*quants[:2], Quant(quants[2].scale * 3.7, quants[2].zero_point)))
    assert runs.delegated
    assert_exact(runs)


def test_a_product_of_round_scales_is_one_code_away_at_exact_ties() -> None:
    """0.05 * 0.05 / 0.3 is 1/120: products of 60, 180, ... are ties; the kernels' float32 factors differ in the last bit."""
    runs = combine("MUL", (Quant(0.05), Quant(0.05), Quant(0.3)))
    assert runs.worst == 1
    assert runs.differing <= 1000


@pytest.mark.parametrize("activation", ["RELU", "RELU6", "RELU_N1_TO_1"])
def test_a_product_with_a_fused_activation_is_exact(activation: str) -> None:
    quants = (Quant(0.0371, -3), Quant(0.0583, 17), Quant(0.0911, 5))
    assert_exact(combine("MUL", quants, fused_activation=activation))


@pytest.mark.parametrize("op", ["ADD", "SUB", "MUL"])
@pytest.mark.parametrize("shape", [(), (6,), (1, 6), (1, 1, 1, 6), (5, 1), (1, 4, 5, 6)], ids=str)
def test_a_constant_operand_is_broadcast(op: str, shape: tuple[int, ...]) -> None:
    constant = (codes(shape, seed=3), Quant(0.0583, 17))
    runs = run_single(op, ((1, 4, 5, 6), (1, 4, 5, 6)), (Quant(0.0371, -3), Quant(0.3011, 5)), constant)
    assert runs.worst <= (0 if op == "MUL" else 1)
    assert runs.differing <= 1
    assert runs.dialects_agree


def test_operands_of_another_rank_meet_the_right_axes() -> None:
    b = TfliteBuilder()
    x = b.input("x", (1, 4, 5, 6), "int8", 0.0371, -3)
    row = b.input("row", (1, 6), "int8", 0.0583, 17)
    z = b.op("MUL", [row, x], (1, 4, 5, 6), "int8", 0.3011, 5, name="z")
    assert_exact(run_everywhere(b.build([z]), [codes((1, 4, 5, 6)), codes((1, 6), seed=1)]))


EVERY_CODE = (1, 4, 8, 8)


@pytest.mark.parametrize("zero_point", [-128, -3, 127])
@pytest.mark.parametrize("op", ["RELU", "RELU6", "RELU_N1_TO_1"])
def test_an_activation_at_one_scale_is_exact(op: str, zero_point: int) -> None:
    quant = Quant(0.05, zero_point)
    assert_exact(run_single(op, (EVERY_CODE, EVERY_CODE), (quant, quant)))


@pytest.mark.parametrize(
    ("op", "quant"),
    [("RELU", Quant(0.4, -100)), ("RELU6", Quant(0.024, -100)), ("RELU_N1_TO_1", Quant(0.008))],
)
def test_an_activation_that_rescales_stays_within_one_code(op: str, quant: Quant) -> None:
    """LiteRT's only kernel rounds twice in 31-bit fixed point: 0.25 becomes 1 after the two roundings of 0.5."""
    runs = run_single(op, (EVERY_CODE, EVERY_CODE), (Quant(0.1, -3), quant))
    assert not runs.delegated
    assert runs.worst <= 1
    assert runs.dialects_agree


@pytest.mark.parametrize(("scale", "zero_point"), [(0.011, -3), (0.07, 127), (0.1734, -128)])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_a_logistic_is_exact(scale: float, zero_point: int, dtype: str) -> None:
    shift = 0 if dtype == "int8" else 128
    quants = Quant(scale, zero_point + shift), Quant(1 / 256, shift - 128)
    runs = run_single("LOGISTIC", (EVERY_CODE, EVERY_CODE), quants, dtype=dtype)
    assert runs.delegated
    assert_exact(runs)


@pytest.mark.parametrize("shape", [(1, 40, 10), (1, 4, 5, 7), (1, 80)], ids=str)
@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_a_softmax_stays_within_one_code(shape: tuple[int, ...], beta: float) -> None:
    """LiteRT's built-in kernel looks exponentials up in a float table: near-ties may fall either way."""
    runs = run_single("SOFTMAX", (shape, shape), (Quant(0.1, 3), Quant(1 / 256, -128)), beta=beta)
    assert not runs.delegated
    assert runs.worst <= 1
    assert runs.differing <= 0.01 * runs.litert[0].size
    assert runs.dialects_agree


@settings(max_examples=40)
@given(st.floats(0.01, 0.2), st.integers(-128, 127), st.floats(0.01, 0.2), st.integers(-128, 127))
def test_a_requantisation_is_exact(scale_in: float, zero_in: int, scale_out: float, zero_out: int) -> None:
    runs = run_single(
        "QUANTIZE", (EVERY_CODE, EVERY_CODE), (Quant(scale_in, zero_in), Quant(scale_out, zero_out))
    )
    assert runs.delegated
    assert_exact(runs)


@pytest.mark.parametrize("op", ["QUANTIZE", "RELU", "RELU6", "AVERAGE_POOL_2D", "RESIZE_BILINEAR"])
def test_an_operator_between_others_still_rounds_on_its_own(op: str) -> None:
    """ONNX Runtime merges Q -> DQ -> Q -> DQ into one pair; nothing here may leave such a chain."""
    b = TfliteBuilder()
    x = b.input("x", (1, 8, 8, 8), "int8", 0.05, -3)
    weights = np.maximum(codes((8, 3, 3, 8), seed=2), -127)
    bias = b.constant(np.zeros(8, np.int32), 0.0005)
    c = b.op(
        "CONV_2D",
        [x, b.constant(weights, 0.01), bias],
        (1, 8, 8, 8),
        "int8",
        0.4,
        5,
        name="c",
        padding="SAME",
    )
    if op == "AVERAGE_POOL_2D":
        side, quant, window = 4, Quant(0.4, 5), {"filter_h": 2, "filter_w": 2, "stride_h": 2, "stride_w": 2}
        m = b.op(
            op,
            [c],
            (1, side, side, 8),
            "int8",
            quant.scale,
            quant.zero_point,
            name="m",
            padding="VALID",
            **window,
        )
    elif op == "RESIZE_BILINEAR":
        side, quant = 16, Quant(0.4, 5)
        size = b.constant(np.array([16, 16], np.int32))
        m = b.op(op, [c, size], (1, side, side, 8), "int8", quant.scale, quant.zero_point, name="m")
    else:
        side, quant = 8, Quant(6 / 255 if op == "RELU6" else 0.51, -128)
        m = b.op(op, [c], (1, side, side, 8), "int8", quant.scale, quant.zero_point, name="m")
    w = b.constant(weights, 0.01)
    y = b.op(
        "CONV_2D",
        [m, w, b.constant(np.zeros(8, np.int32), quant.scale * 0.01)],
        (1, side, side, 8),
        "int8",
        2.0,
        1,
        name="y",
        padding="SAME",
    )
    assert_exact(run_everywhere(b.build([y]), [codes((1, 8, 8, 8))]))
