"""The metadata document: what is written is read again, what is malformed is a ValueError, what is newer is ignored."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.heads.yolo_v2 import YoloV2
from converters.spec import (
    Anchors,
    DetectorSpec,
    Deviation,
    EvaluationSettings,
    ImageInput,
    ModelDocument,
    RawOutput,
    Rescaling,
    SourceInfo,
    TensorTwin,
)
from converters.spec.document import DIALECTS, dialect_of

RUNTIMES = Path(__file__).parents[3] / "docs" / "runtimes.md"

DOCUMENT = ModelDocument(
    spec=DetectorSpec(
        ImageInput(32, 64, Rescaling(1 / 255, -0.5)),
        YoloV2(1, 2, Anchors(((0.5, 1.0), (1.0, 0.25)), "image"), 1),
        ("person",),
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


CONTRACT_1 = (  # the same model, as the releases of contract 1 wrote it
    '{"activations":"uint8","arithmetic":"litert","contract":1,"deviations":[{"kind":"scale",'
    '"operator":"b","source":0.25,"tensor":"a","written":0.5},{"kind":"table","operator":"b",'
    '"source":null,"tensor":"b","written":null}],"evaluation":{"evaluation_iou":null,"max_detections":100,'
    '"nms_iou_threshold":0.5,"score_threshold":0.001},"freeze_thresholds":false,"leaky_relu":"litert",'
    '"licence":"Apache-2.0","notes":["one note"],"oldest_runtimes":{"onnxruntime":"1.24"},'
    '"origin":"trained here","passes":["wide stem"],"quantization":"int8 per-channel",'
    '"source":{"format":"tflite","name":"net.tflite",'
    '"sha256":"0000000000000000000000000000000000000000000000000000000000000000"},'
    '"spec":{"anchors":{"sizes_wh":[[0.5,1.0],[1.0,0.25]],"unit":"image"},"class_names":["person"],'
    '"grid_h":1,"grid_w":2,"head":"yolo_v2","head_channels":12,"image":{"height":32,'
    '"rescaling":{"offset":-0.5,"scale":0.00392156862745098},"resize":"nearest","width":64},'
    '"thresholds":{"iou":0.5,"max_detections":100,"score":0.5}},"target":"cpu","tensors":{"a":{"by":null,'
    '"fate":"kept","layout":"NHWC->NCHW","onnx":"a","zero_point_shift":128},'
    '"b":{"by":"pool before activation","fate":"removed","layout":"same","onnx":null,'
    '"zero_point_shift":128},"w":{"by":"wide stem","fate":"replicated","layout":"OHWI->OIHW",'
    '"onnx":"w/wide","zero_point_shift":0}}}'
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
    "path", ["later", "spec.later", "spec.image.later", "spec.head.anchors.later", "source.later", "tensors.a.later"]
)
def test_keys_of_later_releases_are_ignored(path: str) -> None:
    assert ModelDocument.from_json(changed(path, {"anything": [1]})) == DOCUMENT


@pytest.mark.parametrize(
    "path", ["deviations", "evaluation", "licence", "oldest_runtimes", "origin", "tensors.a.fate", "tensors.a.by"]
)
def test_keys_that_older_files_lack_have_defaults(path: str) -> None:
    read = ModelDocument.from_json(without(path))
    assert read.spec == DOCUMENT.spec
    assert read.tensors["a"] == DOCUMENT.tensors["a"]


@pytest.mark.parametrize(
    "path",
    ["spec", "source", "tensors", "notes", "activations", "spec.head.grid_h", "spec.image.resize", "source.sha256"],
)
def test_a_missing_key_is_malformed(path: str) -> None:
    with pytest.raises(ValueError, match=path.rpartition(".")[2]):
        ModelDocument.from_json(without(path))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("contract", 3, "contract version 3 is none of 1 and 2"),
        ("contract", True, "contract version True is none of 1 and 2"),
        ("spec.class_names", [5], "each of class_names must be text, got 5"),
        ("spec.class_names", "p", "class_names must be a list, got 'p'"),
        ("spec.head.grid_h", 7.0, "grid_h must be a whole number"),
        ("spec.head.grid_w", True, "grid_w must be a whole number"),
        ("spec.head.grid_w", 2**40, "grid_w must be a whole number in 1..2147483647"),
        ("spec.head.kind", "yolo_v99", "head must be one of yolo_v2, .*, got 'yolo_v99'"),
        ("spec.head.kind", ["none"], "head must be one of"),
        ("spec.head", "yolo_v2", "malformed"),
        ("spec.head", None, "a detector without a head needs raw_outputs"),
        ("spec.head.num_classes", 2, "the head has 2 classes, got class names"),
        ("spec.raw_outputs", [{"name": "", "shape": [3, 4, 12]}], "raw_outputs are .* the head needs"),
        ("spec.raw_outputs", [5], "malformed"),
        ("spec.raw_outputs", [{"name": "", "shape": [0]}], "each size of a raw output must be a whole number"),
        ("spec.image", None, "malformed"),
        ("spec.image.height", "32", "image height must be a whole number"),
        ("spec.image.rescaling.scale", float("nan"), "rescaling scale must be a finite number"),
        ("spec.image.rescaling.scale", 10**400, "rescaling scale must be a finite number"),
        ("spec.head.anchors.sizes_wh", [[1]], "each anchor must be a"),
        ("spec.head.anchors.sizes_wh", [["a", "b"]], "each anchor size must be a finite number, got 'a'"),
        ("spec.head.anchors.sizes_wh", {"0": 1}, "anchors must be a list"),
        ("spec.head.anchors.unit", "px", "anchor unit must be one of cell, image"),
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
        ("source.format", 3, "source format must be text"),
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
    "spec", "spec.head", "spec.head.kind", "spec.raw_outputs", "spec.image", "spec.image.rescaling",
    "spec.head.anchors", "spec.head.anchors.sizes_wh.0", "spec.thresholds.iou",
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


def old(**spec: Any) -> str:
    """A document of contract 1 with other values in its description of the detector."""
    data = json.loads(CONTRACT_1)
    data["spec"] |= spec
    return json.dumps(data)


def test_a_document_of_contract_1_is_read_as_its_equal() -> None:
    assert ModelDocument.from_json(CONTRACT_1) == DOCUMENT


def test_a_raw_head_of_contract_1_keeps_what_is_known_of_it() -> None:
    assert ModelDocument.from_json(old(head="none")).spec == DOCUMENT.spec.ending_raw()
    bare = ModelDocument.from_json(old(head="none", anchors=None, class_names=[])).spec
    assert (bare.head, bare.raw_outputs) == (None, (RawOutput("", (1, 2, 12)),))
    misfit = ModelDocument.from_json(old(head="none", head_channels=13, class_names=[])).spec
    assert (misfit.head, misfit.raw_outputs) == (None, (RawOutput("", (1, 2, 13)),))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"head": "ssd"}, "head must be one of yolo_v2, none, got 'ssd'"),
        ({"anchors": None}, "a yolo_v2 head needs anchors and class names"),
        ({"class_names": []}, "the head has 1 class, got class names"),
        ({"head_channels": 13}, r"anchors and classes make \(1, 2, 12\), the head has \(1, 2, 13\)"),
        ({"head_channels": 10}, "num_classes must be a whole number"),
        ({"grid_h": 7.0}, "grid_h must be a whole number"),
        ({"anchors": {"sizes_wh": [], "unit": "cell"}}, "at least one anchor is needed"),
    ],
)
def test_a_malformed_document_of_contract_1_is_refused(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelDocument.from_json(old(**spec))


@given(st.sampled_from(["head", "anchors", "grid_h", "head_channels", "class_names"]), JSON)
def test_no_value_of_contract_1_raises_anything_but_value_error(key: str, value: object) -> None:
    with contextlib.suppress(ValueError):
        ModelDocument.from_json(old(**{key: value}))


def test_the_docs_show_the_table_of_dialects() -> None:
    text = RUNTIMES.read_text(encoding="utf-8")
    for row in DIALECTS:
        options = f"`{row.options}`" if row.options else "nothing"
        assert f"| {row.name} | {options} | {row.numbers} | {row.wanted_by} |\n" in text


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"activations": "uint8"}, "portable"),
        ({"activations": "uint8", "target": "cpu"}, "cpu"),
        ({"activations": "int8"}, "int8"),
        ({"activations": "int8", "symmetric": True}, "symmetric"),
        ({"activations": "float32"}, "float"),
        ({"activations": "float32", "dequantize": True}, "dequantised"),
        ({"activations": "float32", "dequantize": True, "float16": True}, "float16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_file_is_in_one_dialect(changes: dict[str, object], name: str) -> None:
    assert dialect_of(replace(DOCUMENT, **{"target": "portable", **changes})).name == name  # type: ignore[arg-type]  # fields of the document
