"""Suppression in numpy: boxes and scores -> the rows of a finished model; the same for every head.

Its twins are in ``converters.heads.nms_nodes`` and ``converters.heads.suppression_nodes``::

    a head's decode -> competing_scores -> limit_candidates -> suppress -> with_further_classes -> select_best

Suppression is class-aware, unless ``DetectorSpec.suppression`` says otherwise.
Everything is float32; candidates are flattened box, class.

One thing a runtime may do differently: ``exp`` is correctly rounded nowhere, so decoded boxes and scores agree to
a few units in the last place (4e-7 at most). Two candidates with *different* logits whose scores are that
close may then be ranked either way, or tie on one side only (one class: logits beyond 13; several:
wherever two products happen to meet), and an IoU that close to the threshold may fall either way. Equal
logits tie everywhere. From equal boxes and scores on, every runtime that suppresses as ONNX says gives
exactly these rows.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from converters.heads.arithmetic import Float32, clip_xyxy, iou_xyxy
from converters.heads.base import BatchDetections, split_outputs

if TYPE_CHECKING:
    from converters.spec import DetectorSpec, Suppression, Thresholds

Int64 = NDArray[np.int64]

MAX_CANDIDATES = 4096
NMS_BLOCK = 16  # candidates whose overlaps are computed at once: enough to hide numpy's cost per call


def detect_from_head(head: Float32, spec: DetectorSpec, thresholds: Thresholds) -> BatchDetections:
    """Decode raw outputs and keep the best boxes, as a finished model does.

    Args:
        head: float32 raw outputs of N images as one array (``converters.heads.base.join_outputs``).
        spec: the detector; its own thresholds are not used.
        thresholds: what counts, what suppresses, and K, the number of rows.

    Raises:
        ValueError: the detector's head is not known, or the array does not fit it.
    """
    return detect_decoded(*_decode(head, spec), thresholds, spec.suppression)


def detect_decoded(boxes: Float32, scores: Float32, thresholds: Thresholds, rule: Suppression) -> BatchDetections:
    """Keep the best of decoded boxes ``(N, B, 4)`` and scores ``(N, B, NC)``, as a finished model does."""
    candidates = [
        limit_candidates(competing, score_threshold=thresholds.score, class_first=rule.class_first)
        for competing in competing_scores(scores, rule)
    ]
    selected = [
        with_further_classes(suppress(places, best, scores.shape[2], thresholds, rule), own, thresholds, rule)
        for places, best, own in zip(boxes, candidates, scores, strict=True)
    ]
    if rule.unclipped:
        boxes = clip_xyxy(boxes)
    return select_best(boxes, scores, selected, thresholds.max_detections)


def decode_head(head: Float32, spec: DetectorSpec) -> tuple[Float32, Float32]:
    """Every box ``(N, B, 4)`` and score ``(N, B, NC)`` of raw outputs; arguments and errors as ``detect_from_head``.

    Boxes are clipped to 0..1 unless suppression comes first (``Suppression.unclipped``). Where boxes suppress each
    other across classes and give one row each, a box has a score for its best class alone.
    """
    boxes, scores = _decode(head, spec)
    several = spec.suppression.classes_per_box > 1
    return boxes, scores if several else competing_scores(scores, spec.suppression)


def _decode(head: Float32, spec: DetectorSpec) -> tuple[Float32, Float32]:
    if spec.head is None:
        raise ValueError("this detector's head is not known (--head none): its raw outputs cannot be decoded")
    return spec.head.decode(split_outputs(head, spec.head.raw_outputs()))


def competing_scores(scores: Float32, rule: Suppression) -> Float32:
    """The scores ``(N, B, NC)`` that enter suppression: across classes each box's best, of equal ones the lowest's."""
    if not rule.across_classes:
        return scores
    best = scores.argmax(axis=-1)[..., None]
    return np.where(np.arange(scores.shape[-1]) == best, scores, np.float32(0))


def limit_candidates(scores: Float32, *, score_threshold: float, class_first: bool = False) -> Int64:
    """An image's candidates: scores above the threshold, at most ``MAX_CANDIDATES``, best first.

    Of equal scores the lower index is first; with ``class_first`` the lower class, then the lower box, but not at the
    limit. Scores are float32 ``(B, NC)``; candidates int64 ``(C,)``, indices into these, flattened.
    """
    flat = scores.reshape(-1)
    above = np.flatnonzero(flat > np.float32(score_threshold))
    order = np.argsort(-flat[above], kind="stable")
    best = np.asarray(above[order[:MAX_CANDIDATES]], np.int64)
    if class_first:
        rows, classes = np.divmod(best, scores.shape[1])
        best = best[np.lexsort((rows, classes, -flat[best]))]
    return best


def suppress(
    boxes_xyxy: Float32, candidates: Int64, num_classes: int, thresholds: Thresholds, rule: Suppression
) -> Int64:
    """Drop every candidate that overlaps a better one of its class, or of any class (greedy NMS).

    Args:
        boxes_xyxy: float32 ``(B, 4)`` of one image, 0..1.
        candidates: int64 ``(C,)``, indices into the flattened (box, class) scores, best first.
        num_classes: NC.
        thresholds: a box falls when its IoU is above ``iou``; at most as many stay as fill ``max_detections`` rows.
        rule: whether across classes, and how many of each stay.

    Returns:
        int64 ``(kept,)``: the candidates that stay, best first.
    """
    rows, classes = np.divmod(candidates, num_classes)
    most, limit = rule.per_class, rule.max_boxes(thresholds.max_detections)
    if rule.across_classes:
        classes = np.zeros_like(classes)
    coordinates = boxes_xyxy[rows].T.copy()
    kept: list[int] = []
    of_class: Counter[int] = Counter()
    remaining = np.arange(len(candidates))
    while remaining.size and len(kept) < limit:
        leaders = remaining[:NMS_BLOCK]
        overlaps = iou_xyxy(coordinates[:, leaders].T[:, None], coordinates[:, remaining].T[None])
        falls = (overlaps > np.float32(thresholds.iou)) & (classes[leaders, None] == classes[remaining])
        alive = np.ones(len(remaining), np.bool_)
        for position, leader in enumerate(leaders):
            if alive[position] and (most is None or of_class[classes[leader]] < most):
                kept.append(leader)
                of_class[classes[leader]] += 1
                alive &= ~falls[position]
        remaining = remaining[NMS_BLOCK:][alive[NMS_BLOCK:]]
    return candidates[kept[:limit]]


def with_further_classes(kept: Int64, scores: Float32, thresholds: Thresholds, rule: Suppression) -> Int64:
    """The rows of boxes that stay: each with its best classes, of equal ones the lowest, whose scores count.

    ``kept`` and the result are int64: indices into the flattened scores, float32 ``(B, NC)`` of one image, best first,
    of equal ones the lower index. A row needs a score above the threshold; at most ``max_detections`` rows stay.
    """
    if rule.classes_per_box == 1:
        return kept
    boxes = kept // scores.shape[1]
    classes = np.argsort(-scores[boxes], axis=1, kind="stable")[:, : rule.classes_per_box]
    rows, flat = (boxes[:, None] * scores.shape[1] + classes).reshape(-1), scores.reshape(-1)
    counting = rows[flat[rows] > np.float32(thresholds.score)]
    order = np.lexsort((counting, -flat[counting]))
    return np.asarray(counting[order][: thresholds.max_detections], np.int64)


def select_best(boxes_xyxy: Float32, scores: Float32, selected: list[Int64], num_rows: int) -> BatchDetections:
    """Gather the selected candidates into K = ``num_rows`` rows, padded with boxes 0, score 0, class -1, anchor -1.

    Boxes are float32 ``(N, B, 4)``, scores ``(N, B, NC)``; selected, per image, int64 ``(<= K,)``: indices into its
    flattened scores, best first.
    """
    n, _, num_classes = scores.shape
    result = BatchDetections(
        num_detections=np.array([len(indices) for indices in selected], np.int32),
        boxes_xyxy=np.zeros((n, num_rows, 4), np.float32),
        scores=np.zeros((n, num_rows), np.float32),
        classes=np.full((n, num_rows), -1, np.int32),
        anchors=np.full((n, num_rows), -1, np.int32),
    )
    for image, indices in enumerate(selected):
        rows, classes = np.divmod(indices, num_classes)
        valid = slice(0, len(indices))
        result.boxes_xyxy[image, valid] = boxes_xyxy[image, rows]
        result.scores[image, valid] = scores[image, rows, classes]
        result.classes[image, valid] = classes
        result.anchors[image, valid] = rows
    return result
