"""Protocol ``coco``: the numbers of pycocotools' bounding-box evaluation, entry for entry.

Per image and class, detections in falling order of score each take the free ground truth of greatest IoU (of equal ones
the last), if that IoU reaches the threshold; ground truths to be ignored (crowds, and those outside an area range) are
taken only when no other fits, and a detection that takes one counts neither as hit nor as miss. Crowds may be taken any
number of times, and IoU with a crowd is intersection / area of the detection. Precision is read at 101 recalls from its
monotone envelope.

Source of the rules: pycocotools 2.0 ``COCOeval`` and ``maskApi.bbIou``; tests compare every entry of its arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xdet.evaluation.records import RECALLS, Bool, Float64, Int64, Ranking, rank_by_score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdet.evaluation.records import ScoredImage

IOU_THRESHOLDS: Float64 = np.linspace(0.5, 0.95, 10)
AREAS = {  # square pixels of the photograph, both ends included
    "all": (0.0, 1e5**2),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e5**2),
}
ABSENT = -1.0  # pycocotools' entry for a class, or an area range, without ground truth


@dataclass(frozen=True, eq=False)
class CocoArrays:
    """pycocotools' ``COCOeval.eval``: T IoU thresholds, R recalls, K classes, A areas, M limits of detections per image.

    Attributes:
        precision: float64 ``(T, R, K, A, M)``, 0..1, or -1 where there is nothing to find.
        recall: float64 ``(T, K, A, M)``, likewise.
        scores: float64 ``(T, R, K, A, M)``: the score at which that recall is reached.
        limits: the M limits.
        rankings: one per class: area "all", the greatest limit.
    """

    precision: Float64
    recall: Float64
    scores: Float64
    limits: tuple[int, ...]
    rankings: tuple[Ranking, ...]


@dataclass(frozen=True, eq=False)
class _Judged:
    """One class: its D detections in image order, judged at A areas and T thresholds.

    ``places`` is a detection's rank within its image; ``positives`` is int64 ``(A, I)``.
    """

    scores: Float64
    places: Int64
    images: Int64
    matched: Bool
    ignored: Bool
    positives: Int64


def evaluate_coco(
    images: Sequence[ScoredImage], num_classes: int, *, limits: tuple[int, ...] = (1, 10, 100)
) -> CocoArrays:
    """Evaluate detections as pycocotools does.

    Args:
        images: in order of their COCO id: scores that tie across images are ranked in this order.
        num_classes: K.
        limits: detections per image that count, rising; matching uses the last.

    Returns:
        The arrays.
    """
    shape = (len(IOU_THRESHOLDS), len(RECALLS), num_classes, len(AREAS), len(limits))
    precision, scores = np.full(shape, ABSENT), np.full(shape, ABSENT)
    recall = np.full((shape[0], *shape[2:]), ABSENT)
    rankings = []
    for class_id in range(num_classes):
        judged = _judge_class(images, class_id, limits[-1])
        for area in range(len(AREAS)):
            for m, limit in enumerate(limits):
                ranking, ranked_scores = _rank(judged, area, limit)
                if ranking.positives.any():
                    entry = np.s_[:, :, class_id, area, m]
                    precision[entry], recall[:, class_id, area, m], scores[entry] = _accumulate(ranking, ranked_scores)
        rankings.append(_rank(judged, 0, limits[-1])[0])
    return CocoArrays(precision, recall, scores, limits, tuple(rankings))


def summarize_coco(arrays: CocoArrays) -> dict[str, float | None]:
    """The twelve numbers of pycocotools by name, 0..1; None (its -1) where there is nothing to find."""
    half, three_quarters = 0, 5
    last = len(arrays.limits) - 1
    numbers = {
        "AP": _mean(arrays.precision[..., 0, last]),
        "AP50": _mean(arrays.precision[half, ..., 0, last]),
        "AP75": _mean(arrays.precision[three_quarters, ..., 0, last]),
    }
    numbers |= {f"AP_{name}": _mean(arrays.precision[..., a, last]) for a, name in enumerate(AREAS) if name != "all"}
    numbers |= {f"AR{limit}": _mean(arrays.recall[..., 0, m]) for m, limit in enumerate(arrays.limits)}
    numbers |= {f"AR_{name}": _mean(arrays.recall[..., a, last]) for a, name in enumerate(AREAS) if name != "all"}
    return numbers


def coco_curve(hits: Float64, misses: Float64, positives: float) -> tuple[Float64, float]:
    """Precision at the 101 recalls, read from the monotone envelope, and its mean; see ``records.Curve``."""
    precision = np.zeros(len(RECALLS))
    envelope = _envelope(hits, misses)
    reached = np.searchsorted(hits / positives, RECALLS, side="left")
    inside = reached < len(hits)
    precision[inside] = envelope[reached[inside]]
    return precision, float(precision.mean())


def overlaps_coco(found_xywh: Float64, truth_xywh: Float64, crowd: Bool) -> Float64:
    """IoU of every detection with every ground truth, in float64 and in pycocotools' order of operations.

    Args:
        found_xywh: float64 ``(D, 4)``.
        truth_xywh: float64 ``(G, 4)``, same unit.
        crowd: bool ``(G,)``: the denominator is the detection's area alone.

    Returns:
        float64 ``(D, G)``, 0..1.
    """
    low = np.maximum(found_xywh[:, None, :2], truth_xywh[None, :, :2])
    found_ends, truth_ends = found_xywh[:, :2] + found_xywh[:, 2:], truth_xywh[:, :2] + truth_xywh[:, 2:]
    extent = np.minimum(found_ends[:, None], truth_ends[None]) - low
    touching = (extent > 0).all(axis=-1)
    intersection = extent[..., 0] * extent[..., 1]
    found_area = (found_xywh[:, 2] * found_xywh[:, 3])[:, None]
    truth_area = (truth_xywh[:, 2] * truth_xywh[:, 3])[None]
    union = np.where(crowd, found_area, found_area + truth_area - intersection)
    overlaps = np.zeros_like(intersection)
    return np.asarray(np.divide(intersection, union, out=overlaps, where=touching), np.float64)


def match_coco(overlaps: Float64, crowd: Bool, ignore: Bool) -> tuple[Bool, Bool]:
    """Give detections to ground truths, best score first.

    Args:
        overlaps: float64 ``(D, G)``, rows in falling order of score.
        crowd: bool ``(G,)``: may be taken again and again.
        ignore: bool ``(A, G)``: per area range, ground truths that do not count.

    Returns:
        bool ``(A, T, D)`` twice: which detections took a ground truth, and which took one that does not count.
    """
    limits = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    shape = (len(ignore), len(limits), len(overlaps))
    matched, on_ignored = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    taken = np.zeros((*shape[:2], overlaps.shape[1]), np.bool_)
    for d in np.flatnonzero((overlaps >= limits[0]).any(axis=1)):
        fits = (overlaps[d] >= limits[:, None]) & (crowd | ~taken)
        counts = fits & ~ignore[:, None]
        choice = np.where(counts.any(axis=-1, keepdims=True), counts, fits)
        best = overlaps.shape[1] - 1 - np.argmax(np.where(choice, overlaps[d], -1.0)[..., ::-1], axis=-1)
        areas, thresholds = np.nonzero(choice.any(axis=-1))
        winners = best[areas, thresholds]
        taken[areas, thresholds, winners] = True
        matched[areas, thresholds, d] = True
        on_ignored[areas, thresholds, d] = ignore[areas, winners]
    return matched, on_ignored


def _judge_class(images: Sequence[ScoredImage], class_id: int, limit: int) -> _Judged:
    parts = [_judge_image(image, class_id, limit) for image in images]
    scores, matched, ignored, positives = zip(*parts, strict=True) if parts else ((), (), (), ())
    counts = [len(image_scores) for image_scores in scores]
    shape = (len(AREAS), len(IOU_THRESHOLDS), 0)
    return _Judged(
        scores=np.concatenate([np.zeros(0), *scores]),
        places=np.concatenate([np.zeros(0, np.int64), *(np.arange(count) for count in counts)]),
        images=np.repeat(np.arange(len(images)), counts),
        matched=np.concatenate([np.zeros(shape, np.bool_), *matched], axis=-1),
        ignored=np.concatenate([np.zeros(shape, np.bool_), *ignored], axis=-1),
        positives=np.stack(positives, axis=-1) if parts else np.zeros((len(AREAS), 0), np.int64),
    )


def _judge_image(image: ScoredImage, class_id: int, limit: int) -> tuple[Float64, Bool, Bool, Int64]:
    """Scores ``(D,)`` in falling order, matched and ignored ``(A, T, D)``, positives ``(A,)``."""
    truths = np.flatnonzero(image.truth_classes == class_id)
    found = np.flatnonzero(image.found_classes == class_id)
    found = found[rank_by_score(image.found_scores[found])[:limit]]
    crowd = image.truth_crowd[truths]
    ignore = crowd | _outside_areas(image.truth_areas[truths])
    boxes = image.found_xywh_px[found]
    matched, ignored = match_coco(overlaps_coco(boxes, image.truth_xywh_px[truths], crowd), crowd, ignore)
    odd_size = _outside_areas(boxes[:, 2] * boxes[:, 3])
    return image.found_scores[found], matched, ignored | (~matched & odd_size[:, None]), (~ignore).sum(axis=1)


def _outside_areas(areas: Float64) -> Bool:
    """Which of n areas lie outside each range: bool ``(A, n)``."""
    ranges = np.array(list(AREAS.values()))[:, :, None]
    return np.asarray((areas < ranges[:, 0]) | (areas > ranges[:, 1]), np.bool_)


def _rank(judged: _Judged, area: int, limit: int) -> tuple[Ranking, Float64]:
    kept = np.flatnonzero(judged.places < limit)
    order = kept[rank_by_score(judged.scores[kept])]
    matched, ignored = judged.matched[area][:, order], judged.ignored[area][:, order]
    ranking = Ranking(
        images=judged.images[order],
        hits=matched & ~ignored,
        misses=~matched & ~ignored,
        positives=judged.positives[area],
    )
    return ranking, judged.scores[order]


def _accumulate(ranking: Ranking, ranked_scores: Float64) -> tuple[Float64, Float64, Float64]:
    """Precision ``(T, R)``, recall ``(T,)`` and scores ``(T, R)`` of one ranking."""
    thresholds, positives = len(ranking.hits), float(ranking.positives.sum())
    precision, scores = np.zeros((thresholds, len(RECALLS))), np.zeros((thresholds, len(RECALLS)))
    recall = np.zeros(thresholds)
    for t in range(thresholds):
        precision[t], _ = ranking.curve(t, coco_curve)
        recalls = np.cumsum(ranking.hits[t]) / positives
        recall[t] = recalls[-1] if len(recalls) else 0.0
        reached = np.searchsorted(recalls, RECALLS, side="left")
        inside = reached < len(recalls)
        scores[t, inside] = ranked_scores[reached[inside]]
    return precision, recall, scores


def _envelope(hits: Float64, misses: Float64) -> Float64:
    """The greatest precision at this place of the ranking or behind it."""
    precision = hits / (misses + hits + np.spacing(1))
    return np.asarray(np.maximum.accumulate(precision[::-1])[::-1], np.float64)


def _mean(values: Float64) -> float | None:
    """The mean of the entries that exist."""
    present = values[values > ABSENT]
    return float(present.mean()) if len(present) else None
