"""The paired bootstrap: its weights, its averages, and what it calls a difference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdet.evaluation.coco import coco_curve
from xdet.evaluation.scoring import RESAMPLES, Curve, Difference, Ranking, difference, draw_weights, resample_average
from xdet.evaluation.zoo import zoo_3_curve, zoo_4_curve

CURVES = [coco_curve, zoo_3_curve, zoo_4_curve]
NAMES = ["coco", "zoo-3", "zoo-4"]


def random_ranking(seed: int, *, images: int = 12, detections: int = 60, skill: float = 0.5) -> Ranking:
    """A ranking with hits, misses, and detections that are neither."""
    random = np.random.default_rng(seed)
    drawn = random.random((2, detections))
    hits = drawn < skill
    misses = ~hits & (drawn < skill + 0.9 * (1 - skill))
    places = np.asarray(random.integers(images, size=detections), np.int64)
    found = np.array([np.bincount(places[row], minlength=images) for row in hits]).max(axis=0)
    return Ranking(places, hits, misses, np.asarray(found + random.integers(3, size=images), np.int64))


def subset(ranking: Ranking, images: list[int]) -> Ranking:
    """The ranking of some of its images only."""
    kept = np.isin(ranking.images, images)
    positives = np.where(np.isin(np.arange(len(ranking.positives)), images), ranking.positives, 0)
    return replace(
        ranking,
        images=ranking.images[kept],
        hits=ranking.hits[:, kept],
        misses=ranking.misses[:, kept],
        positives=positives,
    )


@pytest.mark.parametrize("curve", CURVES, ids=NAMES)
@given(seed=st.integers(0, 10**6), chosen=st.sets(st.integers(0, 11), min_size=1), skill=st.floats(0, 1))
def test_weights_of_zero_and_one_are_the_average_of_those_images(
    curve: Curve, seed: int, chosen: set[int], skill: float
) -> None:
    ranking = random_ranking(seed, skill=skill)
    weights = np.isin(np.arange(12), list(chosen)).astype(np.float64)[None]
    part = subset(ranking, sorted(chosen))
    expected = np.mean([part.curve(t, curve)[1] for t in (0, 1)])
    (found,) = resample_average([ranking], curve, (0, 1), weights)
    np.testing.assert_allclose(found, expected, rtol=1e-13)  # NaN where those images hold nothing to find


def test_classes_without_ground_truth_in_a_resample_do_not_count_in_its_mean() -> None:
    first, second = random_ranking(1), random_ranking(2)
    second = replace(second, positives=np.where(np.arange(12) == 3, second.positives + 1, 0))
    second = replace(second, hits=second.hits & (second.images == 3))
    weights = np.ones((2, 12))
    weights[1, 3] = 0
    both, alone = resample_average([first, second], zoo_3_curve, (0,), weights)
    mean_of_first = resample_average([first], zoo_3_curve, (0,), weights)
    assert both == np.mean([mean_of_first[0], resample_average([second], zoo_3_curve, (0,), weights)[0]])
    assert alone == mean_of_first[1]


def test_a_ranking_without_detections_averages_zero() -> None:
    empty = Ranking(np.zeros(0, np.int64), np.zeros((1, 0), np.bool_), np.zeros((1, 0), np.bool_), np.array([1, 2]))
    for curve in CURVES:
        assert resample_average([empty], curve, (0,), np.ones((1, 2))).tolist() == [0.0]


def test_every_resample_draws_as_many_images_and_always_the_same() -> None:
    weights = draw_weights(30)
    assert weights.shape == (RESAMPLES, 30)
    assert (weights.sum(axis=1) == 30).all()
    np.testing.assert_array_equal(weights, draw_weights(30))
    assert weights.std() == pytest.approx(np.sqrt(1 - 1 / 30), rel=0.02)  # that of a multinomial draw


def test_equal_models_differ_by_exactly_nothing() -> None:
    weights = draw_weights(12)
    average = resample_average([random_ranking(5)], coco_curve, (0, 1), weights)
    assert difference(0.0, average, average) == Difference(0.0, 0.0, 0.0)
    assert not difference(0.0, average, average).seen


@pytest.mark.parametrize(("skill", "seen"), [(0.05, True), (0.5, False)])
def test_a_much_worse_model_is_seen_and_an_equally_good_one_is_not(skill: float, *, seen: bool) -> None:
    images, detections = 100, 1000
    good = random_ranking(1, images=images, detections=detections, skill=0.5)
    other = random_ranking(2, images=images, detections=detections, skill=skill)
    other = replace(other, positives=good.positives)
    weights = draw_weights(images)
    first, second = (resample_average([ranking], zoo_3_curve, (0,), weights) for ranking in (good, other))
    value = other.curve(0, zoo_3_curve)[1] - good.curve(0, zoo_3_curve)[1]
    found = difference(value, first, second)
    assert found.low < value < found.high
    assert found.seen is seen
    assert not seen or found.high < 0


def test_the_interval_holds_95_per_cent_of_the_differences() -> None:
    second = np.arange(1001) / 1000
    found = difference(0.5, np.zeros(1001), second)
    assert (found.low, found.high) == pytest.approx((0.025, 0.975), abs=1e-12)
    assert found.seen
