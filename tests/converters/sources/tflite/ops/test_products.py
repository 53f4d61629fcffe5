"""CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV, FULLY_CONNECTED and BATCH_MATMUL equal LiteRT in every code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.errors import ConversionError, SourceFileError, UnsupportedModelError
from converters.sources.tflite.reader import read_tflite
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.single_operator import (
    Runs,
    assert_exact,
    codes,
    run_everywhere,
    run_onnx,
    translated,
)
from tests.converters.sources.tflite.test_floats import run_both

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Case(NamedTuple):
    """One convolution; the defaults are a plain 3x3 of int8 with per-channel weights."""

    size: tuple[int, int] = (9, 9)
    channels: tuple[int, int] = (8, 8)
    kernel: tuple[int, int] = (3, 3)
    stride: int = 1
    dilation: int = 1
    padding: str = "SAME"
    dtype: str = "int8"
    per_channel: bool = True
    zero_points: tuple[int, int] = (-3, 5)
    weight_zero_point: int = 0
    activation: str = "NONE"
    bias: bool = True
    out_scale: float = 0.6

    def out_shape(self) -> tuple[int, int, int, int]:
        height, width = (
            -(-n // self.stride) if self.padding == "SAME" else (n - (k - 1) * self.dilation - 1) // self.stride + 1
            for n, k in zip(self.size, self.kernel, strict=True)
        )
        return 1, height, width, self.channels[1]

    def options(self) -> dict[str, Any]:
        return {
            "padding": self.padding,
            "stride_h": self.stride,
            "stride_w": self.stride,
            "dilation_h": self.dilation,
            "dilation_w": self.dilation,
            "fused_activation": self.activation,
        }


SHAPES = {
    "odd size": Case(size=(7, 11)),
    "one pixel": Case(size=(1, 1)),
    "stride 2 same, odd": Case(size=(9, 7), stride=2),
    "stride 2 same, even": Case(size=(8, 10), stride=2),
    "stride 2 valid": Case(size=(9, 8), stride=2, padding="VALID"),
    "stride 3 same": Case(size=(10, 11), stride=3),
    "dilation 2 same": Case(dilation=2),
    "dilation 3 valid": Case(size=(11, 12), dilation=3, padding="VALID"),
    "1x1": Case(kernel=(1, 1)),
    "1x1 stride 2": Case(kernel=(1, 1), stride=2),
    "5x2 kernel": Case(kernel=(5, 2)),
    "three input channels": Case(channels=(3, 16)),
    "one output channel": Case(channels=(8, 1)),
    "30 output channels": Case(channels=(16, 30)),
}
NUMBERS = {
    "per tensor": Case(per_channel=False),
    "zero-points -128": Case(zero_points=(-128, -128)),
    "zero-points 127": Case(zero_points=(127, 127)),
    "bias of 0": Case(bias=False),
    "redundant RELU": Case(activation="RELU", zero_points=(-3, -128)),
    "clamping RELU": Case(activation="RELU"),
    "redundant RELU6": Case(activation="RELU6", zero_points=(-3, -128), out_scale=6 / 255),
    "clamping RELU6": Case(activation="RELU6", zero_points=(-3, -100), out_scale=0.05),
    "RELU_N1_TO_1": Case(activation="RELU_N1_TO_1", out_scale=0.02),
    "saturating output": Case(out_scale=0.05),
    "uint8 legacy": Case(dtype="uint8", per_channel=False, zero_points=(3, 140), weight_zero_point=131),
    "uint8 weight zero-point 0": Case(dtype="uint8", per_channel=False, zero_points=(0, 255)),
    "uint8 weight zero-point 255": Case(dtype="uint8", per_channel=False, zero_points=(255, 0), weight_zero_point=255),
}


def convolve(case: Case, *, multiplier: int = 0) -> Runs:
    """Run a convolution everywhere; ``multiplier`` makes it depthwise."""
    channels_in = case.channels[0]
    channels = channels_in * multiplier if multiplier else case.channels[1]
    shape = (1, *case.kernel, channels) if multiplier else (channels, *case.kernel, channels_in)
    b = TfliteBuilder()
    x = b.input("x", (1, *case.size, channels_in), case.dtype, 0.05, case.zero_points[0])
    rng = np.random.default_rng(1)
    weights = codes(shape, case.dtype, 2)
    if case.dtype == "int8":
        weights = np.maximum(weights, -127)  # symmetric weights leave -128 out
    scales = (rng.uniform(0.005, 0.02, channels) if case.per_channel else np.array([0.01])).astype(np.float32)
    w = b.constant(weights, scales, case.weight_zero_point, name="w", axis=3 if multiplier else 0)
    bias = rng.integers(-3000, 3000, channels).astype(np.int32)
    operands = [x, w, b.constant(bias if case.bias else bias * 0, np.float32(0.05) * scales)]
    out = (*case.out_shape()[:3], channels)
    options = case.options() | ({"depth_multiplier": multiplier} if multiplier else {})
    op = "DEPTHWISE_CONV_2D" if multiplier else "CONV_2D"
    y = b.op(op, operands, out, case.dtype, case.out_scale, case.zero_points[1], name="y", version=3, **options)
    return run_everywhere(b.build([y]), [codes((1, *case.size, channels_in), case.dtype)])


@pytest.mark.parametrize("case", {**SHAPES, **NUMBERS}.values(), ids={**SHAPES, **NUMBERS}.keys())
def test_a_convolution_is_exact(case: Case) -> None:
    runs = convolve(case)
    assert runs.delegated
    assert_exact(runs)


@pytest.mark.parametrize("multiplier", [1, 2, 3])
@pytest.mark.parametrize(
    "case",
    [
        Case(),
        Case(size=(7, 8), stride=2),
        Case(padding="VALID"),
        Case(zero_points=(-128, 127)),
        Case(zero_points=(127, -128), activation="RELU6", out_scale=0.05),
        Case(per_channel=False),
    ],
    ids=["same", "stride 2", "valid", "rims", "clamping RELU6", "per tensor"],
)
def test_a_depthwise_convolution_is_exact(case: Case, multiplier: int) -> None:
    runs = convolve(case, multiplier=multiplier)
    assert runs.delegated
    assert_exact(runs)


@pytest.mark.parametrize("multiplier", [1, 2, 3])
def test_a_legacy_uint8_depthwise_convolution_stays_within_one_code(multiplier: int) -> None:
    """XNNPACK does not take it; LiteRT's built-in kernel multiplies in 31-bit fixed point, which moves near-ties."""
    runs = convolve(
        Case(dtype="uint8", per_channel=False, zero_points=(3, 140), weight_zero_point=131), multiplier=multiplier
    )
    assert not runs.delegated
    assert runs.worst <= 1
    assert runs.differing <= 0.005 * runs.litert[0].size
    assert runs.dialects_agree


@pytest.mark.parametrize("shape", [(1, 32), (1, 2, 4, 4), (1, 3, 8)], ids=["row", "picture", "rows"])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("activation", ["NONE", "RELU6"])
def test_a_fully_connected_layer_is_exact(shape: tuple[int, ...], dtype: str, activation: str) -> None:
    length = 8 if len(shape) == 3 else 32
    rows = int(np.prod(shape)) // length
    shift = 0 if dtype == "int8" else 128
    b = TfliteBuilder()
    x = b.input("x", shape, dtype, 0.05, shift - 3)
    w = b.constant(np.maximum(codes((16, length), dtype, 3), -127 if dtype == "int8" else 0), 0.02, shift and 100)
    bias = b.constant(codes((16,), "int8", 4).astype(np.int32) * 20, 0.05 * 0.02)
    y = b.op("FULLY_CONNECTED", [x, w, bias], (rows, 16), dtype, 0.3, shift + 3, name="y", fused_activation=activation)
    assert_exact(run_everywhere(b.build([y]), [codes(shape, dtype)]))


def test_a_per_channel_fully_connected_layer_is_exact() -> None:
    b = TfliteBuilder()
    x = b.input("x", (1, 32), "int8", 0.05, -3)
    w = b.constant(np.maximum(codes((16, 32), "int8", 3), -127), np.linspace(0.01, 0.03, 16, dtype=np.float32))
    y = b.op("FULLY_CONNECTED", [x, w, None], (1, 16), "int8", 0.4, 7, name="y")
    assert_exact(run_everywhere(b.build([y]), [codes((1, 32))]))


def test_every_convolution_becomes_one_quantised_pattern() -> None:
    b = TfliteBuilder()
    x = b.input("x", (1, 4, 4, 3), "int8", 0.05, -3)
    w = b.constant(codes((4, 3, 3, 3)), [0.01] * 4)
    y = b.op("CONV_2D", [x, w, None], (1, 4, 4, 4), "int8", 0.3, 7, name="y", padding="SAME")
    model = translated(read_tflite(b.build([y]), "one.tflite"))
    kinds = [node.op_type for node in model.graph]
    assert kinds == [
        "Transpose",
        "DequantizeLinear",
        "DequantizeLinear",
        "Conv",
        "QuantizeLinear",
        "DequantizeLinear",
        "Transpose",
    ]


@pytest.mark.parametrize(
    ("weights", "words"),
    [((4, 3, 3, 5), "the channels do not fit"), ((4, 3, 3, 0), "empty tensor"), ((4, 3, 3), "expected 4 axes")],
)
def test_weights_that_do_not_fit_are_refused(weights: tuple[int, ...], words: str) -> None:
    b = TfliteBuilder()
    x = b.input("x", (1, 4, 4, 3), "int8", 0.05, -3)
    w = b.constant(np.zeros(weights, np.int8), 0.01)
    y = b.op("CONV_2D", [x, w, None], (1, 4, 4, 4), "int8", 0.3, 7, name="y", padding="SAME")
    with pytest.raises(ConversionError, match=words):
        translated(read_tflite(b.build([y]), "one.tflite"))


FACTORS = [((1, 4, 6), (1, 6, 5)), ((1, 2, 4, 6), (1, 2, 6, 5)), ((1, 2, 4, 6), (1, 6, 5))]


def multiply(shapes: tuple[tuple[int, ...], tuple[int, ...]], *, adj_x: bool, adj_y: bool, dtype: str = "int8") -> Runs:
    """``(.., 4, 6)`` times ``(.., 6, 5)``; an operand that LiteRT exchanges is stored exchanged."""
    b, operands = TfliteBuilder(), list[int]()
    feeds: list[NDArray[Any]] = []
    for name, shape, exchanged, quant in zip("xy", shapes, (adj_x, adj_y), ((0.05, -3), (0.04, 7)), strict=True):
        stored = (*shape[:-2], shape[-1], shape[-2]) if exchanged else shape
        scale, zero_point = (None, 0) if dtype == "float32" else quant
        operands.append(b.input(name, stored, dtype, scale, zero_point))
        feeds.append(codes(stored, seed=len(feeds)))
        if dtype == "float32":
            feeds[-1] = feeds[-1].astype(np.float32) / 100
    shape = (*shapes[0][:-2], 4, 5)
    scale, zero_point = (None, 0) if dtype == "float32" else (0.9, 5)
    y = b.op("BATCH_MATMUL", operands, shape, dtype, scale, zero_point, name="z", version=3, adj_x=adj_x, adj_y=adj_y)
    return run_everywhere(b.build([y]), feeds)


@pytest.mark.parametrize("shapes", FACTORS, ids=str)
@pytest.mark.parametrize(("adj_x", "adj_y"), [(False, False), (True, False), (False, True)])
def test_a_product_of_matrices_is_exact(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], *, adj_x: bool, adj_y: bool
) -> None:
    runs = multiply(shapes, adj_x=adj_x, adj_y=adj_y)
    assert not runs.delegated
    assert_exact(runs)


def test_a_product_of_float_matrices_is_litert_s_but_for_rounding() -> None:
    assert multiply(FACTORS[1], adj_x=True, adj_y=True, dtype="float32").worst < 1e-5


@pytest.mark.parametrize("bias", [False, True])
def test_weights_that_are_computed_are_exact(*, bias: bool) -> None:
    b = TfliteBuilder()
    x, matrix = b.input("x", (1, 40), "int8", 0.05, -3), b.input("w", (1, 9, 40), "int8", 0.04, 7)
    shape = b.constant(np.array([9, 40], np.int32))
    w = b.op("RESHAPE", [matrix, shape], (9, 40), "int8", 0.04, 7, name="rows", new_shape=(9, 40))
    operands = [x, w, *([b.constant(np.arange(9, dtype=np.int32) * 500, 0.05 * 0.04)] if bias else [])]
    y = b.op("FULLY_CONNECTED", operands, (1, 9), "int8", 0.9, 5, name="y", version=4)
    runs = run_everywhere(b.build([y]), [codes((1, 40)), codes((1, 9, 40), seed=1)])
    assert_exact(runs)


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
