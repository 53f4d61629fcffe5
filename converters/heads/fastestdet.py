"""FastestDet: one grid, a box per cell, activated in the network except for the place.

::

    [N, rows, columns, 5 + NC]: objectness, tx, ty, tw, th, class probabilities
    centre = (cell + tanh(t)) / grid       size = sigmoid(t)       score = objectness^0.6 * class^0.4

Source of the formulas: ``handle_preds`` of dog-qiuqiu/FastestDet (utils/tool.py), as NXP's eiq-model-zoo uses it. It
scores a box by its best class alone; here every class has a score, of which suppression across classes leaves the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from converters.heads import nodes
from converters.heads.arithmetic import Float32, clipped_corners, corners_from_centers, logit, sigmoid, split_scores
from converters.heads.base import CellHead, OneGridHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from converters.facts import SourceFacts
    from converters.graph import GraphWriter

OBJECTNESS_POWER, CLASS_POWER = np.float32(0.6), np.float32(0.4)
FARTHEST = 1 - 1e-6  # cells: tanh reaches no further


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
        names = ["head/objectness", "head/raw_xy", "head/raw_wh", "head/class_probabilities"]
        objectness, xy, wh, classes = nodes.split(writer, rows, [1, 2, 2, self.num_classes], names, axis=2)
        one, two = writer.constant(np.float32(1), "head/one_cell"), writer.constant(np.float32(2), "head/two")
        halved = nodes.sigmoid(writer, writer.op("Mul", [two, xy], "head/double_xy"), "head/sigmoid_xy")
        tanh = writer.op("Sub", [writer.op("Mul", [two, halved], "head/doubled_xy"), one], "head/tanh_xy")
        centers = self._center_nodes(writer, tanh, one_grid=True)
        half = writer.op("Div", [nodes.sigmoid(writer, wh, "head/sizes_wh"), two], "head/half_sizes_wh")
        boxes = nodes.clipped_corners(writer, centers, half, "head/boxes")
        powers = []
        for part, power, name in ((objectness, OBJECTNESS_POWER, "objectness"), (classes, CLASS_POWER, "class")):
            above = writer.op("Relu", [part], f"head/{name}_above_zero")
            exponent = writer.constant(power, f"head/{name}_exponent")
            powers.append(writer.op("Pow", [above, exponent], f"head/{name}_power"))
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
