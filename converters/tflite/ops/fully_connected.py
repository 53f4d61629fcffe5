"""FULLY_CONNECTED: DequantizeLinear x 3 -> Gemm -> QuantizeLinear, with the source's integers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from converters.tflite.ops.clamp import close_with_activation
from converters.tflite.ops.convolution import bias_value, weight_value
from converters.tflite.ops.layout import reshape

if TYPE_CHECKING:
    from converters.tflite.context import ImportContext
    from converters.tflite.records import TfliteOperator


def fully_connected(context: ImportContext, op: TfliteOperator) -> None:
    """FULLY_CONNECTED: the input is flattened to rows of the weights' length, weights stay ``(out, in)``."""
    source, target = context.tensor(op.inputs[0]), context.tensor(op.outputs[0])
    weights = context.constant_of(op, 1)
    units, length = weights.shape
    rows = (math.prod(source.shape) // length, length)
    inputs = [
        reshape(context, context.float_of(op.inputs[0]), source.shape, rows, context.name(op, "rows")),
        weight_value(context, op, weights, "same"),
        bias_value(context, op),
    ]
    real = context.writer.op(
        "Gemm", inputs if inputs[2] is not None else inputs[:2], context.name(op, "product"), transB=1
    )
    real = reshape(context, real, (rows[0], units), target.shape, context.name(op, "shaped"))
    close_with_activation(context, op, real)
