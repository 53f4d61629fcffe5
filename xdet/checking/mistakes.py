"""The usual mistakes of a decoder, tried out: does one explain every box of a run?

The two thresholds swapped, the anchors in the other unit, ``>=`` where ``>`` is meant.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from converters.spec import Anchors
from xdet.checking.box_differences import both_sides, box_differences
from xdet.checking.row_rules import broken_rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from converters.spec import DetectorSpec, Thresholds
    from xdet.checking.result import Cause
    from xdet.checking.runs import Run

SUPPRESSES_AT_EQUALITY = ("openvino:", "onnxruntime:openvino")  # as they are documented to
IOU_RULE: tuple[Cause, str] = (
    "iou-rule",
    "suppresses boxes whose IoU equals the threshold, where only a larger one should",
)


def diagnose_boxes(run: Run, spec: DetectorSpec) -> tuple[Cause, str]:
    """The usual mistake that explains every box of a run; ``rows`` where none does."""
    usual = ((cause, why) for cause, why, explains in MISTAKES if explains(run, spec))
    return next(usual, ("rows", "its boxes do not follow from its own head"))


def _agrees(run: Run, decode: Callable[[Thresholds], tuple[Thresholds, DetectorSpec]]) -> bool:
    """Whether decoding with other numbers gives the run's boxes, in every image and at all thresholds.

    A runtime that is documented to suppress at equality does so beside any other mistake.
    """
    for asked, found in run.boxes:
        used, spec = decode(asked)
        used = _just_below(used) if run.name.startswith(SUPPRESSES_AT_EQUALITY) else used
        for image, (oracle, runtime) in enumerate(both_sides(run, found, spec, used)):
            if box_differences(oracle, runtime, used) or broken_rules(found, image, used, spec):
                return False
    return True


def _swapped(run: Run, spec: DetectorSpec) -> bool:
    def filtered(asked: Thresholds) -> Thresholds:  # rows of a copy with frozen thresholds
        return replace(asked, score=max(asked.iou, asked.score), iou=asked.score)

    fed = _agrees(run, lambda asked: (replace(asked, score=asked.iou, iou=asked.score), spec))
    return fed or _agrees(run, lambda asked: (filtered(asked), spec))


def _other_unit(run: Run, spec: DetectorSpec) -> bool:
    anchors = spec.anchors
    assert anchors is not None  # noqa: S101 - the caller decodes boxes
    width, height = spec.grid_w, spec.grid_h
    factor = (width, height) if anchors.unit == "cell" else (1 / width, 1 / height)
    sizes = tuple((w * factor[0], h * factor[1]) for w, h in anchors.sizes_wh)
    try:
        other = replace(spec, anchors=Anchors(sizes, anchors.unit))
    except ValueError:  # no such fraction of an image
        return False
    return _agrees(run, lambda asked: (asked, other))


def _at_equality(run: Run, spec: DetectorSpec) -> bool:
    return _agrees(run, lambda asked: (_just_below(asked), spec))


def _just_below(asked: Thresholds) -> Thresholds:
    """Thresholds at which IoU > is what IoU >= is at these."""
    return replace(asked, iou=float(np.nextafter(np.float32(asked.iou), np.float32(0))))


MISTAKES: tuple[tuple[Cause, str, Callable[[Run, DetectorSpec], bool]], ...] = (
    ("thresholds-swapped", "score and IoU threshold are swapped in its head", _swapped),
    ("anchor-unit", "its head takes the anchors in another unit than the document says", _other_unit),
    (*IOU_RULE, _at_equality),
)
