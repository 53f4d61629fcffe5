"""The YOLO v2 head in numpy: the oracle of the head inside a finished model, function for function.

Each function has a twin of the same name in ``converters.heads`` that writes the same arithmetic as ONNX
nodes::

    split_head -> decode_boxes, decode_scores -> limit_candidates -> suppress -> select_best

Everything is float32. Per anchor the head holds tx, ty, tw, th, objectness, class logits; boxes are
flattened row, column, anchor, and candidates box, class.

One thing a runtime may do differently: ``exp`` is correctly rounded nowhere, so boxes and scores agree to
a few units in the last place (4e-7 at most). Two candidates with *different* logits whose scores are that
close may then be ranked either way, or tie on one side only (one class: logits beyond 13; several:
wherever two products happen to meet), and an IoU that close to the threshold may fall either way. Equal
logits tie everywhere. From equal boxes and scores on, every runtime that suppresses as ONNX says gives
exactly these rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from converters.heads.base import BatchDetections
from converters.heads.boxes import Float32, clip_xyxy, corners_from_centers, iou_xyxy
from converters.spec import MAX_CANDIDATES

if TYPE_CHECKING:
    from converters.spec import Anchors, DetectorSpec, Thresholds

Int64 = NDArray[np.int64]

NMS_BLOCK = 16  # candidates whose overlaps are computed at once: enough to hide numpy's cost per call


def detect_from_head(head: Float32, spec: DetectorSpec, thresholds: Thresholds) -> BatchDetections:
    """Decode a raw head and keep the best boxes, as a finished model does.

    Args:
        head: float32 ``(N, grid_h, grid_w, A * (5 + NC))``, NHWC, before any activation.
        spec: the detector; its own thresholds are not used.
        thresholds: what counts, what suppresses, and K, the number of rows.

    Returns:
        N images of K rows.

    Raises:
        ValueError: the detector has no decodable head, or the array does not fit it.
    """
    anchors = _require_anchors(head, spec)
    xy, wh, objectness, class_logits = split_head(head, spec)
    boxes = decode_boxes(xy, wh, spec, anchors)
    scores = decode_scores(objectness, class_logits)
    selected = []
    for image_boxes, image_scores in zip(boxes, scores, strict=True):
        candidates = limit_candidates(image_scores, score_threshold=thresholds.score)
        selected.append(suppress(image_boxes, candidates, image_scores.shape[1], thresholds))
    return select_best(boxes, scores, selected, thresholds.max_detections)


def split_head(head: Float32, spec: DetectorSpec) -> tuple[Float32, Float32, Float32, Float32]:
    """Flatten the head to boxes and cut it into its parts.

    Args:
        head: float32 ``(N, grid_h, grid_w, A * (5 + NC))``, NHWC.
        spec: the detector.

    Returns:
        Raw xy ``(N, B, 2)``, wh ``(N, B, 2)``, objectness ``(N, B, 1)``, class logits ``(N, B, NC)``, float32.
    """
    rows = head.reshape(len(head), spec.num_boxes, 5 + len(spec.class_names))
    return rows[..., 0:2], rows[..., 2:4], rows[..., 4:5], rows[..., 5:]


def decode_boxes(xy: Float32, wh: Float32, spec: DetectorSpec, anchors: Anchors) -> Float32:
    """Turn raw offsets and sizes into boxes: ``(sigmoid(xy) + cell) / grid`` and ``exp(wh) * anchor``.

    Args:
        xy: float32 ``(N, B, 2)``, raw.
        wh: float32 ``(N, B, 2)``, raw; an overflowing exponential is a box as large as the image.
        spec: the detector: its grid.
        anchors: its anchors.

    Returns:
        float32 ``(N, B, 4)``: x1, y1, x2, y2 as fractions of the image, clipped to 0..1.
    """
    fractions = np.array(anchors.in_image_fractions(spec.grid_h, spec.grid_w), np.float64)
    rows, columns = np.divmod(np.arange(spec.num_boxes) // len(fractions), spec.grid_w)
    cells_xy = np.stack([columns, rows], axis=-1).astype(np.float32)
    half_anchors_wh = np.tile(fractions / 2, (spec.grid_h * spec.grid_w, 1)).astype(np.float32)

    centers_xy = (sigmoid(xy) + cells_xy) / np.array([spec.grid_w, spec.grid_h], np.float32)
    with np.errstate(over="ignore"):
        half_sizes_wh = np.exp(wh) * half_anchors_wh
    return clip_xyxy(corners_from_centers(centers_xy.astype(np.float32), half_sizes_wh.astype(np.float32)))


def decode_scores(objectness: Float32, class_logits: Float32) -> Float32:
    """Score every class of every box: ``sigmoid(objectness) * softmax(class_logits)``.

    A single class has probability 1, exactly.

    Args:
        objectness: float32 ``(N, B, 1)``, raw.
        class_logits: float32 ``(N, B, NC)``, raw.

    Returns:
        float32 ``(N, B, NC)``, 0..1.
    """
    if class_logits.shape[-1] == 1:
        return sigmoid(objectness)
    return sigmoid(objectness) * softmax(class_logits)


def limit_candidates(scores: Float32, *, score_threshold: float) -> Int64:
    """Pick an image's candidates: scores above the threshold, at most ``MAX_CANDIDATES``, best first.

    Args:
        scores: float32 ``(B, NC)`` of one image.
        score_threshold: a candidate needs a score above it.

    Returns:
        int64 ``(C,)``: indices into the flattened (box, class) scores; of equal scores the lower index is first.
    """
    flat = scores.reshape(-1)
    above = np.flatnonzero(flat > np.float32(score_threshold))
    order = np.argsort(-flat[above], kind="stable")
    return np.asarray(above[order[:MAX_CANDIDATES]], np.int64)


def suppress(boxes_xyxy: Float32, candidates: Int64, num_classes: int, thresholds: Thresholds) -> Int64:
    """Drop every candidate that overlaps a better one of its class (greedy, class-aware NMS).

    Args:
        boxes_xyxy: float32 ``(B, 4)`` of one image, 0..1.
        candidates: int64 ``(C,)``, indices into the flattened (box, class) scores, best first.
        num_classes: NC.
        thresholds: a box falls when its IoU is above ``iou``; at most ``max_detections`` stay.

    Returns:
        int64 ``(kept,)``: the candidates that stay, best first.
    """
    rows, classes = np.divmod(candidates, num_classes)
    coordinates = boxes_xyxy[rows].T.copy()
    kept: list[int] = []
    remaining = np.arange(len(candidates))
    while remaining.size and len(kept) < thresholds.max_detections:
        leaders = remaining[:NMS_BLOCK]
        overlaps = iou_xyxy(coordinates[:, leaders].T[:, None], coordinates[:, remaining].T[None])
        falls = (overlaps > np.float32(thresholds.iou)) & (classes[leaders, None] == classes[remaining])
        alive = np.ones(len(remaining), np.bool_)
        for position, leader in enumerate(leaders):
            if alive[position]:
                kept.append(leader)
                alive &= ~falls[position]
        remaining = remaining[NMS_BLOCK:][alive[NMS_BLOCK:]]
    return candidates[kept[: thresholds.max_detections]]


def select_best(
    boxes_xyxy: Float32, scores: Float32, selected: list[Int64], num_rows: int
) -> BatchDetections:
    """Gather the selected candidates into rows and pad.

    Args:
        boxes_xyxy: float32 ``(N, B, 4)``.
        scores: float32 ``(N, B, NC)``.
        selected: per image int64 ``(<= num_rows,)``, indices into its flattened scores, best first.
        num_rows: K.

    Returns:
        N images of K rows; padded rows hold boxes 0, score 0, class -1, anchor -1.
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


def sigmoid(x: Float32) -> Float32:
    """``1 / (1 + exp(-x))`` in float32, 0..1; exactly 0 and 1 far out, without warnings."""
    with np.errstate(over="ignore"):
        return np.float32(1) / (np.float32(1) + np.exp(-x))


def softmax(x: Float32) -> Float32:
    """Softmax over the last axis in float32, the maximum subtracted first."""
    with np.errstate(over="ignore"):
        powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def _require_anchors(head: Float32, spec: DetectorSpec) -> Anchors:
    """The detector's anchors; raises ValueError unless ``head`` is a YOLO v2 head of this detector."""
    if spec.head != "yolo_v2" or spec.anchors is None:
        msg = f"this detector's head is {spec.head!r}: only 'yolo_v2' with anchors can be decoded into boxes"
        raise ValueError(msg)
    expected = (spec.grid_h, spec.grid_w, spec.head_channels)
    if head.ndim != 4 or head.shape[1:] != expected or head.dtype != np.float32:
        wanted = ", ".join(map(str, expected))
        msg = f"the head is {head.dtype} {head.shape}, expected float32 (N, {wanted}), NHWC"
        raise ValueError(msg)
    return spec.anchors
