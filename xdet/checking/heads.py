"""Part (d), head: the boxes that each run gave are those of the numpy oracle for that run's own head.

Excused, and counted nowhere: what float32 cannot decide, since ``exp`` is correctly rounded nowhere (``xdet.decode``): a score
or an overlap within ``ROOM`` of its threshold, two scores within it of each other. Excused with a note: rules that a runtime is
documented to have (OpenVINO suppresses at IoU equal to the threshold). Everything else is a fault, and the usual ones are tried
out: the two thresholds swapped, the anchors in the other unit, ``>=`` where ``>`` is meant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from converters.spec import Anchors, Thresholds
from xdet.checking.causes import Side, explain, sides_of
from xdet.checking.result import Cause, Finding, PartVerdict
from xdet.decode import detect_from_head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from converters.spec import DetectorSpec
    from xdet.checking.runs import Run
    from xdet.detections import BatchDetections

ROOM = 2e-6  # float32: exp differs by a few units in the last place, and boxes add two such numbers
SUPPRESSES_AT_EQUALITY = ("openvino:", "onnxruntime:openvino")
RULE_NOTE = "suppresses at IoU equal to the threshold (docs/contract.md)"
AT_EQUALITY = "suppresses boxes whose IoU equals the threshold, where only a larger one should"


@dataclass(frozen=True, slots=True)
class HeadVerdict:
    """How one run's boxes compare with the oracle.

    Attributes:
        images: photographs, times pairs of thresholds, that were compared.
        faults: the first fault of each kind, in words with its cause.
        notes: documented rules that showed.
    """

    images: int
    faults: tuple[tuple[Cause, str], ...]
    notes: tuple[str, ...]


def judge_run(run: Run, spec: DetectorSpec) -> HeadVerdict:
    """Compare a run's boxes with the oracle, at every pair of thresholds."""
    faults: list[str] = []
    notes: set[str] = set()
    rules: list[str] = []
    for thresholds, found in run.boxes:
        expected = detect_from_head(run.heads, spec, thresholds)
        sides = sides_of(run.heads, expected, spec), sides_of(run.heads, found, spec)
        for image, (oracle, runtime) in enumerate(zip(*sides, strict=True)):
            for message, is_rule in _differences(oracle, runtime, thresholds):
                where = (
                    f"image {image + 1}, score > {thresholds.score:g}, IoU > {thresholds.iou:g}: {message}"
                )
                (rules if is_rule else faults).append(where)
    if rules and run.name.startswith(SUPPRESSES_AT_EQUALITY):
        notes.add(RULE_NOTE)
        rules = []
    told: list[tuple[Cause, str]] = []
    if faults:
        cause, why = _diagnose(run, spec) or ("rows", "its boxes do not follow from its own head")
        told.append((cause, f"{why}; {len(faults)} differences, first: {faults[0]}"))
    elif rules:
        told.append(("iou-rule", f"{AT_EQUALITY}; {len(rules)} boxes, first: {rules[0]}"))
    return HeadVerdict(len(run.heads) * len(run.boxes), tuple(told), tuple(sorted(notes)))


def judge_heads(verdicts: Sequence[tuple[str, HeadVerdict]], reason: str | None) -> PartVerdict:
    """The part's verdict over all runs; ``reason`` says why there is nothing to compare."""
    if reason is not None or not verdicts:
        return PartVerdict("head", "skipped", reason or "no runtime of the finished model ran")
    findings = tuple(
        Finding("head", cause, f"{name}: {message}", runtime=name)
        for name, verdict in verdicts
        for cause, message in verdict.faults
    )
    images = sum(verdict.images for _, verdict in verdicts)
    told = f"{images} sets of boxes of {len(verdicts)} runtimes compared with the numpy oracle for their own heads"
    return PartVerdict("head", "failed" if findings else "passed", told, findings)


def _differences(oracle: Side, runtime: Side, thresholds: Thresholds) -> list[tuple[str, bool]]:
    """What float32 rounding does not excuse in one image: (message, whether it is the rule at equality)."""
    found: list[tuple[str, bool]] = []
    for key in oracle.kept.keys() - runtime.kept.keys():
        found += _unexcused(oracle, runtime, key, thresholds, f"box {key[0]} is missing")
    for key in runtime.kept.keys() - oracle.kept.keys():
        found += _unexcused(runtime, oracle, key, thresholds, f"box {key[0]} should not be there")
    for key in oracle.kept.keys() & runtime.kept.keys():
        (box, score), (other_box, other_score) = oracle.kept[key], runtime.kept[key]
        off = max(float(np.abs(box - other_box).max()), float(abs(score - other_score)))
        if not off <= ROOM:
            found.append(
                (f"box {key[0]} is {_told(other_box, other_score)}, expected {_told(box, score)}", False)
            )
    scores = [float(score) for _, score in runtime.kept.values()]
    if any(later - earlier > ROOM for earlier, later in pairwise(scores)):
        found.append(("the rows are not sorted by score", False))
    return sorted(found)


def _unexcused(
    present: Side, absent: Side, key: tuple[int, int], thresholds: Thresholds, what: str
) -> list[tuple[str, bool]]:
    why = explain(present, absent, key, thresholds)
    at_equality = "iou-rule" in (why.cause, why.root)
    if at_equality:
        return [(f"{what}: {why.message}", True)]
    return [] if why.margin <= ROOM else [(f"{what}: {why.message}", False)]


def _told(box: np.ndarray[tuple[int], np.dtype[np.float32]], score: np.float32) -> str:
    return f"{[round(float(x), 5) for x in box]} at {float(score):.5f}"


def _diagnose(run: Run, spec: DetectorSpec) -> tuple[Cause, str] | None:
    """The usual mistake that explains every box of a run, if one does."""
    return next(((cause, why) for cause, why, explains in MISTAKES if explains(run, spec)), None)


def _agrees(
    run: Run, decode: Callable[[Thresholds], tuple[BatchDetections, Thresholds, DetectorSpec]]
) -> bool:
    """Whether another decoding gives the run's boxes, in every image and at all thresholds."""
    for thresholds, found in run.boxes:
        expected, used, spec = decode(thresholds)
        sides = sides_of(run.heads, expected, spec), sides_of(run.heads, found, spec)
        if any(_differences(a, b, used) for a, b in zip(*sides, strict=True)):
            return False
    return True


def _swapped(run: Run, spec: DetectorSpec) -> bool:
    def decode(asked: Thresholds) -> tuple[BatchDetections, Thresholds, DetectorSpec]:
        used = Thresholds(asked.iou, asked.score, asked.max_detections)
        return detect_from_head(run.heads, spec, used), used, spec

    return _agrees(run, decode)


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
    return _agrees(run, lambda asked: (detect_from_head(run.heads, other, asked), asked, other))


def _at_equality(run: Run, spec: DetectorSpec) -> bool:
    def decode(asked: Thresholds) -> tuple[BatchDetections, Thresholds, DetectorSpec]:
        below = float(np.nextafter(np.float32(asked.iou), np.float32(0)))
        used = replace(asked, iou=below)
        return detect_from_head(run.heads, spec, used), used, spec

    return _agrees(run, decode)


MISTAKES: tuple[tuple[Cause, str, Callable[[Run, DetectorSpec], bool]], ...] = (
    ("thresholds-swapped", "score and IoU threshold are swapped in its head", _swapped),
    ("anchor-unit", "its head takes the anchors in another unit than the document says", _other_unit),
    ("iou-rule", AT_EQUALITY, _at_equality),
)
