"""Constants that a file stores without their zeros, and the operator DENSIFY, which puts these back.

A sparse tensor lists its dimensions in the order in which they are walked. A dense one takes every index; a sparse one
has the indices that hold something, and per place of the dimensions in front where its own begin (``segments``, as in
compressed rows). Dimensions beyond the tensor's rank are blocks: parts of the dimensions that ``block_map`` names.

Here the zeros are put back at reading, so that whoever reads the file sees plain constants, and DENSIFY of one is gone.

Source of the format: ``SparsityParameters`` in tensorflow/tensorflow (lite/schema/schema.fbs), which names it after F.
Kjolstad et al., "The Tensor Algebra Compiler" (2017).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.sources.tflite import schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.sources.tflite.flatbuffer import Table
    from converters.sources.tflite.reader import TfliteModel

DENSE, SPARSE = range(2)
PLACE_COST = 8  # bytes of an index


def densify(table: Table, shape: tuple[int, ...], dtype: np.dtype[Any], stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The bytes of a constant of this shape with its zeros, by ``SparsityParameters`` and the bytes that are stored.

    Raises:
        SourceFileError: the parameters describe no such constant.
    """
    elements = math.prod(shape)
    table.buffer.charge(elements * dtype.itemsize, table.where)
    order, blocks = table.integers("traversal_order"), table.integers("block_map")
    levels = list(table.children("dim_metadata", schema.DIMENSION))
    rank = len(shape)
    fits = sorted(order) == list(range(rank + len(blocks))) and len(levels) == len(order)
    if not fits or any(not 0 <= axis < rank for axis in blocks) or len(set(blocks)) < len(blocks):
        raise table.damaged("", f"order {list(order)}, blocks {list(blocks)} describe no tensor of rank {rank}")
    places: dict[int, NDArray[np.int64]] = {}
    count = 1
    for axis, level in zip(order, levels, strict=True):
        parents, own = _walk(level, count, min(elements, len(table.buffer.data)))
        places = {outer: values[parents] for outer, values in places.items()} | {axis: own}
        count = own.size
    if count * dtype.itemsize != stored.size:
        raise table.damaged("", f"{count} numbers have a place, {stored.size} bytes are stored")
    index = [places[axis] for axis in range(rank)]
    for block, axis in enumerate(blocks, start=rank):
        size = levels[order.index(block)].integer("dense_size")
        index[axis] = index[axis] * size + places[block]
    if any(values.size and values.max() >= size for values, size in zip(index, shape, strict=True)):
        raise table.damaged("dim_metadata", f"an index lies outside the shape {list(shape)}")
    dense = np.zeros(shape, dtype)
    dense[tuple(index)] = stored.view(dtype)
    return dense.reshape(-1).view(np.uint8)


def _walk(level: Table, count: int, most: int) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """One dimension: for each place of it, the place in front that it belongs to, and its index.

    Args:
        level: ``DimensionMetadata``.
        count: places of the dimensions in front.
        most: places there can be: each is a number of the tensor, and takes a byte of the file or more.
    """
    if level.integer("format") == DENSE:
        size = level.integer("dense_size")
        if not 0 < size <= max(1, most // max(1, count)):
            raise level.damaged("dense_size", f"{count} times {size} places, expected at most {most}")
        level.buffer.charge(count * size * PLACE_COST, level.where)
        return np.repeat(np.arange(count), size), np.tile(np.arange(size), count)
    if level.integer("format") != SPARSE:
        raise level.damaged("format", f"expected 0 (dense) or 1 (sparse), found {level.integer('format')}")
    segments, indices = _numbers(level, "array_segments"), _numbers(level, "array_indices")
    lengths = np.diff(segments)
    if segments.size != count + 1 or segments[0] != 0 or (lengths < 0).any() or segments[-1] != indices.size:
        raise level.damaged("array_segments", f"expected {count + 1} rising numbers from 0 to {indices.size}")
    if indices.size > most or (indices < 0).any():
        raise level.damaged("array_indices", f"{indices.size} indices, some below 0 or more than {most}")
    return np.repeat(np.arange(count), lengths), indices


def _numbers(level: Table, name: str) -> NDArray[np.int64]:
    """A vector of int32, uint16 or uint8 behind a union."""
    kind = level.integer(f"{name}_type")
    if kind not in schema.INDEX_VECTORS:
        raise level.damaged(f"{name}_type", f"expected {', '.join(map(str, schema.INDEX_VECTORS))}, found {kind}")
    child = level.child(name, schema.INDEX_VECTORS[kind])
    values = None if child is None else child.vector("values")
    if values is None or not values.size:
        return np.zeros(0, np.int64)
    return values.astype(np.int64)


def without_densify(model: TfliteModel) -> TfliteModel:
    """A model in which what DENSIFY makes of a constant is a constant."""
    tensors, operators = list(model.tensors), []
    for op in model.operators:
        if op.op == "DENSIFY" and len(op.inputs) == len(op.outputs) == 1 and op.inputs[0] >= 0:
            source, result = tensors[op.inputs[0]], tensors[op.outputs[0]]
            if source.is_constant and (source.shape, source.dtype) == (result.shape, result.dtype):
                tensors[result.index] = replace(result, data=source.data, is_constant=True)
                continue
        operators.append(op)
    return replace(model, tensors=tuple(tensors), operators=tuple(operators))
