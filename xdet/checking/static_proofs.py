"""Static part, proofs: numbers that differ from the source's on purpose, shown to compute the same codes.

* LeakyReLU and requantisation: the 256 codes of the pair DequantizeLinear -> LeakyRelu -> QuantizeLinear, computed in
  float32, equal those of XNNPACK's integer recipe (``converters.leaky``) entry by entry.
* Sums and products of two tensors: by every pair of codes (``static_pairs``).
* Operands of another scale that a uint8 CONCATENATION rescales: by their 256 codes (``converters.concatenated``).
* Codes that are only moved: TFLite's kernels do not look at the scale of the output.
* Averages (AveragePool, ReduceMean, Resize): a mean commutes with a shift and a scaling of all codes, so zero-points that
  move together and scales whose ratio is kept change no mean; the ratio may be off by 2^-14, which decides exact ties alone.
* Softmax: its factor beta stands in the scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from converters.concatenated import concatenated_table
from converters.leaky import FloatForm, LeakyCase, float_table, plain_form, xnnpack_table
from xdet.checking.result import ProvenChange
from xdet.checking.source_graph import number
from xdet.checking.static_owners import owners_of, pair_of, shift_of
from xdet.checking.static_pairs import combination_at, prove_pairs

if TYPE_CHECKING:
    from converters.leaky import Table
    from converters.tflite.records import TfliteOperator
    from xdet.checking.finished_graph import Node
    from xdet.checking.static_context import StaticContext

AVERAGES = frozenset({"AveragePool", "ReduceMean", "Resize", "GlobalAveragePool"})
TIE_ROOM = 2.0**-14
MOVES = frozenset({"Transpose", "Reshape", "Slice", "Gather", "Tile", "Split", "Resize"})
MOVING = frozenset(
    {"RESHAPE", "TRANSPOSE", "STRIDED_SLICE", "GATHER", "TILE", "SPLIT", "RESIZE_NEAREST_NEIGHBOR"}
)


def prove(context: StaticContext, node: Node, owners: tuple[int, ...]) -> bool:
    """Whether a pair with other numbers than its tensor computes the same codes; what was proven is remembered."""
    if combination_at(context, node) is not None:
        return prove_pairs(context, node)
    if node.op == "DequantizeLinear":
        reader = context.graph.only_reader(node.outputs[0])
        return reader is not None and any(
            proof(context, node, reader, owners) for ops, proof in PROOFS_BY_READER if reader.op in ops
        )
    average = context.graph.producers.get(node.inputs[0])
    while average is not None and average.op == "Reshape":
        average = context.graph.producers.get(average.inputs[0])
    before = context.graph.producers.get(average.inputs[0]) if average and average.op in AVERAGES else None
    # what the average's own DequantizeLinear proves holds for the QuantizeLinear behind it
    return before is not None and before.op == "DequantizeLinear" and _ratio_kept(context, before, node)


def leaky_match(
    context: StaticContext, form: FloatForm, owners: tuple[int, ...]
) -> tuple[TfliteOperator, int, int] | None:
    """The source operator a LeakyRelu node stands for, its differing codes, and the table's size; None without one.

    Of several operators that read the tensor, the one whose table fits best.
    """
    found: list[tuple[int, TfliteOperator]] = []
    for owner in owners:
        for op in context.source.activations_of(owner):
            case = leaky_case(context, op)
            if case is not None:
                found.append((int((float_table(case, form) != promised_table(context, case)).sum()), op))
    if not found:
        return None
    differing, op = min(found, key=lambda pair: pair[0])
    return op, differing, 256


def announced(context: StaticContext, operator: str, kind: str, otherwise: np.float32) -> np.float32:
    """The number that the document says was written for an operator; it tells whom to blame, and proves nothing."""
    written = [d.written for d in context.document.deviations if d.operator == operator and d.kind == kind]
    return otherwise if not written or written[0] is None else np.float32(written[0])


def promised_table(context: StaticContext, case: LeakyCase) -> Table:
    """The codes that the conversion promised: XNNPACK's where it takes the operator and was asked for."""
    table = xnnpack_table(case) if context.document.leaky_relu == "litert" else None
    return float_table(case, plain_form(case)) if table is None else table


def leaky_case(context: StaticContext, op: TfliteOperator) -> LeakyCase | None:
    """A LeakyReLU or requantisation of the source as arithmetic on int8 codes; None where it is not quantised."""
    return case_between(
        context, op.inputs[0], op.outputs[0], number(op, "alpha", 1.0)
    )  # a requantisation has none


def case_between(context: StaticContext, before_op: int, after_op: int, slope: float) -> LeakyCase | None:
    """The arithmetic on int8 codes between two tensors; None where one is not quantised."""
    source, target = (context.source.model.tensors[i] for i in (before_op, after_op))
    if source.quant is None or target.quant is None:
        return None
    before, after = (-128 if t.dtype == "uint8" else 0 for t in (source, target))
    return LeakyCase(
        scale_in=source.quant.scalar_scale,
        zero_point_in=source.quant.scalar_zero_point + before,
        scale_out=target.quant.scalar_scale,
        zero_point_out=target.quant.scalar_zero_point + after,
        slope=np.float32(slope),
    )


def _prove_leaky(context: StaticContext, node: Node, leaky: Node, owners: tuple[int, ...]) -> bool:
    pair = pair_of(context, node)
    if pair is None:
        return False
    form = FloatForm(pair[0], np.float32(leaky.attributes.get("alpha", 0.01)))
    matched = leaky_match(context, form, owners)
    if matched is None:
        return False
    op, differing, size = matched
    quant = context.source.model.tensors[op.inputs[0]].quant
    expected = None if quant is None else quant.scalar_zero_point
    shift = shift_of(context, op.inputs[0], unsigned=pair[2])
    if quant is None or expected is None or pair[1] != expected + shift:
        return False
    if differing:  # the slope's fault, which is told there, where the scale is the one that was announced
        return bool(
            pair[0] == announced(context, context.source.output_name(op), "scale", quant.scalar_scale)
        )
    context.proven.append(
        ProvenChange(
            context.source.names[op.inputs[0]],
            context.source.output_name(op),
            "scale",
            float(quant.scalar_scale),
            float(pair[0]),
            f"all {size} codes behind {op.op} equal LiteRT XNNPACK's",
        )
    )
    return True


def _prove_concatenated(context: StaticContext, node: Node, concat: Node, owners: tuple[int, ...]) -> bool:
    """An operand that a concatenation rescales: all 256 codes are the built-in kernel's."""
    op, pair = _maker_behind(context, concat), pair_of(context, node)
    if op is None or op.op != "CONCATENATION" or pair is None:
        return False
    for owner in set(owners) & set(op.inputs):
        case = case_between(context, owner, op.outputs[0], 1.0)
        to_int8 = -128 if pair[2] else 0
        if case is None or pair[1] + to_int8 != case.zero_point_in:
            continue
        if np.array_equal(float_table(case, FloatForm(pair[0], np.float32(1))), concatenated_table(case)):
            proof = "all 256 codes equal those of LiteRT's built-in CONCATENATION"
            _remember_scale(context, (owner, op.outputs[0]), (float(case.scale_in), float(pair[0])), proof)
            return True
    return False


def _prove_moved(context: StaticContext, node: Node, mover: Node, owners: tuple[int, ...]) -> bool:
    """Codes that are only moved: read as the tensor they become, and written so again."""
    behind: Node | None = mover
    while behind is not None and behind.op in MOVES:
        mover, behind = behind, context.graph.only_reader(behind.outputs[0])
    op, pair = _maker_behind(context, mover), pair_of(context, node)
    if op is None or op.op not in MOVING or pair is None or behind is None or behind.op != "QuantizeLinear":
        return False
    common = set(owners) & set(op.inputs)
    if not common or pair_of(context, behind) != pair:
        return False
    index = min(common)
    quant = context.source.model.tensors[index].quant
    assert quant is not None  # noqa: S101 - owners are quantised
    proof = f"{op.op} moves codes, whatever the scale of its output"
    _remember_scale(context, (index, op.outputs[0]), (float(quant.scalar_scale), float(pair[0])), proof)
    return True


def _maker_behind(context: StaticContext, node: Node) -> TfliteOperator | None:
    """The source operator whose result stands behind the QuantizeLinear that closes ``node``."""
    quantize = context.graph.only_reader(node.outputs[0])
    if quantize is None or quantize.op != "QuantizeLinear":
        return None
    makers = [context.source.makers.get(owner) for owner in owners_of(context, quantize.outputs[0], set())]
    return next((op for op in makers if op is not None), None)


def _remember_scale(
    context: StaticContext, tensors: tuple[int, int], numbers: tuple[float, float], proof: str
) -> None:
    tensor, operator = (context.source.names[index] for index in tensors)
    context.proven.append(ProvenChange(tensor, operator, "scale", *numbers, proof))


def _prove_average(context: StaticContext, node: Node, average: Node, owners: tuple[int, ...]) -> bool:
    behind = context.graph.only_reader(average.outputs[0])
    while behind is not None and behind.op == "Reshape":
        behind = context.graph.only_reader(behind.outputs[0])
    if behind is None or behind.op != "QuantizeLinear" or not _ratio_kept(context, node, behind):
        return False
    pair = pair_of(context, node)
    quant = context.source.model.tensors[owners[0]].quant
    assert pair is not None  # noqa: S101 - the ratio was computed from it
    assert quant is not None  # noqa: S101 - owners are quantised
    name = context.source.names[owners[0]]
    proof = f"{average.op} commutes with the shift and scaling of both sides; only exact ties move, to LiteRT's side"
    context.proven.append(
        ProvenChange(name, behind.outputs[0], "scale", float(quant.scalar_scale), float(pair[0]), proof)
    )
    return True


def _ratio_kept(context: StaticContext, before: Node, after: Node) -> bool:
    """Whether two pairs around a mean keep the ratio of scales and the difference of zero-points of their tensors."""
    pairs = pair_of(context, before), pair_of(context, after)
    owners = (
        owners_of(context, before.inputs[0], set()),
        owners_of(context, after.outputs[0], set()),
    )
    if pairs[0] is None or pairs[1] is None or not owners[0] or not owners[1]:
        return False
    source = context.source.model.tensors[owners[0][0]].quant
    target = context.source.model.tensors[owners[1][0]].quant
    if source is None or target is None or pairs[0][2] != pairs[1][2]:
        return False
    shifts = [shift_of(context, o[0], unsigned=pairs[0][2]) for o in owners]
    wanted = float(source.scalar_scale) / float(target.scalar_scale)
    ratio = float(pairs[0][0]) / float(pairs[1][0]) / wanted - 1
    moved = pairs[0][1] - (source.scalar_zero_point + shifts[0])
    also = pairs[1][1] - (target.scalar_zero_point + shifts[1])
    return abs(ratio) <= TIE_ROOM and moved == also


def _prove_softmax(context: StaticContext, node: Node, _softmax: Node, owners: tuple[int, ...]) -> bool:
    pair = pair_of(context, node)
    for owner in owners:
        quant = context.source.model.tensors[owner].quant
        for op in context.source.readers.get(owner, ()):
            beta = np.float32(number(op, "beta", 1.0)) if op.op == "SOFTMAX" else None
            if pair and quant and beta is not None and pair[0] == quant.scalar_scale * beta:
                name, output = context.source.names[owner], context.source.output_name(op)
                proof = f"the scale holds SOFTMAX's factor beta = {float(beta):g}"
                context.proven.append(
                    ProvenChange(name, output, "scale", float(quant.scalar_scale), float(pair[0]), proof)
                )
                return True
    return False


Proof = Callable[
    ["StaticContext", "Node", "Node", tuple[int, ...]], bool
]  # context, the node, its reader, owners
PROOFS_BY_READER: tuple[tuple[frozenset[str], Proof], ...] = (
    (frozenset({"LeakyRelu"}), _prove_leaky),
    (frozenset({"Concat"}), _prove_concatenated),
    (MOVES, _prove_moved),
    (AVERAGES, _prove_average),
    (frozenset({"Softmax"}), _prove_softmax),
)
