"""Every planted fault is found by the right part, and blamed on the right layer and cause."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.heads.arithmetic import iou_xyxy
from converters.heads.nms import detect_from_head
from converters.options import ConvertOptions
from converters.spec import Thresholds
from tests.xdet.checking import faults
from xdet.checking.check import check
from xdet.pictures.preparation import Preparation, prepare
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.onnxruntime import OnnxRuntime, open_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.heads.base import BatchDetections
    from xdet.checking.result import CheckResult

pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
RUNTIMES = "onnxruntime:cpu,litert:xnnpack,litert:builtin"


@pytest.fixture
def check_fault(
    person_model: bytes, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> Callable[[faults.Edit], CheckResult]:
    def run(edit: faults.Edit) -> CheckResult:
        model = tmp_path / "planted.onnx"
        model.write_bytes(faults.planted(person_model, edit))
        return check(model, embedded_tflite, sample_pictures, runtimes=RUNTIMES)

    return run


def blamed(result: CheckResult, part: str) -> list[tuple[str, str | None]]:
    """Cause and layer of every finding of a part."""
    return [(finding.cause, finding.layer) for finding in result.findings if finding.part == part]


@pytest.mark.parametrize(
    ("edit", "cause", "layer"),
    [
        pytest.param(faults.one_weight_byte, "weight", faults.CONV3, id="one weight byte"),
        pytest.param(
            faults.one_bias, "bias", "tiny_yolo_v2/bn4/FusedBatchNormV3;tiny_yolo_v2/conv4/Conv2D1", id="one bias"
        ),
        pytest.param(faults.scale_off_by_one_percent, "scale", faults.CONV3, id="scale +1 %"),
        pytest.param(
            faults.weight_scale_off_by_one_percent,
            "scale",
            "tiny_yolo_v2/bn2/FusedBatchNormV3;tiny_yolo_v2/conv2/Conv2D1",
            id="weight scale +1 %",
        ),
        pytest.param(faults.zero_point_off_by_one, "zero-point", faults.CONV3, id="zero-point +1"),
        pytest.param(
            faults.zero_point_in_front_of_a_leaky_off_by_one,
            "zero-point",
            "tiny_yolo_v2/bn5/FusedBatchNormV3;tiny_yolo_v2/conv5/Conv2D1",
            id="zero-point in front of a LeakyReLU +1",
        ),
        pytest.param(faults.pool_pads_before, "padding", "tiny_yolo_v2/pool6/MaxPool", id="pool pads before"),
        pytest.param(faults.convolution_pads_before, "padding", faults.CONV3, id="convolution pads before"),
        pytest.param(faults.slope_of_darknet, "slope", faults.LEAKY7, id="slope 0.1"),
    ],
)
def test_a_fault_in_the_network_is_named_by_the_static_part_and_by_the_first_layer_that_differs(
    check_fault: Callable[[faults.Edit], CheckResult], edit: faults.Edit, cause: str, layer: str
) -> None:
    result = check_fault(edit)
    assert not result.passed
    assert blamed(result, "static") == [(cause, layer)]
    first_to_differ = [found for found, part in blamed(result, "exact") if part is not None]
    assert first_to_differ == ["layer"]
    assert {part.part: part.status for part in result.parts} == {
        "static": "failed",
        "exact": "failed",
        "spread": "skipped",
        "head": "passed",
    }


def test_a_scale_off_by_one_percent_is_told_in_numbers(check_fault: Callable[[faults.Edit], CheckResult]) -> None:
    (finding,) = (f for f in check_fault(faults.scale_off_by_one_percent).findings if f.part == "static")
    assert "(+1.00%)" in finding.message
    assert finding.message.startswith(f"scale of '{faults.CONV3}' in QuantizeLinear")


def test_a_wrong_slope_is_told_by_the_codes_that_it_changes(check_fault: Callable[[faults.Edit], CheckResult]) -> None:
    (finding,) = (f for f in check_fault(faults.slope_of_darknet).findings if f.part == "static")
    assert "of 256 codes behind LEAKY_RELU" in finding.message
    assert "(slope 0.2): the graph has slope 0.1" in finding.message


def test_a_layer_error_is_the_cause_of_the_detections_it_moves(
    check_fault: Callable[[faults.Edit], CheckResult],
) -> None:
    result = check_fault(faults.zero_point_off_by_one)
    assert result.changes
    assert {change.cause for change in result.changes} == {"layer"}


def test_a_float_convolution_is_named_although_its_numbers_are_the_sources(
    check_fault: Callable[[faults.Edit], CheckResult],
) -> None:
    result = check_fault(faults.float_convolution)
    assert blamed(result, "static") == [("float-convolution", faults.CONV3)]
    (finding,) = (f for f in result.findings if f.part == "static")
    assert "reads a float constant as operand 1, expected DequantizeLinear" in finding.message


def test_exchanged_colours_are_named_by_feeding_them_exchanged(
    check_fault: Callable[[faults.Edit], CheckResult],
) -> None:
    result = check_fault(faults.blue_and_red_exchanged)
    assert blamed(result, "static") == [("colour-order", None)]
    (finding,) = (f for f in result.findings if (f.part, f.cause) == ("exact", "colour-order"))
    assert "comes to 0 from the source's head" in finding.message


def test_anchors_of_the_graph_in_another_unit_are_named_by_the_head_part(
    check_fault: Callable[[faults.Edit], CheckResult],
) -> None:
    result = check_fault(faults.anchors_of_the_graph_in_another_unit)
    assert blamed(result, "head") == [("anchor-unit", None)]
    assert [part.status for part in result.parts] == ["passed", "passed", "skipped", "failed"]


def test_a_conversion_with_the_wrong_unit_is_named_by_the_static_part(
    embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    source = tmp_path / "source.tflite"
    shutil.copyfile(embedded_tflite, source)
    settings = json.loads(embedded_tflite.with_suffix(".xdet.json").read_text("utf-8"))
    settings |= {"anchors": [[w / 20, h / 20] for w, h in settings["anchors"]], "anchor_unit": "image"}
    source.with_suffix(".xdet.json").write_text(json.dumps(settings), "utf-8")
    options = ConvertOptions(source=SourceOptions(anchors=tuple(map(tuple, settings["anchors"])), anchor_unit="cell"))
    model = tmp_path / "model.onnx"
    model.write_bytes(convert_to_bytes(source, options).model)
    result = check(model, source, sample_pictures[:1], runtimes=RUNTIMES)
    assert blamed(result, "static") == [("anchor-unit", None)]
    assert [part.status for part in result.parts] == ["failed", "passed", "skipped", "passed"]


def test_exchanged_default_thresholds_are_named_by_the_static_part(
    embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    options = ConvertOptions(source=SourceOptions(score_threshold=0.3, iou_threshold=0.6))
    sound = convert_to_bytes(embedded_tflite, options).model
    model = tmp_path / "model.onnx"
    model.write_bytes(faults.planted(sound, faults.defaults_exchanged))
    result = check(model, embedded_tflite, sample_pictures[:1], runtimes=RUNTIMES)
    assert blamed(result, "static") == [("thresholds-swapped", None)]


def test_exchanged_threshold_wires_are_named_by_the_head_part(
    check_fault: Callable[[faults.Edit], CheckResult],
) -> None:
    result = check_fault(faults.wires_exchanged)
    assert blamed(result, "head") == [("thresholds-swapped", None)]
    assert blamed(result, "static") == []


class SuppressesAtEquality(OnnxRuntime):
    """A runtime that lets a box fall at IoU >= threshold."""

    def detect(self, images: NDArray[np.uint8], thresholds: Thresholds) -> BatchDetections:
        below = float(np.nextafter(np.float32(thresholds.iou), np.float32(0)))
        return detect_from_head(self.head(images), self.spec, replace(thresholds, iou=below))


def test_a_runtime_that_suppresses_at_equality_is_named(
    person_model: bytes, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(person_model)
    sound = open_onnxruntime(person_model, file="m.onnx", choices=RuntimeChoices(threads=1))
    stand_in = SuppressesAtEquality(sound.session, sound.document)
    stand_in.name = "stand-in:cpu"
    exact = an_overlap_of(stand_in, sample_pictures[0])
    result = check(
        model,
        embedded_tflite,
        sample_pictures[:1],
        runtimes=["litert:xnnpack", stand_in],
        thresholds=Thresholds(0.1, exact),
    )
    assert blamed(result, "head") == [("iou-rule", None)]
    assert {change.cause for change in result.changes} == {"iou-rule"}


def an_overlap_of(runtime: OnnxRuntime, picture: Path) -> float:
    """The IoU of two boxes that are both kept when it is the threshold, and not when it is below."""
    pixels = prepare(picture, Preparation(runtime.spec.image)).pixels[None]
    head = runtime.head(pixels)
    kept = detect_from_head(head, runtime.spec, Thresholds(0.1, 0.6))
    boxes = kept.boxes_xyxy[0, : int(kept.num_detections[0])]
    overlaps = iou_xyxy(boxes[:, None], boxes[None])[np.triu_indices(len(boxes), 1)]
    candidates = sorted((float(x) for x in overlaps if 0.2 < x < 0.6), reverse=True)
    for exact in candidates:
        counts = [
            detect_from_head(head, runtime.spec, Thresholds(0.1, iou)).num_detections[0]
            for iou in (exact, float(np.nextafter(np.float32(exact), np.float32(0))))
        ]
        if counts[0] != counts[1]:
            return exact
    raise AssertionError("no two boxes decide it")


def test_a_model_of_another_source_is_named_and_nothing_else_is(
    person_model: bytes, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    data = bytearray(embedded_tflite.read_bytes())
    data.append(0)  # behind the FlatBuffer: the same network in another file
    source, model = tmp_path / "source.tflite", tmp_path / "model.onnx"
    source.write_bytes(bytes(data))
    model.write_bytes(person_model)
    result = check(model, source, sample_pictures[:1], runtimes=RUNTIMES)
    assert blamed(result, "static") == [("another-source", None)]
    assert [part.status for part in result.parts] == ["failed", "passed", "skipped", "passed"]
