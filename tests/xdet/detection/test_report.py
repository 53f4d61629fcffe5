"""Detections as JSON: the xdet schema and COCO results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.spec import Thresholds
from xdet.detection.report import DetectionReport, FailedImage, coco_image_ids, detections_to_coco_json, report_to_json
from xdet.detections import Detections, shortest_float32
from xdet.errors import DataError
from xdet.model.file import ModelFile, hash_model
from xdet.writing.text import image_names


def found(image: str, scores: list[float], box: tuple[float, float, float, float] = (0.1, 0.2, 0.5, 1.0)) -> Detections:
    count = len(scores)
    return Detections(
        image=image,
        width=640,
        height=480,
        boxes_xyxy=np.array([box] * count, np.float32).reshape(count, 4),
        scores=np.array(scores, np.float32),
        classes=np.ones(count, np.int32),
        anchors=np.arange(count, dtype=np.int32) + 7,
        class_names=("cat", "person"),
    )


def report(*images: Detections, failed: tuple[FailedImage, ...] = ()) -> DetectionReport:
    return DetectionReport(ModelFile(Path("m.onnx"), b"", "onnx"), Thresholds(), images, failed)


def test_a_report_names_its_model() -> None:
    assert (report().model_name, report().model_sha256) == ("m.onnx", hash_model(b""))


def test_the_document_reads_to_the_letter() -> None:
    failed = FailedImage("photos/bad.jpg", "'photos/bad.jpg' is empty (0 bytes)")
    box = '"box_xyxy_px": [64.0, 96.0, 320.0, 480.0]'
    person = '"class_id": 1, "class_name": "person"'
    assert report_to_json(report(found("photos/a.png", [0.93, 0.5]), found("b.png", []), failed=(failed,))) == (
        "{\n"
        '  "schema": "xdet.detections",\n'
        '  "version": 1,\n'
        f'  "model": {{"name": "m.onnx", "sha256": "{hash_model(b"")}"}},\n'
        '  "thresholds": {"score": 0.5, "iou": 0.5, "max_detections": 100},\n'
        '  "images": [\n'
        "    {\n"
        '      "image": "a.png",\n'
        '      "width": 640,\n'
        '      "height": 480,\n'
        '      "detections": [\n'
        f'        {{{box}, "score": 0.93, {person}, "anchor": 7}},\n'
        f'        {{{box}, "score": 0.5, {person}, "anchor": 8}}\n'
        "      ]\n"
        "    },\n"
        '    {"image": "b.png", "width": 640, "height": 480, "detections": []}\n'
        "  ],\n"
        '  "failed": [\n'
        '    {"image": "bad.jpg", "error": "\'bad.jpg\' is empty (0 bytes)"}\n'
        "  ]\n"
        "}\n"
    )


def test_folders_do_not_change_the_bytes() -> None:
    assert report_to_json(report(found("/home/me/a.png", [0.9]))) == report_to_json(report(found("a.png", [0.9])))


def test_an_empty_run_is_a_valid_document() -> None:
    document = json.loads(report_to_json(report()))
    assert document["images"] == document["failed"] == []
    assert detections_to_coco_json([]) == "[]\n"


@given(bits=st.integers(0, 0x3F800000))
def test_a_score_reads_back_to_the_bit(bits: int) -> None:
    score = np.uint32(bits).view(np.float32)
    text = json.loads(report_to_json(report(found("a.png", [float(score)]))))
    assert np.float32(text["images"][0]["detections"][0]["score"]).view(np.uint32) == bits


def test_neighbouring_scores_print_differently_and_shortly() -> None:
    score = np.float32(0.93)
    assert shortest_float32(float(score)) == 0.93
    assert shortest_float32(float(np.nextafter(score, np.float32(1)))) == 0.93000007


def test_boxes_are_rounded_to_a_hundredth_of_a_pixel_and_never_minus_zero() -> None:
    document = json.loads(report_to_json(report(found("a.png", [0.9], (-1e-7, 0.0100001, 1 / 3, 1.0)))))
    box = document["images"][0]["detections"][0]["box_xyxy_px"]
    assert json.dumps(box) == "[0.0, 4.8, 213.33, 480.0]"


def test_coco_results_read_to_the_letter() -> None:
    images = [found("val/000000000139.jpg", [0.93]), found("empty.jpg", []), found("photo.jpg", [0.5])]
    assert detections_to_coco_json(images) == (
        "[\n"
        '  {"image_id": 139, "category_id": 2, "bbox": [64.0, 96.0, 256.0, 384.0], "score": 0.93},\n'
        '  {"image_id": "photo.jpg", "category_id": 2, "bbox": [64.0, 96.0, 256.0, 384.0], "score": 0.5}\n'
        "]\n"
    )


def test_two_images_with_one_coco_id_are_refused() -> None:
    with pytest.raises(DataError, match=r"'1\.jpg' and 'b/001\.png' share the COCO image id 1"):
        coco_image_ids(["1.jpg", "b/001.png"])


def test_only_ascii_digits_make_an_integer_id() -> None:
    assert coco_image_ids(["\u0663.jpg", "\u00b2.jpg", "-1.jpg", "1_0.jpg"]) == [
        "\u0663.jpg",
        "\u00b2.jpg",
        "-1.jpg",
        "1_0.jpg",
    ]


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (["x/a.png", "x/b.png"], ["a.png", "b.png"]),
        (["x/a.png", "y/a.png", "y/b.png"], ["x/a.png", "y/a.png", "b.png"]),
        (["x/z/a.png", "y/z/a.png"], ["x/z/a.png", "y/z/a.png"]),
        (["a.png", "y/a.png"], ["a.png", "y/a.png"]),
        (["x/a.png", "x/a.png"], ["a.png", "a.png"]),
        ([""], ["."]),
    ],
    ids=["different", "one folder up", "two folders up", "one without folder", "the same twice", "no name"],
)
def test_equal_names_keep_the_folders_that_tell_them_apart(images: list[str], names: list[str]) -> None:
    assert image_names(images) == names


def test_names_outside_ascii_are_written_as_they_are() -> None:
    assert '"image": "caf\u00e9 \u732b.png"' in report_to_json(report(found("caf\u00e9 \u732b.png", [])))


def test_a_score_that_is_no_number_is_never_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        report_to_json(report(found("a.png", [float("nan")])))


def test_the_documents_in_docs_have_the_keys_that_are_written() -> None:
    text = (Path(__file__).parents[3] / "docs" / "json.md").read_text(encoding="utf-8")
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    (xdet_example,) = [block for block in blocks if isinstance(block, dict) and "failed" in block]
    (coco_example,) = [block for block in blocks if isinstance(block, list)]
    failed = (FailedImage("b.png", "b.png is empty"),)
    assert keys(json.loads(report_to_json(report(found("a.png", [0.9]), failed=failed)))) == keys(xdet_example)
    assert keys(json.loads(detections_to_coco_json([found("1.png", [0.9])]))) == keys(coco_example)


def keys(value: object) -> object:
    """The shape of a JSON value: its keys, in order, without its plain values."""
    if isinstance(value, dict):
        return [(key, keys(member)) for key, member in value.items()]
    return [keys(member) for member in value if isinstance(member, dict)] if isinstance(value, list) else None
