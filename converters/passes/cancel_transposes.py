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
from converters.passes.base import Changed, Moved, Rewrite, Skipped, link, node, only_consumer, producer
from converters.spec import CONTRACT_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class CancelTransposes(Rewrite):
    """Removes Transpose pairs that undo each other."""

    title = "cancel transposes"

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Rewrite every pair; yield one line per pair."""
        for second in [n for n in graph if n.op_type == "Transpose"]:
            between = _chain_up(second)
            first = producer((between[0] if between else second).inputs[0])
            if first is None or first.op_type != "Transpose":
                continue
            perms = [n.attributes.get_ints("perm", []) for n in (first, second)]
            if [perms[0][axis] for axis in perms[1]] != list(range(len(perms[1]))):
                yield Skipped(str(second.name), f"{first.name} permutes {list(perms[0])}, not its inverse")
                continue
            if any(only_consumer(n.outputs[0]) is None for n in between):
                yield Skipped(str(second.name), f"what lies between it and {first.name} is read elsewhere, too")
                continue
            if _is_promised(second.outputs[0]) and not between:
                yield Skipped(str(second.name), "the contract promises its result, and so its name")
                continue
            moved = _cancel(graph, first, between, second)
            yield Changed(f"{first.name} and {second.name}", moved)


def _chain_up(second: ir.Node) -> list[ir.Node]:
    """The per-tensor QuantizeLinear and DequantizeLinear nodes in front of ``second``, in execution order."""
    chain: list[ir.Node] = []
    found = producer(second.inputs[0])
    while found is not None and any(link(found, kind) for kind in ("QuantizeLinear", "DequantizeLinear")):
        chain.insert(0, found)
        found = producer(found.inputs[0])
    return chain


def _cancel(graph: ir.Graph, first: ir.Node, between: Sequence[ir.Node], second: ir.Node) -> tuple[Moved, ...]:
    """Write the nodes between the pair anew in the layout in front of it; their names say so."""
    value, result, perm = first.inputs[0], second.outputs[0], tuple(second.attributes.get_ints("perm", []))
    assert value is not None  # noqa: S101 - a Transpose has an input
    moved = [Moved(str(first.outputs[0].name), str(value.name), perm)]
    for old in between:
        name = f"{old.outputs[0].name}/untransposed"
        copy = node(old.op_type, [value, *old.inputs[1:]], name, old.attributes.values())
        graph.insert_before(second, copy)
        value = copy.outputs[0]
        moved.append(Moved(str(old.outputs[0].name), name, perm))
    if _is_promised(result):
        value.name, value.type, value.shape = result.name, result.type, result.shape
    else:
        moved.append(Moved(str(result.name), str(value.name)))
    ir.convenience.replace_all_uses_with(result, value, replace_graph_outputs=True)
    graph.remove(second, safe=True)
    for old in (*reversed(between), first):
        if not old.outputs[0].uses() and not old.outputs[0].is_graph_output():
            graph.remove(old, safe=True)
    return tuple(moved)


def _is_promised(value: ir.Value) -> bool:
    """Whether the model contract needs the value under its very name: outputs, and the raw outputs."""
    return value.is_graph_output() or value.name in CONTRACT_NAMES or is_raw_output(str(value.name))
