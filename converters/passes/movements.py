"""Movements that undo one another, or come to a choice of channels. Numeric effect of both: bit exact, codes are moved.

Cancel transposes: a Transpose and its inverse. Before::

    x -> Transpose(p) -> [Q(s) -> DQ(s)] -> Transpose(inverse of p) -> y

After::

    x -> [Q(s) -> DQ(s)] -> y

The importer wraps operators that need the source's layout in such pairs. Preconditions: the permutations undo each
other, and nothing else reads what lies between them; per-tensor quantisation does not care about positions.

Channel choice: a channel shuffle, taken apart and put together in many steps, as one choice of channels. Before::

    q -> DQ -> Transpose -> Reshape -> Q -> DQ -> Transpose -> Q -> DQ -> Split -> Q -> DQ -> Reshape -> Transpose -> Q

After::

    q -> Slice or Gather of channels

Why: each of the steps copies everything once. Neighbouring channels become a Slice, others a Gather: ONNX Runtime moves
the Gather's channels as whole planes, where it would pick the Slice's one byte at a time. Preconditions: constant
shapes, permutations and indices, and every step between a pair of equal scale and zero-point. What the steps do is
found by moving the numbers of all places through them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from converters.graph import OF_CODES, GraphWriter, constant_of
from converters.heads.base import is_raw_output
from converters.integer.kernels import MOVERS
from converters.passes.base import (
    Changed,
    DeclinedError,
    Moved,
    Rewrite,
    dequantize_before,
    link,
    new_node,
    only_consumer,
    producer,
    remove_unread,
    take_over,
)
from converters.passes.weights import node_of
from converters.spec import CONTRACT_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class CancelTransposes(Rewrite):
    """Removes Transpose pairs that undo each other."""

    title = "cancel transposes"
    op_type = "Transpose"

    def rewrite_at(self, graph: ir.Graph, node: ir.Node) -> Changed | None:
        """Remove a Transpose and its inverse in front of it."""
        between: list[ir.Node] = []  # the pairs in front of it, in execution order
        first = producer(node.inputs[0])
        while first is not None and first.op_type in OF_CODES and link(first, first.op_type) is not None:
            between.insert(0, first)
            first = producer(first.inputs[0])
        if first is None or first.op_type != "Transpose":
            return None
        perms = [n.attributes.get_ints("perm", []) for n in (first, node)]
        if [perms[0][axis] for axis in perms[1]] != list(range(len(perms[1]))):
            raise DeclinedError(f"{first.name} permutes {list(perms[0])}, not its inverse")
        if any(only_consumer(n.outputs[0]) is None for n in between):
            raise DeclinedError(f"what lies between it and {first.name} is read elsewhere, too")
        if _is_promised(node.outputs[0]) and not between:
            raise DeclinedError("the contract promises its result, and so its name")
        return Changed(f"{first.name} and {node.name}", _cancel(graph, first, between, node))


def _cancel(graph: ir.Graph, first: ir.Node, between: Sequence[ir.Node], second: ir.Node) -> tuple[Moved, ...]:
    """Write the nodes between the pair anew in the layout in front of it; their names say so."""
    value, result, perm = first.inputs[0], second.outputs[0], tuple(second.attributes.get_ints("perm", []))
    assert value is not None  # noqa: S101 - a Transpose has an input
    moved = [Moved(str(first.outputs[0].name), str(value.name), perm)]
    for old in between:
        name = f"{old.outputs[0].name}/untransposed"
        copy = new_node(old.op_type, [value, *old.inputs[1:]], name, old.attributes.values())
        graph.insert_before(second, copy)
        value = copy.outputs[0]
        moved.append(Moved(str(old.outputs[0].name), name, perm))
    if _is_promised(result):
        value.name, value.type, value.shape = result.name, result.type, result.shape
    else:
        moved.append(Moved(str(result.name), str(value.name)))
    ir.convenience.replace_all_uses_with(result, value, replace_graph_outputs=True)
    remove_unread(graph, second)
    return tuple(moved)


def _is_promised(value: ir.Value) -> bool:
    """Whether the model contract needs the value under its very name: outputs, and the raw outputs."""
    return value.is_graph_output() or value.name in CONTRACT_NAMES or is_raw_output(str(value.name))


FEWEST = 3  # steps that are worth it
STEPS = frozenset({"Reshape", "Transpose", "Split", "Slice", "Gather"})
Steps = list[tuple["ir.Node", "ir.Value"]]
"""Nodes in execution order, each with the value of it that is used; pairs are left out."""


class ChannelChoice(Rewrite):
    """Replaces chains of movements by the choice of channels that they make."""

    title = "channel choice"

    def places(self, graph: ir.Graph) -> list[ir.Value]:
        """All values, which the chains may end in."""
        return [output for node in graph for output in node.outputs]

    def rewrite_at(self, graph: ir.Graph, value: ir.Value) -> Changed | None:
        """Rewrite the longest chain that ends in a picture."""
        source = value
        steps: Steps = []
        while (segment := _segment(source)) is not None:  # as far back as they only move codes
            source, steps = segment[0], segment[1] + steps
        if len(steps) < FEWEST or _goes_on(value):
            return None
        channels = _chosen_channels(source, steps)
        if channels is None:
            raise DeclinedError(f"its {len(steps)} steps do more than to choose channels")
        what = f"{value.name}: {len(channels)} channels of {source.name}"
        writer, name = GraphWriter.inserting(graph, node_of(value)), f"{value.name}/channels"
        if (np.diff(channels) == 1).all():
            starts, ends = ([int(channels[0])], f"{name}/starts"), ([int(channels[-1]) + 1], f"{name}/ends")
            result = writer.op("Slice", [source, starts, ends, ([1], f"{name}/axes")], name)
        else:
            result = writer.op("Gather", [source, (channels.astype(np.int64), f"{name}/indices")], name, axis=1)
        take_over(graph, result, value)
        return Changed(what)


def _segment(end: ir.Value) -> tuple[ir.Value, Steps] | None:
    """One step on codes, or all between a pair: the codes in front of it, and the steps."""
    last = producer(end)
    if last is not None and last.op_type in STEPS:
        return None if last.inputs[0] is None else (last.inputs[0], [(last, end)])
    after = link(last, "QuantizeLinear")
    if after is None:
        return None
    value = after.source
    steps: Steps = []
    while (node := producer(value)) is not None and node.op_type in STEPS and node.inputs[0] is not None:
        steps.insert(0, (node, value))
        value = node.inputs[0]
    before = dequantize_before(value)
    return (before.source, steps) if steps and before is not None and before.matches(after) else None


def _goes_on(value: ir.Value) -> bool:
    """Whether a longer chain holds this one."""
    ends = []
    for node in value.consumers():
        if node.op_type in STEPS:
            return True
        if link(node, "DequantizeLinear") is not None:
            ends += [reader.op_type in STEPS for reader in node.outputs[0].consumers()]
    return bool(ends) and all(ends)


def _chosen_channels(source: ir.Value, steps: Steps) -> NDArray[np.int64] | None:
    """The channels that a chain chooses, by moving the numbers of all places through it; None where it does more."""
    shape = source.shape
    if shape is None or len(shape) != 4 or not all(isinstance(n, int) for n in shape.dims[1:]):
        return None
    first, channels, height, width = (n if isinstance(n, int) else 2 for n in shape.dims)
    places = np.arange(first * channels * height * width).reshape(first, channels, height, width)
    moved: NDArray[Any] | None = places
    for node, value in steps:
        moved = None if moved is None else _moved(node, value, moved)
    if moved is None or moved.ndim != 4 or moved.shape[0] != first or moved.shape[2:] != (height, width):
        return None
    chosen = moved[0, :, 0, 0] // (height * width)
    return chosen if np.array_equal(places[:, chosen], moved) else None


def _moved(node: ir.Node, value: ir.Value, array: NDArray[Any]) -> NDArray[Any] | None:
    """What a step gives; None where it is computed at run time, or fits no such array."""
    operands = [constant_of(operand) for operand in node.inputs[1:]]
    if any(operand is None for operand in operands):
        return None
    try:
        return MOVERS[node.op_type](node, array, operands)[node.outputs.index(value)]
    except (ValueError, IndexError, NotImplementedError):
        return None
