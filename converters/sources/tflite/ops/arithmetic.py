"""ADD, SUB and MUL with broadcasting: DequantizeLinear x 2 -> Add, Sub or Mul -> QuantizeLinear.

Scales are nudged, and zero-points moved, so that every pair of codes comes out as LiteRT's XNNPACK kernels compute it
(``converters.integer.pair_search``); runtimes that fuse the operator pay nothing for it. Where no such numbers exist
the same integers are computed step by step. A sum is XNNPACK's own: int32 codes times integer multipliers, a constant
that keeps the total above zero, a division by a power of two that therefore rounds down: about ten elementwise
operators instead of one. A product is that of centred codes in float32, which holds it, times one float32 factor,
rounded half to even: six operators. Bit exact on every runtime with IEEE arithmetic; ``--arithmetic fused`` keeps the
fused operator instead, within 1 LSB. What XNNPACK does not take is looked up in a table of all pairs. ``--leaky-relu
float`` keeps the file's own numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np

from converters.graph import dequantize_node, quantize_node
from converters.integer.functions import prelu_tables, square_table
from converters.integer.pair_search import gated_pairs, pairs_of, search_form, squared_pairs
from converters.integer.pairs import (
    Affine,
    PairCase,
    PairOp,
    all_codes,
    builtin_codes,
    product_factor,
    sum_multipliers,
    xnnpack_takes,
)
from converters.quant import QuantParams
from converters.sources.tflite.context import laid_out, per_tensor
from converters.sources.tflite.ops.activations import (
    clipped_codes,
    close_by_table,
    close_with_activation,
    code_bounds,
    leaky_case,
    look_up_rows,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from converters.integer.functions import Integers
    from converters.integer.pair_search import PairForm, Pairs
    from converters.leaky import LeakyCase
    from converters.sources.tflite.context import ImportContext
    from converters.sources.tflite.reader import TfliteModel, TfliteOperator

NODES = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div", "POW": "Pow", "MAXIMUM": "Max", "MINIMUM": "Min"}
WRAPS_AT = 1 << 15


def is_outside_xnnpack(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether XNNPACK does not take a sum or product of two tensors."""
    quants = per_tensor(model, *op.inputs[:2], op.outputs[0])
    return quants is not None and not xnnpack_takes(_case(op, quants, lowest=0))


def wraps(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether results that XNNPACK does not compute pass 16 bits, where LiteRT's vector code wraps around."""
    quants = per_tensor(model, *op.inputs[:2], op.outputs[0])
    if quants is None or not is_outside_xnnpack(model, op):
        return False
    a, b, out = (float(quant.scalar_scale) for quant in quants)
    largest = 255**2 * a * b if op.op == "MUL" else 255 * (a + b)
    return largest / out >= WRAPS_AT - 255


def is_square(op: TfliteOperator) -> bool:
    """Whether an operator is a MUL of a tensor with itself, of which XNNPACK makes a table of 256 codes."""
    return op.op == "MUL" and op.inputs[0] == op.inputs[1]


def gate_of(model: TfliteModel, op: TfliteOperator) -> int | None:
    """Which operand of a MUL is the other's LOGISTIC (SiLU), so that each code meets one other only; None: neither."""
    if op.op != "MUL":
        return None
    logistic = {other.outputs[0]: other.inputs[0] for other in model.operators if other.op == "LOGISTIC"}
    return next((gate for gate in (0, 1) if logistic.get(op.inputs[gate]) == op.inputs[1 - gate]), None)


def combine(context: ImportContext) -> None:
    """ADD, SUB, MUL and DIV, and POW, which is of float32 numbers alone."""
    op, (a, b) = context.op, _in_order(context)
    quantized = all(context.is_quantized(index) for index in (a, b, context.target))
    if not (context.match_litert and quantized):
        _close_plainly(context, a, b)
        return
    case = _case(op, [context.params(index) for index in (a, b, context.target)], context.lowest_code)
    if not xnnpack_takes(case):
        if context.keeps_fused():
            _close_plainly(context, a, b)
        else:
            _look_up_pair(context, case, [_aligned_codes(context, index) for index in (a, b)])
        return
    square = leaky_case(context, a)
    pairs = pairs_that_occur(context.model, op, case, [_codes(context, case, index) for index in (a, b)], square)
    form = search_form(case, pairs, may_swap=_size(context, a) == _size(context, b))
    if form is not None:
        _close_fused(context, (a, b), form)
    elif context.keeps_fused():
        _close_plainly(context, a, b)
    elif is_square(op):
        low, high = (bound + context.to_int8 for bound in code_bounds(context))
        close_by_table(context, np.clip(square_table(square), low, high))
    else:
        context.notes.append(
            f"{op.op} {context.names[context.target]!r} is computed step by step: no fused form equals LiteRT in every "
            "pair"
        )
        operands = [_aligned_codes(context, index) for index in (a, b)]
        if op.op == "MUL":
            _close_product(context, case, operands)
        else:
            context.define_computed(clipped_codes(context, _sum(context, case, operands), np.int32))


def pairs_that_occur(
    model: TfliteModel, op: TfliteOperator, case: PairCase, codes: Sequence[Integers], square: LeakyCase
) -> Pairs:
    """The pairs of codes of an ADD, SUB or MUL that XNNPACK takes, and its results.

    ``codes`` are those that its first and its second operand may have in the graph, ``case`` is the arithmetic on them;
    ``square`` is that from the first operand to the output, on int8 codes.
    """
    if is_square(op):
        return squared_pairs(case, square_table(square) + case.lowest + 128)
    gate = gate_of(model, op)
    return pairs_of(case, *codes) if gate is None else gated_pairs(case, gate)


def _look_up_pair(context: ImportContext, case: PairCase, operands: Sequence[ir.Value]) -> None:
    """Look up an operator that LiteRT's built-in kernel computes: a code for each of 65,536 pairs."""
    name = context.names[context.target]
    rows, columns = (context.wide(codes, f"wide{position}") for position, codes in enumerate(operands))
    index = context.node("Add", [context.step("Mul", rows, np.int32(256), "row"), columns], "pair")
    if case.lowest:
        index = context.step("Add", index, np.int32(-257 * case.lowest), "index")
    table = np.clip(builtin_codes(case), *code_bounds(context)).reshape(-1).astype(context.code_dtype)
    values = context.initializer(table, "table")
    context.define(context.target, context.writer.op("Gather", [values, index], name, axis=0))
    context.tell(context.target, "table")
    context.notes.append(
        f"{context.op.op} {name!r} is looked up in a table of 65,536 pairs: XNNPACK does not take it, and LiteRT's "
        "built-in kernel has integers of its own"
    )


def _sum(context: ImportContext, case: PairCase, operands: Sequence[ir.Value]) -> ir.Value:
    m = sum_multipliers(case)
    codes = np.array([case.lowest, case.lowest + 255], np.int64)
    totals = (codes - case.a.zero_point)[:, None] * m.m_a + (codes - case.b.zero_point)[None] * m.m_b
    lift = max(0, -(int(totals.min()) >> m.shift))  # steps that keep the total above zero
    start = (lift << m.shift) + (1 << (m.shift - 1)) - case.a.zero_point * m.m_a - case.b.zero_point * m.m_b
    wide = [context.wide(codes, f"wide{position}") for position, codes in enumerate(operands)]
    if int(totals.max()) + (lift << m.shift) + (1 << (m.shift - 1)) >= 2**31:
        raise OverflowError("its sums do not fit 32 bits")  # told with the operator's name
    terms = [
        context.step("Mul", value, np.int32(factor), f"term{position}")
        for position, (value, factor) in enumerate(zip(wide, (m.m_a, m.m_b), strict=True))
    ]
    total = context.step("Add", context.node("Add", terms, "total"), np.int32(start), "lifted")
    steps = context.step("Div", total, np.int32(1 << m.shift), "steps")
    return context.step("Add", steps, np.int32(case.out.zero_point - lift), "codes")


def _close_product(context: ImportContext, case: PairCase, operands: Sequence[ir.Value]) -> None:
    """Centred codes as DequantizeLinear with scale 1 gives them, their product, one float32 factor, Round."""
    context.tell(context.target, "table")
    writer, dtype = context.writer, context.code_dtype
    a, b, out = (QuantParams.per_tensor(1.0, affine.zero_point) for affine in (case.a, case.b, case.out))
    centred = [
        dequantize_node(writer, codes, params, dtype, context.name(f"centred{position}"))
        for position, (params, codes) in enumerate(zip((a, b), operands, strict=True))
    ]
    steps = context.step("Mul", context.node("Mul", centred, "product"), product_factor(case), "scaled")
    rounded = context.node("Round", [steps], "rounded")
    low, high = code_bounds(context)
    if (low, high) != (case.lowest, case.lowest + 255):
        limits = [
            context.initializer(np.float32(bound - case.out.zero_point), f"{side} step")
            for side, bound in (("lowest", low), ("highest", high))
        ]
        rounded = context.node("Clip", [rounded, *limits], "clipped")
    context.define(context.target, quantize_node(writer, rounded, out, dtype, context.names[context.target]))


def _in_order(context: ImportContext) -> tuple[int, int]:
    """The operands, the larger one of an ADD first: ONNX Runtime adds a broadcast operand first wherever it stands."""
    a, b = context.op.inputs[:2]
    return (b, a) if context.op.op == "ADD" and _size(context, a) < _size(context, b) else (a, b)


def _size(context: ImportContext, index: int) -> int:
    return math.prod(context.shape(index))


def _case(op: TfliteOperator, quants: Sequence[QuantParams], lowest: int) -> PairCase:
    """The arithmetic of an operator, by the quantisation of both operands and the output, on codes from ``lowest``."""
    a, b, out = (Affine(quant.scalar_scale, quant.scalar_zero_point) for quant in quants)
    return PairCase(cast("PairOp", op.op), a, b, out, lowest)


def _codes(context: ImportContext, case: PairCase, index: int) -> Integers:
    """The codes that an operand may have: those of a constant, or all."""
    if index not in context.constants:
        return all_codes(case)
    return np.unique(context.constants[index]).astype(np.int64) + context.shift(index)


def extreme(context: ImportContext) -> None:
    """MAXIMUM and MINIMUM: of codes, whatever their scales; LiteRT's kernel does not look at them."""
    output = context.params(context.target) if context.is_quantized(context.target) else None
    operands = [_operand(context, index, output) for index in context.op.inputs]
    context.close(context.node(NODES[context.op.op], operands))


def prelu(context: ImportContext) -> None:
    """PRELU with constant slopes: a table of LiteRT's codes for each, on float32 the real function."""
    source, slopes = context.op.inputs
    codes = context.constant_of(1)
    if context.match_litert and context.is_quantized(context.target):
        quant = context.own_quant(slopes)
        distinct, places = np.unique(codes, return_inverse=True)
        case = leaky_case(context, source)
        tables = prelu_tables(case, distinct.astype(np.int64) - quant.scalar_zero_point, quant.scalar_scale)
        look_up_rows(context, tables, laid_out(places.reshape(_full_shape(context, slopes) or codes.shape)))
        return
    slope = _operand(context, slopes)
    context.close(context.node("PRelu", [context.float_of(source), slope]))


def _close_plainly(context: ImportContext, a: int, b: int) -> None:
    operands = [_operand(context, index) for index in (a, b)]
    close_with_activation(context, context.node(NODES[context.op.op], operands))


def _close_fused(context: ImportContext, operands: tuple[int, int], form: PairForm) -> None:
    reals = [_operand(context, i, _params(affine)) for i, affine in zip(operands, (form.a, form.b), strict=True)]
    real = context.node(NODES[context.op.op], reals[::-1] if form.swapped else reals)
    close_with_activation(context, real, _params(form.out))
    if form.failing:
        context.notes.append(
            f"{context.op.op} {context.names[context.target]!r} gives LiteRT's code for every pair on x86 with AVX2; "
            f"single pairs may differ by 1 in the arithmetic of: {', '.join(form.failing)}"
        )


def _params(affine: Affine) -> QuantParams:
    return QuantParams.per_tensor(float(affine.scale), affine.zero_point)


def _operand(context: ImportContext, index: int, params: QuantParams | None = None) -> ir.Value:
    """The real numbers of an operand, by ``params`` or its own, aligned with the output."""
    if context.is_quantized(index):
        own = context.params(index)
        return context.adjusted_float_of(index, params or own, _aligned_codes(context, index))
    return _aligned(context, index, context.float_of(index))


def _aligned_codes(context: ImportContext, index: int) -> ir.Value:
    """An operand's codes in the shape of ``_aligned``; a constant is stored so, and runtimes fuse the operator."""
    full = _full_shape(context, index)
    if full is None or index not in context.constants:
        return _aligned(context, index, context.codes_of(index))
    return context.initializer(context.stored_codes(index, full), f"operand{context.op.inputs.index(index)}")


def _aligned(context: ImportContext, index: int, value: ir.Value) -> ir.Value:
    """An operand whose axes stand where the output's are, so that broadcasting meets the right ones."""
    full = _full_shape(context, index)
    if full is None:
        return value
    return context.reshape(value, context.shape(index), full, context.name(f"operand{context.op.inputs.index(index)}"))


def _full_shape(context: ImportContext, index: int) -> tuple[int, ...] | None:
    """The operand's shape with leading ones; None where broadcasting needs none."""
    shape, rank = context.shape(index), len(context.shape(context.target))
    if len(shape) == rank or (len(shape) != 4 and rank != 4):
        return None
    return (1,) * (rank - len(shape)) + shape
