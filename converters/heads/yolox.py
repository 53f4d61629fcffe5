"""YOLOX: one raw box per cell of the grids at strides 8, 16 and 32, without anchors.

::

    [N, B, 5 + NC], or per level [N, rows, columns, 5 + NC]: tx, ty, tw, th, objectness, classes
    centre = (t + cell) * stride       size = exp(t) * stride       score = objectness * class

Objectness and classes pass a sigmoid, which exports usually have in the network. Source of the formulas:
``decode_outputs`` of Megvii-BaseDetection/YOLOX (yolox/models/yolo_head.py) and its twin in numpy, ``demo_postprocess``
(yolox/utils/demo_utils.py).

The ``st_yolo_x`` of STMicroelectronics' model zoo is no such head: its C code decodes it as YOLO v2 over three grids,
with anchors in cells (head ``yolo_v3``, classes by softmax).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from converters import require
from converters.heads import nodes
from converters.heads.arithmetic import exponential_boxes, logarithms_of, logit, sigmoid, split_scores
from converters.heads.base import STRIDES, CellHead, Level, RawOutput, misfit_of_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from converters.description.precedence import AllStatements
    from converters.facts import SourceFacts
    from converters.graph import GraphWriter
    from converters.heads.arithmetic import Float32


@dataclass(frozen=True, slots=True)
class Yolox(CellHead):
    """Grids of cells with one raw box each."""

    kind: ClassVar[str] = "yolox"
    image_wh: tuple[int, int]  # width and height of the network's input in pixels, multiples of every stride
    num_classes: int  # NC
    strides: tuple[int, ...] = STRIDES  # of the grids, in the order of the boxes
    activated: bool = True  # objectness and classes are probabilities already
    separate: bool = False  # the network has an output per level instead of one

    def __post_init__(self) -> None:
        for size in require.entries(self.image_wh, "image_wh"):
            require.count(size, "each of image_wh")
        require.pair(self.image_wh, "image_wh")
        require.count(self.num_classes, "num_classes")
        if not require.entries(self.strides, "strides"):
            raise ValueError("at least one stride is needed")
        for stride in self.strides:
            if any(size % require.count(stride, "each stride") for size in self.image_wh):
                raise ValueError(f"image_wh {self.image_wh} must be multiples of the strides, {stride} does not fit")
        require.fields(self, require.flag, "activated", "separate")

    @classmethod
    def misfit(cls, facts: SourceFacts, *, by_name: bool) -> str | None:  # noqa: ARG003 - its grids are known
        """Why a network is none; see ``Head``."""
        why = misfit_of_list(facts, by_name=False, per_cell=1, least=6)
        if why is None and facts.outputs[0].reach is not None:
            return "its boxes are decoded already (a constant multiplies them): --head yolo_v5 reads such rows"
        return why

    @classmethod
    def from_statements(cls, statements: AllStatements) -> Yolox:
        """The head of one list of all grids; see ``Head``."""
        facts = statements.facts
        classes = facts.outputs[0].shape[1] - 5
        statements.require_names(classes)
        return cls((facts.width, facts.height), classes, STRIDES, activated=bool(facts.outputs[0].activations))

    def _levels(self) -> Sequence[Level]:
        return [(self.image_wh[1] // stride, self.image_wh[0] // stride, 1) for stride in self.strides]

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """One output, or one per level."""
        if self.separate:
            return CellHead.raw_outputs(self)
        return (RawOutput("", (self.num_boxes, self._width())),)

    def _decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        rows = self.rows(outputs)
        centers = self._centers_in_grid(rows[..., 0:2])
        boxes = exponential_boxes(centers, rows[..., 2:4], self._priors_wh())
        objectness, classes = rows[..., 4:5], rows[..., 5:]
        if not self.activated:
            objectness, classes = sigmoid(objectness), sigmoid(classes)
        return boxes, objectness * classes

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``."""
        rows = self._row_nodes(writer, outputs) if self.separate else outputs[0]
        names = ["head/raw_xy", "head/raw_wh", "head/objectness_raw", "head/classes_raw"]
        xy, wh, objectness, classes = nodes.split(writer, rows, [2, 2, 1, self.num_classes], names, axis=2)
        centers = self._center_nodes(writer, xy)
        boxes = nodes.exponential_boxes(writer, centers, wh, self._priors_wh(), of="cell")
        if not self.activated:
            objectness = nodes.sigmoid(writer, objectness, "head/objectness")
            classes = nodes.sigmoid(writer, classes, "head/class_probabilities")
        return boxes, writer.op("Mul", [objectness, classes], "head/scores")

    def default_boxes(self) -> Float32:
        """The cells; a raw row of zeros is a cell shifted by half a cell up and to the left."""
        cells, grid_wh = self._cells_and_grids()
        return np.concatenate([cells / grid_wh, (cells + np.float32(1)) / grid_wh], axis=-1)

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of boxes and scores; see ``Head``. Any box can be anywhere."""
        moves, sizes = self._moves_and_sizes(boxes_xyxy)
        parts = split_scores(scores) if self.activated else map(logit, split_scores(scores))
        return self._outputs_of(moves, logarithms_of(sizes, self._priors_wh()), *parts)
