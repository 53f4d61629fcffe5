"""Fold what scales and shifts a convolution's channels into its weights and bias.

Before, in float32::

    x -> Conv(w, b) -> Mul(c) -> Add(d) -> y                 also Sub, Div, BatchNormalization

After::

    x -> Conv(c * w, c * b + d) -> y

tf2onnx folds the batch normalisations of Keras 2 itself, and leaves those of Keras 3 behind depthwise convolutions as Mul
and Add. Preconditions: constant weights, constants with one number per channel or one for all, and nobody else reads
what lies between. Numeric effect: float32 rounding of the folded weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from converters.graph import GraphWriter
from converters.passes.base import Changed, Rewrite, Skipped
from converters.passes.qdq import only_consumer

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
        for conv in [node for node in graph if node.op_type == "Conv"]:
            weights = _constant(conv, 1)
            while weights is not None:
                behind = only_consumer(conv.outputs[0])
                if behind is None or behind.op_type not in AFFINE:
                    break
                affine = _affine(behind, conv.outputs[0], len(weights))
                if isinstance(affine, str):
                    yield Skipped(str(behind.name), affine)
                    break
                _fold(graph, conv, behind, affine)
                yield Changed(f"{behind.name}: now in the weights of {conv.name}")
                weights = _constant(conv, 1)


def _affine(node: ir.Node, source: ir.Value, channels: int) -> Affine | str:
    """What ``node`` does to each channel, or why it is nothing of that kind."""
    if node.op_type == "BatchNormalization":
        numbers = [_constant(node, position) for position in range(1, 5)]
        if any(array is None for array in numbers):
            return "its statistics are computed"
        scale, bias, mean, variance = (np.asarray(array, np.float64) for array in numbers)
        factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        return factor, bias - mean * factor
    if node.inputs[0] is not source and node.op_type in ("Sub", "Div"):
        return "it subtracts the channels from a constant, or divides by them"
    stored = _constant(node, 1 if node.inputs[0] is source else 0)
    if stored is None:
        return "its other operand is computed"
    if stored.ndim > 4 or np.broadcast_shapes(stored.shape, (1, channels, 1, 1)) != (1, channels, 1, 1):
        return f"its other operand is {list(stored.shape)}, not one number per channel"
    number = np.broadcast_to(stored.astype(np.float64), (1, channels, 1, 1)).reshape(channels)
    ones, zeros = np.ones(channels), np.zeros(channels)
    by_kind = {"Mul": (number, zeros), "Add": (ones, number), "Sub": (ones, -number)}
    return by_kind[node.op_type] if node.op_type in by_kind else (1 / number, zeros)


def _fold(graph: ir.Graph, conv: ir.Node, behind: ir.Node, affine: Affine) -> None:
    """Write the convolution anew in place of both; it gives the result its name."""
    factor, offset = affine
    weights = _constant(conv, 1)
    assert weights is not None  # noqa: S101 - the caller looked
    bias = _constant(conv, 2)
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


def _constant(node: ir.Node, position: int) -> NDArray[Any] | None:
    value = node.inputs[position] if position < len(node.inputs) else None
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()
