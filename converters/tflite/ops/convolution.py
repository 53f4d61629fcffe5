"""CONV_2D and DEPTHWISE_CONV_2D: DequantizeLinear x 3 -> Conv -> QuantizeLinear, with the source's integers.

Numeric effect: none against LiteRT XNNPACK. ONNX Runtime's QLinearConv requantises exactly like it, with the float32 factor
``x_scale * w_scale / y_scale`` and rounding half to even.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import SourceFileError, UnsupportedModelError
from converters.quant import QuantParams
from converters.spec import TensorTwin
from converters.tflite.context import ImportContext, dequantize_node, describe, int_option, same_padding
from converters.tflite.ops.clamp import close_with_activation

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.tflite.records import TfliteOperator


def conv_2d(context: ImportContext, op: TfliteOperator) -> None:
    """CONV_2D: weights ``(out, h, w, in)`` become ``(out, in, h, w)``; grouped where the input has more channels."""
    weights, channels = context.constant_of(op, 1), context.tensor(op.inputs[0]).shape[3]
    groups = channels // weights.shape[3]
    _require_fit(
        context, op, fits=channels % weights.shape[3] == 0 and weights.shape[0] % max(groups, 1) == 0
    )
    _convolution(context, op, weights.transpose(0, 3, 1, 2), "OHWI->OIHW", groups)


def depthwise_conv_2d(context: ImportContext, op: TfliteOperator) -> None:
    """DEPTHWISE_CONV_2D: weights ``(1, h, w, in * multiplier)`` become ``(in * multiplier, 1, h, w)``, a group per channel."""
    weights, channels = context.constant_of(op, 1), context.tensor(op.inputs[0]).shape[3]
    _require_fit(context, op, fits=weights.shape[0] == 1 and weights.shape[3] % channels == 0)
    _convolution(context, op, weights.transpose(3, 0, 1, 2), "1HWO->O1HW", channels)


def _require_fit(context: ImportContext, op: TfliteOperator, *, fits: bool) -> None:
    if not fits:
        image, weights = (list(context.tensor(index).shape) for index in op.inputs[:2])
        where = f"{context.model.file}: {describe(context, op)}"
        msg = f"{where} has weights {weights} for an input {image}: the channels do not fit"
        raise SourceFileError(msg)


def _convolution(
    context: ImportContext, op: TfliteOperator, weights_oihw: NDArray[Any], layout: str, groups: int
) -> None:
    kernel = weights_oihw.shape[2:]
    strides = (int_option(op, "stride_h"), int_option(op, "stride_w"))
    dilations = (int_option(op, "dilation_h"), int_option(op, "dilation_w"))
    inputs = [
        context.float_of(op.inputs[0]),
        weight_value(context, op, weights_oihw, layout),
        bias_value(context, op, weights_oihw.shape[0]),
    ]
    real = context.writer.op(
        "Conv",
        inputs if inputs[2] is not None else inputs[:2],
        context.name(op),
        kernel_shape=list(kernel),
        strides=list(strides),
        dilations=list(dilations),
        group=groups,
        pads=explicit_pads(context, op, (kernel[0], kernel[1]), strides, dilations),
    )
    close_with_activation(context, op, real)


def explicit_pads(
    context: ImportContext,
    op: TfliteOperator,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
) -> list[int]:
    """The operator's SAME or VALID padding as ONNX ``pads``: top, left, bottom, right."""
    if op.options["padding"] == "VALID":
        return [0, 0, 0, 0]
    _, height, width, _ = context.tensor(op.inputs[0]).shape
    top, bottom = same_padding(height, kernel[0], strides[0], dilations[0])
    left, right = same_padding(width, kernel[1], strides[1], dilations[1])
    return [top, left, bottom, right]


def weight_value(context: ImportContext, op: TfliteOperator, weights: NDArray[Any], layout: str) -> ir.Value:
    """The weights' codes as the source has them, dequantised along their first axis, with a zero-point of their own."""
    tensor = context.tensor(op.inputs[1])
    params = _weight_params(context, op)
    if params.scale.size not in (1, weights.shape[0]):
        msg = (
            f"{context.model.file}: {describe(context, op)} has {params.scale.size} weight scales along axis {params.axis}, "
            f"expected 1 or {weights.shape[0]}, one per output channel"
        )
        raise UnsupportedModelError(msg)
    name = context.writer.unique(context.names[op.inputs[1]])
    codes = context.writer.constant(weights, f"{name}/codes")
    context.twins[context.names[op.inputs[1]]] = TensorTwin(str(codes.name), layout, 0)
    dtype = np.uint8 if tensor.dtype == "uint8" else np.int8
    return dequantize_node(
        context.writer,
        codes,
        params,
        dtype,
        f"{name}/dequantized",
        axis=None if params.scale.size == 1 else 0,
    )


def bias_value(context: ImportContext, op: TfliteOperator, channels: int) -> ir.Value | None:
    """The int32 bias, dequantised with exactly ``x_scale * w_scale``; None where the operator has none."""
    if len(op.inputs) < 3 or op.inputs[2] < 0:
        return None
    tensor, codes = context.tensor(op.inputs[2]), context.constant_of(op, 2)
    if tensor.dtype != "int32" or codes.shape != (channels,):
        msg = (
            f"{context.model.file}: {describe(context, op)} has a bias of {tensor.dtype} {codes.shape}, "
            f"expected int32 ({channels},)"
        )
        raise UnsupportedModelError(msg)
    scale = context.params(op.inputs[0]).scalar_scale * _weight_params(context, op).scale
    params = QuantParams(scale, np.zeros(scale.shape, np.int64), None if scale.size == 1 else 0)
    name = context.writer.unique(context.names[op.inputs[2]])
    value = context.writer.constant(codes, f"{name}/codes")
    context.twins[context.names[op.inputs[2]]] = TensorTwin(str(value.name), "same", 0)
    return dequantize_node(context.writer, value, params, np.int32, f"{name}/dequantized", axis=params.axis)


def _weight_params(context: ImportContext, op: TfliteOperator) -> QuantParams:
    tensor = context.tensor(op.inputs[1])
    if tensor.quant is None or tensor.dtype not in ("int8", "uint8"):
        msg = f"{context.model.file}: {describe(context, op)} has weights {tensor.name!r} of {tensor.dtype} without a scale"
        raise UnsupportedModelError(msg)
    return tensor.quant
