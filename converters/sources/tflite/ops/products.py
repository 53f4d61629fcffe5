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

from converters.graph import bias_params, constant_node
from converters.sources.tflite.context import ImportContext, same_padding
from converters.sources.tflite.ops.activations import close_with_activation
from converters.sources.tflite.ops.integers import integer_product, is_fixed_point, requantized
from converters.spec import TensorTwin

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.sources.tflite.reader import TfliteModel, TfliteOperator

Shape = tuple[int, ...]


def fits_convolution(image: Shape, weights: Shape) -> tuple[bool, int]:
    """Weights ``(out, h, w, in)``; grouped where the input has a multiple of ``in`` channels."""
    groups, rest = divmod(image[3], weights[3])
    return rest == 0 and weights[0] % groups == 0, weights[0]


def fits_depthwise(image: Shape, weights: Shape) -> tuple[bool, int]:
    """Weights ``(1, h, w, in * multiplier)``."""
    return weights[0] == 1 and weights[3] % image[3] == 0, weights[3]


def fits_product(source: Shape, weights: Shape) -> tuple[bool, int]:
    """Weights ``(units, length)``; the input is read as rows of ``length``."""
    return math.prod(source) % weights[1] == 0, weights[0]


def is_computed(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether weights of codes are computed at run time."""
    return model.tensors[op.inputs[1]].data is None


def is_multiplied_by_xnnpack(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether XNNPACK takes a BATCH_MATMUL: of int8 codes, the second operand's with zero-point 0."""
    tensor = model.tensors[op.inputs[1]]
    return tensor.dtype == "int8" and tensor.quant is not None and not tensor.quant.zero_point.any()


def conv_2d(context: ImportContext) -> None:
    """CONV_2D: weights ``(out, h, w, in)`` become ``(out, in, h, w)``; grouped where the input has more channels."""
    weights, channels = context.constant_of(1), context.shape(context.source)[3]
    _convolution(context, weights.transpose(0, 3, 1, 2), "OHWI->OIHW", channels // weights.shape[3])


def depthwise_conv_2d(context: ImportContext) -> None:
    """DEPTHWISE_CONV_2D: weights ``(1, h, w, in * multiplier)`` become ``(in * multiplier, 1, h, w)`` in groups."""
    channels = context.shape(context.source)[3]
    _convolution(context, context.constant_of(1).transpose(3, 0, 1, 2), "1HWO->O1HW", channels)


def _convolution(context: ImportContext, weights_oihw: NDArray[Any], layout: str, groups: int) -> None:
    kernel = list(weights_oihw.shape[2:])
    strides, dilations = ([context.int_option(f"{what}_{side}") for side in "hw"] for what in ("stride", "dilation"))
    pads = [0, 0, 0, 0]
    if context.op.options["padding"] != "VALID":
        axes = zip(context.shape(context.source)[1:3], kernel, strides, dilations, strict=True)
        (top, bottom), (left, right) = (same_padding(*axis) for axis in axes)
        pads = [top, left, bottom, right]
    operands = [context.float_of(context.source), _weights(context, weights_oihw, layout), *_bias(context)]
    real = context.node(
        "Conv", operands, kernel_shape=kernel, strides=strides, dilations=dilations, group=groups, pads=pads
    )
    close_with_activation(context, real)


def _weights(context: ImportContext, weights: NDArray[Any], layout: str) -> ir.Value:
    """The weights' codes as the source has them, dequantised along their first axis, with a zero-point of their own.

    Float weights stay what they are.
    """
    index = context.op.inputs[1]
    if weights.dtype == np.float32:
        return _float_constant(context, index, weights, layout)
    codes, real = constant_node(context.writer, weights, context.own_quant(index), context.names[index])
    context.twins[context.names[index]] = TensorTwin(str(codes.name), layout, 0)
    return real


def _bias(context: ImportContext) -> list[ir.Value]:
    """The int32 bias, dequantised with exactly ``x_scale * w_scale``; none where the operator has none."""
    if not context.has_operand(2):
        return []
    source, place, index = context.op.inputs[:3]
    bias = context.constant_of(2).reshape(-1)
    if bias.dtype == np.float32:
        return [_float_constant(context, index, bias, "same")]
    params = bias_params(context.params(source), context.own_quant(place))
    codes, real = constant_node(context.writer, bias, params, context.names[index])
    context.twins[context.names[index]] = TensorTwin(str(codes.name), "same", 0)
    return [real]


def _float_constant(context: ImportContext, index: int, array: NDArray[Any], layout: str) -> ir.Value:
    """Float weights or a float bias of one operator."""
    name = context.names[index]
    value = context.writer.constant(array, context.writer.unique(f"{name}/float"))
    context.twins[name] = TensorTwin(str(value.name), layout, 0)
    return value


def batch_matmul(context: ImportContext) -> None:
    """BATCH_MATMUL: the last two axes of both operands in the source's layout; ``adj_x``, ``adj_y`` exchange them."""
    op, target = context.op, context.target
    rank = len(context.shape(target))
    codes = [_matrix(context, position, option) for position, option in enumerate(("adj_x", "adj_y"))]
    if not is_multiplied_by_xnnpack(context.model, op) and is_fixed_point(context):
        sums = integer_product(context, *codes)
        product = requantized(context, sums, context.name("nhwc"), halves_up=False)
        context.define(target, context.from_source_layout(product, rank, context.names[target]))
        return
    operands = [
        context.adjusted_float_of(index, context.params(index), value) if context.is_quantized(index) else value
        for index, value in zip(op.inputs, codes, strict=True)
    ]
    context.close(context.from_source_layout(context.node("MatMul", operands, "product"), rank, context.name()))


def _matrix(context: ImportContext, position: int, exchanged: str) -> ir.Value:
    """An operand's codes (or float32 numbers) in the source's layout, so that runtimes multiply them as they are."""
    index, name = context.op.inputs[position], context.name(f"operand{position}")
    rank = len(context.shape(index))
    value = context.to_source_layout(context.codes_of(index), rank, f"{name}/nhwc")
    if context.op.options[exchanged]:
        perm = [*range(rank - 2), rank - 1, rank - 2]
        value = context.writer.op("Transpose", [value], f"{name}/exchanged", perm=perm)
    return value


def fully_connected(context: ImportContext) -> None:
    """FULLY_CONNECTED: the input is flattened to rows of the weights' length, weights stay ``(out, in)``.

    Weights may be computed at run time (attention): then they are read as every other tensor.
    """
    place, shape = context.op.inputs[1], context.shape(context.source)
    units, length = context.shape(place)
    rows = (math.prod(shape) // length, length)
    if place in context.constants:
        weights = _weights(context, context.constant_of(1), "same")
    elif is_fixed_point(context):
        _multiply_computed(context, rows, units)
        return
    else:
        weights = context.float_of(place)
    pixels = context.reshape(context.float_of(context.source), shape, rows, context.name("rows"))
    real = context.node("Gemm", [pixels, weights, *_bias(context)], "product", transB=1)
    real = context.reshape(real, (rows[0], units), context.shape(context.target), context.name("shaped"))
    close_with_activation(context, real)


def _multiply_computed(context: ImportContext, rows: tuple[int, int], units: int) -> None:
    """A FULLY_CONNECTED with computed weights, in LiteRT's fixed point."""
    source, target = context.source, context.target
    codes = context.reshape(context.codes_of(source), context.shape(source), rows, context.name("rows"))
    columns = context.node("Transpose", [context.codes_of(context.op.inputs[1])], "columns", perm=[1, 0])
    sums = integer_product(context, codes, columns)
    if context.has_operand(2):
        bias = context.initializer(context.constant_of(2).reshape(-1), "bias")
        sums = context.node("Add", [sums, bias], "biased")
    shape, flat = context.shape(target), (rows[0], units)
    name = context.names[target]
    product = requantized(context, sums, name if shape == flat else context.name("flat"), halves_up=True)
    context.define(target, context.reshape(product, flat, shape, name))
