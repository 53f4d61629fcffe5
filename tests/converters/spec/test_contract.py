"""The contract's table of inputs and outputs, which writers, verifiers and runtimes share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from converters.spec import Anchors, DetectorSpec, ImageInput, Rescaling, Thresholds, contract_io, raw_head

SPEC = DetectorSpec(
    ImageInput(96, 160, Rescaling(1.0, 0.0)),
    "yolo_v2",
    3,
    5,
    14,
    ("a", "b"),
    Anchors(((1.0, 2.0), (3.0, 4.0)), "cell"),
    Thresholds(max_detections=50),
)


@pytest.mark.parametrize("batch", [1, 4, "N"])
def test_a_detector_takes_an_image_and_thresholds_and_gives_boxes(batch: int | str) -> None:
    inputs, outputs = contract_io(SPEC, batch, freeze_thresholds=False)
    assert [(t.name, t.dtype, t.shape, t.optional) for t in inputs] == [
        ("image", "uint8", (batch, 96, 160, 3), False),
        ("score_threshold", "float32", (), True),
        ("iou_threshold", "float32", (), True),
    ]
    assert [(t.name, t.dtype, t.shape) for t in outputs] == [
        ("num_detections", "int32", (batch,)),
        ("detection_boxes", "float32", (batch, 50, 4)),
        ("detection_scores", "float32", (batch, 50)),
        ("detection_classes", "int32", (batch, 50)),
        ("detection_anchors", "int32", (batch, 50)),
    ]


def test_frozen_thresholds_are_no_inputs() -> None:
    inputs, _ = contract_io(SPEC, 1, freeze_thresholds=True)
    assert [tensor.name for tensor in inputs] == ["image"]


def test_a_raw_model_gives_the_value_that_every_model_holds() -> None:
    inputs, outputs = contract_io(replace(SPEC, head="none"), 2, freeze_thresholds=False)
    assert [tensor.name for tensor in inputs] == ["image"]
    assert outputs == (raw_head(SPEC, 2),)
    assert (outputs[0].name, outputs[0].dtype, outputs[0].shape) == ("head", "float32", (2, 3, 5, 14))
