"""The contract's table of inputs and outputs, which writers, verifiers and runtimes share."""

from __future__ import annotations

import pytest

from converters.heads.yolo_v2 import YoloV2
from converters.spec import (
    Anchors,
    DetectorSpec,
    ImageInput,
    RawOutput,
    Rescaling,
    Thresholds,
    contract_io,
    raw_outputs,
)

SPEC = DetectorSpec(
    ImageInput(96, 160, Rescaling(1.0, 0.0)),
    YoloV2(3, 5, Anchors(((1.0, 2.0), (3.0, 4.0)), "cell"), 2),
    ("a", "b"),
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
    inputs, outputs = contract_io(SPEC.ending_raw(), 2, freeze_thresholds=False)
    assert [tensor.name for tensor in inputs] == ["image"]
    assert outputs == raw_outputs(SPEC, 2)
    assert (outputs[0].name, outputs[0].dtype, outputs[0].shape) == ("head", "float32", (2, 3, 5, 14))


def test_several_raw_outputs_have_a_name_each() -> None:
    raw = (RawOutput("boxes", (45, 4)), RawOutput("scores", (45,)))
    spec = DetectorSpec(ImageInput(96, 160, Rescaling(1.0, 0.0)), None, raw_outputs=raw)
    assert [(t.name, t.shape) for t in contract_io(spec, "N", freeze_thresholds=False)[1]] == [
        ("head_boxes", ("N", 45, 4)),
        ("head_scores", ("N", 45)),
    ]
