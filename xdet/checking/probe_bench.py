"""What probes are made of: the numbers that a head can hold, a pair of boxes that overlap, rows of boxes that do not count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.spec import MAX_CANDIDATES
from xdet.boxes import iou_xyxy
from xdet.decode import decode_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.spec import DetectorSpec

OVERLAPS = (0.2, 0.8)  # where the chosen pair's IoU lies
APART = 0.05  # the least difference between the two thresholds
NEIGHBOURS = 3  # cells to each side in which the pair is looked for
FILLING = 0.7  # of its place, each side of a small box


@dataclass(frozen=True, eq=False)
class Pair:
    """Two boxes that overlap.

    Attributes:
        boxes: their indices in the head, row, column, anchor flattened, the lower first.
        size: the raw width and height of both; the other raw values are 0.
        iou: their overlap.
    """

    boxes: tuple[int, int]
    size: np.float32
    iou: np.float32


@dataclass(frozen=True, eq=False)
class Bench:
    """What a probe is made of.

    Attributes:
        spec: the detector, with anchors.
        levels: float32, rising: what a raw value can be; with numbers below, at and above 0.
        pair: the chosen pair.
        score: the score threshold.
    """

    spec: DetectorSpec
    levels: NDArray[np.float32]
    pair: Pair
    score: float

    @property
    def low(self) -> np.float32:
        """The least raw value."""
        return np.float32(self.levels[0])

    @property
    def high(self) -> np.float32:
        """The greatest raw value."""
        return np.float32(self.levels[-1])

    @property
    def positive(self) -> NDArray[np.float32]:
        """Raw values above 0, rising."""
        return self.levels[self.levels > 0]

    @property
    def most_boxes(self) -> int:
        """Boxes that may count without exceeding the candidates, where runtimes may break ties differently."""
        return min(self.spec.num_boxes, MAX_CANDIDATES // len(self.spec.class_names))

    def near(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """The levels that are nearest to some values."""
        right = np.clip(np.searchsorted(self.levels, values), 1, len(self.levels) - 1)
        left, above = self.levels[right - 1], self.levels[right]
        return np.where(values - left < above - values, left, above)

    def blank(self) -> NDArray[np.float32]:
        """Rows of a head in which no box counts: float32 ``(B, 5 + classes)``, objectness lowest, the rest 0."""
        rows = np.zeros((self.spec.num_boxes, 5 + len(self.spec.class_names)), np.float32)
        rows[:, 4] = self.low
        return rows

    def as_head(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows as a raw head, ``(1, grid_h, grid_w, channels)``."""
        return rows.reshape(1, self.spec.grid_h, self.spec.grid_w, self.spec.head_channels)

    def small_boxes(self) -> NDArray[np.float32]:
        """As ``blank``, with boxes that do not overlap, as far as the levels allow: the anchors of a cell side by side."""
        assert self.spec.anchors is not None  # noqa: S101 - a bench has anchors
        rows, count = self.blank(), len(self.spec.anchors.sizes_wh)
        columns = int(np.ceil(np.sqrt(count)))
        lines = -(-count // columns)
        line, column = np.divmod(np.arange(count), columns)
        places = np.stack([(column + 0.5) / columns, (line + 0.5) / lines], axis=-1)
        fractions = np.array(self.spec.anchors.in_image_fractions(self.spec.grid_h, self.spec.grid_w))
        wanted = FILLING / np.array([columns * self.spec.grid_w, lines * self.spec.grid_h])
        cell = np.concatenate([np.log(places / (1 - places)), np.log(wanted / fractions)], axis=-1)
        rows[:, :4] = np.tile(self.near(cell), (self.spec.grid_h * self.spec.grid_w, 1))
        return rows


def find_pair(spec: DetectorSpec, levels: NDArray[np.float32], *, apart_from: float) -> Pair | None:
    """Two boxes near the middle of the picture whose IoU comes nearest to the model's threshold; None where there are none.

    Boxes of the anchors' own sizes where these overlap, else larger ones.
    """
    rows, columns = (
        np.arange(max(0, size // 2 - NEIGHBOURS), min(size, size // 2 + NEIGHBOURS + 1))
        for size in (spec.grid_h, spec.grid_w)
    )
    anchors = spec.num_boxes // (spec.grid_h * spec.grid_w)
    near = (rows[:, None, None] * spec.grid_w + columns[:, None]) * anchors + np.arange(anchors)
    indices = near.reshape(-1)
    for size in levels[levels >= 0]:
        boxes = _boxes_of_size(spec, size)[indices]
        overlaps = np.triu(iou_xyxy(boxes[:, None], boxes[None]), 1)
        fits = (overlaps > OVERLAPS[0]) & (overlaps < OVERLAPS[1]) & (np.abs(overlaps - apart_from) > APART)
        if fits.any():
            off = np.where(fits, np.abs(overlaps - spec.thresholds.iou), np.inf)
            first, second = np.unravel_index(np.argmin(off), off.shape)
            found = int(indices[first]), int(indices[second])
            return Pair(found, np.float32(size), np.float32(overlaps[first, second]))
    return None


def _boxes_of_size(spec: DetectorSpec, size: np.float32) -> NDArray[np.float32]:
    assert spec.anchors is not None  # noqa: S101 - the caller has a decoder
    xy = np.zeros((1, spec.num_boxes, 2), np.float32)
    return np.asarray(decode_boxes(xy, np.full_like(xy, size), spec, spec.anchors)[0])
