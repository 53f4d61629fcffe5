"""Protocol ``coco``: the numbers of pycocotools' bounding-box evaluation, entry for entry.

Per image and class, detections in falling order of score each take the free ground truth of greatest IoU (of equal ones
the last), if that IoU reaches the threshold; ground truths to be ignored (crowds, and those outside an area range) are
taken only when no other fits, and a detection that takes one counts neither as hit nor as miss. Crowds may be taken any
number of times, and IoU with a crowd is intersection / area of the detection. Precision is read at 101 recalls from its
monotone envelope.

Source of the rules: pycocotools 2.0 ``COCOeval`` and ``maskApi.bbIou``; tests compare every entry of its arrays.
pycocotools itself takes 2 to 7 times as long, and would make the default protocol need an extra.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xdet.evaluation.scoring import (
    RECALLS,
    Bool,
    Float64,
    Int64,
    Judged,
    Protocol,
    Ranking,
    mean_of_numbers,
    rank,
    rank_by_score,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdet.evaluation.scoring import Ranked, ScoredImage, Setting

IOU_THRESHOLDS: Float64 = np.linspace(0.5, 0.95, 10)
AREAS = {  # square pixels of the photograph, both ends included
    "all": (0.0, 1e5**2),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e5**2),
}


@dataclass(frozen=True, eq=False)
class CocoArrays:
    """pycocotools' ``COCOeval.eval``: T IoU thresholds, R recalls, K classes, A areas, M limits of detections."""

    precision: Float64  # (T, R, K, A, M), 0..1, or NaN (pycocotools has -1) where there is nothing to find
    recall: Float64  # (T, K, A, M), likewise
    limits: tuple[int, ...]  # the M limits of detections per image
    rankings: tuple[Ranking, ...]  # one per class: area "all", the greatest limit


def evaluate_coco(
    images: Sequence[ScoredImage], num_classes: int, *, limits: tuple[int, ...] = (1, 10, 100)
) -> CocoArrays:
    """Evaluate detections as pycocotools does.

    ``images`` are at least one, in order of their COCO id: scores that tie across images are ranked in this order.
    ``limits`` are detections per image that count, rising; matching uses the last.
    """
    shape = (len(IOU_THRESHOLDS), num_classes, len(AREAS), len(limits))
    recall, precision = np.full(shape, np.nan), np.full((shape[0], len(RECALLS), *shape[1:]), np.nan)
    rankings = []
    for class_id in range(num_classes):
        areas = rank([_judge_image(image, class_id, limits[-1]) for image in images])
        places = _places(areas.images)
        for area in range(len(AREAS)):
            for m, limit in enumerate(limits):
                kept = places < limit
                ranking = Ranking(
                    images=areas.images[kept],
                    hits=areas.hits[area][:, kept],
                    misses=areas.misses[area][:, kept],
                    positives=areas.positives[area],
                )
                positives = float(ranking.positives.sum())
                if positives:
                    curves = [ranking.curve(t, coco_curve)[0] for t in range(len(IOU_THRESHOLDS))]
                    precision[:, :, class_id, area, m] = curves
                    recall[:, class_id, area, m] = ranking.hits.sum(axis=1) / positives
        rankings.append(Ranking(areas.images, areas.hits[0], areas.misses[0], areas.positives[0]))
    return CocoArrays(precision, recall, limits, tuple(rankings))


def summarize_coco(arrays: CocoArrays) -> dict[str, float | None]:
    """The twelve numbers of pycocotools by name, 0..1; None (its -1) where there is nothing to find."""
    half, three_quarters = 0, 5
    numbers = {
        "AP": mean_of_numbers(arrays.precision[..., 0, -1]),
        "AP50": mean_of_numbers(arrays.precision[half, ..., 0, -1]),
        "AP75": mean_of_numbers(arrays.precision[three_quarters, ..., 0, -1]),
    }
    sizes = [(place, name) for place, name in enumerate(AREAS) if name != "all"]
    numbers |= {f"AP_{name}": mean_of_numbers(arrays.precision[..., place, -1]) for place, name in sizes}
    numbers |= {f"AR{limit}": mean_of_numbers(arrays.recall[..., 0, m]) for m, limit in enumerate(arrays.limits)}
    numbers |= {f"AR_{name}": mean_of_numbers(arrays.recall[..., place, -1]) for place, name in sizes}
    return numbers


def coco_curve(hits: Float64, misses: Float64, positives: float) -> tuple[Float64, float]:
    """Precision at the 101 recalls, read from the monotone envelope, and its mean; see ``scoring.Curve``."""
    precision = hits / (misses + hits + np.spacing(1))
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)  # 0 at recalls that are not reached
    at_recalls = envelope[np.searchsorted(hits / positives, RECALLS, side="left")]
    return at_recalls, float(at_recalls.mean())


def overlaps_coco(detected_xywh: Float64, truth_xywh: Float64, crowd: Bool) -> Float64:
    """IoU of every detection with every ground truth, 0..1, in float64 and in pycocotools' order of operations.

    Boxes are ``(D, 4)`` and ``(G, 4)`` in the same unit; where ``crowd``, ``(G,)``, the denominator is the detection's
    area alone. The result is ``(D, G)``.
    """
    low = np.maximum(detected_xywh[:, None, :2], truth_xywh[None, :, :2])
    detected_ends, truth_ends = detected_xywh[:, :2] + detected_xywh[:, 2:], truth_xywh[:, :2] + truth_xywh[:, 2:]
    extent = np.minimum(detected_ends[:, None], truth_ends[None]) - low
    touching = (extent > 0).all(axis=-1)
    intersection = extent[..., 0] * extent[..., 1]
    detected_area = (detected_xywh[:, 2] * detected_xywh[:, 3])[:, None]
    truth_area = (truth_xywh[:, 2] * truth_xywh[:, 3])[None]
    union = np.where(crowd, detected_area, detected_area + truth_area - intersection)
    overlaps = np.zeros_like(intersection)
    return np.asarray(np.divide(intersection, union, out=overlaps, where=touching), np.float64)


def match_coco(overlaps: Float64, crowd: Bool, ignore: Bool) -> tuple[Bool, Bool]:
    """Which detections take a ground truth, and which take one that does not count: bool ``(A, T, D)`` twice.

    Rows of ``overlaps``, ``(D, G)``, are in falling order of score. A ``crowd``, ``(G,)``, may be taken again and
    again; ``ignore``, ``(A, G)``, tells per area range which ground truths do not count.
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


def _judge_image(image: ScoredImage, class_id: int, limit: int) -> Judged:
    """Hits and misses ``(A, T, D)``, positives ``(A,)``."""
    truths = np.flatnonzero(image.truth_classes == class_id)
    detections = np.flatnonzero(image.detected_classes == class_id)
    detections = detections[rank_by_score(image.detected_scores[detections])[:limit]]
    crowd = image.truth_crowd[truths]
    ignore = crowd | _outside_areas(image.truth_areas[truths])
    boxes = image.detected_xywh_px[detections]
    matched, on_ignored = match_coco(overlaps_coco(boxes, image.truth_xywh_px[truths], crowd), crowd, ignore)
    outside = _outside_areas(boxes[:, 2] * boxes[:, 3])[:, None]
    return Judged(
        scores=image.detected_scores[detections],
        hits=matched & ~on_ignored,
        misses=~matched & ~outside,
        positives=(~ignore).sum(axis=1),
    )


def _outside_areas(areas: Float64) -> Bool:
    """Which of n areas lie outside each range: bool ``(A, n)``."""
    ranges = np.array(list(AREAS.values()))[:, :, None]
    return np.asarray((areas < ranges[:, 0]) | (areas > ranges[:, 1]), np.bool_)


def _places(images: Int64) -> Int64:
    """The rank of each detection within its image, of a ranking of all images."""
    order = np.argsort(images, kind="stable")
    places = np.empty(len(images), np.int64)
    places[order] = np.arange(len(images)) - np.searchsorted(images[order], images[order])
    return places


def _rank_coco(images: Sequence[ScoredImage], setting: Setting, _: float) -> Ranked:
    most = setting.max_detections
    arrays = evaluate_coco(images, setting.num_classes, limits=(*(limit for limit in (1, 10) if limit < most), most))
    return arrays.rankings, summarize_coco(arrays)


COCO = Protocol("ignore", coco_curve, {"AP": tuple(range(10)), "AP50": (0,)}, _rank_coco)
