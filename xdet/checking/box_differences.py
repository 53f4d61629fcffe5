"""One run's boxes against the oracle's, image by image: which differ, and why.

Not told: what float32 cannot decide, since ``exp`` is correctly rounded nowhere (``xdet.decode``): a score or an overlap within
``ROOM`` of its threshold, two scores within it of each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xdet.boxes import iou_xyxy
from xdet.checking.causes import Key, Side, explain, kept_boxes, sides_of
from xdet.decode import detect_from_head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converters.spec import DetectorSpec, Thresholds
    from xdet.checking.runs import Run
    from xdet.detections import BatchDetections

ROOM = 2e-6  # float32: exp differs by a few units in the last place, and boxes add two such numbers
Pair = tuple[Key, Key] | None


def both_sides(
    run: Run, found: BatchDetections, spec: DetectorSpec, thresholds: Thresholds
) -> Iterator[tuple[Side, Side]]:
    """The oracle's side and the run's, image by image."""
    expected = detect_from_head(run.heads, spec, thresholds)
    return zip(sides_of(run.heads, expected, spec), sides_of(run.heads, found, spec), strict=True)


def box_differences(oracle: Side, runtime: Side, thresholds: Thresholds) -> list[tuple[str, Pair]]:
    """What float32 rounding does not excuse in one image: (message, the two boxes if it is the rule at equality)."""
    found: list[tuple[str, Pair]] = []
    for key in sorted(oracle.kept.keys() - runtime.kept.keys()):
        found += _unexcused(oracle, runtime, key, thresholds, f"box {key[0]} is missing")
    for key in sorted(runtime.kept.keys() - oracle.kept.keys()):
        found += _unexcused(runtime, oracle, key, thresholds, f"box {key[0]} should not be there")
    for key in sorted(oracle.kept.keys() & runtime.kept.keys()):
        (box, score), (other_box, other_score) = oracle.kept[key], runtime.kept[key]
        off = max(float(np.abs(box - other_box).max()), float(abs(score - other_score)))
        if not off <= ROOM:
            found.append(
                (f"box {key[0]} is {_told(other_box, other_score)}, expected {_told(box, score)}", None)
            )
    return found


def overlaps_otherwise(run: Run, image: int, pair: tuple[Key, Key], thresholds: Thresholds) -> bool:
    """Whether the runtime's own boxes, seen where it keeps both, overlap by another number than the threshold."""
    for _, found in run.boxes:
        kept = kept_boxes(found, image)
        if pair[0] in kept and pair[1] in kept:
            overlap = np.float32(iou_xyxy(kept[pair[0]][0], kept[pair[1]][0]))
            return bool(overlap != np.float32(thresholds.iou))
    return False


def _unexcused(
    present: Side, absent: Side, key: Key, thresholds: Thresholds, what: str
) -> list[tuple[str, Pair]]:
    why = explain(present, absent, key, thresholds)
    message = f"{what}: {why.message}"
    if "iou-rule" in (why.cause, why.root):
        return [(message, (why.keys[-2], why.keys[-1]))]
    return [] if why.margin <= ROOM else [(message, None)]


def _told(box: np.ndarray[tuple[int], np.dtype[np.float32]], score: np.float32) -> str:
    return f"{[round(float(x), 5) for x in box]} at {float(score):.5f}"
