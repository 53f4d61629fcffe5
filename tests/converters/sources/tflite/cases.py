"""A network of one operator for every case of every row: pixels in, the operator, float32 numbers out.

    build_case("RELU6", "with other scales")  # bytes of a TFLite file

The image is uint8 ``(1, 16, 16, 3)``; whoever adds a row or a case adds its network here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.converters.sources.tflite.builder import TfliteBuilder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

SIZE = 16
SHAPE = (1, SIZE, SIZE, 3)
PIXEL = 1 / 255


class Network:
    """An image whose int8 codes are ``x``, and one operator behind it."""

    def __init__(self) -> None:
        self.b = TfliteBuilder()
        self.image = self.b.input("image", SHAPE, "uint8", PIXEL, 0)
        self.x = self.b.op("QUANTIZE", [self.image], SHAPE, "int8", PIXEL, -128, name="codes")

    def ints(self, *values: Any) -> int:
        """An int32 constant."""
        return self.b.constant(np.array(values, np.int32))

    def op(  # noqa: PLR0917  a tensor reads as shape, scale, zero-point, dtype
        self,
        op: str,
        operands: list[int],
        shape: tuple[int, ...] = SHAPE,
        scale: float = PIXEL,
        zero_point: int = -128,
        dtype: str = "int8",
        **options: Any,
    ) -> int:
        """The operator under test."""
        return self.b.op(op, operands, shape, dtype, scale, zero_point, name="y", **options)

    def finish(self, y: int) -> bytes:
        """The file: ``y`` as float32 numbers, in four axes."""
        tensor = self.b.subgraph.tensors[y]
        shape = tuple(int(size) for size in tensor.shape)
        if len(shape) != 4:
            quant, dtype = tensor.quantization, "uint8" if tensor.type == 3 else "int8"
            flat = (1, 1, 1, int(np.prod(shape)))
            y = self.b.op("RESHAPE", [y], flat, dtype, quant.scale[0], quant.zeroPoint[0], new_shape=flat)
            shape = flat
        return self.b.build([self.b.op("DEQUANTIZE", [y], shape, "float32", name="real")])


def weights(*shape: int) -> NDArray[Any]:
    """Random codes."""
    return np.random.default_rng(3).integers(-127, 128, shape).astype(np.int8)


def _convolution(op: str, shape: tuple[int, ...], axis: int) -> Callable[[Network], int]:
    def build(n: Network) -> int:
        scales = np.linspace(0.002, 0.004, shape[axis], dtype=np.float32)
        bias = n.b.constant(np.arange(shape[axis], dtype=np.int32) * 100, scales * np.float32(PIXEL))
        kernel = n.b.constant(weights(*shape), scales, axis=axis)
        options = {"padding": "SAME", "fused_activation": "RELU6"}
        return n.op(op, [n.x, kernel, bias], (1, SIZE, SIZE, shape[axis]), 0.027, -128, **options)

    return build


def _transpose_conv(kernel: int, stride: int) -> Callable[[Network], int]:
    def build(n: Network) -> int:
        side, scales = SIZE * stride, np.linspace(0.002, 0.004, 5, dtype=np.float32)
        shape = (1, side, side, 5)
        bias = n.b.constant(np.arange(5, dtype=np.int32) * 100, scales * np.float32(PIXEL))
        taps = n.b.constant(weights(5, kernel, kernel, 3), scales)
        operands = [n.ints(*shape), taps, n.x, bias]
        return n.op("TRANSPOSE_CONV", operands, shape, 0.0121, -9, padding="SAME", stride_h=stride, stride_w=stride)

    return build


def _fully_connected(n: Network) -> int:
    kernel = n.b.constant(weights(5, 3), 0.003)
    return n.op("FULLY_CONNECTED", [n.x, kernel], (256, 5), 0.01, 3)


def _computed_weights(n: Network) -> int:
    rows = n.b.op("RESHAPE", [n.x, n.ints(256, 3)], (256, 3), "int8", PIXEL, -128, name="rows")
    return n.op("FULLY_CONNECTED", [n.x, rows], (256, 256), 0.0103, -100)


def _matmul_around_zero(n: Network) -> int:
    second = n.b.constant(weights(1, SIZE, 3, 5), 0.004)
    return n.op("BATCH_MATMUL", [n.x, second], (1, SIZE, SIZE, 5), 0.011, 3)


def _pool(op: str, window: int = 2, scale: float = PIXEL) -> Callable[[Network], int]:
    size = SIZE // 2
    return lambda n: n.op(op, [n.x], (1, size, size, 3), scale, padding="SAME", stride_h=2, stride_w=2,
                          filter_h=window, filter_w=window)  # fmt: skip


def _unary(op: str, scale: float, zero_point: int = -128, **options: Any) -> Callable[[Network], int]:
    return lambda n: n.op(op, [n.x], SHAPE, scale, zero_point, **options)


def _signed(op: str, scale_in: float, scale: float, zero_point: int = 0) -> Callable[[Network], int]:
    """The operator behind numbers on both sides of 0: pixels less a half."""

    def build(n: Network) -> int:
        half = n.b.constant(np.array([127], np.int8), 0.5 / 127)
        centred = n.b.op("SUB", [n.x, half], SHAPE, "int8", scale_in, 0, name="centred")
        return n.op(op, [centred], SHAPE, scale, zero_point)

    return build


def _pair(op: str, scale: float) -> Callable[[Network], int]:
    def build(n: Network) -> int:
        constant = n.b.constant(np.array([-100, 3, 90], np.int8), 0.0037, 11)
        return n.op(op, [n.x, constant], SHAPE, scale, -9)

    return build


def _div(n: Network) -> int:
    divisors = n.b.constant(np.array([-100, 3, 90], np.int8), 0.0037, 11)
    return n.op("DIV", [n.x, divisors], SHAPE, 0.0091, -9)


def _arg_max(n: Network) -> bytes:
    shape = (1, SIZE, SIZE)
    places = n.b.op("ARG_MAX", [n.x, n.ints(3)], shape, "int32", name="y", output_type="int32")
    options: dict[str, Any] = {"in_data_type": "int32", "out_data_type": "float32"}
    real = n.b.op("CAST", [places], shape, "float32", name="real", **options)
    return n.b.build([n.b.op("RESHAPE", [real, n.ints(*shape, 1)], (*shape, 1), "float32", name="image")])


def _silu(n: Network) -> int:
    """Numbers around 0, by scales with which the form is right for these pairs alone."""
    half = n.b.constant(np.array([127], np.int8), 0.5 / 127)
    x = n.b.op("SUB", [n.x, half], SHAPE, "int8", 0.1, -8, name="centred")
    gate = n.b.op("LOGISTIC", [x], SHAPE, "int8", 1 / 256, -128, name="gate")
    return n.op("MUL", [x, gate], SHAPE, 0.075, -117)


def _concatenation(n: Network) -> int:
    return n.op("CONCATENATION", [n.x, n.x], (1, SIZE, SIZE, 6), axis=3)


def _uint8_concatenation(n: Network) -> int:
    double = n.b.op("ADD", [n.image, n.image], SHAPE, "uint8", 2 * PIXEL, 0, name="sum")
    out = (1, SIZE, SIZE, 6)
    return n.op("CONCATENATION", [n.image, double], out, 2 * PIXEL, 0, "uint8", axis=3)


def _resize(op: str, size: int) -> Callable[[Network], int]:
    return lambda n: n.op(op, [n.x, n.ints(size, size)], (1, size, size, 3), half_pixel_centers=True)


def _cast(n: Network) -> bytes:
    y = n.b.op("CAST", [n.x], SHAPE, "float32", name="y", in_data_type="int8", out_data_type="float32")
    return n.b.build([y])


def _dequantize(n: Network) -> bytes:
    return n.b.build([n.b.op("DEQUANTIZE", [n.x], SHAPE, "float32", name="y")])


def _from_float(n: Network) -> int:
    real = n.b.op("DEQUANTIZE", [n.x], SHAPE, "float32", name="float")
    return n.op("QUANTIZE", [real], SHAPE, 0.0061, -20)


def _odd_quantize(n: Network) -> int:
    shape = (1, 1, 3, 7)
    part = n.b.op("SLICE", [n.x, n.ints(0, 0, 0, 0), n.ints(1, 7, 3, 1)], (1, 7, 3, 1), "int8", PIXEL, -128)
    part = n.b.op("RESHAPE", [part, n.ints(*shape)], shape, "int8", PIXEL, -128, name="part")
    return n.op("QUANTIZE", [part], shape, 0.0061, 100, "uint8")


def _mean(scale: float) -> Callable[[Network], int]:
    return lambda n: n.op("MEAN", [n.x, n.ints(1, 2)], (1, 1, 1, 3), scale, keep_dims=True)


def _pad(n: Network) -> int:
    return n.op("PAD", [n.x, n.ints((0, 0), (1, 2), (0, 3), (0, 0))], (1, SIZE + 3, SIZE + 3, 3))


def _reduced(op: str, scale: float) -> Callable[[Network], int]:
    return lambda n: n.op(op, [n.x, n.ints(3)], (1, SIZE, SIZE, 1), scale, -100, keep_dims=True)


def _on_floats(op: str) -> Callable[[Network], bytes]:
    """Of pixels and a bit, so that none is 0."""

    def build(n: Network) -> bytes:
        real = n.b.op("DEQUANTIZE", [n.x], SHAPE, "float32", name="float")
        more = n.b.constant(np.array([0.25], np.float32))
        x = n.b.op("ADD", [real, more], SHAPE, "float32", name="more")
        operands = [x, x] if op in {"DIV", "POW"} else [x]
        return n.b.build([n.b.op(op, operands, SHAPE, "float32", name="y")])

    return build


def _mirror_pad(n: Network) -> int:
    pads = n.ints((0, 0), (2, 1), (0, 3), (0, 0))
    return n.op("MIRROR_PAD", [n.x, pads], (1, SIZE + 3, SIZE + 3, 3), mode="SYMMETRIC")


def _split(n: Network) -> int:
    half = (1, SIZE, SIZE // 2, 3)
    parts = [n.b.tensor(name, half, "int8", PIXEL, -128) for name in ("left", "y")]
    n.b.operator("SPLIT", [n.ints(2), n.x], parts, num_splits=2)
    return parts[1]


def _slice(n: Network) -> int:
    limits = [n.ints(0, 1, 2, 0), n.ints(1, 15, 16, 3), n.ints(1, 2, 1, 1)]
    return n.op("STRIDED_SLICE", [n.x, *limits], (1, 7, 14, 3))


def _extreme(op: str) -> Callable[[Network], int]:
    return lambda n: n.op(op, [n.x, n.b.constant(np.array([-100, 3, 90], np.int8), PIXEL, -128)])


def _prelu(n: Network) -> int:
    half = n.b.constant(np.array([127], np.int8), 0.5 / 127)
    centred = n.b.op("SUB", [n.x, half], SHAPE, "int8", 0.005, 0, name="centred")
    return n.op("PRELU", [centred, n.b.constant(weights(1, 1, 3), 0.004)], SHAPE, 0.004, -30)


def _unpack(n: Network) -> int:
    parts = [n.b.tensor(name, (1, SIZE, SIZE), "int8", PIXEL, -128) for name in ("red", "y", "blue")]
    n.b.operator("UNPACK", [n.x], parts, num=3, axis=3)
    return parts[1]


def _depth_to_space(n: Network) -> int:
    deep = n.b.op("SPACE_TO_DEPTH", [n.x], (1, 4, 4, 48), "int8", PIXEL, -128, name="deep", block_size=4)
    return n.op("DEPTH_TO_SPACE", [deep], (1, 8, 8, 12), block_size=2)


def _shape(n: Network) -> int:
    shape = n.b.op("SHAPE", [n.x], (4,), "int32", name="y", out_type="int32")
    return n.b.op("RESHAPE", [n.x, shape], SHAPE, "int8", PIXEL, -128, name="shaped")


BUILDERS: Mapping[tuple[str, str], Callable[[Network], int | bytes]] = {
    ("CONV_2D", ""): _convolution("CONV_2D", (7, 3, 3, 3), 0),
    ("DEPTHWISE_CONV_2D", ""): _convolution("DEPTHWISE_CONV_2D", (1, 3, 3, 3), 3),
    ("FULLY_CONNECTED", ""): _fully_connected,
    ("TRANSPOSE_CONV", ""): _transpose_conv(3, 2),
    ("TRANSPOSE_CONV", "with SAME padding and strides longer than the kernel"): _transpose_conv(2, 3),
    ("FULLY_CONNECTED", "with weights computed at run time"): _computed_weights,
    ("BATCH_MATMUL", ""): lambda n: n.op("BATCH_MATMUL", [n.x, n.x], (1, SIZE, SIZE, SIZE), 0.0103, -100, adj_y=True),
    ("BATCH_MATMUL", "of int8 codes with zero-point 0 in the second operand"): _matmul_around_zero,
    ("MAX_POOL_2D", ""): _pool("MAX_POOL_2D"),
    ("AVERAGE_POOL_2D", ""): _pool("AVERAGE_POOL_2D"),
    ("AVERAGE_POOL_2D", "of 128 pixels or more, or with other scales"): _pool("AVERAGE_POOL_2D", 12),
    ("MEAN", ""): _mean(PIXEL),
    (
        "MEAN",
        "of an even number of values that is no power of 2, with other scales, or zero-points at both rims",
    ): _mean(0.003),
    ("LEAKY_RELU", ""): _unary("LEAKY_RELU", 0.0045, -100, alpha=0.1),
    ("LEAKY_RELU", "outside XNNPACK's range"): _unary("LEAKY_RELU", 2.0, 0, alpha=0.1),
    **{(op, ""): _signed(op, 0.005, 0.005) for op in ("RELU", "RELU6", "RELU_N1_TO_1")},
    **{(op, "with other scales"): _signed(op, 0.005, 0.004) for op in ("RELU", "RELU6", "RELU_N1_TO_1")},
    ("LOGISTIC", ""): _unary("LOGISTIC", 1 / 256),
    ("ABS", ""): _signed("ABS", 0.005, 0.0041, -30),
    ("EXP", ""): _signed("EXP", 0.005, 0.0081, -128),
    ("TANH", ""): _signed("TANH", 0.005, 1 / 128, 0),
    **{(op, ""): _on_floats(op) for op in ("SQUARE", "POW")},
    ("GELU", ""): _signed("GELU", 0.02, 0.011, -100),
    ("LOG", ""): _unary("LOG", 0.03, 120),
    ("NEG", ""): _signed("NEG", 0.005, 0.005),
    ("SQRT", ""): _unary("SQRT", 0.0041),
    ("RSQRT", ""): _unary("RSQRT", 0.05),
    ("DIV", ""): _div,
    ("ARG_MAX", ""): _arg_max,
    ("SUM", ""): _reduced("SUM", PIXEL),
    ("SUM", "with other scales"): _reduced("SUM", 0.011),
    ("REDUCE_MAX", ""): _reduced("REDUCE_MAX", 0.0061),
    ("REDUCE_MIN", ""): _reduced("REDUCE_MIN", PIXEL),
    ("MIRROR_PAD", ""): _mirror_pad,
    ("PRELU", ""): _prelu,
    ("HARD_SWISH", ""): _signed("HARD_SWISH", 0.005, 0.003, -20),
    ("SOFTMAX", ""): _unary("SOFTMAX", 1 / 256, beta=1.0),
    ("QUANTIZE", ""): _unary("QUANTIZE", 0.0061, -20),
    ("QUANTIZE", "from float"): _from_float,
    ("QUANTIZE", "outside XNNPACK's range, or to another type of codes"): _unary("QUANTIZE", 2.0, 0),
    (
        "QUANTIZE",
        "outside XNNPACK's range, or to another type of codes, of a number of values that 16 does not divide",
    ): _odd_quantize,
    ("DEQUANTIZE", ""): _dequantize,
    ("CAST", ""): _cast,
    **{(op, ""): _pair(op, 0.0091) for op in ("ADD", "SUB", "MUL")},
    **{(op, "outside XNNPACK's range"): _pair(op, 20.0) for op in ("ADD", "SUB", "MUL")},
    **{
        (op, "outside XNNPACK's range, where results pass 32,767 codes"): _pair(op, scale)
        for op, scale in (("ADD", 1e-5), ("SUB", 1e-5), ("MUL", 2e-8))
    },
    ("MUL", "of a tensor and its LOGISTIC (SiLU)"): _silu,
    ("MUL", "of a tensor with itself"): lambda n: n.op("MUL", [n.x, n.x], SHAPE, 0.0031, -128),
    ("CONCATENATION", ""): _concatenation,
    ("CONCATENATION", "of uint8 operands with other scales"): _uint8_concatenation,
    ("RESIZE_NEAREST_NEIGHBOR", ""): _resize("RESIZE_NEAREST_NEIGHBOR", 24),
    ("RESIZE_BILINEAR", ""): _resize("RESIZE_BILINEAR", 32),
    ("RESIZE_BILINEAR", "by other factors"): _resize("RESIZE_BILINEAR", 24),
    ("PAD", ""): _pad,
    ("RESHAPE", ""): lambda n: n.op("RESHAPE", [n.x], (1, 4, 64, 3), new_shape=(1, 4, 64, 3)),
    ("TRANSPOSE", ""): lambda n: n.op("TRANSPOSE", [n.x, n.ints(0, 2, 3, 1)], (1, SIZE, 3, SIZE)),
    ("STRIDED_SLICE", ""): _slice,
    ("GATHER", ""): lambda n: n.op("GATHER", [n.x, n.ints(3, 0, 9)], (1, 3, SIZE, 3), axis=1),
    ("TILE", ""): lambda n: n.op("TILE", [n.x, n.ints(1, 1, 2, 1)], (1, SIZE, 2 * SIZE, 3)),
    ("SPLIT", ""): _split,
    ("PACK", ""): lambda n: n.op("PACK", [n.x, n.x], (1, SIZE, 2, SIZE, 3), axis=2, values_count=2),
    ("SHAPE", ""): _shape,
    ("MAXIMUM", ""): _extreme("MAXIMUM"),
    ("MINIMUM", ""): _extreme("MINIMUM"),
    ("SQUEEZE", ""): lambda n: n.op("SQUEEZE", [n.x], SHAPE[1:], squeeze_dims=(0,)),
    ("EXPAND_DIMS", ""): lambda n: n.op("EXPAND_DIMS", [n.x, n.ints(1)], (1, 1, *SHAPE[1:])),
    ("SLICE", ""): lambda n: n.op("SLICE", [n.x, n.ints(0, 2, 3, 1), n.ints(1, 9, -1, 2)], (1, 9, 13, 2)),
    ("UNPACK", ""): _unpack,
    ("DEPTH_TO_SPACE", ""): _depth_to_space,
    ("SPACE_TO_DEPTH", ""): lambda n: n.op("SPACE_TO_DEPTH", [n.x], (1, 8, 8, 12), block_size=2),
}


def build_case(op: str, when: str) -> bytes:
    """The TFLite file of a case."""
    network = Network()
    built = BUILDERS[op, when](network)
    return built if isinstance(built, bytes) else network.finish(built)
