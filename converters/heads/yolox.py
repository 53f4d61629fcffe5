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
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from converters.checks import require_count, require_entries, require_flag
from converters.heads.arithmetic import (
    SMALLEST_SIZE,
    cells_xy,
    centers_and_sizes,
    clipped_corners,
    clipped_corners_nodes,
    join_levels,
    join_levels_nodes,
    logit,
    part_levels,
    sigmoid,
    sigmoid_nodes,
    split_nodes,
    split_scores,
)
from converters.heads.base import HeadBase, RawOutput, level_outputs, read_values, require_arrays, require_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from converters.graph import GraphWriter
    from converters.heads.boxes import Float32


@dataclass(frozen=True, slots=True)
class Yolox(HeadBase):
    """Grids of cells with one raw box each.

    Attributes:
        image_wh: width and height of the network's input in pixels, multiples of every stride.
        num_classes: NC.
        strides: of the grids, in the order of the boxes.
        activated: objectness and classes are probabilities already.
        separate: the network has an output per level instead of one.
    """

    kind: ClassVar[str] = "yolox"
    image_wh: tuple[int, int]
    num_classes: int
    strides: tuple[int, ...] = (8, 16, 32)
    activated: bool = True
    separate: bool = False

    def __post_init__(self) -> None:
        if len(require_entries(self.image_wh, "image_wh")) != 2:
            raise ValueError(f"image_wh must be a (width, height) pair, got {self.image_wh!r}")
        require_count(self.num_classes, "num_classes")
        if not require_entries(self.strides, "strides"):
            raise ValueError("at least one stride is needed")
        for stride in self.strides:
            require_count(stride, "each stride")
        for size in self.image_wh:
            require_count(size, "each of image_wh")
            if misfits := [stride for stride in self.strides if size % stride]:
                raise ValueError(
                    f"image_wh {self.image_wh} must be multiples of the strides, {misfits[0]} does not fit"
                )
        require_flag(self.activated, "activated")
        require_flag(self.separate, "separate")

    @property
    def num_boxes(self) -> int:
        """Cells over all levels."""
        return sum(self._counts())

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """One output, or one per level."""
        values = 5 + self.num_classes
        if not self.separate:
            return (RawOutput("", (self.num_boxes, values)),)
        shapes = [(rows, columns, values) for rows, columns in self._grids()]
        return level_outputs(shapes)

    def decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        """Boxes and scores of raw outputs; see ``Head``."""
        require_arrays(self, outputs)
        cells, grid_wh = self._places()
        rows = join_levels(outputs, 5 + self.num_classes)
        with np.errstate(over="ignore"):
            centers = np.asarray((rows[..., 0:2] + cells) / grid_wh, np.float32)
            half_sizes = np.asarray(np.exp(rows[..., 2:4]) * (np.float32(0.5) / grid_wh), np.float32)
            objectness, classes = rows[..., 4:5], rows[..., 5:]
            if not self.activated:
                objectness, classes = sigmoid(objectness), sigmoid(classes)
            return clipped_corners(centers, half_sizes), objectness * classes

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``."""
        require_values(self, outputs)
        cells, grid_wh = self._places()
        rows = outputs[0]
        if self.separate:
            rows = join_levels_nodes(writer, outputs, self._counts(), 5 + self.num_classes)
        names = ["head/raw_xy", "head/raw_wh", "head/objectness_raw", "head/classes_raw"]
        xy, wh, objectness, classes = split_nodes(writer, rows, [2, 2, 1, self.num_classes], names, axis=2)
        shifted = writer.op("Add", [xy, writer.constant(cells, "head/cells_xy")], "head/centers_xy_cells")
        centers = writer.op("Div", [shifted, writer.constant(grid_wh, "head/grid_wh")], "head/centers_xy")
        half_cells = writer.constant(np.float32(0.5) / grid_wh, "head/half_cells_wh")
        powers = writer.op("Exp", [wh], "head/cell_multiples_wh")
        half_sizes = writer.op("Mul", [powers, half_cells], "head/half_sizes_wh")
        boxes = clipped_corners_nodes(writer, centers, half_sizes, "head/boxes")
        if not self.activated:
            objectness = sigmoid_nodes(writer, objectness, "head/objectness")
            classes = sigmoid_nodes(writer, classes, "head/class_probabilities")
        return boxes, writer.op("Mul", [objectness, classes], "head/scores")

    def default_boxes(self) -> Float32:
        """The cells; a raw row of zeros is a cell shifted by half a cell up and to the left."""
        cells, grid_wh = self._places()
        return np.concatenate([cells / grid_wh, (cells + np.float32(1)) / grid_wh], axis=-1)

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of boxes and scores; see ``Head``. Any box can be anywhere."""
        cells, grid_wh = self._places()
        centers, sizes = centers_and_sizes(boxes_xyxy)
        wh = np.log(np.maximum(sizes, SMALLEST_SIZE) * grid_wh)
        probabilities = split_scores(scores)
        parts = probabilities if self.activated else [logit(part) for part in probabilities]
        rows = np.concatenate([centers * grid_wh - cells, wh, *parts], axis=-1).astype(np.float32)
        if not self.separate:
            return (rows,)
        return part_levels(rows, [raw.shape for raw in self.raw_outputs()], self._counts())

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        """tx, ty, tw, th, objectness and classes of each box; see ``Head``."""
        return join_levels(outputs, 5 + self.num_classes)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote; see ``Head``."""
        keys = ("image_wh", "num_classes", "strides", "activated", "separate")
        image_wh, num_classes, strides, activated, separate = read_values(cls.kind, data, *keys)
        sizes = [require_count(size, "each of image_wh") for size in require_entries(image_wh, "image_wh")]
        if len(sizes) != 2:
            raise ValueError(f"image_wh must be a (width, height) pair, got {image_wh!r}")
        steps = tuple(require_count(stride, "each stride") for stride in require_entries(strides, "strides"))
        return cls((sizes[0], sizes[1]), num_classes, steps, activated, separate)

    def _grids(self) -> list[tuple[int, int]]:
        """Rows and columns of each level."""
        return [(self.image_wh[1] // stride, self.image_wh[0] // stride) for stride in self.strides]

    def _counts(self) -> list[int]:
        return [rows * columns for rows, columns in self._grids()]

    def _places(self) -> tuple[Float32, Float32]:
        """Of every box its cell ``(B, 2)``, and columns and rows of its grid ``(B, 2)``."""
        cells = [cells_xy(rows, columns) for rows, columns in self._grids()]
        sizes = [np.full((rows * columns, 2), (columns, rows), np.float32) for rows, columns in self._grids()]
        return np.concatenate(cells), np.concatenate(sizes)
