"""Bytes made to harm: whatever they claim, reading ends soon with a model or a ConversionError."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.errors import ConversionError, SourceFileError
from converters.sources.tflite import schema
from converters.sources.tflite.flatbuffer import FlatBuffer, Table
from converters.sources.tflite.reader import read_tflite
from tests.converters.sources.tflite.builder import build_small_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

bindings: Any = pytest.importorskip("ai_edge_litert.schema_py_generated", reason='needs pip install "xdet[litert]"')
flatbuffers: Any = pytest.importorskip("flatbuffers", reason='needs pip install "xdet[litert]"')

FILE = "model.tflite"


def small_bytes() -> bytes:
    b, output = build_small_model()
    return b.build([output])


SMALL = small_bytes()
U16, I32, U32 = struct.Struct("<H"), struct.Struct("<i"), struct.Struct("<I")
FIELDS: schema.Schema = {
    "number": schema.Field(0, "int32"),
    "numbers": schema.Field(0, "vector:int32"),
    "name": schema.Field(0, "text"),
    "part": schema.Field(0, "table"),
    "parts": schema.Field(0, "tables"),
}


def table_bytes(*, field: int, soffset: int = 8, vtable: int = 6, size: int = 8, slot: int = 4) -> bytes:
    """A root offset, a vtable of one slot, and a table of one field at byte 12."""
    head = U32.pack(12) + U16.pack(vtable) + U16.pack(size) + U16.pack(slot) + bytes(2)
    return head + I32.pack(soffset) + U32.pack(field)


def root_of(data: bytes) -> Table:
    return FlatBuffer(data, FILE).root(FIELDS)


HOSTILE_TABLES = {
    "root behind the end": U32.pack(2**32 - 1) + bytes(60),
    "root at itself": bytes(64),
    "vtable before the file": table_bytes(field=0, soffset=4096),
    "vtable behind the file": table_bytes(field=0, soffset=-4096),
    "vtable at the far end of 32 bits": table_bytes(field=0, soffset=-(2**31)),
    "vtable of odd size": table_bytes(field=0, vtable=7),
    "vtable too short": table_bytes(field=0, vtable=2),
    "vtable longer than the file": table_bytes(field=0, vtable=65534),
    "table too short": table_bytes(field=0, size=2),
    "table longer than the file": table_bytes(field=0, size=65535),
    "cut inside the table": table_bytes(field=0)[:-5],
    "nothing": b"",
}


@pytest.mark.parametrize("data", HOSTILE_TABLES.values(), ids=HOSTILE_TABLES.keys())
def test_a_table_that_cannot_be_is_damage(data: bytes) -> None:
    with pytest.raises(SourceFileError, match="damaged TFLite file at root"):
        root_of(data).integer("number")


@pytest.mark.parametrize("slot", [1, 3, 5, 8, 65535])
def test_a_field_outside_its_table_is_damage(slot: int) -> None:
    with pytest.raises(SourceFileError, match=r"root\.number: 4 bytes at"):
        root_of(table_bytes(field=0, slot=slot)).integer("number")


@pytest.mark.parametrize("offset", [0, 3, 4, 1000, 2**31, 2**32 - 1])
@pytest.mark.parametrize("name", ["numbers", "name", "part", "parts"])
def test_an_offset_that_leads_outside_is_damage(name: str, offset: int) -> None:
    root = root_of(table_bytes(field=offset))
    read_field: dict[str, Callable[[], Any]] = {
        "numbers": lambda: root.vector("numbers"),
        "name": lambda: root.text("name"),
        "part": lambda: root.child("part", FIELDS),
        "parts": lambda: list(root.children("parts", FIELDS)),
    }
    with pytest.raises(SourceFileError, match=rf"root\.{name}: "):
        read_field[name]()


@pytest.mark.parametrize("count", [2, 2**30, 2**31, 2**32 - 1])
def test_a_vector_longer_than_the_file_is_damage(count: int) -> None:
    data = table_bytes(field=4) + U32.pack(count) + bytes(7)
    with pytest.raises(SourceFileError, match=f"{count} elements of 4 bytes are announced, the file has room for 1"):
        root_of(data).vector("numbers")


def shared_tensors(
    count: int, *, shape: tuple[int, ...] = (1, 2), name: str = "shared", value: bytes | None = None
) -> bytes:
    """A subgraph of ``count`` bool tensors that are all the same table: 4 bytes each in the file."""
    builder = flatbuffers.Builder(1024)
    text = builder.CreateString(name)
    sizes = builder.CreateNumpyVector(np.array(shape, np.int32))
    content = builder.CreateByteVector(value) if value is not None else None
    bindings.TensorStart(builder)
    bindings.TensorAddType(builder, schema.WORDS["dtype"].index("bool"))
    bindings.TensorAddName(builder, text)
    bindings.TensorAddShape(builder, sizes)
    tensor = bindings.TensorEnd(builder)
    bindings.BufferStart(builder)
    if content is not None:
        bindings.BufferAddData(builder, content)
    buffer = bindings.BufferEnd(builder)

    def vector(offset: int, n: int) -> int:
        builder.StartVector(4, n, 4)
        for _ in range(n):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())

    tensors, buffers = vector(tensor, count), vector(buffer, 1)
    bindings.SubGraphStart(builder)
    bindings.SubGraphAddTensors(builder, tensors)
    subgraphs = vector(bindings.SubGraphEnd(builder), 1)
    bindings.ModelStart(builder)
    bindings.ModelAddVersion(builder, 3)
    bindings.ModelAddSubgraphs(builder, subgraphs)
    bindings.ModelAddBuffers(builder, buffers)
    builder.Finish(bindings.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


def test_tables_may_be_shared() -> None:
    assert len(read_tflite(shared_tensors(100), FILE).tensors) == 100


@pytest.mark.parametrize(
    ("count", "parts"),
    [
        (200_000, {}),
        (50_000, {"name": "n" * 60_000}),
        (40_000, {"shape": (1,) * 60_000}),
        (40_000, {"shape": (1_000_000,), "value": bytes(1_000_000)}),
    ],
    ids=["tables", "names", "shapes", "bool constants"],
)
def test_sharing_does_not_multiply_work_or_memory(count: int, parts: dict[str, Any]) -> None:
    data = shared_tensors(count, **parts)
    tracemalloc.start()
    with pytest.raises(SourceFileError, match="describes more than 128 MB"):
        read_tflite(data, FILE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 256 << 20


def read_or_refuse(data: bytes) -> None:
    """Read the bytes; a ConversionError is as good an end, every other exception fails the test."""
    with contextlib.suppress(ConversionError):
        read_tflite(data, FILE)


@pytest.mark.parametrize("length", [*range(0, len(SMALL), 7), len(SMALL) - 1])
def test_a_small_file_cut_anywhere_is_refused(length: int) -> None:
    with pytest.raises(SourceFileError):
        read_tflite(SMALL[:length], FILE)


def test_the_embedded_file_cut_anywhere_is_refused(embedded_tflite: Path) -> None:
    embedded_bytes = embedded_tflite.read_bytes()
    size = len(embedded_bytes)
    for length in [*range(0, 2000, 50), *range(2000, size, size // 100), *range(size - 40, size)]:
        with pytest.raises(SourceFileError):
            read_tflite(embedded_bytes[:length], FILE)


@settings(max_examples=400)
@given(st.lists(st.tuples(st.integers(8, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes_never_escape_as_another_error(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SMALL)
    for position, value in changes:
        data[position] = value
    read_or_refuse(bytes(data))


@settings(max_examples=300)
@given(
    st.integers(2, len(SMALL) // 4 - 1),
    st.sampled_from([0, 1, 4, 127, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 4, len(SMALL), len(SMALL) - 4]),
)
def test_changed_words_never_escape_as_another_error(word: int, value: int) -> None:
    read_or_refuse(SMALL[: 4 * word] + U32.pack(value) + SMALL[4 * word + 4 :])


@given(st.binary(max_size=200))
def test_random_bytes_behind_the_identifier_never_escape_as_another_error(tail: bytes) -> None:
    read_or_refuse(b"\x10\0\0\0TFL3" + tail)
