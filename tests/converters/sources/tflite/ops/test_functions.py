"""Functions of one number, reductions and mirrored pixels against LiteRT, over scales, zero-points and axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.errors import UnsupportedModelError
from converters.sources.tflite.reader import read_tflite
from converters.sources.tflite.supported import require_supported
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.single_operator import Quant, assert_exact, run_everywhere, run_single

if TYPE_CHECKING:
    from tests.converters.sources.tflite.single_operator import Runs

EVERY_CODE = (1, 4, 8, 8)
SCALES = st.floats(-2.5, 0).map(lambda x: 10.0**x)
ZERO_POINTS = st.integers(-128, 127)
AXES = [(1, 2), (3,), (1,), (-1, 2), (1, 2, 3)]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["ABS", "EXP", "TANH"]), SCALES, SCALES, ZERO_POINTS, ZERO_POINTS)
def test_every_code_of_a_function_is_exact(op: str, scale_in: float, scale: float, before: int, after: int) -> None:
    out = Quant(1 / 128) if op == "TANH" else Quant(scale, after)  # LiteRT takes no other for TANH
    assert_exact(run_single(op, (EVERY_CODE, EVERY_CODE), (Quant(scale_in, before), out)))


@pytest.mark.parametrize(
    ("scale", "zero_point", "dtype"), [(0.0071904133, 0, "int8"), (0.0029309, 6, "uint8"), (0.0421375, -104, "uint8")]
)
def test_a_tanh_on_a_tie_is_exact(scale: float, zero_point: int, dtype: str) -> None:
    """128 tanh(-0.9131825) is -92.49999987, in float32 -92.5: half to even; others lie so near with 128 added."""
    shift = 0 if dtype == "int8" else 128
    quants = Quant(float(np.float32(scale)), zero_point + shift), Quant(1 / 128, shift)
    assert_exact(run_single("TANH", (EVERY_CODE, EVERY_CODE), quants, dtype=dtype))


def test_a_magnitude_at_one_scale_is_exact() -> None:
    assert_exact(run_single("ABS", (EVERY_CODE, EVERY_CODE), (Quant(0.05, -3), Quant(0.05, -100))))


def reduced(op: str, axes: tuple[int, ...], out: Quant, *, keep_dims: bool = True) -> Runs:
    shape = (1, 6, 7, 5)
    kept = {axis % 4 for axis in axes}
    sizes = [1 if axis in kept else size for axis, size in enumerate(shape) if keep_dims or axis not in kept]
    constant = np.array(axes, np.int32)
    return run_single(op, (shape, sizes), (Quant(0.05, -3), out), constant, keep_dims=keep_dims)


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("op", ["REDUCE_MAX", "REDUCE_MIN"])
def test_an_extreme_moves_codes_whatever_their_scale(op: str, axes: tuple[int, ...]) -> None:
    for out in (Quant(0.05, -3), Quant(0.3, 9)):
        assert_exact(reduced(op, axes, out))
    assert_exact(reduced(op, axes, Quant(0.05, -3), keep_dims=False))


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_a_sum_over_axes_is_exact_at_one_scale(axes: tuple[int, ...]) -> None:
    runs = reduced("SUM", axes, Quant(0.05, 5))
    assert runs.delegated
    assert_exact(runs)
    assert reduced("SUM", axes, Quant(0.3, 9)).worst <= 1


@pytest.mark.parametrize("mode", ["REFLECT", "SYMMETRIC"])
def test_mirrored_pixels_are_exact(mode: str) -> None:
    pads = np.array([(0, 0), (2, 1), (3, 2), (1, 0)], np.int32)
    quant = Quant(0.05, -3)
    assert_exact(run_single("MIRROR_PAD", ((1, 5, 6, 2), (1, 8, 11, 3)), (quant, quant), pads, mode=mode))


@pytest.mark.parametrize("op", ["ABS", "EXP", "LOG", "TANH", "NEG", "SQRT", "RSQRT", "SQUARE", "DIV", "POW"])
def test_floats_are_litert_s_but_for_rounding(op: str) -> None:
    b, image = TfliteBuilder(), np.random.default_rng(0).uniform(0.1, 2, EVERY_CODE).astype(np.float32)
    x = b.input("x", EVERY_CODE, "float32")
    operands = [x, x] if op in {"DIV", "POW"} else [x]
    runs = run_everywhere(b.build([b.op(op, operands, EVERY_CODE, "float32", name="y")]), [image])
    assert runs.worst < 1e-5


@pytest.mark.parametrize("op", ["SQUARE", "POW"])
def test_codes_of_what_is_translated_on_floats_are_refused(op: str) -> None:
    b = TfliteBuilder()
    x = b.input("x", EVERY_CODE, "int8", 0.05)
    y = b.op(op, [x, x] if op == "POW" else [x], EVERY_CODE, "int8", 0.05)
    with pytest.raises(
        UnsupportedModelError, match=f"{op}, which is translated on float32 numbers alone, as LiteRT has no kernel"
    ):
        require_supported(read_tflite(b.build([y]), "codes.tflite"))


def test_a_magnitude_is_rescaled_by_the_float32_quotient_of_its_scales() -> None:
    assert_exact(run_single("ABS", (EVERY_CODE, EVERY_CODE), (Quant(1 / 256, 127), Quant(0.05, -66))))


@pytest.mark.parametrize("scale", [0.0007, 0.04, 0.3])
@pytest.mark.parametrize("op", ["NEG", "LOG", "GELU", "GELU, approximate"])
def test_every_code_of_a_function_of_the_built_in_kernels_is_exact(op: str, scale: float) -> None:
    name = op.removesuffix(", approximate")
    options: dict[str, Any] = {"approximate": name != op} if name == "GELU" else {}
    for before, after in ((-128, 9), (127, -128), (-3, 127)):
        quants = Quant(0.05, before), Quant(scale, after)
        runs = run_single(name, (EVERY_CODE, EVERY_CODE), quants, **options)
        assert not runs.delegated
        assert_exact(runs)


@pytest.mark.parametrize("scale", [0.0007, 0.04, 0.3])
@pytest.mark.parametrize("op", ["SQRT", "RSQRT"])
def test_every_root_is_exact(op: str, scale: float) -> None:
    """Of numbers from 0: LiteRT stops at others."""
    for before in (0.001, 0.05, 3.0):
        runs = run_single(op, (EVERY_CODE, EVERY_CODE), (Quant(before, -128), Quant(scale, -9)))
        assert not runs.delegated
        assert_exact(runs)


def test_the_place_of_the_largest_code_is_exact() -> None:
    b = TfliteBuilder()
    x = b.input("x", EVERY_CODE, "int8", 0.05, -3)
    axis = b.constant(np.array(-1, np.int32))
    places = b.op("ARG_MAX", [x, axis], EVERY_CODE[:3], "int32", output_type="int32")
    real = b.op("CAST", [places], EVERY_CODE[:3], "float32", in_data_type="int32", out_data_type="float32")
    image = np.random.default_rng(0).integers(-3, 3, EVERY_CODE).astype(np.int8)  # with many ties
    assert_exact(run_everywhere(b.build([real]), [image]))
