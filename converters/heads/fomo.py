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
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from converters import require
from converters.heads import nodes
from converters.heads.arithmetic import LEAST_PROBABILITY, clipped_corners, softmax
from converters.heads.base import CellHead, OneGridHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from converters.facts import SourceFacts
    from converters.graph import GraphWriter
    from converters.heads.arithmetic import Float32

NO_PROBABILITIES = "a FOMO head is a grid of probabilities, and its output holds other numbers"
PROBABILITY_SLACK = 0.01  # codes of probabilities overshoot 0..1 by rounding of their scale alone
LOWEST = np.float32(np.finfo(np.float32).min)  # what lies beyond the border


@dataclass(frozen=True, slots=True)
class Fomo(OneGridHead):
    """A grid of class probabilities."""

    kind: ClassVar[str] = "fomo"
    numbers_besides: ClassVar[int] = 1
    size_cells: float = 1.0  # width and height of every box, in cells
    merge: bool = True  # of neighbouring cells of one class only the best counts
    activated: bool = True  # the output is probabilities; otherwise logits before their softmax

    def __post_init__(self) -> None:
        OneGridHead.__post_init__(self)
        if require.number(self.size_cells, "size_cells") <= 0:
            raise ValueError(f"size_cells must be above 0, got {self.size_cells!r}")
        require.fields(self, require.flag, "merge", "activated")

    @classmethod
    def misfit(cls, facts: SourceFacts, *, by_name: bool) -> str | None:
        """Why a network is none; see ``Head``."""
        shape = facts.outputs[0].shape
        if len(facts.outputs) != 1 or len(shape) != 3 or shape[2] < 2:
            return "a FOMO head is one output [1, rows, columns, 1 + classes]"
        if not by_name:
            return "a grid of probabilities is read as FOMO only where --head fomo says so"
        smallest, largest = facts.outputs[0].smallest, facts.outputs[0].largest
        if smallest is None or largest is None:
            activations = facts.outputs[0].activations
            return None if activations else f"{NO_PROBABILITIES}: no softmax or sigmoid stands in front"
        if smallest < -PROBABILITY_SLACK or largest > 1 + PROBABILITY_SLACK:
            return f"{NO_PROBABILITIES}: its codes hold {smallest:.4g} to {largest:.4g}, expected 0 to 1"
        return None

    def _decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        grid = outputs[0] if self.activated else softmax(outputs[0])
        scores = _keep_peaks(grid[..., 1:]) if self.merge else grid[..., 1:]
        boxes = np.repeat(self.default_boxes()[None], len(grid), axis=0)
        return boxes, np.ascontiguousarray(scores.reshape(len(grid), self.num_boxes, self.num_classes))

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``."""
        grid = outputs[0]
        if not self.activated:
            grid = writer.op("Softmax", [grid], "head/probabilities", axis=3)
        names = ["head/background", "head/grid_scores"]
        scores = nodes.split(writer, grid, [1, self.num_classes], names, axis=3)[1]
        if self.merge:
            scores = self._peak_nodes(writer, scores)
        shape = nodes.integers(writer, [-1, self.num_boxes, self.num_classes], "head/scores_shape")
        scores = writer.op("Reshape", [scores, shape], "head/scores")
        return self._box_nodes(writer, outputs[0]), scores

    def _box_nodes(self, writer: GraphWriter, batch_of: ir.Value) -> ir.Value:
        """The same boxes for every image."""
        start, end = (nodes.integers(writer, [n], f"head/batch_{n}") for n in (0, 1))
        batch = writer.op("Slice", [writer.op("Shape", [batch_of], "head/grid_shape"), start, end], "head/batch")
        one_image = nodes.integers(writer, [self.num_boxes, 4], "head/boxes_of_an_image")
        shape = writer.op("Concat", [batch, one_image], "head/boxes_shape", axis=0)
        return writer.op(
            "Expand", [writer.constant(self.default_boxes()[None], "head/cell_boxes"), shape], "head/boxes"
        )

    def _peak_nodes(self, writer: GraphWriter, scores: ir.Value) -> ir.Value:
        """The twin of ``_keep_peaks``."""
        rows, columns = self.grid_h, self.grid_w
        by_class = writer.op("Transpose", [scores], "head/scores_by_class", perm=[0, 3, 1, 2])
        pads = nodes.integers(writer, [0, 0, 1, 1, 0, 0, 1, 1], "head/border_pads")
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
        _, grid_wh = self._cells_and_grids()
        return clipped_corners(self._centers(), np.float32(self.size_cells) / np.float32(2) / grid_wh)

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:  # noqa: ARG002 - they cannot move
        """Raw outputs of scores; see ``Head``. Where cells merge, neighbours lose their scores."""
        rest = np.clip(1 - scores.sum(axis=-1, keepdims=True), 0, 1)
        if self.activated:
            return self._outputs_of(rest, scores)
        return self._outputs_of(*(np.log(np.maximum(part, np.float32(LEAST_PROBABILITY))) for part in (rest, scores)))

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        """No place, and the scores of background and classes of each cell; see ``Head``."""
        return np.pad(CellHead.rows(self, outputs), ((0, 0), (0, 0), (4, 0)))


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
        nodes.integers(writer, numbers, f"{name}:{what}")
        for what, numbers in (("starts", starts), ("ends", ends), ("axes", (2, 3)))
    ]
    return writer.op("Slice", [value, *bounds], name)
