"""The table of operators: which function translates which TFLite operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from converters.tflite.context import ImportContext
from converters.tflite.ops import (
    activation,
    arithmetic,
    casting,
    convolution,
    fully_connected,
    joining,
    layout,
    pooling,
    quantization,
    reduction,
    resize,
    shape_arithmetic,
    slicing,
)
from converters.tflite.records import TfliteOperator

Handler = Callable[[ImportContext, TfliteOperator], None]

HANDLERS: Mapping[str, Handler] = {
    "ADD": arithmetic.add,
    "AVERAGE_POOL_2D": pooling.average_pool_2d,
    "CAST": casting.cast,
    "CONCATENATION": joining.concatenation,
    "CONV_2D": convolution.conv_2d,
    "DEPTHWISE_CONV_2D": convolution.depthwise_conv_2d,
    "DEQUANTIZE": quantization.dequantize,
    "FULLY_CONNECTED": fully_connected.fully_connected,
    "GATHER": slicing.gather,
    "LEAKY_RELU": activation.leaky_relu,
    "LOGISTIC": activation.logistic,
    "MAX_POOL_2D": pooling.max_pool_2d,
    "MEAN": reduction.mean,
    "MUL": arithmetic.mul,
    "PACK": joining.pack,
    "PAD": slicing.pad,
    "QUANTIZE": quantization.quantize,
    "RELU": activation.relu,
    "RELU6": activation.relu,
    "RELU_N1_TO_1": activation.relu,
    "RESHAPE": layout.reshape_operator,
    "RESIZE_BILINEAR": resize.resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resize.resize_nearest_neighbor,
    "SHAPE": shape_arithmetic.shape,
    "SOFTMAX": activation.softmax,
    "SPLIT": joining.split,
    "STRIDED_SLICE": slicing.strided_slice,
    "SUB": arithmetic.sub,
    "TILE": joining.tile,
    "TRANSPOSE": layout.transpose,
}
