"""TensorFlow Lite's metadata of a model: a FlatBuffer of its own in a buffer, and files in a ZIP behind the model.

Numbers of tables and slots: ``metadata_schema.fbs`` of tensorflow/tflite-support (version 1). Read are the label files
of outputs, the input's colour space, and ``(pixel - mean) / std``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from converters.description.metadata import archive_texts, read_archive, read_labels
from converters.errors import SourceFileError
from converters.facts import FileMetadata
from converters.sources.tflite.flatbuffer import FlatBuffer
from converters.sources.tflite.schema import fields
from converters.spec import Rescaling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from converters.sources.tflite.flatbuffer import Table
    from converters.spec import Color

ENTRY = fields(name="text", buffer="uint32")
TFLITE_METADATA, IDENTIFIER = "TFLITE_METADATA", b"M001"
_MODEL = fields(3, subgraphs="tables")
_SUBGRAPH = fields(2, inputs="tables", outputs="tables", files="tables")
_TENSOR = {**fields(3, content="table", units="tables"), **fields(6, files="tables")}
_FILE = {**fields(name="text"), **fields(2, type="int8")}
_UNION = fields(type="uint8", value="table")
_IMAGE = fields(color_space="int8")
_NORMALISATION = fields(mean="vector:float32", std="vector:float32")
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
            for entry in root.children("metadata", ENTRY)
            if entry.text("name") == TFLITE_METADATA
        ]
        content = buffers[numbers[0]].vector("data") if numbers and numbers[0] < len(buffers) else None
        if content is None or content[4:8].tobytes() != IDENTIFIER:
            return
        model = FlatBuffer(content.tobytes(), where).root(_MODEL)
        for subgraph in list(model.children("subgraphs", _SUBGRAPH))[:1]:
            yield from (_of_input(tensor, where) for tensor in list(subgraph.children("inputs", _TENSOR))[:1])
            names = _label_files([subgraph, *subgraph.children("outputs", _TENSOR)])
            yield from (read_labels(texts, name, file) for name in names[:1])
    except SourceFileError as error:
        yield FileMetadata(where, notes=(f"{where} cannot be read and is left out: {error}",))


def _label_files(tables: Sequence[Table]) -> list[str]:
    return [
        entry.text("name")
        for table in tables
        for entry in table.children("files", _FILE)
        if entry.integer("type") in LABEL_FILES
    ]


def _of_input(tensor: Table, where: str) -> FileMetadata:
    content, color = tensor.child("content", _UNION), None
    if content is not None and content.integer("type") == IMAGE_PROPERTIES:
        image = content.child("value", _IMAGE)
        color = None if image is None else COLORS.get(image.integer("color_space"))
    rescaling, notes = None, []
    for unit in tensor.children("units", _UNION):
        options = unit.child("value", _NORMALISATION) if unit.integer("type") == NORMALISATION else None
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
