"""FOMO: a grid of class probabilities, an object per cell, without boxes.

::

    [N, rows, columns, 1 + NC]: probabilities (or logits before their softmax), the background first
    box = the cell, or a square of another size around its centre       score = class

Cells next to each other that see the same object count once: a cell keeps its score only where none of its eight
neighbours has a higher one of the same class, nor an equal one that comes before it, row by row.

Source of the layout: ``process_fomo_f32`` and ``ei_handle_cube`` of edgeimpulse/inferencing-sdk-cpp
(classifier/ei_fill_result_struct.h). Its code joins neighbours above the threshold to one growing box with the highest
score. For objects with one peak this head finds the same number, classes and scores; its box is the best cell, not the
whole patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from converters.checks import require_count, require_flag, require_number
from converters.heads.arithmetic import LEAST_PROBABILITY, cells_xy, clipped_corners, softmax, split_nodes
from converters.heads.base import HeadBase, RawOutput, read_values, require_arrays, require_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from converters.graph import GraphWriter
    from converters.heads.boxes import Float32

LOWEST = np.float32(np.finfo(np.float32).min)  # what lies beyond the border


@dataclass(frozen=True, slots=True)
class Fomo(HeadBase):
    """A grid of class probabilities.

    Attributes:
        grid_h: rows of cells.
        grid_w: columns of cells.
        num_classes: NC, without the background.
        size_cells: width and height of every box, in cells.
        merge: of neighbouring cells of one class only the best counts.
        activated: the output is probabilities; otherwise logits before their softmax.
    """

    kind: ClassVar[str] = "fomo"
    grid_h: int
    grid_w: int
    num_classes: int
    size_cells: float = 1.0
    merge: bool = True
    activated: bool = True

    def __post_init__(self) -> None:
        require_count(self.grid_h, "grid_h")
        require_count(self.grid_w, "grid_w")
        require_count(self.num_classes, "num_classes")
        if require_number(self.size_cells, "size_cells") <= 0:
            raise ValueError(f"size_cells must be above 0, got {self.size_cells!r}")
        require_flag(self.merge, "merge")
        require_flag(self.activated, "activated")

    @property
    def num_boxes(self) -> int:
        """Cells."""
        return self.grid_h * self.grid_w

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """The one output, ``[rows, columns, 1 + NC]``."""
        return (RawOutput("", (self.grid_h, self.grid_w, 1 + self.num_classes)),)

    def decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        """Boxes and scores of raw outputs; see ``Head``."""
        require_arrays(self, outputs)
        grid = outputs[0] if self.activated else softmax(outputs[0])
        scores = grid[..., 1:]
        if self.merge:
            scores = _keep_peaks(scores)
        boxes = np.repeat(self._boxes()[None], len(grid), axis=0)
        return boxes, np.ascontiguousarray(scores.reshape(len(grid), self.num_boxes, self.num_classes))

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``."""
        require_values(self, outputs)
        grid = outputs[0]
        if not self.activated:
            grid = writer.op("Softmax", [grid], "head/probabilities", axis=3)
        names = ["head/background", "head/grid_scores"]
        scores = split_nodes(writer, grid, [1, self.num_classes], names, axis=3)[1]
        if self.merge:
            scores = self._peak_nodes(writer, scores)
        shape = writer.constant(np.array([-1, self.num_boxes, self.num_classes], np.int64), "head/scores_shape")
        scores = writer.op("Reshape", [scores, shape], "head/scores")
        return self._box_nodes(writer, outputs[0]), scores

    def _box_nodes(self, writer: GraphWriter, batch_of: ir.Value) -> ir.Value:
        """The same boxes for every image."""
        start, end = (writer.constant(np.array([n], np.int64), f"head/batch_{n}") for n in (0, 1))
        batch = writer.op("Slice", [writer.op("Shape", [batch_of], "head/grid_shape"), start, end], "head/batch")
        one_image = writer.constant(np.array([self.num_boxes, 4], np.int64), "head/boxes_of_an_image")
        shape = writer.op("Concat", [batch, one_image], "head/boxes_shape", axis=0)
        return writer.op("Expand", [writer.constant(self._boxes()[None], "head/cell_boxes"), shape], "head/boxes")

    def _peak_nodes(self, writer: GraphWriter, scores: ir.Value) -> ir.Value:
        """The twin of ``_keep_peaks``."""
        rows, columns = self.grid_h, self.grid_w
        by_class = writer.op("Transpose", [scores], "head/scores_by_class", perm=[0, 3, 1, 2])
        pads = writer.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "head/border_pads")
        padded = writer.op("Pad", [by_class, pads, writer.constant(LOWEST, "head/lowest")], "head/bordered_scores")
        of_three = writer.op("MaxPool", [padded], "head/best_of_three_columns", kernel_shape=[1, 3])
        above = _slice(writer, of_three, (0, 0), (rows, columns), "head/best_above")
        below = _slice(writer, of_three, (2, 0), (rows + 2, columns), "head/best_below")
        left = _slice(writer, padded, (1, 0), (rows + 1, columns), "head/left")
        right = _slice(writer, padded, (1, 2), (rows + 1, columns + 2), "head/right")
        before = writer.op("Max", [above, left], "head/best_before")
        after = writer.op("Max", [below, right], "head/best_after")
        beats = writer.op("Greater", [by_class, before], "head/beats_those_before")
        beaten = writer.op("Less", [by_class, after], "head/is_beaten_by_those_after")
        holds = writer.op("Not", [beaten], "head/holds_against_those_after")  # IREE has no GreaterOrEqual
        is_peak = writer.op("And", [beats, holds], "head/is_peak")
        none = writer.constant(np.float32(0), "head/no_peak")
        peaks = writer.op("Where", [is_peak, by_class, none], "head/peaks_by_class")
        return writer.op("Transpose", [peaks], "head/peaks", perm=[0, 2, 3, 1])

    def default_boxes(self) -> Float32:
        """The boxes, which nothing moves."""
        return self._boxes()

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of scores; see ``Head``. The boxes cannot be asked; where cells merge, neighbours lose their scores."""
        rest = np.clip(1 - scores.sum(axis=-1, keepdims=True), 0, 1)
        grid = np.concatenate([rest, scores], axis=-1).astype(np.float32)
        if not self.activated:
            grid = np.log(np.maximum(grid, np.float32(LEAST_PROBABILITY)))
        return (grid.reshape(len(boxes_xyxy), self.grid_h, self.grid_w, -1),)

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        """No place, and the scores of background and classes of each cell; see ``Head``."""
        scores = outputs[0].reshape(len(outputs[0]), self.num_boxes, 1 + self.num_classes)
        return np.pad(scores, ((0, 0), (0, 0), (4, 0)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote; see ``Head``."""
        keys = ("grid_h", "grid_w", "num_classes", "size_cells", "merge", "activated")
        return cls(*read_values(cls.kind, data, *keys))

    def _boxes(self) -> Float32:
        grid_wh = np.array([self.grid_w, self.grid_h], np.float32)
        centers = (cells_xy(self.grid_h, self.grid_w) + np.float32(0.5)) / grid_wh
        half = np.broadcast_to(np.float32(self.size_cells) / np.float32(2) / grid_wh, centers.shape)
        return clipped_corners(centers, half)


def _keep_peaks(scores: Float32) -> Float32:
    """Scores ``(N, rows, columns, NC)`` of the cells that keep them, 0 elsewhere: the module tells which."""
    padded = np.pad(scores, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=LOWEST)
    of_three = np.maximum(np.maximum(padded[:, :, :-2], padded[:, :, 1:-1]), padded[:, :, 2:])
    before = np.maximum(of_three[:, :-2], padded[:, 1:-1, :-2])
    after = np.maximum(of_three[:, 2:], padded[:, 1:-1, 2:])
    return np.where((scores > before) & (scores >= after), scores, np.float32(0))


def _slice(writer: GraphWriter, value: ir.Value, starts: tuple[int, int], ends: tuple[int, int], name: str) -> ir.Value:
    """A rectangle of rows and columns of a value ``[N, NC, rows, columns]``."""
    bounds = [
        writer.constant(np.array(numbers, np.int64), f"{name}:{what}")
        for what, numbers in (("starts", starts), ("ends", ends), ("axes", (2, 3)))
    ]
    return writer.op("Slice", [value, *bounds], name)
