"""Full channels: a depthwise convolution whose channels are no multiple of 16, with channels of zeros beside them.

Before::

    Conv 1x1, 24 channels -> Q -> DQ -> Conv 3x3, depthwise -> Q -> DQ -> Conv 1x1

After::

    Conv 1x1, 32 channels -> Q -> DQ -> Conv 3x3, depthwise -> Q -> DQ -> Conv 1x1

The first convolution gets output channels of zeros, the depthwise one too, and the last one reads them with weights of
zero. What lies between works on each channel by itself: pairs, clamps, pools.

Why: ONNX Runtime's depthwise kernel takes 16 channels at a time; what is left over is computed one by one, and costs
more than all the others.

Preconditions: uint8 codes, at least 8 channels (fewer would more than double), constant weights, and convolutions over
all channels at every end. Numeric effect: bit exact: zeros are added to the sums. Tensors between have more channels
than their source's, so no value carries them any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from converters.graph import GraphWriter
from converters.passes.base import Changed, Moved, Rewrite, Skipped, link
from converters.passes.weights import codes_behind, constant_of, dequantized, node_of, required
from converters.spec import CONTRACT_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BLOCK = 16  # channels of one step of the kernel
FEWEST = 8
PAIRS = ("QuantizeLinear", "DequantizeLinear")
EACH_BY_ITSELF = frozenset(
    {"Clip", "Relu", "LeakyRelu", "Sigmoid", "Add", "Mul", "MaxPool", "AveragePool", *PAIRS}
)


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
                yield Skipped(
                    str(conv.name), f"it has {channels} channels: {BLOCK} would be more than twice as many"
                )
                continue
            found = _region(conv)
            if isinstance(found, str):
                yield Skipped(str(conv.name), found)
                continue
            done |= found.inner
            full = -(-channels // BLOCK) * BLOCK
            yield Changed(
                f"{conv.name}: {full} channels instead of {channels}", _fill(graph, found, full - channels)
            )


@dataclass(slots=True)
class _Region:
    """Everything that has the channels of one depthwise convolution.

    Attributes:
        values: the activations.
        first: convolutions that write them.
        inner: depthwise ones.
        last: convolutions that read them.
    """

    values: dict[ir.Value, None] = field(default_factory=dict)
    first: set[ir.Node] = field(default_factory=set)
    inner: set[ir.Node] = field(default_factory=set)
    last: set[ir.Node] = field(default_factory=set)


def is_depthwise(conv: ir.Node) -> bool:
    """Whether a node convolves every channel by itself, into one."""
    weights = codes_behind(conv.inputs[1]) if conv.op_type == "Conv" else None
    return (
        weights is not None and weights.ndim == 4 and 1 < len(weights) == conv.attributes.get_int("group", 1)
    )


def _channels(conv: ir.Node) -> int:
    return len(required(node_of(conv.inputs[1]).inputs[0]))


def _region(depthwise: ir.Node) -> _Region | str:
    """All that has the channels of ``depthwise``, or why they cannot be more."""
    region = _Region(inner={depthwise})
    pending = [value for value in (depthwise.inputs[0], depthwise.outputs[0]) if value is not None]
    while pending:
        value = pending.pop()
        if value in region.values:
            continue
        region.values[value] = None
        before = value.producer()
        if before is None or value.is_graph_output() or value.name in CONTRACT_NAMES:
            return f"{value.name} is an input or output of the graph"
        for node in (before, *value.consumers()):
            reason = _take(region, node, value, pending)
            if reason is not None:
                return reason
    return region


def _take(region: _Region, node: ir.Node, value: ir.Value, pending: list[ir.Value]) -> str | None:
    """Add a neighbour of ``value`` to the region; why that cannot be, or None."""
    if node.op_type in EACH_BY_ITSELF and value in (node.inputs[0], node.outputs[0]):
        constants = [constant_of(v) for v in node.inputs[1:] if v is not None]
        if any(array is None or array.size != 1 for array in constants) or _is_odd_pair(node):
            return f"{node.name} has no single scale, or codes that are not uint8"
        pending.extend(v for v in (node.inputs[0], node.outputs[0]) if v is not None)
        return None
    if node.op_type != "Conv" or value not in (node.inputs[0], node.outputs[0]):
        return f"{node.op_type} {node.name} does not work on each channel by itself"
    if any(codes_behind(v) is None or constant_of(node_of(v).inputs[2]) is None for v in node.inputs[1:]):
        return f"the weights of {node.name} are computed"
    if is_depthwise(node):
        region.inner.add(node)
        pending.extend(v for v in (node.inputs[0], node.outputs[0]) if v is not None)
    elif node.attributes.get_int("group", 1) != 1:
        return f"{node.name} convolves groups of channels"
    else:
        (region.last if value is node.inputs[0] else region.first).add(node)
    return None


def _is_odd_pair(node: ir.Node) -> bool:
    found = link(node, node.op_type)
    return node.op_type in PAIRS and (found is None or found.dtype != np.uint8)


def _fill(graph: ir.Graph, region: _Region, more: int) -> tuple[Moved, ...]:
    """Write the constants of all convolutions anew, and rename the activations: they are others now."""
    moved: list[Moved] = []
    for conv in [node for node in graph if node in region.first | region.inner | region.last]:
        outputs = 0 if conv not in region.first | region.inner else more
        inputs = 0 if conv not in region.last else more
        writer = GraphWriter.inserting(graph, conv)
        for position, role in zip(range(1, len(conv.inputs)), ("weights", "bias"), strict=False):
            old = node_of(conv.inputs[position])
            if position == 2 and not outputs:
                continue
            arrays = [required(constant) for constant in old.inputs]
            real = dequantized(writer, filled(arrays, outputs, inputs), f"{conv.name}/full/{role}")
            moved.append(Moved(_name(old.inputs[0]), _name(node_of(real).inputs[0]), replicated=True))
            conv.replace_input_with(position, real)
        if conv in region.inner:
            conv.attributes["group"] = ir.AttrInt64("group", conv.attributes.get_int("group", 1) + more)
    writer = GraphWriter.appending(graph)
    for value in region.values:
        value.name, value.shape = writer.unique(f"{value.name}/full"), None
    return tuple(moved)


def filled(
    arrays: list[NDArray[Any]], outputs: int, inputs: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
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
