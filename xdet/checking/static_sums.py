"""Static part, LeakyReLUs that stand as a sum (pass ``leaky as sum``): proven by their 256 codes.

Two readings of the input's codes are added, all of them at one scale and those above the zero-point at another
(``converters.leaky_sum``). Neither scale is the tensor's own, so both are judged together, here and not with the activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.leaky_sum import SumForm, fitted_sum, sum_table
from xdet.checking.result import ProvenChange
from xdet.checking.source_graph import number
from xdet.checking.static_owners import owners_of, pair_of, shift_of
from xdet.checking.static_proofs import leaky_case, promised_table

if TYPE_CHECKING:
    from converters.leaky import LeakyCase
    from converters.tflite.records import TfliteOperator
    from xdet.checking.finished_graph import FinishedGraph, Node
    from xdet.checking.result import Cause
    from xdet.checking.static_context import StaticContext

SAME_TOTAL = 2.0**-10  # as a fraction: factors of positive codes this close are the same slope's


@dataclass(frozen=True, slots=True)
class LeakySum:
    """The nodes of one LeakyReLU.

    Attributes:
        whole: DequantizeLinear of all codes.
        excess: DequantizeLinear of the codes above the zero-point.
        maximum: Max of the codes and the zero-point.
        add: the sum.
    """

    whole: Node
    excess: Node
    maximum: Node
    add: Node


def leaky_sum_of(graph: FinishedGraph, add: Node) -> LeakySum | None:
    """The LeakyReLU that ends in ``add``; None where it is another sum."""
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
    return add is not None and add.op == "Add" and leaky_sum_of(graph, add) is not None


def compare_sum(context: StaticContext, add: Node) -> None:
    """Compare a LeakyReLU that stands as a sum with its source operator; other sums are none of its business."""
    found = leaky_sum_of(context.graph, add)
    if found is None:
        return
    pairs = [pair_of(context, node) for node in (found.whole, found.excess)]
    owners = owners_of(context, found.whole.inputs[0], set())
    operators = [op for owner in owners for op in context.source.activations_of(owner)]
    cases = [(op, case) for op in operators if (case := leaky_case(context, op)) is not None]
    if pairs[0] is None or pairs[1] is None or not cases:
        context.fault("slope", None, f"Add {add.name!r} stands for no operator of the source")
        return
    context.compared += 4
    form = SumForm(pairs[0][0], pairs[1][0])
    op, case, differing = min(
        ((op, case, _count_differing(context, case, form)) for op, case in cases), key=lambda found: found[2]
    )
    layer = context.source.output_name(op)
    _compare_zero_points(context, found, op, layer)
    if differing:
        cause, told = _fault(found, form, fitted_sum(case, promised_table(context, case)))
        context.fault(
            cause, layer, f"{differing} of 256 codes behind {layer!r} differ from the source's: {told}"
        )
        return
    proof = f"all 256 codes of the sum equal those that are promised for {op.op}"
    slope, written = np.float32(number(op, "alpha", 1.0)), form.whole / (form.whole + form.excess)
    name = context.source.names[op.inputs[0]]
    context.proven.append(ProvenChange(name, layer, "slope", float(slope), float(written), proof))


def _count_differing(context: StaticContext, case: LeakyCase, form: SumForm) -> int:
    found, wanted = sum_table(case, form), promised_table(context, case)
    return int(np.count_nonzero(found != wanted))


def _compare_zero_points(context: StaticContext, found: LeakySum, op: TfliteOperator, layer: str) -> None:
    """Both readings and the maximum have the input's zero-point."""
    quant = context.source.model.tensors[op.inputs[0]].quant
    assert quant is not None  # noqa: S101 - it has a case
    expected = quant.scalar_zero_point + shift_of(context, op.inputs[0], unsigned=True)
    for node, name in (
        (found.whole, found.whole.inputs[2]),
        (found.excess, found.excess.inputs[2]),
        (found.maximum, found.maximum.inputs[1]),
    ):
        constant = context.graph.constant(name)
        if constant is None or constant.dtype != np.uint8 or constant.reshape(-1).tolist() != [expected]:
            told = "no constant" if constant is None else f"{constant.dtype} {constant.reshape(-1).tolist()}"
            context.fault(
                "zero-point",
                layer,
                f"zero-point in {node.op} {node.name!r} of {layer!r}: expected uint8 [{expected}], found {told}",
            )


def _fault(found: LeakySum, form: SumForm, expected: SumForm | None) -> tuple[Cause, str]:
    """Which number makes the codes differ: the slope where positive codes have their factor, else a scale."""
    total = float(form.whole) + float(form.excess)
    if expected is None or abs(total / (float(expected.whole) + float(expected.excess)) - 1) < SAME_TOTAL:
        return "slope", f"the graph has slope {float(form.whole) / total:.6g}"
    pairs = ((found.whole, form.whole, expected.whole), (found.excess, form.excess, expected.excess))
    node, scale, wanted = max(pairs, key=lambda pair: abs(float(pair[1]) / float(pair[2]) - 1))
    ratio = float(scale) / float(wanted) - 1
    return (
        "scale",
        f"scale in {node.op} {node.name!r}: expected {wanted:.9g}, found {scale:.9g} ({ratio:+.2%})",
    )
