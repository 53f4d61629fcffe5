"""Rules that rows must keep by themselves: one test per rule that is broken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from converters.heads.base import BatchDetections
from converters.heads.yolo_v2 import YoloV2
from converters.spec import Anchors, DetectorSpec, ImageInput, Rescaling, Suppression, Thresholds
from xdet.checking.heads import broken_rules

AT = Thresholds(0.5, 0.5, 4)
SPEC = DetectorSpec(
    image=ImageInput(96, 96, Rescaling(1 / 255, 0.0)),
    head=YoloV2(3, 3, Anchors(((1.0, 2.0),), "cell"), 2),
    class_names=("person", "car"),
    thresholds=AT,
)
SOUND = BatchDetections(
    num_detections=np.array([3], np.int32),
    boxes_xyxy=np.array([[[0, 0, 1, 1], [0, 0, 0.5, 1], [0, 0, 0.25, 1], [0, 0, 0, 0]]], np.float32),
    scores=np.array([[0.9, 0.7, 0.7, 0]], np.float32),
    classes=np.array([[0, 1, 0, -1]], np.int32),
    anchors=np.array([[7, 2, 4, -1]], np.int32),
)


def test_sound_rows_break_no_rule() -> None:
    assert list(broken_rules(SOUND, 0, AT, SPEC)) == []


def test_rows_of_equal_score_are_in_the_order_of_the_rule() -> None:
    by_class = replace(SPEC, suppression=Suppression(class_first=True))
    assert list(broken_rules(SOUND, 0, AT, by_class)) == ["box 2 stands before box 4 at the same score, 0.7"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"scores": [[0.9, 0.7, 0.5, 0]]}, "box 4 is kept at score 0.5, which is not above the threshold"),
        ({"scores": [[0.9, 0.7, np.nan, 0]]}, "box 4 is kept at score nan, which is not above the threshold"),
        ({"scores": [[0.7, 0.8, 0.6, 0]]}, "the rows are not sorted by score"),
        ({"anchors": [[7, 4, 2, -1]]}, "box 4 stands before box 2 at the same score, 0.7"),
        ({"anchors": [[7, 2, 2, -1]]}, "box 2 stands before box 2 at the same score, 0.7"),
        ({"anchors": [[7, 7, 2, -1]], "classes": [[0, 0, 0, -1]], "scores": [[9, 8, 7, 0]]}, "a box is in two rows"),
        ({"scores": [[0.9, 0.7, 0.7, 0.1]]}, "the rows behind the first 3 are not padding"),
        ({"anchors": [[7, 2, 4, 0]]}, "the rows behind the first 3 are not padding"),
        ({"anchors": [[9, 2, 4, -1]]}, "box 9 of class 0 is none of the head's"),
        ({"anchors": [[-1, 2, 4, -1]]}, "box -1 of class 0 is none of the head's"),
        ({"classes": [[2, 1, 0, -1]]}, "box 7 of class 2 is none of the head's"),
        ({"num_detections": [5]}, "5 rows are counted, there are 4"),
        ({"num_detections": [-1]}, "-1 rows are counted, there are 4"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_told(changed: dict[str, Any], told: str) -> None:
    arrays = {name: np.array(value, getattr(SOUND, name).dtype) for name, value in changed.items()}
    assert list(broken_rules(replace(SOUND, **arrays), 0, AT, SPEC)) == [told]
