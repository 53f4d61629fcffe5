"""Which case of its row holds for an operator, by its shapes, scales and options; and whether weights fit their image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np

from converters.integer.functions import BLOCK
from converters.integer.pairs import Affine, PairCase, PairOp, xnnpack_takes
from converters.leaky import LeakyCase, xnnpack_multipliers
from converters.sources.tflite.ops.integer_resize import axis_weights

if TYPE_CHECKING:
    from converters.quant import QuantParams
    from converters.sources.tflite.reader import TfliteModel, TfliteOperator
    from converters.sources.tflite.rows import Shape

LARGEST_CODE = 255
WRAPS_AT = 1 << 15
LARGEST_WINDOW = 127  # pixels that AVERAGE_POOL_2D averages exactly


def convolution(image: Shape, weights: Shape) -> tuple[bool, int]:
    """Weights ``(out, h, w, in)``; grouped where the input has a multiple of ``in`` channels."""
    groups, rest = divmod(image[3], weights[3])
    return rest == 0 and weights[0] % groups == 0, weights[0]


def depthwise(image: Shape, weights: Shape) -> tuple[bool, int]:
    """Weights ``(1, h, w, in * multiplier)``."""
    return weights[0] == 1 and weights[3] % image[3] == 0, weights[3]


def product(source: Shape, weights: Shape) -> tuple[bool, int]:
    """Weights ``(units, length)``; the input is read as rows of ``length``."""
    return math.prod(source) % weights[1] == 0, weights[0]


def per_tensor(model: TfliteModel, *indices: int) -> list[QuantParams] | None:
    """The tensors' quantisation; None where one has no scale, or several."""
    found = [model.tensors[index].quant for index in indices]
    return [q for q in found if q is not None and q.scale.size == 1] if all(
        q is not None and q.scale.size == 1 for q in found
    ) else None  # fmt: skip


def is_sparse(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether XNNPACK does not take a transposed convolution."""
    kernel, strides = model.tensors[op.inputs[1]].shape[1:3], (op.options["stride_h"], op.options["stride_w"])
    sparse = any(cast("int", stride) > size for size, stride in zip(kernel, strides, strict=True))
    return sparse and op.options["padding"] == "SAME"


def is_computed(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether weights of codes are computed at run time."""
    return model.tensors[op.inputs[1]].data is None


def is_multiplied_by_xnnpack(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether XNNPACK takes a BATCH_MATMUL: of int8 codes, the second operand's with zero-point 0."""
    tensor = model.tensors[op.inputs[1]]
    return tensor.dtype == "int8" and tensor.quant is not None and not tensor.quant.zero_point.any()


def other_scale(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether input and output have different scales."""
    quants = per_tensor(model, op.inputs[0], op.outputs[0])
    return quants is not None and quants[0].scalar_scale != quants[1].scalar_scale


def is_mean_inexact(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether a MEAN cannot have an even zero-point and scale 1, or has ties and no exact float32 factor."""
    sizes = [math.prod(model.tensors[index].shape) for index in (op.inputs[0], op.outputs[0])]
    count = sizes[0] // sizes[1]
    if count % 2 == 0 and count & (count - 1):
        return True
    quants = per_tensor(model, op.inputs[0], op.outputs[0])
    if quants is None or other_scale(model, op):
        return quants is not None
    low, high = sorted(q.scalar_zero_point for q in quants)
    return high - low == LARGEST_CODE and quants[1].scalar_zero_point == high


def is_wide(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether a pool is not averaged exactly."""
    window = math.prod(int(cast("int", op.options[name])) for name in ("filter_h", "filter_w"))
    return window > LARGEST_WINDOW or other_scale(model, op)


def reads_float(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether the first operand is float32."""
    return model.tensors[op.inputs[0]].dtype == "float32"


def is_outside_xnnpack(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether XNNPACK's LeakyReLU does not take the operator, by its scales and slope."""
    quants = per_tensor(model, op.inputs[0], op.outputs[0])
    if quants is None:
        return False
    ends = [model.tensors[index].dtype for index in (op.inputs[0], op.outputs[0])]
    shift = 128 * ((ends[0] == "int8") - (ends[1] == "int8"))
    if quants[0].shifted(shift).same_as(quants[1]):
        return False
    if ends[0] != ends[1]:
        return True
    slope = np.float32(cast("float", op.options.get("alpha", 1.0)))
    case = LeakyCase(quants[0].scalar_scale, 0, quants[1].scalar_scale, 0, slope)
    return xnnpack_multipliers(case) is None


def rounds_both_ways(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether the built-in QUANTIZE has values behind its last block, which it rounds another way."""
    count = math.prod(model.tensors[op.inputs[0]].shape)
    return is_outside_xnnpack(model, op) and count > BLOCK and count % BLOCK != 0


def is_pair_outside_xnnpack(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether XNNPACK does not take a sum or product of two tensors."""
    quants = per_tensor(model, *op.inputs[:2], op.outputs[0])
    if quants is None:
        return False
    a, b, out = (Affine(q.scalar_scale, q.scalar_zero_point) for q in quants)
    return not xnnpack_takes(PairCase(cast("PairOp", op.op), a, b, out, lowest=0))


def wraps(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether results that XNNPACK does not compute pass 16 bits, where LiteRT's vector code wraps around."""
    if not is_pair_outside_xnnpack(model, op):
        return False
    scales = [model.tensors[index].quant for index in (*op.inputs[:2], op.outputs[0])]
    a, b, out = (float(q.scalar_scale) for q in scales if q is not None)
    largest = LARGEST_CODE**2 * a * b if op.op == "MUL" else LARGEST_CODE * (a + b)
    return largest / out >= WRAPS_AT - LARGEST_CODE


def rescales(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether an operand has another scale or zero-point than the output."""
    quants = per_tensor(model, *op.inputs, op.outputs[0])
    return quants is not None and any(not q.same_as(quants[-1]) for q in quants)


def is_fine(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether a bilinear resize has weights that ONNX's Resize has not."""
    sizes, new_sizes = model.tensors[op.inputs[0]].shape[1:3], model.tensors[op.outputs[0]].shape[1:3]
    return not all(axis_weights(op, *pair).is_coarse for pair in zip(sizes, new_sizes, strict=True))
