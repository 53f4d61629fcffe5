"""Windows on images: a node's kernel, strides, dilations and pads, and the pools that use them.

A maximum is exact on codes. An average is a float32 sum and division, whose last bit is each runtime's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.integer.convolution import Window
from converters.integer.values import Quantized, Reals, Tabulated, Value, to_reals

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray


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
