"""ONNX Runtime with the OpenVINO execution provider compiled in.

The wheel ``onnxruntime-openvino`` replaces ``onnxruntime``, so these tests want an environment of their own;
``.ci/run`` makes one.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from xdet.checking.check import check
from xdet.checking.runtimes import find_placement
from xdet.checking.selftest import run_selftest
from xdet.conversion import convert
from xdet.detection.detector import Detector
from xdet.errors import ModelError, RuntimeUnavailableError
from xdet.evaluation.evaluate import evaluate
from xdet.runtimes.ort_session import available_providers

pytestmark = [
    pytest.mark.openvino_provider,
    pytest.mark.skipif(
        find_spec("onnxruntime") is None or "openvino" not in [p.short for p in available_providers()],
        reason="needs an environment without onnxruntime: pip install onnxruntime-openvino",
    ),
]


@pytest.fixture(scope="module")
def model(embedded_tflite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("model") / "person.onnx"
    convert(embedded_tflite, output)
    return output


def test_the_provider_is_used_and_not_only_asked_for(model: Path) -> None:
    with Detector(model, provider="openvino") as detector:
        assert detector.runtime.name == "onnxruntime:openvino"
        assert not detector.runtime.capabilities.exact


def test_it_finds_the_boxes_that_the_cpu_finds(model: Path, sample_pictures: list[Path]) -> None:
    with Detector(model) as cpu, Detector(model, provider="OpenVINOExecutionProvider") as openvino:
        for picture in sample_pictures:
            expected, found = cpu(picture), openvino(picture)
            np.testing.assert_array_equal(found.anchors, expected.anchors)
            np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, atol=0.02)  # a few LSB of the head


def test_its_self_test_stays_within_the_documented_bound(model: Path) -> None:
    result = run_selftest(model, provider="openvino")
    assert result.verdict in ("exact", "bounded")


@pytest.mark.parametrize("asked", [(score, iou) for score in (0.2, 0.5, 0.9) for iou in (0.3, 0.99)])
def test_it_finds_what_a_file_with_these_thresholds_as_constants_finds(
    asked: tuple[float, float], model: Path, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    (score, iou), frozen = asked, tmp_path / "frozen.onnx"
    convert(embedded_tflite, frozen, score_threshold=score, iou_threshold=iou, freeze_thresholds=True)
    with (
        Detector(model, provider="openvino", score_threshold=score, iou_threshold=iou) as detector,
        Detector(frozen, provider="openvino") as constant,
    ):
        assert detector.runtime.capabilities.thresholds
        for picture in sample_pictures:
            found, expected = detector(picture), constant(picture)
            np.testing.assert_array_equal(found.anchors, expected.anchors)
            np.testing.assert_array_equal(found.scores, expected.scores)
            np.testing.assert_array_equal(found.boxes_xyxy, expected.boxes_xyxy)
            assert (found.scores > np.float32(score)).all()


def test_its_average_precision_is_that_of_constants(
    model: Path, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    frozen, annotations = tmp_path / "frozen.onnx", tmp_path / "annotations.json"
    convert(embedded_tflite, frozen, score_threshold=0.001, iou_threshold=0.5, freeze_thresholds=True)
    images = [{"id": i, "file_name": p.name, "width": 512, "height": 512} for i, p in enumerate(sample_pictures)]
    boxes = [[40.0, 0.0, 420.0, 512.0], [120.0, 90.0, 200.0, 400.0]]
    truths = [
        {"id": i + 1, "image_id": i, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for i, box in enumerate(boxes)
    ]
    told = {"images": images, "annotations": truths, "categories": [{"id": 1, "name": "person"}]}
    annotations.write_text(json.dumps(told), "utf-8")
    found = evaluate([model, frozen], sample_pictures[0].parent, annotations, provider="openvino")
    (fed, constant) = (result.score for result in found.results)
    assert fed.metrics == constant.metrics
    np.testing.assert_array_equal(fed.precision, constant.precision)
    np.testing.assert_array_equal(fed.rankings[0].hits, constant.rankings[0].hits)
    assert len(fed.rankings[0].images) > 20  # the model's own threshold leaves three


def test_its_options_are_handed_on_and_told(model: Path, sample_pictures: list[Path]) -> None:
    with Detector(model, provider="openvino", provider_options={"num_of_threads": "1"}) as detector:
        assert detector.runtime.name == "onnxruntime:openvino (num_of_threads=1)"
        assert len(detector(sample_pictures[0]))
    with pytest.raises(ModelError, match="Invalid OpenVINO EP option: nonsense"):
        Detector(model, provider="openvino", provider_options={"nonsense": "1"})
    with pytest.raises(RuntimeUnavailableError, match="lists none for it; try its own option"):
        Detector(model, provider="openvino", device="gpu:9")


def test_it_takes_every_node(model: Path) -> None:
    placement = find_placement(model.read_bytes(), "openvino")
    assert placement.nodes is not None
    assert set(placement.nodes) == {"openvino"}
    assert placement.fallen_back == {}


def test_the_block_to_paste_needs_nothing_but_this_environment(
    model: Path, embedded_tflite: Path, sample_pictures: list[Path]
) -> None:
    program = Path(__file__).resolve().parents[3] / "examples" / "report_accelerator.py"
    files = map(str, (model, "--source", embedded_tflite, "--images", sample_pictures[0]))
    asked = ["--provider", "openvino", "--provider-option", "device_type=CPU"]
    done = subprocess.run([sys.executable, program, *files, *asked], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "options: {'device_type': 'CPU'}" in done.stdout
    assert re.search(r"^nodes on openvino: \d+", done.stdout, re.MULTILINE)
    head = r"^head on openvino beside cpu: [\d,]+ of [\d,]+ values differ, by at most [012] LSB$"
    assert re.search(head, done.stdout, re.MULTILINE)
    assert re.search(r"^onnxruntime:openvino \(device_type=CPU\) .*\(9/9\)$", done.stdout, re.MULTILINE)


def test_a_check_gives_options_to_named_providers_alone(
    model: Path, embedded_tflite: Path, sample_pictures: list[Path]
) -> None:
    files, options = (model, embedded_tflite, sample_pictures[:1]), {"device_type": "CPU"}
    found = check(*files, runtimes="onnxruntime:cpu,onnxruntime:openvino", provider_options=options)
    assert [run.name for run in found.runs if run.name.startswith("onnxruntime")] == [
        "onnxruntime:cpu",
        "onnxruntime:openvino (device_type=CPU)",
    ]
