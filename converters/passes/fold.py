"""Fold into a convolution what stands around it: scales and shifts of its channels behind it, a zero padding in front.

Scales and shifts. Before, in float32::

    x -> Conv(w, b) -> Mul(c) -> Add(d) -> y                 also Sub, Div, BatchNormalization

After::

    x -> Conv(c * w, c * b + d) -> y

tf2onnx folds the batch normalisations of Keras 2 itself, and leaves those of Keras 3 behind depthwise convolutions as
Mul and Add. Preconditions: constant weights, constants with one number per channel or one for all, and nobody else
reads what lies between. Numeric effect: float32 rounding of the folded weights.

Zero padding. Before::

    q_x -> DQ(x) -> Pad(0) -> Q(x) -> DQ(x) -> Conv(pads=p)

After::

    q_x -> DQ(x) -> Conv(pads=p + padding)

Preconditions: the Pad is constant, non-negative, spatial only, with the value 0, and keeps scale and zero-point.
Other readers of the padded tensor keep the Pad. Numeric effect: bit exact, because a convolution pads with real 0,
which is the zero-point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from converters.graph import GraphWriter, constant_at
from converters.passes.base import (
    Changed,
    DeclinedError,
    Rewrite,
    dequantize_before,
    new_node,
    only_consumer,
    pair_before,
    producer,
    remove_unread,
    require_stated_padding,
    require_zeros,
    take_over,
)
from converters.passes.weights import required

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

FactorAndOffset = tuple["NDArray[np.float64]", "NDArray[np.float64]"]  # y = factor * x + offset, each (channels,)
AFFINE = ("Mul", "Add", "Sub", "Div", "BatchNormalization")


class FoldAffine(Rewrite):
    """Moves channel factors and offsets into the convolution in front of them."""

    title = "fold affine"

    def places(self, graph: ir.Graph) -> Iterator[ir.Node]:
        """The operator behind every convolution of constant weights, again and again until one stays."""
        for conv in [node for node in graph if _has_weights(node)]:
            last = None
            while (behind := only_consumer(conv.outputs[0])) not in (None, last) and behind.op_type in AFFINE:
                yield behind
                last = behind

    def rewrite_at(self, graph: ir.Graph, node: ir.Node) -> Changed:
        """Give the convolution in front weights and bias for both; it takes over the name of the result."""
        conv = next(conv for conv in map(producer, node.inputs) if conv is not None and _has_weights(conv))
        old, result, weights, bias = node.outputs[0], conv.outputs[0], required(conv.inputs[1]), constant_at(conv, 2)
        factor, offset = _affine(node, result, len(weights))
        new_weights = weights.astype(np.float64) * factor.reshape(-1, 1, 1, 1)
        new_bias = offset if bias is None else factor * bias.astype(np.float64) + offset
        what = f"{node.name}: now in the weights of {conv.name}"
        writer = GraphWriter.inserting(graph, conv)
        conv.resize_inputs(3)
        conv.replace_input_with(1, writer.constant(new_weights.astype(np.float32), f"{old.name}/weights"))
        conv.replace_input_with(2, writer.constant(new_bias.astype(np.float32), f"{old.name}/bias"))
        conv.name = old.name
        take_over(graph, result, old)
        return Changed(what)


def _has_weights(node: ir.Node) -> bool:
    """Whether a node is a convolution of constant weights."""
    return node.op_type == "Conv" and constant_at(node, 1) is not None


def _affine(node: ir.Node, source: ir.Value, channels: int) -> FactorAndOffset:
    """What ``node`` does to each channel."""
    if node.op_type == "BatchNormalization":
        numbers = [constant_at(node, position) for position in range(1, 5)]
        if any(array is None for array in numbers):
            raise DeclinedError("its statistics are computed")
        scale, bias, mean, variance = (np.asarray(array, np.float64) for array in numbers)
        factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        return factor, bias - mean * factor
    if node.inputs[0] is not source and node.op_type in ("Sub", "Div"):
        raise DeclinedError("it subtracts the channels from a constant, or divides by them")
    stored = constant_at(node, 1 if node.inputs[0] is source else 0)
    if stored is None:
        raise DeclinedError("its other operand is computed")
    if stored.ndim > 4 or np.broadcast_shapes(stored.shape, (1, channels, 1, 1)) != (1, channels, 1, 1):
        raise DeclinedError(f"its other operand is {list(stored.shape)}, not one number per channel")
    number = np.broadcast_to(stored.astype(np.float64), (1, channels, 1, 1)).reshape(channels)
    ones, zeros = np.ones(channels), np.zeros(channels)
    by_kind = {"Mul": (number, zeros), "Add": (ones, number), "Sub": (ones, -number)}
    return by_kind[node.op_type] if node.op_type in by_kind else (1 / number, zeros)


class FoldPad(Rewrite):
    """Moves Pad nodes into the ``pads`` of convolutions."""

    title = "fold pad"
    op_type = "Conv"

    def rewrite_at(self, graph: ir.Graph, node: ir.Node) -> Changed | None:
        """Let a convolution read what the Pad in front of it reads."""
        pair = pair_before(node.inputs[0])
        pad = None if pair is None else producer(pair[0].source)
        if pair is None or pad is None or pad.op_type != "Pad":
            return None
        after, middle = pair
        before = dequantize_before(pad.inputs[0])
        if before is None or not (before.matches(after) and after.matches(middle)):
            raise DeclinedError(f"{pad.name} changes scale or zero-point")
        spatial = _zero_padding(pad)
        require_stated_padding(node)
        own = node.attributes.get_ints("pads", [0] * len(spatial))
        total = [a + b for a, b in zip(own, spatial, strict=True)]
        source = new_node("DequantizeLinear", [before.source, *middle.node.inputs[1:]], f"{node.name}/unpadded")
        graph.insert_before(node, source)
        node.replace_input_with(0, source.outputs[0])
        node.attributes["pads"] = ir.AttrInt64s("pads", total)
        node.attributes.pop("auto_pad", None)
        remove_unread(graph, middle.node)
        return Changed(f"{pad.name}: now the padding of {node.name}")


def _zero_padding(pad: ir.Node) -> tuple[int, ...]:
    """The spatial pads, beginnings before ends."""
    pads = constant_at(pad, 1)
    if pads is None or len(pad.inputs) > 3:
        raise DeclinedError(f"{pad.name} computes its padding at run time, or names its axes")
    require_zeros(pad, str(pad.name))
    begins, ends = np.split(pads, 2)
    if begins[:2].any() or ends[:2].any() or (begins < 0).any() or (ends < 0).any():
        raise DeclinedError(f"{pad.name} pads batch or channels, or crops")
    return tuple(int(n) for n in (*begins[2:], *ends[2:]))
