"""Strided stem: a convolution of stride 2 on three channels (or one), as one over groups of four pixels.

Before (uint8 codes, NCHW)::

    [N, 3, H, W] -> DQ -> Conv 3x3, stride 2 -> Q

After, with G = 4 pixels per group and O output channels::

    [N, 3, H, W] -> NHWC -> view [N, H, W / G, 3 G] -> DQ -> Conv 3x2, stride (2, 1), 2 O channels -> Q
                 -> view [N, H', W / 2, O]

One position of the new convolution computes two neighbouring columns of the old one: the old kernel stands twice in
the new one, each time shifted to its pixels, zeros elsewhere. The views cost nothing in NHWC, which is what ONNX
Runtime's CPU kernels use. Other kernels of stride 2 take as many groups as their columns touch: three for the 6x6
kernel of YOLOv5. Weights lose their zero-point: one that is no int8 then is the sum of two, and a Gather repeats the
rows that both read (``split_rows``).

Why: ONNX Runtime convolves 8-bit tensors without unrolling them (im2col) only where the input channels are a
multiple of 4; three channels cost more in copies than in arithmetic.

Preconditions: uint8 codes (int8 ones are for other providers), one group, no dilation, W a multiple of 4, and W / 2
output columns, whatever the padding. Numeric effect: bit exact: the same products plus zeros, the same rounding; a
group of padding is a group of zero-points, as its pixels were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from converters.graph import GraphWriter, constant_of
from converters.passes.base import Changed, Link, Moved, Rewrite, Skipped, link, only_consumer, producer
from converters.passes.split_weights import split_rows
from converters.passes.weights import codes_behind, dequantized, node_of, repeated, required, viewed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

GROUP = 4  # pixels: a multiple of 4 channels, whatever a pixel has; eight pixels double the share of zeros
STRIDE = 2
COLUMNS = GROUP // STRIDE  # output columns per group


@dataclass(frozen=True, slots=True)
class _Stem:
    """The matched nodes and their constants.

    Attributes:
        source: DequantizeLinear in front of the convolution.
        conv: the convolution.
        after: QuantizeLinear behind the convolution.
        weights: codes ``(O, C, kh, kw)``, OIHW, with the zero-point behind them.
        size_hw: the picture's height and width.
        pads: top, left, bottom, right.
        stride_h: its vertical stride.
    """

    source: Link
    conv: ir.Node
    after: Link
    weights: NDArray[Any]
    size_hw: tuple[int, int]
    pads: tuple[int, int, int, int]
    stride_h: int

    @property
    def rows(self) -> int:
        """Rows of the result."""
        top, _, bottom, _ = self.pads
        return (self.size_hw[0] + top + bottom - int(self.weights.shape[2])) // self.stride_h + 1


class StridedStem(Rewrite):
    """Reads the picture of a detector with a strided first convolution in groups of pixels."""

    title = "strided stem"

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Rewrite convolutions of stride 2 on fewer than four channels; yield one line per convolution."""
        for conv in [node for node in graph if node.op_type == "Conv"]:
            found = _match(conv)
            if isinstance(found, _Stem):
                moved = _replace(graph, found)
                yield Changed(f"{conv.name}: {GROUP} pixels per group, {COLUMNS} columns per position", moved)
            elif found is not None:
                yield found


def _match(conv: ir.Node) -> _Stem | Skipped | None:
    """The stem around ``conv``; None where it has four channels or more, or another stride, and so is none."""
    name, strides = str(conv.name), tuple(conv.attributes.get_ints("strides", [1, 1]))
    source, weights = link(producer(conv.inputs[0]), "DequantizeLinear"), codes_behind(conv.inputs[1])
    if source is None or weights is None or weights.ndim != 4 or strides[1] != STRIDE:
        return None
    if weights.shape[1] * conv.attributes.get_int("group", 1) >= GROUP:
        return None
    after = link(only_consumer(conv.outputs[0]), "QuantizeLinear")
    shape = None if source.source.shape is None else source.source.shape[1:]
    reason = "its input is int8" if source.dtype != np.uint8 else _refusal(conv)
    if reason is None and (shape is None or not all(isinstance(n, int) for n in shape)):
        reason = "its picture has no fixed size"
    if reason is None and after is None:
        reason = "no QuantizeLinear behind it, or others read its result, too"
    if reason is not None or shape is None or after is None:
        return Skipped(name, str(reason))
    _, height, width = (n for n in shape if isinstance(n, int))
    top, left, bottom, right = conv.attributes.get_ints("pads", [0, 0, 0, 0])
    if width % GROUP or (width + left + right - weights.shape[3]) // STRIDE + 1 != width // STRIDE:
        return Skipped(
            name, f"its {width} columns, padded by {left} and {right}, are not {COLUMNS} results per {GROUP} pixels"
        )
    return _Stem(source, conv, after, weights, (height, width), (top, left, bottom, right), strides[0])


def _refusal(conv: ir.Node) -> str | None:
    """Why ``conv`` is no plain convolution; None if it is."""
    dilations, group = (tuple(conv.attributes.get_ints("dilations", [1, 1])), conv.attributes.get_int("group", 1))
    if dilations != (1, 1) or group != 1:
        return f"its dilations are {dilations} and its groups {group}, not (1, 1) and 1"
    if conv.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "its padding is automatic"
    constants = [constant_of(node_of(value).inputs[2]) for value in conv.inputs[1:] if producer(value) is not None]
    if len(constants) != len(conv.inputs) - 1 or any(c is None or len(set(c.flat)) != 1 for c in constants):
        return "its constants are computed, or have several zero-points"
    return None


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


def _replace(graph: ir.Graph, stem: _Stem) -> tuple[Moved, ...]:
    """Write the new convolution in front of the old one's end and let its codes take over name and readers."""
    writer, old, name = (GraphWriter.inserting(graph, stem.after.node), stem.after.result, f"{stem.conv.name}/groups")
    (height, width), (channels, depth) = stem.size_hw, stem.weights.shape[:2]
    top, left, bottom, _ = stem.pads
    zero_point = int(required(node_of(stem.conv.inputs[1]).inputs[2]).flat[0])
    split = split_rows(stem.weights.astype(np.int16) - zero_point, stem.stride_h, height, (top, bottom))
    pixels = writer.op("Transpose", [stem.source.source], f"{name}/nhwc", perm=[0, 2, 3, 1])
    if split.picture is not None:
        rows = writer.constant(split.picture, f"{name}/rows")
        pixels, height = writer.op("Gather", [pixels, rows], f"{name}/repeated", axis=1), len(split.picture)
    grouped = (height, width // GROUP, GROUP * depth)
    pixels = viewed(writer, pixels, grouped, f"{name}/pixels", from_nchw=False)
    source = writer.op("DequantizeLinear", [pixels, *stem.source.node.inputs[1:]], f"{name}/pixels/dequantized")
    codes = grouped_weights(split.weights, left)
    constants = [
        dequantized(writer, repeated(value, COLUMNS, new), f"{name}/{role}")
        for value, new, role in zip(stem.conv.inputs[1:], (codes, None), ("weights", "bias"), strict=False)
    ]
    groups = touched_groups(stem.weights.shape[3], left)
    real = writer.op(
        "Conv",
        [source, *constants],
        f"{name}/float",
        kernel_shape=list(codes.shape[2:]),
        strides=[split.stride, 1],
        pads=[split.padding[0], -groups.start, split.padding[1], groups.stop - 1],
    )
    result = writer.op("QuantizeLinear", [real, *stem.after.node.inputs[1:]], f"{name}/codes")
    result = viewed(writer, result, (stem.rows, width // STRIDE, channels), f"{name}/image")
    moved = tuple(
        Moved(_codes_name(before), _codes_name(after), replicated=True, shift=-less)
        for before, after, less in zip(stem.conv.inputs[1:], constants, (zero_point, 0), strict=False)
    )
    ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
    graph.remove([stem.after.node, stem.conv], safe=True)
    result.name, result.type, result.shape, old.name = old.name, old.type, old.shape, None
    return moved


def _codes_name(value: ir.Value | None) -> str:
    codes = node_of(value).inputs[0]
    return "" if codes is None else str(codes.name)
