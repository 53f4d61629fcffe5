"""The metadata document: what is written is read again, what is malformed is a ValueError, what is newer is ignored."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.spec import (
    Anchors,
    DetectorSpec,
    Deviation,
    EvaluationSettings,
    ImageInput,
    ModelDocument,
    Rescaling,
    SourceInfo,
    TensorTwin,
)

DOCUMENT = ModelDocument(
    spec=DetectorSpec(
        ImageInput(32, 64, Rescaling(1 / 255, -0.5)),
        "yolo_v2",
        1,
        2,
        12,
        ("person",),
        Anchors(((0.5, 1.0), (1.0, 0.25)), "image"),
    ),
    source=SourceInfo("net.tflite", "0" * 64, "tflite"),
    quantization="int8 per-channel",
    activations="uint8",
    leaky_relu="litert",
    target="cpu",
    freeze_thresholds=False,
    passes=("wide stem",),
    notes=("one note",),
    tensors={
        "a": TensorTwin("a", "NHWC->NCHW", 128),
        "w": TensorTwin("w/wide", "OHWI->OIHW", 0, "replicated", "wide stem"),
        "b": TensorTwin(None, "same", 128, "removed", "pool before activation"),
    },
    deviations=(Deviation("a", "b", "scale", 0.25, 0.5), Deviation("b", "b", "table", None, None)),
    evaluation=EvaluationSettings(0.001, 0.5, None, 100),
    licence="Apache-2.0",
    origin="trained here",
    oldest_runtimes={"onnxruntime": "1.24"},
)


def changed(path: str, value: Any) -> str:
    """The document's JSON with ``value`` at a dotted path; digits index lists."""
    data = json.loads(DOCUMENT.to_json())
    *parents, last = path.split(".")
    place = data
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    place[int(last) if isinstance(place, list) else last] = value
    return json.dumps(data)


def without(path: str) -> str:
    data = json.loads(DOCUMENT.to_json())
    *parents, last = path.split(".")
    place = data
    for key in parents:
        place = place[key]
    del place[last]
    return json.dumps(data)


def test_a_document_is_read_as_it_was_written() -> None:
    assert ModelDocument.from_json(DOCUMENT.to_json()) == DOCUMENT


def test_optional_keys_are_left_out_where_nobody_states_them() -> None:
    bare = replace(DOCUMENT, evaluation=None, licence=None, origin=None)
    assert not {"evaluation", "licence", "origin", "golden"} & set(json.loads(bare.to_json()))
    assert ModelDocument.from_json(bare.to_json()) == bare


@pytest.mark.parametrize(
    "path",
    ["later", "spec.later", "spec.image.later", "spec.anchors.later", "source.later", "tensors.a.later"],
)
def test_keys_of_later_releases_are_ignored(path: str) -> None:
    assert ModelDocument.from_json(changed(path, {"anything": [1]})) == DOCUMENT


@pytest.mark.parametrize(
    "path",
    ["deviations", "evaluation", "licence", "oldest_runtimes", "origin", "tensors.a.fate", "tensors.a.by"],
)
def test_keys_that_older_files_lack_have_defaults(path: str) -> None:
    read = ModelDocument.from_json(without(path))
    assert read.spec == DOCUMENT.spec
    assert read.tensors["a"] == DOCUMENT.tensors["a"]


@pytest.mark.parametrize(
    "path",
    [
        "spec",
        "source",
        "tensors",
        "notes",
        "activations",
        "spec.grid_h",
        "spec.image.resize",
        "source.sha256",
    ],
)
def test_a_missing_key_is_malformed(path: str) -> None:
    with pytest.raises(ValueError, match=path.rpartition(".")[2]):
        ModelDocument.from_json(without(path))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("contract", 2, "contract version 2 is not 1"),
        ("contract", True, "contract version True is not 1"),
        ("spec.class_names", [5], "each of class_names must be text, got 5"),
        ("spec.class_names", "p", "class_names must be a list, got 'p'"),
        ("spec.grid_h", 7.0, "grid_h must be a whole number"),
        ("spec.grid_w", True, "grid_w must be a whole number"),
        ("spec.grid_w", 2**40, "grid_w must be a whole number in 1..2147483647"),
        ("spec.head", "ssd", "head must be one of yolo_v2, none, got 'ssd'"),
        ("spec.head", ["none"], "head must be one of"),
        ("spec.image", None, "malformed"),
        ("spec.image.height", "32", "image height must be a whole number"),
        ("spec.image.rescaling.scale", float("nan"), "rescaling scale must be a finite number"),
        ("spec.image.rescaling.scale", 10**400, "rescaling scale must be a finite number"),
        ("spec.anchors.sizes_wh", [[1]], "each anchor must be a"),
        ("spec.anchors.sizes_wh", [["a", "b"]], "each anchor size must be a finite number, got 'a'"),
        ("spec.anchors.sizes_wh", {"0": 1}, "anchors must be a list"),
        ("spec.anchors.unit", "px", "anchor unit must be one of cell, image"),
        ("spec.thresholds.score", "0.5", "score threshold must be a number, got '0.5'"),
        ("spec.thresholds.max_detections", 0, "max_detections must be a whole number in 1..4096"),
        ("activations", ["uint8"], "activations must be one of uint8, int8, float32"),
        ("activations", "int4", "activations must be one of"),
        ("leaky_relu", 1, "leaky_relu must be one of litert, float"),
        ("target", None, "target must be one of portable, cpu"),
        ("freeze_thresholds", "no", "freeze_thresholds must be true or false"),
        ("passes", "wide stem", "passes must be a list"),
        ("notes", [1], "each of notes must be text, got 1"),
        ("quantization", "", "quantization must be text"),
        ("source", [], "SourceInfo must be a dict"),
        ("source.format", "onnx", "source format must be one of tflite, h5, keras"),
        ("source.name", 3, "source name must be text"),
        ("tensors", [], "malformed"),
        ("tensors.a", "a", "TensorTwin must be a dict"),
        ("tensors.a.onnx", None, "a kept twin cannot have the ONNX name None"),
        ("tensors.a.onnx", 5, "twin ONNX name must be text, got 5"),
        ("tensors.a.zero_point_shift", 0.5, "twin zero_point_shift must be a whole number"),
        ("tensors.a.fate", "lost", "twin fate must be one of kept, replicated, removed"),
        ("tensors.b.by", None, "a removed twin cannot be the work of pass None"),
        ("deviations", {}, "deviations must be a list"),
        ("deviations.0.kind", "colour", "deviation kind must be one of"),
        ("deviations.0.written", "1", "deviation written must be a finite number"),
        ("evaluation.score_threshold", 2, "score_threshold must lie in 0..1"),
        ("oldest_runtimes", [], "oldest_runtimes must be a dict"),
        ("oldest_runtimes.onnxruntime", 1.24, "must be text, got 1.24"),
        ("oldest_runtimes.onnxruntime", "1." + "9" * 5000, "must be a release such as '1.24'"),
        ("licence", 5, "licence must be text"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_a_value_error_with_its_name(path: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelDocument.from_json(changed(path, value))


@pytest.mark.parametrize("text", ["", "[]", "5", "null", '"text"', "{}", '{"contract":1}', "[" * 100_000])
def test_what_is_no_document_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ModelDocument.from_json(text)


PATHS = [
    "spec", "spec.image", "spec.image.rescaling", "spec.anchors", "spec.anchors.sizes_wh.0", "spec.thresholds.iou",
    "source", "tensors", "tensors.a", "tensors.a.by", "passes", "deviations", "deviations.1", "evaluation", "golden",
    "oldest_runtimes", "oldest_runtimes.onnxruntime",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(PATHS), JSON)
def test_no_value_anywhere_raises_anything_but_value_error(path: str, value: object) -> None:
    with contextlib.suppress(ValueError):
        ModelDocument.from_json(changed(path, value))
