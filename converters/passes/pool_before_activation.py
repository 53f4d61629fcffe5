"""Pool before activation.

Before::

    q_a -> DQ(a) -> LeakyRelu -> Q(s) -> DQ(s) -> MaxPool -> Q(s)

After::

    q_a -> DQ(a0) -> MaxPool -> Q(a0) -> DQ(a) -> LeakyRelu -> Q(s)

where ``a0`` is the quantisation that produced ``q_a`` (``a`` may carry LiteRT's adjusted scale). The activation then
touches a quarter of the values.

Preconditions: the activation's 256-entry table never falls, its result feeds nothing but the pool, and the pool keeps scale and
zero-point. Numeric effect: bit exact, because a non-decreasing function commutes with the maximum, and padding never wins it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from converters.leaky import is_monotone
from converters.passes.base import Changed, Rewrite, Skipped
from converters.passes.leaky_link import leaky_of
from converters.passes.qdq import Link, link, node, only_consumer, producer

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class _Match:
    before: Link
    activation: ir.Node
    after: Link
    pool: ir.Node
    pooled: Link
    source: Link


class PoolBeforeActivation(Rewrite):
    """Moves MaxPool in front of a monotone quantised LeakyRelu."""

    title = "pool before activation"

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Rewrite every match; yield one line per pool."""
        for pool in [n for n in graph if n.op_type == "MaxPool"]:
            found = _match(pool)
            if isinstance(found, Skipped):
                yield found
                continue
            _swap(graph, found)
            yield Changed(f"{pool.name}: now in front of {found.activation.name}")


def _match(pool: ir.Node) -> _Match | Skipped:
    name = str(pool.name)
    middle = link(producer(pool.inputs[0]), "DequantizeLinear")
    after = link(producer(middle.source), "QuantizeLinear") if middle else None
    if middle is None or after is None:
        return Skipped(name, "its input is not quantised by a QuantizeLinear -> DequantizeLinear pair")
    activation = producer(after.source)
    if activation is None or activation.op_type != "LeakyRelu":
        return Skipped(
            name, f"no LeakyRelu in front of it but {activation.op_type if activation else 'a graph input'}"
        )
    before = link(producer(activation.inputs[0]), "DequantizeLinear")
    source = link(producer(before.source), "QuantizeLinear") if before else None
    pooled = link(only_consumer(pool.outputs[0]), "QuantizeLinear")
    if before is None or source is None or pooled is None:
        return Skipped(
            name, "activation or pool is not wrapped in one DequantizeLinear and one QuantizeLinear"
        )
    found = _Match(before, activation, after, pool, pooled, source)
    reason = _refusal(found, middle)
    return found if reason is None else Skipped(name, reason)


def _refusal(found: _Match, middle: Link) -> str | None:
    """Why pool and activation must not change places; None if they may."""
    if not (found.after.matches(middle) and found.after.matches(found.pooled)):
        return "the pool changes scale or zero-point"
    between = (found.before.result, found.activation.outputs[0], found.after.result, middle.result)
    if any(only_consumer(value) is None for value in between):
        return "the activation's result is used elsewhere, too"
    if not is_monotone(leaky_of(found.before, found.activation, found.after)[1]):
        return f"the table of {found.activation.name} falls somewhere: maximum and activation do not commute"
    return None


def _swap(graph: ir.Graph, found: _Match) -> None:
    """Write the six nodes anew behind the producer; the final codes take over the pool's name and readers."""
    name = f"{found.source.result.name}/pooled"
    source_constants, result = found.source.node.inputs[1:], found.pooled.result
    real = node("DequantizeLinear", [found.source.result, *source_constants], f"{name}/dequantized")
    pool = node("MaxPool", real.outputs, f"{name}/float", found.pool.attributes.values())
    codes = node("QuantizeLinear", [pool.outputs[0], *source_constants], name)
    before = node(
        "DequantizeLinear", [codes.outputs[0], *found.before.node.inputs[1:]], f"{result.name}/input"
    )
    activation = node(
        "LeakyRelu", before.outputs, f"{result.name}/float", found.activation.attributes.values()
    )
    after = node("QuantizeLinear", [activation.outputs[0], *found.pooled.node.inputs[1:]], str(result.name))
    old = [
        found.before.node,
        found.activation,
        found.after.node,
        *found.after.result.consumers(),
        found.pool,
        found.pooled.node,
    ]
    graph.insert_before(found.pool, [real, pool, codes, before, activation, after])
    ir.convenience.replace_all_uses_with(result, after.outputs[0], replace_graph_outputs=True)
    graph.remove(old, safe=True)
