"""Channel choice: a channel shuffle, taken apart and put together in many steps, as one choice of channels.

Before::

    q -> DQ -> Transpose -> Reshape -> Q -> DQ -> Transpose -> Q -> DQ -> Split -> Q -> DQ -> Reshape -> Transpose -> Q

After::

    q -> Slice or Gather of channels

Why: each of the steps copies everything once. Neighbouring channels become a Slice, others a Gather: ONNX Runtime moves
the Gather's channels as whole planes, where it would pick the Slice's one byte at a time.

Preconditions: constant shapes, permutations and indices, and every step between a pair of equal scale and zero-point.
What the steps do is found by moving the numbers of all places through them. Numeric effect: bit exact: codes are moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.graph import GraphWriter, constant_of
from converters.integer.kernels import MOVERS
from converters.passes.base import Changed, Rewrite, Skipped, dequantize_before, link, producer, take_over

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir
    from numpy.typing import NDArray

FEWEST = 3  # steps that are worth it
STEPS = frozenset({"Reshape", "Transpose", "Split", "Slice", "Gather"})
Steps = list[tuple["ir.Node", "ir.Value"]]
"""Nodes in execution order, each with the value of it that is used; pairs are left out."""


class ChannelChoice(Rewrite):
    """Replaces chains of movements by the choice of channels that they make."""

    title = "channel choice"

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Rewrite the longest chains that end in a picture; yield one line per chain."""
        for value in [output for node in graph for output in node.outputs]:
            source, steps = _chain_to(value)
            if len(steps) < FEWEST or _goes_on(value):
                continue
            channels = _chosen_channels(source, steps)
            if channels is None:
                yield Skipped(str(value.name), f"its {len(steps)} steps do more than to choose channels")
                continue
            _replace(graph, source, value, channels)
            yield Changed(f"{value.name}: {len(channels)} channels of {source.name}")


def _chain_to(end: ir.Value) -> tuple[ir.Value, Steps]:
    """The steps in front of ``end``, as far back as they only move codes, and the codes in front of them."""
    source = end
    steps: Steps = []
    while (segment := _segment(source)) is not None:
        source, steps = segment[0], segment[1] + steps
    return source, steps


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


def _replace(graph: ir.Graph, source: ir.Value, end: ir.Value, channels: NDArray[np.int64]) -> None:
    last = producer(end)
    assert last is not None  # noqa: S101 - a chain has steps
    writer, name = GraphWriter.inserting(graph, last), f"{end.name}/channels"
    steps = np.unique(np.diff(channels)) if len(channels) > 1 else np.ones(1, np.int64)
    if len(steps) == 1 and steps[0] == 1:
        numbers = {"starts": channels[0], "ends": channels[-1] + 1, "axes": 1}
        operands = [writer.constant(np.array([n], np.int64), f"{name}/{what}") for what, n in numbers.items()]
        result = writer.op("Slice", [source, *operands], name)
    else:
        where = writer.constant(channels.astype(np.int64), f"{name}/indices")
        result = writer.op("Gather", [source, where], name, axis=1)
    take_over(graph, result, end)
