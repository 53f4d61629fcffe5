"""Is a difference of two APs more than the choice of photographs? A paired bootstrap over images.

Images are drawn with replacement, the same ones for both models, and both APs are computed anew; the spread of their
differences is the interval. An image drawn n times weighs n: its hits, misses and ground truths count n-fold. The seed
is fixed, so equal detections give equal intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdet.evaluation.records import Bool, Curve, Float64, Int64, Ranking

RESAMPLES = 1000
SEED = 20170401
CONFIDENCE = 0.95
_CELLS = 4_000_000  # of a block of images x turns: 32 MB of float64


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of one model minus that of another, as fractions, with its 95 % interval."""

    value: float  # on the photographs as they are
    low: float
    high: float

    @property
    def seen(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def draw_weights(num_images: int) -> Float64:
    """How often each image is drawn: float64 ``(RESAMPLES, num_images)``, each row summing to ``num_images``."""
    random = np.random.default_rng(SEED)
    chances = np.full(num_images, 1 / num_images)
    return random.multinomial(num_images, chances, size=RESAMPLES).astype(np.float64)


def resample_average(rankings: Sequence[Ranking], curve: Curve, thresholds: Sequence[int], weights: Float64) -> Float64:
    """AP of every resample: the mean over IoU thresholds and over the classes that have ground truth in it.

    Args:
        rankings: one per class.
        curve: the protocol's.
        thresholds: which of the rankings' IoU thresholds are averaged.
        weights: float64 ``(B, I)``.

    Returns:
        float64 ``(B,)``; NaN where a resample holds no ground truth at all.
    """
    per_class = np.stack([_class_average(ranking, curve, thresholds, weights) for ranking in rankings])
    present = ~np.isnan(per_class)
    sums, counts = np.where(present, per_class, 0.0).sum(axis=0), present.sum(axis=0)
    return np.asarray(np.divide(sums, counts, out=np.full(len(weights), np.nan), where=counts > 0), np.float64)


def difference(value: float, first: Float64, second: Float64) -> Difference:
    """The interval of ``second - first`` (float64 ``(B,)``, the same resamples) around the difference ``value``."""
    spread = second - first
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(spread, [tail, 1 - tail])
    return Difference(value, float(low), float(high))


def _class_average(ranking: Ranking, curve: Curve, thresholds: Sequence[int], weights: Float64) -> Float64:
    averages = np.full((len(weights), len(thresholds)), np.nan)
    positives = weights @ ranking.positives
    for t, threshold in enumerate(thresholds):
        hits, misses = ranking.hits[threshold], ranking.misses[threshold]
        turns = _turns(hits)
        hit_sums = _sums_up_to(turns, ranking.images[hits], np.flatnonzero(hits), weights)
        miss_sums = _sums_up_to(turns, ranking.images[misses], np.flatnonzero(misses), weights)
        for row in np.flatnonzero(positives > 0):
            averages[row, t] = curve(hit_sums[row], miss_sums[row], positives[row])[1]
    return np.asarray(averages.mean(axis=1), np.float64)


def _turns(hits: Bool) -> Int64:
    """The places where a curve turns: every hit, the place in front of it, and the last.

    Recall grows at hits only, and between two hits precision only falls, so no protocol's curve touches the other
    points.
    """
    places = np.flatnonzero(hits)
    turns = np.concatenate([places, places - 1, [len(hits) - 1]])
    return np.asarray(np.unique(turns[turns >= 0]), np.int64)


def _sums_up_to(turns: Int64, images: Int64, places: Int64, weights: Float64) -> Float64:
    """Weights of the detections at ``places`` (from ``images``), summed up to each turn: float64 ``(B, turns)``.

    One matrix product per block: weights times how many detections each image has up to each turn. All are whole
    numbers, so the sums are exact.
    """
    num_images = weights.shape[1]
    sums = np.empty((len(weights), len(turns)))
    before = np.zeros(num_images)
    segments = np.searchsorted(turns, places)
    width = max(1, _CELLS // max(1, num_images))
    for start in range(0, len(turns), width):
        stop = min(start + width, len(turns))
        inside = (segments >= start) & (segments < stop)
        counts = np.zeros((num_images, stop - start))
        np.add.at(counts, (images[inside], segments[inside] - start), 1.0)
        counts = np.cumsum(counts, axis=1) + before[:, None]
        sums[:, start:stop] = weights @ counts
        before = counts[:, -1]
    return sums
