"""LeakyReLU as a sum.

Before::

    q_x -> DQ(s) -> LeakyRelu -> Q

After::

    q_x ---------------------> DQ(whole) --> Add -> Q
    q_x -> Max(zero-point) --> DQ(excess) ->

Why: ONNX Runtime looks a quantised LeakyRelu up byte by byte; maximum and sum are vector instructions and take half
the time together.

Preconditions: uint8 codes (ONNX Runtime turns int8 pairs into uint8 ones on x86, and a maximum of codes between them keeps
it from fusing), one DequantizeLinear in front and one QuantizeLinear behind that nothing else reads, and scales for the sum
that give every code of the table with room for float32 rounding (``converters.leaky_sum``). Numeric effect: bit exact, on
runtimes that round as they like, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.graph import GraphWriter
from converters.leaky_sum import SumForm, fitted_sum
from converters.passes.base import Changed, Rewrite, Skipped
from converters.passes.leaky_link import leaky_of
from converters.passes.qdq import Link, link, only_consumer, producer

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir


class LeakyAsSum(Rewrite):
    """Writes quantised LeakyRelu nodes as a maximum and a sum."""

    title = "leaky as sum"

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Rewrite every match; yield one line per LeakyRelu."""
        for leaky in [node for node in graph if node.op_type == "LeakyRelu"]:
            found = _match(leaky)
            if isinstance(found, Skipped):
                yield found
                continue
            _replace(graph, found)
            yield Changed(f"{leaky.name}: scales {found.form.whole:.6g} and {found.form.excess:.6g}")


@dataclass(frozen=True, slots=True)
class _Match:
    before: Link
    leaky: ir.Node
    after: Link
    form: SumForm


def _match(leaky: ir.Node) -> _Match | Skipped:
    name = str(leaky.name)
    before = link(producer(leaky.inputs[0]), "DequantizeLinear")
    after = link(only_consumer(leaky.outputs[0]), "QuantizeLinear")
    if before is None or after is None or only_consumer(before.result) is None:
        return Skipped(
            name, "not between one DequantizeLinear and one QuantizeLinear that nothing else reads"
        )
    if before.dtype != np.uint8:
        return Skipped(name, f"its codes are {before.dtype}")
    form = fitted_sum(*leaky_of(before, leaky, after))
    if form is None:
        return Skipped(name, "no two scales give its 256 codes with room for float32 rounding")
    return _Match(before, leaky, after, form)


def _replace(graph: ir.Graph, found: _Match) -> None:
    writer, name = GraphWriter.inserting(graph, found.leaky), str(found.leaky.name)
    codes, zero_point = found.before.source, found.before.node.inputs[2]
    rectified = writer.op("Max", [codes, zero_point], f"{name}/rectified")
    terms = [
        writer.op(
            "DequantizeLinear",
            [value, writer.constant(scale, f"{name}/{part}/scale"), zero_point],
            f"{name}/{part}",
        )
        for value, scale, part in (
            (codes, found.form.whole, "whole"),
            (rectified, found.form.excess, "excess"),
        )
    ]
    found.after.node.replace_input_with(0, writer.op("Add", terms, f"{name}/sum"))
    graph.remove([found.leaky, found.before.node], safe=True)
