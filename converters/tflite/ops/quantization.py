"""QUANTIZE and DEQUANTIZE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.tflite.ops.activation import requantize

if TYPE_CHECKING:
    from converters.tflite.context import ImportContext
    from converters.tflite.records import TfliteOperator


def quantize(context: ImportContext, op: TfliteOperator) -> None:
    """QUANTIZE from float, or from 8 bit to 8 bit (nothing at all where the dialect makes both sides equal)."""
    source, target = op.inputs[0], op.outputs[0]
    if target in context.values:  # the image input found that the pixels are these codes
        return
    if context.is_quantized(source):
        requantize(context, source, target)
    else:
        context.define_quantized(target, context.float_of(source))


def dequantize(context: ImportContext, op: TfliteOperator) -> None:
    """DEQUANTIZE: the codes' own DequantizeLinear."""
    context.define(op.outputs[0], context.float_of(op.inputs[0]))
