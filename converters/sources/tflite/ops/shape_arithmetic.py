"""Shape arithmetic: SHAPE, and integer operators whose operands are all known, computed now and never written.

Converters leave chains such as SHAPE -> STRIDED_SLICE -> PACK in front of a RESHAPE. Shapes are static here, so
every one of them has a value at conversion; ``fold`` puts it into ``context.constants``. The shape of a result is
worked out first, from shapes alone, and compared with what the file declares; only then, and only if it is as small
as shape arithmetic is, is the value computed: a file cannot ask for more memory than its declared tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import SourceFileError, UnsupportedModelError
from converters.sources.tflite.ops.moving import axis_ranges, strided_index

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from converters.sources.tflite.context import ImportContext

Array = NDArray[Any]
Arrays = list[Array]
Shape = tuple[int, ...]
MOST_ELEMENTS = 1024  # shapes, axes and slices have a handful


@dataclass(frozen=True, slots=True)
class Folding:
    """How one operator is folded.

    Attributes:
        shapes: the results' shapes, from the operands' shapes (and the values of operands that are shapes or axes).
        values: the results.
    """

    shapes: Callable[[ImportContext, Arrays], Sequence[Shape]]
    values: Callable[[ImportContext, Arrays], Sequence[Array]]


def fold(context: ImportContext) -> bool:
    """Compute the operator's value if it is shape arithmetic over known integers; return whether it was."""
    op = context.op
    known = op.op == "SHAPE" or all(
        index < 0 or (index in context.constants and not context.is_quantized(index)) for index in op.inputs
    )
    if op.op not in FOLDS or not known or any(context.is_quantized(index) for index in op.outputs):
        return False
    arrays = [] if op.op == "SHAPE" else [context.constants[index] for index in op.inputs if index >= 0]
    try:
        _require_declared(context, FOLDS[op.op].shapes(context, arrays))
        with np.errstate(over="ignore"):  # integers wrap around, as TFLite's do
            results = FOLDS[op.op].values(context, arrays)
    except (ValueError, IndexError, TypeError, OverflowError) as error:  # numpy refuses operands that do not fit
        raise SourceFileError(f"{context.where} cannot be computed from its constants: {error}") from error
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


def _broadcast_shapes(_: ImportContext, arrays: Arrays) -> list[Shape]:
    return [np.broadcast_shapes(*(array.shape for array in arrays))]


def _concatenation_shapes(context: ImportContext, arrays: Arrays) -> list[Shape]:
    first = arrays[0].shape
    axis = _axis(context, len(first))
    return [(*first[:axis], sum(array.shape[axis] for array in arrays), *first[axis + 1 :])]


def _pack_shapes(context: ImportContext, arrays: Arrays) -> list[Shape]:
    first = arrays[0].shape
    axis = _axis(context, len(first) + 1)
    return [(*first[:axis], len(arrays), *first[axis:])]


def _gather_shapes(context: ImportContext, arrays: Arrays) -> list[Shape]:
    table, indices = (array.shape for array in arrays)
    axis = _axis(context, len(table))
    return [(*table[:axis], *indices, *table[axis + 1 :])]


def _split_axis(arrays: Arrays) -> int:
    return int(arrays[0].reshape(-1)[0])


def _split_shapes(context: ImportContext, arrays: Arrays) -> list[Shape]:
    whole, axis, parts = arrays[1].shape, _split_axis(arrays), len(context.op.outputs)
    if not -len(whole) <= axis < len(whole) or whole[axis] % parts:
        raise ValueError(f"{list(whole)} has no {parts} equal parts along axis {axis}")
    axis %= len(whole)
    return [(*whole[:axis], whole[axis] // parts, *whole[axis + 1 :])] * parts


def _strided_slice_shapes(context: ImportContext, arrays: Arrays) -> list[Shape]:
    index = strided_index(context)
    ranges = iter(axis_ranges(index, arrays[0].shape))
    sizes = []
    for entry in index:
        taken = None if entry is None else next(ranges)
        if not isinstance(entry, int):
            sizes.append(1 if taken is None else len(taken))
    return [tuple(sizes)]


def _reshape_shapes(context: ImportContext, arrays: Arrays) -> list[Shape]:
    declared = context.shape(context.target)
    if math.prod(declared) != arrays[0].size:
        raise ValueError(f"{arrays[0].size} values do not make the shape {list(declared)}")
    return [declared]


def _tile_shapes(_: ImportContext, arrays: Arrays) -> list[Shape]:
    repeats = [int(n) for n in arrays[1].reshape(-1)]
    return [tuple(size * n for size, n in zip(arrays[0].shape, repeats, strict=True))]


def _transpose_shapes(_: ImportContext, arrays: Arrays) -> list[Shape]:
    perm = [int(axis) for axis in arrays[1].reshape(-1)]
    if sorted(perm) != list(range(arrays[0].ndim)):
        raise ValueError(f"permutation {perm} of {arrays[0].ndim} axes")
    return [tuple(arrays[0].shape[axis] for axis in perm)]


FOLDS: Mapping[str, Folding] = {
    "ADD": Folding(_broadcast_shapes, lambda _, arrays: [arrays[0] + arrays[1]]),
    "CAST": Folding(lambda _, arrays: [arrays[0].shape], lambda _, arrays: [arrays[0]]),
    "CONCATENATION": Folding(_concatenation_shapes, lambda c, arrays: [np.concatenate(arrays, c.int_option("axis"))]),
    "GATHER": Folding(_gather_shapes, lambda c, arrays: [np.take(arrays[0], arrays[1], c.int_option("axis"))]),
    "MUL": Folding(_broadcast_shapes, lambda _, arrays: [arrays[0] * arrays[1]]),
    "PACK": Folding(_pack_shapes, lambda c, arrays: [np.stack(arrays, c.int_option("axis"))]),
    "RESHAPE": Folding(_reshape_shapes, lambda c, arrays: [arrays[0].reshape(c.shape(c.target))]),
    "SHAPE": Folding(lambda c, _: [(len(c.shape(c.source)),)], lambda c, _: [np.array(c.shape(c.source))]),
    "SPLIT": Folding(_split_shapes, lambda c, arrays: np.split(arrays[1], len(c.op.outputs), _split_axis(arrays))),
    "STRIDED_SLICE": Folding(_strided_slice_shapes, lambda c, arrays: [arrays[0][strided_index(c)]]),
    "SUB": Folding(_broadcast_shapes, lambda _, arrays: [arrays[0] - arrays[1]]),
    "TILE": Folding(_tile_shapes, lambda _, arrays: [np.tile(arrays[0], arrays[1].reshape(-1))]),
    "TRANSPOSE": Folding(_transpose_shapes, lambda _, arrays: [arrays[0].transpose(arrays[1].reshape(-1))]),
}
