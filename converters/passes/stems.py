"""First convolutions on three channels (or one), as convolutions over groups of 4 pixels. Numeric effect: bit exact.

Why: ONNX Runtime convolves 8-bit tensors without unrolling them (im2col) only where the input channels are a
multiple of 4; three channels cost more in copies than in arithmetic. The views of grouped pixels cost nothing in NHWC,
which is what ONNX Runtime's CPU kernels use. The old kernel stands in the new one once for every result that a position
computes, each time shifted to its pixels, zeros elsewhere: the same products plus zeros, the same rounding.

Wide stem: a 3x3 convolution and its 2x2 pool. Before (uint8 codes, NCHW)::

    [N, 3, H, W] -> DQ -> Conv 3x3, stride 1, pads 1 -> Q -> DQ -> MaxPool 2x2, stride 2 -> Q

After, with G = 4 pixels per group and O output channels::

    [N, 3, H, W] -> NHWC -> Pad W by (1, G - 1) -> view [N, H, W / G + 1, 3 G]
                 -> DQ -> Conv 4x2, stride (2, 1), pads (1, 0, 1, 0), 2 G O channels -> Q
                 -> view [N, H / 2 * W / G, 4, G / 2 * O] -> DQ -> MaxPool over the axis of 4 -> Q
                 -> view [N, H / 2, W / 2, O]

One position of the new convolution computes the four members of G / 2 neighbouring pool windows. Preconditions: those
of the patterns above, H even, W a multiple of 4, symmetric weights. Behind a Pad of int8 codes ONNX Runtime leaves the
convolution in float, so the int8 dialect is left alone.

Strided stem: a convolution of stride 2. Before (uint8 codes, NCHW)::

    [N, 3, H, W] -> DQ -> Conv 3x3, stride 2 -> Q

After::

    [N, 3, H, W] -> NHWC -> view [N, H, W / G, 3 G] -> DQ -> Conv 3x2, stride (2, 1), 2 O channels -> Q
                 -> view [N, H', W / 2, O]

One position of the new convolution computes two neighbouring columns of the old one. Other kernels of stride 2 take as
many groups as their columns touch: three for the 6x6 kernel of YOLOv5. Weights lose their zero-point: one that is no
int8 then is the sum of two, and a Gather repeats the rows that both read (``split_rows``). Preconditions: uint8 codes
(int8 ones are for other providers), one group, no dilation, W a multiple of 4, and W / 2 output columns, whatever the
padding. A group of padding is a group of zero-points, as its pixels were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.graph import GraphWriter, constant_of
from converters.passes.base import (
    Changed,
    DeclinedError,
    Link,
    Moved,
    Rewrite,
    dequantize_before,
    link,
    only_consumer,
    producer,
    quantize_behind,
    take_over,
)
from converters.passes.weights import (
    codes_behind,
    constants_behind,
    convolved_anew,
    node_of,
    split_rows,
    viewed,
    zero_point_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

GROUP = 4  # pixels: a multiple of 4 channels, whatever a pixel has; eight pixels double the share of zeros
WINDOW = 4  # pixels of one 2x2 pool window
STRIDE = 2
COLUMNS = GROUP // STRIDE  # output columns per group


def _size(source: Link) -> tuple[int, int]:
    """Height and width of a picture of uint8 codes."""
    shape = () if source.source.shape is None else source.source.shape.dims[1:]
    sizes = [n for n in shape if isinstance(n, int)]
    if len(sizes) != 3:
        raise DeclinedError("its picture has no fixed size")
    return sizes[1], sizes[2]


class WideStem(Rewrite):
    """Widens the first convolution of a detector to groups of pixels."""

    title = "wide stem"
    op_type = "Conv"

    def rewrite_at(self, graph: ir.Graph, node: ir.Node) -> Changed | None:
        """Rewrite a convolution on three channels and the pool behind it."""
        before, weights = dequantize_before(node.inputs[0]), codes_behind(node.inputs[1])
        if before is None or weights is None or weights.ndim != 4 or weights.shape[1] != 3:
            return None
        if before.dtype != np.uint8:
            raise DeclinedError("its input is int8")
        _require_3x3(node, weights)
        height, width = _size(before)
        if height % 2 or width % GROUP:
            raise DeclinedError(
                f"its picture is {height} x {width}: the height must be even, the width a multiple of {GROUP}"
            )
        after = quantize_behind(node.outputs[0])
        middle = link(only_consumer(after.result), "DequantizeLinear") if after else None
        pool = only_consumer(middle.result) if middle else None
        pooled = quantize_behind(pool.outputs[0]) if pool else None
        if after is None or middle is None or pool is None or pooled is None or not _is_2x2_pool(pool):
            raise DeclinedError(
                "no 2x2 MaxPool of stride 2 behind it, quantised on both sides and read by nothing else"
            )
        if not (after.matches(middle) and middle.matches(pooled)):
            raise DeclinedError("the pool behind it changes scale or zero-point")
        moved = _widen(graph, node, (before, after), (height, width), pooled)
        return Changed(f"{node.name}: {GROUP} pixels per group, {len(weights) * 2 * GROUP} channels", moved)


def _require_3x3(conv: ir.Node, weights: NDArray[Any]) -> None:
    """Decline what is no 3x3 convolution of stride 1 and padding 1 with symmetric weights."""
    wanted = {"strides": (1, 1), "dilations": (1, 1), "pads": (1, 1, 1, 1)}
    for attribute, value in wanted.items():
        default = (0, 0, 0, 0) if attribute == "pads" else (1, 1)
        stated = tuple(conv.attributes.get_ints(attribute, default))
        if stated != value:
            raise DeclinedError(f"its {attribute} are {stated}, not {value}")
    group = conv.attributes.get_int("group", 1)
    if weights.shape[2:] != (3, 3) or group != 1:
        raise DeclinedError(f"its kernel is {weights.shape[2:]} in {group} groups, not one (3, 3)")
    zero_points = constant_of(node_of(conv.inputs[1]).inputs[2])
    if zero_points is None or zero_points.any():
        raise DeclinedError("its weights are not symmetric")


def _is_2x2_pool(pool: ir.Node) -> bool:
    """Whether ``pool`` is MaxPool 2x2 of stride 2; an even picture leaves nothing to pad, whatever the padding rule."""
    attributes = pool.attributes
    return (
        pool.op_type == "MaxPool"
        and list(attributes.get_ints("kernel_shape", [])) == [2, 2]
        and list(attributes.get_ints("strides", [1, 1])) == [2, 2]
        and not any(attributes.get_ints("pads", []))
        and set(attributes.get_ints("dilations", [1, 1])) == {1}
    )


def widened_weights(weights: NDArray[Any]) -> NDArray[Any]:
    """The old kernel in every place of the new one.

    Args:
        weights: codes ``(O, 3, 3, 3)``, OIHW.

    Returns:
        Codes ``(4 * GROUP / 2 * O, 3 * GROUP, 4, 2)``: output channels ordered (row and column in the pool window,
        window, O), input channels (pixel, colour); zeros elsewhere.
    """
    channels = weights.shape[0]
    windows = GROUP // 2
    pixels = np.zeros((2, 2, windows, channels, 3, 4, 2 * GROUP), weights.dtype)  # ..., colour, row, column
    for row in range(2):
        for column in range(2):
            for window in range(windows):
                left = 2 * window + column
                pixels[row, column, window, :, :, row : row + 3, left : left + 3] = weights
    grouped = pixels.reshape(WINDOW * windows * channels, 3, 4, 2, GROUP)
    return np.ascontiguousarray(grouped.transpose(0, 4, 1, 2, 3)).reshape(-1, 3 * GROUP, 4, 2)


def _widen(
    graph: ir.Graph, conv: ir.Node, links: tuple[Link, Link], size_hw: tuple[int, int], pooled: Link
) -> tuple[Moved, ...]:
    """Write the new stem in front of the old one's end and let it take over name and readers."""
    writer, name = GraphWriter.inserting(graph, pooled.node), f"{conv.name}/wide"
    (before, after), (height, width), (weights, *_) = links, size_hw, constants_behind(conv.inputs[1])
    pixels = writer.op("Transpose", [before.source], f"{name}/pixels", perm=[0, 2, 3, 1])
    pads = [0, 0, 1, 0, 0, 0, GROUP - 1, 0], f"{name}/pads"
    zero = np.array(before.zero_point, before.dtype), f"{name}/padding"
    padded = writer.op("Pad", [pixels, pads, zero], f"{name}/padded")
    groups = viewed(writer, padded, (height, width // GROUP + 1, 3 * GROUP), f"{name}/groups", from_nchw=False)
    codes, moved = convolved_anew(
        writer, conv, links, groups, widened_weights(weights),
        name=name, strides=[2, 1], pads=[1, 0, 1, 0],
    )  # fmt: skip
    windows = viewed(
        writer, codes, (height // 2 * (width // GROUP), WINDOW, GROUP // 2 * len(weights)), f"{name}/windows"
    )
    real = writer.op("DequantizeLinear", [windows, *after.node.inputs[1:]], f"{name}/windows/dequantized")
    largest = writer.op("MaxPool", [real], f"{name}/pooled/float", kernel_shape=[1, WINDOW], strides=[1, WINDOW])
    largest = writer.op("QuantizeLinear", [largest, *pooled.node.inputs[1:]], f"{name}/pooled")
    take_over(graph, viewed(writer, largest, (height // 2, width // 2, len(weights)), f"{name}/image"), pooled.result)
    return moved


class StridedStem(Rewrite):
    """Reads the picture of a detector with a strided first convolution in groups of pixels."""

    title = "strided stem"
    op_type = "Conv"

    def rewrite_at(self, graph: ir.Graph, node: ir.Node) -> Changed | None:
        """Rewrite a convolution of stride 2 on fewer than four channels."""
        before, weights = dequantize_before(node.inputs[0]), codes_behind(node.inputs[1])
        strides = tuple(node.attributes.get_ints("strides", [1, 1]))
        if before is None or weights is None or weights.ndim != 4 or strides[1] != STRIDE:
            return None
        if weights.shape[1] * node.attributes.get_int("group", 1) >= GROUP:
            return None
        if before.dtype != np.uint8:
            raise DeclinedError("its input is int8")
        _require_plain_convolution(node)
        height, width = _size(before)
        after = quantize_behind(node.outputs[0])
        if after is None:
            raise DeclinedError("no QuantizeLinear behind it, or others read its result, too")
        _, left, _, right = node.attributes.get_ints("pads", [0, 0, 0, 0])
        if width % GROUP or (width + left + right - weights.shape[3]) // STRIDE + 1 != width // STRIDE:
            raise DeclinedError(
                f"its {width} columns, padded by {left} and {right}, are not {COLUMNS} results per {GROUP} pixels"
            )
        moved = _group_columns(graph, node, (before, after), (height, width))
        return Changed(f"{node.name}: {GROUP} pixels per group, {COLUMNS} columns per position", moved)


def _require_plain_convolution(conv: ir.Node) -> None:
    """Decline groups, dilations, automatic padding, and constants that are computed or have several zero-points."""
    dilations, group = tuple(conv.attributes.get_ints("dilations", [1, 1])), conv.attributes.get_int("group", 1)
    if dilations != (1, 1) or group != 1:
        raise DeclinedError(f"its dilations are {dilations} and its groups {group}, not (1, 1) and 1")
    if conv.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise DeclinedError("its padding is automatic")
    constants = [constant_of(node_of(value).inputs[2]) for value in conv.inputs[1:] if producer(value) is not None]
    if len(constants) != len(conv.inputs) - 1 or any(c is None or len(set(c.flat)) != 1 for c in constants):
        raise DeclinedError("its constants are computed, or have several zero-points")


def touched_groups(kernel_w: int, left: int) -> range:
    """The groups of pixels, counted from that of its first column, that a pair of output columns reads."""
    return range(-left // GROUP, (STRIDE * (COLUMNS - 1) - left + kernel_w - 1) // GROUP + 1)


def grouped_weights(weights: NDArray[np.int8], left: int) -> NDArray[np.int8]:
    """The old kernel at the place of both columns, zeros elsewhere.

    Args:
        weights: codes ``(O, C, kh, kw)``, OIHW.
        left: padding of the picture.

    Returns:
        Codes ``(2 * O, GROUP * C, kh, groups)``: output channels ordered (column, O), input channels (pixel, channel).
    """
    channels, depth, kernel_h, kernel_w = weights.shape
    groups = touched_groups(kernel_w, left)
    filled = np.zeros((COLUMNS, channels, GROUP, depth, kernel_h, len(groups)), np.int8)
    for column in range(COLUMNS):
        for x in range(kernel_w):
            group, pixel = divmod(STRIDE * column - left + x, GROUP)
            filled[column, :, pixel, :, :, group - groups.start] = weights[:, :, :, x]
    return filled.reshape(COLUMNS * channels, GROUP * depth, kernel_h, len(groups))


def _group_columns(
    graph: ir.Graph, conv: ir.Node, links: tuple[Link, Link], size_hw: tuple[int, int]
) -> tuple[Moved, ...]:
    """Write the new convolution in front of the old one's end and let its codes take over name and readers."""
    (before, after), (height, width), (weights, *_) = links, size_hw, constants_behind(conv.inputs[1])
    writer, name = GraphWriter.inserting(graph, after.node), f"{conv.name}/groups"
    channels, depth, kernel_h, kernel_w = weights.shape
    top, left, bottom, _ = conv.attributes.get_ints("pads", [0, 0, 0, 0])
    stride_h, zero_point = conv.attributes.get_ints("strides", [1, 1])[0], zero_point_of(conv)
    rows = (height + top + bottom - kernel_h) // stride_h + 1
    split = split_rows(weights.astype(np.int16) - zero_point, stride_h, height, (top, bottom))
    pixels = writer.op("Transpose", [before.source], f"{name}/nhwc", perm=[0, 2, 3, 1])
    if split.picture is not None:
        repeated = split.picture, f"{name}/rows"
        pixels, height = writer.op("Gather", [pixels, repeated], f"{name}/repeated", axis=1), len(split.picture)
    view = (height, width // GROUP, GROUP * depth)
    pixels = viewed(writer, pixels, view, f"{name}/pixels", from_nchw=False)
    groups = touched_groups(kernel_w, left)
    codes, moved = convolved_anew(
        writer, conv, links, pixels, grouped_weights(split.weights, left),
        name=name, shift=zero_point, strides=[split.stride, 1],
        pads=[split.padding[0], -groups.start, split.padding[1], groups.stop - 1],
    )  # fmt: skip
    take_over(graph, viewed(writer, codes, (rows, width // STRIDE, channels), f"{name}/image"), after.result)
    return moved
