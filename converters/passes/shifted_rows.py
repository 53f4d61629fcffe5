"""Shifted rows: a depthwise convolution of few channels, on groups of pixels, from copies of its rows.

Before (uint8 codes, NCHW; C channels, K columns of the kernel)::

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
enough. Numeric effect: bit exact: the same products, the same rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from converters.graph import GraphWriter, constant_of
from converters.passes.base import Changed, Link, Moved, Rewrite, Skipped, link, only_consumer, producer
from converters.passes.split_weights import split_columns
from converters.passes.weights import codes_behind, dequantized, is_depthwise, node_of, repeated, viewed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

FEWEST_RESULTS = {8: 512, 16: 512, 24: 1024, 32: 1024}  # channels -> places of the result from which it pays
FEWEST_SPLIT = {8: 512, 16: 512, 24: 512, 32: 512, 64: 256}  # likewise, where weights are split
GROUPS = (16, 8, 4)  # pixels per group, the best first
MOST = 256  # channels of a group


@dataclass(frozen=True, slots=True)
class _Rows:
    """The matched nodes and their numbers.

    Attributes:
        source: DequantizeLinear in front of the convolution.
        conv: the convolution.
        after: QuantizeLinear behind it.
        shape: the picture's batch, channels, height and width.
        result_hw: height and width of the result.
        group: pixels per group.
        weights: ``(C, 1, kh, copies)``, int8 without zero-point.
        columns: of the old kernel, for every copy.
        zero_point: what was taken off the weights.
    """

    source: Link
    conv: ir.Node
    after: Link
    shape: tuple[int, int, int, int]
    result_hw: tuple[int, int]
    group: int
    weights: NDArray[np.int8]
    columns: tuple[int, ...]
    zero_point: int


class ShiftedRows(Rewrite):
    """Writes depthwise convolutions of few channels on groups of pixels."""

    title = "shifted rows"

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Rewrite depthwise convolutions of 8 to 32 channels; yield one line per convolution."""
        for conv in [node for node in graph if is_depthwise(node)]:
            found = _match(conv)
            if isinstance(found, _Rows):
                yield Changed(f"{conv.name}: {found.group} pixels per group", _replace(graph, found))
            elif found is not None:
                yield found


def is_shiftable(conv: ir.Node) -> bool:
    """Whether the pass takes a depthwise convolution as it is."""
    return isinstance(_match(conv), _Rows)


def _match(conv: ir.Node) -> _Rows | Skipped | None:
    """The convolution with what is around it; None where it has other channels, or is not quantised."""
    codes = codes_behind(conv.inputs[1])
    source = link(producer(conv.inputs[0]), "DequantizeLinear")
    after = link(only_consumer(conv.outputs[0]), "QuantizeLinear")
    if codes is None or len(codes) not in FEWEST_SPLIT or source is None or after is None:
        return None
    zero_point = constant_of(node_of(conv.inputs[1]).inputs[2])
    if zero_point is None or len(set(zero_point.flat)) != 1:
        return Skipped(str(conv.name), "its weights have more than one zero-point, or computed ones")
    shift = int(zero_point.flat[0])
    weights, columns = split_columns(codes.astype(np.int16) - shift)
    fewest = (FEWEST_RESULTS if len(columns) == codes.shape[3] else FEWEST_SPLIT).get(len(codes))
    if fewest is None:
        return None
    found = _refusal(conv, source, codes) or _sizes(conv, source, codes, fewest)
    if isinstance(found, str):
        return Skipped(str(conv.name), found)
    return _Rows(source, conv, after, *found, weights, columns, shift)


def _sizes(
    conv: ir.Node, source: Link, codes: NDArray[Any], fewest: int
) -> tuple[tuple[int, int, int, int], tuple[int, int], int] | str:
    """Shape of the picture, size of the result, pixels per group; or why there are no groups."""
    shape = () if source.source.shape is None else source.source.shape.dims
    sizes = tuple(n for n in shape if isinstance(n, int))
    if len(sizes) != 4:
        return "its picture has no fixed size, or its batch is open"
    (top, left, bottom, right), (rows, columns) = _pads(conv), codes.shape[2:]
    height = (sizes[2] + top + bottom - rows) // conv.attributes.get_ints("strides", [1, 1])[0] + 1
    width = sizes[3] + left + right - columns + 1
    group = next((pixels for pixels in GROUPS if width % pixels == 0 and pixels * len(codes) <= MOST), None)
    if height * width < fewest or group is None or max(left, right) >= columns:
        return f"its result of {height} x {width} is small, or has no whole groups"
    return (sizes[0], sizes[1], sizes[2], sizes[3]), (height, width), group


def _refusal(conv: ir.Node, source: Link, weights: NDArray[Any]) -> str | None:
    """Why a depthwise convolution has no such form; None if it has."""
    if source.dtype != np.uint8:
        return "its codes are int8"
    strides, dilations = (conv.attributes.get_ints(name, [1, 1]) for name in ("strides", "dilations"))
    if strides[1] != 1 or list(dilations) != [1, 1] or weights.shape[3] == 1:
        return "its columns are not next to each other"
    automatic = conv.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    return "its padding is automatic" if automatic else None


def _pads(conv: ir.Node) -> tuple[int, int, int, int]:
    top, left, bottom, right = conv.attributes.get_ints("pads", [0, 0, 0, 0])
    return top, left, bottom, right


def row_parts(width: int, columns: Sequence[int], pads: tuple[int, int], group: int) -> tuple[int, list[int]]:
    """How a row of copies is put together.

    Args:
        width: pixels of the picture's row.
        columns: of the kernel, for every copy, in ascending order.
        pads: the convolution's, left and right.
        group: pixels per group.

    Returns:
        Groups from one copy to the next, and the pixels of padding in front of every copy and behind the last one.
    """
    left, right = pads
    apart = -(-(width + max(1, left, right)) // group)
    between = [apart * group - (b - a) - width for a, b in pairwise(columns)]
    return apart, [left, *between, right]


def _replace(graph: ir.Graph, rows: _Rows) -> tuple[Moved, ...]:
    """Write the convolution anew behind copies of its rows; its codes take over name and readers."""
    conv, group, (batch, channels, height, width) = rows.conv, rows.group, rows.shape
    writer, old, name = GraphWriter.inserting(graph, rows.after.node), rows.after.result, f"{conv.name}/rows"
    top, left, bottom, right = _pads(conv)
    weights = np.tile(rows.weights, (group, 1, 1, 1))
    kernel_hw = list(weights.shape[2:])
    apart, padding = row_parts(width, rows.columns, (left, right), group)
    flat = writer.op("Transpose", [rows.source.source], f"{name}/nhwc", perm=[0, 2, 3, 1])
    shape = writer.constant(np.array([batch, height, 1, width * channels], np.int64), f"{name}/shape")
    flat = writer.op("Reshape", [flat, shape], f"{name}/flat")
    edges = {
        pixels: writer.constant(_filled((batch, height, 1, pixels * channels), rows.source), f"{name}/{pixels}")
        for pixels in sorted({*padding} - {0})
    }
    parts = [[edges[pixels]] if pixels else [] for pixels in padding]
    operands = [part for pixels in parts[:-1] for part in (*pixels, flat)] + parts[-1]
    copies = writer.op("Concat", operands, f"{name}/copies", axis=3)
    groups = (kernel_hw[1] - 1) * apart + rows.result_hw[1] // group
    grouped = viewed(writer, copies, (height, groups, group * channels), f"{name}/groups", from_nchw=False)
    source = writer.op("DequantizeLinear", [grouped, *rows.source.node.inputs[1:]], f"{name}/groups/dequantized")
    constants = [
        dequantized(writer, repeated(value, group, codes), f"{name}/{role}")
        for value, codes, role in zip(conv.inputs[1:], (weights, None), ("weights", "bias"), strict=False)
    ]
    real = writer.op(
        "Conv",
        [source, *constants],
        f"{name}/float",
        kernel_shape=kernel_hw,
        strides=conv.attributes.get_ints("strides", [1, 1]),
        dilations=[1, apart],
        pads=[top, 0, bottom, 0],
        group=group * channels,
    )
    result = writer.op("QuantizeLinear", [real, *rows.after.node.inputs[1:]], f"{name}/codes")
    result = viewed(writer, result, (*rows.result_hw, channels), f"{name}/image")
    moved = tuple(
        Moved(_codes_name(before), _codes_name(after), replicated=True, shift=-less)
        for before, after, less in zip(conv.inputs[1:], constants, (rows.zero_point, 0), strict=False)
    )
    ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
    graph.remove([rows.after.node, conv], safe=True)
    result.name, result.type, result.shape, old.name = old.name, old.type, old.shape, None
    return moved


def _codes_name(value: ir.Value | None) -> str:
    codes = node_of(value).inputs[0]
    return "" if codes is None else str(codes.name)


def _filled(shape: tuple[int, ...], pair: Link) -> NDArray[np.uint8]:
    return np.full(shape, pair.zero_point, np.uint8)
