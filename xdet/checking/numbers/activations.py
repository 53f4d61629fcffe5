"""Static part, activations: every QuantizeLinear and DequantizeLinear has the scale and zero-point that its codes have.

A TFLite source states them for each tensor. Other numbers must be proven to compute the same codes:

* LeakyReLU and requantisation: the 256 codes of the pair DequantizeLinear -> LeakyRelu -> QuantizeLinear, computed in
  float32, equal those of XNNPACK's integer recipe (``converters.leaky``) entry by entry.
* Sums and products of two tensors: by every pair of codes (``codes``).
* What a uint8 CONCATENATION, a RELU or a LOGISTIC reads by another scale: by its 256 codes (``converters.integer``).
* Codes that are only moved: TFLite's kernels do not look at the scale of the output.
* Averages (AveragePool, ReduceMean, Resize): a mean commutes with a shift and a scaling of all codes, so zero-points
  that move together and scales whose ratio is kept change no mean; the ratio may be off by 2^-14, which decides exact
  ties alone.
* Softmax: its factor beta stands in the scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.integer.functions import concatenated_table, keeps_away, logistic_table, rescaled_table
from converters.leaky import FloatForm, LeakyCase, float_table
from converters.sources.tflite.operators import MOVING
from converters.spec import HEAD
from xdet.checking.numbers.codes import combination_at, prove_pairs
from xdet.checking.numbers.comparison import QUANTIZERS, pair_of, writer_past
from xdet.checking.numbers.slopes import announced, case_between, is_summand, leaky_match
from xdet.checking.numbers.tflite_source import number, owners_of, shift_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converters.sources.tflite.reader import TfliteOperator
    from xdet.checking.numbers.comparison import Pair, StaticComparison
    from xdet.checking.numbers.tflite_source import TfliteComparison
    from xdet.checking.result import Cause
    from xdet.model.graph import Node


def compare_activations(context: TfliteComparison) -> None:
    """Compare every pair with the tensor whose codes it reads or writes."""
    faults: dict[tuple[Cause, str, str], list[str]] = {}
    unaccounted: list[str] = []  # quantised values that belong to no tensor of the source
    for pair in network_pairs(context):
        if (combination := combination_at(context, pair.node)) is not None and combination.steps:
            continue  # judged by its codes (``compare_steps``)
        owners = owners_of(context, pair.codes)
        if not owners:
            unaccounted.append(pair.codes)
            continue
        context.compared += 2
        differences = [_difference(context, index, pair) for index in owners]
        if all(differences) and not _prove(context, pair, owners):
            cause, message = next(difference for difference in differences if difference)
            faults.setdefault((cause, context.source.names[owners[0]], message), []).append(pair.title)
    for (cause, layer, message), nodes in faults.items():
        context.fault(cause, layer, f"{cause} of {layer!r} in {', '.join(nodes)}: {message}")
    if unaccounted:
        context.remarks.append(f"{len(unaccounted)} pairs belong to no source tensor: {', '.join(unaccounted[:3])}")


def _difference(context: TfliteComparison, index: int, pair: Pair) -> tuple[Cause, str] | None:
    """What differs from source tensor ``index``: (cause, message), or None."""
    quant, names = context.quant(index), context.source.names
    zero_point = quant.scalar_zero_point + shift_of(context, index, unsigned=pair.unsigned)
    scale = quant.scalar_scale
    if pair.zero_point != zero_point:  # to blame where the document says that an activation reads with this scale
        operators = [context.source.output_name(op) for op in context.source.activations_of(index)]
        if any(pair.scale == announced(context, operator, "scale", scale) for operator in operators):
            scale = pair.scale
    return Expected(names[index], scale, zero_point, pair.unsigned).difference(pair)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a pair must be, with whose numbers these are."""

    layer: str
    scale: np.float32
    zero_point: int
    unsigned: bool
    like: str = ""

    def difference(self, pair: Pair) -> tuple[Cause, str] | None:
        """How a pair differs: its cause, and in words."""
        if pair.scale != self.scale:
            ratio = float(pair.scale) / float(self.scale) - 1
            return "scale", f"expected {self.scale:.9g}{self.like}, found {pair.scale:.9g} ({ratio:+.2%})"
        if (pair.zero_point, pair.unsigned) != (self.zero_point, self.unsigned):
            return "zero-point", f"expected {self.zero_point}{self.like}, found {pair.zero_point}"
        return None


def network_pairs(context: StaticComparison) -> Iterator[Pair]:
    """The pairs of the network, in front of the raw head; one without constant numbers is told."""
    for node in context.graph.nodes:
        if node.op in QUANTIZERS and context.graph.constant(node.inputs[0]) is None:
            pair = pair_of(context, node)
            if pair is None:
                message = "expected one constant scale and zero-point; convert the source again"
                context.fault("scale", None, f"{node.op} {node.name!r}: {message}")
            elif not (node.op == "DequantizeLinear" and is_summand(context.graph, node)):  # judged with its sum
                yield pair
        if HEAD in node.outputs:
            return


AVERAGES = frozenset({"AveragePool", "ReduceMean", "Resize", "GlobalAveragePool"})
VIEWS = frozenset({"Reshape", "Transpose"})  # between an average and what writes its codes
TIE_ROOM = 2.0**-14
RESCALED = frozenset({"CONCATENATION", "LOGISTIC", "RELU", "RELU6", "RELU_N1_TO_1"})
MOVES = frozenset(
    {"Max", "Min", "ReduceMax", "ReduceMin", "Transpose", "Reshape", "Slice", "Gather", "Tile", "Split", "Resize"}
)


def _prove(context: TfliteComparison, pair: Pair, owners: tuple[int, ...]) -> bool:
    """Whether a pair with other numbers than its tensor computes the same codes; what was proven is remembered."""
    node = pair.node
    if (combination := combination_at(context, node)) is not None:
        return prove_pairs(context, combination, node)
    for owner in owners:  # codes may be read as the numbers that a CAST takes them for
        is_cast = any(op.op == "CAST" for op in context.source.readers.get(owner, ()))
        if is_cast and pair.scale == 1 and pair.zero_point == shift_of(context, owner, unsigned=pair.unsigned):
            return True
    if node.op == "DequantizeLinear":
        reader = context.graph.only_reader(node.outputs[0])
        return reader is not None and any(
            proof(context, pair, reader, owners) for ops, proof in PROOFS_BY_READER if reader.op in ops
        )
    average = writer_past(context.graph, node.inputs[0], VIEWS)
    before = context.graph.producers.get(average.inputs[0]) if average and average.op in AVERAGES else None
    # what the average's own DequantizeLinear proves holds for the QuantizeLinear behind it
    return before is not None and before.op == "DequantizeLinear" and _ratio_kept(context, before, pair)


def _prove_leaky(context: TfliteComparison, pair: Pair, leaky: Node, owners: tuple[int, ...]) -> bool:
    form = FloatForm(pair.scale, np.float32(leaky.attributes.get("alpha", 0.01)))
    matched = leaky_match(context, form, owners)
    if matched is None:
        return False
    op, differing = matched
    if pair.zero_point != op.case.zero_point_in + (128 if pair.unsigned else 0):
        return False
    if differing:  # the slope's fault, which is told there, where the scale is the one that was announced
        return bool(pair.scale == announced(context, op.layer, "scale", op.case.scale_in))
    proof = f"all 256 codes behind {op.operator} equal LiteRT's"
    context.prove(op.tensor, op.layer, "scale", proof, source=float(op.case.scale_in), written=float(pair.scale))
    return True


def _makes_codes(op: TfliteOperator, case: LeakyCase, scale: np.float32) -> bool:
    """Whether an operator of ``RESCALED`` gives LiteRT's 256 codes when it reads its input by another scale."""
    if op.op == "LOGISTIC":
        return keeps_away(case, scale, logistic_table(case))
    wanted = concatenated_table(case) if op.op == "CONCATENATION" else rescaled_table(op.op, case)
    return np.array_equal(float_table(case, FloatForm(scale, np.float32(1))), wanted)


def _prove_rescaled(context: TfliteComparison, pair: Pair, reader: Node, owners: tuple[int, ...]) -> bool:
    """An input that is read by another scale: all 256 codes are those of LiteRT's kernel."""
    op, to_int8 = _maker_behind(context, reader), -128 if pair.unsigned else 0
    if op is None or op.op not in RESCALED:
        return False
    for owner in set(owners) & set(op.inputs):
        case = case_between(context, owner, op.outputs[0], 1.0)
        if case is None or pair.zero_point + to_int8 != case.zero_point_in:
            continue
        if _makes_codes(op, case, pair.scale):
            proof = f"all 256 codes equal those of LiteRT's {op.op}"
            _prove_scale(context, owner, context.source.output_name(op), pair.scale, proof)
            return True
    return False


def _prove_moved(context: TfliteComparison, pair: Pair, mover: Node, owners: tuple[int, ...]) -> bool:
    """Codes that are only moved: read as the tensor they become, and written so again."""
    behind: Node | None = mover
    while behind is not None and behind.op in MOVES:
        mover, behind = behind, context.graph.only_reader(behind.outputs[0])
    op, written = _maker_behind(context, mover), pair_of(context, behind)
    if op is None or op.op not in MOVING or written is None or written.node.op != "QuantizeLinear":
        return False
    common, of_pair = set(owners) & set(op.inputs), (pair.scale, pair.zero_point, pair.unsigned)
    if not common or (written.scale, written.zero_point, written.unsigned) != of_pair:
        return False
    proof = f"{op.op} moves codes, whatever the scale of its output"
    _prove_scale(context, min(common), context.source.output_name(op), pair.scale, proof)
    return True


def _maker_behind(context: TfliteComparison, node: Node) -> TfliteOperator | None:
    """The source operator whose result stands behind the QuantizeLinear that closes ``node``."""
    quantize = context.graph.only_reader(node.outputs[0])
    if quantize is None or quantize.op != "QuantizeLinear":
        return None
    makers = [context.source.makers.get(owner) for owner in owners_of(context, quantize.outputs[0])]
    return next((op for op in makers if op is not None), None)


def _prove_scale(context: TfliteComparison, index: int, operator: str, written: np.float32, proof: str) -> None:
    """Remember another scale of a tensor."""
    source = float(context.quant(index).scalar_scale)
    context.prove(context.source.names[index], operator, "scale", proof, source=source, written=float(written))


def _prove_average(context: TfliteComparison, pair: Pair, average: Node, owners: tuple[int, ...]) -> bool:
    behind = context.graph.only_reader(average.outputs[0])
    while behind is not None and behind.op in VIEWS:
        behind = context.graph.only_reader(behind.outputs[0])
    written = pair_of(context, behind)
    if written is None or written.node.op != "QuantizeLinear" or not _ratio_kept(context, pair.node, written):
        return False
    proof = f"{average.op} commutes with the shift and scaling of both sides; only exact ties move, to LiteRT's side"
    _prove_scale(context, owners[0], written.codes, pair.scale, proof)
    return True


def _ratio_kept(context: TfliteComparison, before: Node, second: Pair) -> bool:
    """Whether two pairs around a mean keep the ratio of scales and the difference of zero-points of their tensors."""
    first, owners = pair_of(context, before), (owners_of(context, before.inputs[0]), owners_of(context, second.codes))
    if first is None or not owners[0] or not owners[1] or first.unsigned != second.unsigned:
        return False
    scales, moved = [], []
    for (owner, *_), pair in zip(owners, (first, second), strict=True):
        quant = context.quant(owner)
        scales.append(float(quant.scalar_scale))
        zero_point = quant.scalar_zero_point + shift_of(context, owner, unsigned=pair.unsigned)
        moved.append(pair.zero_point - zero_point)
    ratio = float(first.scale) / float(second.scale) / (scales[0] / scales[1]) - 1
    return abs(ratio) <= TIE_ROOM and moved[0] == moved[1]


def _prove_softmax(context: TfliteComparison, pair: Pair, _softmax: Node, owners: tuple[int, ...]) -> bool:
    for owner in owners:
        for op in context.source.readers.get(owner, ()):
            beta = np.float32(number(op, "beta", 1.0)) if op.op == "SOFTMAX" else None
            if beta is not None and pair.scale == context.quant(owner).scalar_scale * beta:
                proof = f"the scale holds SOFTMAX's factor beta = {float(beta):g}"
                _prove_scale(context, owner, context.source.output_name(op), pair.scale, proof)
                return True
    return False


Proof = Callable[["TfliteComparison", "Pair", "Node", tuple[int, ...]], bool]  # context, the pair, its reader, owners
PROOFS_BY_READER: tuple[tuple[frozenset[str], Proof], ...] = (
    (frozenset({"LeakyRelu"}), _prove_leaky),
    (frozenset({"Concat", "Clip", "Sigmoid"}), _prove_rescaled),
    (MOVES, _prove_moved),
    (AVERAGES, _prove_average),
    (frozenset({"Softmax"}), _prove_softmax),
)
