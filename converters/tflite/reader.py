"""Reads a TFLite file into records without trusting a byte of it.

The FlatBuffer layer checks where things are, this module and ``tensors`` what they mean: indices in range,
one writer per tensor, operators in an order in which they can run. Constants are views into the caller's
bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.errors import SourceFileError, UnsupportedModelError
from converters.tflite import schema
from converters.tflite.flatbuffer import FlatBuffer, Table
from converters.tflite.records import OptionValue, TfliteModel, TfliteOperator, TfliteTensor
from converters.tflite.schema import OPTIONS, Field
from converters.tflite.tensors import read_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
NAMES_SHOWN = 5
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
        found = f"{data[4:8]!r}" if len(data) >= 8 else f"{len(data)} bytes in all"
        expected = f"expected {IDENTIFIER!r} at byte 4, found {found}"
        msg = f"{file}: not a TFLite file: {expected}; give a .tflite model"
        raise SourceFileError(msg)
    root = FlatBuffer(data, file).root(schema.MODEL)
    subgraph = _only_subgraph(root)
    tensors = read_tensors(subgraph, list(root.children("buffers", schema.BUFFER)))
    codes = [_read_code(table) for table in root.children("operator_codes", schema.OPERATOR_CODE)]
    tables = subgraph.children("operators", schema.OPERATOR)
    model = TfliteModel(
        file=file,
        description=root.text("description"),
        tensors=tensors,
        operators=tuple(_read_operator(i, table, codes, len(tensors)) for i, table in enumerate(tables)),
        inputs=_read_indices(subgraph, "inputs", len(tensors), lowest=0),
        outputs=_read_indices(subgraph, "outputs", len(tensors), lowest=0),
    )
    _check_order(model, subgraph)
    return model


def _only_subgraph(root: Table) -> Table:
    """The one subgraph of a schema-3 model."""
    version = root.integer("version")
    if version != SCHEMA_VERSION:
        msg = (
            f"{root.buffer.file}: TFLite schema version {version}, expected {SCHEMA_VERSION}; "
            "export the model with a current converter"
        )
        raise UnsupportedModelError(msg)
    subgraphs = list(root.children("subgraphs", schema.SUBGRAPH))
    if not subgraphs:
        raise root.damaged("subgraphs", "the model holds none, expected 1")
    if len(subgraphs) > 1:
        msg = (
            f"{root.buffer.file}: the model has {len(subgraphs)} subgraphs, expected 1; "
            "export the detector without control flow and with one signature"
        )
        raise UnsupportedModelError(msg)
    return subgraphs[0]


def _read_code(table: Table) -> tuple[str, int]:
    """Name and version of an operator kind."""
    old, new = table.integer("deprecated_builtin_code"), table.integer("builtin_code")
    number, version = max(old, new), table.integer("version")
    if number < 0:
        raise table.damaged("builtin_code", f"operator number {number} does not exist")
    if number >= len(schema.OPERATORS) or number == PLACEHOLDER:
        return f"BUILTIN_{number}", version
    name = schema.OPERATORS[number]
    return (f"CUSTOM:{table.text('custom_code')}" if name == "CUSTOM" else name), version


def _read_operator(
    index: int, table: Table, codes: Sequence[tuple[str, int]], tensors: int
) -> TfliteOperator:
    number = table.integer("opcode_index")
    if number >= len(codes):
        raise table.damaged(
            "opcode_index", f"number {number} does not exist, the file has {len(codes)} codes"
        )
    op, version = codes[number]
    return TfliteOperator(
        index=index,
        op=op,
        version=version,
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
    if op not in OPTIONS:
        return {}
    union, fields = OPTIONS[op]
    found = table.integer("builtin_options_type")
    if found not in (0, union):
        raise table.damaged("builtin_options_type", f"{op} needs options of type {union}, found {found}")
    options = table.child("builtin_options", fields) if found else None
    return {name: _read_option(options, name, field) for name, field in fields.items()}


def _read_option(options: Table | None, name: str, field: Field) -> OptionValue:
    """One parameter by its kind; a missing options table reads as one without fields."""
    match field.kind:
        case "bool":
            return options.flag(name) if options else bool(field.default)
        case "float32":
            return options.real(name) if options else float(field.default)
        case "int32":
            return options.integer(name) if options else int(field.default)
        case "vector:int32":
            return options.integers(name) if options else ()
        case words:
            return options.word(name) if options else schema.WORDS[words][int(field.default)]


def _check_order(model: TfliteModel, subgraph: Table) -> None:
    """Every tensor is written once, before it is read, and never over a constant or a model input."""
    constants = {tensor.index for tensor in model.tensors if tensor.is_constant}
    if both := constants.intersection(model.inputs):
        names = _quote(model.tensors, both)
        raise subgraph.damaged("inputs", f"model inputs hold a value already: {names}")
    if len(set(model.inputs)) < len(model.inputs):
        names = _quote(model.tensors, model.inputs)
        raise subgraph.damaged("inputs", f"a tensor is fed twice, among {names}")
    ready = constants.union(model.inputs, [-1])
    for operator in model.operators:
        where = f"operators[{operator.index}]"
        if early := set(operator.inputs) - ready:
            names = _quote(model.tensors, early)
            raise subgraph.damaged(
                where, f"{operator.op} reads tensors that nothing before it computes: {names}"
            )
        if ready.intersection(operator.outputs) or len(set(operator.outputs)) < len(operator.outputs):
            names = _quote(model.tensors, operator.outputs)
            raise subgraph.damaged(
                where, f"{operator.op} writes a tensor that has its value already, among {names}"
            )
        ready.update(operator.outputs)
    if missing := set(model.outputs) - ready:
        raise subgraph.damaged(
            "outputs", f"nothing computes the model outputs {_quote(model.tensors, missing)}"
        )


def _quote(tensors: Sequence[TfliteTensor], indices: Iterable[int]) -> str:
    """Tensor names for a message."""
    listed = sorted(indices)
    more = f" and {len(listed) - NAMES_SHOWN} more" if len(listed) > NAMES_SHOWN else ""
    return ", ".join(repr(tensors[index].name) for index in listed[:NAMES_SHOWN]) + more
