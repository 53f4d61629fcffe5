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

from typing import TYPE_CHECKING

import numpy as np

from converters.graph import GraphWriter
from converters.leaky import CodeTable, FloatForm, LeakyCase, fitted_sum, float_table, is_monotone
from converters.passes.base import (
    Changed,
    DeclinedError,
    Link,
    Rewrite,
    new_node,
    only_consumer,
    pair_around,
    pair_before,
    producer,
    quantize_behind,
    remove_unread,
    take_over,
)

if TYPE_CHECKING:
    import onnx_ir as ir


def leaky_of(before: Link, activation: ir.Node, after: Link) -> tuple[LeakyCase, CodeTable]:
    """What the three nodes compute: the case on int8 codes, and its table, int64 ``(256,)``."""
    shift = 0 if before.dtype == np.int8 else -128
    form = FloatForm(before.scale, np.float32(activation.attributes.get_float("alpha", 0.01)))
    case = LeakyCase(before.scale, before.zero_point + shift, after.scale, after.zero_point + shift, form.slope)
    return case, float_table(case, form)


class PoolBeforeActivation(Rewrite):
    """Moves MaxPool in front of a monotone quantised LeakyRelu."""

    title = "pool before activation"
    op_type = "MaxPool"

    def rewrite_at(self, graph: ir.Graph, node: ir.Node) -> Changed:
        """Exchange the pool and the activation in front of it."""
        pair = pair_before(node.inputs[0])
        if pair is None:
            raise DeclinedError("its input is not quantised by a QuantizeLinear -> DequantizeLinear pair")
        after, middle = pair
        activation = producer(after.source)
        if activation is None or activation.op_type != "LeakyRelu":
            op_type = "a graph input" if activation is None else activation.op_type
            raise DeclinedError(f"no LeakyRelu in front of it but {op_type}")
        pair, pooled = pair_before(activation.inputs[0]), quantize_behind(node.outputs[0])
        if pair is None or pooled is None:
            raise DeclinedError("activation or pool is not wrapped in one DequantizeLinear and one QuantizeLinear")
        source, before = pair
        if not (after.matches(middle) and after.matches(pooled)):
            raise DeclinedError("the pool changes scale or zero-point")
        between = (before.result, activation.outputs[0], after.result, middle.result)
        if any(only_consumer(value) is None for value in between):
            raise DeclinedError("the activation's result is used elsewhere, too")
        if not is_monotone(leaky_of(before, activation, after)[1]):
            raise DeclinedError(
                f"the table of {activation.name} falls somewhere: maximum and activation do not commute"
            )
        _swap(graph, (source, before), activation, node, pooled)
        return Changed(f"{node.name}: now in front of {activation.name}")


def _swap(graph: ir.Graph, pair: tuple[Link, Link], activation: ir.Node, pool: ir.Node, pooled: Link) -> None:
    """Write the six nodes anew behind ``pair``; the final codes take over the pool's name and readers."""
    source, before = pair
    name, result, numbers = f"{source.result.name}/pooled", pooled.result, source.node.inputs[1:]
    real = new_node("DequantizeLinear", [source.result, *numbers], f"{name}/dequantized")
    first = new_node("MaxPool", real.outputs, f"{name}/float", pool.attributes.values())
    codes = new_node("QuantizeLinear", [first.outputs[0], *numbers], name)
    again = new_node("DequantizeLinear", [codes.outputs[0], *before.node.inputs[1:]], f"{result.name}/input")
    second = new_node("LeakyRelu", again.outputs, f"{result.name}/float", activation.attributes.values())
    last = new_node("QuantizeLinear", [second.outputs[0], *pooled.node.inputs[1:]], str(result.name))
    graph.insert_before(pool, [real, first, codes, again, second, last])
    take_over(graph, last.outputs[0], result)


class LeakyAsSum(Rewrite):
    """Writes quantised LeakyRelu nodes as a maximum and a sum."""

    title = "leaky as sum"
    op_type = "LeakyRelu"

    def rewrite_at(self, graph: ir.Graph, node: ir.Node) -> Changed:
        """Add all codes at one scale and those above the zero-point at another."""
        before, after = pair_around(node)
        if only_consumer(before.result) is None:
            raise DeclinedError("not between one DequantizeLinear and one QuantizeLinear that nothing else reads")
        if before.dtype != np.uint8:
            raise DeclinedError(f"its codes are {before.dtype}")
        form = fitted_sum(*leaky_of(before, node, after))
        if form is None:
            raise DeclinedError("no two scales give its 256 codes with room for float32 rounding")
        writer, name = GraphWriter.inserting(graph, node), str(node.name)
        codes, zero_point = before.source, before.node.inputs[2]
        rectified = writer.op("Max", [codes, zero_point], f"{name}/rectified")
        terms = []
        for value, scale, part in ((codes, form.whole, "whole"), (rectified, form.excess, "excess")):
            stated = scale, f"{name}/{part}/scale"
            terms.append(writer.op("DequantizeLinear", [value, stated, zero_point], f"{name}/{part}"))
        after.node.replace_input_with(0, writer.op("Add", terms, f"{name}/sum"))
        remove_unread(graph, node)
        return Changed(f"{name}: scales {form.whole:.6g} and {form.excess:.6g}")
