"""TRANSPOSE_CONV against LiteRT, over strides, kernels, paddings and output sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.errors import SourceFileError, UnsupportedModelError
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.single_operator import assert_exact, codes, run_everywhere, run_onnx
from tests.converters.sources.tflite.test_floats import run_both

if TYPE_CHECKING:
    from tests.converters.sources.tflite.single_operator import Runs

IMAGE = (1, 5, 6, 4)


def build(
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
    *,
    extra: tuple[int, int] = (0, 0),
    bias: Literal["none", "fits", "short"] = "fits",
    activation: str = "NONE",
    dtype: str = "int8",
    seed: int = 0,
) -> bytes:
    """From 4 to 3 channels; ``extra`` pixels less (SAME) or more (VALID) than usual."""
    rng, b = np.random.default_rng(seed), TfliteBuilder()
    sides = [
        size * stride - more if padding == "SAME" else (size - 1) * stride + length + more
        for size, stride, length, more in zip(IMAGE[1:3], strides, kernel, extra, strict=True)
    ]
    shape = (1, *sides, 3)
    scales = np.linspace(0.002, 0.004, 3).astype(np.float32)
    if dtype == "float32":
        x = b.input("x", IMAGE, dtype)
        weights = b.constant(rng.normal(size=(3, *kernel, 4)).astype(np.float32))
        offsets = b.constant(rng.normal(size=3).astype(np.float32))
    else:
        x = b.input("x", IMAGE, dtype, 0.05, -3 if dtype == "int8" else 125)
        low, scale, zero = (-127, scales, 0) if dtype == "int8" else (1, np.array([0.003], np.float32), 120)
        weights = b.constant(rng.integers(low, low + 255, (3, *kernel, 4)).astype(dtype), scale, zero)
        size = 3 if bias != "short" else 2
        offsets = b.constant(
            rng.integers(-2000, 2000, size).astype(np.int32), np.float32(0.05) * np.ravel(scale)[:size]
        )
    operands = [b.constant(np.array(shape, np.int32)), weights, x, None if bias == "none" else offsets]
    scale_out = None if dtype == "float32" else 0.051
    zero_out = {"float32": 0, "int8": 7, "uint8": 130}[dtype]
    y = b.op(
        "TRANSPOSE_CONV", operands[: 3 if bias == "none" else 4], shape, dtype, scale_out, zero_out, name="y",
        version=4 if activation != "NONE" else 3, fused_activation=activation,
        padding=padding, stride_h=strides[0], stride_w=strides[1],
    )  # fmt: skip
    return b.build([y])


def run(data: bytes, dtype: str = "int8") -> Runs:
    return run_everywhere(data, [codes(IMAGE, dtype)])


@pytest.mark.parametrize(
    ("kernel", "strides", "padding", "extra"),
    [
        ((3, 3), (2, 2), "SAME", (0, 0)),
        ((3, 3), (2, 2), "SAME", (1, 1)),
        ((2, 2), (2, 2), "VALID", (0, 0)),
        ((4, 4), (2, 2), "SAME", (0, 0)),
        ((5, 4), (1, 3), "VALID", (0, 1)),
        ((7, 2), (3, 1), "SAME", (1, 0)),
    ],
    ids=str,
)
def test_codes_are_exact(
    kernel: tuple[int, int], strides: tuple[int, int], padding: str, extra: tuple[int, int]
) -> None:
    runs = run(build(kernel, strides, padding, extra=extra))
    assert runs.delegated
    assert_exact(runs)


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from(["SAME", "VALID"]),
    st.sampled_from(["none", "fits"]),
    st.sampled_from(["NONE", "RELU", "RELU6"]),
    st.integers(0, 1000),
)
def test_every_kernel_is_exact(  # noqa: PLR0917  hypothesis gives positions
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
    bias: Literal["none", "fits"],
    activation: str,
    seed: int,
) -> None:
    runs = run(build(kernel, strides, padding, bias=bias, activation=activation, seed=seed))
    longer = any(stride > length for stride, length in zip(strides, kernel, strict=True))
    assert runs.delegated or longer  # else the built-in kernel, in 31-bit fixed point
    assert_exact(runs)


@pytest.mark.parametrize("kernel", [(3, 3), (1, 2)], ids=["XNNPACK", "built-in"])
def test_uint8_weights_are_exact(kernel: tuple[int, int]) -> None:
    runs = run(build(kernel, (2, 2), "SAME", dtype="uint8"), "uint8")
    assert runs.delegated == (kernel == (3, 3))
    assert_exact(runs)


def test_floats_are_litert_s_but_for_rounding() -> None:
    data = build((3, 4), (2, 2), "SAME", dtype="float32")
    image = np.random.default_rng(1).normal(size=IMAGE).astype(np.float32)
    theirs, ours = run_both(data, image)
    assert np.abs(theirs - ours).max() < 1e-5


def test_a_bias_that_does_not_fit_is_told() -> None:
    with pytest.raises(SourceFileError, match="has a bias of 2 numbers, expected 3"):
        run(build((3, 3), (2, 2), "SAME", bias="short"))


@pytest.mark.parametrize("stride", [65, 2**31 - 1])
def test_huge_strides_are_refused_and_ask_for_no_time(stride: int) -> None:
    with pytest.raises(UnsupportedModelError, match=f"stride_w {stride}, expected 1 to 64"):
        run_onnx(build((3, 3), (1, stride), "SAME", extra=(0, 6 * stride - 40)), [codes(IMAGE)], "uint8")
