"""Rectangles as numpy arrays: corners from centres, clipping, intersection over union.

A box is ``x1, y1, x2, y2`` with ``x1 <= x2`` and ``y1 <= y2``; x points right, y points down. All
arithmetic is float32 in the order in which ONNX Runtime's NonMaxSuppression does it: a threshold then
falls the same way on both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


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
