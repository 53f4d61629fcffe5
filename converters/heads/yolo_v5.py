"""YOLO v5 and v7: decoded in the network, or as raw grids.

::

    decoded   [N, B, 5 + NC]: cx, cy, w, h, objectness, class probabilities       score = objectness * class
    raw       per level [N, rows, columns, A * (5 + NC)], or [N, A, rows, columns, 5 + NC]; s = sigmoid(t)
              centre = (2 s - 0.5 + cell) / grid       size = (2 s)^2 * anchor       score = s(objectness) * s(class)

Source of the formulas: the ``Detect`` layer of ultralytics/yolov5 (models/yolo.py; its TensorFlow twin in models/tf.py divides
boxes by the picture's size, so that int8 codes reach), and the product of scores in its ``non_max_suppression``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from converters.checks import require_count, require_flag
from converters.heads.arithmetic import (
    centers_and_sizes,
    clipped_corners,
    clipped_corners_nodes,
    join_levels,
    join_levels_nodes,
    lattice_boxes,
    logit,
    part_levels,
    sigmoid,
    sigmoid_nodes,
    split_nodes,
    split_scores,
)
from converters.heads.base import (
    RawOutput,
    describe_boxes,
    read_values,
    require_arrays,
    require_pair,
    require_values,
)
from converters.heads.grids import AnchorGrid, BoxPlaces, grids_from_json, place_boxes, require_grids

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from converters.graph import GraphWriter
    from converters.heads.boxes import Float32


@dataclass(frozen=True, slots=True)
class YoloV5:
    """A decoded head with objectness.

    Attributes:
        num_boxes: B.
        num_classes: NC.
        extent_wh: the picture's width and height in the unit of the boxes: (1, 1) for fractions, else its size in pixels.
    """

    kind: ClassVar[str] = "yolo_v5"
    num_boxes: int
    num_classes: int
    extent_wh: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        require_count(self.num_boxes, "num_boxes")
        require_count(self.num_classes, "num_classes")
        require_pair(self.extent_wh, "extent_wh")

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """The one output, ``[B, 5 + NC]``."""
        return (RawOutput("", (self.num_boxes, 5 + self.num_classes)),)

    def decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        """Boxes and scores of raw outputs; see ``Head``."""
        require_arrays(self, outputs)
        rows, extent = outputs[0], np.array(self.extent_wh, np.float32)
        with np.errstate(over="ignore"):
            scores = rows[..., 4:5] * rows[..., 5:]
        centers, half_sizes = rows[..., 0:2] / extent, rows[..., 2:4] / (extent * np.float32(2))
        half_sizes = np.maximum(
            half_sizes, np.float32(0)
        )  # the least code of a quantised size can lie below 0
        return clipped_corners(centers, half_sizes), scores

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``."""
        require_values(self, outputs)
        names = ["head/centers_xy_raw", "head/sizes_wh_raw", "head/objectness", "head/class_probabilities"]
        centers, sizes, objectness, classes = split_nodes(
            writer, outputs[0], [2, 2, 1, self.num_classes], names, axis=2
        )
        extent = np.array(self.extent_wh, np.float32)
        if self.extent_wh != (1, 1):
            centers = writer.op(
                "Div", [centers, writer.constant(extent, "head/extent_wh")], "head/centers_xy"
            )
        divisor = writer.constant(extent * np.float32(2), "head/double_extent_wh")
        half_sizes = writer.op("Div", [sizes, divisor], "head/half_sizes_wh_raw")
        half_sizes = writer.op("Relu", [half_sizes], "head/half_sizes_wh")
        boxes = clipped_corners_nodes(writer, centers, half_sizes, "head/boxes")
        return boxes, writer.op("Mul", [objectness, classes], "head/scores")

    def default_boxes(self) -> Float32:
        """Boxes side by side: any box can be anywhere."""
        return lattice_boxes(self.num_boxes)

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of boxes and scores; see ``Head``."""
        extent = np.array(self.extent_wh, np.float32)
        centers, sizes = centers_and_sizes(boxes_xyxy)
        return (np.concatenate([centers * extent, sizes * extent, *split_scores(scores)], axis=-1),)

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        """cx, cy, w, h, objectness and classes of each box; see ``Head``."""
        return outputs[0]

    def describe(self, width: int, height: int) -> tuple[tuple[str, str], ...]:
        """Boxes and classes; see ``Head``."""
        return describe_boxes(self, width, height)

    def to_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote; see ``Head``."""
        num_boxes, num_classes, extent_wh = read_values(
            cls.kind, data, "num_boxes", "num_classes", "extent_wh"
        )
        return cls(num_boxes, num_classes, require_pair(extent_wh, "extent_wh"))


@dataclass(frozen=True, slots=True)
class YoloV5Raw:
    """Grids before any activation.

    Attributes:
        grids: the levels in the order of the outputs; their ``xy_scale`` stays 1.
        num_classes: NC.
        image_wh: width and height of the network's input in pixels.
        anchors_first: outputs are ``[A, rows, columns, 5 + NC]``, as PyTorch has them, instead of
            ``[rows, columns, A * (5 + NC)]``.
    """

    kind: ClassVar[str] = "yolo_v5_raw"
    grids: tuple[AnchorGrid, ...]
    num_classes: int
    image_wh: tuple[float, float]
    anchors_first: bool = False

    def __post_init__(self) -> None:
        require_grids(self.grids)
        require_count(self.num_classes, "num_classes")
        require_pair(self.image_wh, "image_wh")
        require_flag(self.anchors_first, "anchors_first")
        if any(grid.xy_scale != 1 for grid in self.grids):
            raise ValueError("xy_scale of a yolo_v5_raw grid must be 1: its formula has no other")

    @property
    def num_boxes(self) -> int:
        """Boxes over all levels."""
        return sum(grid.num_boxes for grid in self.grids)

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """An output per level."""
        values = 5 + self.num_classes
        shapes = [
            (len(g.anchors_px), g.rows, g.columns, values)
            if self.anchors_first
            else (g.rows, g.columns, len(g.anchors_px) * values)
            for g in self.grids
        ]
        if len(shapes) == 1:
            return (RawOutput("", shapes[0]),)
        return tuple(RawOutput(f"level_{index}", shape) for index, shape in enumerate(shapes))

    def decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        """Boxes and scores of raw outputs; see ``Head``."""
        require_arrays(self, outputs)
        places = self._places()
        activated = sigmoid(join_levels(outputs, 5 + self.num_classes))
        xy, wh = activated[..., 0:2], activated[..., 2:4]
        shifted = np.asarray(xy + xy + (places.cells_xy - np.float32(0.5)), np.float32)
        centers = np.asarray(shifted / places.grid_wh, np.float32)
        half_sizes = wh * wh * (places.anchors_wh * np.float32(2))
        return clipped_corners(centers, half_sizes), activated[..., 4:5] * activated[..., 5:]

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``."""
        require_values(self, outputs)
        places, counts = self._places(), [grid.num_boxes for grid in self.grids]
        rows = join_levels_nodes(writer, outputs, counts, 5 + self.num_classes)
        names = ["head/activated_xy", "head/activated_wh", "head/objectness", "head/class_probabilities"]
        activated = sigmoid_nodes(writer, rows, "head/activated")
        xy, wh, objectness, classes = split_nodes(
            writer, activated, [2, 2, 1, self.num_classes], names, axis=2
        )
        cells = writer.constant(places.cells_xy - np.float32(0.5), "head/cells_xy")
        shifted = writer.op(
            "Add", [writer.op("Add", [xy, xy], "head/offsets_xy"), cells], "head/centers_xy_cells"
        )
        centers = writer.op(
            "Div", [shifted, writer.constant(places.grid_wh, "head/grid_wh")], "head/centers_xy"
        )
        anchors = writer.constant(places.anchors_wh * np.float32(2), "head/double_anchors_wh")
        squares = writer.op("Mul", [wh, wh], "head/squares_wh")
        half_sizes = writer.op("Mul", [squares, anchors], "head/half_sizes_wh")
        boxes = clipped_corners_nodes(writer, centers, half_sizes, "head/boxes")
        return boxes, writer.op("Mul", [objectness, classes], "head/scores")

    def default_boxes(self) -> Float32:
        """Every anchor in the middle of its cell."""
        return self._places().boxes_xyxy

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of boxes and scores; see ``Head``.

        A centre can leave its cell by half a cell; a size is at most four anchors.
        """
        places = self._places()
        centers, sizes = centers_and_sizes(boxes_xyxy)
        xy = logit(((centers * places.grid_wh - places.cells_xy + np.float32(0.5)) / 2).clip(0, 1))
        wh = logit((np.sqrt(np.maximum(sizes, 0) / places.anchors_wh) / 2).clip(0, 1))
        rows = np.concatenate([xy, wh, *(logit(part) for part in split_scores(scores))], axis=-1)
        shapes = [raw.shape for raw in self.raw_outputs()]
        return part_levels(rows, shapes, [grid.num_boxes for grid in self.grids])

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        """tx, ty, tw, th, objectness and classes of each box; see ``Head``."""
        return join_levels(outputs, 5 + self.num_classes)

    def describe(self, width: int, height: int) -> tuple[tuple[str, str], ...]:
        """Boxes and classes; see ``Head``."""
        return describe_boxes(self, width, height)

    def to_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote; see ``Head``."""
        grids, num_classes, image_wh, anchors_first = read_values(
            cls.kind, data, "grids", "num_classes", "image_wh", "anchors_first"
        )
        return cls(grids_from_json(grids), num_classes, require_pair(image_wh, "image_wh"), anchors_first)

    def _places(self) -> BoxPlaces:
        return place_boxes(self.grids, self.image_wh, anchors_first=self.anchors_first)
