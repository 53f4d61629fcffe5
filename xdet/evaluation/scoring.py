"""What every protocol shares: images with truth and detections, rankings of hits and misses, and averages of those.

Is a difference of two APs more than the choice of photographs? A paired bootstrap over images: they are drawn with
replacement, the same ones for both models, and both APs are computed anew; the spread of their differences is the
interval. An image drawn n times weighs n: its hits, misses and ground truths count n-fold. The seed is fixed, so equal
detections give equal intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float64: TypeAlias = NDArray[np.float64]
Int64: TypeAlias = NDArray[np.int64]
Bool: TypeAlias = NDArray[np.bool_]

# (weights of hits so far, weights of misses so far, weight of all ground truths) -> precision at the 101 recalls, AP
Curve: TypeAlias = Callable[[Float64, Float64, float], tuple[Float64, float]]
CrowdRule = Literal["ignore", "drop", "keep"]

RECALLS: Float64 = np.linspace(0.0, 1.0, 101)
RESAMPLES = 1000
SEED = 20170401
CONFIDENCE = 0.95
_CELLS = 4_000_000  # of a block of images x turns: 32 MB of float64


@dataclass(frozen=True, eq=False)
class ScoredImage:
    """One photograph: G ground truths and D detections, classes numbered alike."""

    size_wh: tuple[int, int]  # the photograph in pixels, as its annotation says
    truth_xywh_px: Float64  # (G, 4), x, y, width, height in pixels of the photograph
    truth_areas: Float64  # (G,), the annotated area in square pixels (of a mask where there is one)
    truth_classes: Int64  # (G,)
    truth_crowd: Bool  # (G,): a crowd; detections inside it count neither as hits nor as misses
    detected_xyxy: Float64  # (D, 4), corners as fractions of the photograph
    detected_scores: Float64  # (D,)
    detected_classes: Int64  # (D,)

    def __post_init__(self) -> None:
        truths, detections = len(self.truth_areas), len(self.detected_scores)
        expected = {
            "truth_xywh_px": (truths, 4),
            "truth_classes": (truths,),
            "truth_crowd": (truths,),
            "detected_xyxy": (detections, 4),
            "detected_classes": (detections,),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")

    @property
    def detected_xywh_px(self) -> Float64:
        """float64 ``(D, 4)``: x, y, width, height in pixels of the photograph."""
        corners = self.detected_xyxy * np.array(self.size_wh * 2, np.float64)
        return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


class Judged(NamedTuple):
    """The detections of one class in one image, best score first; the leading axes are the protocol's.

    A detection is a hit, a miss, or (on a crowd) neither.
    """

    scores: Float64  # (D,)
    hits: Bool  # (..., T, D)
    misses: Bool  # (..., T, D)
    positives: Int64  # (...), ground truths to find


@dataclass(frozen=True, eq=False)
class Ranking:
    """All detections of one class over I images, best score first, judged at T IoU thresholds."""

    images: Int64  # (D,), which image each came from
    hits: Bool  # (T, D)
    misses: Bool  # (T, D); a detection on a crowd is neither hit nor miss
    positives: Int64  # (I,), ground truths to find per image

    def curve(self, threshold: int, draw: Curve) -> tuple[Float64, float]:
        """Precision at the 101 recalls, and AP; NaN where there is nothing to find."""
        total = float(self.positives.sum())
        if total == 0:
            return np.full(len(RECALLS), np.nan), np.nan
        hits = np.cumsum(self.hits[threshold], dtype=np.float64)
        return draw(hits, np.cumsum(self.misses[threshold], dtype=np.float64), total)


def rank(images: Sequence[Judged]) -> Ranking:
    """The detections of at least one image, best score first; of equal scores those of the earlier image."""
    order = rank_by_score(np.concatenate([image.scores for image in images]))
    return Ranking(
        images=np.repeat(np.arange(len(images)), [len(image.scores) for image in images])[order],
        hits=np.concatenate([image.hits for image in images], axis=-1)[..., order],
        misses=np.concatenate([image.misses for image in images], axis=-1)[..., order],
        positives=np.stack([image.positives for image in images], axis=-1),
    )


def rank_by_score(scores: Float64) -> Int64:
    """Order of falling scores; of equal scores the earlier stays first."""
    return np.asarray(np.argsort(-scores, kind="stable"), np.int64)


def mean_of_numbers(values: Float64) -> float | None:
    """The mean of the entries that are not NaN; None where all are."""
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if len(numbers) else None


@dataclass(frozen=True, slots=True)
class Setting:
    """What decides a score besides the images."""

    num_classes: int
    network_size_wh: tuple[int, int]  # the network's input in pixels
    max_detections: int  # per image


@dataclass(frozen=True, eq=False)
class Score:
    """What a protocol says about one model."""

    metrics: dict[str, float | None]  # by name, fractions 0..1; None where there is nothing to find
    per_class: tuple[dict[str, float | None], ...]  # the metrics of Protocol.averages, per class
    rankings: tuple[Ranking, ...]  # one per class, for resampling
    precision: Float64  # (101,), its curve at Protocol.iou, the mean over classes; NaN without ground truth


Ranked = tuple[tuple[Ranking, ...], dict[str, float | None]]  # one ranking per class; metrics that are no means of APs


@dataclass(frozen=True, slots=True)
class Protocol:
    """A way to score detections."""

    crowd: CrowdRule  # what happens to crowd annotations unless the caller says otherwise
    curve: Curve
    averages: dict[str, tuple[int, ...]]  # metrics that are means over IoU thresholds and classes -> those thresholds
    rank: Callable[[Sequence[ScoredImage], Setting, float], Ranked]
    iou: float = 0.5  # from which on a detection is a hit; the first of them where the protocol has several

    def at(self, iou: float | None) -> Protocol:
        """The same way to score with another IoU, after which its metric is named: ``AP40`` at 0.4."""
        return self if iou is None else replace(self, averages={f"AP{iou * 100:.6g}": (0,)}, iou=iou)

    def score(self, images: Sequence[ScoredImage], setting: Setting) -> Score:
        """Score one model's detections; ``images`` in order of their ids."""
        rankings, metrics = self.rank(images, setting, self.iou)
        per_class = tuple(
            {name: self._average(ranking, thresholds) for name, thresholds in self.averages.items()}
            for ranking in rankings
        )
        means = {
            name: mean_of_numbers(np.array([values[name] for values in per_class], np.float64))
            for name in self.averages
            if name not in metrics
        }
        curves = [ranking.curve(0, self.curve)[0] for ranking in rankings if ranking.positives.any()]
        precision = np.mean(curves, axis=0) if curves else np.full(101, np.nan)
        return Score({**metrics, **means}, per_class, rankings, np.asarray(precision, np.float64))

    def _average(self, ranking: Ranking, thresholds: Sequence[int]) -> float | None:
        return mean_of_numbers(np.array([ranking.curve(threshold, self.curve)[1] for threshold in thresholds]))


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
    """AP of every resample, float64 ``(B,)``: the mean over IoU thresholds and over classes with ground truth in it.

    ``rankings`` are one per class, ``thresholds`` places of their IoU thresholds, ``weights`` float64 ``(B, I)``. NaN
    where a resample holds no ground truth at all.
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
