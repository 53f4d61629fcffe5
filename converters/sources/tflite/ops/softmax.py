"""SOFTMAX, of codes as LiteRT's built-in kernel computes it (``converters.integer.softmax``), in standard operators.

The exponentials are looked up with Gather, and added up by one Sum of all classes, which adds them in their order, or
by CumSum where there are many (a Sum of 1,001 operands has no shape for onnx's inference). On ONNX Runtime this takes
0.6 (bins of boxes, not on the last axis) to 6 times (91 classes, on the last axis) the time of one Softmax.
GatherElements would be four times as fast as Gather, and fails on onnx's reference evaluator for tables beyond 64
entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters._ir import ir
from converters.integer.softmax import HALVES, exponentials
from converters.quant import QuantParams
from converters.sources.tflite.context import float_option

if TYPE_CHECKING:
    from converters.sources.tflite.context import ImportContext
    from converters.sources.tflite.reader import TfliteOperator

LEVELS = np.float32(256)
MOST_PARTS = 128  # of a Sum


def softmax(context: ImportContext, op: TfliteOperator) -> None:
    """SOFTMAX over the last source axis."""
    quantized = context.is_quantized(op.inputs[0]) and context.is_quantized(op.outputs[0])
    if quantized and context.match_litert and not context.keeps_fused(op):
        _step_by_step(context, op)
    else:
        _close_plainly(context, op)


def _step_by_step(context: ImportContext, op: TfliteOperator) -> None:
    source, target, writer = op.inputs[0], op.outputs[0], context.writer
    shape = context.tensor(source).shape
    axis = context.axis(source, len(shape) - 1)

    def step(kind: str, what: str, *operands: ir.Value | np.generic | np.ndarray, **attributes: int) -> ir.Value:
        values = [
            operand
            if isinstance(operand, ir.Value)
            else writer.constant(operand, context.name(op, f"{what}/number{i}"))
            for i, operand in enumerate(operands)
        ]
        return writer.op(kind, values, context.name(op, what), **attributes)

    codes, wide = context.codes_of(source), int(ir.DataType.INT32)
    largest = step("ReduceMax", "largest", codes, np.array([axis], np.int64), keepdims=1)
    ends = [step("Cast", f"wide{i}", value, to=wide) for i, value in enumerate((largest, codes))]
    table = exponentials(_times_beta(context, op).scalar_scale)
    raised = step("Gather", "raised", table, step("Sub", "below", *ends), axis=0)
    if shape[-1] > MOST_PARTS:
        sums = step("CumSum", "sums", raised, np.int64(axis))
        total = step("Gather", "total", sums, np.array([shape[-1] - 1], np.int64), axis=axis)
    else:
        sizes, names = np.ones(shape[-1], np.int64), [context.name(op, f"class{i}") for i in range(shape[-1])]
        parts = writer.ops("Split", [raised, writer.constant(sizes, context.name(op, "sizes"))], names, axis=axis)
        total = writer.op("Sum", parts, context.name(op, "total"))
    scale, zero_point = context.params(target).scalar_scale, context.params(target).scalar_zero_point
    if scale * LEVELS != 1:
        total = step("Mul", "sum", total, scale * LEVELS)
    # a Div of 1 ONNX Runtime would join with the Mul behind it
    inverse = step("Div", "inverse", LEVELS, total)
    half = HALVES[context.tensor(target).dtype]
    steps = step("Floor", "steps", step("Add", "half a code", step("Mul", "shares", raised, inverse), half))
    lowest = int(np.iinfo(context.code_dtype).min)
    if zero_point:
        steps = step("Add", "codes", steps, np.float32(zero_point))
    clipped = step("Clip", "clipped", steps, np.float32(lowest), np.float32(lowest + 255))
    to = int(ir.DataType.from_numpy(np.dtype(context.code_dtype)))
    context.define(target, writer.op("Cast", [clipped], context.names[target], to=to))
    context.tell(target, target, "table")


def _close_plainly(context: ImportContext, op: TfliteOperator) -> None:
    """One Softmax; ``beta`` scales the input's DequantizeLinear.

    Between codes a Min with 1, which changes nothing, keeps it in float32. Integer kernels are no nearer to LiteRT and
    slower (ONNX Runtime), give the lowest code for one class, which is 1 everywhere (the same, 1.15 to 1.30), or are
    wrong (tract).
    """
    source = op.inputs[0]
    beta = np.float32(float_option(op, "beta"))
    if context.is_quantized(source):
        real = context.adjusted_float_of(source, _times_beta(context, op), op.outputs[0])
    else:
        real = context.float_of(source)
        if beta != 1:
            real = context.writer.op(
                "Mul", [real, context.writer.constant(beta, context.name(op, "beta"))], context.name(op, "times beta")
            )
    axis = context.axis(source, len(context.tensor(source).shape) - 1)
    probabilities = context.writer.op("Softmax", [real], context.name(op), axis=axis)
    if context.is_quantized(source):
        one = context.writer.constant(np.float32(1), context.name(op, "one"))
        probabilities = context.writer.op("Min", [probabilities, one], context.name(op, "at most one"))
    context.close(op.outputs[0], probabilities)


def _times_beta(context: ImportContext, op: TfliteOperator) -> QuantParams:
    """The input's quantisation with ``beta`` in its scale."""
    params = context.params(op.inputs[0])
    return QuantParams(params.scale * np.float32(float_option(op, "beta")), params.zero_point, params.axis)
