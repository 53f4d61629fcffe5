"""ONNX files read, and edited, as protobuf's wire format: what xdet asks of a file before a back end loads it.

A message is a row of fields: a key (field number and wire type), then a varint, 4 or 8 bytes, or a length and that many
bytes. Large contents are skipped, so a file of 11 MB is read in well under a millisecond. Numbers are those of
onnx.proto.

``with_outputs`` shows inner values as additional outputs. Before -> after: the file's bytes -> the same bytes with a
few more behind them. Protobuf merges a message field that comes twice, so a second, tiny ``ModelProto`` of nothing but
graph outputs adds these outputs to the first one's graph; the weights are neither parsed nor copied again. Numeric
effect: none on the graph as it stands in the file; a back end may fuse less around a value that it has to show.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING

from converters.spec import METADATA_KEY, THRESHOLD_INPUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from converters.spec import ModelDocument, Thresholds


GRAPH, METADATA = 7, 14  # of ModelProto
NODE, INITIALIZER, INPUT, OUTPUT = 1, 5, 11, 12  # of GraphProto
NODE_OUTPUT = 2
TENSOR_FLOATS, TENSOR_NAME, TENSOR_RAW = 4, 8, 9
ENTRY_KEY, ENTRY_VALUE = 1, 2

VALUE_NAME, VALUE_TYPE = 1, 2  # of ValueInfoProto
TENSOR_TYPE = 1  # of TypeProto
ELEMENT_TYPE, SHAPE = 1, 2  # of TypeProto.Tensor
SIZE = 1  # of TensorShapeProto
SIZE_VALUE = 1  # of TensorShapeProto.Dimension
FLOAT = 1  # TensorProto.DataType
UNTOLD = 0

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT = 10


def read_metadata(model: bytes) -> dict[str, str]:
    """A model's ``metadata_props``.

    Raises:
        ValueError: the bytes are no protobuf message, or one that was cut off; says at which byte.
    """
    metadata: dict[str, str] = {}
    for entry in messages(memoryview(model), METADATA):
        members = {number: text(content) for number, content in fields(entry)}
        metadata[members.get(ENTRY_KEY, "")] = members.get(ENTRY_VALUE, "")
    return metadata


def value_names(model: bytes) -> frozenset[str]:
    """Names of every value of the main graph that a node computes.

    Raises:
        ValueError: as ``read_metadata``.
    """
    return frozenset(
        text(name)
        for graph in messages(memoryview(model), GRAPH)
        for node in messages(graph, NODE)
        for name in messages(node, NODE_OUTPUT)
    )


def fixed_batch(model: bytes) -> int | None:
    """The first size of the first input: images per call; None where the file leaves it free.

    Raises:
        ValueError: as ``read_metadata``.
    """
    size = memoryview(model)
    for number in (GRAPH, INPUT, VALUE_TYPE, TENSOR_TYPE, SHAPE, SIZE):
        size = next(messages(size, number), memoryview(b""))
    values = [whole for number, wire_type, whole, _ in _spans(size) if (number, wire_type) == (SIZE_VALUE, VARINT)]
    return _read_varint(values[0], 1)[0] if values else None  # behind its key, one byte


def messages(message: memoryview, number: int) -> Iterator[memoryview]:
    """The contents of every field ``number`` of a message."""
    return (content for key, content in fields(message) if key == number)


def fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of every length-delimited field, in order; the other fields are passed over.

    Raises:
        ValueError: no protobuf message, or cut off.
    """
    for number, wire_type, _, content in _spans(message):
        if wire_type == BYTES:
            yield number, content


def edited(message: memoryview, edits: Mapping[int, Callable[[memoryview], bytes | None]]) -> bytes:
    """A message in which other contents stand in the place of some fields; all else stays as it is, in its order.

    ``edits`` gives a new content for each content of a length-delimited field, or None to leave the field out.

    Raises:
        ValueError: as ``fields``.
    """
    parts: list[bytes | memoryview] = []
    for number, wire_type, whole, content in _spans(message):
        if wire_type != BYTES or number not in edits:
            parts.append(whole)
        elif (new := edits[number](content)) is not None:
            parts.append(field(number, new))
    return b"".join(parts)


def varint(value: int) -> bytes:
    """``value`` >= 0 as a protobuf varint."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def field(number: int, content: bytes | int) -> bytes:
    """One field: a varint for an integer, else length-delimited."""
    if isinstance(content, int):
        return varint(number << 3 | VARINT) + varint(content)
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def _spans(message: memoryview) -> Iterator[tuple[int, int, memoryview, memoryview]]:
    """Number, wire type, all bytes and content of every field; the content of a varint is empty."""
    position = 0
    while position < len(message):
        start = position
        key, position = _read_varint(message, position)
        wire_type, length = key & 7, 0
        if wire_type == VARINT:
            _, position = _read_varint(message, position)
        elif wire_type == BYTES:
            length, position = _read_varint(message, position)
        elif wire_type in (FIXED64, FIXED32):
            length = 8 if wire_type == FIXED64 else 4
        else:
            raise ValueError(f"no protobuf field has wire type {wire_type}, found before byte {position}")
        end = position + length
        if end > len(message):
            raise ValueError(f"field {key >> 3} ends at byte {end:,}, the data has {len(message):,}")
        yield key >> 3, wire_type, message[start:end], message[position:end]
        position = end


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(message[position : position + LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, position + i + 1
    raise ValueError(f"a number at byte {position:,} does not end")


def text(content: memoryview) -> str:
    """Bytes as text; what is no UTF-8 becomes replacement characters."""
    return bytes(content).decode("utf-8", "replace")


def with_outputs(model: bytes, outputs: Sequence[tuple[str, int]]) -> bytes:
    """The model with these values as outputs behind its own.

    Each is the name of a value that the graph computes and that is no output yet, with its element type as
    ``TensorProto.DataType`` numbers it (``FLOAT``); ``UNTOLD`` leaves it to the back end's inference, which ONNX
    Runtime does and the ONNX checker refuses.
    """
    values = b""
    for name, element in outputs:
        typed = field(VALUE_TYPE, field(TENSOR_TYPE, field(ELEMENT_TYPE, element))) if element != UNTOLD else b""
        values += field(OUTPUT, field(VALUE_NAME, name.encode("utf-8")) + typed)
    return model + field(GRAPH, values) if values else model


def freeze_thresholds(model: bytes, document: ModelDocument, thresholds: Thresholds) -> bytes:
    """A copy whose thresholds are constants, for runtimes that ignore or refuse fed ones.

    Before -> after: ``score_threshold`` and ``iou_threshold`` are optional inputs with defaults -> they are
    initialisers only, float32 of the score and IoU asked for, and the document says so; ``max_detections`` must be the
    model's own. Numeric effect: none, at those thresholds.
    """
    values = dict(zip(THRESHOLD_INPUTS, (thresholds.score, thresholds.iou), strict=True))
    spec = replace(document.spec, thresholds=thresholds)
    frozen = replace(document, spec=spec, freeze_thresholds=True).to_json()

    def without_input(value: memoryview) -> bytes | None:
        return None if _name(value, VALUE_NAME) in values else bytes(value)

    def with_value(tensor: memoryview) -> bytes:
        name = _name(tensor, TENSOR_NAME)
        if name not in values:
            return bytes(tensor)
        without = edited(tensor, {TENSOR_FLOATS: lambda _: None, TENSOR_RAW: lambda _: None})
        return without + field(TENSOR_RAW, struct.pack("<f", values[name]))

    def with_document(entry: memoryview) -> bytes:
        if _name(entry, ENTRY_KEY) != METADATA_KEY:
            return bytes(entry)
        return edited(entry, {ENTRY_VALUE: lambda _: frozen.encode("utf-8")})

    return edited(
        memoryview(model),
        {GRAPH: lambda graph: edited(graph, {INPUT: without_input, INITIALIZER: with_value}), METADATA: with_document},
    )


def _name(message: memoryview, number: int) -> str:
    return "".join(map(text, messages(message, number)))
