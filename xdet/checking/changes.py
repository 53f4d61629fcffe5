"""Detections that a runtime does not share with the source, each with its cause.

The source's boxes are those of the numpy oracle for LiteRT XNNPACK's head; boxes are matched by their index in the head,
never by overlap. Rounding is a cause only as far as rounding goes: where the head of a deciding box is further from the
source's than the runtime may be at all, the cause is a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xdet.checking.causes import Key, Side, Why, explain, sides_of
from xdet.checking.result import DetectionChange
from xdet.checking.spread import steps_between
from xdet.decode import detect_from_head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.spec import DetectorSpec, Thresholds
    from xdet.checking.result import ChangeCause
    from xdet.checking.runs import Run

MOVED_PX = 1.0  # of the network's picture


@dataclass(frozen=True, eq=False)
class Comparison:
    """What the changes of one run are judged by.

    Attributes:
        spec: the detector.
        thresholds: at which boxes are compared.
        unit: step of the head (LSB), or the head's largest magnitude.
        allowed: how many units the run's head may be from the source's; 0 for an exact pair.
        images: names of the photographs.
    """

    spec: DetectorSpec
    thresholds: Thresholds
    unit: float
    allowed: float
    images: Sequence[str]


def find_changes(source: Run, run: Run, how: Comparison) -> list[DetectionChange]:
    """Every detection of ``run`` that is lost, new or moved against ``source``."""
    found = next((boxes for asked, boxes in run.boxes if asked == how.thresholds), None)
    if found is None:
        return []
    count = len(run.heads)
    expected = detect_from_head(source.heads[:count], how.spec, how.thresholds)
    sides = sides_of(source.heads[:count], expected, how.spec), sides_of(run.heads, found, how.spec)
    return [
        change
        for image, (origin, runtime) in enumerate(zip(*sides, strict=True))
        for change in _image_changes(origin, runtime, how, how.images[image], run.name)
    ]


def _image_changes(
    origin: Side, runtime: Side, how: Comparison, image: str, name: str
) -> list[DetectionChange]:
    changes = []
    for key in sorted(origin.kept.keys() | runtime.kept.keys()):
        if key not in runtime.kept:
            kind, why = "lost", explain(origin, runtime, key, how.thresholds)
        elif key not in origin.kept:
            kind, why = "new", explain(runtime, origin, key, how.thresholds)
        else:
            moved = _moved_px(origin, runtime, key, how)
            if moved <= MOVED_PX:
                continue
            kind, why = "moved", _why_moved(origin, runtime, key, moved)
        changes.append(
            DetectionChange(
                image=image,
                runtime=name,
                kind=kind,  # type: ignore[arg-type]  # one of the three above
                anchor=key[0],
                class_id=key[1],
                source_score=float(origin.scores[key]),
                runtime_score=float(runtime.scores[key]),
                source_box_xyxy=_corners(origin, key),
                runtime_box_xyxy=_corners(runtime, key),
                cause=_cause(origin, runtime, why, how),
                message=why.message,
            )
        )
    return changes


def _corners(side: Side, key: Key) -> tuple[float, float, float, float]:
    """The box as the runtime gave it, where it keeps it; else as its head says."""
    box = side.kept[key][0] if key in side.kept else side.boxes[key[0]]
    x1, y1, x2, y2 = (float(value) for value in box)
    return x1, y1, x2, y2


def _moved_px(origin: Side, runtime: Side, key: Key, how: Comparison) -> float:
    size = np.array([how.spec.image.width, how.spec.image.height] * 2, np.float64)
    return float((np.abs(origin.kept[key][0].astype(np.float64) - runtime.kept[key][0]) * size).max())


def _why_moved(origin: Side, runtime: Side, key: Key, moved: float) -> Why:
    same = np.array_equal(origin.head[key[0]], runtime.head[key[0]])
    told = f"a corner is {moved:.1f} px of the network's picture away"
    if same:
        return Why("head", (key,), float("inf"), f"{told} although the head's values are equal")
    return Why("rounding", (key,), moved, told)


def _cause(origin: Side, runtime: Side, why: Why, how: Comparison) -> ChangeCause:
    """The reason, unless a deciding box's head is further off than rounding goes."""
    boxes = [key[0] for key in why.keys]
    furthest = float(steps_between(origin.head[boxes], runtime.head[boxes], how.unit).max(initial=0))
    return "layer" if furthest > how.allowed else why.cause
