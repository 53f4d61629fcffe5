"""Files that end in TFLite_Detection_PostProcess: the finished model gives LiteRT's detections, in their order."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.errors import ConversionError, OptionError, SourceFileError, UnsupportedModelError
from converters.heads.ssd import Ssd
from converters.options import ConvertOptions
from converters.sources.tflite.reader import read_tflite
from converters.spec import Suppression
from tests.converters.sources.tflite.ssd_networks import (
    BOXES,
    CLASSES,
    SIZE,
    priors_yxhw,
    ssd_network,
    ssd_with_postprocess,
)
from xdet.checking.check import check
from xdet.runtimes.onnxruntime import open_onnxruntime

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

litert: Any = pytest.importorskip("ai_edge_litert.interpreter", reason='needs pip install "xdet[litert]"')
NAMES = tuple("abcd")


def pictures() -> NDArray[np.uint8]:
    """Noise, black, white, and a ramp, on which every score of a row ties."""
    noise = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)
    plain = np.stack([np.full_like(noise[0], value) for value in (0, 255)])
    ramp = np.broadcast_to(np.arange(SIZE, dtype=np.uint8)[:, None, None] * np.uint8(8), noise[:1].shape)
    return np.concatenate([noise, plain, ramp])


def detections_of_litert(
    data: bytes, image: NDArray[np.uint8], several: int = 1
) -> list[tuple[int, float, list[float]]]:
    interpreter = litert.Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
    interpreter.invoke()
    found = [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]
    boxes, classes, scores, count = found
    return [
        (int(classes[0, row]), float(scores[0, row]), np.clip(boxes[0, row][[1, 0, 3, 2]], 0, 1).tolist())
        for row in range(int(count[0]) * several)
    ]


def convert(folder: Path, data: bytes, **options: Any) -> tuple[Path, Any]:
    source = folder / "ssd.tflite"
    source.write_bytes(data)
    return source, convert_to_bytes(
        source, ConvertOptions(source=SourceOptions(class_names=NAMES, resize="bilinear"), **options)
    )


RULES: dict[str, dict[str, Any]] = {
    "fast": {},
    "fast, everything counts": {"nms_score_threshold": 1e-8, "max_detections": 100},
    "fast, nothing counts": {"nms_score_threshold": 1.0},
    "class by class": {"use_regular_nms": True},
    "class by class, two of each": {"use_regular_nms": True, "detections_per_class": 2},
    "class by class, everything counts": {
        "use_regular_nms": True,
        "nms_score_threshold": 1e-8,
        "max_detections": 300,
        "nms_iou_threshold": 0.3,
    },
    "without what has a default": {"use_regular_nms": None, "detections_per_class": None},
}


@pytest.mark.parametrize("columns", [CLASSES, 1 + CLASSES], ids=["no background", "background"])
@pytest.mark.parametrize("rule", RULES)
def test_detections_are_those_of_litert_in_their_order(tmp_path: Path, rule: str, columns: int) -> None:
    data = ssd_with_postprocess(columns=columns, **RULES[rule])
    _, conversion = convert(tmp_path, data, batch="dynamic", freeze_thresholds=True)
    session = onnxruntime.InferenceSession(conversion.model, providers=["CPUExecutionProvider"])
    images = pictures()
    counts, boxes, scores, classes, _ = session.run(None, {"image": images})
    for image, count in enumerate(counts):
        expected = detections_of_litert(data, images[image])
        rows = range(count)
        assert [(int(classes[image, r]), float(scores[image, r])) for r in rows] == [e[:2] for e in expected]
        wanted = np.array([e[2] for e in expected]).reshape(-1, 4)
        np.testing.assert_allclose(boxes[image, :count], wanted, rtol=0, atol=1e-6)  # exp rounds differently


def test_raw_values_in_front_of_the_operator_are_litert_s(tmp_path: Path) -> None:
    data = ssd_with_postprocess()
    _, done = convert(tmp_path, data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of memory
        interpreter = litert.Interpreter(model_content=data, num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    indices = {detail["name"]: detail["index"] for detail in interpreter.get_tensor_details()}
    with open_onnxruntime(done.model, file="ssd.onnx") as runtime:
        for image in pictures():
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
            interpreter.invoke()
            wanted = [interpreter.get_tensor(indices[name]).reshape(-1) for name in ("offsets", "scores")]
            np.testing.assert_array_equal(runtime.head(image[None]).reshape(-1), np.concatenate(wanted))


def test_the_document_holds_what_the_operator_says(tmp_path: Path) -> None:
    _, conversion = convert(tmp_path, ssd_with_postprocess(use_regular_nms=True))
    spec = type(conversion.document).from_json(conversion.document.to_json()).spec
    assert isinstance(spec.head, Ssd)
    assert (spec.head.num_boxes, spec.head.num_classes, spec.head.scales) == (BOXES, 4, (10.0, 10.0, 5.0, 5.0))
    np.testing.assert_array_equal(np.array(spec.head.priors, np.float32), priors_yxhw())
    assert spec.suppression == Suppression(unclipped=True, class_first=True, per_class=100)
    assert (spec.thresholds.iou, spec.thresholds.max_detections) == (0.6, 20)
    assert np.nextafter(np.float32(spec.thresholds.score), np.float32(1)) == np.float32(0.5)  # 0.5 counts there
    assert any("replaced by the head ssd" in note for note in conversion.document.notes)


@pytest.mark.parametrize(
    "options",
    [{}, {"use_regular_nms": True}, {"max_classes_per_detection": 3}],
    ids=["across classes", "class by class", "three classes of each"],
)
def test_check_finds_the_finished_model_to_be_its_source(
    tmp_path: Path, sample_pictures: list[Path], options: dict[str, Any]
) -> None:
    source, conversion = convert(tmp_path, ssd_with_postprocess(**options))
    model = tmp_path / "ssd.onnx"
    model.write_bytes(conversion.model)
    result = check(model, source, sample_pictures, runtimes="onnxruntime:cpu,litert:xnnpack,litert:builtin")
    assert result.findings == ()
    assert [part.status for part in result.parts] == ["passed", "passed", "skipped", "passed"]


MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "no classes": ({"num_classes": None}, "has num_classes nowhere, expected a number"),
    "other classes": ({"num_classes": 7}, r"scores \[1, 240, 5\] of 7 classes"),
    "more classes of a box than there are": (
        {"max_classes_per_detection": 5},
        "has max_classes_per_detection 5, expected 1 to 4",
    ),
    "too many rows of several classes": (
        {"max_classes_per_detection": 2, "max_detections": 2049},
        "has max_detections 2049, expected 1 to 2048",
    ),
    "half a class": ({"num_classes": 4.5}, "has num_classes 4.5, expected 1 to"),
    "too many rows": ({"max_detections": 5000}, "has max_detections 5000, expected 1 to 4096"),
    "a scale of 0": ({"h_scale": 0.0}, "has h_scale 0.0, expected a number above 0"),
    "an infinite scale": ({"x_scale": float("inf")}, "has x_scale inf, expected a number"),
    "a threshold of 2": ({"nms_iou_threshold": 2.0}, "has nms_iou_threshold 2.0, expected 0 to 1"),
    "no rows of a class": ({"use_regular_nms": True, "detections_per_class": 0}, "has detections_per_class 0"),
    "too few priors": ({"priors": priors_yxhw()[:9]}, r"constant float32 \[9, 4\], expected .* \[240, 4\]"),
    "a prior without a size": ({"priors": priors_yxhw() * [1, 1, 1, 0]}, "has priors 'priors': constant float64"),
    "a flat prior": ({"priors": (priors_yxhw() * [1, 1, 1, 0]).astype(np.float32)}, "has prior 0 .* a size above 0"),
}


@pytest.mark.parametrize(("options", "told"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_parameters_are_refused(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    data = ssd_with_postprocess(**options)
    with pytest.raises(SourceFileError, match=told):
        convert(tmp_path, data)


SEVERAL: dict[str, dict[str, Any]] = {
    "two": {"max_classes_per_detection": 2},
    "three, everything counts": {"max_classes_per_detection": 3, "nms_score_threshold": 1e-8, "max_detections": 100},
    "all four, one box": {"max_classes_per_detection": 4, "max_detections": 1},
    "nothing counts": {"max_classes_per_detection": 2, "nms_score_threshold": 1.0},
}


@pytest.mark.parametrize("rule", SEVERAL)
def test_several_classes_of_a_box_are_rows_of_their_own_as_far_as_they_count(tmp_path: Path, rule: str) -> None:
    """LiteRT counts boxes, not rows, and its rows go on with classes below the threshold."""
    data, several = ssd_with_postprocess(**SEVERAL[rule]), SEVERAL[rule]["max_classes_per_detection"]
    _, conversion = convert(tmp_path, data, batch="dynamic", freeze_thresholds=True)
    session = onnxruntime.InferenceSession(conversion.model, providers=["CPUExecutionProvider"])
    images, threshold = pictures(), SEVERAL[rule].get("nms_score_threshold", 0.5)
    counts, boxes, scores, classes, anchors = session.run(None, {"image": images})
    for image, count in enumerate(counts):
        found = detections_of_litert(data, images[image], several)
        wanted = sorted([row for row in found if row[1] >= np.float32(threshold)], key=lambda row: -row[1])
        assert len({*anchors[image, :count]}) == len(found) // several
        np.testing.assert_array_equal(scores[image, :count], [row[1] for row in wanted])
        for row in range(count):  # of equal scores in any order, and of any class of those of a box
            equal = [other for other in wanted if other[1] == scores[image, row]]
            assert any(np.abs(boxes[image, row] - other[2]).max() <= 1e-6 for other in equal)
        by_class = [[int(c) for c in classes[image, :count]].count(c) for c in range(CLASSES)]
        if several == CLASSES:
            assert by_class == [sum(row[0] == c for row in wanted) for c in range(CLASSES)]


def test_several_classes_of_a_box_are_told_and_left_to_one_where_asked(tmp_path: Path) -> None:
    source, conversion = convert(tmp_path, ssd_with_postprocess(max_classes_per_detection=3))
    spec = type(conversion.document).from_json(conversion.document.to_json()).spec
    assert spec.suppression == Suppression(across_classes=True, unclipped=True, classes_per_box=3)
    assert spec.thresholds.max_detections == 60
    assert any(
        "60 rows, suppression across classes, 3 classes of each box" in note for note in conversion.document.notes
    )
    one = convert_to_bytes(source, ConvertOptions(source=SourceOptions(class_names=NAMES, class_agnostic=True)))
    assert one.document.spec.suppression == Suppression(across_classes=True, unclipped=True)
    assert one.document.spec.thresholds.max_detections == 20


def test_names_of_another_number_and_another_head_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "ssd.tflite"
    source.write_bytes(ssd_with_postprocess())
    with pytest.raises(OptionError, match="its output scores 4 classes, 1 are named"):
        convert_to_bytes(source, ConvertOptions(source=SourceOptions(class_names=("a",))))
    with pytest.raises(OptionError, match="yolo_v5: one list of boxes is expected"):
        convert_to_bytes(source, ConvertOptions(source=SourceOptions(head="yolo_v5")))
    with pytest.raises(OptionError, match="tf2onnx does not know its post-processing"):
        convert_to_bytes(source, ConvertOptions(importer="tf2onnx"))


def test_an_operator_that_is_not_the_end_of_the_file_is_refused(tmp_path: Path) -> None:
    ends = ssd_network()
    priors = ends.builder.constant(priors_yxhw())
    shapes = [(1, 20, 4), (1, 20), (1, 20), (1,)]
    found = [ends.builder.tensor(f"found:{i}", shape, "float32") for i, shape in enumerate(shapes)]
    ends.builder.operator("CUSTOM:TFLite_Detection_PostProcess", [ends.offsets, ends.scores, priors], found)
    from flatbuffers import flexbuffers

    ends.builder.subgraph.operators[-1].customOptions = list(flexbuffers.Dumps({"num_classes": 4}))
    data = ends.builder.build([*found, ends.scores])
    assert read_tflite(data, "ssd.tflite").postprocess is None
    source = tmp_path / "ssd.tflite"
    source.write_bytes(data)
    with pytest.raises(UnsupportedModelError, match="it is understood at the end of a file alone"):
        convert_to_bytes(source, ConvertOptions(source=SourceOptions(head="none")))


def test_options_that_are_no_flexbuffer_are_damage() -> None:
    ends = ssd_network()
    found = [ends.builder.tensor("found", (1, 20, 4), "float32")]
    ends.builder.operator("CUSTOM:TFLite_Detection_PostProcess", [ends.offsets, ends.scores, ends.scores], found)
    ends.builder.subgraph.operators[-1].customOptions = [1, 2, 3]
    with pytest.raises(ConversionError, match=r"custom_options: CUSTOM:TFLite_Detection_PostProcess: no map of names"):
        read_tflite(ends.builder.build(found), "ssd.tflite")
