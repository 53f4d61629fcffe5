"""Pad codes: what no convolution could take as its own padding, written on codes instead of reals.

Before::

    q -> DQ(s, z) -> Pad(0) -> Q(s, z)

After::

    q -> Pad(z)

Why: a Pad in front of a pool, or one that several operators read, costs three passes over float32 values.

Preconditions: uint8 codes (behind a Pad of int8 codes ONNX Runtime leaves convolutions in float), equal scale and
zero-point on both sides, a constant of 0. Numeric effect: bit exact: the zero-point is the code of 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from converters.graph import GraphWriter, constant_of
from converters.passes.base import Changed, Link, Rewrite, Skipped, link, only_consumer, producer

if TYPE_CHECKING:
    from collections.abc import Iterator


class PadCodes(Rewrite):
    """Takes Pad nodes out of their QDQ pairs."""

    title = "pad codes"

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Rewrite every Pad between a pair; yield one line per Pad."""
        for pad in [node for node in graph if node.op_type == "Pad"]:
            before = link(producer(pad.inputs[0]), "DequantizeLinear")
            after = link(only_consumer(pad.outputs[0]), "QuantizeLinear")
            reason = _refusal(pad, before, after)
            if before is None or after is None or reason is not None:
                yield Skipped(str(pad.name), str(reason))
                continue
            _replace(graph, pad, before, after)
            yield Changed(f"{pad.name}: code {after.zero_point}")


def _refusal(pad: ir.Node, before: Link | None, after: Link | None) -> str | None:
    """Why the Pad must stay between its pair; None if it need not."""
    if before is None or after is None:
        return "not between one DequantizeLinear and one QuantizeLinear that nothing else reads"
    if before.dtype != np.uint8 or not before.matches(after):
        return "its codes are int8, or it changes scale or zero-point"
    if pad.attributes.get_string("mode", "constant") != "constant":
        return "it does not pad with a constant"
    value = constant_of(pad.inputs[2]) if len(pad.inputs) > 2 and pad.inputs[2] is not None else np.zeros(1)
    return "it pads with another value than 0" if value is None or value.any() else None


def _replace(graph: ir.Graph, pad: ir.Node, before: Link, after: Link) -> None:
    writer, old, name = GraphWriter.inserting(graph, pad), after.result, f"{pad.name}/codes"
    zero = writer.constant(np.array(after.zero_point, np.uint8), f"{name}/padding")
    codes = writer.op("Pad", [before.source, pad.inputs[1], zero, *pad.inputs[3:]], name)
    ir.convenience.replace_all_uses_with(old, codes, replace_graph_outputs=True)
    graph.remove([after.node, pad], safe=True)
    if not before.result.uses():
        graph.remove(before.node, safe=True)
    codes.name, codes.type, codes.shape, old.name = old.name, old.type, old.shape, None
