"""The numpy oracle of the head: hand-computed boxes, a slow twin of the suppression, and the edges."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converters.heads.arithmetic import iou_xyxy, sigmoid
from converters.heads.nms import detect_from_head, limit_candidates, suppress
from converters.heads.yolo_v2 import YoloV2, decode_scores
from converters.spec import (
    MAX_CANDIDATES,
    Anchors,
    AnchorUnit,
    DetectorSpec,
    ImageInput,
    RawOutput,
    Rescaling,
    Suppression,
    Thresholds,
)
from tests.converters.heads.decoding import spec_of
from tests.heads import yolo_v2

if TYPE_CHECKING:
    from tests.converters.heads.decoding import Float32

ANCHORS_CELLS = ((1.0, 2.0), (0.5, 0.25), (3.0, 1.5), (2.0, 2.0), (8.0, 8.0))


def make_spec(
    grid: tuple[int, int] = (3, 4), *, anchors: int = 2, classes: int = 1, unit: AnchorUnit = "cell"
) -> DetectorSpec:
    sizes = ANCHORS_CELLS[:anchors]
    if unit == "image":
        sizes = tuple((w / grid[1], h / grid[0]) for w, h in sizes)
    return spec_of(YoloV2(*grid, Anchors(sizes, unit), classes))


def quiet_head(spec: DetectorSpec, batch: int = 1) -> Float32:
    """A head without any detection, as float32 ``(N, grid_h, grid_w, A, 5 + NC)``."""
    own = yolo_v2(spec)
    head = np.zeros((batch, own.grid_h, own.grid_w, own.num_anchors, 5 + own.num_classes), np.float32)
    head[..., 4] = -20
    return head


def as_head(parts: Float32) -> Float32:
    return parts.reshape(*parts.shape[:3], -1)


def test_one_box_is_where_the_formula_puts_it() -> None:
    spec = make_spec((3, 4), anchors=2, classes=3)
    head = quiet_head(spec)
    head[0, 2, 1, 1] = [0.0, math.log(3), 0.0, math.log(2), 2.0, 0.0, math.log(2), 0.0]
    found = detect_from_head(as_head(head), spec, Thresholds(score=0.4, max_detections=5))

    cx, cy, w, h = (0.5 + 1) / 4, (0.75 + 2) / 3, 0.5 / 4, 2 * 0.25 / 3
    assert found.num_detections.tolist() == [1]
    # float32 rounding of exp and of three further operations
    np.testing.assert_allclose(
        found.boxes_xyxy[0, 0], [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], rtol=0, atol=3e-7
    )
    np.testing.assert_allclose(found.scores[0, 0], 1 / (1 + math.exp(-2)) * 0.5, rtol=0, atol=1e-7)
    assert found.classes[0].tolist() == [1, -1, -1, -1, -1]
    assert found.anchors[0].tolist() == [(2 * 4 + 1) * 2 + 1, -1, -1, -1, -1]


def test_padded_rows_are_empty_and_every_dtype_is_the_contracts() -> None:
    spec = make_spec()
    found = detect_from_head(as_head(quiet_head(spec, batch=3)), spec, Thresholds(max_detections=7))
    assert found.num_detections.tolist() == [0, 0, 0]
    assert (found.boxes_xyxy.shape, found.scores.shape) == ((3, 7, 4), (3, 7))
    assert not found.boxes_xyxy.any()
    assert not found.scores.any()
    assert (found.classes == -1).all()
    assert (found.anchors == -1).all()
    dtypes = [array.dtype.name for array in (found.num_detections, found.boxes_xyxy, found.scores)]
    assert dtypes == ["int32", "float32", "float32"]
    assert (found.classes.dtype.name, found.anchors.dtype.name) == ("int32", "int32")


def test_anchors_in_cells_and_as_image_fractions_give_the_same_boxes() -> None:
    head = np.random.default_rng(0).normal(0, 1, (1, 4, 4, 12)).astype(np.float32)
    thresholds = Thresholds(score=0.3)
    cells = detect_from_head(head, make_spec((4, 4), unit="cell"), thresholds)
    fractions = detect_from_head(head, make_spec((4, 4), unit="image"), thresholds)
    np.testing.assert_array_equal(cells.boxes_xyxy, fractions.boxes_xyxy)


def test_a_score_at_the_threshold_does_not_count() -> None:
    spec = make_spec()
    head = quiet_head(spec)
    head[0, 0, 0, 0, 4] = 0.0  # sigmoid(0) is exactly 0.5
    assert detect_from_head(as_head(head), spec, Thresholds(score=0.5)).num_detections == 0
    assert detect_from_head(as_head(head), spec, Thresholds(score=0.4999999)).num_detections == 1


def test_extreme_logits_give_no_nan_and_no_warning() -> None:
    spec = make_spec((3, 4), anchors=2, classes=3)
    rng = np.random.default_rng(1)
    head = rng.choice(np.array([-3e38, -1e4, 0, 1e4, 3e38], np.float32), (2, 3, 4, 16))
    with np.errstate(divide="raise", invalid="raise"):
        found = detect_from_head(head, spec, Thresholds(score=0.0))
    assert np.isfinite(found.boxes_xyxy).all()
    assert ((found.boxes_xyxy >= 0) & (found.boxes_xyxy <= 1)).all()
    assert np.isfinite(found.scores).all()


def test_equal_scores_keep_the_source_order() -> None:
    spec = make_spec((2, 3), anchors=2, classes=3)
    head = np.zeros((1, 2, 3, 16), np.float32)
    found = detect_from_head(head, spec, Thresholds(score=0.1, iou=1.0, max_detections=36))
    assert found.num_detections == 36
    assert (found.anchors[0] * 3 + found.classes[0]).tolist() == list(range(36))


def test_boxes_of_other_classes_do_not_suppress_each_other() -> None:
    spec = make_spec((1, 1), anchors=1, classes=3)
    head = np.array([0, 0, 0, 0, 5, 1, 1, -9], np.float32).reshape(1, 1, 1, 8)
    found = detect_from_head(head, spec, Thresholds(score=0.3, iou=0.0))
    assert found.classes[0, :2].tolist() == [0, 1]
    assert found.num_detections == 2


def test_the_candidate_limit_keeps_the_best_and_of_equal_ones_the_first() -> None:
    scores = np.full((3000, 2), 0.5, np.float32)
    scores[2999, 1] = 0.75
    candidates = limit_candidates(scores, score_threshold=0.1)
    assert len(candidates) == MAX_CANDIDATES
    assert candidates.tolist() == [5999, *range(MAX_CANDIDATES - 1)]


def suppress_slowly(boxes: Float32, candidates: list[int], num_classes: int, thresholds: Thresholds) -> list[int]:
    """Greedy suppression, one pair at a time."""
    kept: list[int] = []
    for candidate in candidates:
        rivals = [k for k in kept if k % num_classes == candidate % num_classes]
        ious = [iou_xyxy(boxes[k // num_classes], boxes[candidate // num_classes]) for k in rivals]
        if len(kept) < thresholds.max_detections and all(iou <= np.float32(thresholds.iou) for iou in ious):
            kept.append(candidate)
    return kept


@settings(deadline=None, max_examples=60)
@given(
    corners=hnp.arrays(np.float32, (23, 2, 2), elements=st.sampled_from([np.float32(n / 4) for n in range(5)])),
    score_levels=st.integers(1, 9),
    num_classes=st.sampled_from([1, 2]),
    iou=st.sampled_from([0.0, 0.25, 0.3, 0.5, 1.0]),
    max_detections=st.sampled_from([1, 5, 16, 17, 100]),
    seed=st.integers(0, 9),
)
def test_suppression_is_the_greedy_rule_whatever_the_ties(
    *, corners: Float32, score_levels: int, num_classes: int, iou: float, max_detections: int, seed: int
) -> None:
    boxes = np.sort(corners, axis=1).reshape(-1, 4)
    levels = np.random.default_rng(seed).integers(0, score_levels + 1, (len(boxes), num_classes))
    scores = (levels / score_levels).astype(np.float32)
    thresholds = Thresholds(score=0.2, iou=iou, max_detections=max_detections)
    candidates = limit_candidates(scores, score_threshold=thresholds.score)
    expected = suppress_slowly(boxes, candidates.tolist(), num_classes, thresholds)
    assert suppress(boxes, candidates, num_classes, thresholds, Suppression()).tolist() == expected


def test_a_single_class_has_probability_exactly_one() -> None:
    objectness = np.array([[[0.3]]], np.float32)
    np.testing.assert_array_equal(decode_scores(objectness, np.array([[[-50.0]]], np.float32)), sigmoid(objectness))


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(np.zeros((1, 12, 3, 4), np.float32), id="NCHW"),
        pytest.param(np.zeros((3, 4, 12), np.float32), id="no batch"),
        pytest.param(np.zeros((1, 3, 4, 12), np.float64), id="float64"),
    ],
)
def test_a_head_of_another_shape_or_type_is_refused(head: Float32) -> None:
    with pytest.raises(ValueError, match=r"expected float32 \(N, 3, 4, 12\)"):
        detect_from_head(head, make_spec(), Thresholds())


def test_a_detector_without_a_decodable_head_is_refused() -> None:
    spec = DetectorSpec(ImageInput(32, 32, Rescaling(1.0, 0.0)), None, raw_outputs=(RawOutput("", (3, 4, 12)),))
    with pytest.raises(ValueError, match=r"head is not known .* cannot be decoded"):
        detect_from_head(np.zeros((1, 3, 4, 12), np.float32), spec, Thresholds())
