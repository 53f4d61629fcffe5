"""Boxes that a network has decoded, anywhere in the picture: YOLO v5 and v7, and YOLO v8, v9 and v11.

::

    yolo_v5   [N, B, 5 + NC]: cx, cy, w, h, objectness, class probabilities       score = objectness * class
    yolo_v8   [N, 4 + NC, B]: cx, cy, w, h, class probabilities                   x1 = (cx - w / 2) / width, and so on

Sources of the layouts: the ``Detect`` layers of ultralytics/yolov5 (models/yolo.py), with the product of scores in its
``non_max_suppression``, and of ultralytics/ultralytics (nn/modules/head.py). Boxes are in pixels; exports to TFLite
(models/tf.py) divide them by the picture's size, so that int8 codes reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from converters import require
from converters.heads import nodes
from converters.heads.arithmetic import centers_and_sizes, clipped_corners, lattice_boxes, split_scores
from converters.heads.base import Head, RawOutput, misfit_of_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from converters.description.precedence import AllStatements
    from converters.facts import SourceFacts
    from converters.graph import GraphWriter
    from converters.heads.arithmetic import Float32

LARGEST_FRACTION = 4.0  # codes that reach no further are fractions of the picture; pixels reach its size


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
            divisor = writer.constant(extent, "head/extent_wh")
            centers = writer.op("Div", [centers, divisor], "head/centers_xy")
        double = writer.constant(extent * np.float32(2), "head/double_extent_wh")
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
        names = ["head/centers_xy_raw", "head/sizes_wh_raw", "head/objectness", "head/class_probabilities"]
        parts = nodes.split(writer, outputs[0], [2, 2, 1, self.num_classes], names, axis=2)
        boxes = self._corner_nodes(writer, parts[0], parts[1], "head/boxes", axis=-1)
        return boxes, writer.op("Mul", parts[2:], "head/scores")

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
        names = ["head/centers_xy_raw", "head/sizes_wh_raw", "head/scores_by_class"]
        centers, sizes, scores = nodes.split(writer, outputs[0], [2, 2, self.num_classes], names, axis=1)
        boxes = self._corner_nodes(writer, centers, sizes, "head/boxes_by_corner", axis=1)
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
