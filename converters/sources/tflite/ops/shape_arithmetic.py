"""Shape arithmetic: SHAPE, and integer operators whose operands are all known, computed now and never written.

Converters leave chains such as SHAPE -> STRIDED_SLICE -> PACK in front of a RESHAPE. Shapes are static here, so
every one of them has a value at conversion; ``fold`` puts it into ``context.constants``. Where a result takes memory of
its own, its shape is worked out first, from shapes alone, and compared with what the file declares; only then, and only
if it is as small as shape arithmetic is, is the value computed: a file cannot ask for more memory than its declared
tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import SourceFileError, UnsupportedModelError
from converters.sources.tflite.ops.moving import strided_index

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from converters.sources.tflite.context import ImportContext

Array = NDArray[Any]
Shape = tuple[int, ...]
MOST_ELEMENTS = 1024  # shapes, axes and slices have a handful


@dataclass(frozen=True, slots=True)
class Folding:
    """How one operator is folded: its results, and, where these are no views of operands, the shape of its result."""

    values: Callable[[ImportContext, list[Array]], Sequence[Array]]
    shape: Callable[[ImportContext, list[Array]], Shape] | None = None


def fold(context: ImportContext) -> bool:
    """Compute the operator's value if it is shape arithmetic over known integers; return whether it was."""
    op = context.op
    operands = () if op.op == "SHAPE" else [index for index in op.inputs if index >= 0]
    folding = FOLDS.get(op.op)
    if folding is None or any(index not in context.constants for index in operands):
        return False
    if any(context.is_quantized(index) for index in (*operands, *op.outputs)):
        return False
    arrays = [context.constants[index] for index in operands]
    try:
        if folding.shape is not None:
            _require_declared(context, [folding.shape(context, arrays)])
        with np.errstate(over="ignore"):  # integers wrap around, as TFLite's do
            results = folding.values(context, arrays)
    except (ValueError, IndexError, TypeError, OverflowError) as error:  # numpy refuses operands that do not fit
        raise SourceFileError(f"{context.where} cannot be computed from its constants: {error}") from error
    _require_declared(context, [np.shape(result) for result in results])
    for index, result in zip(op.outputs, results, strict=True):
        context.constants[index] = np.asarray(result).astype(context.tensor(index).dtype)
    return True


def _require_declared(context: ImportContext, shapes: Sequence[Shape]) -> None:
    """Raise unless every result has the declared shape and is small."""
    for index, shape in zip(context.op.outputs, shapes, strict=True):
        declared = context.shape(index)
        if tuple(shape) != declared:
            raise SourceFileError(f"{context.where} gives shape {list(shape)}, the file says {list(declared)}")
        if math.prod(shape) > MOST_ELEMENTS:
            raise UnsupportedModelError(
                f"{context.where} computes {math.prod(shape)} integers from constants, expected at most "
                f"{MOST_ELEMENTS}; export the model with constants folded"
            )


def shape_operator(context: ImportContext) -> None:
    """SHAPE is always folded; nothing reaches this place."""
    raise UnsupportedModelError(f"{context.where} could not be folded")


def _axis(context: ImportContext, rank: int) -> int:
    """The operator's axis, counted from the front of ``rank`` axes."""
    axis = context.int_option("axis")
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} of {rank} axes")
    return axis % rank


def _broadcast(_: ImportContext, arrays: list[Array]) -> Shape:
    return np.broadcast_shapes(*(array.shape for array in arrays))


def _concatenated(context: ImportContext, arrays: list[Array]) -> Shape:
    first = arrays[0].shape
    axis = _axis(context, len(first))
    return (*first[:axis], sum(array.shape[axis] for array in arrays), *first[axis + 1 :])


def _packed(context: ImportContext, arrays: list[Array]) -> Shape:
    first = arrays[0].shape
    axis = _axis(context, len(first) + 1)
    return (*first[:axis], len(arrays), *first[axis:])


def _gathered(context: ImportContext, arrays: list[Array]) -> Shape:
    table, indices = (array.shape for array in arrays)
    axis = _axis(context, len(table))
    return (*table[:axis], *indices, *table[axis + 1 :])


def _tiled(_: ImportContext, arrays: list[Array]) -> Shape:
    repeats = [int(n) for n in arrays[1].reshape(-1)]
    return tuple(size * n for size, n in zip(arrays[0].shape, repeats, strict=True))


def _split(context: ImportContext, arrays: list[Array]) -> list[Array]:
    axis, whole, parts = int(arrays[0].reshape(-1)[0]), arrays[1].shape, len(context.op.outputs)
    if not -len(whole) <= axis < len(whole) or whole[axis] % parts:
        raise ValueError(f"{list(whole)} has no {parts} equal parts along axis {axis}")
    return np.split(arrays[1], parts, axis)


def _transposed(_: ImportContext, arrays: list[Array]) -> list[Array]:
    permutation, rank = arrays[1].reshape(-1).tolist(), arrays[0].ndim
    if sorted(permutation) != list(range(rank)):
        raise ValueError(f"permutation {permutation} of {rank} axes")
    return [arrays[0].transpose(permutation)]


FOLDS: Mapping[str, Folding] = {
    "ADD": Folding(lambda _, arrays: [arrays[0] + arrays[1]], _broadcast),
    "CAST": Folding(lambda _, arrays: [arrays[0]]),
    "CONCATENATION": Folding(lambda c, arrays: [np.concatenate(arrays, c.int_option("axis"))], _concatenated),
    "GATHER": Folding(lambda c, arrays: [np.take(arrays[0], arrays[1], c.int_option("axis"))], _gathered),
    "MUL": Folding(lambda _, arrays: [arrays[0] * arrays[1]], _broadcast),
    "PACK": Folding(lambda c, arrays: [np.stack(arrays, c.int_option("axis"))], _packed),
    "RESHAPE": Folding(lambda c, arrays: [arrays[0].reshape(c.shape(c.target))]),
    "SHAPE": Folding(lambda c, _: [np.array(c.shape(c.source))]),
    "SPLIT": Folding(_split),
    "STRIDED_SLICE": Folding(lambda c, arrays: [arrays[0][strided_index(c)]]),
    "SUB": Folding(lambda _, arrays: [arrays[0] - arrays[1]], _broadcast),
    "TILE": Folding(lambda _, arrays: [np.tile(arrays[0], arrays[1].reshape(-1))], _tiled),
    "TRANSPOSE": Folding(_transposed),
}
