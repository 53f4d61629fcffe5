"""ADD, SUB and MUL step by step, for the few whose fused form cannot be exact (``converters.integer.pair_search``).

A sum is XNNPACK's own: int32 codes times integer multipliers, a constant that keeps the total above zero, a division by
a power of two that therefore rounds down: about ten elementwise operators instead of one. A product is that of centred
codes in float32, which holds it, times one float32 factor, rounded half to even: six operators. Bit exact on every
runtime with IEEE arithmetic. What XNNPACK does not take is looked up in a table of all pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters._ir import ir
from converters.graph import dequantize_node, quantize_node
from converters.integer.builtin_pairs import builtin_codes
from converters.integer.pairs import product_factor, sum_multipliers
from converters.quant import QuantParams
from converters.sources.tflite.ops.activations import code_bounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.integer.pairs import Affine, PairCase
    from converters.sources.tflite.context import ImportContext
    from converters.sources.tflite.reader import TfliteOperator


def close_in_integers(context: ImportContext, op: TfliteOperator, case: PairCase, operands: Sequence[ir.Value]) -> None:
    """Compute an operator that XNNPACK takes from the codes of its operands, its fused activation included."""
    target = op.outputs[0]
    context.tell(target, target, "table")
    context.notes.append(
        f"{op.op} {context.names[target]!r} is computed step by step: no fused form equals LiteRT in every pair"
    )
    if case.op == "MUL":
        _close_product(context, op, case, operands)
        return
    wide = [
        context.writer.op("Cast", [codes], context.name(op, f"wide{position}"), to=int(ir.DataType.INT32))
        for position, codes in enumerate(operands)
    ]
    steps = _sum(context, op, case, wide)
    low, high = (
        context.writer.constant(np.int32(bound), context.name(op, f"{side} code"))
        for side, bound in zip(("lowest", "highest"), code_bounds(context, op), strict=True)
    )
    clipped = context.writer.op("Clip", [steps, low, high], context.name(op, "clipped"))
    to = ir.DataType.from_numpy(np.dtype(context.code_dtype))
    context.define(target, context.writer.op("Cast", [clipped], context.names[target], to=int(to)))


def close_by_pairs(context: ImportContext, op: TfliteOperator, case: PairCase, operands: Sequence[ir.Value]) -> None:
    """Look up an operator that LiteRT's built-in kernel computes: a code for each of 65,536 pairs."""
    target, writer = op.outputs[0], context.writer
    wide = [
        writer.op("Cast", [codes], context.name(op, f"wide{position}"), to=int(ir.DataType.INT32))
        for position, codes in enumerate(operands)
    ]
    index = writer.op(
        "Add", [_with(context, op, "Mul", wide[0], np.int32(256), "row"), wide[1]], context.name(op, "pair")
    )
    if case.lowest:
        index = _with(context, op, "Add", index, np.int32(-257 * case.lowest), "index")
    table = np.clip(builtin_codes(case), *code_bounds(context, op)).reshape(-1).astype(context.code_dtype)
    values = writer.constant(table, context.name(op, "table"))
    context.define(target, writer.op("Gather", [values, index], context.names[target], axis=0))
    context.tell(target, target, "table")
    context.notes.append(
        f"{op.op} {context.names[target]!r} is looked up in a table of 65,536 pairs: XNNPACK does not take it, and LiteRT's "
        "built-in kernel has integers of its own"
    )


def _sum(context: ImportContext, op: TfliteOperator, case: PairCase, wide: Sequence[ir.Value]) -> ir.Value:
    m = sum_multipliers(case)
    codes = np.array([case.lowest, case.lowest + 255], np.int64)
    totals = (codes - case.a.zero_point)[:, None] * m.m_a + (codes - case.b.zero_point)[None] * m.m_b
    lift = max(0, -(int(totals.min()) >> m.shift))  # steps that keep the total above zero
    start = (lift << m.shift) + (1 << (m.shift - 1)) - case.a.zero_point * m.m_a - case.b.zero_point * m.m_b
    if int(totals.max()) + (lift << m.shift) + (1 << (m.shift - 1)) >= 2**31:
        raise OverflowError("its sums do not fit 32 bits")  # told with the operator's name
    terms = [
        _with(context, op, "Mul", value, np.int32(factor), f"term{position}")
        for position, (value, factor) in enumerate(zip(wide, (m.m_a, m.m_b), strict=True))
    ]
    total = context.writer.op("Add", terms, context.name(op, "total"))
    total = _with(context, op, "Add", total, np.int32(start), "lifted")
    steps = _with(context, op, "Div", total, np.int32(1 << m.shift), "steps")
    return _with(context, op, "Add", steps, np.int32(case.out.zero_point - lift), "codes")


def _close_product(context: ImportContext, op: TfliteOperator, case: PairCase, operands: Sequence[ir.Value]) -> None:
    """Centred codes as DequantizeLinear with scale 1 gives them, their product, one float32 factor, Round."""
    writer, target = context.writer, op.outputs[0]
    centred = [
        dequantize_node(writer, codes, _ones(affine), context.code_dtype, context.name(op, f"centred{position}"))
        for position, (affine, codes) in enumerate(zip((case.a, case.b), operands, strict=True))
    ]
    product = writer.op("Mul", centred, context.name(op, "product"))
    steps = _with(context, op, "Mul", product, product_factor(case), "scaled")
    rounded = writer.op("Round", [steps], context.name(op, "rounded"))
    low, high = code_bounds(context, op)
    if (low, high) != (case.lowest, case.lowest + 255):
        limits = [
            writer.constant(np.float32(bound - case.out.zero_point), context.name(op, f"{side} step"))
            for side, bound in (("lowest", low), ("highest", high))
        ]
        rounded = writer.op("Clip", [rounded, *limits], context.name(op, "clipped"))
    params, dtype = _ones(case.out), context.code_dtype
    context.define(target, quantize_node(writer, rounded, params, dtype, context.names[target]))


def _ones(affine: Affine) -> QuantParams:
    return QuantParams.per_tensor(1.0, affine.zero_point)


def _with(  # noqa: PLR0917  a node reads as kind, operand, number, name
    context: ImportContext, op: TfliteOperator, kind: str, value: ir.Value, number: np.generic, name: str
) -> ir.Value:
    """A node whose second operand is a constant number."""
    constant = context.writer.constant(number, context.name(op, f"{name}/number"))
    return context.writer.op(kind, [value, constant], context.name(op, name))
