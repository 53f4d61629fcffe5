"""Whether a conversion promises LiteRT XNNPACK's bits: by what it was asked for, and by the source's operators.

The table follows docs/operators.md: an operator that is not exact there keeps the pair from being declared exact, and the
runtime is judged by the spread instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from converters.leaky import LeakyCase, xnnpack_multipliers
from converters.pairs import Affine, PairCase, PairOp, xnnpack_takes
from xdet.checking.source_graph import number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converters.spec import ModelDocument
    from converters.tflite.records import TfliteOperator
    from xdet.checking.source_graph import SourceGraph

EXACT = frozenset(
    {
        *("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MAX_POOL_2D", "LEAKY_RELU", "QUANTIZE", "DEQUANTIZE", "CAST"),
        *("RESIZE_NEAREST_NEIGHBOR", "PAD", "RESHAPE", "TRANSPOSE", "STRIDED_SLICE", "GATHER", "TILE", "SPLIT", "PACK"),
        *("SHAPE", "CONCATENATION", "ADD", "SUB", "MUL", "RESIZE_BILINEAR"),
    }
)  # fmt: skip
AT_EQUAL_SCALES = frozenset({"RELU", "RELU6", "RELU_N1_TO_1", "MEAN", "AVERAGE_POOL_2D"})
LARGEST_WINDOW = 127  # pixels that AVERAGE_POOL_2D averages exactly


def why_not_exact(document: ModelDocument, source: SourceGraph | None) -> str | None:
    """Why ONNX Runtime's heads need not equal XNNPACK's; None where they must."""
    if source is None or document.activations == "float32":
        return "no pair is declared exact: the source has no integers to reproduce"
    if document.leaky_relu != "litert":
        return (
            "no pair is declared exact: converted with --leaky-relu float, which follows the real functions"
        )
    blocked = sorted(set(_inexact(source)))
    if blocked:
        return f"no pair is declared exact: {', '.join(blocked)} may differ by 1 LSB (docs/operators.md)"
    return None


def _inexact(source: SourceGraph) -> Iterator[str]:
    for op in source.model.operators:
        integers = all(source.model.tensors[i].dtype in ("int32", "int64") for i in op.outputs)
        if integers:  # arithmetic on shapes, done at conversion
            continue
        if (op.op not in EXACT and op.op not in AT_EQUAL_SCALES) or _is_odd(source, op):
            yield op.op


def _is_odd(source: SourceGraph, op: TfliteOperator) -> bool:
    """Whether an operator that is exact in general is not exact here."""
    tensors = source.model.tensors
    if op.op in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return tensors[op.inputs[1]].dtype == "uint8"
    if op.op in ("ADD", "SUB", "MUL"):
        return _is_left_to_built_ins(source, op)
    before, after = tensors[op.inputs[0]].quant, tensors[op.outputs[0]].quant
    if before is None or after is None or before.scale.size != 1 or after.scale.size != 1:
        return False
    if op.op in ("LEAKY_RELU", "QUANTIZE"):
        slope = np.float32(number(op, "alpha", 1.0))
        case = LeakyCase(before.scalar_scale, 0, after.scalar_scale, 0, slope)
        return not before.same_as(after) and xnnpack_multipliers(case) is None
    if op.op in AT_EQUAL_SCALES:
        window = number(op, "filter_h", 1) * number(op, "filter_w", 1)
        return before.scalar_scale != after.scalar_scale or window > LARGEST_WINDOW
    return op.op == "RESIZE_BILINEAR" and not before.same_as(after)


def _is_left_to_built_ins(source: SourceGraph, op: TfliteOperator) -> bool:
    """Whether XNNPACK does not take a sum or product."""
    affines = []
    for index in (*op.inputs[:2], op.outputs[0]):
        quant = source.model.tensors[index].quant
        if quant is None or quant.scale.size != 1:
            return False
        affines.append(Affine(quant.scalar_scale, quant.scalar_zero_point))
    a, b, out = affines
    return not xnnpack_takes(PairCase(cast("PairOp", op.op), a, b, out, lowest=0))
