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

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from converters.graph import GraphWriter, constant_at
from converters.passes.base import Changed, Link, Rewrite, Skipped, link, node, only_consumer, producer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Affine = tuple["NDArray[np.float64]", "NDArray[np.float64]"]  # y = factor * x + offset, each (channels,)
AFFINE = ("Mul", "Add", "Sub", "Div", "BatchNormalization")


class FoldAffine(Rewrite):
    """Moves channel factors and offsets into the convolution in front of them."""

    title = "fold affine"

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Fold again and again behind every convolution; yield one change per operator that is gone."""
        for conv in [found for found in graph if found.op_type == "Conv"]:
            weights = constant_at(conv, 1)
            while weights is not None:
                behind = only_consumer(conv.outputs[0])
                if behind is None or behind.op_type not in AFFINE:
                    break
                affine = _affine(behind, conv.outputs[0], len(weights))
                if isinstance(affine, str):
                    yield Skipped(str(behind.name), affine)
                    break
                _fold_affine(graph, conv, behind, affine)
                yield Changed(f"{behind.name}: now in the weights of {conv.name}")
                weights = constant_at(conv, 1)


def _affine(node: ir.Node, source: ir.Value, channels: int) -> Affine | str:
    """What ``node`` does to each channel, or why it is nothing of that kind."""
    if node.op_type == "BatchNormalization":
        numbers = [constant_at(node, position) for position in range(1, 5)]
        if any(array is None for array in numbers):
            return "its statistics are computed"
        scale, bias, mean, variance = (np.asarray(array, np.float64) for array in numbers)
        factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        return factor, bias - mean * factor
    if node.inputs[0] is not source and node.op_type in ("Sub", "Div"):
        return "it subtracts the channels from a constant, or divides by them"
    stored = constant_at(node, 1 if node.inputs[0] is source else 0)
    if stored is None:
        return "its other operand is computed"
    if stored.ndim > 4 or np.broadcast_shapes(stored.shape, (1, channels, 1, 1)) != (1, channels, 1, 1):
        return f"its other operand is {list(stored.shape)}, not one number per channel"
    number = np.broadcast_to(stored.astype(np.float64), (1, channels, 1, 1)).reshape(channels)
    ones, zeros = np.ones(channels), np.zeros(channels)
    by_kind = {"Mul": (number, zeros), "Add": (ones, number), "Sub": (ones, -number)}
    return by_kind[node.op_type] if node.op_type in by_kind else (1 / number, zeros)


def _fold_affine(graph: ir.Graph, conv: ir.Node, behind: ir.Node, affine: Affine) -> None:
    """Write the convolution anew in place of both; it gives the result its name."""
    factor, offset = affine
    weights = constant_at(conv, 1)
    assert weights is not None  # noqa: S101 - the caller looked
    bias = constant_at(conv, 2)
    folded_bias = offset if bias is None else factor * bias.astype(np.float64) + offset
    writer, name = GraphWriter.inserting(graph, conv), str(behind.outputs[0].name)
    folded = weights.astype(np.float64) * factor.reshape(-1, 1, 1, 1)
    new_weights = writer.constant(folded.astype(np.float32), f"{name}/weights")
    new_bias = writer.constant(folded_bias.astype(np.float32), f"{name}/bias")
    conv.resize_inputs(3)
    conv.replace_input_with(1, new_weights)
    conv.replace_input_with(2, new_bias)
    old, result = behind.outputs[0], conv.outputs[0]
    ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
    graph.remove(behind, safe=True)
    result.name, result.type, result.shape = name, old.type, old.shape
    conv.name = name


@dataclass(frozen=True, slots=True)
class _Match:
    before: Link
    pad: ir.Node
    after: Link
    middle: Link
    spatial: tuple[int, ...]


class FoldPad(Rewrite):
    """Moves Pad nodes into the ``pads`` of convolutions."""

    title = "fold pad"

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Rewrite every convolution behind a Pad; yield one line per convolution."""
        for conv in [n for n in graph if n.op_type == "Conv"]:
            found = _match(conv)
            if isinstance(found, Skipped):
                yield found
            elif found is not None:
                _fold_pad(graph, conv, found)
                yield Changed(f"{found.pad.name}: now the padding of {conv.name}")


def _match(conv: ir.Node) -> _Match | Skipped | None:
    """The Pad in front of ``conv``; None where there is none."""
    name = str(conv.name)
    middle = link(producer(conv.inputs[0]), "DequantizeLinear")
    after = link(producer(middle.source), "QuantizeLinear") if middle else None
    pad = producer(after.source) if after else None
    if middle is None or after is None or pad is None or pad.op_type != "Pad":
        return None
    before = link(producer(pad.inputs[0]), "DequantizeLinear")
    if before is None or not (before.matches(after) and after.matches(middle)):
        return Skipped(name, f"{pad.name} changes scale or zero-point")
    spatial = _zero_padding(pad)
    if isinstance(spatial, str):
        return Skipped(name, f"{pad.name} {spatial}")
    if conv.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return Skipped(name, "its padding is automatic")
    return _Match(before, pad, after, middle, spatial)


def _zero_padding(pad: ir.Node) -> tuple[int, ...] | str:
    """The spatial pads, beginnings before ends, or what forbids folding them."""
    if pad.attributes.get_string("mode", "constant") != "constant" or len(pad.inputs) > 3:
        return "does not pad with a constant along all axes"
    pads = constant_at(pad, 1)
    if pads is None:
        return "computes its padding at run time"
    if len(pad.inputs) > 2 and pad.inputs[2] is not None:
        value = constant_at(pad, 2)
        if value is None or value.any():
            return "pads with another value than 0"
    begins, ends = np.split(pads, 2)
    if begins[:2].any() or ends[:2].any() or (begins < 0).any() or (ends < 0).any():
        return "pads batch or channels, or crops"
    return tuple(int(n) for n in (*begins[2:], *ends[2:]))


def _fold_pad(graph: ir.Graph, conv: ir.Node, found: _Match) -> None:
    own = conv.attributes.get_ints("pads", [0] * len(found.spatial))
    total = [a + b for a, b in zip(own, found.spatial, strict=True)]
    source = node("DequantizeLinear", [found.before.source, *found.middle.node.inputs[1:]], f"{conv.name}/unpadded")
    graph.insert_before(conv, source)
    conv.replace_input_with(0, source.outputs[0])
    conv.attributes["pads"] = ir.AttrInt64s("pads", total)
    conv.attributes.pop("auto_pad", None)
    for old in (found.middle.node, found.after.node, found.pad, found.before.node):
        if not old.outputs[0].uses() and not old.outputs[0].is_graph_output():
            graph.remove(old, safe=True)
