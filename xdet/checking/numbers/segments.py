"""A Keras source and its finished graph, cut at the same places: between layers that both still have as values.

The document's tensor map says which value carries a layer's result. What lies between two such values (a convolution,
the batch normalisation that went into it, an activation that changed places with a pool) is one segment, and must do
the same on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from converters.spec import HEAD
from xdet.checking.numbers.context import Comparison

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xdet.checking.numbers.keras_layers import KerasSteps, Step
    from xdet.model.graph import Node

PICTURE = "the picture"


@dataclass(frozen=True, eq=False, slots=True)
class Segment:
    """What computes one value from the values before it, on both sides, and the layers in front of it by each.

    Values that carry no layer stand in ``graph_reads`` by their own names.
    """

    layer: str
    steps: tuple[tuple[int, Step], ...]
    nodes: tuple[Node, ...]
    source_reads: frozenset[str]
    graph_reads: frozenset[str]


@dataclass(eq=False)
class KerasContext(Comparison):
    """A comparison with a Keras source."""

    source: KerasSteps  # the source, step by step

    @property
    def how(self) -> str:
        """Conversion folded the numbers, and perhaps quantised them."""
        folded = "as folded" if self.document.activations == "float32" else "as folded and quantised"
        return f" with the source's, {folded}"

    @cached_property
    def values(self) -> Mapping[str, str]:
        """Layer -> the value that carries its result, where the graph still computes it."""
        return {
            layer: twin.onnx
            for layer, twin in self.document.tensors.items()
            if twin.onnx is not None
            and layer in self.source.last
            and twin.onnx in self.graph.producers
            and twin.onnx != HEAD
        }

    @cached_property
    def layers(self) -> Mapping[str, str]:
        """Value -> the layer whose result it carries."""
        return {value: layer for layer, value in self.values.items()} | {self.picture: PICTURE}

    @cached_property
    def readers(self) -> Mapping[int, int]:
        """Step -> how many steps read it."""
        found = dict.fromkeys(range(len(self.source.steps)), 0)
        for step in self.source.steps:
            for index in step.inputs:
                found[index] += 1
        return found

    def segments(self) -> Iterator[Segment]:
        """All segments, in the source's order; the last one ends at the raw head."""
        ends = {self.source.last[layer]: layer for layer in self.values}
        cuts = [(layer, index, self.values[layer]) for layer, index in self.source.last.items() if layer in self.values]
        for layer, start, value in (*cuts, (self.source.output, None, HEAD)):
            steps, source_reads = self._steps_before(start, ends)
            nodes, graph_reads = self._nodes_before(value)
            yield Segment(layer, steps, nodes, source_reads, graph_reads)

    def _steps_before(
        self, start: int | None, ends: Mapping[int, str]
    ) -> tuple[tuple[tuple[int, Step], ...], frozenset[str]]:
        """The source's steps back to the next results; for the head (None) only what lies behind the last one."""
        found: dict[int, Step] = {}
        reads: set[str] = set()
        waiting = [self.source.last[self.source.output] if start is None else start]
        while waiting:
            index = waiting.pop()
            step = self.source.steps[index]
            if step.act is None:
                reads.add(PICTURE)
            elif index in ends and index != start:
                reads.add(ends[index])
            elif index not in found:
                found[index] = step
                waiting += step.inputs
        return tuple(sorted(found.items())), frozenset(reads)

    def _nodes_before(self, value: str) -> tuple[tuple[Node, ...], frozenset[str]]:
        """The graph's nodes back to the next results."""
        found: set[str] = set()
        reads: set[str] = set()
        waiting = [value]
        while waiting:
            name = waiting.pop()
            node = self.graph.producers.get(name)
            if name != value and name in self.layers:
                reads.add(self.layers[name])
            elif node is None:
                if name and self.graph.constant(name) is None:
                    reads.add(name)
            elif node.outputs[0] not in found:
                found.add(node.outputs[0])
                waiting += node.inputs
        nodes = tuple(node for node in self.graph.nodes if node.outputs and node.outputs[0] in found)
        return nodes, frozenset(reads)
