"""Class names, size and rescaling that a model file states itself: Ultralytics' forms, label files, damage."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.description.sidecar import Sidecar
from converters.description.statements import SourceOptions
from converters.facts import (
    FileMetadata,
    SourceFacts,
    SourceOutput,
    archive_texts,
    read_archive,
    read_literal,
    read_metadata_props,
)
from converters.heads.lists import YoloV8
from converters.spec import Rescaling
from tests.converters.description.resolving import statements_of

ULTRALYTICS: dict[str, Any] = {
    "description": "Ultralytics YOLO model",
    "stride": 32,
    "task": "detect",
    "imgsz": [320, 256],
    "names": {0: "person", 1: "dog's"},
}
FOUND = FileMetadata(
    "",
    class_names=("person", "dog's"),
    size_hw=(320, 256),
    stride=32,
    rescaling=Rescaling(1 / 255, 0.0),
    resize="letterbox",
)
YAML = "stride: 32\nimgsz:\n- 320\n- 256\nnames:\n  0: person\n  1: dog's\n"


def zipped(**members: str | bytes) -> bytes:
    """A model's bytes with a ZIP behind them; ``__`` stands for a dot."""
    packed = io.BytesIO(b"model" * 9)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.json", json.dumps(ULTRALYTICS, indent=2)),
        ("metadata.yaml", YAML),
        ("temp_meta.txt", str(ULTRALYTICS)),
    ],
)
def test_every_form_behind_a_tflite_file_is_read(name: str, text: str) -> None:
    texts, notes = archive_texts(zipped(**{name.replace(".", "__"): text}), "m.tflite")
    assert (list(texts), notes) == ([name], ())
    assert read_archive(texts, "m.tflite") == replace(FOUND, where=f"'{name}' in the ZIP of 'm.tflite'")


def test_the_texts_of_an_onnx_file_are_read() -> None:
    props = {key: str(value) for key, value in ULTRALYTICS.items()}
    assert read_metadata_props(props, "metadata") == replace(FOUND, where="metadata")
    assert read_metadata_props({"stride": "32", "names": "['a', 'b']"}, "v5") == replace(
        FOUND, where="v5", class_names=("a", "b"), size_hw=None
    )
    assert read_metadata_props({"names": "{0: 'person'}"}, "metadata") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"names": "{0: 'a', 2: 'b'}"}, "names: expected numbers from 0 on"),
        ({"names": "{0: 1}"}, "class 0 is 1, expected text"),
        ({"names": "__import__('os')"}, "expected a list of names"),
        ({"names": "[" * 50}, "nested more than 4 levels deep"),
        ({"names": "-" * 100_000 + "1"}, "nested more than 4 levels deep"),
        ({"names": "'" + "a" * 300_000}, "a text of 300001 characters"),
        ({"imgsz": "[640]"}, "imgsz: expected height and width"),
    ],
)
def test_malformed_texts_are_left_out_with_the_reason(change: dict[str, str], said: str) -> None:
    found = read_metadata_props({"names": "{0: 'a'}", "stride": "32", **change}, "metadata of 'm.onnx'")
    assert found is not None
    assert (found.class_names, found.resize) == (None, None)
    assert said in found.notes[0]
    assert found.notes[0].startswith("metadata of 'm.onnx' cannot be read and is left out")


def test_another_task_is_told() -> None:
    found = read_metadata_props({"names": "{0: 'a'}", "stride": "32", "task": "segment"}, "it")
    assert found is not None
    assert found.notes == ("it says that the network's task is 'segment', not detect",)
    assert found.task == "segment"


@pytest.mark.parametrize("task", [["detect"], {"detect": 1}, 7, None])
def test_a_task_that_is_no_text_is_another_task(task: object) -> None:
    texts, _ = archive_texts(zipped(metadata__json=json.dumps({**ULTRALYTICS, "task": task})), "m.tflite")
    found = read_archive(texts, "m.tflite")
    assert found is not None
    assert found.task == str(task)


@pytest.mark.parametrize("text", ["Ultralytics YOLO", "2026-01-01T10:00:00", "8.3.0", "()", "f(1)", ""])
def test_a_text_that_is_no_literal_is_itself(text: str) -> None:
    assert read_literal(text) == (() if text == "()" else text)


def test_a_lone_list_of_labels_is_read() -> None:
    texts = {"labelmap.txt": "person\ndog\n\n", "LICENSE.txt": "none"}
    assert read_archive(texts, "m.tflite") == FileMetadata("'labelmap.txt' in the ZIP of 'm.tflite'", ("person", "dog"))
    assert read_archive({"labels_en.txt": "a"}, "m") is None
    assert read_archive({"labels.txt": "a", "more/labels.txt": "b"}, "m") is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(zipped(labels__txt="person")[:-30] + b"PK\5\6" + bytes(18), None, id="an empty directory"),
        pytest.param(zipped(**{f"{i}__txt": "x" for i in range(400)}), "directory of another size", id="many members"),
        pytest.param(zipped(a__txt="x").replace(b"PK\1\2", b"PK\1\3"), "cannot be read", id="a broken directory"),
        pytest.param(b"model" + b"PK\6\7" + bytes(16) + b"PK\5\6" + bytes(18), "directory of another", id="zip64"),
        pytest.param(zipped(a__txt=b"\xff\xfe\xff"), "cannot be read", id="no UTF-8"),
        pytest.param(zipped(a__txt=b" " * (2 << 20)), None, id="too large"),
        pytest.param(b"model", None, id="no ZIP"),
    ],
)
def test_a_damaged_or_hostile_zip_is_left_out(data: bytes, said: str | None) -> None:
    texts, notes = archive_texts(data, "m.tflite")
    assert texts == {}
    assert (said is None and not notes) or (said is not None and said in notes[0])


@given(st.integers(0, 200), st.binary(min_size=1, max_size=8))
def test_any_damage_of_a_zip_ends_in_texts_or_a_note(place: int, patch: bytes) -> None:
    data = bytearray(zipped(metadata__json=json.dumps(ULTRALYTICS)))
    place = min(place, len(data) - len(patch))
    data[-place - len(patch) : len(data) - place] = patch
    texts, notes = archive_texts(bytes(data), "m")
    assert all(isinstance(text, str) for text in (*texts.values(), *notes))
    read_archive(texts, "m")


def facts(*metadata: FileMetadata, dtype: str = "float32") -> SourceFacts:
    return SourceFacts("m.tflite", 320, 320, (SourceOutput("out", (6, 100)),), dtype, None, metadata=metadata)


def test_people_are_followed_before_the_file_and_differences_are_told() -> None:
    inside = replace(FOUND, where="its ZIP")
    options = SourceOptions(class_names=("cat", "cow"), resize="letterbox")
    statements = statements_of(facts(inside), options, Sidecar("s.json", resize="nearest"))
    assert (statements.value("class_names"), statements.value("resize")) == (("cat", "cow"), "letterbox")
    assert statements.stated_by() == {
        "class_names": "--classes",
        "resize": "--resize",
        "color": "assumed",
        "rescaling": "its ZIP",
    }
    assert statements.all_notes() == (
        "class names: --classes is followed, though its ZIP says person, dog's",
        "its ZIP says rescaling p * 0.00392157 + 0",
        "its ZIP says 320 x 256, but the input takes 320 x 320, which is followed",
    )


def test_names_of_the_file_that_do_not_fit_the_head_are_left_out() -> None:
    statements = statements_of(facts(FOUND))
    assert statements.fitting(YoloV8(100, 2, (1.0, 1.0))) is statements
    without = statements.fitting(YoloV8(100, 3, (1.0, 1.0)))
    assert without.value("class_names") is None
    assert without.notes == (": 2 class names, the head scores 3: they are left out; give --classes",)


def test_the_end_record_is_where_the_format_puts_it() -> None:
    data = zipped(labels__txt="person")
    assert struct.unpack("<4s4H2LH", data[-22:])[0] == b"PK\5\6"
