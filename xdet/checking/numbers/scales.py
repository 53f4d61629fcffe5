"""Static part, activations: every QuantizeLinear and DequantizeLinear has the scale and zero-point that its codes have.

A TFLite source states them for each tensor: whose codes a value holds tells ``context``, and other numbers must be
proven harmless (``proofs``). Those of a model that was quantised at conversion come from photographs, and its source
does not know them; the graph itself must agree: a value is read with the numbers with which it was written, pools and
other movers have one pair on both sides, and the pixels' pair is their rescaling. (``keras`` ties every input
scale to the bias behind it.)
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.spec import HEAD
from xdet.checking.numbers.codes import combination_at
from xdet.checking.numbers.context import MOVERS, QUANTIZERS, owners_of, pair_of, shift_of
from xdet.checking.numbers.keras_layers import PICTURE
from xdet.checking.numbers.proofs import prove
from xdet.checking.numbers.slopes import announced, is_summand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdet.checking.numbers.context import StaticComparison, StaticContext
    from xdet.checking.numbers.keras_layers import KerasContext, Segment
    from xdet.checking.numbers.layers import Clamp
    from xdet.checking.result import Cause
    from xdet.model.graph import Node

PIXELS = ("pixels", "image")
SAME_PAIR = MOVERS - {"Max", "Min", "ReduceMax", "ReduceMin", "Clip"}  # on both sides, where photographs tell the pairs


@dataclass(frozen=True, slots=True)
class _Pair:
    """Scale and zero-point by which a node reads or writes ``codes``."""

    node: Node
    codes: str
    scale: np.float32
    zero_point: int
    unsigned: bool

    @property
    def title(self) -> str:
        return f"{self.node.op} {self.node.name!r}"


@dataclass(frozen=True, slots=True)
class _Expected:
    """What a pair must be, with whose numbers these are."""

    layer: str
    scale: np.float32
    zero_point: int
    unsigned: bool
    like: str = ""

    def difference(self, found: _Pair) -> tuple[Cause, str] | None:
        """How a pair differs: its cause, and in words."""
        if found.scale != self.scale:
            ratio = float(found.scale) / float(self.scale) - 1
            return "scale", f"expected {self.scale:.9g}{self.like}, found {found.scale:.9g} ({ratio:+.2%})"
        if (found.zero_point, found.unsigned) != (self.zero_point, self.unsigned):
            return "zero-point", f"expected {self.zero_point}{self.like}, found {found.zero_point}"
        return None


def _pairs(context: StaticComparison) -> Iterator[_Pair]:
    """The pairs of the network, in front of the raw head; one without constant numbers is told."""
    for node in context.graph.nodes:
        if node.op in QUANTIZERS and context.graph.constant(node.inputs[0]) is None:
            pair, is_read = pair_of(context, node), node.op == "DequantizeLinear"
            if pair is None:
                message = (
                    f"{node.op} {node.name!r}: expected one constant scale and zero-point; convert the source again"
                )
                context.fault("scale", None, message)
            elif not (is_read and is_summand(context.graph, node)):  # judged with its sum
                yield _Pair(node, node.inputs[0] if is_read else node.outputs[0], *pair)
        if HEAD in node.outputs:
            return


def compare_activations(context: StaticContext) -> None:
    """Compare every pair with the tensor whose codes it reads or writes."""
    faults: dict[tuple[Cause, str, str], list[str]] = {}
    for pair in _pairs(context):
        if (combination := combination_at(context, pair.node)) is not None and combination.steps:
            continue  # judged by its codes (``compare_steps``)
        owners = owners_of(context, pair.codes)
        if not owners:
            context.unaccounted.append(pair.codes)
            continue
        context.compared += 2
        differences = [_difference(context, index, pair) for index in owners]
        if all(differences) and not prove(context, pair.node, owners):
            cause, message = next(difference for difference in differences if difference)
            faults.setdefault((cause, context.source.names[owners[0]], message), []).append(pair.title)
    for (cause, layer, message), nodes in faults.items():
        context.fault(cause, layer, f"{cause} of {layer!r} in {', '.join(nodes)}: {message}")


def _difference(context: StaticContext, index: int, found: _Pair) -> tuple[Cause, str] | None:
    """What differs from source tensor ``index``: (cause, message), or None."""
    quant, names = context.quant(index), context.source.names
    zero_point = quant.scalar_zero_point + shift_of(context, index, unsigned=found.unsigned)
    scale = quant.scalar_scale
    if found.zero_point != zero_point:  # to blame where the document says that an activation reads with this scale
        operators = [context.source.output_name(op) for op in context.source.activations_of(index)]
        if any(found.scale == announced(context, operator, "scale", scale) for operator in operators):
            scale = found.scale
    return _Expected(names[index], scale, zero_point, found.unsigned).difference(found)


def compare_pairs(context: KerasContext) -> None:
    """Compare every pair with the others on the same codes."""
    groups: dict[str, list[_Pair]] = defaultdict(list)
    for pair in _pairs(context):
        context.compared += 2
        groups[_root(context, pair.codes)].append(pair)
    for root, pairs in groups.items():
        expected = _expected(context, root, pairs)
        for pair in pairs:
            if (difference := expected.difference(pair)) is not None:
                cause, message = difference
                context.fault(cause, expected.layer, f"{cause} of {expected.layer!r} in {pair.title}: {message}")


def _root(context: KerasContext, codes: str) -> str:
    """The value whose codes these are, in front of everything that only moves them."""
    while True:
        writer = context.graph.producers.get(codes)
        if writer is None:
            return codes
        if writer.op in SAME_PAIR:
            codes = _moved(context, writer)
            continue
        if writer.op != "QuantizeLinear":
            return codes
        mover = context.graph.producers.get(writer.inputs[0])
        while mover is not None and mover.op in SAME_PAIR:
            before = context.graph.producers.get(_moved(context, mover))
            if before is not None and before.op == "DequantizeLinear":
                codes = before.inputs[0]
                break
            mover = before
        else:
            return codes


def _moved(context: KerasContext, mover: Node) -> str:
    """What a node moves: its first operand that is no constant."""
    return next((name for name in mover.inputs if context.graph.constant(name) is None), mover.inputs[0])


def _expected(context: KerasContext, root: str, pairs: list[_Pair]) -> _Expected:
    """What all pairs on one value must be: the pixels' rescaling, else what most of them are."""
    layer = _layer_of(context, root)
    if root in PIXELS:
        rescaling = context.document.spec.image.rescaling
        zero = min(max(round(-rescaling.offset / rescaling.scale), 0), 255)
        shift = 0 if pairs[0].unsigned else -128
        return _Expected(layer, np.float32(rescaling.scale), zero + shift, pairs[0].unsigned, " as in the rescaling")
    if context.document.symmetric:
        return _Expected(layer, pairs[0].scale, 0, unsigned=False, like=" as in a symmetric network")
    same = [sum((p.scale, p.zero_point) == (q.scale, q.zero_point) for q in pairs) for p in pairs]
    most = pairs[int(np.argmax(same))]
    return _Expected(layer, most.scale, most.zero_point, most.unsigned, f" as in {most.title}")


def _layer_of(context: KerasContext, root: str) -> str:
    """The layer whose codes a value holds, or the next one behind it."""
    waiting, seen = [root], set[str]()
    while waiting:
        value = waiting.pop(0)
        if value in context.layers:
            return context.layers[value]
        if value not in seen:
            seen.add(value)
            waiting += [name for node in context.graph.readers(value) for name in node.outputs]
    return PICTURE if root in PIXELS else context.source.output


def keeps_limits(context: KerasContext, segment: Segment, layer: str, clamp: Clamp) -> None:
    """A ReLU without a node: the codes behind it must begin at 0, and end at its upper limit if it has one."""
    writers = [node for node in segment.nodes if node.op == "QuantizeLinear"]
    pair = pair_of(context, writers[-1]) if writers else None
    if pair is None:
        return
    (scale, zero_point, unsigned), step = pair, float(pair[0])
    low, high = ((code - zero_point) * float(scale) for code in ((0, 255) if unsigned else (-128, 127)))
    context.compared += 2
    if low < -step / 2 or (clamp.high is not None and high > clamp.high + step / 2):
        limits = f"0 to {clamp.high}" if clamp.high is not None else "0 upwards"
        context.fault(
            "zero-point",
            layer,
            f"{layer!r} has no ReLU of its own, so its codes must not leave its range: expected {limits}, found "
            f"{low:.6g} to {high:.6g} in QuantizeLinear {writers[-1].name!r}",
        )
