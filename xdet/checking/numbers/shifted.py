"""What a depthwise convolution on groups of pixels must hold (pass ``shifted rows``), derived here from its description.

Every row stands as often as the kernel has columns (more often for weights beyond int8), a group of pixels is computed at a
time, and what stands between the copies is the code of 0.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdet.checking.numbers.context import StaticContext
    from xdet.model.graph import Node

SHIFTED_ROWS = "shifted rows"


def channels_behind(context: StaticContext, conv: Node) -> int:
    """The channels of one pixel: the last number of the view behind a convolution on groups; 0 where there is none."""
    node = context.graph.only_reader(conv.outputs[0])
    while node is not None and node.op in ("QuantizeLinear", "Transpose"):
        node = context.graph.only_reader(node.outputs[0])
    shape = context.graph.constant(node.inputs[1]) if node is not None and node.op == "Reshape" else None
    return 0 if shape is None else int(shape[-1])


def groups_of(context: StaticContext, codes: str) -> int:
    """How often the constant ``codes`` of a convolution on groups holds its source's."""
    constant = context.graph.constant(codes)
    for dequantize in context.graph.readers(codes):
        conv = context.graph.only_reader(dequantize.outputs[0])
        channels = 0 if conv is None else channels_behind(context, conv)
        if constant is not None and channels:
            return max(1, len(constant) // channels)
    return 1


def shifted_attributes(
    context: StaticContext, node: Node, attributes: Mapping[str, Any], width: int
) -> dict[str, Any]:
    """What the source's attributes become.

    Args:
        context: the comparison.
        node: the convolution on groups.
        attributes: the source's, with a folded PAD.
        width: pixels of a row, without padding.
    """
    top, left, bottom, right = attributes["pads"]
    channels, weights = channels_behind(context, node), context.graph.producers.get(node.inputs[1])
    stored = None if weights is None else context.graph.constant(weights.inputs[0])
    pixels = 1 if stored is None or not channels else max(1, len(stored) // channels)
    apart = -(-(width + max(1, left, right)) // pixels)
    return {
        **attributes,
        "pads": (top, 0, bottom, 0),
        "dilations": (1, apart),
        "group": pixels * channels,
    }


def wrong_rows(
    context: StaticContext, node: Node, pads: tuple[int, ...], width: int, columns: Sequence[int]
) -> str | None:
    """What is wrong with the copies that a convolution on groups reads; None where nothing is.

    Args:
        context: the comparison.
        node: the convolution on groups.
        pads: the source's, with a folded PAD.
        width: pixels of a row, without padding.
        columns: of the source's kernel, for every copy.
    """
    dequantize = context.graph.producers.get(node.inputs[0])
    if dequantize is None or len(dequantize.inputs) < 3:
        return "no pair in front of it"
    concat = context.graph.producers.get(dequantize.inputs[0])
    while concat is not None and concat.op in ("Transpose", "Reshape"):
        concat = context.graph.producers.get(concat.inputs[0])
    channels, zero_point = channels_behind(context, node), context.graph.constant(dequantize.inputs[2])
    if concat is None or concat.op != "Concat" or not channels or zero_point is None:
        return "no copies of rows"
    weights = context.graph.producers.get(node.inputs[1])
    kernel = None if weights is None else context.graph.constant(weights.inputs[0])
    pixels = 1 if kernel is None else len(kernel) // channels
    apart = pixels * -(-(width + max(1, pads[1], pads[3])) // pixels)
    expected = [pads[1], *(apart - (b - a) - width for a, b in pairwise(columns)), pads[3]]
    found, rows = [0], set()
    for name in concat.inputs:
        edge = context.graph.constant(name)
        if edge is None:
            rows.add(name)
            found.append(0)
        elif (edge != zero_point.reshape(-1)[0]).any():
            return "padding between its copies that is not the code of 0"
        else:
            found[-1] += edge.shape[-1] // channels
    if len(rows) != 1 or concat.attributes.get("axis") != 3:
        return "copies of different rows"
    return None if found == expected else f"padding of {found} pixels around its copies, expected {expected}"
