"""Frozen results: a batch as a model's outputs give it, and one image's detections as people use them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from converters.heads.base import BatchDetections


@dataclass(frozen=True, slots=True)
class Detection:
    """One box.

    Attributes:
        box_xyxy_px: x1, y1, x2, y2 in pixels of the photograph, origin at its top left corner.
        score: confidence in 0..1.
        class_id: index into the model's classes.
        class_name: that class's name.
        anchor: index of the source box in the head.
    """

    box_xyxy_px: tuple[float, float, float, float]
    score: float
    class_id: int
    class_name: str
    anchor: int


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one image, best score first.

    Attributes:
        image: the image's name as the caller gave it.
        width: width of the photograph in pixels, after EXIF orientation where that was honoured.
        height: height in pixels.
        boxes_xyxy: float32 ``(n, 4)``, normalised to 0..1.
        scores: float32 ``(n,)``.
        classes: int32 ``(n,)``.
        anchors: int32 ``(n,)``.
        class_names: the model's classes.
    """

    image: str
    width: int
    height: int
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int32]
    anchors: NDArray[np.int32]
    class_names: tuple[str, ...]

    @classmethod
    def from_batch(
        cls,
        batch: BatchDetections,
        index: int,
        *,
        image: str,
        size_wh: tuple[int, int],
        class_names: tuple[str, ...],
    ) -> Detections:
        """Cut the valid rows of image ``index`` out of a batch."""
        n = int(batch.num_detections[index])
        return cls(
            image=image,
            width=size_wh[0],
            height=size_wh[1],
            boxes_xyxy=batch.boxes_xyxy[index, :n],
            scores=batch.scores[index, :n],
            classes=batch.classes[index, :n],
            anchors=batch.anchors[index, :n],
            class_names=class_names,
        )

    @property
    def boxes_xyxy_px(self) -> NDArray[np.float32]:
        """float32 ``(n, 4)``: the boxes in pixels of the photograph."""
        return self.boxes_xyxy * np.array([self.width, self.height, self.width, self.height], np.float32)

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        for box, score, class_id, anchor in zip(
            self.boxes_xyxy_px.tolist(),
            self.scores.tolist(),
            self.classes.tolist(),
            self.anchors.tolist(),
            strict=True,
        ):
            yield Detection(tuple(box), score, class_id, self.class_names[class_id], anchor)
