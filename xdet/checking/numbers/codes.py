"""Static part, operators that are judged by the codes that they give: sums, products, tables, integer steps.

Sums and products of two tensors may have other numbers than the source's. The three pairs around an Add, Sub or Mul are
judged together: with their numbers each of the kernels that x86 runs gives LiteRT XNNPACK's code for all 65,536 pairs
(``converters.integer.pairs``, ``pair_search``), or for those that a constant leaves, or that occur
where a tensor meets itself or its own LOGISTIC (SiLU). A product may also stand step by step: of codes with scale 1,
times one factor, rounded.

Operators that stand as integer arithmetic step by step have no scale or zero-point to compare, so they are run here on
all pairs of codes, or on a picture: a bilinear resize must give the codes of XNNPACK's 11-bit weights for random codes;
ABS, EXP, TANH, HARD_SWISH and PRELU must look up those of LiteRT's kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from converters.integer.functions import function_table, hard_swish_table, prelu_tables, square_table
from converters.integer.pair_search import PairForm, is_proven
from converters.integer.pairs import Affine, PairCase, PairOp, all_codes, xnnpack_codes, xnnpack_takes
from converters.sources.tflite.ops.activations import BOUNDS, codes_between
from converters.sources.tflite.ops.arithmetic import is_square, pairs_that_occur
from xdet.checking.numbers.comparison import pair_of
from xdet.checking.numbers.slopes import case_between
from xdet.checking.numbers.tflite_source import owners_of, shift_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.integer.functions import Integers
    from converters.integer.pair_search import Pairs
    from converters.leaky import LeakyCase
    from converters.sources.tflite.reader import TfliteOperator
    from xdet.checking.numbers.tflite_source import TfliteComparison
    from xdet.model.graph import Node

NODES = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL"}
CASTS = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32}  # by ONNX's number
STEPS: Mapping[str, Callable[..., NDArray[Any]]] = {
    "Add": np.add,
    "Clip": np.clip,
    "Div": lambda a, b: np.trunc(a / b).astype(a.dtype),
    "Mul": np.multiply,
    "Round": np.rint,
    "Sub": np.subtract,
}


CODE_0 = np.uint8(0)  # the zero-point of a pair that names none


def _quantized(values: NDArray[Any], scale: NDArray[Any], zero_point: Any = CODE_0) -> NDArray[Any]:
    info = np.iinfo(zero_point.dtype)
    return np.asarray(np.clip(np.rint(values / scale) + zero_point, info.min, info.max), np.int64)


RUN: Mapping[str, Callable[..., NDArray[Any]]] = {
    **STEPS,
    "DequantizeLinear": lambda codes, scale, zero_point=CODE_0: (codes - zero_point).astype(np.float32) * scale,
    "QuantizeLinear": _quantized,
}


@dataclass(frozen=True, slots=True)
class Combination:
    """A sum or product: both DequantizeLinear, the QuantizeLinear, the source operator.

    ``steps`` stand between operator and QuantizeLinear where a product is computed step by step.
    """

    operands: tuple[Node, Node]
    result: Node
    op: TfliteOperator
    steps: tuple[Node, ...] = ()


def combination_at(context: TfliteComparison, node: Node) -> Combination | None:
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
    for owner in owners_of(context, result.outputs[0]):
        op = context.source.makers.get(owner)
        if op is not None and op.op == NODES[binary.op]:
            return Combination((first, second), result, op, tuple(steps))
    return None


def _is_step(context: TfliteComparison, node: Node) -> bool:
    """Whether a node is a step of a product that is not fused."""
    return node.op in STEPS and all(context.graph.constant(name) is not None for name in node.inputs[1:])


def prove_pairs(context: TfliteComparison, combination: Combination, node: Node) -> bool:
    """Whether the numbers around a sum or product give XNNPACK's codes; what was proven at ``node`` is remembered."""
    if combination.steps or context.document.leaky_relu != "litert":
        return False
    first, second, out = (pair_of(context, n) for n in (*combination.operands, combination.result))
    if first is None or second is None or out is None or not first.unsigned == second.unsigned == out.unsigned:
        return False
    case = case_of(context, combination.op, unsigned=out.unsigned)
    if case is None or not xnnpack_takes(case):
        return False
    swapped = _is_swapped(context, combination)
    a, b = (second, first) if swapped else (first, second)
    x, y, result = (Affine(pair.scale, pair.zero_point) for pair in (a, b, out))
    pairs = pairs_at(context, combination.op, case, unsigned=out.unsigned)
    if not is_proven(case, PairForm(x, y, result, swapped), pairs):
        return False
    own, held = next((own, held) for own, held in ((case.a, a), (case.b, b), (case.out, out)) if held.node is node)
    tensor, operator = (
        context.source.names[owners_of(context, held.codes)[0]],
        context.source.output_name(combination.op),
    )
    proof = f"all {pairs.a.size:,} pairs of codes of {combination.op.op} equal LiteRT XNNPACK's"
    for kind in ("scale", "zero_point"):
        source, written = float(getattr(own, kind)), float(getattr(held, kind))
        if source != written:
            context.prove(tensor, operator, kind, proof, source=source, written=written)
    return True


def _clamped(op: TfliteOperator, out: Affine, lowest: int, codes: Integers) -> Integers:
    """Codes of an operator inside its fused activation."""
    bounds = BOUNDS[str(op.options.get("fused_activation", "NONE"))]
    return np.clip(codes, *codes_between(bounds, out.scale, out.zero_point, lowest))


def pairs_at(context: TfliteComparison, op: TfliteOperator, case: PairCase, *, unsigned: bool) -> Pairs:
    """The pairs of codes of an operator, and LiteRT's results."""
    codes = [codes_of(context, case, index, unsigned=unsigned) for index in op.inputs[:2]]
    square = case_between(context, op.inputs[0], op.outputs[0], 1.0)
    assert square is not None  # noqa: S101 - there is a case
    return pairs_that_occur(context.source.model, op, case, codes, square)


def case_of(context: TfliteComparison, op: TfliteOperator, *, unsigned: bool) -> PairCase | None:
    """The source operator on the graph's codes."""
    affines = []
    for index in (*op.inputs[:2], op.outputs[0]):
        quant = context.tensor(index).quant
        if quant is None or quant.scale.size != 1:
            return None
        zero_point = quant.scalar_zero_point + shift_of(context, index, unsigned=unsigned)
        affines.append(Affine(quant.scalar_scale, zero_point))
    a, b, out = affines
    return PairCase(cast("PairOp", op.op), a, b, out, 0 if unsigned else -128)


def _is_swapped(context: TfliteComparison, combination: Combination) -> bool:
    """Whether the graph has the source's second operand first."""
    a, b = combination.op.inputs[:2]
    owners = [owners_of(context, node.inputs[0]) for node in combination.operands]
    return (b in owners[0] or a in owners[1]) and not (a in owners[0] or b in owners[1])


def codes_of(context: TfliteComparison, case: PairCase, index: int, *, unsigned: bool) -> Integers:
    """The codes that an operand may have."""
    data = context.tensor(index).data
    if data is None:
        return all_codes(case)
    return np.unique(data).astype(np.int64) + shift_of(context, index, unsigned=unsigned)


def compare_steps(context: TfliteComparison) -> None:
    """Compare every operator that stands as a table, or step by step, with its source operator."""
    for index, op in context.source.makers.items():
        last = context.writer_of(context.source.names[index])
        if _is_table(context, op, last) and context.document.leaky_relu == "litert":
            _compare_table(context, op, last)
        if op.op == "MUL" and last is not None and last.op == "QuantizeLinear":
            _compare_product(context, op, last)
        if op.op == "SUB" and last is not None and (combination := combination_at(context, last)) is not None:
            constant = [context.tensor(operand).data is not None for operand in op.inputs]
            if constant != [context.graph.constant(node.inputs[0]) is not None for node in combination.operands]:
                layer = context.source.output_name(op)
                context.fault("wiring", layer, f"SUB {layer!r} has its operands exchanged; convert the source again")
        if op.op in (*NODES.values(), "RESIZE_BILINEAR") and last is not None and last.op == "Cast":
            run = _resized if op.op == "RESIZE_BILINEAR" else _combined
            _judge(context, op, *run(context, op, last, unsigned=last.attributes["to"] == 2))


def _compare_product(context: TfliteComparison, op: TfliteOperator, last: Node) -> None:
    """A product step by step between Q and DQ: all its pairs of codes; a fused one is judged with its scales."""
    combination, unsigned = combination_at(context, last), context.document.activations == "uint8"
    case = case_of(context, op, unsigned=unsigned)
    if combination is None or not combination.steps or case is None:
        return
    pairs = pairs_at(context, op, case, unsigned=unsigned)
    codes = (pairs.b, pairs.a) if _is_swapped(context, combination) else (pairs.a, pairs.b)
    read = zip(combination.operands, codes, strict=True)  # both operands may read the same codes
    feeds = {node.outputs[0]: _run(context, node, {node.inputs[0]: code}) for node, code in read}
    _judge(context, op, _run(context, last, feeds), _clamped(op, case.out, case.lowest, pairs.wanted))


def _is_table(context: TfliteComparison, op: TfliteOperator, last: Node | None) -> bool:
    """Whether an operator must stand as a table of 256 codes; a tensor times itself may."""
    if op.op != "MUL":
        return op.op in TABLES
    case = case_of(context, op, unsigned=True) if is_square(op) else None
    return last is not None and last.op == "Gather" and case is not None and xnnpack_takes(case)


def _compare_table(context: TfliteComparison, op: TfliteOperator, last: Node | None) -> None:
    """All 256 codes of an operator on codes: what is looked up, and what LiteRT's kernel computes."""
    case = case_between(context, op.inputs[0], op.outputs[0], 1.0)
    if case is not None:
        lowest = 0 if context.document.activations == "uint8" else -128
        wanted = TABLES[op.op](context, op, case) + lowest + 128
        codes = np.arange(lowest, lowest + 256).reshape(-1, *(1 for _ in wanted.shape[1:]))
        _judge(context, op, _run_on(context, last, codes), wanted)


def _prelu(context: TfliteComparison, op: TfliteOperator, case: LeakyCase) -> NDArray[np.int64]:
    """LiteRT's codes of every input code and slope, the slopes in the graph's layout."""
    data, quant = context.tensor(op.inputs[1]).data, context.quant(op.inputs[1])
    rank = len(context.tensor(op.inputs[0]).shape)
    assert data is not None  # noqa: S101 - the importer asks for a constant
    codes = data.astype(np.int64) - quant.scalar_zero_point
    codes = codes.reshape((1,) * (rank - codes.ndim) + codes.shape)
    codes = codes.transpose(0, 3, 1, 2) if rank == 4 else codes
    tables = prelu_tables(case, codes.reshape(-1), quant.scalar_scale)
    return tables.T.reshape(256, *codes.shape[1:])


TableMaker = Callable[["TfliteComparison", "TfliteOperator", "LeakyCase"], NDArray[np.int64]]
TABLES: Mapping[str, TableMaker] = {
    "HARD_SWISH": lambda _context, _op, case: hard_swish_table(case),
    **{op: lambda _context, op, case: function_table(op.op, case) for op in ("ABS", "EXP", "TANH")},
    "MUL": lambda _context, op, case: _clamped(  # a tensor times itself
        op, Affine(case.scale_out, case.zero_point_out), -128, square_table(case)
    ),
    "PRELU": _prelu,
}


def _judge(context: TfliteComparison, op: TfliteOperator, codes: NDArray[Any] | None, wanted: NDArray[Any]) -> None:
    layer = context.source.output_name(op)
    context.compared += wanted.size
    if codes is None or codes.shape != wanted.shape:
        context.fault("attributes", layer, f"{op.op} {layer!r} stands as steps that are not understood; convert again")
        return
    differing = int(np.count_nonzero(codes != wanted))
    if differing:
        message = f"{differing:,} of {wanted.size:,} codes of {op.op} {layer!r}, step by step, differ from LiteRT's"
        context.fault("attributes", layer, message)
        return
    context.prove(layer, layer, "table", f"all {wanted.size:,} codes that were tried equal LiteRT's")


Codes = tuple[NDArray[Any] | None, NDArray[Any]]  # what the steps give, None where they cannot be run; what LiteRT does


def _combined(context: TfliteComparison, op: TfliteOperator, last: Node, *, unsigned: bool) -> Codes:
    """All pairs of codes, by the steps and by XNNPACK."""
    leaves = _leaves(context, last)
    case = case_of(context, op, unsigned=unsigned)
    assert case is not None  # noqa: S101 - it has codes
    a, b = (codes_of(context, case, index, unsigned=unsigned) for index in op.inputs[:2])
    left, right = np.repeat(a, b.size), np.tile(b, a.size)
    wanted = left[:0]
    if xnnpack_takes(case):
        wanted = _clamped(op, case.out, case.lowest, xnnpack_codes(case, left, right))
    owners = [owners_of(context, name) for name in leaves]
    first, second = op.inputs[:2]
    swapped = len(leaves) == 2 and (second in owners[0] or first in owners[1]) and first not in owners[0]
    feeds = (right, left) if swapped else (left, right)
    if len(leaves) not in (1, 2):
        return None, wanted
    if len(leaves) == 1:  # a tensor with itself, or two names of one value
        same = left == right
        feeds, wanted = (left[same], right[same]), wanted[same]
    return _run(context, last, dict(zip(leaves, feeds, strict=False))), wanted


def _resized(context: TfliteComparison, op: TfliteOperator, last: Node, *, unsigned: bool) -> Codes:
    """A picture of two channels of random codes, resized by the steps and by XNNPACK's recipe."""
    before, after = (context.tensor(index).shape[1:3] for index in (op.inputs[0], op.outputs[0]))
    lowest = 0 if unsigned else -128
    picture = np.random.default_rng(0).integers(lowest, lowest + 256, (1, 2, *before))
    wanted = picture
    for axis in (3, 2):
        low, weight = _weights(op, before[axis - 2], after[axis - 2])
        weight = weight.reshape(-1, 1) if axis == 2 else weight
        high = np.minimum(low + 1, before[axis - 2] - 1)
        wanted = wanted.take(low, axis) * (2048 - weight) + wanted.take(high, axis) * weight
    wanted = (wanted + (1 << 21)) >> 22
    return _run_on(context, last, picture), wanted


def _weights(op: TfliteOperator, size: int, new_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The lower old position of each new one, and the weight of the next, in 1/2048."""
    aligned = bool(op.options["align_corners"]) and new_size > 1
    half = np.float32(0.5) if op.options["half_pixel_centers"] else np.float32(0)
    step = np.float32(size - aligned) / np.float32(new_size - aligned)
    place = np.clip((np.arange(new_size, dtype=np.float32) + half) * step - half, 0, np.float32(size - 1))
    low = place.astype(np.int64)
    return low, np.rint((place - low.astype(np.float32)) * np.float32(2048)).astype(np.int64)


def _leaves(context: TfliteComparison, node: Node) -> list[str]:
    """The codes at which the steps begin, in the order of their first reading."""
    leaves: list[str] = []
    for name in node.inputs:
        before = context.graph.producers.get(name)
        inner = before is not None and (before.op in STEPS or before.op in ("Cast", "Gather"))
        if before is not None and inner and name not in context.tensors_by_value:
            leaves += _leaves(context, before)
        elif node.op == "Cast":
            leaves.append(name)
    return list(dict.fromkeys(leaves))


def _run_on(context: TfliteComparison, last: Node | None, codes: NDArray[Any]) -> NDArray[Any] | None:
    """The result of steps that begin at one value, which holds ``codes``; None where there are other steps."""
    leaves = [] if last is None else _leaves(context, last)
    return _run(context, last, {leaves[0]: codes}) if last is not None and len(leaves) == 1 else None


def _run(context: TfliteComparison, node: Node, feeds: Mapping[str, NDArray[Any] | None]) -> NDArray[Any] | None:
    """The result of a node; None where something else than a step stands in between, or its operands do not fit."""
    inputs = []
    for name in node.inputs:
        before = context.graph.producers.get(name)
        value = feeds.get(name, context.graph.constant(name))
        if value is None and before is not None:
            value = _run(context, before, feeds)
        if value is None:
            return None
        inputs.append(value)
    if node.op == "Cast":
        dtype = CASTS.get(node.attributes["to"])
        return None if dtype is None else np.asarray(inputs[0].astype(dtype))
    try:
        if node.op == "Gather":
            return np.asarray(inputs[0].take(inputs[1], node.attributes.get("axis", 0)))
        return np.asarray(RUN[node.op](*inputs)) if node.op in RUN else None
    except (IndexError, ValueError):  # codes beyond the end of a table, shapes that do not fit
        return None
