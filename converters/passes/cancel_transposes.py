"""Cancel a Transpose and its inverse.

Before::

    x -> Transpose(p) -> [Q(s) -> DQ(s)] -> Transpose(inverse of p) -> y

After::

    x -> [Q(s) -> DQ(s)] -> y

The importer wraps operators that need the source's layout in such pairs. Preconditions: the permutations undo each
other, and nothing else reads what lies between them. Numeric effect: bit exact, per-tensor quantisation does not
care about positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from converters.passes.base import Rewrite, Skipped
from converters.passes.qdq import link, only_consumer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class CancelTransposes(Rewrite):
    """Removes Transpose pairs that undo each other."""

    title = "cancel transposes"

    def rewrite(self, graph: ir.Graph) -> Iterator[str | Skipped]:
        """Rewrite every pair; yield one line per pair."""
        for second in [node for node in graph if node.op_type == "Transpose"]:
            between = _chain_up(second)
            first = _producer((between[0] if between else second).inputs[0])
            if first is None or first.op_type != "Transpose":
                continue
            perms = [node.attributes.get_ints("perm", []) for node in (first, second)]
            if [perms[0][axis] for axis in perms[1]] != list(range(len(perms[1]))):
                yield Skipped(str(second.name), f"{first.name} permutes {list(perms[0])}, not its inverse")
                continue
            if any(only_consumer(node.outputs[0]) is None for node in between):
                yield Skipped(
                    str(second.name), f"what lies between it and {first.name} is read elsewhere, too"
                )
                continue
            if second.outputs[0].is_graph_output() and not between:
                yield Skipped(str(second.name), "its result is a graph output, and so is its name")
                continue
            _cancel(graph, first, between, second)
            yield f"{first.name} and {second.name}"


def _chain_up(second: ir.Node) -> list[ir.Node]:
    """The per-tensor QuantizeLinear and DequantizeLinear nodes in front of ``second``, in execution order."""
    chain: list[ir.Node] = []
    node = _producer(second.inputs[0])
    while node is not None and any(link(node, kind) for kind in ("QuantizeLinear", "DequantizeLinear")):
        chain.insert(0, node)
        node = _producer(node.inputs[0])
    return chain


def _cancel(graph: ir.Graph, first: ir.Node, between: Sequence[ir.Node], second: ir.Node) -> None:
    """Write the nodes between the pair anew in the layout in front of it; their names say so."""
    value, result = first.inputs[0], second.outputs[0]
    for node in between:
        name = f"{node.outputs[0].name}/untransposed"
        inputs = [value, *node.inputs[1:]]
        copy = ir.Node(
            "", node.op_type, inputs, node.attributes.values(), outputs=[ir.Value(name=name)], name=name
        )
        graph.insert_before(second, copy)
        value = copy.outputs[0]
    assert value is not None  # noqa: S101 - a Transpose has an input
    if result.is_graph_output():
        value.name, value.type, value.shape = result.name, result.type, result.shape
    ir.convenience.replace_all_uses_with(result, value, replace_graph_outputs=True)
    graph.remove(second, safe=True)
    for node in (*reversed(between), first):
        if not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
            graph.remove(node, safe=True)


def _producer(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()
