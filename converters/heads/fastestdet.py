"""FastestDet: one grid, a box per cell, activated in the network except for the place.

::

    [N, rows, columns, 5 + NC]: objectness, tx, ty, tw, th, class probabilities
    centre = (cell + tanh(t)) / grid       size = sigmoid(t)       score = objectness^0.6 * class^0.4

Source of the formulas: ``handle_preds`` of dog-qiuqiu/FastestDet (utils/tool.py), as NXP's eiq-model-zoo uses it. It
scores a box by its best class alone; here every class has a score, of which suppression across classes leaves the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from converters.checks import require_count
from converters.heads.arithmetic import (
    cells_xy,
    centers_and_sizes,
    clipped_corners,
    clipped_corners_nodes,
    logit,
    sigmoid,
    sigmoid_nodes,
    split_nodes,
    split_scores,
)
from converters.heads.base import HeadBase, RawOutput, read_values, require_arrays, require_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from converters.graph import GraphWriter
    from converters.heads.boxes import Float32

OBJECTNESS_POWER, CLASS_POWER = np.float32(0.6), np.float32(0.4)
FARTHEST = 1 - 1e-6  # cells: tanh reaches no further


@dataclass(frozen=True, slots=True)
class FastestDet(HeadBase):
    """A grid of cells with one box each.

    Attributes:
        grid_h: rows of cells.
        grid_w: columns of cells.
        num_classes: NC.
    """

    kind: ClassVar[str] = "fastestdet"
    grid_h: int
    grid_w: int
    num_classes: int

    def __post_init__(self) -> None:
        require_count(self.grid_h, "grid_h")
        require_count(self.grid_w, "grid_w")
        require_count(self.num_classes, "num_classes")

    @property
    def num_boxes(self) -> int:
        """Cells."""
        return self.grid_h * self.grid_w

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """The one output, ``[rows, columns, 5 + NC]``."""
        return (RawOutput("", (self.grid_h, self.grid_w, 5 + self.num_classes)),)

    def decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        """Boxes and scores of raw outputs; see ``Head``."""
        require_arrays(self, outputs)
        rows, two = self._by_box(outputs), np.float32(2)
        with np.errstate(over="ignore"):
            tanh = two * sigmoid(two * rows[..., 1:3]) - np.float32(1)
        centers = np.asarray((tanh + self._cells()) / self._grid_wh(), np.float32)
        powers = [
            np.power(np.maximum(part, np.float32(0)), power)
            for part, power in ((rows[..., 0:1], OBJECTNESS_POWER), (rows[..., 5:], CLASS_POWER))
        ]
        with np.errstate(over="ignore"):
            return clipped_corners(centers, sigmoid(rows[..., 3:5]) / two), np.asarray(
                powers[0] * powers[1], np.float32
            )

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``."""
        require_values(self, outputs)
        shape = writer.constant(np.array([-1, self.num_boxes, 5 + self.num_classes], np.int64), "head/rows_shape")
        rows = writer.op("Reshape", [outputs[0], shape], "head/rows")
        names = ["head/objectness", "head/raw_xy", "head/raw_wh", "head/class_probabilities"]
        objectness, xy, wh, classes = split_nodes(writer, rows, [1, 2, 2, self.num_classes], names, axis=2)
        one, two = writer.constant(np.float32(1), "head/one_cell"), writer.constant(np.float32(2), "head/two")
        halved = sigmoid_nodes(writer, writer.op("Mul", [two, xy], "head/double_xy"), "head/sigmoid_xy")
        tanh = writer.op("Sub", [writer.op("Mul", [two, halved], "head/doubled_xy"), one], "head/tanh_xy")
        shifted = writer.op("Add", [tanh, writer.constant(self._cells(), "head/cells_xy")], "head/centers_xy_cells")
        centers = writer.op("Div", [shifted, writer.constant(self._grid_wh(), "head/grid_wh")], "head/centers_xy")
        half = writer.op("Div", [sigmoid_nodes(writer, wh, "head/sizes_wh"), two], "head/half_sizes_wh")
        boxes = clipped_corners_nodes(writer, centers, half, "head/boxes")
        powers = []
        for part, power, name in ((objectness, OBJECTNESS_POWER, "objectness"), (classes, CLASS_POWER, "class")):
            above = writer.op("Relu", [part], f"head/{name}_above_zero")
            exponent = writer.constant(power, f"head/{name}_exponent")
            powers.append(writer.op("Pow", [above, exponent], f"head/{name}_power"))
        return boxes, writer.op("Mul", powers, "head/scores")

    def default_boxes(self) -> Float32:
        """A box of half the picture around the corner of each cell, where a raw place of 0 puts it."""
        centers = self._cells() / self._grid_wh()
        return np.concatenate([centers - np.float32(0.25), centers + np.float32(0.25)], axis=-1)

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of boxes and scores; see ``Head``. A centre stays within a cell of its own."""
        centers, sizes = centers_and_sizes(boxes_xyxy)
        moves = (centers * self._grid_wh() - self._cells()).clip(-FARTHEST, FARTHEST)
        objectness, classes = split_scores(scores)
        probabilities = objectness ** (1 / OBJECTNESS_POWER), classes ** (1 / CLASS_POWER)
        rows = np.concatenate([probabilities[0], np.arctanh(moves), logit(sizes.clip(0, 1)), probabilities[1]], axis=-1)
        return (rows.astype(np.float32).reshape(len(scores), self.grid_h, self.grid_w, -1),)

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        """Place, objectness and classes of each box; see ``Head``."""
        rows = self._by_box(outputs)
        return np.concatenate([rows[..., 1:5], rows[..., 0:1], rows[..., 5:]], axis=-1)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote; see ``Head``."""
        return cls(*read_values(cls.kind, data, "grid_h", "grid_w", "num_classes"))

    def _by_box(self, outputs: Sequence[Float32]) -> Float32:
        return outputs[0].reshape(len(outputs[0]), self.num_boxes, 5 + self.num_classes)

    def _cells(self) -> Float32:
        return cells_xy(self.grid_h, self.grid_w)

    def _grid_wh(self) -> Float32:
        return np.array([self.grid_w, self.grid_h], np.float32)
