"""Every head in front of the tail that all share: the rows are exactly those that numpy makes of the decoded values."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converters.graph import IR_VERSION, GraphWriter, infer_shapes
from converters.heads import HEADS
from converters.heads.base import BatchDetections
from converters.heads.blazeface import BlazeFace
from converters.heads.nms import detect_decoded
from converters.heads.nms_nodes import add_head
from converters.opset import stamp_opset
from converters.spec import DetectorSpec, ImageInput, Rescaling, Suppression, Thresholds, contract_io
from tests.converters.heads.decoding import RAW_OUTPUTS, feeds_of, session
from tests.converters.heads.test_heads import EXAMPLES, every_head
from tests.slow import mostly_slow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.heads.base import Head

OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes", "detection_anchors")


RULES = {
    "class by class": Suppression(),
    "across classes": Suppression(across_classes=True),
    "class first, two of each": Suppression(class_first=True, per_class=2),
    "two classes of each": Suppression(across_classes=True, classes_per_box=2),
    "all classes of each": Suppression(across_classes=True, unclipped=True, classes_per_box=9),
}


def rule_of(head: Head, name: str) -> Suppression:
    """The rule, with as many classes as the head has."""
    rule = RULES[name]
    return replace(rule, classes_per_box=min(rule.classes_per_box, head.num_classes))


@functools.cache
def detector(head: Head, score: float, rule: Suppression = RULES["class by class"]) -> bytes:
    """A model of a head and its tail, whose decoded boxes and scores are outputs, too."""
    writer = GraphWriter("detector")
    values = [
        writer.input(f"raw_{index}", ir.DataType.FLOAT, ["N", *raw.shape])
        for index, raw in enumerate(head.raw_outputs())
    ]
    spec = DetectorSpec(
        image=ImageInput(64, 64, Rescaling(1.0, 0.0)),
        head=head,
        class_names=tuple(f"class {index}" for index in range(head.num_classes)),
        thresholds=Thresholds(score, 0.4567, 50),
        suppression=rule,
    )
    promised = contract_io(spec, "N", freeze_thresholds=True)[1]
    decoded = head.decode_nodes(writer, values)
    add_head(writer, values, spec, promised, freeze_thresholds=True)
    writer.graph.outputs.extend(decoded)
    for value, size in zip(decoded, (4, head.num_classes), strict=True):
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["N", head.num_boxes, size])
    model = ir.Model(writer.graph, ir_version=IR_VERSION)
    infer_shapes(model)
    stamp_opset(model, None)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString(deterministic=True))


@pytest.mark.parametrize("raw", mostly_slow(["normal numbers", "a lattice", "probabilities", "zeros", "ones"], fast=2))
@pytest.mark.parametrize("score", [pytest.param(0.3, id="at 0.3"), pytest.param(0.0, id="all above 0")])
@pytest.mark.parametrize("rule", RULES)
@every_head
def test_rows_are_exactly_those_of_numpy_on_the_decoded_values(head: Head, rule: str, raw: str, score: float) -> None:
    outputs, by = RAW_OUTPUTS[raw](head, 3), rule_of(head, rule)
    results: list[NDArray[Any]] = session(detector(head, score, by)).run(None, feeds_of(outputs))
    actual, (boxes, scores) = BatchDetections(*results[: len(OUTPUTS)]), results[-2:]
    expected = detect_decoded(boxes, scores, Thresholds(score, 0.4567, 50), by)
    for name in ("num_detections", "anchors", "classes", "scores", "boxes_xyxy"):
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name), err_msg=name)
    if isinstance(head, BlazeFace) and head.num_keypoints:
        assert_keypoints(head, outputs, actual, results[len(OUTPUTS)])


def assert_keypoints(
    head: BlazeFace, outputs: list[NDArray[np.float32]], rows: BatchDetections, found: NDArray[np.float32]
) -> None:
    """Every row has the points of its box, as numpy decodes them; rows of nothing have zeros."""
    points = head.decode_keypoints(outputs).reshape(3, head.num_boxes, head.num_keypoints, 2)
    assert found.shape == (*rows.scores.shape, head.num_keypoints, 2)
    for image, row in np.ndindex(*rows.scores.shape):
        box = rows.anchors[image, row]
        np.testing.assert_array_equal(found[image, row], points[image, box] if box >= 0 else 0)


def test_every_kind_of_head_is_an_example() -> None:
    assert {head.kind: type(head) for head in EXAMPLES.values()} == HEADS
