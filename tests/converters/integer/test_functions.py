"""CONCATENATION, HARD_SWISH, PRELU and operators that move codes give all of LiteRT's codes, at any scales."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.integer.functions import concatenated_table, fitted_scale, hard_swish_table
from converters.leaky import FloatForm, LeakyCase, float_table
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.single_operator import Quant, Runs, assert_exact, codes, run_everywhere, run_single

EVERY = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
SCALES = st.floats(0.01, 0.2) | st.sampled_from([0.025, 0.05, 0.1, 0.15, 0.2, 1 / 255, 2 / 255])


def concatenate(*quants: Quant, **options: Any) -> Runs:
    """All codes of uint8 operands beside each other; the last of ``quants`` is the output's."""
    b = TfliteBuilder()
    *operands, out = quants
    xs = [b.input(f"x{i}", EVERY.shape, "uint8", q.scale, q.zero_point) for i, q in enumerate(operands)]
    shape = (1, 16, 16, len(xs))
    y = b.op("CONCATENATION", xs, shape, "uint8", out.scale, out.zero_point, name="y", axis=3, **options)
    return run_everywhere(b.build([y]), [EVERY] * len(xs))


def test_halves_go_away_from_the_zero_point() -> None:
    case = LeakyCase(np.float32(0.5), 0, np.float32(1.0), 10, np.float32(1))
    table = concatenated_table(case)
    assert table[128 - 3 : 128 + 4].tolist() == [8, 9, 9, 10, 11, 11, 12]
    scale = fitted_scale(case, table)
    assert scale is not None
    assert 0.5 < scale < 0.51


def test_a_scale_that_fits_stays() -> None:
    case = LeakyCase(np.float32(0.0371), 3, np.float32(0.0911), -5, np.float32(1))
    assert fitted_scale(case, float_table(case, FloatForm(case.scale_in, np.float32(1)))) == case.scale_in


@settings(max_examples=60, deadline=None)
@given(st.tuples(SCALES, SCALES, SCALES), st.tuples(*[st.integers(0, 255)] * 3))
def test_a_concatenation_of_other_scales_is_exact(scales: tuple[float, ...], zero_points: tuple[int, ...]) -> None:
    assert_exact(concatenate(*(Quant(s, z) for s, z in zip(scales, zero_points, strict=True))))


def test_a_concatenation_without_a_fitting_scale_looks_codes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converters.sources.tflite.ops.moving.fitted_scale", lambda *_: None)
    assert_exact(concatenate(Quant(1 / 255), Quant(2 / 255, 7), Quant(2 / 255)))


@pytest.mark.parametrize("activation", ["RELU", "RELU6", "RELU_N1_TO_1"])
def test_a_fused_activation_does_nothing(activation: str) -> None:
    quant = Quant(0.1, 100)
    runs = concatenate(quant, quant, quant, fused_activation=activation)
    assert runs.delegated
    assert_exact(runs)


CONSTANTS: dict[str, tuple[tuple[int, ...], list[np.ndarray[Any, Any]], dict[str, Any]]] = {
    "TILE": ((1, 8, 8, 8), [np.array([1, 1, 1, 2], np.int32)], {}),
    "GATHER": ((1, 8, 8, 2), [np.array([1, 3], np.int32)], {"axis": 3}),
    "RESHAPE": ((1, 64, 4), [np.array([1, 64, 4], np.int32)], {}),
    "RESIZE_NEAREST_NEIGHBOR": ((1, 16, 16, 4), [np.array([16, 16], np.int32)], {}),
}


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("op", CONSTANTS)
def test_moved_codes_stay_whatever_the_output_s_scale(op: str, dtype: str) -> None:
    shape, constants, options = CONSTANTS[op]
    middle = 0 if dtype == "int8" else 128
    quants = Quant(0.1, middle + 3), Quant(0.2, middle - 7)
    runs = run_single(op, ((1, 8, 8, 4), shape), quants, *constants, dtype=dtype, **options)
    assert_exact(runs)
    assert set(np.unique(runs.uint8[0])) <= set(np.unique(codes((1, 8, 8, 4), dtype)))


def test_results_beyond_32_bits_get_the_lowest_code() -> None:
    """As x86 converts float32 numbers to int32; below them the highest code stands."""
    case = LeakyCase(np.float32(0.4), 0, np.float32(0.4 / 2**26), 0, np.float32(1))
    table = concatenated_table(case)
    assert table[128:].tolist() == [0, *[127] * 31, *[-128] * 96]
    assert set(table[:128].tolist()) == {-128}


def test_far_results_are_litert_s() -> None:
    assert_exact(concatenate(Quant(0.4, 128), Quant(0.4 / 2**26, 128)))


@settings(max_examples=100, deadline=None)
@given(
    st.floats(1e-3, 0.3),
    st.floats(0.3, 20.0),
    st.integers(0, 255),
    st.integers(0, 255),
    st.sampled_from(["int8", "uint8"]),
)
def test_every_hard_swish_is_exact(scale: float, ratio: float, zero_in: int, zero_out: int, dtype: str) -> None:
    lowest = int(np.iinfo(dtype).min)
    quants = Quant(scale, zero_in + lowest), Quant(scale * ratio, zero_out + lowest)
    assert_exact(run_single("HARD_SWISH", (EVERY.shape, EVERY.shape), quants, dtype=dtype))


def test_the_table_is_the_function_where_steps_are_small() -> None:
    table = hard_swish_table(LeakyCase(np.float32(1 / 16), 0, np.float32(1 / 16), 0, np.float32(1)))
    x = np.arange(-128, 128) / 16
    assert np.abs(table / 16 - x * np.clip(x / 6 + 0.5, 0, 1)).max() <= 1 / 16


def test_a_scale_that_litert_refuses_is_told() -> None:
    with pytest.raises(ValueError, match="below a 128th of the input's"):
        hard_swish_table(LeakyCase(np.float32(1), 0, np.float32(1 / 256), 0, np.float32(1)))


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
    """140 codes times 0.0390625 are 5.46875, of which both roundings make 6; a float64 quotient would make 5."""
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
