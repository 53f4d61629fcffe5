"""Reads the tensors of a TFLite file into frozen records.

Constants are views into the caller's bytes, but for those that the file stores without their zeros. Such a tensor lists
its dimensions in the order in which they are walked. A dense one takes every index; a sparse one has the indices that
hold something, and per place of the dimensions in front where its own begin (``segments``, as in compressed rows).
Dimensions beyond the tensor's rank are blocks: parts of the dimensions that ``block_map`` names. The zeros are put back
here, so that whoever reads the file sees plain constants.

Source of the sparse format: ``SparsityParameters`` in tensorflow/tensorflow (lite/schema/schema.fbs), which names it
after F. Kjolstad et al., "The Tensor Algebra Compiler" (2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import UnsupportedModelError
from converters.quant import QuantParams
from converters.sources.tflite import schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from converters.sources.tflite.flatbuffer import Table


@dataclass(frozen=True, eq=False)
class TfliteTensor:
    """One tensor of the only subgraph."""

    index: int  # its position in ``TfliteModel.tensors``
    name: str  # as in the file; may be empty and need not be unique
    # numpy's name (``"int8"``, ``"float32"``, ``"bool"``) or, where numpy has no such type, the schema's in lower case
    # (``"int4"``, ``"bfloat16"``, ``"string"``); a number newer than the schema reads ``"type_99"``
    dtype: str
    shape: tuple[int, ...]  # sizes in the file's layout (activations NHWC); a dynamic batch reads 1
    quant: QuantParams | None  # scale and zero-point, or None for a tensor that is not quantised
    # read-only array of ``shape``, a view into the file's bytes (bool: a copy), for constants of a numpy type; else
    # None
    data: NDArray[Any] | None
    is_constant: bool = False  # whether the file holds a value, even one that is not decoded (int4, string)


MAX_RANK = 8
MAX_ELEMENTS = 2**31 - 1  # LiteRT counts elements in an int
DENSE, SPARSE = range(2)
PLACE_COST = 8  # bytes of an index

NUMPY_DTYPES = frozenset({
    *("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("bool", "complex64", "complex128"),
})  # fmt: skip
_NUMPY_CODES = ("int8", "uint8", "int16", "uint16", "int32", "int64")
CODE_RANGES = {"int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1)} | {
    name: (np.iinfo(name).min, np.iinfo(name).max) for name in _NUMPY_CODES
}


def read_tensors(subgraph: Table, buffers: Sequence[Table]) -> tuple[TfliteTensor, ...]:
    """Read all tensors of a subgraph.

    Raises:
        SourceFileError: a shape, quantisation, buffer index or buffer length is not possible.
        UnsupportedModelError: tensors that nothing here can represent, all of them listed.
    """
    tables = list(subgraph.children("tensors", schema.TENSOR))
    refused = [reason for table in tables for reason in _reasons_to_refuse(table)]
    if refused:
        raise UnsupportedModelError(
            f"{subgraph.buffer.file}: the model holds tensors that cannot be converted: {'; '.join(refused)}"
        )
    return tuple(_read_tensor(index, table, buffers) for index, table in enumerate(tables))


def _reasons_to_refuse(table: Table) -> list[str]:
    """What this tensor has that no importer represents."""
    reasons = []
    if table.flag("is_variable"):
        reasons.append("is a variable (its value outlives a run)")
    if table.child("sparsity", schema.SPARSITY) is not None and table.word("type") not in NUMPY_DTYPES:
        reasons.append(f"is stored sparse, in {table.word('type')}; export the model without sparsity")
    if table.integer("external_buffer"):
        reasons.append("keeps its value in another file")
    quantization = table.child("quantization", schema.QUANTIZATION)
    details = 0 if quantization is None else quantization.integer("details_type")
    if details:
        names = schema.QUANTIZATION_DETAILS
        kind = names[details] if details < len(names) else f"type {details}"
        reasons.append(f"has {kind} quantisation; per-tensor and per-channel are supported")
    shape, signature = table.integers("shape"), table.integers("shape_signature")
    unknown = [axis for axis, size in enumerate(signature) if size < 0]
    if any(axis > 0 or shape[:1] != (1,) for axis in unknown):
        reasons.append(f"has a dynamic shape {list(signature)}; export the model with a fixed input size and batch 1")
    name = table.text("name") if reasons else ""
    return [f"{name!r} {reason}" for reason in reasons]


def _read_tensor(index: int, table: Table, buffers: Sequence[Table]) -> TfliteTensor:
    name, dtype = table.text("name"), table.word("type")
    shape = _read_shape(table, name)
    raw = _read_raw(table, buffers)
    sparsity = table.child("sparsity", schema.SPARSITY)
    if sparsity is not None and raw.size:
        raw = densify(sparsity, shape, np.dtype(dtype).newbyteorder("<"), raw)
    return TfliteTensor(
        index=index,
        name=name,
        dtype=dtype,
        shape=shape,
        quant=_read_quant(table, name, dtype, shape),
        data=_decode(table, name, dtype, shape, raw),
        is_constant=raw.size > 0 or math.prod(shape) == 0,
    )


def _read_shape(table: Table, name: str) -> tuple[int, ...]:
    """The static shape; a dynamic batch is stored as 1."""
    shape, signature = table.integers("shape"), table.integers("shape_signature")
    elements = math.prod(max(size, 1) for size in shape)  # the other sizes of an empty tensor are bounded, too
    if len(shape) > MAX_RANK or min(shape, default=0) < 0 or elements > MAX_ELEMENTS:
        shown = [*shape[:MAX_RANK], "..."] if len(shape) > MAX_RANK else list(shape)
        expected = f"at most {MAX_RANK} sizes >= 0 and {MAX_ELEMENTS} elements"
        raise table.damaged("shape", f"tensor {name!r} has shape {shown}, expected {expected}")
    if signature and (
        len(signature) != len(shape) or any(s not in (-1, n) for s, n in zip(signature, shape, strict=True))
    ):
        raise table.damaged("shape_signature", f"tensor {name!r}: {list(signature)} contradicts shape {list(shape)}")
    return shape


def _read_raw(table: Table, buffers: Sequence[Table]) -> NDArray[np.uint8]:
    """The bytes of the tensor's buffer, a view; empty for a tensor that is computed."""
    number = table.integer("buffer")
    if number >= len(buffers):
        raise table.damaged("buffer", f"number {number} does not exist, the file has {len(buffers)} buffers")
    buffer = buffers[number]
    inside = buffer.vector("data")
    if inside is not None and inside.size:
        return inside
    # Files above 2 GB keep buffers behind the FlatBuffer; offsets 0 and 1 are the writer's placeholders.
    offset, size, end = buffer.integer("offset"), buffer.integer("size"), len(table.buffer.data)
    if offset <= 1 or size == 0:
        return np.empty(0, np.uint8)
    if offset > end or size > end - offset:
        raise buffer.damaged("offset", f"{size} bytes at byte {offset} are announced, the file ends at {end}")
    return np.frombuffer(table.buffer.data, np.uint8, size, offset)


def _decode(table: Table, name: str, dtype: str, shape: tuple[int, ...], raw: NDArray[np.uint8]) -> NDArray[Any] | None:
    """The constant in its dtype and shape, read-only; None for computed tensors and types numpy lacks."""
    elements = math.prod(shape)
    if dtype not in NUMPY_DTYPES or (not raw.size and elements):
        return None
    code = np.dtype(dtype).newbyteorder("<")
    if raw.size != elements * code.itemsize:
        expected = f"{elements * code.itemsize} bytes for {dtype} {list(shape)}"
        raise table.damaged("buffer", f"constant {name!r} has {raw.size} bytes, expected {expected}")
    if dtype == "bool":  # a byte other than 0 and 1 is no numpy bool: compare, a copy, instead of reinterpreting
        table.buffer.charge(raw.size, table.where)
    flat = raw != 0 if dtype == "bool" else raw.view(code)
    flat.flags.writeable = False
    return flat.reshape(shape)


def _read_quant(table: Table, name: str, dtype: str, shape: tuple[int, ...]) -> QuantParams | None:
    """Scale and zero-point; None without a scale, and for float tensors, whose scale LiteRT ignores."""
    quantization = table.child("quantization", schema.QUANTIZATION)
    scale = None if quantization is None else quantization.vector("scale")
    if quantization is None or scale is None or not scale.size or dtype not in CODE_RANGES:
        return None
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise quantization.damaged("scale", f"every scale of tensor {name!r} must be finite and above 0")
    axis = quantization.integer("quantized_dimension") if scale.size > 1 else None
    if axis is not None and len(shape) == 1:
        axis = 0  # old converters give a bias the axis of its weights; LiteRT does not look at it
    if axis is not None and not (0 <= axis < len(shape) and shape[axis] == scale.size):
        found = f"{scale.size} scales along axis {axis} of shape {list(shape)}"
        raise quantization.damaged("scale", f"tensor {name!r} has {found}, expected 1 or one per channel")
    stored = quantization.vector("zero_point")
    if stored is None or stored.size not in (1, scale.size):
        count = 0 if stored is None else stored.size
        raise quantization.damaged("zero_point", f"tensor {name!r} has {scale.size} scales and {count} zero-points")
    zero_point = np.broadcast_to(stored, scale.size).astype(np.int64)  # a single one serves all scales
    low, high = CODE_RANGES[dtype]
    if (zero_point < low).any() or (zero_point > high).any():
        found = f"{int(zero_point.min())}..{int(zero_point.max())}"
        raise quantization.damaged("zero_point", f"tensor {name!r}: {dtype} needs {low}..{high}, found {found}")
    return QuantParams(scale.astype(np.float32), zero_point, axis)


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
    """One ``DimensionMetadata``: for each place of it, the place in front that it belongs to, and its index.

    ``count`` places are in front. There can be ``most``: each is a number of the tensor, and takes a byte of the file.
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
