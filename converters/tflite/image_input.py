"""The graph's input: uint8 pixels in, the source's input tensor out.

A quantised input tensor *is* the pixels: TFLite detectors of this family take raw RGB bytes as codes (int8 inputs:
byte - 128). A float input tensor is the rescaled pixel; where the QUANTIZE behind it only undoes the rescaling, the
pixels are its codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from converters.quant import QuantParams, quantize
from converters.tflite.context import NHWC_TO_NCHW, ImportContext, dequantize_node, quantize_node

if TYPE_CHECKING:
    from converters.spec import ImageInput, Rescaling


def define_image_input(context: ImportContext, image: ImageInput, batch: int | str) -> None:
    """Declare ``image`` (uint8 NHWC) and register what carries the source's input tensor."""
    writer = context.writer
    value = writer.input("image", ir.DataType.UINT8, [batch, image.height, image.width, 3])
    pixels = writer.op("Transpose", [value], "pixels", perm=list(NHWC_TO_NCHW))
    index = context.model.inputs[0]
    if context.is_quantized(index):
        context.define(index, _codes_from_pixels(context, pixels, index))
        return
    for op in context.model.operators:
        if (
            op.op == "QUANTIZE"
            and op.inputs[0] == index
            and _pixels_are_codes(context, image.rescaling, op.outputs[0])
        ):
            context.define(op.outputs[0], _codes_from_pixels(context, pixels, op.outputs[0]))
    context.define(index, _rescaled(context, pixels, image.rescaling))


def _codes_from_pixels(context: ImportContext, pixels: ir.Value, index: int) -> ir.Value:
    """The dialect's codes of a tensor whose uint8 codes are the pixels."""
    if context.activations == "uint8":
        return pixels
    params, name = context.params(index), context.names[index]
    as_uint8 = QuantParams(params.scale, params.zero_point + 128)
    real = dequantize_node(context.writer, pixels, as_uint8, np.uint8, f"{name}/pixels")
    return quantize_node(context.writer, real, params, np.int8, name)


def _pixels_are_codes(context: ImportContext, rescaling: Rescaling, index: int) -> bool:
    """Whether quantising the rescaled pixel gives the pixel back (as uint8 code), for all 256 of them."""
    params = context.params(index)
    zero_point = params.scalar_zero_point + (0 if context.activations == "uint8" else 128)
    pixels = np.arange(256, dtype=np.float32)
    real = pixels * np.float32(rescaling.scale) + np.float32(rescaling.offset)
    return bool((quantize(real, params.scalar_scale, zero_point, np.uint8) == pixels).all())


def _rescaled(context: ImportContext, pixels: ir.Value, rescaling: Rescaling) -> ir.Value:
    writer = context.writer
    real = writer.op("Cast", [pixels], "pixels/float", to=int(ir.DataType.FLOAT))
    real = writer.op(
        "Mul", [real, writer.constant(np.float32(rescaling.scale), "rescaling/scale")], "pixels/scaled"
    )
    return writer.op(
        "Add", [real, writer.constant(np.float32(rescaling.offset), "rescaling/offset")], "pixels/rescaled"
    )
