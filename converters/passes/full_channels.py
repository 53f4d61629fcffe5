"""Channels of zeros beside a convolution's own, where a kernel takes so many at a time. Numeric effect: bit exact.

Full channels: a depthwise convolution whose channels are no multiple of 16. Before::

    Conv 1x1, 24 channels -> Q -> DQ -> Conv 3x3, depthwise -> Q -> DQ -> Conv 1x1

After::

    Conv 1x1, 32 channels -> Q -> DQ -> Conv 3x3, depthwise -> Q -> DQ -> Conv 1x1

The first convolution gets output channels of zeros, the depthwise one too, and the last one reads them with weights of
zero. What lies between works on each channel by itself: pairs, clamps, pools, sums of two tensors. A Pad that adds
channels (the residuals of BlazeFace) adds fewer, or is gone: 24 and 28 channels are 32 both.

Why: ONNX Runtime's depthwise kernel takes 16 channels at a time; what is left over is computed one by one, and costs
more than all the others.

Preconditions: uint8 codes, at least 8 channels (fewer would more than double), no convolution that ``shifted rows``
takes as it is, constant weights, and convolutions over all channels at every end. Tensors between are told as
replicated: the source's channels, then others, which nothing reads.

Full outputs: a convolution whose output channels are no multiple of 4. Before::

    DQ -> Conv 1x1, 255 channels -> Q

After::

    DQ -> Conv 1x1, 256 channels -> Q -> Slice of 255 channels

Why: ONNX Runtime convolves 8-bit tensors directly only where the output channels are a multiple of 4, and multiplies
unrolled matrices else: 255 channels at 40 x 40 take 124 us, 256 take 67, and the Slice 9. Heads of detectors have such
channels.

Preconditions: uint8 codes, int8 weights without zero-point, one group, input channels that are a multiple of 4, a fixed
size, and 1.5 million multiply-accumulates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from converters.graph import OF_CODES, GraphWriter, constant_at, constant_of, static_shape
from converters.passes.base import (
    Changed,
    DeclinedError,
    Link,
    Moved,
    Rewrite,
    dequantize_before,
    equal_pair_around,
    link,
    producer,
    quantize_behind,
    remove_unread,
    require_zeros,
    take_over,
)
from converters.passes.depthwise import is_shiftable
from converters.passes.weights import add_channels, codes_behind, is_depthwise, node_of, required
from converters.spec import CONTRACT_NAMES

BLOCK = 16  # channels of one step of the depthwise kernel
FEWEST_CHANNELS = 8
STEP = 4  # channels of the direct kernel
FEWEST_PRODUCTS = 1_500_000  # multiply-accumulates from which it pays
SUMS = ("Add", "Mul")
EACH_BY_ITSELF = frozenset({"Clip", "Relu", "LeakyRelu", "Sigmoid", "Add", "Mul", "MaxPool", "AveragePool", *OF_CODES})
Channels = list[tuple[ir.Value, int]]
"""Activations, and how many channels each has."""


class FullChannels(Rewrite):
    """Fills the channels around depthwise convolutions up to whole steps of the kernel."""

    title = "full channels"
    op_type = "Conv"

    def rewrite_at(self, graph: ir.Graph, node: ir.Node) -> Changed | None:
        """Fill all that has the channels of a depthwise convolution."""
        if not is_depthwise(node):
            return None
        channels = _channels(node)
        if channels % BLOCK == 0:
            return None
        if channels < FEWEST_CHANNELS:
            raise DeclinedError(f"it has {channels} channels: {BLOCK} would be more than twice as many")
        region = _region(node)
        if region.inner == {node} and is_shiftable(node):
            raise DeclinedError(f"groups of pixels take its {channels} channels as they are")
        full = channels + _missing(channels)
        return Changed(f"{node.name}: {full} channels instead of {channels}", _fill(graph, region))


@dataclass(slots=True)
class _Region:
    """Everything that has the channels of one depthwise convolution, or of what is added to them."""

    values: dict[ir.Value, int] = field(default_factory=dict)  # the activations, and how many channels each has
    first: set[ir.Node] = field(default_factory=set)  # convolutions that write them
    inner: set[ir.Node] = field(default_factory=set)  # depthwise ones
    last: set[ir.Node] = field(default_factory=set)  # convolutions that read them
    # those that add channels, with the pairs around them
    pads: dict[ir.Node, tuple[Link, Link]] = field(default_factory=dict)


def _channels(conv: ir.Node) -> int:
    return len(required(node_of(conv.inputs[1]).inputs[0]))


def _missing(channels: int) -> int:
    """Channels up to the next whole step."""
    return -channels % BLOCK


def _region(depthwise: ir.Node) -> _Region:
    """All that has the channels of ``depthwise``; declines where they cannot be more."""
    region = _Region(inner={depthwise})
    pending = _around(depthwise, _channels(depthwise))
    while pending:
        value, channels = pending.pop()
        if value in region.values:
            continue
        region.values[value] = channels
        before = value.producer()
        if before is None or value.is_graph_output() or value.name in CONTRACT_NAMES:
            raise DeclinedError(f"{value.name} is an input or output of the graph")
        for node in (before, *value.consumers()):
            pending += _take(region, node, value, channels)
    return region


def _around(node: ir.Node, channels: int) -> Channels:
    """The first operand and the result of a node that keeps the number of channels."""
    return [(value, channels) for value in (node.inputs[0], node.outputs[0]) if value is not None]


def _take(region: _Region, node: ir.Node, value: ir.Value, channels: int) -> Channels:
    """Add a neighbour of ``value`` to the region; the values on its other side."""
    if node.op_type == "Pad":
        return _take_pad(region, node, value, channels)
    if node.op_type in SUMS and all(constant_of(operand) is None for operand in node.inputs):
        return _take_sum(node, channels)
    if node.op_type == "Conv" and value in (node.inputs[0], node.outputs[0]):
        return _take_conv(region, node, value, channels)
    if node.op_type not in EACH_BY_ITSELF or value not in (node.inputs[0], node.outputs[0]):
        raise DeclinedError(f"{node.op_type} {node.name} does not work on each channel by itself")
    constants = [constant_of(v) for v in node.inputs[1:] if v is not None]
    pair = link(node, node.op_type)
    is_odd = node.op_type in OF_CODES and (pair is None or pair.dtype != np.uint8)
    if is_odd or any(array is None or array.size != 1 for array in constants):
        raise DeclinedError(f"{node.name} has no single scale, or codes that are not uint8")
    return _around(node, channels)


def _take_conv(region: _Region, conv: ir.Node, value: ir.Value, channels: int) -> Channels:
    """A convolution: a depthwise one goes on, one over all channels ends the region."""
    if any(codes_behind(v) is None or constant_of(node_of(v).inputs[2]) is None for v in conv.inputs[1:]):
        raise DeclinedError(f"the weights of {conv.name} are computed")
    if is_depthwise(conv):
        region.inner.add(conv)
        return _around(conv, channels)
    if conv.attributes.get_int("group", 1) != 1:
        raise DeclinedError(f"{conv.name} convolves groups of channels")
    (region.last if value is conv.inputs[0] else region.first).add(conv)
    return []


def _take_sum(node: ir.Node, channels: int) -> Channels:
    """Both operands of a sum or product, which must have the same channels."""
    shapes = [None if operand is None else operand.shape for operand in node.inputs]
    if any(shape is None or len(shape) != 4 or shape[1] != channels for shape in shapes):
        raise DeclinedError(f"the operands of {node.name} have other channels than {channels}")
    operands = [(operand, channels) for operand in node.inputs if operand is not None]
    return [*operands, (node.outputs[0], channels)]


def _take_pad(region: _Region, pad: ir.Node, value: ir.Value, channels: int) -> Channels:
    """A Pad that adds zeros behind the channels, or around the picture."""
    try:
        pair = equal_pair_around(pad)
    except DeclinedError as reason:
        raise DeclinedError(f"{pad.name} is not between one pair of equal scale and zero-point") from reason
    edges = constant_at(pad, 1)
    if edges is None or len(pad.inputs) > 3 or edges.shape != (8,) or edges[[0, 1, 4]].any() or edges[5] < 0:
        raise DeclinedError(f"{pad.name} pads other than behind the channels")
    require_zeros(pad, str(pad.name))
    added, region.pads[pad] = int(edges[5]), pair
    narrow = channels if value is pad.inputs[0] else channels - added
    return [(pair[0].result, narrow), (pad.outputs[0], narrow + added)]


def _fill(graph: ir.Graph, region: _Region) -> tuple[Moved, ...]:
    """Write the constants of all convolutions anew, and rename the activations: they are others now."""
    moved: list[Moved] = []
    for conv in [node for node in graph if node in region.first | region.inner | region.last]:
        outputs = _missing(_channels(conv)) if conv in region.first | region.inner else 0
        inputs = _missing(region.values.get(conv.inputs[0], 0)) if conv in region.last and conv.inputs[0] else 0
        moved += add_channels(GraphWriter.inserting(graph, conv), conv, outputs, inputs, f"{conv.name}/full")
        if conv in region.inner:
            conv.attributes["group"] = ir.AttrInt64("group", conv.attributes.get_int("group", 1) + outputs)
    writer, names = GraphWriter.appending(graph), {value: str(value.name) for value in region.values}
    for value, channels in region.values.items():
        if not _missing(channels):
            continue
        value.name = writer.unique(f"{value.name}/full")
        if value.shape is not None:
            first, stated, *places = value.shape.dims
            full = stated + _missing(stated) if isinstance(stated, int) else stated
            value.shape = ir.Shape([first, full, *places])
    carriers = dict(_narrow(graph, pad, pair, region) for pad, pair in region.pads.items())
    renamed = [Moved(name, str(carriers.get(value, value).name), replicated=True) for value, name in names.items()]
    return (*moved, *renamed)


def _narrow(graph: ir.Graph, pad: ir.Node, pair: tuple[Link, Link], region: _Region) -> tuple[ir.Value, ir.Value]:
    """Let a Pad add what is missing behind the filled channels, or take it away where nothing is.

    Returns:
        Its result, and the codes that carry it now.
    """
    (before, after), edges = pair, required(pad.inputs[1]).copy()
    source, result = before.source, after.result
    edges[5] += _missing(region.values[pad.outputs[0]]) - _missing(region.values[before.result])
    if edges.any():
        constant = GraphWriter.inserting(graph, pad).constant(edges, f"{pad.name}/full/edges")
        pad.replace_input_with(1, constant)
        return result, result
    ir.convenience.replace_all_uses_with(result, source)
    remove_unread(graph, after.node)
    return result, source


class FullOutputs(Rewrite):
    """Fills the output channels of convolutions over all channels."""

    title = "full outputs"
    op_type = "Conv"

    def rewrite_at(self, graph: ir.Graph, node: ir.Node) -> Changed | None:
        """Fill output channels that are no multiple of 4."""
        codes, after = codes_behind(node.inputs[1]), quantize_behind(node.outputs[0])
        if codes is None or after is None or len(codes) % STEP == 0 or codes.shape[1] % STEP:
            return None
        _require_direct_kernel(node)
        channels, name = len(codes), f"{node.name}/outputs"
        full = channels + _missing(channels)
        moved = add_channels(GraphWriter.inserting(graph, node), node, full - channels, 0, name)
        shape = node.outputs[0].shape
        if shape is not None:
            node.outputs[0].shape = ir.Shape([shape.dims[0], full, *shape.dims[2:]])
        writer = GraphWriter.inserting(graph, after.node)
        filled = writer.op("QuantizeLinear", [node.outputs[0], *after.node.inputs[1:]], f"{name}/codes")
        bounds = ([0], f"{name}/first"), ([channels], f"{name}/channels"), ([1], f"{name}/axis")
        take_over(graph, writer.op("Slice", [filled, *bounds], f"{name}/chosen"), after.result)
        return Changed(f"{node.name}: {full} channels instead of {channels}", tuple(moved))


def _require_direct_kernel(conv: ir.Node) -> None:
    """Decline a convolution that the kernel would not take, or that would not pay."""
    source = dequantize_before(conv.inputs[0])
    behind = [producer(value) for value in conv.inputs[1:]]
    if any(node is None or node.op_type != "DequantizeLinear" or len(node.inputs) < 3 for node in behind):
        raise DeclinedError("its bias is float, or a zero-point is not written")
    constants = [constant_of(value) for node in behind if node is not None for value in node.inputs]
    if source is None or source.dtype != np.uint8 or any(array is None for array in constants):
        raise DeclinedError("its codes are int8, or its constants computed")
    weights, zero_point = constants[0], constants[2]
    if (
        zero_point is None
        or zero_point.dtype != np.int8
        or zero_point.any()
        or conv.attributes.get_int("group", 1) != 1
    ):
        raise DeclinedError("its weights have a zero-point, or groups")
    shape = static_shape(conv.outputs[0], open_batch=True)
    if weights is None or shape is None or len(shape) != 4 or math.prod(shape[2:]) * weights.size < FEWEST_PRODUCTS:
        raise DeclinedError("it is small, or has no fixed size")
