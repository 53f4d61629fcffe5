"""The ``coco`` protocol against pycocotools, entry for entry, and against small cases worked by hand."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from xdet.evaluation.coco import IOU_THRESHOLDS, coco_curve, evaluate_coco, match_coco, overlaps_coco, summarize_coco
from xdet.evaluation.scoring import ScoredImage

Box = tuple[float, float, float, float]
SIZE = (128, 128)


def scored_image(
    truths: list[tuple[Box, int, bool]], found: list[tuple[Box, float, int]], *, size: tuple[int, int] = SIZE
) -> ScoredImage:
    """An image from ``(x, y, width, height), class, crowd`` and ``(x, y, width, height), score, class`` in pixels."""
    truth_xywh = np.array([box for box, _, _ in truths], np.float64).reshape(-1, 4)
    detected_xywh = np.array([box for box, _, _ in found], np.float64).reshape(-1, 4)
    corners = np.concatenate([detected_xywh[:, :2], detected_xywh[:, :2] + detected_xywh[:, 2:]], axis=1)
    return ScoredImage(
        size_wh=size,
        truth_xywh_px=truth_xywh,
        truth_areas=truth_xywh[:, 2] * truth_xywh[:, 3],
        truth_classes=np.array([class_id for _, class_id, _ in truths], np.int64),
        truth_crowd=np.array([crowd for _, _, crowd in truths], np.bool_),
        detected_xyxy=corners / np.array(size * 2),
        detected_scores=np.array([score for _, score, _ in found], np.float64),
        detected_classes=np.array([class_id for _, _, class_id in found], np.int64),
    )


def pycocotools_arrays(
    images: list[ScoredImage], num_classes: int, limits: tuple[int, ...]
) -> tuple[dict[str, Any], list[float]]:
    """``COCOeval.eval`` and, for the default limits, ``COCOeval.stats`` of the same boxes."""
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image_id, image in enumerate(images, 1):
        for box, area, class_id, crowd in zip(
            image.truth_xywh_px.tolist(),
            image.truth_areas.tolist(),
            image.truth_classes.tolist(),
            image.truth_crowd.tolist(),
            strict=True,
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": class_id + 1,
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(crowd),
                }
            )
        for box, score, class_id in zip(
            image.detected_xywh_px.tolist(),
            image.detected_scores.tolist(),
            image.detected_classes.tolist(),
            strict=True,
        ):
            results.append({"image_id": image_id, "category_id": class_id + 1, "bbox": box, "score": score})
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i, "width": 128, "height": 128} for i in range(1, len(images) + 1)],
        "annotations": annotations,
        "categories": [{"id": k + 1, "name": str(k)} for k in range(num_classes)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes(results) if results else _no_results(truth)
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.maxDets = list(limits)
        evaluation.evaluate()
        evaluation.accumulate()
        if limits == (1, 10, 100):
            evaluation.summarize()
    return evaluation.eval, list(evaluation.stats)


def _no_results(truth: COCO) -> COCO:
    """``loadRes`` refuses an empty list."""
    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty


# A coarse lattice: equal IoUs, IoUs at a threshold, and equal boxes are common on it.
boxes = st.tuples(*[st.integers(0, 6)] * 2, *[st.integers(1, 8)] * 2).map(
    lambda box: tuple(8.0 * value for value in box)
)
fine_boxes = st.tuples(*[st.floats(0, 60, width=32)] * 2, *[st.floats(1, 120, width=32)] * 2)
scores = st.sampled_from([0.1, 0.25, 0.25, 0.5, 0.75]) | st.floats(0.001, 1)
images_of_two_classes = st.lists(
    st.builds(
        scored_image,
        st.lists(st.tuples(boxes | fine_boxes, st.integers(0, 1), st.booleans()), max_size=6),
        st.lists(st.tuples(boxes | fine_boxes, scores, st.integers(0, 1)), max_size=14),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150)
@given(images=images_of_two_classes, limits=st.sampled_from([(1, 10, 100), (1, 3), (2,), (1, 10, 12)]))
def test_every_entry_equals_pycocotools(images: list[ScoredImage], limits: tuple[int, ...]) -> None:
    expected, stats = pycocotools_arrays(images, 2, limits)
    ours = evaluate_coco(images, 2, limits=limits)
    np.testing.assert_array_equal(np.nan_to_num(ours.precision, nan=-1), expected["precision"])
    np.testing.assert_array_equal(np.nan_to_num(ours.recall, nan=-1), expected["recall"])
    if stats:
        mine = [-1.0 if value is None else value for value in summarize_coco(ours).values()]
        assert mine == stats


def test_a_large_random_case_equals_pycocotools() -> None:
    """30 images of 25 detections each: hundreds of ties between scores, and every area range is met."""
    random = np.random.default_rng(7)

    def some_boxes(count: int) -> list[Box]:
        origins, sizes = (random.uniform(0, 90, (count, 2)), random.choice([9.0, 31.5, 32.0, 96.0, 110.0], (count, 2)))
        return [tuple(row) for row in np.concatenate([origins, sizes], axis=1).tolist()]

    images = []
    for _ in range(30):
        truths = [(box, int(random.integers(3)), bool(random.random() < 0.2)) for box in some_boxes(6)]
        near = [tuple(np.array(box) + random.integers(-3, 4, 4)) for box, _, _ in truths for _ in range(3)]
        found = [(box, float(random.integers(1, 20)) / 20, int(random.integers(3))) for box in near + some_boxes(7)]
        images.append(scored_image(truths, found))
    expected, stats = pycocotools_arrays(images, 3, (1, 10, 100))
    ours = evaluate_coco(images, 3)
    for name in ("precision", "recall"):
        np.testing.assert_array_equal(np.nan_to_num(getattr(ours, name), nan=-1), expected[name])
    assert list(summarize_coco(ours).values()) == stats
    assert 0.01 < stats[0] < 0.9


PERSON: Box = (10.0, 10.0, 40.0, 40.0)
ELSEWHERE: Box = (80.0, 80.0, 40.0, 40.0)


def ap50(images: list[ScoredImage], num_classes: int = 1) -> float | None:
    return summarize_coco(evaluate_coco(images, num_classes))["AP50"]


def test_nothing_to_find_is_none_and_not_zero() -> None:
    numbers = summarize_coco(evaluate_coco([scored_image([], [(PERSON, 0.9, 0)])], 1))
    assert set(numbers.values()) == {None}


def test_finding_nothing_is_zero() -> None:
    assert ap50([scored_image([(PERSON, 0, False)], [])]) == 0.0


def test_a_perfect_detection_is_one() -> None:
    """But for the 2.2e-16 that pycocotools adds to the denominator of a precision."""
    numbers = summarize_coco(evaluate_coco([scored_image([(PERSON, 0, False)], [(PERSON, 0.9, 0)])], 1))
    assert {name: value and round(value, 12) for name, value in numbers.items()} == {
        "AP": 1.0,
        "AP50": 1.0,
        "AP75": 1.0,
        "AP_small": None,
        "AP_medium": 1.0,
        "AP_large": None,
        "AR1": 1.0,
        "AR10": 1.0,
        "AR100": 1.0,
        "AR_small": None,
        "AR_medium": 1.0,
        "AR_large": None,
    }


def test_a_miss_in_front_of_the_hit_halves_the_precision() -> None:
    assert ap50([scored_image([(PERSON, 0, False)], [(ELSEWHERE, 0.9, 0), (PERSON, 0.8, 0)])]) == pytest.approx(
        0.5,
        abs=1e-15,  # pycocotools adds 2.2e-16 to the denominator
    )


def test_one_of_two_found_reaches_51_of_101_recalls() -> None:
    image = scored_image([(PERSON, 0, False), (ELSEWHERE, 0, False)], [(PERSON, 0.9, 0)])
    assert ap50([image]) == pytest.approx(51 / 101, abs=1e-15)


def test_a_detection_on_a_crowd_is_no_miss() -> None:
    truths = [(PERSON, 0, False), (ELSEWHERE, 0, True)]
    found = [(ELSEWHERE, 0.9, 0), (ELSEWHERE, 0.85, 0), (PERSON, 0.8, 0)]
    assert ap50([scored_image(truths, found)]) == pytest.approx(1.0, abs=1e-15)
    dropped = scored_image(truths[:1], found)
    assert ap50([dropped]) == pytest.approx(1 / 3, abs=1e-15)


def test_a_class_without_ground_truth_does_not_count_in_the_mean() -> None:
    image = scored_image([(PERSON, 1, False)], [(PERSON, 0.9, 0), (PERSON, 0.8, 1)])
    assert ap50([image], num_classes=3) == pytest.approx(1.0, abs=1e-15)


def test_of_equal_overlaps_the_last_ground_truth_is_taken() -> None:
    overlaps = np.array([[0.6, 0.6], [0.6, 0.0]])
    ignore = np.array([[False, True], [False, False]])
    matched, on_ignored = match_coco(overlaps, np.zeros(2, np.bool_), ignore)
    assert matched[:, 0].tolist() == [[True, False], [True, True]]  # the second finds the first truth free
    assert on_ignored.any() is np.False_


def test_an_overlap_with_a_crowd_is_the_share_of_the_detection_inside_it() -> None:
    found, truth = np.array([[0.0, 0.0, 10.0, 10.0]]), np.array([[5.0, 0.0, 100.0, 100.0]] * 2)
    overlaps = overlaps_coco(found, truth, np.array([True, False]))
    assert overlaps.tolist() == [[0.5, 50 / 10050]]


def test_boxes_that_only_touch_do_not_overlap() -> None:
    assert overlaps_coco(
        np.array([[0.0, 0.0, 4.0, 4.0]]), np.array([[4.0, 0.0, 4.0, 4.0]]), np.zeros(1, np.bool_)
    ).tolist() == [[0.0]]


def test_the_thresholds_are_pycocotools_own() -> None:
    assert IOU_THRESHOLDS.tolist() == COCOeval(iouType="bbox").params.iouThrs.tolist()


def test_the_curve_gives_the_same_average_as_the_arrays() -> None:
    random = np.random.default_rng(3)
    hits = random.random(40) < 0.5
    precision, average = coco_curve(np.cumsum(hits), np.cumsum(~hits), 50.0)
    assert average == precision.mean()
    assert precision[0] == (np.cumsum(hits) / np.arange(1, 41)).max()
    assert precision[-1] == 0.0


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    image = scored_image([(PERSON, 0, False)], [])
    with pytest.raises(ValueError, match=r"truth_crowd has shape \(2,\), expected \(1,\)"):
        replace(image, truth_crowd=np.zeros(2, np.bool_))
