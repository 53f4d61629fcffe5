"""Every way in which a box can be on one side only is told by its own name, with the numbers that decide it.

Rules that rows must keep by themselves: one test per rule that is broken.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from converters.heads.base import BatchDetections
from converters.heads.nms import MAX_CANDIDATES, decode_head, detect_decoded, detect_from_head, select_best
from converters.heads.yolo_v2 import YoloV2
from converters.spec import Anchors, DetectorSpec, ImageInput, Rescaling, Suppression, Thresholds
from xdet.checking.heads import broken_rules, judge_run
from xdet.checking.heads.why import BoxComparison, Side, explain, find_changes, kept_boxes, sides_of
from xdet.checking.runs import Run

THRESHOLDS = Thresholds(score=0.5, iou=0.5, max_detections=4)
SPEC = DetectorSpec(
    image=ImageInput(64, 64, Rescaling(1 / 255, 0.0)),
    head=YoloV2(2, 2, Anchors(((1.0, 1.0),), "cell"), 1),
    class_names=("person",),
    thresholds=THRESHOLDS,
)
STEP = 0.125  # of the heads below


def head_of(
    *objectness: float, widths: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """A raw head ``(1, 2, 2, 6)``: one box per cell, as large as its cell times exp(width)."""
    head = np.zeros((1, 2, 2, 6), np.float32)
    head[..., 2:4] = np.array(widths, np.float32).reshape(1, 2, 2, 1)
    head[..., 4] = np.array(objectness, np.float32).reshape(1, 2, 2)
    return head


def side_of(scores: tuple[float, ...], boxes: list[list[float]], thresholds: Thresholds = THRESHOLDS) -> Side:
    """A side with these scores and boxes, suppressed by the numpy oracle."""
    from converters.heads.nms import limit_candidates, suppress

    values, corners = np.array(scores, np.float32).reshape(-1, 1), np.array(boxes, np.float32)
    candidates = limit_candidates(values, score_threshold=thresholds.score)
    kept = suppress(corners, candidates, 1, thresholds, Suppression())
    head = np.zeros((len(scores), 6), np.float32)
    return Side(head, corners, values, {(int(i), 0): (corners[i], values[i, 0]) for i in kept})


NEAR = [[0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.5, 0.9]]  # IoU 0.9
FAR = [[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]]  # IoU 0


def test_a_score_that_crosses_the_threshold_is_told_with_its_margin() -> None:
    why = explain(side_of((0.9, 0.6), FAR), side_of((0.9, 0.4999), FAR), (1, 0), THRESHOLDS)
    assert (why.cause, why.keys) == ("score", ((1, 0),))
    assert why.margin == pytest.approx(1e-4, rel=1e-2)
    assert why.message == "score 0.4999 is not above 0.5, on the other side 0.6"


def test_an_overlap_that_crosses_the_threshold_is_told_with_its_margin() -> None:
    half = [[0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.5, 0.49]]
    why = explain(side_of((0.9, 0.8), half), side_of((0.9, 0.8), NEAR), (1, 0), THRESHOLDS)
    assert (why.cause, why.keys) == ("iou", ((1, 0), (0, 0)))
    assert why.margin == pytest.approx(0.4, abs=1e-6)


def test_an_overlap_equal_to_the_threshold_is_the_rule_at_equality() -> None:
    half = [[0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.5, 0.5]]
    keeps, drops = side_of((0.9, 0.8), half), side_of((0.9, 0.8), half, Thresholds(0.5, 0.4999, 4))
    assert list(keeps.kept) == [(0, 0), (1, 0)]
    assert list(drops.kept) == [(0, 0)]
    why = explain(keeps, drops, (1, 0), THRESHOLDS)
    assert (why.cause, why.margin) == ("iou-rule", 0.0)


def test_two_boxes_that_change_places_are_an_nms_tie() -> None:
    first, second = side_of((0.8, 0.7999), NEAR), side_of((0.7999, 0.8), NEAR)
    why = explain(first, second, (0, 0), THRESHOLDS)
    assert (why.cause, why.keys) == ("order", ((0, 0), (1, 0)))
    assert why.margin == pytest.approx(1e-4, rel=1e-2)


def test_a_box_behind_another_change_follows_from_it() -> None:
    present, absent = side_of((0.4999, 0.8), NEAR), side_of((0.9, 0.8), NEAR)
    why = explain(present, absent, (1, 0), THRESHOLDS)
    assert (why.cause, why.root) == ("follows", "score")
    assert why.keys == ((1, 0), (0, 0))
    assert why.margin == pytest.approx(1e-4, rel=1e-2)


def test_a_box_behind_the_last_row_is_told_as_the_limit() -> None:
    one = Thresholds(0.5, 0.5, 1)
    why = explain(side_of((0.7, 0.71), FAR, one), side_of((0.71, 0.7), FAR, one), (1, 0), one)
    assert (why.cause, why.keys) == ("limit", ((1, 0), (0, 0)))


def test_a_box_without_any_reason_is_the_heads() -> None:
    whole = side_of((0.9, 0.8), FAR)
    without = Side(whole.head, whole.boxes, whole.scores, {(0, 0): whole.kept[0, 0]})
    assert explain(whole, without, (1, 0), THRESHOLDS).cause == "head"


def missing_second(lower: float, scores: tuple[float, float] = (0.9, 0.8)) -> str:
    """Why the second of two boxes is gone, whose overlap is ``lower``: its cause."""
    boxes = [[0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.5, lower]]
    whole = side_of(scores, boxes, Thresholds(0.5, 0.9, 4))
    assert list(whole.kept) == [(0, 0), (1, 0)] if scores[0] > scores[1] else [(1, 0), (0, 0)]
    head = np.zeros((2, 6), np.float32)
    head[:, 4] = scores  # raw scores that differ
    whole = replace(whole, head=head)
    return explain(whole, replace(whole, kept={(0, 0): whole.kept[0, 0]}), (1, 0), THRESHOLDS).cause


def test_an_overlap_or_a_rank_within_rounding_of_the_other_side_is_no_fault_of_the_head() -> None:
    assert missing_second(0.5 - 1.2e-7) == "iou"
    assert missing_second(0.5 - 1e-5) == "head"
    assert missing_second(0.6, (0.8, 0.8 + 1.2e-7)) == "order"
    assert missing_second(0.6, (0.8, 0.8 + 1e-5)) == "head"


def test_equal_raw_scores_rank_by_index_on_every_runtime() -> None:
    tied = side_of((0.8, 0.8), NEAR)
    swapped = replace(tied, kept={(1, 0): (tied.boxes[1], tied.scores[1, 0])})
    assert explain(tied, swapped, (0, 0), THRESHOLDS).cause == "head"


def run_of(
    head: np.ndarray[tuple[int, ...], np.dtype[np.float32]], *, name: str = "stand-in:cpu", of: DetectorSpec = SPEC
) -> Run:
    """A run whose boxes are the oracle's for its own head."""
    return Run(name, exact=True, heads=head, boxes=((THRESHOLDS, detect_from_head(head, of, THRESHOLDS)),))


def changes(source: Run, run: Run, *, allowed: float) -> list[tuple[str, str, int]]:
    how = BoxComparison(SPEC, THRESHOLDS, STEP, allowed, ("one.jpg",), (SPEC.image.placement((8, 8)),))
    return [(change.kind, change.cause, change.anchor) for change in find_changes(source, run, how)]


def test_detections_lost_new_and_moved_have_their_causes_within_rounding_and_a_layer_beyond() -> None:
    source = run_of(head_of(2, STEP, -STEP, -9))
    lost_and_new = run_of(head_of(2, 0, STEP, -9))
    assert changes(source, lost_and_new, allowed=2) == [("lost", "score", 1), ("new", "score", 2)]
    assert changes(source, lost_and_new, allowed=1) == [("lost", "score", 1), ("new", "layer", 2)]
    wider = run_of(head_of(2, STEP, -STEP, -9, widths=(STEP, 0, 0, 0)))
    assert changes(source, wider, allowed=1) == [("moved", "rounding", 0)]
    assert changes(source, wider, allowed=0) == [("moved", "layer", 0)]


def test_equal_runs_have_no_changes() -> None:
    run = run_of(head_of(2, STEP, -STEP, -9))
    assert changes(run, run, allowed=0) == []


def test_a_box_that_is_elsewhere_although_the_head_is_equal_is_the_heads() -> None:
    run = run_of(head_of(2, -9, -9, -9))
    ((thresholds, found),) = run.boxes
    shifted = BatchDetections(
        found.num_detections, found.boxes_xyxy + np.float32(0.25), found.scores, found.classes, found.anchors
    )
    moved = Run("stand-in:cpu", exact=True, heads=run.heads, boxes=((thresholds, shifted),))
    assert changes(run, moved, allowed=0) == [("moved", "head", 0)]
    fault = judge_run(moved, SPEC).fault
    assert fault is not None
    assert fault.cause == "rows"
    assert fault.detail.startswith("1 of 1 heads, first: image 1, score > 0.5, IoU > 0.5: box 0 is [")


def at_equality(name: str) -> Run:
    """A run on two boxes whose IoU is exactly 0.5, the second of which it lets fall."""
    head = head_of(2, -9, 1, -9)
    head[0, 0, 0, 3], head[0, 1, 0, 1] = 20, -30  # the first covers both rows, the second its own lower half
    spec_head = detect_from_head(head, SPEC, THRESHOLDS)
    assert spec_head.num_detections.tolist() == [2]
    below = Thresholds(0.5, float(np.nextafter(np.float32(0.5), np.float32(0))), 4)
    return Run(name, exact=True, heads=head, boxes=((THRESHOLDS, detect_from_head(head, SPEC, below)),))


def test_suppression_at_equality_is_a_fault_of_runtimes_that_are_not_documented_to_do_it() -> None:
    fault = judge_run(at_equality("stand-in:cpu"), SPEC).fault
    assert fault is not None
    assert fault.cause == "iou-rule"
    assert "suppressed by box 0 at IoU 0.5, exactly the threshold" in fault.detail


def test_suppression_at_equality_is_a_note_of_openvino() -> None:
    verdict = judge_run(at_equality("openvino:cpu"), SPEC)
    assert verdict.fault is None
    assert verdict.notes == ("suppresses at IoU equal to the threshold (docs/contract.md)",)


MANY = replace(
    SPEC, head=YoloV2(65, 64, Anchors(((0.5, 0.5),), "cell"), 1), thresholds=Thresholds(0.5, 0.5, MAX_CANDIDATES)
)  # a box per cell, more than may be candidates; none overlaps another


def ties_at_the_limit(name: str, *, lost: int = 0) -> Run:
    """A run on 10 good boxes and 4,150 of one score, of which it takes the last ones, and ``lost`` too few."""
    head = np.zeros((1, 65, 64, 6), np.float32)
    head[..., 4] = 1
    head.reshape(-1, 6)[:10, 4] = 2
    boxes, scores = decode_head(head, MANY)
    taken = np.array([*range(10), *range(4160 - (MAX_CANDIDATES - 10) + lost, 4160)])
    found = select_best(boxes, scores, [taken], MAX_CANDIDATES)
    return Run(name, exact=True, heads=head, boxes=((MANY.thresholds, found),))


def test_openvino_may_take_any_of_equal_scores_at_the_limit_of_candidates() -> None:
    verdict = judge_run(ties_at_the_limit("openvino:cpu"), MANY)
    assert verdict.fault is None
    assert verdict.notes == ("takes any of equal scores at the limit of 4096 candidates (docs/contract.md)",)
    for wrong in (ties_at_the_limit("openvino:cpu", lost=1), ties_at_the_limit("stand-in:cpu")):
        fault = judge_run(wrong, MANY).fault
        assert fault is not None
        assert fault.cause == "rows"
        assert "is missing: 4096 candidates enter suppression, the last with score 0.7310586" in fault.detail


def test_a_change_at_the_limit_of_candidates_is_told_as_the_limit() -> None:
    run = ties_at_the_limit("openvino:cpu")
    how = BoxComparison(MANY, MANY.thresholds, STEP, 0, ("one.jpg",), (MANY.image.placement((8, 8)),))
    assert {change.cause for change in find_changes(run, run, how)} == {"limit"}


def test_sides_hold_what_the_runtime_kept_and_what_the_oracle_decodes() -> None:
    head = head_of(2, -9, 1, -9)
    (side,) = sides_of(head, detect_from_head(head, SPEC, THRESHOLDS), SPEC)
    assert list(side.kept) == [(0, 0), (2, 0)]
    assert side.boxes.shape == (4, 4)
    assert side.scores[0, 0] == pytest.approx(0.880797, abs=1e-6)


TWO_OF_EACH = Suppression(across_classes=True, classes_per_box=2)


def side_of_several(scores: list[list[float]], boxes: list[list[float]], limits: Thresholds = THRESHOLDS) -> Side:
    """A side of boxes with two rows each."""
    values, corners = np.array(scores, np.float32), np.array(boxes, np.float32)
    found = detect_decoded(corners[None], values[None], limits, TWO_OF_EACH)
    return Side(np.zeros((len(scores), 9), np.float32), corners, values, kept_boxes(found, 0), TWO_OF_EACH)


@pytest.mark.parametrize(
    ("here", "there", "boxes", "key", "cause", "told"),
    [
        pytest.param([[0.9, 0.8, 0.7]], [[0.9, 0.7, 0.8]], FAR[:1], (0, 1), "limit",
            "2 classes of its box have rows, the last with score 0.8, this one has 0.7", id="a better class"),
        pytest.param([[0.9, 0.8, 0.1], [0.3, 0.1, 0.1]], [[0.6, 0.55, 0.1], [0.7, 0.1, 0.1]], NEAR, (0, 1), "follows",
            "its best class 0: suppressed by box 1", id="its box is suppressed"),
        pytest.param([[0.9, 0.8, 0.1]], [[0.9, 0.4, 0.1]], FAR[:1], (0, 1), "score",
            "score 0.4 is not above 0.5", id="a score"),
        pytest.param([[0.9, 0.8, 0.1], [0.6, 0.1, 0.1]], [[0.6, 0.55, 0.1], [0.7, 0.1, 0.1]], FAR, (0, 0), "limit",
            "1 box kept, the last with score 0.7, this one has 0.6", id="another box"),
    ],
)  # fmt: skip
def test_why_a_class_of_a_box_has_no_row(
    *,
    here: list[list[float]],
    there: list[list[float]],
    boxes: list[list[float]],
    key: tuple[int, int],
    cause: str,
    told: str,
) -> None:
    limits = Thresholds(0.5, 0.5, 2) if "kept" in told else THRESHOLDS
    present, absent = side_of_several(here, boxes, limits), side_of_several(there, boxes, limits)
    assert key in present.kept
    assert key not in absent.kept
    why = explain(present, absent, key, limits)
    assert (why.cause, told in why.message) == (cause, True), why.message


@pytest.mark.parametrize("changed", [{"anchors": 4}, {"anchors": -1}, {"classes": 1}], ids=str)
def test_a_box_that_the_head_has_not_is_told(changed: dict[str, int]) -> None:
    head = head_of(2, -9, 1, -9)
    found = detect_from_head(head, SPEC, THRESHOLDS)
    for name, value in changed.items():
        getattr(found, name)[0, 1] = value
    fault = judge_run(Run("stand-in:cpu", exact=True, heads=head, boxes=((THRESHOLDS, found),)), SPEC).fault
    assert fault is not None
    assert fault.cause == "rows"
    assert "box 2 is missing" in fault.detail


AT = Thresholds(0.5, 0.5, 4)
ROWS_SPEC = DetectorSpec(
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
    assert list(broken_rules(SOUND, 0, AT, ROWS_SPEC)) == []


def test_rows_of_equal_score_are_in_the_order_of_the_rule() -> None:
    by_class = replace(ROWS_SPEC, suppression=Suppression(class_first=True))
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
    assert list(broken_rules(replace(SOUND, **arrays), 0, AT, ROWS_SPEC)) == [told]
