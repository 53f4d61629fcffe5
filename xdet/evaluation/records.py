"""What every protocol starts from and arrives at: images with truth and detections, rankings of hits and misses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Float64: TypeAlias = NDArray[np.float64]
Int64: TypeAlias = NDArray[np.int64]
Bool: TypeAlias = NDArray[np.bool_]

# (weights of hits so far, weights of misses so far, weight of all ground truths) -> precision at the 101 recalls, AP
Curve: TypeAlias = Callable[[Float64, Float64, float], tuple[Float64, float]]

RECALLS: Float64 = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, eq=False)
class ScoredImage:
    """One photograph: G ground truths and D detections, classes numbered alike."""

    size_wh: tuple[int, int]  # the photograph in pixels, as its annotation says
    truth_xywh_px: Float64  # (G, 4), x, y, width, height in pixels of the photograph
    truth_areas: Float64  # (G,), the annotated area in square pixels (of a mask where there is one)
    truth_classes: Int64  # (G,)
    truth_crowd: Bool  # (G,): a crowd; detections inside it count neither as hits nor as misses
    detected_xyxy: Float64  # (D, 4), corners as fractions of the photograph
    detected_scores: Float64  # (D,)
    detected_classes: Int64  # (D,)

    def __post_init__(self) -> None:
        truths, detections = len(self.truth_areas), len(self.detected_scores)
        expected = {
            "truth_xywh_px": (truths, 4),
            "truth_classes": (truths,),
            "truth_crowd": (truths,),
            "detected_xyxy": (detections, 4),
            "detected_classes": (detections,),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")

    @property
    def detected_xywh_px(self) -> Float64:
        """float64 ``(D, 4)``: x, y, width, height in pixels of the photograph."""
        corners = self.detected_xyxy * np.array(self.size_wh * 2, np.float64)
        return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


class Judged(NamedTuple):
    """The detections of one class in one image, best score first; the leading axes are the protocol's.

    A detection is a hit, a miss, or (on a crowd) neither.
    """

    scores: Float64  # (D,)
    hits: Bool  # (..., T, D)
    misses: Bool  # (..., T, D)
    positives: Int64  # (...), ground truths to find


@dataclass(frozen=True, eq=False)
class Ranking:
    """All detections of one class over I images, best score first, judged at T IoU thresholds."""

    images: Int64  # (D,), which image each came from
    hits: Bool  # (T, D)
    misses: Bool  # (T, D); a detection on a crowd is neither hit nor miss
    positives: Int64  # (I,), ground truths to find per image

    def curve(self, threshold: int, draw: Curve) -> tuple[Float64, float]:
        """Precision at the 101 recalls, and AP; NaN where there is nothing to find."""
        total = float(self.positives.sum())
        if total == 0:
            return np.full(len(RECALLS), np.nan), np.nan
        hits = np.cumsum(self.hits[threshold], dtype=np.float64)
        return draw(hits, np.cumsum(self.misses[threshold], dtype=np.float64), total)


def rank(images: Sequence[Judged]) -> Ranking:
    """The detections of at least one image, best score first; of equal scores those of the earlier image."""
    order = rank_by_score(np.concatenate([image.scores for image in images]))
    return Ranking(
        images=np.repeat(np.arange(len(images)), [len(image.scores) for image in images])[order],
        hits=np.concatenate([image.hits for image in images], axis=-1)[..., order],
        misses=np.concatenate([image.misses for image in images], axis=-1)[..., order],
        positives=np.stack([image.positives for image in images], axis=-1),
    )


def rank_by_score(scores: Float64) -> Int64:
    """Order of falling scores; of equal scores the earlier stays first."""
    return np.asarray(np.argsort(-scores, kind="stable"), np.int64)


def mean_of_numbers(values: Float64) -> float | None:
    """The mean of the entries that are not NaN; None where all are."""
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if len(numbers) else None
