"""Full channels: a depthwise convolution whose channels are no multiple of 16, with channels of zeros beside them.

Before::

    Conv 1x1, 24 channels -> Q -> DQ -> Conv 3x3, depthwise -> Q -> DQ -> Conv 1x1

After::

    Conv 1x1, 32 channels -> Q -> DQ -> Conv 3x3, depthwise -> Q -> DQ -> Conv 1x1

The first convolution gets output channels of zeros, the depthwise one too, and the last one reads them with weights of
zero. What lies between works on each channel by itself: pairs, clamps, pools, sums of two tensors. A Pad that adds
channels (the residuals of BlazeFace) adds fewer, or is gone: 24 and 28 channels are 32 both.

Why: ONNX Runtime's depthwise kernel takes 16 channels at a time; what is left over is computed one by one, and costs
more than all the others.

Preconditions: uint8 codes, at least 8 channels (fewer would more than double), no convolution that ``shifted rows``
takes as it is, constant weights, and convolutions over
all channels at every end. Numeric effect: bit exact: zeros are added to the sums. Tensors between are told as
replicated: the source's channels, then others, which nothing reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from converters.graph import GraphWriter, constant_of
from converters.passes.base import Changed, Link, Moved, Rewrite, Skipped, link, only_consumer, producer
from converters.passes.shifted_rows import is_shiftable
from converters.passes.weights import codes_behind, dequantized, is_depthwise, node_of, required
from converters.spec import CONTRACT_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BLOCK = 16  # channels of one step of the kernel
FEWEST = 8
PAIRS = ("QuantizeLinear", "DequantizeLinear")
SUMS = ("Add", "Mul")
EACH_BY_ITSELF = frozenset({"Clip", "Relu", "LeakyRelu", "Sigmoid", "Add", "Mul", "MaxPool", "AveragePool", *PAIRS})


class FullChannels(Rewrite):
    """Fills the channels around depthwise convolutions up to whole steps of the kernel."""

    title = "full channels"

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Rewrite the surroundings of every depthwise convolution; yield one line per region."""
        done: set[ir.Node] = set()
        for conv in [node for node in graph if is_depthwise(node)]:
            channels = _channels(conv)
            if conv in done or channels % BLOCK == 0:
                continue
            if channels < FEWEST:
                yield Skipped(str(conv.name), f"it has {channels} channels: {BLOCK} would be more than twice as many")
                continue
            found = _region(conv)
            if isinstance(found, str):
                yield Skipped(str(conv.name), found)
                continue
            done |= found.inner
            if found.inner == {conv} and is_shiftable(conv):
                yield Skipped(str(conv.name), f"groups of pixels take its {channels} channels as they are")
                continue
            full = -(-channels // BLOCK) * BLOCK
            yield Changed(f"{conv.name}: {full} channels instead of {channels}", _fill(graph, found))


@dataclass(slots=True)
class _Region:
    """Everything that has the channels of one depthwise convolution, or of what is added to them.

    Attributes:
        values: the activations, and how many channels each has.
        first: convolutions that write them.
        inner: depthwise ones.
        last: convolutions that read them.
        pads: those that add channels, with the pairs around them.
    """

    values: dict[ir.Value, int] = field(default_factory=dict)
    first: set[ir.Node] = field(default_factory=set)
    inner: set[ir.Node] = field(default_factory=set)
    last: set[ir.Node] = field(default_factory=set)
    pads: dict[ir.Node, tuple[Link, Link]] = field(default_factory=dict)


def _channels(conv: ir.Node) -> int:
    return len(required(node_of(conv.inputs[1]).inputs[0]))


def _more(channels: int) -> int:
    return -channels % BLOCK


def _region(depthwise: ir.Node) -> _Region | str:
    """All that has the channels of ``depthwise``, or why they cannot be more."""
    region, channels = _Region(inner={depthwise}), _channels(depthwise)
    pending = _beside(depthwise, channels)
    while pending:
        value, channels = pending.pop()
        if value in region.values:
            continue
        region.values[value] = channels
        before = value.producer()
        if before is None or value.is_graph_output() or value.name in CONTRACT_NAMES:
            return f"{value.name} is an input or output of the graph"
        for node in (before, *value.consumers()):
            found = _take(region, node, value, channels)
            if isinstance(found, str):
                return found
            pending += found
    return region


def _beside(node: ir.Node, channels: int) -> list[tuple[ir.Value, int]]:
    """The first operand and the result of a node that keeps the number of channels."""
    return [(value, channels) for value in (node.inputs[0], node.outputs[0]) if value is not None]


def _take(region: _Region, node: ir.Node, value: ir.Value, channels: int) -> list[tuple[ir.Value, int]] | str:
    """Add a neighbour of ``value`` to the region; the values on its other side, or why that cannot be."""
    if node.op_type == "Pad":
        return _take_pad(region, node, value, channels)
    if node.op_type in SUMS and all(constant_of(operand) is None for operand in node.inputs):
        return _take_sum(node, channels)
    if node.op_type == "Conv" and value in (node.inputs[0], node.outputs[0]):
        return _take_conv(region, node, value, channels)
    if node.op_type not in EACH_BY_ITSELF or value not in (node.inputs[0], node.outputs[0]):
        return f"{node.op_type} {node.name} does not work on each channel by itself"
    constants = [constant_of(v) for v in node.inputs[1:] if v is not None]
    if any(array is None or array.size != 1 for array in constants) or _is_odd_pair(node):
        return f"{node.name} has no single scale, or codes that are not uint8"
    return _beside(node, channels)


def _take_conv(region: _Region, conv: ir.Node, value: ir.Value, channels: int) -> list[tuple[ir.Value, int]] | str:
    """A convolution: a depthwise one goes on, one over all channels ends the region."""
    if any(codes_behind(v) is None or constant_of(node_of(v).inputs[2]) is None for v in conv.inputs[1:]):
        return f"the weights of {conv.name} are computed"
    if is_depthwise(conv):
        region.inner.add(conv)
        return _beside(conv, channels)
    if conv.attributes.get_int("group", 1) != 1:
        return f"{conv.name} convolves groups of channels"
    (region.last if value is conv.inputs[0] else region.first).add(conv)
    return []


def _take_sum(node: ir.Node, channels: int) -> list[tuple[ir.Value, int]] | str:
    """Both operands of a sum or product, which must have the same channels."""
    shapes = [None if operand is None else operand.shape for operand in node.inputs]
    if any(shape is None or len(shape) != 4 or shape[1] != channels for shape in shapes):
        return f"the operands of {node.name} have other channels than {channels}"
    operands = [(operand, channels) for operand in node.inputs if operand is not None]
    return [*operands, (node.outputs[0], channels)]


def _take_pad(region: _Region, pad: ir.Node, value: ir.Value, channels: int) -> list[tuple[ir.Value, int]] | str:
    """A Pad that adds zeros behind the channels, or around the picture."""
    before, after = link(producer(pad.inputs[0]), "DequantizeLinear"), only_consumer(pad.outputs[0])
    pair = (before, link(after, "QuantizeLinear"))
    if pair[0] is None or pair[1] is None or not pair[0].matches(pair[1]):
        return f"{pad.name} is not between one pair of equal scale and zero-point"
    edges = constant_of(pad.inputs[1])
    filling = constant_of(pad.inputs[2]) if len(pad.inputs) > 2 and pad.inputs[2] is not None else None
    if edges is None or len(pad.inputs) > 3 or edges.shape != (8,) or edges[[0, 1, 4]].any() or edges[5] < 0:
        return f"{pad.name} pads other than behind the channels"
    if pad.attributes.get_string("mode", "constant") != "constant" or (filling is not None and filling.any()):
        return f"{pad.name} pads with another value than 0"
    added, region.pads[pad] = int(edges[5]), (pair[0], pair[1])
    narrow = channels if value is pad.inputs[0] else channels - added
    return [(value, n) for value, n in ((pad.inputs[0], narrow), (pad.outputs[0], narrow + added)) if value]


def _is_odd_pair(node: ir.Node) -> bool:
    found = link(node, node.op_type)
    return node.op_type in PAIRS and (found is None or found.dtype != np.uint8)


def _fill(graph: ir.Graph, region: _Region) -> tuple[Moved, ...]:
    """Write the constants of all convolutions anew, and rename the activations: they are others now."""
    moved: list[Moved] = []
    for conv in [node for node in graph if node in region.first | region.inner | region.last]:
        outputs = _more(_channels(conv)) if conv in region.first | region.inner else 0
        inputs = _more(region.values.get(conv.inputs[0], 0)) if conv in region.last and conv.inputs[0] else 0
        writer = GraphWriter.inserting(graph, conv)
        for position, role in zip(range(1, len(conv.inputs)), ("weights", "bias"), strict=False):
            old = node_of(conv.inputs[position])
            if not outputs and (position == 2 or not inputs):
                continue
            arrays = [required(constant) for constant in old.inputs]
            real = dequantized(writer, filled(arrays, outputs, inputs), f"{conv.name}/full/{role}")
            moved.append(Moved(_name(old.inputs[0]), _name(node_of(real).inputs[0]), replicated=True))
            conv.replace_input_with(position, real)
        if conv in region.inner:
            conv.attributes["group"] = ir.AttrInt64("group", conv.attributes.get_int("group", 1) + outputs)
    writer, names = GraphWriter.appending(graph), {value: str(value.name) for value in region.values}
    for value in [value for value, channels in region.values.items() if _more(channels)]:
        value.name = writer.unique(f"{value.name}/full")
        if value.shape is not None:
            first, channels, *places = value.shape.dims
            full = channels + _more(channels) if isinstance(channels, int) else channels
            value.shape = ir.Shape([first, full, *places])
    carriers = dict(_narrow(graph, pad, pair, region) for pad, pair in region.pads.items())
    return (*moved, *(Moved(name, _name(carriers.get(v, v)), replicated=True) for v, name in names.items()))


def _narrow(graph: ir.Graph, pad: ir.Node, pair: tuple[Link, Link], region: _Region) -> tuple[ir.Value, ir.Value]:
    """Let a Pad add what is missing behind the filled channels, or take it away where nothing is.

    Returns:
        Its result, and the codes that carry it now.
    """
    (before, after), edges = pair, required(pad.inputs[1]).copy()
    source, result = before.source, after.result
    edges[5] += _more(region.values[pad.outputs[0]]) - _more(region.values[before.result])
    if edges.any():
        constant = GraphWriter.inserting(graph, pad).constant(edges, f"{pad.name}/full/edges")
        pad.replace_input_with(1, constant)
        return result, result
    ir.convenience.replace_all_uses_with(result, source)
    graph.remove([after.node, pad], safe=True)
    if not before.result.uses():
        graph.remove(before.node, safe=True)
    return result, source


def filled(arrays: list[NDArray[Any]], outputs: int, inputs: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Codes, scale and zero-point of weights or a bias, with so many more channels of real zeros.

    Args:
        arrays: codes, OIHW or ``(O,)``; scale and zero-point, one or one per output channel.
        outputs: more output channels; they take scale and zero-point of the last one.
        inputs: more input channels.
    """
    codes, scale, zero_point = arrays
    if scale.ndim:
        scale, zero_point = (np.pad(array, (0, outputs), mode="edge") for array in (scale, zero_point))
    shape = (len(codes) + outputs, *(n + inputs * (axis == 0) for axis, n in enumerate(codes.shape[1:])))
    full = np.broadcast_to(zero_point.reshape(-1, *(1,) * (codes.ndim - 1)), shape).astype(codes.dtype)
    full[tuple(slice(n) for n in codes.shape)] = codes
    return full, scale, zero_point


def _name(value: ir.Value | None) -> str:
    return "" if value is None else str(value.name)
