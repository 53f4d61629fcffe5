"""Sums of products as LiteRT's built-in kernels requantise them, step by step: 31-bit fixed point, rounded twice.

Runtimes multiply a sum by one float32 factor and round once. The built-in kernels multiply by 31 bits, round half up,
divide by a power of two and round again (``converters.integer.functions.rescaled``). Float64 holds every step: a sum of
24 bits times 31 bits needs 55, of which 53 are kept, which moves no sum that is not within 2^-26 of a half.

Seven elementwise operators on the product; ``--arithmetic fused`` keeps the one operator, within 1 LSB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters._ir import ir
from converters.integer.functions import quantized_multiplier
from converters.sources.tflite.ops.activations import code_bounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.sources.tflite.context import ImportContext
    from converters.sources.tflite.reader import TfliteOperator


def product_factor(context: ImportContext, op: TfliteOperator) -> float:
    """What a sum of products of the first two operands' codes is multiplied with."""
    a, b, out = (context.params(index).scalar_scale for index in (*op.inputs[:2], op.outputs[0]))
    with np.errstate(over="ignore", under="ignore"):
        return float(a * b) / float(out)


def is_fixed_point(context: ImportContext, op: TfliteOperator) -> bool:
    """Whether an operator on codes is written step by step."""
    quantized = all(context.is_quantized(index) for index in (op.inputs[1], op.outputs[0]))
    return context.match_litert and quantized and not context.keeps_fused(op)


def integer_product(context: ImportContext, op: TfliteOperator, a: ir.Value, b: ir.Value) -> ir.Value:
    """The int32 sums of products of two matrices of codes, less their zero-points."""
    zero_points = [
        context.writer.constant(
            context.code_dtype(context.params(index).scalar_zero_point), context.name(op, f"zero{position}")
        )
        for position, index in enumerate(op.inputs[:2])
    ]
    return context.writer.op("MatMulInteger", [a, b, *zero_points], context.name(op, "sums"))


def requantized(
    context: ImportContext,
    op: TfliteOperator,
    sums: ir.Value,
    name: str,
    *,
    halves_up: bool,
    factors: NDArray[np.float64] | None = None,
) -> ir.Value:
    """The operator's output codes.

    Args:
        context: the import.
        op: what is translated.
        sums: int32 sums of products, in any layout.
        name: of the result.
        halves_up: how the second rounding takes halves, else away from zero.
        factors: what sums are multiplied with, in a shape that broadcasts; None for ``product_factor``.
    """
    writer, target = context.writer, op.outputs[0]

    def step(kind: str, value: ir.Value, what: str, number: Any = None) -> ir.Value:
        operands = [value]
        if number is not None:
            operands.append(writer.constant(np.asarray(number, np.float64), context.name(op, f"{what}/number")))
        return writer.op(kind, operands, context.name(op, what))

    factors = np.array(product_factor(context, op)) if factors is None else factors
    pairs = np.array([quantized_multiplier(float(factor)) for factor in factors.flat])
    multiplier, shift = (pairs[:, i].reshape(factors.shape) for i in (0, 1))
    up = np.maximum(shift, 0)
    real = writer.op("Cast", [sums], context.name(op, "real"), to=int(ir.DataType.DOUBLE))
    fine = step(
        "Floor",
        step("Add", step("Mul", real, "scaled", np.ldexp(multiplier.astype(np.float64), up - 31)), "half", 0.5),
        "fine",
    )
    size = fine if halves_up else step("Abs", fine, "size")
    steps = step(
        "Floor",
        step("Add", step("Mul", size, "divided", np.ldexp(1.0, np.minimum(shift, 0))), "half a code", 0.5),
        "steps",
    )
    if not halves_up:
        steps = writer.op("Mul", [steps, step("Sign", fine, "sign")], context.name(op, "signed"))
    codes = step("Add", steps, "codes", context.params(target).scalar_zero_point)
    limits = [
        writer.constant(np.float64(bound), context.name(op, f"{side} code"))
        for side, bound in zip(("lowest", "highest"), code_bounds(context, op), strict=True)
    ]
    clipped = writer.op("Clip", [codes, *limits], context.name(op, "clipped"))
    context.tell(target, target, "table")
    to = ir.DataType.from_numpy(np.dtype(context.code_dtype))
    return writer.op("Cast", [clipped], name, to=int(to))
