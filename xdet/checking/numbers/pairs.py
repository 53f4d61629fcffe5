"""Static part, sums and products of two tensors: other numbers than the source's, proven by every pair of codes.

The three pairs around an Add, Sub or Mul are judged together: with their numbers each of the kernels that x86 runs
gives LiteRT XNNPACK's code for all 65,536 pairs (``converters.integer.pairs``, ``converters.integer.pair_kernels``), or
for those that a constant leaves, or that occur where a tensor meets itself or its own LOGISTIC (SiLU). A product may
also stand step by step: of codes with scale 1, times one factor, rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from converters.integer.pair_search import PairForm, is_proven
from converters.integer.pairs import Affine, PairCase, PairOp, all_codes, xnnpack_takes
from converters.sources.tflite.ops.activations import BOUNDS, codes_between
from converters.sources.tflite.ops.arithmetic import pairs_that_occur
from xdet.checking.numbers.context import owners_of, pair_of, shift_of
from xdet.checking.numbers.slopes import case_between
from xdet.checking.result import ProvenChange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from converters.integer.functions import Integers
    from converters.integer.pair_search import Pairs
    from converters.sources.tflite.reader import TfliteOperator
    from xdet.checking.numbers.context import StaticContext
    from xdet.model.graph import Node

NODES = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL"}
STEPS: Mapping[str, Callable[..., NDArray[Any]]] = {"Mul": np.multiply, "Round": np.rint, "Clip": np.clip}


@dataclass(frozen=True, slots=True)
class Combination:
    """An operator of the graph with what stands around it.

    Attributes:
        operands: both DequantizeLinear.
        result: the QuantizeLinear.
        op: the source operator.
        steps: what stands between the operator and the QuantizeLinear, where a product is computed step by step.
    """

    operands: tuple[Node, Node]
    result: Node
    op: TfliteOperator
    steps: tuple[Node, ...] = ()


def combination_at(context: StaticContext, node: Node) -> Combination | None:
    """The sum or product that a QuantizeLinear closes or a DequantizeLinear feeds; None where there is none."""
    graph = context.graph
    binary = graph.producers.get(node.inputs[0]) if node.op == "QuantizeLinear" else node
    while binary is not None and binary is not node and _is_step(context, binary):
        binary = graph.producers.get(binary.inputs[0])
    if binary is node:
        binary = graph.only_reader(node.outputs[0])
    if binary is None or binary.op not in NODES:
        return None
    first, second = (graph.producers.get(name) for name in binary.inputs)
    steps, result = [], graph.only_reader(binary.outputs[0])
    while result is not None and _is_step(context, result):
        steps.append(result)
        result = graph.only_reader(result.outputs[0])
    if first is None or second is None or result is None or result.op != "QuantizeLinear":
        return None
    if not first.op == second.op == "DequantizeLinear":
        return None
    for owner in owners_of(context, result.outputs[0], set()):
        op = context.source.makers.get(owner)
        if op is not None and op.op == NODES[binary.op]:
            return Combination((first, second), result, op, tuple(steps))
    return None


def _is_step(context: StaticContext, node: Node) -> bool:
    """Whether a node is a step of a product that is not fused."""
    return node.op in STEPS and all(context.graph.constant(name) is not None for name in node.inputs[1:])


def prove_pairs(context: StaticContext, node: Node) -> bool:
    """Whether the numbers around the sum or product at ``node`` give XNNPACK's codes; what was proven is remembered."""
    found = combination_at(context, node)
    if found is None or found.steps or context.document.leaky_relu != "litert":
        return False
    numbers = [pair_of(context, n) for n in (*found.operands, found.result)]
    first, second, out = numbers
    if first is None or second is None or out is None or len({n[2] for n in numbers if n}) != 1:
        return False
    unsigned = out[2]
    case = case_of(context, found.op, unsigned=unsigned)
    if case is None or not xnnpack_takes(case):
        return False
    swapped = _is_swapped(context, found)
    a, b = (second, first) if swapped else (first, second)
    form = PairForm(Affine(*a[:2]), Affine(*b[:2]), Affine(*out[:2]), swapped)
    pairs = pairs_at(context, found.op, case, unsigned=unsigned)
    if not is_proven(case, form, pairs):
        return False
    own = case.out if node is found.result else (case.a, case.b)[found.operands.index(node) ^ swapped]
    _remember(context, found.op, node, own, pairs.a.size)
    return True


def stepped_codes(context: StaticContext, found: Combination, pairs: Pairs) -> Integers | None:
    """What a product that is computed step by step gives for pairs of codes; None where a number is not constant."""
    numbers = [pair_of(context, node) for node in (*found.operands, found.result)]
    if any(number is None for number in numbers):
        return None
    first, second, (scale, zero_point, unsigned) = cast("list[tuple[np.float32, int, bool]]", numbers)
    codes = (pairs.b, pairs.a) if _is_swapped(context, found) else (pairs.a, pairs.b)
    x, y = (
        (code - number[1]).astype(np.float32) * number[0] for code, number in zip(codes, (first, second), strict=True)
    )
    value = x * y
    for node in found.steps:
        value = STEPS[node.op](value, *(context.graph.constant(name) for name in node.inputs[1:]))
    lowest = 0 if unsigned else -128
    given: Integers = np.clip(np.rint(value / scale) + zero_point, lowest, lowest + 255).astype(np.int64)
    return given


def clamped(op: TfliteOperator, case: PairCase, codes: Integers) -> Integers:
    """Codes of an operator inside its fused activation."""
    bounds = BOUNDS[str(op.options.get("fused_activation", "NONE"))]
    return np.clip(codes, *codes_between(bounds, case.out.scale, case.out.zero_point, case.lowest))


def pairs_at(context: StaticContext, op: TfliteOperator, case: PairCase, *, unsigned: bool) -> Pairs:
    """The pairs of codes of an operator, and LiteRT's results."""
    codes = [codes_of(context, case, index, unsigned=unsigned) for index in op.inputs[:2]]
    square = case_between(context, op.inputs[0], op.outputs[0], 1.0)
    assert square is not None  # noqa: S101 - there is a case
    return pairs_that_occur(context.source.model, op, case, codes, square)


def case_of(context: StaticContext, op: TfliteOperator, *, unsigned: bool) -> PairCase | None:
    """The source operator on the graph's codes."""
    affines = []
    for index in (*op.inputs[:2], op.outputs[0]):
        quant = context.source.model.tensors[index].quant
        if quant is None or quant.scale.size != 1:
            return None
        zero_point = quant.scalar_zero_point + shift_of(context, index, unsigned=unsigned)
        affines.append(Affine(quant.scalar_scale, zero_point))
    a, b, out = affines
    return PairCase(cast("PairOp", op.op), a, b, out, 0 if unsigned else -128)


def _is_swapped(context: StaticContext, found: Combination) -> bool:
    """Whether the graph has the source's second operand first."""
    a, b = found.op.inputs[:2]
    owners = [owners_of(context, node.inputs[0], set()) for node in found.operands]
    return (b in owners[0] or a in owners[1]) and not (a in owners[0] or b in owners[1])


def codes_of(context: StaticContext, case: PairCase, index: int, *, unsigned: bool) -> Integers:
    """The codes that an operand may have."""
    data = context.source.model.tensors[index].data
    if data is None:
        return all_codes(case)
    return np.unique(data).astype(np.int64) + shift_of(context, index, unsigned=unsigned)


def _remember(context: StaticContext, op: TfliteOperator, node: Node, own: Affine, pairs: int) -> None:
    index = owners_of(context, node.inputs[0] if node.op == "DequantizeLinear" else node.outputs[0], set())[0]
    found = pair_of(context, node)
    assert found is not None  # noqa: S101 - it was proven
    numbers = (("scale", float(own.scale), float(found[0])), ("zero_point", float(own.zero_point), float(found[1])))
    proof = f"all {pairs:,} pairs of codes of {op.op} equal LiteRT XNNPACK's"
    for kind, source, written in numbers:
        if source != written:
            context.proven.append(
                ProvenChange(context.source.names[index], context.source.output_name(op), kind, source, written, proof)
            )
