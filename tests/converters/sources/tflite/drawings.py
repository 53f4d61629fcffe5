"""A builder of random models for every row of the table of operators; ``generated`` runs them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.converters.sources.tflite.drawn import ACTIVATIONS, Draw

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Shape = tuple[int, ...]
    Builder = Callable[[Draw], bytes]


def _unary(op: str) -> Builder:
    def build(d: Draw) -> bytes:
        options: dict[str, Any] = {}
        if op == "LEAKY_RELU":
            options["alpha"] = float(d.pick((d.rng.uniform(0, 0.9), d.rng.uniform(-1, 0), 1e-4, 0.1)))
        if op == "GELU":
            options["approximate"] = d.chance(0.5)
        if op in {"SQRT", "RSQRT", "LOG"}:  # LiteRT refuses numbers below 0
            d.feeds[0] = np.maximum(d.feeds[0], d.quant[1]).astype(d.dtype)
        quant = d.quant if op.startswith("RELU") and d.chance(0.5) else d.output(d.quant[0])
        return d.close(op, [d.x], d.shape, quant, **options)

    return build


def _silu(d: Draw) -> bytes:
    gate = d.b.op("LOGISTIC", [d.x], d.shape, d.dtype, *(d.fixed("LOGISTIC") or ()), name="gate")
    return d.close("MUL", [d.x, gate], d.shape, d.output(d.quant[0]))


def _softmax(d: Draw) -> bytes:
    return d.close("SOFTMAX", [d.x], d.shape, beta=float(d.pick((1.0, 1.0, 0.5, 2.0))))


def _pair(op: str) -> Builder:
    """Constants and inputs, of the same shape or broadcast; the output fits both operands."""

    def build(d: Draw) -> bytes:
        shape = d.pick((d.shape, d.shape, (d.shape[3],), (1, 1, 1, d.shape[3]), (1, 1, d.shape[2], 1), ()))
        spread = d.rng.uniform(-6, 3) if d.chance(0.15) else d.rng.uniform(-1, 1)
        other = (float(d.quant[0] * 10**spread), d.zero_point())
        operand = d.second(shape, other)
        operands = d.pick(([d.x, operand], [operand, d.x], [d.x, d.x]))
        if op == "DIV":
            operands = _without_zeros(d, shape, other)
        sizes = {"MUL": d.quant[0] * other[0] * 100, "DIV": d.quant[0] / other[0] / 20}
        options: dict[str, Any] = {} if op in {"MAXIMUM", "MINIMUM"} else {"fused_activation": d.pick(ACTIVATIONS)}
        likely = sizes.get(op, max(d.quant[0], other[0]))
        scale, zero_point = d.output(likely)
        scale = max(scale, likely / 1e4)  # far below that LiteRT ends the process
        return d.close(op, operands, d.shape, (scale, zero_point), **options)

    return build


def _without_zeros(d: Draw, shape: Shape, quant: tuple[float, int]) -> list[int]:
    """A dividend and a divisor without zeros, whose quotient is not defined."""
    divisors = d.codes(shape)
    zero = quant[1]
    divisors = np.where(divisors == zero, zero + (1 if zero == d.lowest else -1), divisors).astype(d.dtype)
    return [d.x, d.b.constant(divisors, *quant)]


def _prelu(d: Draw) -> bytes:
    slopes = d.b.constant(d.codes(d.pick(((1, 1, d.shape[3]), (1, *d.shape[1:3], 1)[1:]))), *d.quantisation())
    return d.close("PRELU", [d.x, slopes], d.shape, d.output(d.quant[0]))


def _reduced(op: str) -> Builder:
    def build(d: Draw) -> bytes:
        axes = d.pick(((1, 2), (3,), (2,), (1,), (1, 2, 3), (-1,), (-3, -2), (2, 3)))
        chosen = {axis % 4 for axis in axes}
        keep = d.chance(0.5)
        shape = tuple(1 if axis in chosen else size for axis, size in enumerate(d.shape) if keep or axis not in chosen)
        likely = d.quant[0] * (math.prod(d.shape[axis] for axis in chosen) if op == "SUM" else 1)
        quant = d.quant if d.chance(0.3) else d.output(likely)
        if op in {"MEAN", "SUM"} and d.chance(0.3):
            quant = (d.quant[0], d.zero_point())
        return d.close(op, [d.x, d.ints(*axes)], shape, quant, keep_dims=keep)

    return build


def _arg_max(d: Draw) -> bytes:
    axis = d.whole(1, 3)
    shape = tuple(n for i, n in enumerate(d.shape) if i != axis)
    places = d.b.op("ARG_MAX", [d.x, d.ints(axis)], shape, "int32", name="places", output_type="int32", version=2)
    return d.b.build([d.b.op("CAST", [places], shape, "float32", name="y", in_data_type="int32",
                             out_data_type="float32")])  # fmt: skip


def _pool(op: str) -> Builder:
    def build(d: Draw) -> bytes:
        sizes, strides, padding = _sides(d, 4), _sides(d, 3), d.pick(("SAME", "VALID"))
        shape = _window(d, sizes, strides, (1, 1), padding, d.shape[3])
        return d.close(op, [d.x], shape, padding=padding, **_named(sizes, "filter"), **_named(strides, "stride"),
                       fused_activation=d.pick(ACTIVATIONS))  # fmt: skip

    return build


def _sides(d: Draw, most: int) -> tuple[int, int]:
    return d.whole(1, most), d.whole(1, most)


def _named(sides: tuple[int, int], name: str) -> dict[str, Any]:
    return {f"{name}_h": sides[0], f"{name}_w": sides[1]}


def _window(  # noqa: PLR0917  a window reads as kernel, strides, dilations, padding
    d: Draw, kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int], padding: str, channels: int
) -> Shape:
    """The shape behind a window, which always fits."""
    sides = (
        -(-size // stride) if padding == "SAME" else (size - (taps - 1) * apart - 1) // stride + 1
        for size, taps, stride, apart in zip(d.shape[1:3], kernel, strides, dilations, strict=True)
    )
    return (1, *sides, channels)


def _weights(d: Draw, shape: Shape, axis: int) -> tuple[list[int | None], float]:
    """Weights with a scale per channel or one, and a bias or none; and about how large a product is in reals."""
    channels = shape[axis] if d.dtype == "int8" and d.chance(0.7) else 1
    scales = (10 ** d.rng.uniform(-3, -1, channels)).astype(np.float32)
    length = math.prod(shape) / shape[axis]
    if d.dtype == "uint8":
        taps = d.b.constant(d.rng.integers(0, 256, shape).astype(np.uint8), scales, d.whole(0, 255))
    else:
        taps = d.b.constant(d.rng.integers(-127, 128, shape).astype(np.int8), scales, axis=axis)
    bias = d.b.constant(d.rng.integers(-3000, 3000, shape[axis]).astype(np.int32), np.float32(d.quant[0]) * scales)
    likely = float(np.median(scales)) * d.quant[0] * 73 * math.sqrt(length)
    has_bias = axis == 3 or d.chance(0.8)  # LiteRT ends the process where DEPTHWISE_CONV_2D has none
    return [taps, *([bias] if has_bias else [])], likely


def _convolution(op: str) -> Builder:
    def build(d: Draw) -> bytes:
        kernel, dilations, channels, depthwise = _sides(d, 3), (1, 1), d.shape[3], op == "DEPTHWISE_CONV_2D"
        strides = _sides(d, 3)
        if d.chance(0.3):
            dilations, strides = (d.whole(1, 2), d.whole(1, 2)), (1, 1)
        kernel = tuple(  # type: ignore[assignment]  # two sides
            min(taps, (size - 1) // apart + 1)
            for taps, size, apart in zip(kernel, d.shape[1:3], dilations, strict=True)
        )
        padding, multiplier = d.pick(("SAME", "VALID")), d.whole(1, 3)
        out = channels * multiplier if depthwise else d.whole(1, 5)
        groups = d.pick([n for n in range(1, channels + 1) if channels % n == 0]) if d.chance(0.2) else 1
        out = out if depthwise else out * groups
        shape = (1, *kernel, out) if depthwise else (out, *kernel, channels // groups)
        operands, likely = _weights(d, shape, 3 if depthwise else 0)
        options: dict[str, Any] = {"depth_multiplier": multiplier} if depthwise else {}
        return d.close(
            op,
            [d.x, *operands],
            _window(d, kernel, strides, dilations, padding, out),
            d.output(likely),
            padding=padding,
            **_named(strides, "stride"),
            **_named(dilations, "dilation"),
            fused_activation=d.pick(ACTIVATIONS),
            **options,
        )

    return build


def _fully_connected(d: Draw) -> bytes:
    length, units = d.shape[3] if d.chance(0.5) else math.prod(d.shape), d.whole(1, 9)
    rows = math.prod(d.shape) // length
    operands, likely = _weights(d, (units, length), 0)
    return d.close("FULLY_CONNECTED", [d.x, *operands], (rows, units), d.output(likely),
                   fused_activation=d.pick(ACTIVATIONS))  # fmt: skip


def _computed_weights(d: Draw) -> bytes:
    length, units, other = d.shape[3], d.whole(1, 9), d.quantisation()
    weights = d.input((units, length), *other)
    likely = d.quant[0] * other[0] * 5000 * math.sqrt(length)
    rows = math.prod(d.shape) // length
    return d.close("FULLY_CONNECTED", [d.x, weights], (rows, units), d.output(likely))


def _matmul(d: Draw) -> bytes:
    first, second = d.chance(0.5), d.chance(0.5)
    rows, length = d.shape[2:] if not first else d.shape[:1:-1]
    columns, other = d.whole(1, 9), d.quantisation()
    inner = (columns, length) if second else (length, columns)
    y = d.input((*d.shape[:2], *inner), *other)
    likely = d.quant[0] * other[0] * 5000 * math.sqrt(length)
    return d.close("BATCH_MATMUL", [d.x, y], (*d.shape[:2], rows, columns), d.output(likely), adj_x=first,
                   adj_y=second)  # fmt: skip


def _transpose_conv(d: Draw) -> bytes:
    kernel, strides, padding, out = _sides(d, 5), _sides(d, 3), d.pick(("SAME", "VALID")), d.whole(1, 4)
    sides = (
        n * stride if padding == "SAME" else (n - 1) * stride + taps
        for n, stride, taps in zip(d.shape[1:3], strides, kernel, strict=True)
    )
    shape = (1, *sides, out)
    (weights, *bias), likely = _weights(d, (out, *kernel, d.shape[3]), 0)
    return d.close("TRANSPOSE_CONV", [d.ints(*shape), weights, d.x, *bias], shape,
                   d.output(likely), padding=padding, **_named(strides, "stride"))  # fmt: skip


def _resize(op: str) -> Builder:
    def build(d: Draw) -> bytes:
        sizes = _sides(d, 13) if d.chance(0.7) else (2 * d.shape[1], 2 * d.shape[2])
        options = d.pick(({}, {"half_pixel_centers": True}, {"align_corners": True}))
        return d.close(op, [d.x, d.ints(*sizes)], (1, *sizes, d.shape[3]), **options)

    return build


def _padded(op: str) -> Builder:
    def build(d: Draw) -> bytes:
        pads = d.rng.integers(0, 3, (4, 2))
        pads[0] = 0
        pads[3] = 0 if d.chance(0.5) or d.shape[3] < 3 else pads[3]
        shape = tuple(int(size + around.sum()) for size, around in zip(d.shape, pads, strict=True))
        options: dict[str, Any] = {"mode": d.pick(("REFLECT", "SYMMETRIC"))} if op == "MIRROR_PAD" else {}
        return d.close(op, [d.x, d.ints(*pads)], shape, **options)

    return build


def _concatenation(d: Draw) -> bytes:
    axis, operands, total = d.whole(1, 3), [d.x], d.shape
    for _ in range(d.whole(1, 3)):
        size = d.whole(1, 4)
        shape = tuple(size if i == axis else n for i, n in enumerate(d.shape))
        operands.append(d.input(shape, *(d.quant if d.chance(0.6) else d.quantisation())))
        total = tuple(size + n if i == axis else n for i, n in enumerate(total))
    quant = d.quant if d.chance(0.7) else d.output(d.quant[0])
    fused = "NONE" if d.dtype == "uint8" else d.pick(ACTIVATIONS)  # LiteRT refuses others
    return d.close("CONCATENATION", operands, total, quant, axis=d.pick((axis, axis - 4)), fused_activation=fused)


def _reshape(op: str) -> Builder:
    def build(d: Draw) -> bytes:
        if op == "SQUEEZE":
            return d.close(op, [d.x], d.shape[1:], squeeze_dims=d.pick(((0,), (-4,))))
        if op == "EXPAND_DIMS":
            axis = d.whole(0, 4)
            return d.close(op, [d.x, d.ints(axis)], (*d.shape[:axis], 1, *d.shape[axis:]))
        shape = d.pick(((1, math.prod(d.shape)), (1, d.shape[1], -1, 1), (1, *d.shape[:0:-1]), (1, -1, d.shape[3])))
        full = tuple(-math.prod(d.shape) // math.prod(shape) if n < 0 else n for n in shape)
        return d.close(op, [d.x, d.ints(*shape)], full)

    return build


def _transpose(d: Draw) -> bytes:
    order = [0, *(1 + d.rng.permutation(3))]
    return d.close("TRANSPOSE", [d.x, d.ints(*order)], tuple(d.shape[i] for i in order))


def _strided_slice(d: Draw) -> bytes:
    starts = [0, *(d.whole(0, n - 1) for n in d.shape[1:])]
    ends = [1, *(d.whole(low + 1, n) for low, n in zip(starts[1:], d.shape[1:], strict=True))]
    steps = [1, *(d.whole(1, 2) for _ in range(3))]
    begin, end = d.whole(0, 15), d.whole(0, 15)
    ranges = [
        range(0 if begin >> i & 1 else low, n if end >> i & 1 else high, step)
        for i, (low, high, step, n) in enumerate(zip(starts, ends, steps, d.shape, strict=True))
    ]
    operands = [d.x, d.ints(*starts), d.ints(*ends), d.ints(*steps)]
    return d.close("STRIDED_SLICE", operands, tuple(map(len, ranges)), begin_mask=begin, end_mask=end)


def _slice(d: Draw) -> bytes:
    starts = [0, *(d.whole(0, n - 1) for n in d.shape[1:])]
    sizes = [d.whole(1, n - low) for low, n in zip(starts, d.shape, strict=True)]
    asked = [
        -1 if low + size == n and d.chance(0.5) else size for low, size, n in zip(starts, sizes, d.shape, strict=True)
    ]
    return d.close("SLICE", [d.x, d.ints(*starts), d.ints(*asked)], tuple(sizes))


def _gather(d: Draw) -> bytes:
    axis, count = d.whole(1, 3), d.whole(1, 5)
    where = d.rng.integers(0, d.shape[axis], count)
    shape = tuple(count if i == axis else n for i, n in enumerate(d.shape))
    return d.close("GATHER", [d.x, d.ints(*where)], shape, axis=axis)


def _tile(d: Draw) -> bytes:
    times = [1, *(d.whole(1, 3) for _ in range(3))]
    return d.close("TILE", [d.x, d.ints(*times)], tuple(n * k for n, k in zip(d.shape, times, strict=True)))


def _split(d: Draw) -> bytes:
    axis = d.whole(1, 3)
    parts = d.pick([n for n in range(1, d.shape[axis] + 1) if d.shape[axis] % n == 0])
    shape = tuple(n // parts if i == axis else n for i, n in enumerate(d.shape))
    return d.several("SPLIT", [d.ints(axis), d.x], [shape] * parts, num_splits=parts)


def _pack(d: Draw) -> bytes:
    axis, other = d.whole(1, 4), d.input(d.shape, *d.quant)
    shape = (*d.shape[:axis], 2, *d.shape[axis:])
    return d.close("PACK", [d.x, other], shape, axis=axis, values_count=2)


def _unpack(d: Draw) -> bytes:
    axis = d.whole(1, 3)
    shape = (*d.shape[:axis], *d.shape[axis + 1 :])
    return d.several("UNPACK", [d.x], [shape] * d.shape[axis], num=d.shape[axis], axis=axis)


def _blocks(op: str) -> Builder:
    def build(d: Draw) -> bytes:
        block, one = d.whole(2, 3), d.whole(1, 3)
        deep, wide = (1, 2, 3, one * block * block), (1, 2 * block, 3 * block, one)
        before, after = (deep, wide) if op == "DEPTH_TO_SPACE" else (wide, deep)
        fresh = Draw(d.rng, d.dtype, before)
        d.feeds[:] = fresh.feeds
        return fresh.close(op, [fresh.x], after, block_size=block)

    return build


def _quantize(d: Draw) -> bytes:
    """To the other type of codes, or to the same."""
    other = d.pick(("int8", "uint8"))
    scale, zero_point = d.output(d.quant[0])
    zero_point += 128 * ((other == "uint8") - (d.dtype == "uint8"))
    if d.chance(0.3):
        scale = d.quant[0]
    y = d.b.op("QUANTIZE", [d.x], d.shape, other, scale, zero_point, name="y", version=2)
    return d.b.build([y])


def _from_float(d: Draw) -> bytes:
    real = d.b.op("DEQUANTIZE", [d.x], d.shape, "float32", name="real", version=2)
    y = d.b.op("QUANTIZE", [real], d.shape, d.dtype, *d.output(d.quant[0]), name="y", version=1)
    return d.b.build([y])


def _dequantize(d: Draw) -> bytes:
    return d.b.build([d.b.op("DEQUANTIZE", [d.x], d.shape, "float32", name="y", version=2)])


def _cast(d: Draw) -> bytes:
    return d.b.build([d.b.op("CAST", [d.x], d.shape, "float32", name="y", in_data_type=d.dtype,
                             out_data_type="float32")])  # fmt: skip


BUILDERS: Mapping[str, Builder] = {
    **{
        op: _unary(op)
        for op in (
            *("LEAKY_RELU", "LOGISTIC", "ABS", "EXP", "TANH", "RELU", "RELU6", "RELU_N1_TO_1", "HARD_SWISH"),
            *("NEG", "SQRT", "RSQRT", "LOG", "GELU"),
        )
    },
    **{op: _pair(op) for op in ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM")},
    "ARG_MAX": _arg_max,
    "SiLU": _silu,
    "SOFTMAX": _softmax,
    "PRELU": _prelu,
    **{op: _reduced(op) for op in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")},
    **{op: _pool(op) for op in ("MAX_POOL_2D", "AVERAGE_POOL_2D")},
    **{op: _convolution(op) for op in ("CONV_2D", "DEPTHWISE_CONV_2D")},
    "FULLY_CONNECTED": _fully_connected,
    "FULLY_CONNECTED, computed weights": _computed_weights,
    "BATCH_MATMUL": _matmul,
    "TRANSPOSE_CONV": _transpose_conv,
    **{op: _resize(op) for op in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")},
    **{op: _padded(op) for op in ("PAD", "MIRROR_PAD")},
    "CONCATENATION": _concatenation,
    **{op: _reshape(op) for op in ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")},
    "TRANSPOSE": _transpose,
    "STRIDED_SLICE": _strided_slice,
    "SLICE": _slice,
    "GATHER": _gather,
    "TILE": _tile,
    "SPLIT": _split,
    "PACK": _pack,
    "UNPACK": _unpack,
    **{op: _blocks(op) for op in ("DEPTH_TO_SPACE", "SPACE_TO_DEPTH")},
    "QUANTIZE": _quantize,
    "QUANTIZE from float": _from_float,
    "DEQUANTIZE": _dequantize,
    "CAST": _cast,
}
NOT_DRAWN: Mapping[str, str] = {
    "SHAPE": "it is computed at conversion",
    **dict.fromkeys(("SQUARE", "POW"), "LiteRT has no kernel for it on codes"),
}
"""Rows without a builder, and why."""
