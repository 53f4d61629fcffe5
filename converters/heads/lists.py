"""One list of boxes over all grids of cells: YOLO v5 and v7, YOLO v8, v9 and v11, and YOLOX.

Boxes that the network has decoded, anywhere in the picture::

    yolo_v5   [N, B, 5 + NC]: cx, cy, w, h, objectness, class probabilities       score = objectness * class
    yolo_v8   [N, 4 + NC, B]: cx, cy, w, h, class probabilities                   x1 = (cx - w / 2) / width, and so on

Sources of the layouts: the ``Detect`` layers of ultralytics/yolov5 (models/yolo.py), with the product of scores in its
``non_max_suppression``, and of ultralytics/ultralytics (nn/modules/head.py). Boxes are in pixels; exports to TFLite
(models/tf.py) divide them by the picture's size, so that int8 codes reach.

YOLOX, one raw box per cell of the grids at strides 8, 16 and 32, without anchors::

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
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from converters import require
from converters.heads import nodes
from converters.heads.arithmetic import (
    Float32,
    centers_and_sizes,
    clipped_corners,
    exponential_boxes,
    lattice_boxes,
    logarithms_of,
    logit,
    sigmoid,
    split_scores,
)
from converters.heads.base import CellHead, Head, Level, RawOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from converters.description.precedence import AllStatements
    from converters.facts import SourceFacts
    from converters.graph import GraphWriter

STRIDES = (8, 16, 32)  # of the three grids that YOLO heads usually have
LARGEST_FRACTION = 4.0  # codes that reach no further are fractions of the picture; pixels reach its size


def misfit_of_list(facts: SourceFacts, *, by_name: bool, per_cell: int, least: int, by_box: bool = True) -> str | None:
    """Why an output is no list of so many boxes per cell (of any, by name), box by box or value by value."""
    shape = facts.outputs[0].shape
    if len(facts.outputs) != 1 or len(shape) != 2:
        return "one list of boxes is expected"
    boxes, values = shape if by_box else shape[::-1]
    if values < least or boxes <= values:
        order = "boxes by values" if by_box else "values by boxes"
        return f"one list of boxes is expected, {order}, of {least} values or more"
    has_grids = facts.height % STRIDES[-1] == facts.width % STRIDES[-1] == 0
    cells = sum((facts.height // stride) * (facts.width // stride) for stride in STRIDES) if has_grids else 0
    if boxes == per_cell * cells or by_name:
        return None
    return f"{per_cell} boxes in each cell of the strides {STRIDES} make {per_cell * cells} boxes, found {boxes}"


@dataclass(frozen=True, slots=True)
class DecodedHead(Head):
    """Centres and sizes."""

    num_boxes: int  # B
    num_classes: int  # NC
    # the picture's width and height in the unit of the boxes: (1, 1) for fractions, else its size in pixels
    extent_wh: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        require.fields(self, require.count, "num_boxes", "num_classes")
        require.pair(self.extent_wh, "extent_wh")

    @classmethod
    def _of_list(cls, statements: AllStatements, boxes: int, classes: int) -> Self:
        """The head of a list; pixels where codes or strides reach that far, else fractions of the picture."""
        facts, output = statements.facts, statements.facts.outputs[0]
        statements.require_names(classes)
        if max(output.largest or 0, output.reach or 0) <= LARGEST_FRACTION:
            return cls(boxes, classes, (1.0, 1.0))
        return cls(boxes, classes, (float(facts.width), float(facts.height)))

    def default_boxes(self) -> Float32:
        """Boxes side by side: any box can be anywhere."""
        return lattice_boxes(self.num_boxes)

    def _corners(self, centers: Float32, sizes: Float32, *, axis: int) -> Float32:
        """Corners as fractions of the picture; x and y along ``axis``, which is 1 or the last."""
        extent = self._extent(axis)
        half_sizes = sizes / (extent * np.float32(2))
        half_sizes = np.maximum(half_sizes, np.float32(0))  # the least code of a size can lie below 0
        return clipped_corners(centers / extent, half_sizes, axis=axis)

    def _corner_nodes(
        self, writer: GraphWriter, centers: ir.Value, sizes: ir.Value, name: str, *, axis: int
    ) -> ir.Value:
        """The twin of ``_corners``."""
        extent = self._extent(axis)
        if self.extent_wh != (1, 1):
            centers = writer.op("Div", [centers, (extent, "head/extent_wh")], "head/centers_xy")
        double = extent * np.float32(2), "head/double_extent_wh"
        half_sizes = writer.op("Div", [sizes, double], "head/half_sizes_wh_raw")
        half_sizes = writer.op("Relu", [half_sizes], "head/half_sizes_wh")
        return nodes.clipped_corners(writer, centers, half_sizes, name, axis=axis)

    def _places_of(self, boxes_xyxy: Float32) -> list[Float32]:
        """Centres and sizes of corners, in the unit of the boxes."""
        return [part * np.array(self.extent_wh, np.float32) for part in centers_and_sizes(boxes_xyxy)]

    def _extent(self, axis: int) -> Float32:
        """Width and height along ``axis``; one number where they are equal, which runtimes divide by much faster."""
        extent = np.array(self.extent_wh, np.float32)
        if extent[0] == extent[1]:
            return np.array(extent[0], np.float32)
        return extent[:, None] if axis == 1 else extent


@dataclass(frozen=True, slots=True)
class YoloV5(DecodedHead):
    """A decoded head with objectness; see ``DecodedHead`` for its parameters."""

    kind: ClassVar[str] = "yolo_v5"

    @classmethod
    def misfit(cls, facts: SourceFacts, *, by_name: bool) -> str | None:
        """Why a network is none; see ``Head``. Three boxes per cell tell it from the others."""
        return misfit_of_list(facts, by_name=by_name, per_cell=3, least=6)

    @classmethod
    def from_statements(cls, statements: AllStatements) -> YoloV5:
        """The head of one list, box by box; see ``Head``."""
        boxes, values = statements.facts.outputs[0].shape
        return cls._of_list(statements, boxes, values - 5)

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """The one output, ``[B, 5 + NC]``."""
        return (RawOutput("", (self.num_boxes, 5 + self.num_classes)),)

    def _decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        rows = outputs[0]
        return self._corners(rows[..., 0:2], rows[..., 2:4], axis=-1), rows[..., 4:5] * rows[..., 5:]

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``."""
        sizes = {"head/centers_xy_raw": 2, "head/sizes_wh_raw": 2, "head/objectness": 1}
        sizes["head/class_probabilities"] = self.num_classes
        xy, wh, objectness, classes = nodes.split(writer, outputs[0], sizes, axis=2)
        boxes = self._corner_nodes(writer, xy, wh, "head/boxes", axis=-1)
        return boxes, writer.op("Mul", [objectness, classes], "head/scores")

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of boxes and scores; see ``Head``."""
        return (np.concatenate([*self._places_of(boxes_xyxy), *split_scores(scores)], axis=-1),)

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        """cx, cy, w, h, objectness and classes of each box; see ``Head``."""
        return outputs[0]


@dataclass(frozen=True, slots=True)
class YoloV8(DecodedHead):
    """A decoded head without objectness; see ``DecodedHead`` for its parameters."""

    kind: ClassVar[str] = "yolo_v8"

    @classmethod
    def misfit(cls, facts: SourceFacts, *, by_name: bool) -> str | None:
        """Why a network is none; see ``Head``."""
        return misfit_of_list(facts, by_name=by_name, per_cell=1, least=5, by_box=False)

    @classmethod
    def from_statements(cls, statements: AllStatements) -> YoloV8:
        """The head of one list, value by value; see ``Head``."""
        values, boxes = statements.facts.outputs[0].shape
        return cls._of_list(statements, boxes, values - 4)

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """The one output, ``[4 + NC, B]``."""
        return (RawOutput("", (4 + self.num_classes, self.num_boxes)),)

    def _decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        columns = outputs[0]
        boxes = self._corners(columns[:, 0:2], columns[:, 2:4], axis=1)
        return np.ascontiguousarray(boxes.swapaxes(1, 2)), np.ascontiguousarray(columns[:, 4:].swapaxes(1, 2))

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """Splits and divides along contiguous rows, and transposes only the results."""
        sizes = {"head/centers_xy_raw": 2, "head/sizes_wh_raw": 2, "head/scores_by_class": self.num_classes}
        xy, wh, scores = nodes.split(writer, outputs[0], sizes, axis=1)
        boxes = self._corner_nodes(writer, xy, wh, "head/boxes_by_corner", axis=1)
        return (
            writer.op("Transpose", [boxes], "head/boxes", perm=[0, 2, 1]),
            writer.op("Transpose", [scores], "head/scores", perm=[0, 2, 1]),
        )

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of boxes and scores; see ``Head``."""
        rows = np.concatenate([*self._places_of(boxes_xyxy), scores], axis=-1)
        return (np.ascontiguousarray(rows.swapaxes(1, 2), np.float32),)

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        """cx, cy, w, h and class probabilities of each box; see ``Head``."""
        return outputs[0].swapaxes(1, 2)


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
        sizes = {"head/raw_xy": 2, "head/raw_wh": 2, "head/objectness_raw": 1, "head/classes_raw": self.num_classes}
        xy, wh, objectness, classes = nodes.split(writer, rows, sizes, axis=2)
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
