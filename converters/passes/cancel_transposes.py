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

from converters.heads.base import is_raw_output
from converters.passes.base import (
    Changed,
    DeclinedError,
    Moved,
    NodeRewrite,
    link,
    new_node,
    only_consumer,
    producer,
    remove_unread,
)
from converters.spec import CONTRACT_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence


class CancelTransposes(NodeRewrite):
    """Removes Transpose pairs that undo each other."""

    title = "cancel transposes"
    op_type = "Transpose"

    def rewrite_at(self, graph: ir.Graph, node: ir.Node) -> Changed | None:
        """Remove a Transpose and its inverse in front of it."""
        between = _links_before(node)
        first = producer((between[0] if between else node).inputs[0])
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


def _links_before(transpose: ir.Node) -> list[ir.Node]:
    """The per-tensor QuantizeLinear and DequantizeLinear nodes in front of a node, in execution order."""
    links: list[ir.Node] = []
    node = producer(transpose.inputs[0])
    while node is not None and any(link(node, kind) for kind in ("QuantizeLinear", "DequantizeLinear")):
        links.insert(0, node)
        node = producer(node.inputs[0])
    return links


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
