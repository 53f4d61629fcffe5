"""A uint8 CONCATENATION of other scales, and operators that only move codes, give LiteRT's codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.integer.concatenated import concatenated_table, fitted_scale
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
