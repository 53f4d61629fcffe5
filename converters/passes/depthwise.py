"""Depthwise convolutions as ONNX Runtime's kernel takes them fast, average pools among them. Numeric effect: bit exact.

Average as convolution: a quantised average pool, as a depthwise convolution with weights of 1. Before (uint8 codes,
NCHW)::

    q -> DQ -> AveragePool -> Q

After, with n places per window::

    q -> DQ -> Conv, depthwise, weights of 1 with scale 1 / n -> Q

Why: ONNX Runtime averages every channel and window by itself; its depthwise kernel takes 16 channels at once, in a
twentieth of the time. A Pad in front can become the convolution's own. A mean commutes with a shift and a scaling of
all codes: both sides take the numbers of the codes themselves, not those at which LiteRT's ties fall, so that a Pad of
the same numbers can be folded. Preconditions: windows of an odd number of places, whose means are never ties, and which
lie inside the picture; uint8 codes, equal zero-points and (but for a nudge of 2^-14) scales on both sides. Both forms
round the same mean, and none lies near a tie.

Shifted rows: a depthwise convolution of few channels, on groups of pixels, from copies of its rows. Before (C channels,
K columns of the kernel)::

    [N, C, H, W] -> DQ -> Conv, depthwise -> Q

After, with U pixels per group and D groups per copy::

    [N, C, H, W] -> NHWC -> view [N, H, 1, W C] -> Concat of K copies and padding
                 -> view [N, H, groups, U C] -> DQ -> Conv, depthwise on U C channels, columns D apart -> Q
                 -> view [N, H', W', C]

Copy k of a row stands k places further to the left in its groups than copy 0, so that column k of the kernel finds all
pixels of a group at the same place of another copy. Padding in front, between and behind is the code of 0. A weight
that, less its zero-point, is no int8 is the sum of two: its column gets a copy for each (``split_columns``).

Why: most of what ONNX Runtime's depthwise kernel takes is paid per pixel and tap, whatever its channels: addresses,
and the end of a sum. 16 channels take half the time as groups of eight pixels; the copies cost a tenth of it. Weights
with a zero-point have no fast kernel at all: split in two, they take a quarter to three quarters of the time.
Preconditions: uint8 codes, constant weights of one zero-point, 8, 16, 24 or 32 channels (64, too, where weights are
split), a column stride and dilation of 1, a fixed size with whole groups of results, and pictures that are large
enough. The products are the same, and their rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.graph import GraphWriter, static_shape
from converters.passes.base import (
    Changed,
    DeclinedError,
    Link,
    Moved,
    Rewrite,
    dequantize_before,
    link,
    pair_around,
    producer,
    quantize_behind,
    require_stated_padding,
    take_over,
)
from converters.passes.weights import (
    codes_behind,
    convolved_anew,
    dequantized,
    is_depthwise,
    split_columns,
    viewed,
    zero_point_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

NUDGE = 2.0**-14  # by which scales may differ
LARGEST = 31  # places of a window: 255 nudged codes stay nearer to their mean than it is to a tie, 1 / (2 * 31)


class AverageAsConvolution(Rewrite):
    """Writes average pools as depthwise convolutions."""

    title = "average as convolution"
    op_type = "AveragePool"

    def rewrite_at(self, graph: ir.Graph, node: ir.Node) -> Changed:
        """Convolve each channel with weights of 1."""
        before, after = pair_around(node)
        window = node.attributes.get_ints("kernel_shape", [1, 1])
        places = int(np.prod(window))
        _require_plain_mean(node, before, after, places)
        # the pair that wrote the codes; or the pool's own, where it has no nudge
        own = link(producer(before.source), "QuantizeLinear") or (before if before.matches(after) else None)
        channels = None if before.source.shape is None else before.source.shape[1]
        if own is None or not isinstance(channels, int):
            raise DeclinedError("the numbers of its codes, or of its channels, are unknown")
        writer, numbers, name = GraphWriter.inserting(graph, node), own.node.inputs[1:], f"{node.name}/sum"
        weights = np.ones((channels, 1, *window), np.int8)
        source = writer.op("DequantizeLinear", [before.source, *numbers], f"{name}/dequantized")
        kernel = dequantized(writer, (weights, np.float32(1 / places), np.int8(0)), f"{name}/weights")
        attributes = {"kernel_shape": window, "strides": node.attributes.get_ints("strides", [1, 1]), "group": channels}
        real = writer.op("Conv", [source, kernel], f"{name}/float", **attributes)
        take_over(graph, writer.op("QuantizeLinear", [real, *numbers], name), after.result)
        return Changed(f"{node.name}: {channels} channels, weights of 1/{places}")


def _require_plain_mean(pool: ir.Node, before: Link, after: Link, places: int) -> None:
    """Decline a pool whose means are not those of codes, or may be ties."""
    if before.dtype != np.uint8 or after.dtype != np.uint8 or before.zero_point != after.zero_point:
        raise DeclinedError("its codes are int8, or it changes the zero-point")
    if abs(float(before.scale) / float(after.scale) - 1) > NUDGE:
        raise DeclinedError("it changes the scale")
    padding = pool.attributes.get_string("auto_pad", "NOTSET")
    if padding not in ("NOTSET", "VALID") or any(pool.attributes.get_ints("pads", [])):
        raise DeclinedError("it pads, and does not count what it pads")
    if pool.attributes.get_int("ceil_mode", 0) or set(pool.attributes.get_ints("dilations", [1])) != {1}:
        raise DeclinedError("its windows are dilated, or reach beyond the picture")
    if places % 2 == 0 or places > LARGEST:
        raise DeclinedError(f"a mean of {places} codes may be a tie, or next to one")


FEWEST_RESULTS = {8: 512, 16: 512, 24: 1024, 32: 1024}  # channels -> places of the result from which it pays
FEWEST_SPLIT = {8: 512, 16: 512, 24: 512, 32: 512, 64: 256}  # likewise, where weights are split
GROUPS = (16, 8, 4)  # pixels per group, the best first
MOST = 256  # channels of a group


@dataclass(frozen=True, slots=True)
class _Rows:
    """A convolution that the pass takes."""

    before: Link  # DequantizeLinear in front of it
    after: Link  # QuantizeLinear behind it
    shape: tuple[int, int, int, int]  # the picture's batch, channels, height and width
    result_hw: tuple[int, int]  # height and width of the result
    group: int  # pixels per group
    weights: NDArray[np.int8]  # ``(C, 1, kh, copies)``, int8 without zero-point
    columns: tuple[int, ...]  # of the old kernel, for every copy
    zero_point: int  # what was taken off the weights


class ShiftedRows(Rewrite):
    """Writes depthwise convolutions of few channels on groups of pixels."""

    title = "shifted rows"
    op_type = "Conv"

    def rewrite_at(self, graph: ir.Graph, node: ir.Node) -> Changed | None:
        """Rewrite a depthwise convolution of 8 to 64 channels."""
        rows = _match(node) if is_depthwise(node) else None
        if rows is None:
            return None
        return Changed(f"{node.name}: {rows.group} pixels per group", _replace(graph, node, rows))


def is_shiftable(conv: ir.Node) -> bool:
    """Whether the pass takes a depthwise convolution as it is."""
    try:
        return _match(conv) is not None
    except DeclinedError:
        return False


def _match(conv: ir.Node) -> _Rows | None:
    """What the pass needs to know; None where the convolution has other channels, or is not quantised."""
    codes = codes_behind(conv.inputs[1])
    before = dequantize_before(conv.inputs[0])
    after = quantize_behind(conv.outputs[0])
    if codes is None or len(codes) not in FEWEST_SPLIT or before is None or after is None:
        return None
    zero_point = zero_point_of(conv)
    weights, columns = split_columns(codes.astype(np.int16) - zero_point)
    fewest = (FEWEST_RESULTS if len(columns) == codes.shape[3] else FEWEST_SPLIT).get(len(codes))
    if fewest is None:
        return None
    if before.dtype != np.uint8:
        raise DeclinedError("its codes are int8")
    strides, dilations = (conv.attributes.get_ints(name, [1, 1]) for name in ("strides", "dilations"))
    if strides[1] != 1 or list(dilations) != [1, 1] or codes.shape[3] == 1:
        raise DeclinedError("its columns are not next to each other")
    require_stated_padding(conv)
    return _Rows(before, after, *_sizes(conv, before, codes, fewest), weights, columns, zero_point)


def _sizes(
    conv: ir.Node, before: Link, codes: NDArray[Any], fewest: int
) -> tuple[tuple[int, int, int, int], tuple[int, int], int]:
    """Shape of the picture, size of the result, pixels per group."""
    sizes = static_shape(before.source)
    if sizes is None or len(sizes) != 4:
        raise DeclinedError("its picture has no fixed size, or its batch is open")
    (top, left, bottom, right), (rows, columns) = conv.attributes.get_ints("pads", [0] * 4), codes.shape[2:]
    height = (sizes[2] + top + bottom - rows) // conv.attributes.get_ints("strides", [1, 1])[0] + 1
    width = sizes[3] + left + right - columns + 1
    group = next((pixels for pixels in GROUPS if width % pixels == 0 and pixels * len(codes) <= MOST), None)
    if height * width < fewest or group is None or max(left, right) >= columns:
        raise DeclinedError(f"its result of {height} x {width} is small, or has no whole groups")
    return (sizes[0], sizes[1], sizes[2], sizes[3]), (height, width), group


def row_parts(width: int, columns: Sequence[int], pads: tuple[int, int], group: int) -> tuple[int, list[int]]:
    """Groups from one copy of a row to the next, and pixels of padding in front of every copy and behind the last.

    ``columns`` of the kernel stand for the copies, in ascending order; ``pads`` are the convolution's, left and right.
    """
    left, right = pads
    apart = -(-(width + max(1, left, right)) // group)
    between = [apart * group - (b - a) - width for a, b in pairwise(columns)]
    return apart, [left, *between, right]


def _replace(graph: ir.Graph, conv: ir.Node, rows: _Rows) -> tuple[Moved, ...]:
    """Write the convolution anew behind copies of its rows; its codes take over name and readers."""
    writer, name = GraphWriter.inserting(graph, rows.after.node), f"{conv.name}/rows"
    group, (batch, channels, height, width) = rows.group, rows.shape
    top, left, bottom, right = conv.attributes.get_ints("pads", [0] * 4)
    weights = np.tile(rows.weights, (group, 1, 1, 1))
    apart, padding = row_parts(width, rows.columns, (left, right), group)
    flat = writer.op("Transpose", [rows.before.source], f"{name}/nhwc", perm=[0, 2, 3, 1])
    flat = writer.op("Reshape", [flat, ([batch, height, 1, width * channels], f"{name}/shape")], f"{name}/flat")
    edges = {}
    for pixels in sorted({*padding} - {0}):
        zeros = np.full((batch, height, 1, pixels * channels), rows.before.zero_point, np.uint8)
        edges[pixels] = writer.constant(zeros, f"{name}/{pixels}")
    parts = [[edges[pixels]] if pixels else [] for pixels in padding]
    operands = [part for pixels in parts[:-1] for part in (*pixels, flat)] + parts[-1]
    copies = writer.op("Concat", operands, f"{name}/copies", axis=3)
    groups = (weights.shape[3] - 1) * apart + rows.result_hw[1] // group
    grouped = viewed(writer, copies, (height, groups, group * channels), f"{name}/groups", from_nchw=False)
    codes, moved = convolved_anew(
        writer, conv, (rows.before, rows.after), grouped, weights, name=name, shift=rows.zero_point,
        strides=conv.attributes.get_ints("strides", [1, 1]), dilations=[1, apart],
        pads=[top, 0, bottom, 0], group=group * channels,
    )  # fmt: skip
    take_over(graph, viewed(writer, codes, (*rows.result_hw, channels), f"{name}/image"), rows.after.result)
    return moved
