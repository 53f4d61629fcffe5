"""SOFTMAX, of codes as LiteRT's built-in kernel computes it (``converters.integer.functions``), in standard operators.

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
from converters.integer.functions import HALVES, exponentials
from converters.quant import QuantParams

if TYPE_CHECKING:
    from converters.sources.tflite.context import ImportContext

LEVELS = np.float32(256)
MOST_PARTS = 128  # of a Sum


def softmax(context: ImportContext) -> None:
    """SOFTMAX over the last source axis."""
    quantized = context.is_quantized(context.source) and context.is_quantized(context.target)
    if quantized and context.match_litert and not context.keeps_fused():
        _step_by_step(context)
    else:
        _close_plainly(context)


def _step_by_step(context: ImportContext) -> None:
    source, target = context.source, context.target
    classes = context.shape(source)[-1]
    axis = context.axis(source, len(context.shape(source)) - 1)

    def step(kind: str, suffix: str, *operands: ir.Value | np.generic | np.ndarray, **attributes: int) -> ir.Value:
        values = [
            operand if isinstance(operand, ir.Value) else context.initializer(operand, f"{suffix}/number{i}")
            for i, operand in enumerate(operands)
        ]
        return context.node(kind, values, suffix, **attributes)

    codes = context.codes_of(source)
    largest = step("ReduceMax", "largest", codes, np.array([axis], np.int64), keepdims=1)
    ends = [context.wide(value, f"wide{i}") for i, value in enumerate((largest, codes))]
    table = exponentials(_times_beta(context).scalar_scale)
    raised = step("Gather", "raised", table, step("Sub", "below", *ends), axis=0)
    if classes > MOST_PARTS:
        sums = step("CumSum", "sums", raised, np.int64(axis))
        total = step("Gather", "total", sums, np.array([classes - 1], np.int64), axis=axis)
    else:
        sizes, names = np.ones(classes, np.int64), [context.name(f"class{i}") for i in range(classes)]
        parts = context.writer.ops("Split", [raised, context.initializer(sizes, "sizes")], names, axis=axis)
        total = context.node("Sum", parts, "total")
    scale, zero_point = context.params(target).scalar_scale, context.params(target).scalar_zero_point
    if scale * LEVELS != 1:
        total = step("Mul", "sum", total, scale * LEVELS)
    # a Div of 1 ONNX Runtime would join with the Mul behind it
    inverse = step("Div", "inverse", LEVELS, total)
    half = HALVES[context.tensor(target).dtype]
    steps = step("Floor", "steps", step("Add", "half a code", step("Mul", "shares", raised, inverse), half))
    if zero_point:
        steps = step("Add", "codes", steps, np.float32(zero_point))
    low, high = np.float32(context.lowest_code), np.float32(context.lowest_code + 255)
    context.define_computed(step("Clip", "clipped", steps, low, high))


def _close_plainly(context: ImportContext) -> None:
    """One Softmax; ``beta`` scales the input's DequantizeLinear.

    Between codes a Min with 1, which changes nothing, keeps it in float32. Integer kernels are no nearer to LiteRT and
    slower (ONNX Runtime), give the lowest code for one class, which is 1 everywhere (the same, 1.15 to 1.30), or are
    wrong (tract).
    """
    source, beta = context.source, np.float32(context.float_option("beta"))
    if context.is_quantized(source):
        real = context.adjusted_float_of(source, _times_beta(context))
    else:
        real = context.float_of(source)
        if beta != 1:
            real = context.node("Mul", [real, context.initializer(beta, "beta")], "times beta")
    axis = context.axis(source, len(context.shape(source)) - 1)
    probabilities = context.node("Softmax", [real], axis=axis)
    if context.is_quantized(source):
        one = context.initializer(np.float32(1), "one")
        probabilities = context.node("Min", [probabilities, one], "at most one")
    context.close(probabilities)


def _times_beta(context: ImportContext) -> QuantParams:
    """The input's quantisation with ``beta`` in its scale."""
    params = context.params(context.source)
    return QuantParams(params.scale * np.float32(context.float_option("beta")), params.zero_point, params.axis)
