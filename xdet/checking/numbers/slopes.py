"""Static part, LeakyReLUs and requantisations: the node with the source's slope, or nodes that give the same 256 codes.

A node behind a DequantizeLinear is judged by the table that both make: neither its scale nor its slope need be the
source's. As a sum (pass ``leaky as sum``), two readings of the input's codes are added, all of them at one scale and
those above the zero-point at another (``converters.leaky``); neither scale is the tensor's own, so both are judged
together, here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.integer.functions import requantized_table
from converters.leaky import FloatForm, LeakyCase, SumForm, fitted_sum, float_table, plain_form, sum_table
from xdet.checking.numbers.comparison import pair_of, writer_past
from xdet.checking.numbers.tflite_source import number, owners_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from converters.leaky import CodeTable
    from xdet.checking.numbers.comparison import StaticComparison
    from xdet.checking.numbers.tflite_source import TfliteComparison
    from xdet.checking.result import Cause
    from xdet.model.graph import FinishedGraph, Node

SAME_TOTAL = 2.0**-10  # as a fraction: factors of positive codes this close are the same slope's


@dataclass(frozen=True, eq=False, slots=True)
class Promised:
    """A LeakyReLU that a layer of the source computes of a tensor: its case on int8 codes, and its 256 codes."""

    layer: str
    tensor: str
    operator: str
    case: LeakyCase
    table: CodeTable

    def differing(self, codes: CodeTable) -> int:
        """How many codes are others."""
        return int(np.count_nonzero(codes != self.table))


@dataclass(frozen=True, slots=True)
class LeakySum:
    """The nodes of one LeakyReLU: all codes and those above the zero-point, both dequantised, and their sum."""

    whole: Node
    excess: Node
    maximum: Node
    add: Node


def leaky_sum_of(graph: FinishedGraph, add: Node) -> LeakySum | None:
    """The LeakyReLU that ends in ``add``; None where it is another sum."""
    if add.op != "Add":
        return None
    whole, excess = (graph.producers.get(name) for name in add.inputs[:2])
    if whole is None or excess is None or {whole.op, excess.op} != {"DequantizeLinear"}:
        return None
    maximum = graph.producers.get(excess.inputs[0])
    if maximum is None or maximum.op != "Max" or maximum.inputs[0] != whole.inputs[0]:
        return None
    if not len(whole.inputs) == len(excess.inputs) == 3 or len(maximum.inputs) != 2:
        return None
    return LeakySum(whole, excess, maximum, add)


def is_summand(graph: FinishedGraph, dequantize: Node) -> bool:
    """Whether a DequantizeLinear belongs to a LeakyReLU that stands as a sum."""
    add = graph.only_reader(dequantize.outputs[0])
    return add is not None and leaky_sum_of(graph, add) is not None


def is_leaky_sum(graph: FinishedGraph, node: Node) -> bool:
    """Whether a node is the Add, or the Max, of a LeakyReLU that stands as a sum."""
    if node.op == "Max":
        behind = graph.only_reader(node.outputs[0])
        return behind is not None and is_summand(graph, behind)
    return leaky_sum_of(graph, node) is not None


def compare_sum(context: StaticComparison, nodes: LeakySum, promised: Sequence[Promised]) -> None:
    """Compare a LeakyReLU that stands as a sum with the nearest of those that it may stand for."""
    pairs = [pair_of(context, node) for node in (nodes.whole, nodes.excess)]
    if pairs[0] is None or pairs[1] is None or not promised:
        context.fault("slope", None, f"Add {nodes.add.name!r} stands for no operator of the source")
        return
    form = SumForm(pairs[0].scale, pairs[1].scale)
    best = min(promised, key=lambda choice: choice.differing(sum_table(choice.case, form)))
    context.compared += 4
    _compare_zero_points(context, nodes, best)
    differing, slope = best.differing(sum_table(best.case, form)), float(best.case.slope)
    if differing:
        cause, message = _fault(nodes, form, fitted_sum(best.case, best.table))
        codes = f"{differing} of 256 codes behind {best.layer!r}"
        context.fault(cause, best.layer, f"{codes} differ from the source's (slope {slope:.6g}): {message}")
        return
    written = float(form.whole / (form.whole + form.excess))
    proof = f"all 256 codes of the sum equal those that are promised for {best.operator}"
    context.prove(best.tensor, best.layer, "slope", proof, source=slope, written=written)


def _compare_zero_points(context: StaticComparison, nodes: LeakySum, promised: Promised) -> None:
    """Both readings and the maximum have the input's zero-point."""
    expected = promised.case.zero_point_in + 128
    for node, name in (
        (nodes.whole, nodes.whole.inputs[2]),
        (nodes.excess, nodes.excess.inputs[2]),
        (nodes.maximum, nodes.maximum.inputs[1]),
    ):
        constant = context.graph.constant(name)
        if constant is None or constant.dtype != np.uint8 or constant.reshape(-1).tolist() != [expected]:
            message = "no constant" if constant is None else f"{constant.dtype} {constant.reshape(-1).tolist()}"
            where = f"{node.op} {node.name!r} of {promised.layer!r}"
            message = f"zero-point in {where}: expected uint8 [{expected}], found {message}"
            context.fault("zero-point", promised.layer, message)


def _fault(nodes: LeakySum, form: SumForm, expected: SumForm | None) -> tuple[Cause, str]:
    """Which number makes the codes differ: the slope where positive codes have their factor, else a scale."""
    total = float(form.whole) + float(form.excess)
    if expected is None or abs(total / (float(expected.whole) + float(expected.excess)) - 1) < SAME_TOTAL:
        return "slope", f"the graph has slope {float(form.whole) / total:.6g}"
    pairs = ((nodes.whole, form.whole, expected.whole), (nodes.excess, form.excess, expected.excess))
    node, scale, wanted = max(pairs, key=lambda pair: abs(float(pair[1]) / float(pair[2]) - 1))
    ratio = float(scale) / float(wanted) - 1
    return ("scale", f"scale in {node.op} {node.name!r}: expected {wanted:.9g}, found {scale:.9g} ({ratio:+.2%})")


def between_pairs(context: StaticComparison, nodes: LeakySum, layer: str, slope: float) -> Promised | None:
    """A real LeakyReLU between the graph's own scales: as its input is written, and its result read."""
    writer = writer_past(context.graph, nodes.whole.inputs[0], ("Transpose", "Reshape"))
    before, after = pair_of(context, writer), pair_of(context, context.graph.only_reader(nodes.add.outputs[0]))
    if before is None or after is None or not before.unsigned or not after.unsigned:
        return None
    case = LeakyCase(before.scale, before.zero_point - 128, after.scale, after.zero_point - 128, np.float32(slope))
    return Promised(layer, layer, "LeakyReLU", case, float_table(case, plain_form(case)))


def promised_of(context: TfliteComparison, owners: Iterable[int]) -> list[Promised]:
    """The LeakyReLUs and requantisations (of slope 1) of a TFLite source that read one of these tensors.

    Their codes are those of LiteRT's kernel where the conversion was asked for these.
    """
    promises, source = [], context.source
    for op in (op for owner in owners for op in source.activations_of(owner)):
        case = case_between(context, op.inputs[0], op.outputs[0], number(op, "alpha", 1.0))
        if case is None:
            continue
        if context.document.leaky_relu != "litert":
            table = float_table(case, plain_form(case))
        else:
            read, written = (context.tensor(index) for index in (op.inputs[0], op.outputs[0]))
            changes_type, count = read.dtype != written.dtype, math.prod(read.shape)
            table = requantized_table(op.op, case, changes_type=changes_type, count=count)
        promises.append(Promised(source.output_name(op), source.names[op.inputs[0]], op.op, case, table))
    return promises


def case_between(context: TfliteComparison, before_op: int, after_op: int, slope: float) -> LeakyCase | None:
    """The arithmetic on int8 codes between two tensors; None where one is not quantised."""
    source, target = (context.tensor(i) for i in (before_op, after_op))
    if source.quant is None or target.quant is None:
        return None
    before, after = (-128 if t.dtype == "uint8" else 0 for t in (source, target))
    return LeakyCase(
        scale_in=source.quant.scalar_scale,
        zero_point_in=source.quant.scalar_zero_point + before,
        scale_out=target.quant.scalar_scale,
        zero_point_out=target.quant.scalar_zero_point + after,
        slope=np.float32(slope),
        unsigned=target.dtype == "uint8",
    )


def leaky_match(context: TfliteComparison, form: FloatForm, owners: Iterable[int]) -> tuple[Promised, int] | None:
    """The operator that a LeakyRelu node stands for, with its differing codes; of several, the one that fits best."""
    promises = promised_of(context, owners)
    counts = [choice.differing(float_table(choice.case, form)) for choice in promises]
    return min(zip(promises, counts, strict=True), key=lambda match: match[1], default=None)


def compare_slope(context: TfliteComparison, node: Node) -> None:
    """The slope, proven by the table it makes with the scale in front of it, which is judged by itself."""
    pair = pair_of(context, context.graph.producers.get(node.inputs[0]))
    if pair is None or pair.node.op != "DequantizeLinear":
        return
    alpha = np.float32(node.attributes.get("alpha", 0.01))
    owners = owners_of(context, pair.codes)
    matched = leaky_match(context, FloatForm(pair.scale, alpha), owners)
    context.compared += 1
    dequantized = any(op.op == "DEQUANTIZE" for owner in owners for op in context.source.readers.get(owner, ()))
    if alpha == 1 and dequantized and (matched is None or matched[1]):
        return  # the identity, which keeps apart the roundings in front of a DEQUANTIZE and behind its QUANTIZE
    if matched is None:
        context.fault("slope", None, f"LeakyRelu {node.name!r} stands for no operator of the source")
        return
    op, differing = matched
    slope = op.case.slope
    if differing and alpha != announced(context, op.layer, "slope", slope):
        codes = f"{differing} of 256 codes behind {op.operator} {op.layer!r}"
        message = f"the graph has slope {float(alpha):.6g} behind scale {float(pair.scale):.6g}"
        context.fault("slope", op.layer, f"{codes} differ from the source's (slope {float(slope):.6g}): {message}")
    elif not differing and alpha != slope:
        proof = f"all 256 codes behind {op.operator} equal LiteRT's"
        context.prove(op.tensor, op.layer, "slope", proof, source=float(slope), written=float(alpha))


def announced(context: TfliteComparison, operator: str, kind: str, otherwise: np.float32) -> np.float32:
    """The number that the document says was written for an operator; it tells whom to blame, and proves nothing."""
    written = [d.written for d in context.document.deviations if d.operator == operator and d.kind == kind]
    return otherwise if not written or written[0] is None else np.float32(written[0])
