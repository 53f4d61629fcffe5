"""YOLO v5 and v7: decoded in the network, or as raw grids.

::

    decoded   [N, B, 5 + NC]: cx, cy, w, h, objectness, class probabilities       score = objectness * class
    raw       per level [N, rows, columns, A * (5 + NC)], or [N, A, rows, columns, 5 + NC]; s = sigmoid(t)
              centre = (2 s - 0.5 + cell) / grid       size = (2 s)^2 * anchor       score = s(objectness) * s(class)

Source of the formulas: the ``Detect`` layer of ultralytics/yolov5 (models/yolo.py; its TensorFlow twin in models/tf.py
divides boxes by the picture's size, so that int8 codes reach), and the product of scores in its
``non_max_suppression``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from converters.checks import require_flag
from converters.heads.arithmetic import (
    centers_and_sizes,
    clipped_corners,
    clipped_corners_nodes,
    logit,
    sigmoid,
    sigmoid_nodes,
    split_nodes,
    split_scores,
)
from converters.heads.base import RawOutput, level_outputs, read_values, require_arrays, require_pair, require_values
from converters.heads.decoded import DecodedHead
from converters.heads.grids import AnchorHead, BoxPlaces, grids_from_json, place_boxes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from converters.graph import GraphWriter
    from converters.heads.boxes import Float32


@dataclass(frozen=True, slots=True)
class YoloV5(DecodedHead):
    """A decoded head with objectness; see ``DecodedHead`` for its parameters."""

    kind: ClassVar[str] = "yolo_v5"

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """The one output, ``[B, 5 + NC]``."""
        return (RawOutput("", (self.num_boxes, 5 + self.num_classes)),)

    def decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        """Boxes and scores of raw outputs; see ``Head``."""
        require_arrays(self, outputs)
        rows = outputs[0]
        with np.errstate(over="ignore"):
            scores = rows[..., 4:5] * rows[..., 5:]
        return self._corners(rows[..., 0:2], rows[..., 2:4], axis=-1), scores

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``."""
        require_values(self, outputs)
        names = ["head/centers_xy_raw", "head/sizes_wh_raw", "head/objectness", "head/class_probabilities"]
        centers, sizes, objectness, classes = split_nodes(
            writer, outputs[0], [2, 2, 1, self.num_classes], names, axis=2
        )
        boxes = self._corner_nodes(writer, centers, sizes, "head/boxes", axis=-1)
        return boxes, writer.op("Mul", [objectness, classes], "head/scores")

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of boxes and scores; see ``Head``."""
        return (np.concatenate([*self._places_of(boxes_xyxy), *split_scores(scores)], axis=-1),)

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        """cx, cy, w, h, objectness and classes of each box; see ``Head``."""
        return outputs[0]


@dataclass(frozen=True, slots=True)
class YoloV5Raw(AnchorHead):
    """Grids before any activation; their ``xy_scale`` stays 1.

    Attributes:
        anchors_first: outputs are ``[A, rows, columns, 5 + NC]``, as PyTorch has them, instead of
            ``[rows, columns, A * (5 + NC)]``.
    """

    kind: ClassVar[str] = "yolo_v5_raw"
    anchors_first: bool = False

    def __post_init__(self) -> None:
        AnchorHead.__post_init__(self)
        require_flag(self.anchors_first, "anchors_first")
        if any(grid.xy_scale != 1 for grid in self.grids):
            raise ValueError("xy_scale of a yolo_v5_raw grid must be 1: its formula has no other")

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """An output per level."""
        if not self.anchors_first:
            return AnchorHead.raw_outputs(self)
        values = 5 + self.num_classes
        return level_outputs([(len(g.anchors_px), g.rows, g.columns, values) for g in self.grids])

    def decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        """Boxes and scores of raw outputs; see ``Head``."""
        require_arrays(self, outputs)
        places = self._places()
        activated = sigmoid(self.rows(outputs))
        xy, wh = activated[..., 0:2], activated[..., 2:4]
        shifted = np.asarray(xy + xy + (places.cells_xy - np.float32(0.5)), np.float32)
        centers = np.asarray(shifted / places.grid_wh, np.float32)
        half_sizes = wh * wh * (places.anchors_wh * np.float32(2))
        return clipped_corners(centers, half_sizes), activated[..., 4:5] * activated[..., 5:]

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``."""
        require_values(self, outputs)
        places, rows = self._places(), self._row_nodes(writer, outputs)
        names = ["head/activated_xy", "head/activated_wh", "head/objectness", "head/class_probabilities"]
        activated = sigmoid_nodes(writer, rows, "head/activated")
        xy, wh, objectness, classes = split_nodes(writer, activated, [2, 2, 1, self.num_classes], names, axis=2)
        cells = writer.constant(places.cells_xy - np.float32(0.5), "head/cells_xy")
        shifted = writer.op("Add", [writer.op("Add", [xy, xy], "head/offsets_xy"), cells], "head/centers_xy_cells")
        centers = writer.op("Div", [shifted, writer.constant(places.grid_wh, "head/grid_wh")], "head/centers_xy")
        anchors = writer.constant(places.anchors_wh * np.float32(2), "head/double_anchors_wh")
        squares = writer.op("Mul", [wh, wh], "head/squares_wh")
        half_sizes = writer.op("Mul", [squares, anchors], "head/half_sizes_wh")
        boxes = clipped_corners_nodes(writer, centers, half_sizes, "head/boxes")
        return boxes, writer.op("Mul", [objectness, classes], "head/scores")

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of boxes and scores; see ``Head``.

        A centre can leave its cell by half a cell; a size is at most four anchors.
        """
        places = self._places()
        centers, sizes = centers_and_sizes(boxes_xyxy)
        xy = logit(((centers * places.grid_wh - places.cells_xy + np.float32(0.5)) / 2).clip(0, 1))
        wh = logit((np.sqrt(np.maximum(sizes, 0) / places.anchors_wh) / 2).clip(0, 1))
        rows = np.concatenate([xy, wh, *(logit(part) for part in split_scores(scores))], axis=-1)
        return self._part(rows)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote; see ``Head``."""
        grids, num_classes, image_wh, anchors_first = read_values(
            cls.kind, data, "grids", "num_classes", "image_wh", "anchors_first"
        )
        return cls(grids_from_json(grids), num_classes, require_pair(image_wh, "image_wh"), anchors_first)

    def _places(self) -> BoxPlaces:
        return place_boxes(self.grids, self.image_wh, anchors_first=self.anchors_first)
