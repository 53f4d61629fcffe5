"""Protocols ``zoo-3`` and ``zoo-4``: average precision as the ST model zoo publishes it, at IoU 0.5 by default.

Both match alike. Boxes are rounded (half to even) to integer pixels of the *network's input*; corners are inclusive
(width = x2 - x1 + 1), and boxes that share no pixel have IoU 0. Ground truth is clipped to ``W - 1`` and ``H - 1``,
detections are not; a box of four zeros is padding. Detections of all images in falling order of score (equal scores in
image order) each look at their single best ground truth (of equal IoU the first): a hit if that IoU reaches the
threshold and it is still free, else a miss. They differ in the area under the curve:

- ``zoo-3``: all points, under the monotone precision envelope: ``sum((r[i+1] - r[i]) * max(p[i+1:]))``.
- ``zoo-4``: no envelope. ``(0, 1)`` in front, ``(1, 0)`` behind, precision interpolated linearly at 101 recalls,
  trapezoids. Without any detection it is 0 (the two end points alone would make 0.5).

Crowds: the zoo counts them as ordinary ground truth. Where they are ignored, a detection whose best ground truth is
a crowd of at least that IoU counts neither as hit nor as miss, and the crowd need not be found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xdet.evaluation.scoring import RECALLS, Bool, Float64, Int64, Judged, Protocol, rank, rank_by_score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdet.evaluation.scoring import Ranked, ScoredImage, Setting


def rank_zoo(images: Sequence[ScoredImage], setting: Setting, iou_threshold: float) -> Ranked:
    """Match the detections of every class; from ``iou_threshold`` on a detection is a hit.

    ``images`` are at least one; scores that tie across images are ranked in this order.
    """
    rankings = (
        rank([_judge_image(image, class_id, setting.network_size_wh, iou_threshold) for image in images])
        for class_id in range(setting.num_classes)
    )
    return tuple(rankings), {}


def zoo_3_curve(hits: Float64, misses: Float64, positives: float) -> tuple[Float64, float]:
    """The envelope at the 101 recalls, and the area under all its points; see ``scoring.Curve``."""
    recall, precision = _points(hits, misses, positives)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    area = float(np.sum(np.diff(recall, prepend=0.0) * envelope[:-1]))
    return envelope[np.searchsorted(recall, RECALLS, side="left")], area


def zoo_4_curve(hits: Float64, misses: Float64, positives: float) -> tuple[Float64, float]:
    """The curve itself, interpolated at the 101 recalls, and the area of its trapezoids; see ``scoring.Curve``."""
    recall, precision = _points(hits, misses, positives)
    if not len(recall):
        return np.zeros(len(RECALLS)), 0.0
    at_recalls = np.interp(RECALLS, [0.0, *recall, 1.0], [1.0, *precision, 0.0])
    area = np.sum((at_recalls[1:] + at_recalls[:-1]) / 2 * np.diff(RECALLS))
    return at_recalls, float(area)


def truth_pixels(image: ScoredImage, network_size_wh: tuple[int, int]) -> Int64:
    """Ground truth as int64 ``(G, 4)`` corners in pixels of the network's input, clipped to its last pixel."""
    corners = np.concatenate(
        [image.truth_xywh_px[:, :2], image.truth_xywh_px[:, :2] + image.truth_xywh_px[:, 2:]], axis=1
    )
    fractions = corners / np.array(image.size_wh * 2, np.float64)
    pixels = np.rint(fractions * np.array(network_size_wh * 2)).astype(np.int64)
    return np.asarray(np.clip(pixels, 0, np.array(network_size_wh * 2) - 1), np.int64)


def detected_pixels(image: ScoredImage, network_size_wh: tuple[int, int]) -> Int64:
    """Detections as int64 ``(D, 4)`` corners in pixels of the network's input."""
    return np.asarray(np.rint(image.detected_xyxy * np.array(network_size_wh * 2)), np.int64)


def overlaps_zoo(detected_xyxy: Int64, truth_xyxy: Int64) -> Float64:
    """IoU of boxes with inclusive corners, ``(D, 4)`` and ``(G, 4)``: ``(D, G)``, 0 where no pixel is shared."""
    low = np.maximum(detected_xyxy[:, None, :2], truth_xyxy[None, :, :2])
    extent = np.minimum(detected_xyxy[:, None, 2:], truth_xyxy[None, :, 2:]) - low + 1
    intersection = np.where((extent > 0).all(axis=-1), extent[..., 0] * extent[..., 1], 0)
    union = _areas(detected_xyxy)[:, None] + _areas(truth_xyxy)[None] - intersection
    return np.asarray(intersection / union, np.float64)


def _judge_image(image: ScoredImage, class_id: int, network_size_wh: tuple[int, int], iou_threshold: float) -> Judged:
    """Ranking all images together and then matching gives the same: a detection competes within its image only."""
    truth, detected = truth_pixels(image, network_size_wh), detected_pixels(image, network_size_wh)
    truths = np.flatnonzero((image.truth_classes == class_id) & truth.any(axis=1))
    detections = np.flatnonzero((image.detected_classes == class_id) & detected.any(axis=1))
    detections = detections[rank_by_score(image.detected_scores[detections])]
    crowd = image.truth_crowd[truths]
    hits, on_crowd = _match(overlaps_zoo(detected[detections], truth[truths]), crowd, iou_threshold)
    return Judged(
        scores=image.detected_scores[detections],
        hits=hits[None],
        misses=(~hits & ~on_crowd)[None],
        positives=(~crowd).sum(),
    )


def _match(overlaps: Float64, crowd: Bool, iou_threshold: float) -> tuple[Bool, Bool]:
    """Hits, bool ``(D,)``, and detections whose best ground truth is a crowd."""
    hits, on_crowd = np.zeros(len(overlaps), np.bool_), np.zeros(len(overlaps), np.bool_)
    if not overlaps.shape[1]:
        return hits, on_crowd
    taken = np.zeros(overlaps.shape[1], np.bool_)
    best = overlaps.argmax(axis=1)
    for d in np.flatnonzero(overlaps.max(axis=1) >= iou_threshold):
        on_crowd[d] = crowd[best[d]]
        hits[d] = not (on_crowd[d] or taken[best[d]])
        taken[best[d]] = True
    return hits, on_crowd


def _points(hits: Float64, misses: Float64, positives: float) -> tuple[Float64, Float64]:
    """Recall and precision along the ranking, from the first detection that counts."""
    judged = hits + misses
    counted = judged > 0
    return hits[counted] / positives, hits[counted] / judged[counted]


def _areas(boxes_xyxy: Int64) -> Int64:
    return np.asarray((boxes_xyxy[:, 2] - boxes_xyxy[:, 0] + 1) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1] + 1), np.int64)


ZOO_3 = Protocol("keep", zoo_3_curve, {"AP50": (0,)}, rank_zoo)
ZOO_4 = Protocol("keep", zoo_4_curve, {"AP50": (0,)}, rank_zoo)
