"""Reads a TFLite file into frozen records, for importers and inspectors, without trusting a byte of it.

Everything in a record has been checked against the file: indices are in range, shapes are static and
non-negative, constants have exactly the bytes their shape asks for, and operators stand in an order in
which they can run.

The FlatBuffer layer (``flatbuffer``) checks where things are, this module and ``tensors`` what they mean. A tensor has
one writer. DENSIFY, which puts back the zeros of a constant, is gone: ``tensors`` puts them back.

TensorFlow Lite's metadata of a model are a FlatBuffer of its own in a buffer, and files in a ZIP behind the model. Read
are the label files of outputs, the input's colour space, and ``(pixel - mean) / std``.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from converters.errors import SourceFileError, UnsupportedModelError, quote_some
from converters.facts import FileMetadata, archive_texts, read_archive, read_labels
from converters.sources.tflite import schema
from converters.sources.tflite.flatbuffer import MOST_BYTES, WITHOUT_FIELDS, FlatBuffer, Table, read_numbers
from converters.sources.tflite.schema import OPTIONS
from converters.sources.tflite.tensors import TfliteTensor, read_tensors
from converters.spec import Rescaling

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from converters.spec import Color

OptionValue = int | float | bool | str


@dataclass(frozen=True)
class TfliteOperator:
    """One operator, in execution order."""

    index: int  # its position in ``TfliteModel.operators``
    op: str  # the schema's name (``"CONV_2D"``); ``"BUILTIN_999"`` where newer than the schema; ``"CUSTOM:name"``
    inputs: tuple[int, ...]  # tensor indices; -1 is an absent optional input
    outputs: tuple[int, ...]  # tensor indices
    # the operator's parameters under the names of ``schema.OPTIONS``, the schema's default where the file has none; the
    # numbers of its FlexBuffer for ``POSTPROCESS``; empty for operators that are not listed there
    options: Mapping[str, OptionValue]


@dataclass(frozen=True, eq=False)
class TfliteModel:
    """A whole file."""

    file: str  # the file's name, for messages
    description: str  # the writer's own words, such as ``"MLIR Converted."``
    tensors: tuple[TfliteTensor, ...]  # all tensors, by index
    operators: tuple[TfliteOperator, ...]  # all operators, in execution order
    inputs: tuple[int, ...]  # indices of the tensors the caller feeds
    # indices of the tensors the caller reads; where there is a ``postprocess``, its boxes and scores
    outputs: tuple[int, ...]
    # the operator that turned these into detections and ends the file, which is none of ``operators``; its parameters
    # are ``converters.sources.tflite.facts``'s to read
    postprocess: TfliteOperator | None = None
    metadata: tuple[FileMetadata, ...] = ()  # what the file says in words
    # indices of the file's outputs that are constants, which are none of ``outputs``
    constant_outputs: tuple[int, ...] = ()
    data: bytes = b""  # the file's bytes


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
    return _network_alone(without_densify(model))


def _network_alone(model: TfliteModel) -> TfliteModel:
    """With the outputs that are computed (all where nothing is), without a ``POSTPROCESS`` that gives all of them."""
    constants = tuple(index for index in model.outputs if model.tensors[index].data is not None)
    computed = tuple(index for index in model.outputs if index not in constants)
    if computed and constants:
        model = replace(model, outputs=computed, constant_outputs=constants)
    last = model.operators[-1] if model.operators else None
    if last is None or last.op != POSTPROCESS or len(last.inputs) != 3 or min(last.inputs) < 0:
        return model
    if not set(model.outputs) <= set(last.outputs):
        return model
    return replace(model, operators=model.operators[:-1], outputs=last.inputs[:2], postprocess=last)


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


def _only_subgraph(root: Table) -> Table:
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


TFLITE_METADATA, METADATA_IDENTIFIER = "TFLITE_METADATA", b"M001"
LABEL_FILES = (2, 3)  # labels of an axis, or of a tensor's values
IMAGE_PROPERTIES, NORMALISATION = 2, 1  # in their unions
COLORS: dict[int, Color] = {1: "rgb", 2: "grey"}


def read_metadata(data: bytes, file: str, root: Table, buffers: Sequence[Table]) -> tuple[FileMetadata, ...]:
    """All that a TFLite file, whose model table is ``root``, says in words, the most trusted first."""
    texts, notes = archive_texts(data, file)
    parts = [read_archive(texts, file), *_from_flatbuffer(root, buffers, texts, file)]
    if notes:
        parts.append(FileMetadata(f"the ZIP behind '{file}'", notes=notes))
    return tuple(part for part in parts if part is not None)


def _from_flatbuffer(root: Table, buffers: Sequence[Table], texts: dict[str, str], file: str) -> Iterator[FileMetadata]:
    where = f"the TFLite metadata of '{file}'"
    try:
        numbers = [
            entry.integer("buffer")
            for entry in root.children("metadata", schema.METADATA_ENTRY)
            if entry.text("name") == TFLITE_METADATA
        ]
        content = buffers[numbers[0]].vector("data") if numbers and numbers[0] < len(buffers) else None
        if content is None or content[4:8].tobytes() != METADATA_IDENTIFIER:
            return
        model = FlatBuffer(content.tobytes(), where).root(schema.METADATA_MODEL)
        for subgraph in list(model.children("subgraphs", schema.METADATA_SUBGRAPH))[:1]:
            inputs = list(subgraph.children("inputs", schema.METADATA_TENSOR))
            yield from (_of_input(tensor, where) for tensor in inputs[:1])
            names = [
                entry.text("name")
                for table in (subgraph, *subgraph.children("outputs", schema.METADATA_TENSOR))
                for entry in table.children("files", schema.METADATA_FILE)
                if entry.integer("type") in LABEL_FILES
            ]
            yield from (read_labels(texts, name, file) for name in names[:1])
    except SourceFileError as error:
        yield FileMetadata(where, notes=(f"{where} cannot be read and is left out: {error}",))


def _of_input(tensor: Table, where: str) -> FileMetadata:
    content, color = tensor.child("content", schema.METADATA_UNION), None
    if content is not None and content.integer("type") == IMAGE_PROPERTIES:
        image = content.child("value", schema.METADATA_IMAGE)
        color = None if image is None else COLORS.get(image.integer("color_space"))
    rescaling, notes = None, []
    for unit in tensor.children("units", schema.METADATA_UNION):
        options = unit.child("value", schema.METADATA_NORMALISATION) if unit.integer("type") == NORMALISATION else None
        if options is None:
            continue
        vectors = [options.vector(name) for name in ("mean", "std")]
        mean, std = (set() if vector is None else set(vector.tolist()) for vector in vectors)
        if len(mean) == len(std) == 1 and min(std) > 0:
            with suppress(ValueError):  # not finite
                rescaling = Rescaling(1 / min(std), -min(mean) / min(std))
        else:
            notes.append(
                f"{where} normalise each channel by numbers of its own, which is not supported: they are left out"
            )
    return FileMetadata(where, rescaling=rescaling, color=color, notes=tuple(notes))
