"""Static part for Keras sources that were quantised at conversion: scales and zero-points of activations.

They come from photographs, so the source does not tell them. What must hold is told by the graph itself: a value is read with
the scale and zero-point with which it was written, pools and other movers have one pair on both sides, the pixels' pair is
their rescaling, and a ReLU that has no node must be the end of its codes' range. (``keras_constants`` ties every input scale
to the bias behind it.)
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.spec import HEAD
from xdet.checking.numbers.context import QUANTIZERS, pair_of
from xdet.checking.numbers.segments import PICTURE
from xdet.checking.numbers.slopes import is_summand

if TYPE_CHECKING:
    from xdet.checking.numbers.layers import Clamp
    from xdet.checking.numbers.segments import KerasContext, Segment
    from xdet.model.graph import Node

MOVERS = frozenset(
    {"MaxPool", "Reshape", "Transpose", "Concat", "Slice", "Split", "Pad", "Gather", "Identity", "Tile"}
)


@dataclass(frozen=True, slots=True)
class _Pair:
    """Scale and zero-point of one node; ``node`` is its title."""

    node: str
    scale: np.float32
    zero_point: int
    unsigned: bool


def compare_pairs(context: KerasContext) -> None:
    """Compare every QuantizeLinear and DequantizeLinear of the network with the others on the same values."""
    groups: dict[str, list[_Pair]] = defaultdict(list)
    for node in _network(context):
        if node.op not in QUANTIZERS or context.graph.constant(node.inputs[0]) is not None:
            continue
        if node.op == "DequantizeLinear" and is_summand(context.graph, node):
            continue  # judged with its sum
        pair = _pair_of(context, node)
        codes = node.inputs[0] if node.op == "DequantizeLinear" else node.outputs[0]
        root = _root(context, codes)
        if pair is None:
            context.fault(
                "scale",
                context.layers.get(root),
                f"{node.op} {node.name!r}: expected one constant scale and zero-point; convert the source again",
            )
            continue
        context.compared += 2
        groups[root].append(pair)
    for root, pairs in groups.items():
        _compare_group(context, _layer_of(context, root), _expected(context, root, pairs), pairs)


def _network(context: KerasContext) -> list[Node]:
    """The nodes in front of the raw head."""
    found: list[Node] = []
    for node in context.graph.nodes:
        found.append(node)
        if HEAD in node.outputs:
            break
    return found


def _root(context: KerasContext, codes: str) -> str:
    """The value whose codes these are, in front of everything that only moves them."""
    while True:
        writer = context.graph.producers.get(codes)
        if writer is None:
            return codes
        if writer.op in MOVERS:
            codes = writer.inputs[0]
            continue
        if writer.op != "QuantizeLinear":
            return codes
        mover = context.graph.producers.get(writer.inputs[0])
        while mover is not None and mover.op in MOVERS:
            before = context.graph.producers.get(mover.inputs[0])
            if before is not None and before.op == "DequantizeLinear":
                codes = before.inputs[0]
                break
            mover = before
        else:
            return codes


def _layer_of(context: KerasContext, root: str) -> str:
    """The layer whose codes a value holds, or the next one behind it."""
    waiting, seen = [root], set[str]()
    while waiting:
        value = waiting.pop(0)
        if value in context.layers:
            return context.layers[value]
        if value in seen:
            continue
        seen.add(value)
        waiting += [name for node in context.graph.readers(value) for name in node.outputs]
    return PICTURE if root in ("pixels", "image") else context.source.output


def _expected(context: KerasContext, root: str, pairs: list[_Pair]) -> _Pair:
    """What all pairs on one value must be: the pixels' rescaling, else what most of them are."""
    if root in ("pixels", "image"):
        rescaling = context.document.spec.image.rescaling
        zero = min(max(round(-rescaling.offset / rescaling.scale), 0), 255)
        shift = 0 if pairs[0].unsigned else -128
        return _Pair("the rescaling", np.float32(rescaling.scale), zero + shift, pairs[0].unsigned)
    if context.document.symmetric:
        return _Pair("a symmetric network", pairs[0].scale, 0, unsigned=False)
    same = [sum((p.scale, p.zero_point) == (q.scale, q.zero_point) for q in pairs) for p in pairs]
    return pairs[int(np.argmax(same))]


def _compare_group(context: KerasContext, layer: str, expected: _Pair, pairs: list[_Pair]) -> None:
    for pair in pairs:
        if pair.scale != expected.scale:
            ratio = float(pair.scale) / float(expected.scale) - 1
            context.fault(
                "scale",
                layer,
                f"scale of {layer!r} in {pair.node}: expected {expected.scale:.9g} as in {expected.node}, found "
                f"{pair.scale:.9g} ({ratio:+.2%})",
            )
        elif pair.zero_point != expected.zero_point or pair.unsigned != expected.unsigned:
            context.fault(
                "zero-point",
                layer,
                f"zero-point of {layer!r} in {pair.node}: expected {expected.zero_point} as in {expected.node}, found "
                f"{pair.zero_point}",
            )


def _pair_of(context: KerasContext, node: Node) -> _Pair | None:
    found = pair_of(context, node)
    return None if found is None else _Pair(f"{node.op} {node.name!r}", *found)


def keeps_limits(context: KerasContext, segment: Segment, layer: str, clamp: Clamp) -> None:
    """A ReLU without a node: the codes behind it must begin at 0, and end at its upper limit if it has one."""
    writers = [node for node in segment.nodes if node.op == "QuantizeLinear"]
    pair = _pair_of(context, writers[-1]) if writers else None
    if pair is None:
        return
    lowest, highest = (0, 255) if pair.unsigned else (-128, 127)
    step = float(pair.scale)
    low, high = ((code - pair.zero_point) * step for code in (lowest, highest))
    context.compared += 2
    if low < -step / 2 or (clamp.high is not None and high > clamp.high + step / 2):
        told = f"expected 0 to {clamp.high}" if clamp.high is not None else "expected 0 upwards"
        context.fault(
            "zero-point",
            layer,
            f"{layer!r} has no ReLU of its own, so its codes must not leave its range: {told}, found {low:.6g} to {high:.6g} "
            f"in {pair.node}",
        )
