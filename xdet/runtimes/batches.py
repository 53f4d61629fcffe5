"""Any number of images on a model with a fixed batch, and fewer rows of a result; no value changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xdet.detections import BatchDetections

Arrays = Sequence[NDArray[Any]]


def run_in_chunks(
    images: NDArray[np.uint8], batch: int | None, run: Callable[[NDArray[np.uint8]], Arrays]
) -> Arrays:
    """Call ``run`` with ``batch`` images at a time and join its outputs along the first axis.

    The last chunk is filled up with black images, whose results are cut off.

    Args:
        images: uint8 ``(N >= 1, height, width, 3)``.
        batch: the number ``run`` takes, or None for all at once.
        run: images -> arrays that each have one entry per image.
    """
    if batch is None or len(images) == batch:
        return run(images)
    parts = []
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch]
        filler = np.zeros((batch - len(chunk), *chunk.shape[1:]), chunk.dtype)
        outputs = run(np.concatenate([chunk, filler]) if len(filler) else chunk)
        parts.append([output[: len(chunk)] for output in outputs])
    return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]


def above_score(batch: BatchDetections, score: float) -> BatchDetections:
    """Keep the rows with a score > ``score`` (compared in float32); the others become padding."""
    count = (batch.scores > np.float32(score)).sum(
        axis=1, dtype=np.int32
    )  # rows fall by score: the kept ones lead
    count = np.minimum(count, batch.num_detections)
    keep = np.arange(batch.scores.shape[1]) < count[:, None]
    return BatchDetections(
        num_detections=count,
        boxes_xyxy=np.where(keep[..., None], batch.boxes_xyxy, np.float32(0)),
        scores=np.where(keep, batch.scores, np.float32(0)),
        classes=np.where(keep, batch.classes, np.int32(-1)),
        anchors=np.where(keep, batch.anchors, np.int32(-1)),
    )


def first_rows(batch: BatchDetections, rows: int) -> BatchDetections:
    """Keep the best ``rows`` rows of each image."""
    if rows >= batch.scores.shape[1]:
        return batch
    return BatchDetections(
        num_detections=np.minimum(batch.num_detections, np.int32(rows)),
        boxes_xyxy=batch.boxes_xyxy[:, :rows],
        scores=batch.scores[:, :rows],
        classes=batch.classes[:, :rows],
        anchors=batch.anchors[:, :rows],
    )
