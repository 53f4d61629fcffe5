"""Clamp codes: a bound of an activation, applied to codes instead of reals.

Before::

    q -> DQ(s) -> Clip(low, high) -> Q(s)

After::

    q -> Clip(code of low, code of high)

Why: the clamp of a RELU6 whose output reaches beyond 6 costs three passes over float32 values; on bytes it costs
next to nothing.

Preconditions: both sides have the same scale, zero-point and dtype, and the bounds are constants. Numeric effect: bit
exact: the codes of the bounds are what QuantizeLinear makes of them, and rounding never falls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from converters.graph import GraphWriter, constant_of
from converters.passes.base import Changed, Link, Rewrite, Skipped, link, only_consumer, producer
from converters.quant import quantize

if TYPE_CHECKING:
    from collections.abc import Iterator


class ClampCodes(Rewrite):
    """Takes Clip nodes out of their QDQ pairs."""

    title = "clamp codes"

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Rewrite every Clip between a pair; yield one line per Clip."""
        for clip in [node for node in graph if node.op_type == "Clip"]:
            before = link(producer(clip.inputs[0]), "DequantizeLinear")
            after = link(only_consumer(clip.outputs[0]), "QuantizeLinear")
            reason = _refusal(clip, before, after)
            if before is None or after is None or reason is not None:
                yield Skipped(str(clip.name), str(reason))
                continue
            bounds = _replace(graph, clip, before, after)
            yield Changed(f"{clip.name}: codes {bounds[0]} to {bounds[1]}")


def _refusal(clip: ir.Node, before: Link | None, after: Link | None) -> str | None:
    """Why the Clip must stay between its pair; None if it need not."""
    if before is None or after is None:
        return "not between one DequantizeLinear and one QuantizeLinear that nothing else reads"
    if not before.matches(after):
        return "it changes scale or zero-point"
    computed = any(value is not None and constant_of(value) is None for value in clip.inputs[1:])
    return "its bounds are computed" if computed else None


def _replace(graph: ir.Graph, clip: ir.Node, before: Link, after: Link) -> list[int | None]:
    writer, old, name = GraphWriter.inserting(graph, clip), after.result, f"{clip.name}/codes"
    bounds: list[ir.Value | None] = []
    for value, side in zip(clip.inputs[1:], ("lowest", "highest"), strict=False):
        real = constant_of(value)
        code = None if real is None else quantize(real, after.scale, after.zero_point, after.dtype.type)
        bounds.append(None if code is None else writer.constant(code, f"{name}/{side}"))
    codes = writer.op("Clip", [before.source, *bounds], name)
    ir.convenience.replace_all_uses_with(old, codes, replace_graph_outputs=True)
    graph.remove([after.node, clip], safe=True)
    if not before.result.uses():
        graph.remove(before.node, safe=True)
    codes.name, old.name = old.name, None
    codes.type = old.type
    told = [constant_of(bound) for bound in (*bounds, None, None)[:2]]
    return [None if array is None else int(array.reshape(())) for array in told]
