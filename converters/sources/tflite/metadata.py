"""TensorFlow Lite's metadata of a model: a FlatBuffer of its own in a buffer, and files in a ZIP behind the model.

Numbers of tables and slots: ``metadata_schema.fbs`` of tensorflow/tflite-support (version 1). Read are the label files
of outputs, the input's colour space, and ``(pixel - mean) / std``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.description.metadata import archive_texts, read_archive, read_labels
from converters.errors import SourceFileError
from converters.facts import FileMetadata
from converters.sources.tflite.flatbuffer import FlatBuffer
from converters.sources.tflite.schema import Field
from converters.spec import Rescaling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from converters.sources.tflite.flatbuffer import Table
    from converters.sources.tflite.schema import Schema
    from converters.spec import Color

ENTRY: Schema = {"name": Field(0, "text"), "buffer": Field(1, "uint32")}
TFLITE_METADATA, IDENTIFIER = "TFLITE_METADATA", b"M001"
_MODEL: Schema = {"subgraphs": Field(3, "tables")}
_SUBGRAPH: Schema = {"inputs": Field(2, "tables"), "outputs": Field(3, "tables"), "files": Field(4, "tables")}
_TENSOR: Schema = {"content": Field(3, "table"), "units": Field(4, "tables"), "files": Field(6, "tables")}
_FILE: Schema = {"name": Field(0, "text"), "type": Field(2, "int8")}
_UNION: Schema = {"type": Field(0, "uint8"), "value": Field(1, "table")}
_IMAGE: Schema = {"color_space": Field(0, "int8")}
_NORMALISATION: Schema = {"mean": Field(0, "vector:float32"), "std": Field(1, "vector:float32")}
LABEL_FILES = (2, 3)  # labels of an axis, or of a tensor's values
IMAGE_PROPERTIES, NORMALISATION = 2, 1  # in their unions
COLORS: dict[int, Color] = {1: "rgb", 2: "grey"}


def read_metadata(data: bytes, file: str, root: Table, buffers: Sequence[Table]) -> tuple[FileMetadata, ...]:
    """All that a TFLite file says in words, the most trusted first.

    Args:
        data: the whole file.
        file: its name, for messages.
        root: its model table.
        buffers: its buffers.
    """
    texts, notes = archive_texts(data, file)
    found = [read_archive(texts, file), *_from_flatbuffer(root, buffers, texts, file)]
    if notes:
        found.append(FileMetadata(f"the ZIP behind '{file}'", notes=notes))
    return tuple(part for part in found if part is not None)


def _from_flatbuffer(root: Table, buffers: Sequence[Table], texts: dict[str, str], file: str) -> Iterator[FileMetadata]:
    where = f"the TFLite metadata of '{file}'"
    try:
        numbers = [
            entry.integer("buffer")
            for entry in root.children("metadata", ENTRY)
            if entry.text("name") == TFLITE_METADATA
        ]
        held = buffers[numbers[0]].vector("data") if numbers and numbers[0] < len(buffers) else None
        if held is None or held[4:8].tobytes() != IDENTIFIER:
            return
        model = FlatBuffer(held.tobytes(), where).root(_MODEL)
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
        stated = [options.vector(name) for name in ("mean", "std")]
        mean, std = ({float(number) for number in (() if one is None else one)} for one in stated)
        if len(mean) == len(std) == 1 and min(std) > 0:
            rescaling = _rescaling(min(mean), min(std))
        else:
            notes.append(
                f"{where} normalise each channel by numbers of its own, which is not supported: they are left out"
            )
    return FileMetadata(where, rescaling=rescaling, color=color, notes=tuple(notes))


def _rescaling(mean: float, std: float) -> Rescaling | None:
    try:
        return Rescaling(1 / std, -mean / std)
    except ValueError:  # not finite
        return None
