"""One grid of cells with a box each, which the network has activated: FastestDet and FOMO.

FastestDet::

    [N, rows, columns, 5 + NC]: objectness, tx, ty, tw, th, class probabilities
    centre = (cell + tanh(t)) / grid       size = sigmoid(t)       score = objectness^0.6 * class^0.4

Source of the formulas: ``handle_preds`` of dog-qiuqiu/FastestDet (utils/tool.py), as NXP's eiq-model-zoo uses it. It
scores a box by its best class alone; here every class has a score, of which suppression across classes leaves the same.

FOMO, an object per cell, without boxes::

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
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from converters import require
from converters.heads import nodes
from converters.heads.arithmetic import (
    LEAST_PROBABILITY,
    Float32,
    clipped_corners,
    corners_from_centers,
    logit,
    sigmoid,
    softmax,
    split_scores,
)
from converters.heads.base import CellHead, Level

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from converters.description.precedence import AllStatements
    from converters.facts import SourceFacts
    from converters.graph import GraphWriter

OBJECTNESS_POWER, CLASS_POWER = np.float32(0.6), np.float32(0.4)
FARTHEST = 1 - 1e-6  # cells: tanh reaches no further
NO_PROBABILITIES = "a FOMO head is a grid of probabilities, and its output holds other numbers"
PROBABILITY_SLACK = 0.01  # codes of probabilities overshoot 0..1 by rounding of their scale alone
LOWEST = np.float32(np.finfo(np.float32).min)  # what lies beyond the border


@dataclass(frozen=True, slots=True)
class OneGridHead(CellHead):
    """One grid of cells with a box each."""

    numbers_besides: ClassVar[int]  # of a cell, besides those of the classes
    grid_h: int  # rows of cells
    grid_w: int  # columns of cells
    num_classes: int  # NC, without a background

    def __post_init__(self) -> None:
        require.fields(self, require.count, "grid_h", "grid_w", "num_classes")

    @classmethod
    def from_statements(cls, statements: AllStatements) -> Self:
        """The head of a grid of rows, columns and the numbers of a cell; see ``Head``."""
        rows, columns, values = statements.facts.outputs[0].shape
        statements.require_names(values - cls.numbers_besides)
        return cls(rows, columns, values - cls.numbers_besides)

    def _levels(self) -> Sequence[Level]:
        return [(self.grid_h, self.grid_w, 1)]

    def _width(self) -> int:
        return self.numbers_besides + self.num_classes


@dataclass(frozen=True, slots=True)
class FastestDet(OneGridHead):
    """A grid of cells with one box each."""

    kind: ClassVar[str] = "fastestdet"
    numbers_besides: ClassVar[int] = 5

    @classmethod
    def misfit(cls, facts: SourceFacts, *, by_name: bool) -> str | None:
        """Why a network is none; see ``Head``."""
        shape = facts.outputs[0].shape
        if len(facts.outputs) != 1 or len(shape) != 3 or shape[2] < 6:
            return "a FastestDet head is one output [1, rows, columns, 5 + classes]"
        if not by_name and len(facts.outputs[0].activations) < 2:
            return "a FastestDet head activates its objectness by a sigmoid and its classes by a softmax"
        return None

    def _decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        rows, two = CellHead.rows(self, outputs), np.float32(2)
        tanh = two * sigmoid(two * rows[..., 1:3]) - np.float32(1)
        centers = self._centers_in_grid(tanh)
        objectness = np.power(np.maximum(rows[..., 0:1], np.float32(0)), OBJECTNESS_POWER)
        classes = np.power(np.maximum(rows[..., 5:], np.float32(0)), CLASS_POWER)
        return clipped_corners(centers, sigmoid(rows[..., 3:5]) / two), np.asarray(objectness * classes, np.float32)

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``."""
        rows = self._row_nodes(writer, outputs)
        sizes = {"head/objectness": 1, "head/raw_xy": 2, "head/raw_wh": 2, "head/class_probabilities": self.num_classes}
        objectness, xy, wh, classes = nodes.split(writer, rows, sizes, axis=2)
        one, two = writer.constant(np.float32(1), "head/one_cell"), writer.constant(np.float32(2), "head/two")
        halved = nodes.sigmoid(writer, writer.op("Mul", [two, xy], "head/double_xy"), "head/sigmoid_xy")
        tanh = writer.op("Sub", [writer.op("Mul", [two, halved], "head/doubled_xy"), one], "head/tanh_xy")
        centers = self._center_nodes(writer, tanh, one_grid=True)
        half = writer.op("Div", [nodes.sigmoid(writer, wh, "head/sizes_wh"), two], "head/half_sizes_wh")
        boxes = nodes.clipped_corners(writer, centers, half, "head/boxes")
        powers = []
        for part, power, name in ((objectness, OBJECTNESS_POWER, "objectness"), (classes, CLASS_POWER, "class")):
            above = writer.op("Relu", [part], f"head/{name}_above_zero")
            powers.append(writer.op("Pow", [above, (power, f"head/{name}_exponent")], f"head/{name}_power"))
        return boxes, writer.op("Mul", powers, "head/scores")

    def default_boxes(self) -> Float32:
        """A box of half the picture around the corner of each cell, where a raw place of 0 puts it."""
        cells, grid_wh = self._cells_and_grids()
        return corners_from_centers(cells / grid_wh, np.full_like(cells, 0.25))

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of boxes and scores; see ``Head``. A centre stays within a cell of its own."""
        moves, sizes = self._moves_and_sizes(boxes_xyxy)
        objectness, classes = split_scores(scores)
        places = np.arctanh(moves.clip(-FARTHEST, FARTHEST)), logit(sizes.clip(0, 1))
        return self._outputs_of(objectness ** (1 / OBJECTNESS_POWER), *places, classes ** (1 / CLASS_POWER))

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        """Place, objectness and classes of each box; see ``Head``."""
        rows = CellHead.rows(self, outputs)
        return np.concatenate([rows[..., 1:5], rows[..., 0:1], rows[..., 5:]], axis=-1)


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
        sizes = {"head/background": 1, "head/grid_scores": self.num_classes}
        _, scores = nodes.split(writer, grid, sizes, axis=3)
        if self.merge:
            scores = self._peak_nodes(writer, scores)
        flat = [-1, self.num_boxes, self.num_classes], "head/scores_shape"
        scores = writer.op("Reshape", [scores, flat], "head/scores")
        # the same boxes for every image
        shape = writer.op("Shape", [outputs[0]], "head/grid_shape")
        batch = writer.op("Slice", [shape, ([0], "head/batch_0"), ([1], "head/batch_1")], "head/batch")
        one_image = [self.num_boxes, 4], "head/boxes_of_an_image"
        shape = writer.op("Concat", [batch, one_image], "head/boxes_shape", axis=0)
        return writer.op("Expand", [(self.default_boxes()[None], "head/cell_boxes"), shape], "head/boxes"), scores

    def _peak_nodes(self, writer: GraphWriter, scores: ir.Value) -> ir.Value:
        """The twin of ``_keep_peaks``."""
        rows, columns = self.grid_h, self.grid_w
        by_class = writer.op("Transpose", [scores], "head/scores_by_class", perm=[0, 3, 1, 2])
        pads = [0, 0, 1, 1, 0, 0, 1, 1], "head/border_pads"
        padded = writer.op("Pad", [by_class, pads, (LOWEST, "head/lowest")], "head/bordered_scores")
        of_three = writer.op("MaxPool", [padded], "head/best_of_three_columns", kernel_shape=[1, 3])
        above = nodes.sliced(writer, of_three, "head/best_above", starts=(0, 0), ends=(rows, columns), axes=(2, 3))
        below = nodes.sliced(writer, of_three, "head/best_below", starts=(2, 0), ends=(rows + 2, columns), axes=(2, 3))
        left = nodes.sliced(writer, padded, "head/left", starts=(1, 0), ends=(rows + 1, columns), axes=(2, 3))
        right = nodes.sliced(writer, padded, "head/right", starts=(1, 2), ends=(rows + 1, columns + 2), axes=(2, 3))
        before = writer.op("Max", [above, left], "head/best_before")
        after = writer.op("Max", [below, right], "head/best_after")
        beats = writer.op("Greater", [by_class, before], "head/beats_those_before")
        beaten = writer.op("Less", [by_class, after], "head/is_beaten_by_those_after")
        holds = writer.op("Not", [beaten], "head/holds_against_those_after")  # IREE has no GreaterOrEqual
        is_peak = writer.op("And", [beats, holds], "head/is_peak")
        peaks = writer.op("Where", [is_peak, by_class, (np.float32(0), "head/no_peak")], "head/peaks_by_class")
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
