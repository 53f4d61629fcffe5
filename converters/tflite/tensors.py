"""Tensors of a TFLite subgraph: shape, quantisation and constant value, each checked before it is used."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import UnsupportedModelError
from converters.quant import QuantParams
from converters.tflite import schema
from converters.tflite.records import TfliteTensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from converters.tflite.flatbuffer import Table

MAX_RANK = 8
MAX_ELEMENTS = 2**31 - 1  # LiteRT counts elements in an int

# fmt: off
NUMPY_DTYPES = frozenset((
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "bool", "complex64", "complex128",
))
# fmt: on
CODE_RANGES = {
    **{
        name: (np.iinfo(name).min, np.iinfo(name).max)
        for name in ("int8", "uint8", "int16", "uint16", "int32")
    },
    "int64": (-(2**63), 2**63 - 1),
    "int4": (-8, 7),
    "uint4": (0, 15),
    "int2": (-2, 1),
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
        listed = "; ".join(refused)
        msg = f"{subgraph.buffer.file}: the model holds tensors that cannot be converted: {listed}"
        raise UnsupportedModelError(msg)
    return tuple(_read_tensor(index, table, buffers) for index, table in enumerate(tables))


def _reasons_to_refuse(table: Table) -> list[str]:
    """What this tensor has that no importer represents."""
    reasons = []
    if table.flag("is_variable"):
        reasons.append("is a variable (its value outlives a run)")
    if table.has_table("sparsity"):
        reasons.append("is stored sparse; export the model without sparsity")
    if table.integer("external_buffer"):
        reasons.append("keeps its value in another file")
    quantization = table.child("quantization", schema.QUANTIZATION)
    details = quantization.integer("details_type") if quantization is not None else 0
    if details:
        known = schema.QUANTIZATION_DETAILS
        kind = known[details] if details < len(known) else f"type {details}"
        reasons.append(f"has {kind} quantisation; per-tensor and per-channel are supported")
    shape, signature = table.integers("shape"), table.integers("shape_signature")
    unknown = [axis for axis, size in enumerate(signature) if size < 0]
    if any(axis > 0 or shape[:1] != (1,) for axis in unknown):
        reasons.append(
            f"has a dynamic shape {list(signature)}; export the model with a fixed input size and batch 1"
        )
    if not reasons:
        return []
    name = table.text("name")
    return [f"{name!r} {reason}" for reason in reasons]


def _read_tensor(index: int, table: Table, buffers: Sequence[Table]) -> TfliteTensor:
    name, dtype = table.text("name"), table.word("type")
    shape = _read_shape(table, name)
    raw = _read_raw(table, buffers)
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
    if len(shape) > MAX_RANK or min(shape, default=0) < 0 or math.prod(shape) > MAX_ELEMENTS:
        shown = [*shape[:MAX_RANK], "..."] if len(shape) > MAX_RANK else list(shape)
        expected = f"at most {MAX_RANK} sizes >= 0 and {MAX_ELEMENTS} elements"
        raise table.damaged("shape", f"tensor {name!r} has shape {shown}, expected {expected}")
    if signature and (
        len(signature) != len(shape) or any(s not in (-1, n) for s, n in zip(signature, shape, strict=True))
    ):
        raise table.damaged(
            "shape_signature", f"tensor {name!r}: {list(signature)} contradicts shape {list(shape)}"
        )
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


def _decode(
    table: Table, name: str, dtype: str, shape: tuple[int, ...], raw: NDArray[np.uint8]
) -> NDArray[Any] | None:
    """The constant in its dtype and shape, read-only; None for computed tensors and types numpy lacks."""
    elements = math.prod(shape)
    if dtype not in NUMPY_DTYPES or (not raw.size and elements):
        return None
    code = np.dtype(dtype).newbyteorder("<")
    if raw.size != elements * code.itemsize:
        expected = f"{elements * code.itemsize} bytes for {dtype} {list(shape)}"
        raise table.damaged("buffer", f"constant {name!r} has {raw.size} bytes, expected {expected}")
    if (
        dtype == "bool"
    ):  # a byte other than 0 and 1 is no numpy bool: compare, a copy, instead of reinterpreting
        table.buffer.charge(raw.size, table.where)
    flat = raw != 0 if dtype == "bool" else raw.view(code)
    flat.flags.writeable = False
    return flat.reshape(shape)


def _read_quant(table: Table, name: str, dtype: str, shape: tuple[int, ...]) -> QuantParams | None:
    """Scale and zero-point; None without a scale, and for float tensors, whose scale LiteRT ignores."""
    quantization = table.child("quantization", schema.QUANTIZATION)
    scale = quantization.vector("scale") if quantization is not None else None
    if quantization is None or scale is None or not scale.size or dtype not in CODE_RANGES:
        return None
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise quantization.damaged("scale", f"every scale of tensor {name!r} must be finite and above 0")
    axis = quantization.integer("quantized_dimension") if scale.size > 1 else None
    if axis is not None and not (0 <= axis < len(shape) and shape[axis] == scale.size):
        found = f"{scale.size} scales along axis {axis} of shape {list(shape)}"
        raise quantization.damaged("scale", f"tensor {name!r} has {found}, expected 1 or one per channel")
    zero_point = _read_zero_point(quantization, name, scale.size)
    low, high = CODE_RANGES[dtype]
    if (zero_point < low).any() or (zero_point > high).any():
        found = f"{int(zero_point.min())}..{int(zero_point.max())}"
        raise quantization.damaged(
            "zero_point", f"tensor {name!r}: {dtype} needs {low}..{high}, found {found}"
        )
    return QuantParams(scale.astype(np.float32), zero_point, axis)


def _read_zero_point(quantization: Table, name: str, count: int) -> NDArray[np.int64]:
    """One zero-point per scale, int64 ``(count,)``; a single one serves all."""
    stored = quantization.vector("zero_point")
    if stored is None or stored.size not in (1, count):
        found = 0 if stored is None else stored.size
        raise quantization.damaged(
            "zero_point", f"tensor {name!r} has {count} scales and {found} zero-points"
        )
    return np.broadcast_to(stored, count).astype(np.int64)
