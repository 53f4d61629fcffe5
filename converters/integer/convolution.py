"""Convolutions, matrix products and pools of codes: exact int32 sums.

Codes relative to their zero-points are at most 255 in size, so a sum of K products stays below 2^16 * K: for every
network that fits into memory far below 2^53, up to which float64 counts without a gap. A float64 matrix product is
therefore exact whatever the order of its additions, and as fast as the installed BLAS. Float32 counts without a gap up
to 2^24 and is twice as fast: a convolution is cut into pieces of K whose sums cannot be larger. The bias and the pieces
are added in integers.

A maximum is exact on codes. An average is a float32 sum and division, whose last bit is each runtime's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.integer.values import Quantized, Reals, Sums, Tabulated, Value, first_of, reals_of, to_reals

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.integer.values import Inputs

MOST_PRODUCTS = 1 << 37  # some 10 s; Tiny YOLO v2 at 416 has 2^31.3
MOST_PADDING = 1 << 22  # numbers, beyond 16 times the image
FLOAT32_COUNTS_TO = 1 << 24
BLOCK_BYTES = 1 << 24  # of unrolled input at a time: larger blocks are no faster, and take memory


@dataclass(frozen=True, slots=True)
class Window:
    """How a kernel walks over an image; pairs are (rows, columns)."""

    kernel: tuple[int, int]  # size
    strides: tuple[int, int]  # steps
    dilations: tuple[int, int]  # distance of the taps
    pads: tuple[int, int, int, int]  # top, left, bottom, right

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
    """Every output channel reads every input channel: blocks of unrolled rows; int32 ``(N, O, H, W)``."""
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
            rolled, part = block.reshape(-1, matrix.shape[1]), sums[n, top : top + step]
            for place, piece in enumerate(pieces):
                products = (rolled[:, piece] @ matrix[:, piece].T).reshape(part.shape)
                if place:
                    part += products.astype(np.int32)
                else:
                    part[...] = products
    return sums.transpose(0, 3, 1, 2)


def _pieces(weights: NDArray[np.int64], largest: int) -> list[slice]:
    """Runs of products whose sums are exact in float32, from the sizes of each place's weights and of all factors."""
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


def conv(node: ir.Node, inputs: Inputs) -> Value:
    """Conv of codes."""
    x, w, bias = _operands(inputs)
    window = window_of(node, x.codes.shape, w.codes.shape[2:])
    return convolve(x, w, bias, window, node.attributes.get_int("group", 1))


def conv_integer(node: ir.Node, inputs: Inputs) -> Value:
    """ConvInteger: int32 sums."""
    arrays, one = [value.array for value in reals_of(inputs)], np.array(1, np.float32)
    x, w = (Quantized(arrays[i], one, arrays[i + 2].astype(np.int32)) for i in (0, 1))
    sums = conv(node, [x, w])
    assert isinstance(sums, Sums)  # noqa: S101
    return Reals(sums.sums)


def gemm(node: ir.Node, inputs: Inputs) -> Value:
    """Gemm of codes."""
    if node.attributes.get_int("transA", 0) or not node.attributes.get_int("transB", 0):
        raise NotImplementedError("multiplies another way than rows by transposed weights")
    return multiply(*_operands(inputs))


def _operands(inputs: Inputs) -> tuple[Quantized, Quantized, Quantized | None]:
    """Input, weights and bias as codes."""
    x, w, bias = (*inputs, None)[:3]
    if not (isinstance(x, Quantized) and isinstance(w, Quantized) and x.scale.size == 1):
        raise NotImplementedError("works on float32 numbers, not on codes")
    if isinstance(bias, Reals):  # of whole steps (``--symmetric``): the codes that runtimes make of it again
        step = np.broadcast_to((x.scale * w.scale).astype(np.float32), bias.array.shape)
        codes = np.rint(bias.array / step.astype(np.float64))
        if np.array_equal((codes * step).astype(np.float32), bias.array):
            bias = Quantized(codes.astype(np.int32), step, np.zeros(step.shape, np.int32))
    if bias is not None and not isinstance(bias, Quantized):
        raise NotImplementedError("has a bias of float32 numbers")
    return x, w, bias


def mat_mul_integer(_node: ir.Node, inputs: Inputs) -> Value:
    """MatMulInteger of two matrices of codes and their zero-points: int32 sums."""
    a, b, zero_a, zero_b = (value.array.astype(np.float64) for value in reals_of(inputs))
    return Reals(((a - zero_a) @ (b - zero_b)).astype(np.int32))


def window_of(node: ir.Node, image_shape: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
    """How a Conv or pool node walks over an image ``(N, C, H, W)``.

    Raises:
        NotImplementedError: the image is not two-dimensional, or the padding rule is one that no importer writes.
    """
    if len(image_shape) != 4 or len(kernel) != 2 or node.attributes.get_int("ceil_mode", 0) != 0:
        raise NotImplementedError(f"walks over {image_shape} with a kernel {kernel}, or rounds sizes up")
    strides, dilations = (node.attributes.get_ints(name, (1, 1)) for name in ("strides", "dilations"))
    rule = node.attributes.get_string("auto_pad", "NOTSET")
    if rule == "NOTSET":
        top, left, bottom, right = node.attributes.get_ints("pads", (0, 0, 0, 0))
    elif rule == "SAME_UPPER":
        sides = [same_padding(*axis) for axis in zip(image_shape[2:], kernel, strides, dilations, strict=True)]
        (top, bottom), (left, right) = sides
    elif rule == "VALID":
        top = left = bottom = right = 0
    else:
        raise NotImplementedError(f"pads by the rule {rule}")
    return Window(
        (kernel[0], kernel[1]), (strides[0], strides[1]), (dilations[0], dilations[1]), (top, left, bottom, right)
    )


def max_pool(node: ir.Node, inputs: Inputs) -> Value:
    """MaxPool; on codes where there are any, because codes grow with the reals. Padding never wins."""
    x = first_of(inputs)
    if isinstance(x, Quantized) and x.scale.size == 1:
        return x.with_codes(_maximum(node, x.codes, np.iinfo(x.codes.dtype).min))
    reals = to_reals(x)
    return Reals(_maximum(node, reals.array, -np.inf), reals.exact and not isinstance(x, Tabulated))


def average_pool(node: ir.Node, inputs: Inputs) -> Value:
    """AveragePool of real numbers, without the padding."""
    if node.attributes.get_int("count_include_pad", 0):
        raise NotImplementedError("counts the padding")
    x = to_reals(first_of(inputs)).array
    window = window_of(node, x.shape, tuple(node.attributes.get_ints("kernel_shape", ())))
    sums, counts = (window.taps(window.padded(a, 0)).sum((4, 5), dtype=np.float32) for a in (x, np.ones_like(x)))
    return Reals(sums / counts, exact=False)


def _maximum(node: ir.Node, array: NDArray[Any], lowest: float) -> NDArray[Any]:
    window = window_of(node, array.shape, tuple(node.attributes.get_ints("kernel_shape", ())))
    taps = window.taps(window.padded(array, lowest))
    result = taps[..., 0, 0].copy()
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            np.maximum(result, taps[..., row, column], out=result)
    return np.asarray(result)


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """SAME padding of one axis as (before, after), in TFLite and Keras as by ONNX's SAME_UPPER: the odd one goes after.

    Source: tensorflow/lite/kernels/padding.h.
    """
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2
