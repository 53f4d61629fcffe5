"""Shape arithmetic: SHAPE, and integer operators whose operands are all known, computed now and never written.

Converters leave chains such as SHAPE -> STRIDED_SLICE -> PACK in front of a RESHAPE. Shapes are static here, so
every one of them has a value at conversion; ``fold`` puts it into ``context.constants``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import SourceFileError, UnsupportedModelError
from converters.tflite.context import ImportContext, describe, int_option
from converters.tflite.ops.strided_index import strided_index
from converters.tflite.records import TfliteOperator

Array = NDArray[Any]
Fold = Callable[[ImportContext, TfliteOperator, list[Array]], list[Array]]


def fold(context: ImportContext, op: TfliteOperator) -> bool:
    """Compute the operator's value if it is shape arithmetic over known integers; return whether it was."""
    known = op.op == "SHAPE" or all(
        index < 0 or (index in context.constants and not context.is_quantized(index)) for index in op.inputs
    )
    if op.op not in FOLDS or not known or any(context.is_quantized(index) for index in op.outputs):
        return False
    arrays = [] if op.op == "SHAPE" else [context.constants[index] for index in op.inputs if index >= 0]
    try:
        results = FOLDS[op.op](context, op, arrays)
    except (ValueError, IndexError, TypeError) as error:  # numpy refuses operands that do not fit
        msg = f"{context.model.file}: {describe(context, op)} cannot be computed from its constants: {error}"
        raise SourceFileError(msg) from error
    for index, result in zip(op.outputs, results, strict=True):
        _keep(context, op, index, result)
    return True


def _keep(context: ImportContext, op: TfliteOperator, index: int, result: Array) -> None:
    tensor = context.tensor(index)
    if result.shape != tensor.shape:
        where = f"{context.model.file}: {describe(context, op)}"
        msg = f"{where} gives shape {list(result.shape)}, the file says {list(tensor.shape)}"
        raise SourceFileError(msg)
    context.constants[index] = result.astype(tensor.dtype)


def shape(context: ImportContext, op: TfliteOperator) -> None:
    """SHAPE is always folded; nothing reaches this place."""
    msg = f"{context.model.file}: {describe(context, op)} could not be folded"
    raise UnsupportedModelError(msg)


def _strided_slice(context: ImportContext, op: TfliteOperator, arrays: list[Array]) -> list[Array]:
    return [np.asarray(arrays[0][strided_index(context, op)])]


def _pack(_: ImportContext, op: TfliteOperator, arrays: list[Array]) -> list[Array]:
    return [np.stack(arrays, axis=int_option(op, "axis"))]


def _concatenation(_: ImportContext, op: TfliteOperator, arrays: list[Array]) -> list[Array]:
    return [np.concatenate(arrays, axis=int_option(op, "axis"))]


def _split(_: ImportContext, op: TfliteOperator, arrays: list[Array]) -> list[Array]:
    return list(np.split(arrays[1], len(op.outputs), axis=int(arrays[0].reshape(-1)[0])))


def _gather(_: ImportContext, op: TfliteOperator, arrays: list[Array]) -> list[Array]:
    return [np.take(arrays[0], arrays[1], axis=int_option(op, "axis"))]


def _tile(context: ImportContext, op: TfliteOperator, arrays: list[Array]) -> list[Array]:
    full, expected = (
        [int(n) for n in np.multiply(arrays[0].shape, arrays[1])],
        context.tensor(op.outputs[0]).shape,
    )
    if full != list(expected):
        msg = f"repeating makes {full}, the file says {list(expected)}"
        raise ValueError(msg)
    return [np.tile(arrays[0], arrays[1])]


def _same_shape(context: ImportContext, op: TfliteOperator, arrays: list[Array]) -> list[Array]:
    return [arrays[0].reshape(context.tensor(op.outputs[0]).shape)]


FOLDS: Mapping[str, Fold] = {
    "ADD": lambda _c, _o, arrays: [arrays[0] + arrays[1]],
    "CAST": lambda _c, _o, arrays: [arrays[0]],
    "CONCATENATION": _concatenation,
    "GATHER": _gather,
    "MUL": lambda _c, _o, arrays: [arrays[0] * arrays[1]],
    "PACK": _pack,
    "RESHAPE": _same_shape,
    "SHAPE": lambda context, op, _a: [np.array(context.tensor(op.inputs[0]).shape)],
    "SPLIT": _split,
    "STRIDED_SLICE": _strided_slice,
    "SUB": lambda _c, _o, arrays: [arrays[0] - arrays[1]],
    "TILE": _tile,
    "TRANSPOSE": lambda _c, _o, arrays: [arrays[0].transpose(arrays[1])],
}
