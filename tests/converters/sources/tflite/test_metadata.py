"""What a whole .tflite file says in words, from its bytes to the description and the finished file."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import xdet
from converters.sources.tflite.facts import facts_from_tflite
from converters.sources.tflite.reader import read_tflite
from tests.converters.sources.tflite.builder import TfliteBuilder
from xdet.inspection import inspect
from xdet.inspection.report import inspection_report
from xdet.writing.terminal import report_text

if TYPE_CHECKING:
    from pathlib import Path


def network(*, metadata: bytes | None = None, dtype: str = "float32") -> bytes:
    """A detector of two classes in YOLO v8's layout, 64 x 64: 84 boxes."""
    b = TfliteBuilder()
    scale = None if dtype == "float32" else 1 / 255
    x = b.input("image", (1, 64, 64, 3), dtype, scale)
    shapes = b.constant(np.array([1, 6, 2048], np.int32)), b.constant(np.zeros(3, np.int32))
    flat = b.op("RESHAPE", [x, shapes[0]], (1, 6, 2048), dtype, scale)
    sizes = b.constant(np.array([1, 6, 84], np.int32))
    rows = b.op("SLICE", [flat, shapes[1], sizes], (1, 6, 84), dtype, scale, name="rows")
    if metadata is not None:
        entry = b.schema.MetadataT()
        b.set_data(rows, metadata)
        entry.name, entry.buffer = b"TFLITE_METADATA", b.subgraph.tensors[rows].buffer
        b.subgraph.tensors[rows].buffer, b.model.metadata = 0, [entry]
    return b.build([rows])


def with_files(data: bytes, **members: str) -> bytes:
    packed = io.BytesIO()
    packed.write(data)
    with zipfile.ZipFile(packed, "a") as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name.replace("__", ".")), text)  # without the time
    return packed.getvalue()


def flatbuffer_metadata(*, mean: list[float], std: list[float], color: int = 1) -> bytes:
    """``ModelMetadata`` with an input's normalisation and colour, and an output's label file, written by hand."""
    import flatbuffers

    b = flatbuffers.Builder(512)

    def table(slots: int, **fields: int) -> int:
        b.StartObject(slots)
        for name, value in fields.items():
            kind, slot = name.split("_")
            if kind == "ref":
                b.PrependUOffsetTRelativeSlot(int(slot), value, 0)
            else:
                b.PrependInt8Slot(int(slot), value, 0)
        return int(b.EndObject())

    def vector(items: list[int]) -> int:
        b.StartVector(4, len(items), 4)
        for item in reversed(items):
            b.PrependUOffsetTRelative(item)
        return int(b.EndVector())

    numbers = [b.CreateNumpyVector(np.array(values, np.float32)) for values in (mean, std)]
    unit = table(2, byte_0=1, ref_1=table(2, ref_0=numbers[0], ref_1=numbers[1]))
    content = table(3, byte_0=2, ref_1=table(2, byte_0=color))
    given = table(7, ref_3=content, ref_4=vector([unit]))
    labels = table(5, ref_0=b.CreateString("classes.txt"), byte_2=3)
    taken = table(7, ref_6=vector([labels]))
    subgraph = table(5, ref_2=vector([given]), ref_3=vector([taken]))
    b.Finish(table(8, ref_3=vector([subgraph])), b"M001")
    return bytes(b.Output())


def test_labels_normalisation_and_colour_of_tflite_metadata_are_facts() -> None:
    metadata = flatbuffer_metadata(mean=[127.5], std=[127.5, 127.5])
    data = with_files(network(metadata=metadata), classes__txt="person\ndog\n")
    inside, labels = facts_from_tflite(read_tflite(data, "m.tflite")).metadata
    assert inside.rescaling is not None
    assert (inside.rescaling.scale, inside.rescaling.offset, inside.color) == (1 / 127.5, -1.0, "rgb")
    assert labels.class_names == ("person", "dog")
    assert labels.where == "'classes.txt' in the ZIP of 'm.tflite'"


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (flatbuffer_metadata(mean=[1, 2, 3], std=[1]), "normalise each channel by numbers of its own"),
        (flatbuffer_metadata(mean=[0], std=[1])[:60], "cannot be read and is left out"),
        (b"\xff\xff\xff\x7fM001" + bytes(40), "cannot be read and is left out"),
    ],
    ids=["per channel", "cut off", "a wild offset"],
)
def test_metadata_that_cannot_be_used_are_told(metadata: bytes, said: str) -> None:
    found = facts_from_tflite(read_tflite(network(metadata=metadata), "m.tflite")).metadata
    assert any(said in note for part in found for note in part.notes)


SOUND = flatbuffer_metadata(mean=[127.5], std=[127.5])


@settings(max_examples=300)
@given(st.integers(0, len(SOUND) - 1), st.binary(min_size=1, max_size=8))
@example(244, b"\0")  # no mean at all
def test_no_damage_of_the_metadata_keeps_the_network_from_being_read(place: int, patch: bytes) -> None:
    damaged = (SOUND[:place] + patch + SOUND[place + len(patch) :])[: len(SOUND)]
    for part in facts_from_tflite(read_tflite(network(metadata=damaged), "m.tflite")).metadata:
        assert all(isinstance(note, str) for note in part.notes)
        assert part.rescaling is None or part.rescaling.scale > 0


def convert(path: Path, data: bytes, **options: Any) -> Any:
    path.write_bytes(data)
    return xdet.convert(path, path.with_suffix(".onnx"), force=True, **options).document


def test_an_export_of_ultralytics_converts_without_a_word(tmp_path: Path) -> None:
    data = {"stride": 32, "names": {0: "person", 1: "dog"}, "imgsz": [64, 64], "task": "detect"}
    document = convert(tmp_path / "v8.tflite", with_files(network(), metadata__json=json.dumps(data)))
    spec = document.spec
    assert (spec.head.kind, spec.class_names, spec.image.resize) == ("yolo_v8", ("person", "dog"), "letterbox")
    assert (spec.image.rescaling.scale, spec.assumed) == (1 / 255, ())
    inspection = inspect(tmp_path / "v8.tflite")
    assert inspection.stated_by["class_names"] == "'metadata.json' in the ZIP of 'v8.tflite'"
    assert "'metadata.json' in the ZIP of 'v8.tflite': class names, resize, " in report_text(
        inspection_report(inspection)
    )
    said = "'metadata.json' in the ZIP of 'v8.tflite' says class names person, dog, resize letterbox, rescaling p * "
    assert any(note.startswith(said) for note in document.notes)


def test_a_quantised_input_is_followed_whatever_metadata_say(tmp_path: Path) -> None:
    metadata = flatbuffer_metadata(mean=[127.5], std=[127.5])
    document = convert(tmp_path / "m.tflite", network(metadata=metadata, dtype="uint8"))
    assert document.spec.image.rescaling.offset == 0
