"""Full outputs: a convolution whose output channels are no multiple of 4, with channels of zeros that a Slice takes away.

Before::

    DQ -> Conv 1x1, 255 channels -> Q

After::

    DQ -> Conv 1x1, 256 channels -> Q -> Slice of 255 channels

Why: ONNX Runtime convolves 8-bit tensors directly only where the output channels are a multiple of 4, and multiplies
unrolled matrices else: 255 channels at 40 x 40 take 124 us, 256 take 67, and the Slice 9. Heads of detectors have such
channels.

Preconditions: uint8 codes, int8 weights without zero-point, one group, input channels that are a multiple of 4, a fixed
size, and 1.5 million multiply-accumulates. Numeric effect: bit exact: the source's channels stay as they are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from converters.graph import GraphWriter, constant_of
from converters.passes.base import Changed, Link, Moved, Rewrite, Skipped, link, only_consumer, producer
from converters.passes.full_channels import BLOCK, filled
from converters.passes.weights import codes_behind, dequantized, node_of, required

if TYPE_CHECKING:
    from collections.abc import Iterator

STEP = 4  # channels of the direct kernel
FEWEST = 1_500_000  # multiply-accumulates from which it pays


class FullOutputs(Rewrite):
    """Fills the output channels of convolutions over all channels."""

    title = "full outputs"

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Rewrite convolutions whose output channels are no multiple of 4; yield one line for each."""
        for conv in [node for node in graph if node.op_type == "Conv"]:
            codes = codes_behind(conv.inputs[1])
            after = link(only_consumer(conv.outputs[0]), "QuantizeLinear")
            if codes is None or after is None or len(codes) % STEP == 0 or codes.shape[1] % STEP:
                continue
            reason = _refusal(conv)
            if reason is not None:
                yield Skipped(str(conv.name), reason)
                continue
            full = -(-len(codes) // BLOCK) * BLOCK
            yield Changed(f"{conv.name}: {full} channels instead of {len(codes)}", _fill(graph, conv, after, full))


def _refusal(conv: ir.Node) -> str | None:
    """Why the kernel would not take the convolution, or not pay."""
    source, weights = link(producer(conv.inputs[0]), "DequantizeLinear"), node_of(conv.inputs[1])
    behind = [producer(value) for value in conv.inputs[1:]]
    if any(node is None or node.op_type != "DequantizeLinear" or len(node.inputs) < 3 for node in behind):
        return "its bias is float, or a zero-point is not written"
    constants = [constant_of(value) for node in behind if node is not None for value in node.inputs]
    if source is None or source.dtype != np.uint8 or any(array is None for array in constants):
        return "its codes are int8, or its constants computed"
    zero_point = required(weights.inputs[2])
    if zero_point.dtype != np.int8 or zero_point.any() or conv.attributes.get_int("group", 1) != 1:
        return "its weights have a zero-point, or groups"
    shape = conv.outputs[0].shape
    sizes = () if shape is None else tuple(n for n in shape.dims[2:] if isinstance(n, int))
    if len(sizes) != 2 or math.prod(sizes) * required(weights.inputs[0]).size < FEWEST:
        return "it is small, or has no fixed size"
    return None


def _fill(graph: ir.Graph, conv: ir.Node, after: Link, full: int) -> tuple[Moved, ...]:
    """Write the constants anew, and a Slice behind the codes, which takes over name and readers."""
    old, name, moved = after.result, f"{conv.name}/outputs", []
    writer, channels = GraphWriter.inserting(graph, conv), len(required(node_of(conv.inputs[1]).inputs[0]))
    for position, role in zip(range(1, len(conv.inputs)), ("weights", "bias"), strict=False):
        before = node_of(conv.inputs[position])
        arrays = filled([required(value) for value in before.inputs], full - channels, 0)
        real = dequantized(writer, arrays, f"{name}/{role}")
        moved.append(Moved(_name(before.inputs[0]), _name(node_of(real).inputs[0]), replicated=True))
        conv.replace_input_with(position, real)
    shape = conv.outputs[0].shape
    if shape is not None:
        conv.outputs[0].shape = ir.Shape([shape.dims[0], full, *shape.dims[2:]])
    writer = GraphWriter.inserting(graph, after.node)
    codes = writer.op("QuantizeLinear", [conv.outputs[0], *after.node.inputs[1:]], f"{name}/codes")
    bounds = [
        writer.constant(np.array([bound], np.int64), f"{name}/{role}")
        for role, bound in (("first", 0), ("channels", channels), ("axis", 1))
    ]
    result = writer.op("Slice", [codes, *bounds], f"{name}/chosen")
    ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
    graph.remove([after.node], safe=True)
    result.name, result.type, result.shape, old.name = old.name, old.type, old.shape, None
    return tuple(moved)


def _name(value: ir.Value | None) -> str:
    return "" if value is None else str(value.name)
