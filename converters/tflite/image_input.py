"""What carries a TFLite detector's input tensor: pixels, their codes, or the rescaled numbers.

A quantised input tensor *is* the pixels: TFLite detectors of this family take raw RGB bytes as codes (int8 inputs:
byte - 128). A float input tensor is the rescaled pixel; where the QUANTIZE behind it only undoes the rescaling, the
pixels are its codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.qdq import image_pixels, pixel_codes, pixels_are_codes, rescaled_pixels

if TYPE_CHECKING:
    import onnx_ir as ir

    from converters.spec import ImageInput
    from converters.tflite.context import ImportContext


def define_image_input(context: ImportContext, image: ImageInput, batch: int | str) -> None:
    """Declare ``image`` (uint8 NHWC) and register what carries the source's input tensor."""
    pixels = image_pixels(context.writer, image, batch)
    index = context.model.inputs[0]
    if context.is_quantized(index):
        context.define(index, _codes(context, pixels, index))
        return
    for op in context.model.operators:
        if op.op == "QUANTIZE" and op.inputs[0] == index:
            target = op.outputs[0]
            if pixels_are_codes(image.rescaling, context.params(target), context.code_dtype):
                context.define(target, _codes(context, pixels, target))
    context.define(index, rescaled_pixels(context.writer, pixels, image.rescaling))


def _codes(context: ImportContext, pixels: ir.Value, index: int) -> ir.Value:
    """The dialect's codes of tensor ``index``, whose uint8 codes are the pixels."""
    return pixel_codes(
        context.writer, pixels, context.params(index), context.code_dtype, context.names[index]
    )
