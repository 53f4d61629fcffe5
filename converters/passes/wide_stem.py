"""Wide stem: a 3x3 convolution on three channels and its 2x2 pool, as one convolution over pixel groups.

Before (uint8 codes, NCHW)::

    [N, 3, H, W] -> DQ -> Conv 3x3, stride 1, pads 1 -> Q -> DQ -> MaxPool 2x2, stride 2 -> Q

After, with G = 4 pixels per group and O output channels::

    [N, 3, H, W] -> NHWC -> Pad W by (1, G - 1) -> view [N, H, W / G + 1, 3 G]
                 -> DQ -> Conv 4x2, stride (2, 1), pads (1, 0, 1, 0), 2 G O channels -> Q
                 -> view [N, H / 2 * W / G, 4, G / 2 * O] -> DQ -> MaxPool over the axis of 4 -> Q
                 -> view [N, H / 2, W / 2, O]

One position of the new convolution computes the four members of G / 2 neighbouring pool windows: the old kernel
stands 2 G times in the new one, each time shifted to its pixel, zeros elsewhere. The views cost nothing in NHWC,
which is what ONNX Runtime's CPU kernels use.

Why: ONNX Runtime convolves 8-bit tensors without unrolling them (im2col) only where the input channels are a
multiple of 4; three channels cost more in copies than in arithmetic.

Preconditions: those of the patterns above, H even, W a multiple of 4, symmetric weights. Behind a Pad of int8 codes
ONNX Runtime leaves the convolution in float, so the int8 dialect is left alone. Numeric effect: bit exact: the same
products plus zeros, the same rounding, the maximum over the same four codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from converters.graph import GraphWriter, constant_of
from converters.passes.base import Changed, Link, Moved, Rewrite, Skipped, link, only_consumer, producer
from converters.passes.weights import codes_behind, dequantized, node_of, repeated, viewed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

GROUP = 4  # pixels: 12 channels, a multiple of 4; a group of 8 doubles the share of zeros
WINDOW = 4  # pixels of one 2x2 pool window


@dataclass(frozen=True, slots=True)
class _Stem:
    """The matched nodes and their constants.

    Attributes:
        source: DequantizeLinear in front of the convolution.
        conv: the convolution.
        before_pool: QuantizeLinear behind the convolution.
        pool: the pool.
        after_pool: QuantizeLinear behind the pool.
        weights: codes ``(O, 3, 3, 3)``, OIHW.
        size_hw: the picture's height and width.
    """

    source: Link
    conv: ir.Node
    before_pool: Link
    pool: ir.Node
    after_pool: Link
    weights: NDArray[Any]
    size_hw: tuple[int, int]


class WideStem(Rewrite):
    """Widens the first convolution of a detector to groups of pixels."""

    title = "wide stem"

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Rewrite convolutions on three channels; yield one line per convolution."""
        for conv in [node for node in graph if node.op_type == "Conv"]:
            found = _match(conv)
            if isinstance(found, _Stem):
                what = f"{conv.name}: {GROUP} pixels per group, {found.weights.shape[0] * 2 * GROUP} channels"
                yield Changed(what, _replace(graph, found))
            elif found is not None:
                yield found


def _match(conv: ir.Node) -> _Stem | Skipped | None:
    """The stem around ``conv``; None where it has not three channels, and so is none."""
    name = str(conv.name)
    source = link(producer(conv.inputs[0]), "DequantizeLinear")
    weights = codes_behind(conv.inputs[1])
    if source is None or weights is None or weights.ndim != 4 or weights.shape[1] != 3:
        return None
    reason = "its input is int8" if source.dtype != np.uint8 else _refusal(conv, weights)
    size = None if source.source.shape is None else source.source.shape[2:]
    if reason is None and (size is None or not all(isinstance(n, int) for n in size)):
        reason = "its picture has no fixed size"
    if reason is not None or size is None:
        return Skipped(name, str(reason))
    height, width = (n for n in size if isinstance(n, int))
    if height % 2 or width % GROUP:
        return Skipped(
            name, f"its picture is {height} x {width}: the height must be even, the width a multiple of {GROUP}"
        )
    before_pool = link(only_consumer(conv.outputs[0]), "QuantizeLinear")
    middle = link(only_consumer(before_pool.result), "DequantizeLinear") if before_pool else None
    pool = only_consumer(middle.result) if middle else None
    after_pool = link(only_consumer(pool.outputs[0]), "QuantizeLinear") if pool else None
    if before_pool is None or middle is None or pool is None or after_pool is None or not _is_2x2_pool(pool):
        return Skipped(name, "no 2x2 MaxPool of stride 2 behind it, quantised on both sides and read by nothing else")
    if not (before_pool.matches(middle) and middle.matches(after_pool)):
        return Skipped(name, "the pool behind it changes scale or zero-point")
    return _Stem(source, conv, before_pool, pool, after_pool, weights, (height, width))


def _refusal(conv: ir.Node, weights: NDArray[Any]) -> str | None:
    """Why ``conv`` is no 3x3 convolution of stride 1 and padding 1 with symmetric weights; None if it is."""
    wanted = {"strides": (1, 1), "dilations": (1, 1), "pads": (1, 1, 1, 1)}
    for attribute, value in wanted.items():
        default = (0, 0, 0, 0) if attribute == "pads" else (1, 1)
        found = tuple(conv.attributes.get_ints(attribute, default))
        if found != value:
            return f"its {attribute} are {found}, not {value}"
    if weights.shape[2:] != (3, 3) or conv.attributes.get_int("group", 1) != 1:
        return f"its kernel is {weights.shape[2:]} in {conv.attributes.get_int('group', 1)} groups, not one (3, 3)"
    zero_points = constant_of(node_of(conv.inputs[1]).inputs[2])
    return "its weights are not symmetric" if zero_points is None or zero_points.any() else None


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


def _replace(graph: ir.Graph, stem: _Stem) -> tuple[Moved, ...]:
    """Write the new stem in front of the old one's end and let it take over name and readers."""
    old = stem.after_pool.result
    constants = [node_of(value).inputs[0] for value in stem.conv.inputs[1:]]
    writer = GraphWriter.inserting(graph, stem.after_pool.node)
    codes = _convolved(writer, stem, _grouped_pixels(writer, stem))
    (height, width), channels = stem.size_hw, stem.weights.shape[0]
    name = f"{stem.conv.name}/wide"
    windows = viewed(writer, codes, (height // 2 * (width // GROUP), WINDOW, GROUP // 2 * channels), f"{name}/windows")
    real = writer.op("DequantizeLinear", [windows, *stem.before_pool.node.inputs[1:]], f"{name}/windows/dequantized")
    pooled = writer.op("MaxPool", [real], f"{name}/pooled/float", kernel_shape=[1, WINDOW], strides=[1, WINDOW])
    pooled = writer.op("QuantizeLinear", [pooled, *stem.after_pool.node.inputs[1:]], f"{name}/pooled")
    result = viewed(writer, pooled, (height // 2, width // 2, channels), f"{name}/image")
    ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
    for node in (stem.after_pool.node, stem.pool, node_of(stem.pool.inputs[0]), stem.before_pool.node, stem.conv):
        graph.remove(node, safe=True)
    result.name, old.name = old.name, None
    wide = [node_of(value).inputs[0] for value in node_of(node_of(codes).inputs[0]).inputs[1:]]
    return tuple(
        Moved(str(before.name), str(after.name), replicated=True)
        for before, after in zip(constants, wide, strict=True)
        if before is not None and after is not None
    )


def _grouped_pixels(writer: GraphWriter, stem: _Stem) -> ir.Value:
    """Codes ``[N, 3, H, W]`` -> ``[N, 3 * GROUP, H, W / GROUP + 1]``, one pixel of padding in front."""
    name, (height, width) = f"{stem.conv.name}/wide", stem.size_hw
    pixels = writer.op("Transpose", [stem.source.source], f"{name}/pixels", perm=[0, 2, 3, 1])
    pads = writer.constant(np.array([0, 0, 1, 0, 0, 0, GROUP - 1, 0], np.int64), f"{name}/pads")
    zero = writer.constant(np.array(stem.source.zero_point, stem.source.dtype), f"{name}/padding")
    padded = writer.op("Pad", [pixels, pads, zero], f"{name}/padded")
    return viewed(writer, padded, (height, width // GROUP + 1, 3 * GROUP), f"{name}/groups", from_nchw=False)


def _convolved(writer: GraphWriter, stem: _Stem, groups: ir.Value) -> ir.Value:
    """The wide convolution's codes, ``[N, 2 * GROUP * O, H / 2, W / GROUP]``."""
    name, copies = f"{stem.conv.name}/wide", WINDOW * GROUP // 2
    source = writer.op("DequantizeLinear", [groups, *stem.source.node.inputs[1:]], f"{name}/groups/dequantized")
    constants = [
        dequantized(writer, repeated(value, copies, codes), f"{name}/{role}")
        for value, codes, role in zip(
            stem.conv.inputs[1:], (widened_weights(stem.weights), None), ("weights", "bias"), strict=False
        )
    ]
    real = writer.op(
        "Conv", [source, *constants], f"{name}/float", kernel_shape=[4, 2], strides=[2, 1], pads=[1, 0, 1, 0]
    )
    return writer.op("QuantizeLinear", [real, *stem.before_pool.node.inputs[1:]], f"{name}/codes")
