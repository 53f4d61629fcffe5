"""Heads of detectors, for tests that know which head they look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.heads.yolo_v2 import Anchors, YoloV2

if TYPE_CHECKING:
    from converters.spec import DetectorSpec


def yolo_v2(spec: DetectorSpec) -> YoloV2:
    assert isinstance(spec.head, YoloV2)
    return spec.head


def anchors_of(spec: DetectorSpec) -> Anchors:
    return yolo_v2(spec).anchors
