"""Fold a zero padding into the convolution behind it.

Before::

    q_x -> DQ(x) -> Pad(0) -> Q(x) -> DQ(x) -> Conv(pads=p)

After::

    q_x -> DQ(x) -> Conv(pads=p + padding)

Preconditions: the Pad is constant, non-negative, spatial only, with the value 0, and keeps scale and zero-point.
Other readers of the padded tensor keep the Pad. Numeric effect: bit exact, because a convolution pads with real 0,
which is the zero-point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from converters.passes.base import Changed, Rewrite, Skipped
from converters.passes.qdq import Link, link, node, producer

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class _Match:
    before: Link
    pad: ir.Node
    after: Link
    middle: Link
    spatial: tuple[int, ...]


class FoldPad(Rewrite):
    """Moves Pad nodes into the ``pads`` of convolutions."""

    title = "fold pad"

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Rewrite every convolution behind a Pad; yield one line per convolution."""
        for conv in [n for n in graph if n.op_type == "Conv"]:
            found = _match(conv)
            if isinstance(found, Skipped):
                yield found
            elif found is not None:
                _fold(graph, conv, found)
                yield Changed(f"{found.pad.name}: now the padding of {conv.name}")


def _match(conv: ir.Node) -> _Match | Skipped | None:
    """The Pad in front of ``conv``; None where there is none."""
    name = str(conv.name)
    middle = link(producer(conv.inputs[0]), "DequantizeLinear")
    after = link(producer(middle.source), "QuantizeLinear") if middle else None
    pad = producer(after.source) if after else None
    if middle is None or after is None or pad is None or pad.op_type != "Pad":
        return None
    before = link(producer(pad.inputs[0]), "DequantizeLinear")
    if before is None or not (before.matches(after) and after.matches(middle)):
        return Skipped(name, f"{pad.name} changes scale or zero-point")
    spatial = _zero_padding(pad)
    if isinstance(spatial, str):
        return Skipped(name, f"{pad.name} {spatial}")
    if conv.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return Skipped(name, "its padding is automatic")
    return _Match(before, pad, after, middle, spatial)


def _zero_padding(pad: ir.Node) -> tuple[int, ...] | str:
    """The spatial pads, beginnings before ends, or what forbids folding them."""
    if pad.attributes.get_string("mode", "constant") != "constant" or len(pad.inputs) > 3:
        return "does not pad with a constant along all axes"
    pads = ir.convenience.get_const_tensor(pad.inputs[1]) if pad.inputs[1] is not None else None
    if pads is None:
        return "computes its padding at run time"
    if len(pad.inputs) > 2 and pad.inputs[2] is not None:
        value = ir.convenience.get_const_tensor(pad.inputs[2])
        if value is None or value.numpy().any():
            return "pads with another value than 0"
    begins, ends = np.split(pads.numpy(), 2)
    if begins[:2].any() or ends[:2].any() or (begins < 0).any() or (ends < 0).any():
        return "pads batch or channels, or crops"
    return tuple(int(n) for n in (*begins[2:], *ends[2:]))


def _fold(graph: ir.Graph, conv: ir.Node, found: _Match) -> None:
    own = conv.attributes.get_ints("pads", [0] * len(found.spatial))
    total = [a + b for a, b in zip(own, found.spatial, strict=True)]
    source = node(
        "DequantizeLinear", [found.before.source, *found.middle.node.inputs[1:]], f"{conv.name}/unpadded"
    )
    graph.insert_before(conv, source)
    conv.replace_input_with(0, source.outputs[0])
    conv.attributes["pads"] = ir.AttrInt64s("pads", total)
    conv.attributes.pop("auto_pad", None)
    for old in (found.middle.node, found.after.node, found.pad, found.before.node):
        if not old.outputs[0].uses() and not old.outputs[0].is_graph_output():
            graph.remove(old, safe=True)
