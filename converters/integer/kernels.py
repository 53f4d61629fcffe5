"""Kernels of the exact evaluation, by family: products, real arithmetic, functions, windows, and moving of numbers.

Convolutions and matrix products of codes: exact int32 sums. Codes relative to their zero-points are at most 255 in
size, so a sum of K products stays below 2^16 * K: for every network that fits into memory far below 2^53, up to which
float64 counts without a gap. A float64 matrix product is therefore exact whatever the order of its additions, and as
fast as the installed BLAS. Float32 counts without a gap up to 2^24 and is twice as fast: a convolution is cut into
pieces of K whose sums cannot be larger. The bias and the pieces are added in integers.

Operators on several real numbers: sums, products, means, softmax, interpolation, in float32 as ONNX defines them.

Runtimes order these operations as they like, so the last bit of a result is their own (``Reals.exact`` is False), and a
code that lies on an edge may come out one higher or lower. One sum or product of float32 numbers has only one result,
but two dequantised operands are fused with what is around them.

Functions of one number: on 8-bit codes a table of 256 float32 results, else applied to every number.

``EXACT`` names those whose float32 result is defined to the last bit, so that every runtime that keeps to float32 makes
the same table; the exponential of a sigmoid is each runtime's own.

Windows on images: a node's kernel, strides, dilations and pads, and the pools that use them. A maximum is exact on
codes. An average is a float32 sum and division, whose last bit is each runtime's own.

Operators that only move numbers: codes are moved as they are, and keep scale and zero-point.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.integer.values import FUSED_ROUNDING, Quantized, Reals, Sums, Tabulated, Value, tabulate, to_reals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

MOST_PRODUCTS = 1 << 37  # some 10 s; Tiny YOLO v2 at 416 has 2^31.3
MOST_PADDING = 1 << 22  # numbers, beyond 16 times the image
FLOAT32_COUNTS_TO = 1 << 24
BLOCK_BYTES = 1 << 24  # of unrolled input at a time: larger blocks are no faster, and take memory


@dataclass(frozen=True, slots=True)
class Window:
    """How a kernel walks over an image; pairs are (rows, columns).

    Attributes:
        kernel: size.
        strides: steps.
        dilations: distance of the taps.
        pads: top, left, bottom, right.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]

    def padded(self, image_nchw: NDArray[Any], fill: float) -> NDArray[Any]:
        """The image with its padding.

        Raises:
            NotImplementedError: far more padding than image, as huge dilations ask for.
        """
        top, left, bottom, right = self.pads
        if not any(self.pads):
            return image_nchw
        images, channels, rows, columns = image_nchw.shape
        wanted = images * channels * (rows + top + bottom) * (columns + left + right)
        if wanted > 16 * image_nchw.size + MOST_PADDING:
            raise NotImplementedError(f"pads {image_nchw.size} numbers to {wanted:.1e}")
        return np.pad(image_nchw, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)

    def taps(self, padded_nchw: NDArray[Any]) -> NDArray[Any]:
        """A view ``(N, C, rows out, columns out, kernel rows, kernel columns)`` of a padded image."""
        reach = [(size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True)]
        views = np.lib.stride_tricks.sliding_window_view(padded_nchw, reach, (2, 3))
        rows, columns = self.strides
        down, across = self.dilations
        return np.asarray(views[:, :, ::rows, ::columns, ::down, ::across])


def convolve(x: Quantized, w: Quantized, bias: Quantized | None, window: Window, groups: int) -> Sums:
    """A convolution.

    Args:
        x: codes ``(N, C, H, W)``, one scale.
        w: codes ``(O, C / groups, rows, columns)``, one scale or one per O.
        bias: int32 ``(O,)`` with the scale of the sums; None is 0.
        window: kernel, strides, dilations and pads.
        groups: groups of channels.

    Raises:
        NotImplementedError: more products than any detector of this family has.
    """
    products = x.codes[:, 0].size * w.codes.size // (window.strides[0] * window.strides[1])
    if products > MOST_PRODUCTS:
        raise NotImplementedError(f"adds up {products:.1e} products, at most {MOST_PRODUCTS:.1e} are evaluated")
    image, weights = window.padded(x.relative, 0), w.relative if w.zero_point.any() else w.codes
    if groups == image.shape[1] and weights.shape[1] == 1:
        sums = _depthwise(image, weights, window)
    else:
        parts = zip(np.split(image, groups, axis=1), np.split(weights, groups), strict=True)
        sums = np.concatenate([_dense(part, kernels, window) for part, kernels in parts], axis=1)
    return Sums(_biased(sums, bias), x.scale, w.scale)


def multiply(x: Quantized, w: Quantized, bias: Quantized | None) -> Sums:
    """Rows ``(N, K)`` times the transpose of weights ``(O, K)``: sums ``(N, O)``."""
    products = x.relative.astype(np.float64) @ w.relative.T.astype(np.float64)
    return Sums(_biased(products.astype(np.int32), bias), x.scale, w.scale)


def _dense(image: NDArray[np.int32], weights: NDArray[Any], window: Window) -> NDArray[np.int32]:
    """Every output channel reads every input channel: blocks of rows, unrolled and multiplied; int32 ``(N, O, H, W)``."""
    outputs = weights.shape[0]
    # a row per output channel, as they lie: other orders take ten times as long to copy
    matrix = np.ascontiguousarray(weights.transpose(0, 2, 3, 1), np.float32).reshape(outputs, -1)
    extremes = np.maximum(weights.max(axis=0).astype(np.int64), -weights.min(axis=0).astype(np.int64))
    pieces = _pieces(extremes.transpose(1, 2, 0).ravel(), int(np.abs(image).max(initial=0)))
    # channels last, so that unrolling copies runs of kernel columns * channels
    last = np.ascontiguousarray(image.transpose(0, 2, 3, 1), np.float32).transpose(0, 3, 1, 2)
    taps = window.taps(last).transpose(0, 2, 3, 4, 5, 1)
    count, rows, columns = taps.shape[:3]
    sums = np.empty((count, rows, columns, outputs), np.int32)
    step = max(1, BLOCK_BYTES // (4 * columns * matrix.shape[1]))
    for n in range(count):
        for top in range(0, rows, step):
            block = taps[n, top : top + step]
            rolled, found = block.reshape(-1, matrix.shape[1]), sums[n, top : top + step]
            for place, piece in enumerate(pieces):
                products = (rolled[:, piece] @ matrix[:, piece].T).reshape(found.shape)
                if place:
                    found += products.astype(np.int32)
                else:
                    found[...] = products
    return sums.transpose(0, 3, 1, 2)


def _pieces(weights: NDArray[np.int64], largest: int) -> list[slice]:
    """Runs of products whose sums are exact in float32, from the size of each place's weights and of all its factors."""
    reached = np.cumsum(weights) * largest
    pieces, start, before = [], 0, 0
    while start < len(weights):
        end = max(int(np.searchsorted(reached, before + FLOAT32_COUNTS_TO, "right")), start + 1)
        pieces.append(slice(start, end))
        start, before = end, int(reached[end - 1])
    return pieces


def _depthwise(image: NDArray[np.int32], weights: NDArray[Any], window: Window) -> NDArray[np.int32]:
    """Every output channel reads one input channel: tap by tap in int32."""
    channels, outputs = image.shape[1], weights.shape[0]
    taps = window.taps(image if outputs == channels else image.repeat(outputs // channels, axis=1))
    sums = np.zeros(taps.shape[:4], np.int32)
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            sums += taps[..., row, column] * weights[:, 0, row, column, None, None]
    return sums


def _biased(sums: NDArray[np.int32], bias: Quantized | None) -> NDArray[np.int32]:
    if bias is None:
        return sums
    return sums + bias.codes.astype(np.int32).reshape(-1, *[1] * (sums.ndim - 2))


def combine(node: ir.Node, inputs: Sequence[Value | None]) -> Value:
    """Add, Sub, Mul, Div or Pow with broadcasting."""
    operands = [value for value in inputs if value is not None]
    a, b = (to_reals(value) for value in operands)
    array = BINARY[node.op_type](a.array, b.array)
    scales = [float(value.scale.max()) for value in operands if isinstance(value, Quantized)]
    if len(scales) < len(operands):
        return Reals(array, exact=a.exact and b.exact and node.op_type != "Pow")
    # kernels fuse the two readings with what is around them: a sum of codes then differs by roundings of its terms
    doubt = np.inf if node.op_type == "Mul" else FUSED_ROUNDING * 255 * sum(scales)
    return Reals(array, exact=False, doubt=doubt)


def matrix_product(inputs: Sequence[Value | None]) -> Value:
    """MatMul of two computed operands, with broadcasting; runtimes multiply codes, or reals in an order of their own."""
    a, b = (to_reals(value).array.astype(np.float64) for value in inputs if value is not None)
    return Reals((a @ b).astype(np.float32), exact=False)


def extreme(node: ir.Node, inputs: Sequence[Value | None]) -> Value:
    """Max or Min of any number of operands, codes or reals, with broadcasting."""
    operands = [to_reals(value) for value in inputs if value is not None]
    array = reduce(EXTREMES[node.op_type], [value.array for value in operands])
    return Reals(array, exact=all(value.exact for value in operands))


def prelu(inputs: Sequence[Value | None]) -> Value:
    """PRelu with broadcast slopes."""
    x, slopes = (to_reals(value) for value in inputs if value is not None)
    exact = x.exact and slopes.exact
    return Reals(np.where(x.array >= 0, x.array, x.array * slopes.array), exact)


def softmax(node: ir.Node, x: Value) -> Value:
    """Softmax along one axis."""
    real, axis = to_reals(x).array, node.attributes.get_int("axis", -1)
    raised = np.exp(real - real.max(axis, keepdims=True))
    return Reals(raised / raised.sum(axis, keepdims=True, dtype=np.float32), exact=False)


def resize(node: ir.Node, inputs: Sequence[Value | None]) -> Value:
    """Resize of images ``(N, C, H, W)`` by scales: nearest by whole factors, or linear.

    Raises:
        NotImplementedError: another kind of resize than importers write.
    """
    x, scales = inputs[0], inputs[2] if len(inputs) > 2 else None
    if x is None or scales is None or len(inputs) > 3:
        msg = "resizes to sizes, not by scales"
        raise NotImplementedError(msg)
    reals = to_reals(x)
    factors = [float(factor) for factor in to_reals(scales).array[2:]]
    mode = node.attributes.get_string("mode", "nearest")
    if mode == "nearest":
        array = reals.array
        for axis, factor in zip((2, 3), factors, strict=True):
            array = array.repeat(round(factor), axis)
        return Reals(array, reals.exact)
    rule = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    array = reals.array
    for axis, factor in zip((2, 3), factors, strict=True):
        array = _interpolated(array, axis, factor, str(rule))
    return Reals(array, exact=False)


def _interpolated(array: NDArray[Any], axis: int, factor: float, rule: str) -> NDArray[np.float32]:
    """Linear interpolation along one axis."""
    size = array.shape[axis]
    new = np.arange(int(size * factor))
    if rule == "half_pixel":
        position = (new + 0.5) / factor - 0.5
    elif rule == "align_corners":
        position = new * (size - 1) / max(len(new) - 1, 1)
    else:
        position = new / factor
    position = np.clip(position, 0, size - 1)
    low = np.floor(position).astype(np.int64)
    weight = (position - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(array.ndim)])
    below, above = array.take(low, axis), array.take(np.minimum(low + 1, size - 1), axis)
    return np.asarray(below * (1 - weight) + above * weight, np.float32)


def _divide(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Integers are divided towards zero."""
    quotient = np.asarray(a / b)
    return np.trunc(quotient).astype(a.dtype) if a.dtype.kind == "i" else quotient


EXTREMES = {"Max": np.maximum, "Min": np.minimum}
BINARY: dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]] = {
    "Add": np.add,
    "Div": _divide,
    "Mul": np.multiply,
    "Pow": np.power,
    "Sub": np.subtract,
}


EXACT = frozenset({"Abs", "Floor", "Sign", "LeakyRelu", "Neg", "Relu", "Clip", "Round"})
PLAIN: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "Abs": np.abs,
    "Exp": np.exp,
    "Floor": np.floor,
    "Log": np.log,
    "Neg": np.negative,
    "Reciprocal": np.reciprocal,
    "Round": np.rint,
    "Sign": np.sign,
    "Sqrt": np.sqrt,
    "Tanh": np.tanh,
}


def apply_function(node: ir.Node, inputs: Sequence[Value | None]) -> Value:
    """The result of a ``LeakyRelu``, ``Relu``, ``Clip``, ``Sigmoid`` or ``HardSigmoid`` node, or one of ``PLAIN``."""
    x = inputs[0]
    assert x is not None, "a function has an argument"  # noqa: S101
    function, exact = _function(node, inputs), node.op_type in EXACT
    if isinstance(x, Quantized) and x.codes.dtype.itemsize == 1 and x.scale.size == 1:
        x = tabulate(x)
    if isinstance(x, Tabulated):
        return Tabulated(x.codes, function(x.reals), exact=x.exact and exact)
    reals = to_reals(x)
    return Reals(function(reals.array), exact=reals.exact and exact)


def _function(node: ir.Node, inputs: Sequence[Value | None]) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    if node.op_type == "LeakyRelu":
        slope = np.float32(node.attributes.get_float("alpha", 0.01))
        return lambda x: np.where(x >= 0, x, x * slope)
    if node.op_type == "Relu":
        return lambda x: np.maximum(x, np.float32(0))
    if node.op_type in PLAIN:
        return PLAIN[node.op_type]
    if node.op_type == "Clip":
        low, high = (_limit(inputs, position) for position in (1, 2))
        return lambda x: np.clip(x, low, high)
    if node.op_type == "HardSigmoid":
        slope, half = (np.float32(node.attributes.get_float(*pair)) for pair in (("alpha", 0.2), ("beta", 0.5)))
        return lambda x: np.clip(x * slope + half, np.float32(0), np.float32(1))
    return lambda x: np.float32(1) / (np.float32(1) + np.exp(-x))


def _limit(inputs: Sequence[Value | None], position: int) -> Any:
    """A bound of a Clip as float32; infinite where it is left out."""
    value = inputs[position] if len(inputs) > position else None
    return np.float32((-np.inf, np.inf)[position - 1]) if value is None else to_reals(value).array


def window_of(node: ir.Node, image_shape: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
    """How a Conv or pool node walks over an image ``(N, C, H, W)``.

    Raises:
        NotImplementedError: the image is not two-dimensional, or the padding rule is one that no importer writes.
    """
    if len(image_shape) != 4 or len(kernel) != 2 or node.attributes.get_int("ceil_mode", 0) != 0:
        msg = f"walks over {image_shape} with a kernel {kernel}, or rounds sizes up"
        raise NotImplementedError(msg)
    strides = _pair(node, "strides")
    dilations = _pair(node, "dilations")
    rule = node.attributes.get_string("auto_pad", "NOTSET")
    if rule == "NOTSET":
        top, left, bottom, right = node.attributes.get_ints("pads", (0, 0, 0, 0))
    elif rule == "SAME_UPPER":
        sides = [_same_upper(*axis) for axis in zip(image_shape[2:], kernel, strides, dilations, strict=True)]
        (top, bottom), (left, right) = sides
    elif rule == "VALID":
        top = left = bottom = right = 0
    else:
        msg = f"pads by the rule {rule}"
        raise NotImplementedError(msg)
    return Window((kernel[0], kernel[1]), strides, dilations, (top, left, bottom, right))


def max_pool(node: ir.Node, x: Value) -> Value:
    """MaxPool; on codes where there are any, because codes grow with the reals. Padding never wins."""
    if isinstance(x, Quantized) and x.scale.size == 1:
        return x.with_codes(_maximum(node, x.codes, np.iinfo(x.codes.dtype).min))
    reals = to_reals(x)
    return Reals(_maximum(node, reals.array, -np.inf), reals.exact and not isinstance(x, Tabulated))


def average_pool(node: ir.Node, x: Value) -> Value:
    """AveragePool of real numbers, without the padding."""
    if node.attributes.get_int("count_include_pad", 0):
        msg = "counts the padding"
        raise NotImplementedError(msg)
    array = to_reals(x).array
    window = window_of(node, array.shape, tuple(node.attributes.get_ints("kernel_shape", ())))
    sums, counts = (
        window.taps(window.padded(a, 0)).sum((4, 5), dtype=np.float32) for a in (array, np.ones_like(array))
    )
    return Reals(sums / counts, exact=False)


def _maximum(node: ir.Node, array: NDArray[Any], lowest: float) -> NDArray[Any]:
    window = window_of(node, array.shape, tuple(node.attributes.get_ints("kernel_shape", ())))
    taps = window.taps(window.padded(array, lowest))
    result = taps[..., 0, 0].copy()
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            np.maximum(result, taps[..., row, column], out=result)
    return np.asarray(result)


def _pair(node: ir.Node, attribute: str) -> tuple[int, int]:
    rows, columns = node.attributes.get_ints(attribute, (1, 1))
    return rows, columns


def _same_upper(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Padding (before, after) that keeps ``ceil(size / stride)`` results; the odd one goes behind."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def move(node: ir.Node, inputs: Sequence[Value | None]) -> list[Value]:
    """The results of a node of ``MOVERS``; one, but for Split."""
    x = inputs[0]
    assert x is not None, "something is moved"  # noqa: S101
    operands = [None if value is None else to_reals(value).array for value in inputs[1:]]
    carrier, moved = _carrier(x)
    arrays = MOVERS[node.op_type](node, moved, operands)
    return [_carried(carrier, array) for array in arrays]


def pad(node: ir.Node, inputs: Sequence[Value | None]) -> Value:
    """Pad with a constant: real 0 is the zero-point, another value stands for itself."""
    x, pads = inputs[0], inputs[1]
    assert x is not None, "something is padded"  # noqa: S101
    assert pads is not None, "by something"  # noqa: S101
    value = inputs[2] if len(inputs) > 2 else None
    fill = np.float32(0) if value is None else to_reals(value).array.reshape(())
    if node.attributes.get_string("mode", "constant") != "constant":
        msg = "pads with another mode than 'constant'"
        raise NotImplementedError(msg)
    widths = np.reshape(to_reals(pads).array, (2, -1)).T
    if isinstance(x, Quantized) and x.scale.size == 1 and fill == 0:
        return x.with_codes(np.pad(x.codes, widths, constant_values=int(x.zero_point)))
    reals = to_reals(x)
    return Reals(np.pad(reals.array, widths, constant_values=fill), reals.exact)


def concatenate(node: ir.Node, inputs: Sequence[Value | None]) -> Value:
    """Concat: of codes where all are read alike, else of reals."""
    axis, values = node.attributes.get_int("axis", 0), [value for value in inputs if value is not None]
    first = values[0]
    if isinstance(first, Quantized) and all(isinstance(v, Quantized) and first.reads_like(v) for v in values):
        codes = [value.codes for value in values if isinstance(value, Quantized)]
        return first.with_codes(np.concatenate(codes, axis))
    reals = [to_reals(value) for value in values]
    return Reals(np.concatenate([r.array for r in reals], axis), exact=all(r.exact for r in reals))


def _carrier(value: Value) -> tuple[Value, NDArray[Any]]:
    """What keeps the meaning, and the array that is moved."""
    if isinstance(value, Tabulated) or (isinstance(value, Quantized) and value.scale.size == 1):
        return value, value.codes
    reals = to_reals(value)
    return reals, reals.array


def _carried(carrier: Value, array: NDArray[Any]) -> Value:
    if isinstance(carrier, Quantized):
        return carrier.with_codes(array)
    if isinstance(carrier, Tabulated):
        return Tabulated(array, carrier.reals, carrier.exact)
    return Reals(array, to_reals(carrier).exact)


def _reshape(node: ir.Node, x: NDArray[Any], operands: Sequence[Any]) -> list[NDArray[Any]]:
    if node.attributes.get_int("allowzero", 0):
        msg = "reshapes to sizes of 0"
        raise NotImplementedError(msg)
    sizes = [x.shape[axis] if size == 0 else int(size) for axis, size in enumerate(operands[0])]
    return [x.reshape(sizes)]


def _transpose(node: ir.Node, x: NDArray[Any], _operands: Sequence[Any]) -> list[NDArray[Any]]:
    return [x.transpose(node.attributes.get_ints("perm", tuple(range(x.ndim))[::-1]))]


def _slice(_node: ir.Node, x: NDArray[Any], operands: Sequence[Any]) -> list[NDArray[Any]]:
    starts, ends, axes, steps = operands
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        stop = int(end) if end > np.iinfo(np.int64).min else None  # ONNX's word for "before the first"
        index[int(axis)] = slice(int(start), stop, int(step))
    return [x[tuple(index)]]


def _split(node: ir.Node, x: NDArray[Any], operands: Sequence[Any]) -> list[NDArray[Any]]:
    return list(np.split(x, np.cumsum(operands[0])[:-1], node.attributes.get_int("axis", 0)))


def _gather(node: ir.Node, x: NDArray[Any], operands: Sequence[Any]) -> list[NDArray[Any]]:
    return [np.take(x, operands[0], axis=node.attributes.get_int("axis", 0))]


def _tile(_node: ir.Node, x: NDArray[Any], operands: Sequence[Any]) -> list[NDArray[Any]]:
    return [np.tile(x, operands[0])]


MOVERS: dict[str, Callable[[ir.Node, NDArray[Any], Sequence[Any]], list[NDArray[Any]]]] = {
    "Gather": _gather,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Tile": _tile,
    "Transpose": _transpose,
}
