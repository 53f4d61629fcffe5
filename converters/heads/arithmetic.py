"""Arithmetic that heads share, in numpy and as ONNX nodes side by side: boxes, sigmoid, cells.

A box is ``x1, y1, x2, y2`` with ``x1 <= x2`` and ``y1 <= y2``; x points right, y points down. Overlaps are float32
in the order in which ONNX Runtime's NonMaxSuppression computes them: a threshold then falls the same way on both.

Twins of the same names in ``converters.heads.nodes`` write what decodes as ONNX nodes: the same float32 operations in
the same order. The other functions make constants, or go the way back from decoded to raw values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

FARTHEST_LOGIT = 30.0  # its sigmoid is exactly 1 in float32, and that of its negative 1e-13
LEAST_PROBABILITY = 1e-13  # what a probability of 0 becomes before a softmax
SMALLEST_SIZE = 1e-6  # of the image: what an empty box becomes where sizes are logarithms


def corners_from_centers(centers_xy: Float32, half_sizes_wh: Float32, *, axis: int = -1) -> Float32:
    """Corners x1, y1, x2, y2 along ``axis`` of float32 centres and half sizes, x and y along ``axis``.

    Half sizes are >= 0; infinity gives infinite corners. ``axis`` is -1, or 1 where boxes are along the last axis.
    """
    return np.concatenate([centers_xy - half_sizes_wh, centers_xy + half_sizes_wh], axis=axis)


def clip_xyxy(boxes_xyxy: Float32, low: float = 0.0, high: float = 1.0) -> Float32:
    """Clip every coordinate of float32 boxes, infinite ones too; a box outside collapses to the border."""
    return np.clip(boxes_xyxy, np.float32(low), np.float32(high))


def area_xyxy(boxes_xyxy: Float32) -> Float32:
    """Area of boxes float32 ``(..., 4)``, in the square of their unit; 0 where a box is degenerate."""
    return _extent(boxes_xyxy[..., 0], boxes_xyxy[..., 2]) * _extent(boxes_xyxy[..., 1], boxes_xyxy[..., 3])


def iou_xyxy(first_xyxy: Float32, second_xyxy: Float32) -> Float32:
    """Intersection over union, 0..1, of boxes float32 ``(..., 4)`` of one unit, paired by broadcasting.

    ``iou_xyxy(a[:, None], b[None])`` is the matrix of all pairs. The order of operations is ONNX Runtime's:
    intersection / (area + area - intersection). Boxes that do not overlap, or have no area, have IoU 0, never NaN.
    """
    x1 = np.maximum(first_xyxy[..., 0], second_xyxy[..., 0])
    y1 = np.maximum(first_xyxy[..., 1], second_xyxy[..., 1])
    x2 = np.minimum(first_xyxy[..., 2], second_xyxy[..., 2])
    y2 = np.minimum(first_xyxy[..., 3], second_xyxy[..., 3])
    intersection = _extent(x1, x2) * _extent(y1, y2)
    union = area_xyxy(first_xyxy) + area_xyxy(second_xyxy) - intersection
    return np.asarray(np.divide(intersection, union, out=np.zeros_like(union), where=intersection > 0), np.float32)


def _extent(low: Float32, high: Float32) -> Float32:
    """Length of the interval ``low..high``, 0 where it is empty."""
    return np.asarray(np.maximum(high - low, np.float32(0)), np.float32)


def sigmoid(x: Float32) -> Float32:
    """``1 / (1 + exp(-x))`` in float32, 0..1, monotone; exactly 0 and 1 far out, without warnings."""
    with np.errstate(over="ignore"):
        return np.asarray(np.float32(1) / (np.exp(-x) + np.float32(1)), np.float32)


def softmax(x: Float32) -> Float32:
    """Softmax over the last axis in float32, the maximum subtracted first; its twin is the operator ``Softmax``."""
    with np.errstate(over="ignore"):
        powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def logit(probability: Float32) -> Float32:
    """The inverse of ``sigmoid``, within ``FARTHEST_LOGIT`` either side of 0."""
    p = np.asarray(probability, np.float64)
    with np.errstate(divide="ignore"):
        logits = np.log(p) - np.log1p(-p)
    return np.asarray(np.clip(logits, -FARTHEST_LOGIT, FARTHEST_LOGIT), np.float32)


def clipped_corners(centers_xy: Float32, half_sizes_wh: Float32, *, axis: int = -1) -> Float32:
    """Corners of boxes, clipped to 0..1; x and y, then corners, along ``axis``."""
    return clip_xyxy(corners_from_centers(centers_xy, half_sizes_wh, axis=axis))


def exponential_boxes(centers_xy: Float32, logarithms_wh: Float32, sizes_wh: Float32) -> Float32:
    """Boxes ``(N, B, 4)`` around centres, ``exp(logarithms)`` times as large as ``sizes_wh``, clipped to 0..1."""
    half_sizes = np.asarray(np.exp(logarithms_wh) * (sizes_wh / np.float32(2)), np.float32)
    return clipped_corners(centers_xy, half_sizes)


def logarithms_of(sizes_wh: Float32, of_wh: Float32) -> Float32:
    """The way back of ``exponential_boxes``: from sizes to logarithms of their multiples of ``of_wh``."""
    return np.asarray(np.log(np.maximum(sizes_wh, np.float32(SMALLEST_SIZE)) / of_wh), np.float32)


def centers_and_sizes(boxes_xyxy: Float32) -> tuple[Float32, Float32]:
    """Centres ``(..., 2)`` and sizes ``(..., 2)`` of corners ``(..., 4)``."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return (low + high) / np.float32(2), high - low


def split_scores(scores: Float32) -> tuple[Float32, Float32]:
    """Objectness ``(..., 1)`` and class probabilities ``(..., NC)`` of which ``scores`` are products; the best is 1."""
    objectness = scores.max(axis=-1, keepdims=True)
    classes = np.divide(scores, objectness, out=np.zeros_like(scores), where=objectness > 0)
    return objectness, classes


def lattice_boxes(count: int) -> Float32:
    """Boxes side by side, row by row, that part the picture into squares: float32 ``(count, 4)``."""
    side = int(np.ceil(np.sqrt(count)))
    rows, columns = np.divmod(np.arange(count), side)
    low = np.stack([columns, rows], axis=-1)
    return (np.concatenate([low, low + 1], axis=-1) / side).astype(np.float32)


def cells_xy(rows: int, columns: int) -> Float32:
    """Column and row of each cell of a grid, row by row: float32 ``(rows * columns, 2)``."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    return np.stack([column, row], axis=-1).astype(np.float32)
