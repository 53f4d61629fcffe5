"""Opening and describing a source of any format; what the conversion records of it."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from converters.convert import convert_to_bytes
from converters.description.sidecar import find_sidecar
from converters.description.statements import SourceOptions
from converters.errors import ContractError, OptionError, SourceFileError
from converters.files import FINISHED
from converters.options import ConvertOptions
from converters.sources import SOURCES, Later, describe, open_source
from converters.spec import EvaluationSettings, RawOutput
from tests.converters.sources.tflite.networks import HEAD_CHANNELS, NetworkBuilder

ANCHORS = ((0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6))
SETTINGS = "{confidence_thresh: 0.001, NMS_thresh: 0.5, max_detection_boxes: 100}"
YAML = f"model: {{model_type: yolov2t}}\npostprocessing: {SETTINGS}\n"


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.tflite"
    path.write_bytes(NetworkBuilder(32).conv(4, stride=2).conv(HEAD_CHANNELS, 1).build())
    return path


def test_the_functions_of_every_row_exist() -> None:
    steps = [s for row in SOURCES.values() for i in row.importers.values() for s in (i.read, i.facts, i.build)]
    steps += [step for row in SOURCES.values() for step in (row.inspect, row.compare)]
    assert all(isinstance(step, Later) and callable(step.resolve()) for step in steps)
    assert FINISHED not in SOURCES


def test_an_open_source_is_described_from_its_facts(net: Path) -> None:
    source = open_source(net)
    assert (source.format, source.path, source.data) == ("tflite", net, net.read_bytes())
    spec = describe(source, SourceOptions(anchors=ANCHORS, anchor_unit="image")).spec
    assert (spec.image.height, spec.network_outputs) == (32, (RawOutput("", (16, 16, HEAD_CHANNELS)),))


def test_a_pointer_of_git_lfs_is_told(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1234\n")
    with pytest.raises(SourceFileError, match="Git LFS pointer, not the model; run git lfs pull"):
        open_source(path)


def test_a_finished_model_is_no_source(tmp_path: Path) -> None:
    model = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    onnx.helper.set_model_props(model, {"xdet": "{}"})
    path = tmp_path / "done.tflite"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(SourceFileError, match="found an ONNX file that xdet made"):
        open_source(path)


def test_evaluation_settings_licence_and_origin_are_recorded(net: Path, tmp_path: Path) -> None:
    config = tmp_path / "user.yaml"
    config.write_text(YAML)
    net.with_suffix(".xdet.json").write_text(json.dumps({"licence": "CC-BY-4.0", "source": "a paper"}))
    options = ConvertOptions(source=SourceOptions(config=config))
    document = convert_to_bytes(net, options).document
    assert document.evaluation == EvaluationSettings(0.001, 0.5, None, 100)
    assert (document.licence, document.origin) == ("CC-BY-4.0", "a paper")
    assert document.spec.thresholds.score == 0.5, "evaluation settings are no defaults"


def test_a_raw_head_leaves_anchors_of_unknown_unit_out_and_says_so(net: Path) -> None:
    options = ConvertOptions(source=SourceOptions(head="none", anchors=ANCHORS))
    document = convert_to_bytes(net, options).document
    assert document.spec.head is None
    assert (
        document.notes[0]
        == "the anchors (--anchors) are left out, since nobody states their unit; a raw head needs none"
    )


def test_a_raw_head_keeps_anchors_whose_unit_is_known(net: Path) -> None:
    for options in (
        SourceOptions(head="none", anchors=ANCHORS, anchor_unit="image"),
        SourceOptions(head="none", anchors=(*ANCHORS[:4], (1.5, 2.0)), anchor_unit="cell"),
    ):
        document = convert_to_bytes(net, ConvertOptions(source=options)).document
        assert document.spec.head is not None
        assert not [note for note in document.notes if "anchors" in note]


def test_the_graph_states_fixed_shapes_of_the_network_alone(net: Path) -> None:
    for batch, leading in ((1, 1), ("dynamic", "N")):
        options = ConvertOptions(source=SourceOptions(anchors=ANCHORS, anchor_unit="image"), batch=batch)  # type: ignore[arg-type]  # a pair
        model = onnx.load_model_from_string(convert_to_bytes(net, options).model)
        stated = {
            v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.value_info
        }
        assert stated["head"] == [leading, 16, 16, HEAD_CHANNELS]
        assert not [name for name in stated if name.startswith("head/")]
        assert not [shape for shape in stated.values() if any(str(size).startswith("unk") for size in shape)]


@pytest.mark.parametrize(
    "choices",
    [
        {"batch": "3"},
        {"batch": True},
        {"batch": 2.5},
        {"batch": 0},
        {"batch": None},
        {"freeze_thresholds": 1},
        {"source": None},
        {"target": ["cpu"]},
        {"leaky_relu": None},
    ],
    ids=str,
)
def test_a_choice_of_another_type_is_a_usage_error(choices: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(choices))):
        ConvertOptions(**choices)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"score_threshold": "0.5"}, "score threshold must be a number, got '0.5'"),
        ({"score_threshold": True}, "score threshold must be a number"),
        ({"iou_threshold": np.float32(2)}, "iou threshold must be"),
        ({"max_detections": 2.5}, "max_detections must be a whole number"),
        ({"max_detections": True}, "max_detections must be a whole number"),
        ({"config": "zoo.yaml"}, "--config must be a path"),
        ({"anchors": "1,2"}, "--anchors"),
        ({"anchors": (("1", "2"),)}, "--anchors"),
        ({"class_names": "person"}, "--classes"),
        ({"head": ["none"]}, "--head"),
        ({"anchor_unit": 1}, "--anchor-unit"),
    ],
    ids=str,
)
def test_a_statement_of_another_type_is_a_usage_error(choices: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        SourceOptions(**choices)


def test_a_name_too_long_for_a_sidecar_has_none(tmp_path: Path) -> None:
    assert find_sidecar(tmp_path / ("n" * 250 + ".h5")) is None


@pytest.mark.parametrize("path", [Path("n" * 300), Path("a\0b")], ids=["300 characters", "NUL"])
def test_a_path_that_cannot_be_is_a_source_error(path: Path) -> None:
    with pytest.raises(SourceFileError, match="cannot be read"):
        open_source(path)
    assert find_sidecar(path) is None


def test_a_folder_that_cannot_be_looked_into_is_a_source_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(SourceFileError, match=r"sidecar of 'locked/net\.tflite' cannot be read: Permission denied"):
        find_sidecar(Path("locked/net.tflite"))


@pytest.mark.skipif(
    sys.platform in ("win32", "darwin"),
    reason="needs a system whose file names are bytes, such as Linux: elsewhere they are Unicode",
)
def test_a_file_name_that_is_no_text_is_recorded_with_question_marks(net: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"odd\xff.tflite")
    odd.write_bytes(net.read_bytes())
    options = ConvertOptions(source=SourceOptions(head="none"))
    assert convert_to_bytes(odd, options).document.source.name == "odd?.tflite"


def test_a_document_that_cannot_be_is_a_contract_error(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converters.sources.tflite.importer.summarise_quantization", lambda _: "")
    options = ConvertOptions(source=SourceOptions(head="none"))
    with pytest.raises(
        ContractError, match=r"net\.tflite: the model's document is malformed: quantization must be text"
    ):
        convert_to_bytes(net, options)
