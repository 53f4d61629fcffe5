"""The canonical QDQ form, from pixels to weights, which every importer writes through these functions.

::

    image -> Transpose -> codes                                       pixels (codes are the pixels where scales allow)
    codes -> DequantizeLinear ------------------\
    weights (int8, OIHW) -> DequantizeLinear ----> Conv -> QuantizeLinear -> codes
    bias (int32) -> DequantizeLinear(x * w) ----/

Every DequantizeLinear has its own scale and zero-point initialisers (two weights that share one make ONNX Runtime's
``session.x64quantprecision`` fail), a bias has exactly the scale ``x_scale * w_scale`` in float32, and
activations live in NCHW where they have rank 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from converters.quant import QuantParams, quantize
from converters.spec import IMAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.graph import GraphWriter
    from converters.spec import ImageInput, Rescaling

NHWC_TO_NCHW = (0, 3, 1, 2)
NCHW_TO_NHWC = (0, 2, 3, 1)
CodeDtype = type[np.uint8] | type[np.int8]


def quantize_node(
    writer: GraphWriter, real: ir.Value, params: QuantParams, dtype: CodeDtype, name: str
) -> ir.Value:
    """QuantizeLinear with one scale and zero-point; the codes are called ``name``."""
    scale = writer.constant(params.scalar_scale, f"{name}/scale")
    zero_point = writer.constant(dtype(params.scalar_zero_point), f"{name}/zero_point")
    return writer.op("QuantizeLinear", [real, scale, zero_point], name)


def dequantize_node(
    writer: GraphWriter,
    codes: ir.Value,
    params: QuantParams,
    dtype: type[np.integer[Any]],
    name: str,
    *,
    axis: int | None = None,
) -> ir.Value:
    """DequantizeLinear with initialisers of its own, per channel when ``axis`` is given; the reals are called ``name``."""
    if axis is None:
        scale = writer.constant(params.scalar_scale, f"{name}/scale")
        zero_point = writer.constant(dtype(params.scalar_zero_point), f"{name}/zero_point")
        return writer.op("DequantizeLinear", [codes, scale, zero_point], name)
    scale = writer.constant(params.scale, f"{name}/scale")
    zero_point = writer.constant(params.zero_point.astype(dtype), f"{name}/zero_point")
    return writer.op("DequantizeLinear", [codes, scale, zero_point], name, axis=axis)


def weight_node(
    writer: GraphWriter, codes: NDArray[np.int8] | NDArray[np.uint8], params: QuantParams, name: str
) -> tuple[ir.Value, ir.Value]:
    """Weights as an initialiser ``<name>/codes`` behind a DequantizeLinear.

    Args:
        writer: the graph to append to.
        codes: output channels first: ``(O, I / groups, H, W)`` for Conv, ``(O, I)`` for Gemm with ``transB``.
        params: one scale, or one per output channel.
        name: of the source tensor; made unique, since two operators may share one.

    Returns:
        (codes, reals).
    """
    name = writer.unique(name)
    value = writer.constant(codes, f"{name}/codes")
    axis = None if params.scale.size == 1 else 0
    return value, dequantize_node(writer, value, params, codes.dtype.type, f"{name}/dequantized", axis=axis)


def bias_node(
    writer: GraphWriter, codes: NDArray[np.int32], params: QuantParams, name: str
) -> tuple[ir.Value, ir.Value]:
    """An int32 bias as an initialiser ``<name>/codes`` behind a DequantizeLinear.

    Args:
        writer: the graph to append to.
        codes: int32 ``(O,)``.
        params: what ``bias_params`` gives.
        name: of the source tensor; made unique.

    Returns:
        (codes, reals).
    """
    name = writer.unique(name)
    value = writer.constant(codes, f"{name}/codes")
    axis = None if params.scale.size == 1 else 0
    return value, dequantize_node(writer, value, params, np.int32, f"{name}/dequantized", axis=axis)


def bias_params(source: QuantParams, weights: QuantParams) -> QuantParams:
    """The only quantisation a bias may have: float32 ``x_scale * w_scale``, zero-point 0, per channel as the weights.

    Args:
        source: of the operator's input, one scale.
        weights: one scale, or one per output channel.
    """
    scale = source.scalar_scale * weights.scale
    return QuantParams(scale, np.zeros(scale.shape, np.int64), None if scale.size == 1 else 0)


def image_pixels(writer: GraphWriter, image: ImageInput, batch: int | str) -> ir.Value:
    """Declare the graph input ``image``, uint8 ``[N, H, W, 3]``; returns the pixels as uint8 ``[N, 3, H, W]``."""
    value = writer.input(IMAGE, ir.DataType.UINT8, [batch, image.height, image.width, 3])
    return writer.op("Transpose", [value], "pixels", perm=list(NHWC_TO_NCHW))


def rescaled_pixels(writer: GraphWriter, pixels: ir.Value, rescaling: Rescaling) -> ir.Value:
    """Pixels as the float32 numbers a network sees: ``p * scale + offset``, both steps rounded to float32."""
    real = writer.op("Cast", [pixels], "pixels/float", to=int(ir.DataType.FLOAT))
    scale = writer.constant(np.float32(rescaling.scale), "rescaling/scale")
    offset = writer.constant(np.float32(rescaling.offset), "rescaling/offset")
    return writer.op("Add", [writer.op("Mul", [real, scale], "pixels/scaled"), offset], "pixels/rescaled")


def pixel_codes(
    writer: GraphWriter, pixels: ir.Value, params: QuantParams, dtype: CodeDtype, name: str
) -> ir.Value:
    """Codes of a tensor whose uint8 codes are the pixels: the pixels themselves, or shifted by 128 for int8.

    Args:
        writer: the graph to append to.
        pixels: uint8.
        params: the tensor's quantisation in codes of ``dtype``.
        dtype: of the activation codes.
        name: the tensor's.
    """
    if dtype is np.uint8:
        return pixels
    real = dequantize_node(writer, pixels, params.shifted(128), np.uint8, f"{name}/pixels")
    return quantize_node(writer, real, params, np.int8, name)


def pixels_are_codes(rescaling: Rescaling, params: QuantParams, dtype: CodeDtype) -> bool:
    """Whether quantising the rescaled pixel gives the pixel back (as uint8 code), for all 256 of them."""
    shift = 0 if dtype is np.uint8 else 128
    pixels = np.arange(256, dtype=np.float32)
    real = pixels * np.float32(rescaling.scale) + np.float32(rescaling.offset)
    codes = quantize(real, params.scalar_scale, params.scalar_zero_point + shift, np.uint8)
    return bool((codes == pixels).all())
