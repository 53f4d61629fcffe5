"""What every head shares: the outputs of a finished model as arrays, and names for classes that nobody named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def default_class_names(count: int) -> tuple[str, ...]:
    """``class_0`` .. for classes that nobody named."""
    return tuple(f"class_{index}" for index in range(count))


@dataclass(frozen=True, eq=False)
class BatchDetections:
    """The five outputs of the model contract for a batch of N images, K rows each.

    Attributes:
        num_detections: int32 ``(N,)``, count of valid rows.
        boxes_xyxy: float32 ``(N, K, 4)``, x1, y1, x2, y2 in 0..1 of the image; padded rows 0.
        scores: float32 ``(N, K)``, falling; padded rows 0.
        classes: int32 ``(N, K)``; padded rows -1.
        anchors: int32 ``(N, K)``, index of the source box (row, column, anchor flattened); padded rows -1.
    """

    num_detections: NDArray[np.int32]
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int32]
    anchors: NDArray[np.int32]

    def __post_init__(self) -> None:
        n, k = self.scores.shape
        expected = {
            "num_detections": (n,),
            "boxes_xyxy": (n, k, 4),
            "classes": (n, k),
            "anchors": (n, k),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                msg = f"{name} has shape {getattr(self, name).shape}, expected {shape}"
                raise ValueError(msg)
