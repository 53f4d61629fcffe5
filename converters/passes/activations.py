"""Rewrites of a LeakyRelu between codes: a pool moves in front of it, and it becomes a sum.

Pool before activation.

Before::

    q_a -> DQ(a) -> LeakyRelu -> Q(s) -> DQ(s) -> MaxPool -> Q(s)

After::

    q_a -> DQ(a0) -> MaxPool -> Q(a0) -> DQ(a) -> LeakyRelu -> Q(s)

where ``a0`` is the quantisation that produced ``q_a`` (``a`` may carry LiteRT's adjusted scale). The activation then
touches a quarter of the values.

Preconditions: the activation's 256-entry table never falls, its result feeds nothing but the pool, and the pool keeps
scale and zero-point. Numeric effect: bit exact, because a non-decreasing function commutes with the maximum, and
padding never wins it.

LeakyReLU as a sum.

Before::

    q_x -> DQ(s) -> LeakyRelu -> Q

After::

    q_x ---------------------> DQ(whole) --> Add -> Q
    q_x -> Max(zero-point) --> DQ(excess) ->

Why: ONNX Runtime looks a quantised LeakyRelu up byte by byte; maximum and sum are vector instructions and take half
the time together.

Preconditions: uint8 codes (ONNX Runtime turns int8 pairs into uint8 ones on x86, and a maximum of codes between them
keeps it from fusing), one DequantizeLinear in front and one QuantizeLinear behind that nothing else reads, and scales
for the sum that give every code of the table with room for float32 rounding (``converters.leaky``). Numeric effect: bit
exact, on runtimes that round as they like, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from converters.graph import GraphWriter
from converters.leaky import FloatForm, LeakyCase, SumForm, Table, fitted_sum, float_table, is_monotone
from converters.passes.base import Changed, Link, Rewrite, Skipped, link, node, only_consumer, producer

if TYPE_CHECKING:
    from collections.abc import Iterator


def leaky_of(before: Link, activation: ir.Node, after: Link) -> tuple[LeakyCase, Table]:
    """What the three nodes compute: the case on int8 codes, and its table, int64 ``(256,)``."""
    shift = 0 if before.dtype == np.int8 else -128
    form = FloatForm(before.scale, np.float32(activation.attributes.get_float("alpha", 0.01)))
    case = LeakyCase(before.scale, before.zero_point + shift, after.scale, after.zero_point + shift, form.slope)
    return case, float_table(case, form)


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
        return Skipped(name, f"no LeakyRelu in front of it but {activation.op_type if activation else 'a graph input'}")
    before = link(producer(activation.inputs[0]), "DequantizeLinear")
    source = link(producer(before.source), "QuantizeLinear") if before else None
    pooled = link(only_consumer(pool.outputs[0]), "QuantizeLinear")
    if before is None or source is None or pooled is None:
        return Skipped(name, "activation or pool is not wrapped in one DequantizeLinear and one QuantizeLinear")
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
    before = node("DequantizeLinear", [codes.outputs[0], *found.before.node.inputs[1:]], f"{result.name}/input")
    activation = node("LeakyRelu", before.outputs, f"{result.name}/float", found.activation.attributes.values())
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


class LeakyAsSum(Rewrite):
    """Writes quantised LeakyRelu nodes as a maximum and a sum."""

    title = "leaky as sum"

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Rewrite every match; yield one line per LeakyRelu."""
        for leaky in [found for found in graph if found.op_type == "LeakyRelu"]:
            found = _match_sum(leaky)
            if isinstance(found, Skipped):
                yield found
                continue
            _replace(graph, found)
            yield Changed(f"{leaky.name}: scales {found.form.whole:.6g} and {found.form.excess:.6g}")


@dataclass(frozen=True, slots=True)
class _SumMatch:
    before: Link
    leaky: ir.Node
    after: Link
    form: SumForm


def _match_sum(leaky: ir.Node) -> _SumMatch | Skipped:
    name = str(leaky.name)
    before = link(producer(leaky.inputs[0]), "DequantizeLinear")
    after = link(only_consumer(leaky.outputs[0]), "QuantizeLinear")
    if before is None or after is None or only_consumer(before.result) is None:
        return Skipped(name, "not between one DequantizeLinear and one QuantizeLinear that nothing else reads")
    if before.dtype != np.uint8:
        return Skipped(name, f"its codes are {before.dtype}")
    form = fitted_sum(*leaky_of(before, leaky, after))
    if form is None:
        return Skipped(name, "no two scales give its 256 codes with room for float32 rounding")
    return _SumMatch(before, leaky, after, form)


def _replace(graph: ir.Graph, found: _SumMatch) -> None:
    writer, name = GraphWriter.inserting(graph, found.leaky), str(found.leaky.name)
    codes, zero_point = found.before.source, found.before.node.inputs[2]
    rectified = writer.op("Max", [codes, zero_point], f"{name}/rectified")
    terms = [
        writer.op(
            "DequantizeLinear", [value, writer.constant(scale, f"{name}/{part}/scale"), zero_point], f"{name}/{part}"
        )
        for value, scale, part in ((codes, found.form.whole, "whole"), (rectified, found.form.excess, "excess"))
    ]
    found.after.node.replace_input_with(0, writer.op("Add", terms, f"{name}/sum"))
    graph.remove([found.leaky, found.before.node], safe=True)
