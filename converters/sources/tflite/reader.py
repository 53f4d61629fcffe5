"""Reads a TFLite file into frozen records, for importers and inspectors, without trusting a byte of it.

Everything in a record has been checked against the file: indices are in range, shapes are static and
non-negative, constants have exactly the bytes their shape asks for, and operators stand in an order in
which they can run.

The FlatBuffer layer (``flatbuffer``) checks where things are, this module what they mean. A tensor has one writer.
Constants are views into the caller's bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import SourceFileError, UnsupportedModelError, quote_some
from converters.quant import QuantParams
from converters.sources.tflite import schema
from converters.sources.tflite.flatbuffer import MOST_BYTES, WITHOUT_FIELDS, FlatBuffer, Table, read_numbers
from converters.sources.tflite.metadata import read_metadata
from converters.sources.tflite.schema import OPTIONS
from converters.sources.tflite.sparsity import densify, without_densify

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from converters.facts import FileMetadata

OptionValue = int | float | bool | str


@dataclass(frozen=True, eq=False)
class TfliteTensor:
    """One tensor of the only subgraph.

    Attributes:
        index: its position in ``TfliteModel.tensors``.
        name: as in the file; may be empty and need not be unique.
        dtype: numpy's name (``"int8"``, ``"float32"``, ``"bool"``) or, where numpy has no such type, the
            schema's in lower case (``"int4"``, ``"bfloat16"``, ``"string"``); a number newer than the schema
            reads ``"type_99"``.
        shape: sizes in the file's layout (activations NHWC); a dynamic batch reads 1.
        quant: scale and zero-point, or None for a tensor that is not quantised.
        data: read-only array of ``shape``, a view into the file's bytes (bool: a copy), for constants of a
            numpy type; else None.
        is_constant: whether the file holds a value, even one that is not decoded (int4, string).
    """

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    quant: QuantParams | None
    data: NDArray[Any] | None
    is_constant: bool = False


@dataclass(frozen=True)
class TfliteOperator:
    """One operator, in execution order.

    Attributes:
        index: its position in ``TfliteModel.operators``.
        op: the schema's name (``"CONV_2D"``); ``"BUILTIN_999"`` where newer than the schema;
            ``"CUSTOM:name"``.
        inputs: tensor indices; -1 is an absent optional input.
        outputs: tensor indices.
        options: the operator's parameters under the names of ``schema.OPTIONS``, the schema's default where
            the file has none; the numbers of its FlexBuffer for ``POSTPROCESS``; empty for operators that are not
            listed there.
    """

    index: int
    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, OptionValue]


@dataclass(frozen=True, eq=False)
class TfliteModel:
    """A whole file.

    Attributes:
        file: the file's name, for messages.
        description: the writer's own words, such as ``"MLIR Converted."``.
        tensors: all tensors, by index.
        operators: all operators, in execution order.
        inputs: indices of the tensors the caller feeds.
        outputs: indices of the tensors the caller reads; where there is a ``postprocess``, its boxes and scores.
        postprocess: the operator that turned these into detections and ends the file, which is none of ``operators``;
            its parameters are ``converters.sources.tflite.facts``'s to read.
        metadata: what the file says in words.
        constant_outputs: indices of the file's outputs that are constants, which are none of ``outputs``.
        data: the file's bytes.
    """

    file: str
    description: str
    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    postprocess: TfliteOperator | None = None
    metadata: tuple[FileMetadata, ...] = ()
    constant_outputs: tuple[int, ...] = ()
    data: bytes = b""


MAX_RANK = 8
MAX_ELEMENTS = 2**31 - 1  # LiteRT counts elements in an int

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
    if table.has_table("sparsity") and table.word("type") not in NUMPY_DTYPES:
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


IDENTIFIER = b"TFL3"
POSTPROCESS = "CUSTOM:TFLite_Detection_PostProcess"
SCHEMA_VERSION = 3
PLACEHOLDER = 127  # operators above it do not fit the old int8 field, which then holds this


def read_tflite(data: bytes, file: str) -> TfliteModel:
    """Read and verify a TFLite file.

    Args:
        data: the whole file; the constants of the result are views into it.
        file: its name, for messages.

    Raises:
        SourceFileError: the bytes are not a TFLite file, or a damaged one.
        UnsupportedModelError: a sound file with several subgraphs, or with tensors nothing here represents.
    """
    if data[4:8] != IDENTIFIER:
        found = repr(data[4:8]) if len(data) >= 8 else f"{len(data)} bytes in all"
        raise SourceFileError(
            f"{file}: not a TFLite file: expected {IDENTIFIER!r} at byte 4, found {found}; give a .tflite model"
        )
    root = FlatBuffer(data, file).root(schema.MODEL)
    subgraph = _only_subgraph(root)
    buffers = list(root.children("buffers", schema.BUFFER))
    tensors = read_tensors(subgraph, buffers)
    codes = [_read_code(table) for table in root.children("operator_codes", schema.OPERATOR_CODE)]
    tables = subgraph.children("operators", schema.OPERATOR)
    model = TfliteModel(
        file=file,
        description=root.text("description"),
        tensors=tensors,
        operators=tuple(_read_operator(i, table, codes, len(tensors)) for i, table in enumerate(tables)),
        inputs=_read_indices(subgraph, "inputs", len(tensors), lowest=0),
        outputs=_read_indices(subgraph, "outputs", len(tensors), lowest=0),
        metadata=read_metadata(data, file, root, buffers),
        data=data,
    )
    _check_order(model, subgraph)
    return _without_postprocess(_without_constants(without_densify(model)))


def _without_constants(model: TfliteModel) -> TfliteModel:
    """The outputs that are computed; all of them where nothing is."""
    constants = tuple(index for index in model.outputs if model.tensors[index].data is not None)
    computed = tuple(index for index in model.outputs if index not in constants)
    return replace(model, outputs=computed, constant_outputs=constants) if computed and constants else model


def _without_postprocess(model: TfliteModel) -> TfliteModel:
    """The network alone, where a file ends in ``POSTPROCESS`` and gives nothing but its detections."""
    last = model.operators[-1] if model.operators else None
    if last is None or last.op != POSTPROCESS or len(last.inputs) != 3 or min(last.inputs) < 0:
        return model
    if not set(model.outputs) <= set(last.outputs):
        return model
    return replace(model, operators=model.operators[:-1], outputs=last.inputs[:2], postprocess=last)


def _only_subgraph(root: Table) -> Table:
    """The one subgraph of a schema-3 model."""
    version = root.integer("version")
    if version != SCHEMA_VERSION:
        raise UnsupportedModelError(
            f"{root.buffer.file}: TFLite schema version {version}, expected {SCHEMA_VERSION}; export the model with a "
            "current converter"
        )
    subgraphs = list(root.children("subgraphs", schema.SUBGRAPH))
    if not subgraphs:
        raise root.damaged("subgraphs", "the model holds none, expected 1")
    if len(subgraphs) > 1:
        raise UnsupportedModelError(
            f"{root.buffer.file}: the model has {len(subgraphs)} subgraphs, expected 1; export the detector without "
            "control flow and with one signature"
        )
    return subgraphs[0]


def _read_code(table: Table) -> str:
    """Name of an operator kind."""
    number = max(table.integer("deprecated_builtin_code"), table.integer("builtin_code"))
    if number < 0:
        raise table.damaged("builtin_code", f"operator number {number} does not exist")
    if number >= len(schema.OPERATORS) or number == PLACEHOLDER:
        return f"BUILTIN_{number}"
    name = schema.OPERATORS[number]
    return f"CUSTOM:{table.text('custom_code')}" if name == "CUSTOM" else name


def _read_operator(index: int, table: Table, codes: Sequence[str], tensors: int) -> TfliteOperator:
    number = table.integer("opcode_index")
    if number >= len(codes):
        raise table.damaged("opcode_index", f"number {number} does not exist, the file has {len(codes)} codes")
    op = codes[number]
    return TfliteOperator(
        index=index,
        op=op,
        inputs=_read_indices(table, "inputs", tensors, lowest=-1),
        outputs=_read_indices(table, "outputs", tensors, lowest=0),
        options=_read_options(table, op),
    )


def _read_indices(table: Table, name: str, tensors: int, *, lowest: int) -> tuple[int, ...]:
    """A vector of tensor indices, each within ``lowest`` .. ``tensors - 1``."""
    indices = table.integers(name)
    wrong = [index for index in indices if not lowest <= index < tensors]
    if wrong:
        raise table.damaged(name, f"tensor {wrong[0]} does not exist, the file has {tensors} tensors")
    return indices


def _read_options(table: Table, op: str) -> dict[str, OptionValue]:
    """The operator's parameters, with the schema's defaults for what the file leaves out."""
    if op == POSTPROCESS:
        custom = table.vector("custom_options")
        if custom is None or not custom.size:
            return {}
        try:
            return dict(read_numbers(custom[: MOST_BYTES + 1].tobytes()))
        except ValueError as error:
            raise table.damaged("custom_options", f"{op}: {error}") from error
    if op not in OPTIONS:
        return {}
    union, fields = OPTIONS[op]
    found = table.integer("builtin_options_type")
    if found not in (0, union):
        raise table.damaged("builtin_options_type", f"{op} needs options of type {union}, found {found}")
    options = table.child("builtin_options", fields) if found else None
    if options is None:
        options = Table(FlatBuffer(WITHOUT_FIELDS, table.buffer.file), 4, fields, table.where)
    read = {"bool": options.flag, "float32": options.real, "int32": options.integer}
    return {name: read.get(field.kind, options.word)(name) for name, field in fields.items()}


def _check_order(model: TfliteModel, subgraph: Table) -> None:
    """Every tensor is written once, before it is read, and never over a constant or a model input."""

    def names(indices: Iterable[int]) -> str:
        return quote_some([model.tensors[index].name for index in sorted(indices)])

    constants = {tensor.index for tensor in model.tensors if tensor.is_constant}
    if both := constants.intersection(model.inputs):
        raise subgraph.damaged("inputs", f"model inputs hold a value already: {names(both)}")
    if len(set(model.inputs)) < len(model.inputs):
        raise subgraph.damaged("inputs", f"a tensor is fed twice, among {names(model.inputs)}")
    ready = constants.union(model.inputs, [-1])
    for op in model.operators:
        where = f"operators[{op.index}]"
        if early := set(op.inputs) - ready:
            raise subgraph.damaged(where, f"{op.op} reads tensors that nothing before it computes: {names(early)}")
        if ready.intersection(op.outputs) or len(set(op.outputs)) < len(op.outputs):
            what = f"{op.op} writes a tensor that has its value already, among {names(op.outputs)}"
            raise subgraph.damaged(where, what)
        ready.update(op.outputs)
    if missing := set(model.outputs) - ready:
        raise subgraph.damaged("outputs", f"nothing computes the model outputs {names(missing)}")
