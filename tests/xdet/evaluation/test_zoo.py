"""The protocols ``zoo-3`` and ``zoo-4`` against small cases worked by hand, written out beside each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdet.evaluation import PROTOCOLS
from xdet.evaluation.scoring import RECALLS, ScoredImage, Setting
from xdet.evaluation.zoo import detected_pixels, overlaps_zoo, rank_zoo, truth_pixels, zoo_3_curve, zoo_4_curve

NETWORK = (20, 20)
SETTING = Setting(1, NETWORK, 100)
Corners = tuple[float, float, float, float]


def image_of(
    truths: list[Corners],
    found: list[tuple[Corners, float]],
    *,
    crowd: tuple[int, ...] = (),
    size: tuple[int, int] = NETWORK,
) -> ScoredImage:
    """An image from corners in pixels of the photograph, which is as large as the network's input by default."""
    corners = np.array(truths, np.float64).reshape(-1, 4)
    boxes = np.array([box for box, _ in found], np.float64).reshape(-1, 4)
    return ScoredImage(
        size_wh=size,
        truth_xywh_px=np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1),
        truth_areas=np.ones(len(truths)),
        truth_classes=np.zeros(len(truths), np.int64),
        truth_crowd=np.isin(np.arange(len(truths)), crowd),
        detected_xyxy=boxes / np.array(size * 2),
        detected_scores=np.array([score for _, score in found], np.float64),
        detected_classes=np.zeros(len(found), np.int64),
    )


def judged(*images: ScoredImage) -> tuple[list[int], list[int]]:
    """Hits and misses along the ranking, 0 or 1 each."""
    (ranking,), _ = rank_zoo(images, SETTING, 0.5)
    return ranking.hits[0].astype(int).tolist(), ranking.misses[0].astype(int).tolist()


def ap50(protocol: str, *images: ScoredImage) -> float | None:
    found = PROTOCOLS[protocol].score(images, SETTING)  # type: ignore[index]  # a name of the table
    return found.metrics["AP50"]


@pytest.mark.parametrize(("iou", "hit"), [(0.6, 1), (0.6000001, 0), (1.0, 0)])
def test_a_detection_is_a_hit_from_the_threshold_on(iou: float, hit: int) -> None:
    """10 x 6 of 10 x 10 pixels: IoU 0.6 exactly."""
    image = image_of([(0, 0, 9, 9)], [((0, 0, 9, 5), 0.9)])
    (ranking,), _ = rank_zoo([image], SETTING, iou)
    assert ranking.hits[0].tolist() == [bool(hit)]


def test_boxes_are_rounded_half_to_even_in_pixels_of_the_network() -> None:
    """200 x 100 pixels on 20 x 20: x / 10, y / 5. 25 -> 2.5 -> 2, 12.5 -> 2.5 -> 2, 75 -> 7.5 -> 8, 51 -> 10.2."""
    image = image_of([(25, 12.5, 75, 51)], [((25, 12.5, 75, 51), 0.5)], size=(200, 100))
    assert truth_pixels(image, NETWORK).tolist() == [[2, 2, 8, 10]]
    assert detected_pixels(image, NETWORK).tolist() == [[2, 2, 8, 10]]


def test_ground_truth_is_clipped_to_the_last_pixel_and_detections_are_not() -> None:
    image = image_of([(-3, 1, 25, 20)], [((0, 1, 20, 20), 0.5)])
    assert truth_pixels(image, NETWORK).tolist() == [[0, 1, 19, 19]]
    assert detected_pixels(image, NETWORK).tolist() == [[0, 1, 20, 20]]
    # 20 x 19 pixels of truth inside 21 x 20 of the detection
    assert overlaps_zoo(detected_pixels(image, NETWORK), truth_pixels(image, NETWORK)).tolist() == [[380 / 420]]


@pytest.mark.parametrize(
    ("box", "overlap"),
    [
        ((4, 4, 8, 8), 1 / 49),  # one shared pixel of 25 + 25
        ((5, 0, 9, 4), 0.0),  # side by side: no shared pixel
        ((0, 0, 4, 4), 1.0),
        ((1, 1, 3, 3), 9 / 25),
    ],
)
def test_corners_belong_to_the_box(box: tuple[int, int, int, int], overlap: float) -> None:
    assert overlaps_zoo(np.array([(0, 0, 4, 4)]), np.array([box])).tolist() == [[overlap]]


def test_an_overlap_of_exactly_one_half_is_a_hit() -> None:
    """One pixel of two: 1 / 2."""
    assert judged(image_of([(1, 0, 2, 0)], [((1, 0, 1, 0), 0.9)])) == ([1], [0])


def test_a_detection_looks_only_at_its_single_best_ground_truth() -> None:
    """Truth A covers rows 0..9, B rows 2..11; the second detection, rows 1..10, has IoU 9/11 with both.

    The first counts, A, which is taken: a miss although B is free (coco would give it B).
    """
    a, b = (0, 0, 9, 9), (0, 2, 9, 11)
    assert judged(image_of([a, b], [(a, 0.9), ((0, 1, 9, 10), 0.8)])) == ([1, 0], [0, 1])


def test_the_better_score_takes_the_ground_truth_whatever_the_order() -> None:
    """IoU 100/110 with score 0.9 before IoU 1 with score 0.8."""
    box = (0, 0, 9, 9)
    assert judged(image_of([box], [(box, 0.8), ((0, 0, 9, 10), 0.9)])) == ([1, 0], [0, 1])


def test_equal_scores_are_ranked_in_the_order_of_images() -> None:
    box, far = (0, 0, 9, 9), (12, 12, 19, 19)
    first, second = image_of([box], [(far, 0.5)]), image_of([box], [(box, 0.5)])
    assert judged(first, second) == ([0, 1], [1, 0])
    assert judged(second, first) == ([1, 0], [0, 1])


def test_boxes_of_four_zeros_are_padding() -> None:
    (ranking,), _ = rank_zoo([image_of([(0, 0, 0.4, 0.4)], [((0, 0, 0.4, 0.4), 0.9)])], SETTING, 0.5)
    assert ranking.positives.tolist() == [0]
    assert ranking.hits.shape == (1, 0)


def test_a_crowd_is_ordinary_ground_truth_unless_it_is_flagged() -> None:
    box, far = (0, 0, 9, 9), (12, 12, 19, 19)
    found: list[tuple[Corners, float]] = [(far, 0.9), (far, 0.8), (box, 0.7)]
    assert judged(image_of([box, far], found)) == ([1, 0, 1], [0, 1, 0])
    assert judged(image_of([box, far], found, crowd=(1,))) == ([0, 0, 1], [0, 0, 0])


def test_the_formulas_on_a_hit_a_miss_and_a_hit_with_four_to_find() -> None:
    """Recall 1/4, 1/4, 2/4; precision 1, 1/2, 2/3.

    zoo-3: 1/4 * 1 + 1/4 * 2/3 = 5/12.
    zoo-4: 1 on 0 .. 0.24, then to 1/2 at 0.25, to 2/3 at 0.5, to 0 at 1:
    0.24 + 0.01 * 3/4 + 0.25 * (1/2 + 2/3) / 2 + 0.5 * (2/3) / 2 = 0.56.
    """
    hits, misses = np.array([1.0, 1, 2]), np.array([0.0, 1, 1])
    assert zoo_3_curve(hits, misses, 4.0)[1] == pytest.approx(5 / 12, abs=1e-15)
    precision, area = zoo_4_curve(hits, misses, 4.0)
    assert area == pytest.approx(0.56, abs=1e-14)
    assert precision[[0, 24, 25, 50, 75, 100]] == pytest.approx([1, 1, 1 / 2, 2 / 3, 1 / 3, 0])


def test_the_formulas_differ_on_the_same_photograph() -> None:
    """The case above, from boxes: four people, found one, none, one."""
    truths: list[Corners] = [(0, 0, 4, 4), (6, 0, 10, 4), (12, 0, 16, 4), (0, 6, 4, 10)]
    image = image_of(truths, [(truths[0], 0.9), ((12, 12, 16, 16), 0.8), (truths[1], 0.7)])
    assert judged(image) == ([1, 0, 1], [0, 1, 0])
    assert ap50("zoo-3", image) == pytest.approx(5 / 12, abs=1e-15)
    assert ap50("zoo-4", image) == pytest.approx(0.56, abs=1e-14)


def test_zoo_3_takes_the_envelope_and_zoo_4_does_not() -> None:
    """A miss, then the only truth found: precision 0, 1/2. zoo-3: 1 * 1/2.

    zoo-4: 0 at recall 0 (the miss stands behind the padded 1), 1/2 at 1 where the padded 0 replaces it: the line from 0
    to 1/2 up to 0.99, then down to 0: 0.99 * 0.495 / 2 + 0.01 * 0.495 / 2 = 0.2475.
    """
    hits, misses = np.array([0.0, 1]), np.array([1.0, 1])
    assert zoo_3_curve(hits, misses, 1.0)[1] == 0.5
    assert zoo_4_curve(hits, misses, 1.0)[1] == pytest.approx(0.2475, abs=1e-14)


@pytest.mark.parametrize("protocol", ["zoo-3", "zoo-4"])
def test_no_detection_is_zero_and_no_truth_is_none(protocol: str) -> None:
    assert ap50(protocol, image_of([(0, 0, 9, 9)], [])) == 0.0
    assert ap50(protocol, image_of([], [((0, 0, 9, 9), 0.9)])) is None


@given(judgements=st.lists(st.booleans(), min_size=1, max_size=60), unfound=st.integers(0, 20), repeat=st.booleans())
def test_zoo_3_is_the_area_of_the_stairs(judgements: list[bool], unfound: int, repeat: bool) -> None:  # noqa: FBT001 - drawn
    """Summed hit by hit: each adds 1 / positives times the best precision at it or behind it."""
    steps = judgements * 2 if repeat else judgements
    hits, misses = np.cumsum(steps).astype(float), np.cumsum(~np.array(steps)).astype(float)
    positives = float(sum(steps) + unfound)
    if positives == 0:
        return
    precision = hits / (hits + misses)
    stairs = sum(precision[place:].max() / positives for place, hit in enumerate(steps) if hit)
    curve, area = zoo_3_curve(hits, misses, positives)
    assert area == pytest.approx(stairs, abs=1e-12)  # the order of additions
    assert (np.diff(curve) <= 0).all()
    assert len(curve) == len(RECALLS)
