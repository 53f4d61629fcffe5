"""CONV_2D and DEPTHWISE_CONV_2D: DequantizeLinear x 3 -> Conv -> QuantizeLinear, with the source's integers.

Float activations: the same operators without pairs; int8 weights stay codes behind a DequantizeLinear (dynamic range).

Numeric effect: none against LiteRT XNNPACK. ONNX Runtime's QLinearConv requantises exactly like it, with the float32
factor ``x_scale * w_scale / y_scale`` and rounding half to even.

FULLY_CONNECTED: DequantizeLinear x 3 -> Gemm -> QuantizeLinear, with the source's integers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.graph import bias_node, bias_params, weight_node
from converters.sources.tflite.conditions import is_multiplied_by_xnnpack
from converters.sources.tflite.context import ImportContext, int_option, same_padding
from converters.sources.tflite.ops.activations import close_with_activation
from converters.sources.tflite.ops.fixed_point import integer_product, is_fixed_point, requantized
from converters.sources.tflite.ops.moving import reshape
from converters.spec import TensorTwin

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.quant import QuantParams
    from converters.sources.tflite.reader import TfliteOperator


def conv_2d(context: ImportContext, op: TfliteOperator) -> None:
    """CONV_2D: weights ``(out, h, w, in)`` become ``(out, in, h, w)``; grouped where the input has more channels."""
    weights, channels = context.constant_of(op, 1), context.tensor(op.inputs[0]).shape[3]
    _convolution(context, op, weights.transpose(0, 3, 1, 2), "OHWI->OIHW", channels // weights.shape[3])


def depthwise_conv_2d(context: ImportContext, op: TfliteOperator) -> None:
    """DEPTHWISE_CONV_2D: weights ``(1, h, w, in * multiplier)`` become ``(in * multiplier, 1, h, w)``, a group per channel."""
    weights, channels = context.constant_of(op, 1), context.tensor(op.inputs[0]).shape[3]
    _convolution(context, op, weights.transpose(3, 0, 1, 2), "1HWO->O1HW", channels)


def _convolution(
    context: ImportContext, op: TfliteOperator, weights_oihw: NDArray[Any], layout: str, groups: int
) -> None:
    kernel = weights_oihw.shape[2:]
    strides = (int_option(op, "stride_h"), int_option(op, "stride_w"))
    dilations = (int_option(op, "dilation_h"), int_option(op, "dilation_w"))
    inputs = [context.float_of(op.inputs[0]), weight_value(context, op, weights_oihw, layout), bias_value(context, op)]
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
    """The weights' codes as the source has them, dequantised along their first axis, with a zero-point of their own.

    Float weights stay what they are.
    """
    name = context.names[op.inputs[1]]
    if weights.dtype == np.float32:
        return _float_constant(context, op.inputs[1], weights, layout)
    codes, real = weight_node(context.writer, weights, _weight_params(context, op), name)
    context.twins[name] = TensorTwin(str(codes.name), layout, 0)
    return real


def bias_value(context: ImportContext, op: TfliteOperator) -> ir.Value | None:
    """The int32 bias, dequantised with exactly ``x_scale * w_scale``; None where the operator has none."""
    if len(op.inputs) < 3 or op.inputs[2] < 0:
        return None
    if context.constant_of(op, 2).dtype == np.float32:
        return _float_constant(context, op.inputs[2], context.constant_of(op, 2).reshape(-1), "same")
    params = bias_params(context.params(op.inputs[0]), _weight_params(context, op))
    name = context.names[op.inputs[2]]
    codes, real = bias_node(context.writer, context.constant_of(op, 2).reshape(-1), params, name)
    context.twins[name] = TensorTwin(str(codes.name), "same", 0)
    return real


def _float_constant(context: ImportContext, index: int, array: NDArray[Any], layout: str) -> ir.Value:
    """Float weights or a float bias of one operator."""
    name = context.names[index]
    value = context.writer.constant(np.ascontiguousarray(array), context.writer.unique(f"{name}/float"))
    context.twins[name] = TensorTwin(str(value.name), layout, 0)
    return value


def _weight_params(context: ImportContext, op: TfliteOperator) -> QuantParams:
    params = context.tensor(op.inputs[1]).quant
    assert params is not None, "require_supported refuses weights without a scale"  # noqa: S101 - checked before
    return params


def batch_matmul(context: ImportContext, op: TfliteOperator) -> None:
    """BATCH_MATMUL: the last two axes of both operands, in the source's layout; ``adj_x`` and ``adj_y`` exchange them."""
    target = op.outputs[0]
    rank = len(context.tensor(target).shape)
    codes = [
        _matrix(context, op, position, exchanged=bool(op.options[name]))
        for position, name in enumerate(("adj_x", "adj_y"))
    ]
    if not is_multiplied_by_xnnpack(context.model, op) and is_fixed_point(context, op):
        sums = integer_product(context, op, *codes)
        found = requantized(context, op, sums, context.name(op, "nhwc"), halves_up=False)
        context.define(target, context.from_source_layout(found, rank, context.names[target]))
        return
    operands = [
        context.adjusted_float_of(index, context.params(index), target, codes=value)
        if context.is_quantized(index)
        else value
        for index, value in zip(op.inputs, codes, strict=True)
    ]
    real = context.writer.op("MatMul", operands, context.name(op, "product"))
    context.close(target, context.from_source_layout(real, rank, context.name(op)))


def _matrix(context: ImportContext, op: TfliteOperator, position: int, *, exchanged: bool) -> ir.Value:
    """An operand's codes (or float32 numbers) in the source's layout, so that runtimes multiply them as they are."""
    index, name = op.inputs[position], context.name(op, f"operand{position}")
    rank = len(context.tensor(index).shape)
    value = context.to_source_layout(context.codes_of(index), rank, f"{name}/nhwc")
    if exchanged:
        perm = [*range(rank - 2), rank - 1, rank - 2]
        value = context.writer.op("Transpose", [value], f"{name}/exchanged", perm=perm)
    return value


def fully_connected(context: ImportContext, op: TfliteOperator) -> None:
    """FULLY_CONNECTED: the input is flattened to rows of the weights' length, weights stay ``(out, in)``.

    Weights may be computed at run time (attention): then they are read as every other tensor.
    """
    source, target = context.tensor(op.inputs[0]), context.tensor(op.outputs[0])
    units, length = context.tensor(op.inputs[1]).shape
    rows = (math.prod(source.shape) // length, length)
    if op.inputs[1] in context.constants:
        weights = weight_value(context, op, context.constant_of(op, 1), "same")
    elif is_fixed_point(context, op):
        _multiply_computed(context, op, rows)
        return
    else:
        weights = context.float_of(op.inputs[1])
    inputs = [
        reshape(context, context.float_of(op.inputs[0]), source.shape, rows, context.name(op, "rows")),
        weights,
        bias_value(context, op),
    ]
    real = context.writer.op(
        "Gemm", inputs if inputs[2] is not None else inputs[:2], context.name(op, "product"), transB=1
    )
    real = reshape(context, real, (rows[0], units), target.shape, context.name(op, "shaped"))
    close_with_activation(context, op, real)


def _multiply_computed(context: ImportContext, op: TfliteOperator, rows: tuple[int, int]) -> None:
    """A FULLY_CONNECTED with computed weights, in LiteRT's fixed point."""
    source, target, name = context.tensor(op.inputs[0]), op.outputs[0], context.names[op.outputs[0]]
    codes = reshape(context, context.codes_of(op.inputs[0]), source.shape, rows, context.name(op, "rows"))
    columns = context.writer.op("Transpose", [context.codes_of(op.inputs[1])], context.name(op, "columns"), perm=[1, 0])
    sums = integer_product(context, op, codes, columns)
    if len(op.inputs) > 2 and op.inputs[2] >= 0:
        bias = context.writer.constant(context.constant_of(op, 2).reshape(-1), context.name(op, "bias"))
        sums = context.writer.op("Add", [sums, bias], context.name(op, "biased"))
    shape, units = context.tensor(target).shape, context.tensor(op.inputs[1]).shape[0]
    found = requantized(
        context, op, sums, name if shape == (rows[0], units) else context.name(op, "flat"), halves_up=True
    )
    context.define(target, reshape(context, found, (rows[0], units), shape, name))
