"""YOLO v8, v9 and v11: one decoded output, boxes and class probabilities without an objectness.

::

    [N, 4 + NC, B]: cx, cy, w, h, class probabilities      x1 = (cx - w / 2) / width of the picture, and so on

Source of the layout: the ``Detect`` layer of ultralytics/ultralytics (nn/modules/head.py), which decodes in the network:
distances to the four sides become centres and sizes, class logits pass a sigmoid. Boxes are in pixels; exports to TFLite
divide them by the picture's size, so that int8 codes reach.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from converters.checks import require_count
from converters.heads.arithmetic import (
    centers_and_sizes,
    clipped_corners,
    clipped_corners_nodes,
    lattice_boxes,
    split_nodes,
)
from converters.heads.base import (
    RawOutput,
    describe_boxes,
    read_values,
    require_arrays,
    require_pair,
    require_values,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from converters.graph import GraphWriter
    from converters.heads.boxes import Float32


@dataclass(frozen=True, slots=True)
class YoloV8:
    """A decoded head without objectness.

    Attributes:
        num_boxes: B.
        num_classes: NC.
        extent_wh: the picture's width and height in the unit of the boxes: (1, 1) for fractions, else its size in pixels.
    """

    kind: ClassVar[str] = "yolo_v8"
    num_boxes: int
    num_classes: int
    extent_wh: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        require_count(self.num_boxes, "num_boxes")
        require_count(self.num_classes, "num_classes")
        require_pair(self.extent_wh, "extent_wh")

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """The one output, ``[4 + NC, B]``."""
        return (RawOutput("", (4 + self.num_classes, self.num_boxes)),)

    def decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        """Boxes and scores of raw outputs; see ``Head``."""
        require_arrays(self, outputs)
        columns = outputs[0]
        extent = np.array(self.extent_wh, np.float32)[:, None]
        centers, half_sizes = columns[:, 0:2] / extent, columns[:, 2:4] / (extent * np.float32(2))
        half_sizes = np.maximum(
            half_sizes, np.float32(0)
        )  # the least code of a quantised size can lie below 0
        boxes = clipped_corners(centers, half_sizes, axis=1)
        return np.ascontiguousarray(boxes.swapaxes(1, 2)), np.ascontiguousarray(columns[:, 4:].swapaxes(1, 2))

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``: splits and divides along contiguous rows, and transposes only the results."""
        require_values(self, outputs)
        names = ["head/centers_xy_raw", "head/sizes_wh_raw", "head/scores_by_class"]
        centers, sizes, scores = split_nodes(writer, outputs[0], [2, 2, self.num_classes], names, axis=1)
        extent = np.array(self.extent_wh, np.float32)[:, None]
        if self.extent_wh != (1, 1):
            centers = writer.op(
                "Div", [centers, writer.constant(extent, "head/extent_wh")], "head/centers_xy"
            )
        divisor = writer.constant(extent * np.float32(2), "head/double_extent_wh")
        half_sizes = writer.op("Div", [sizes, divisor], "head/half_sizes_wh_raw")
        half_sizes = writer.op("Relu", [half_sizes], "head/half_sizes_wh")
        boxes = clipped_corners_nodes(writer, centers, half_sizes, "head/boxes_by_corner", axis=1)
        return (
            writer.op("Transpose", [boxes], "head/boxes", perm=[0, 2, 1]),
            writer.op("Transpose", [scores], "head/scores", perm=[0, 2, 1]),
        )

    def default_boxes(self) -> Float32:
        """Boxes side by side: any box can be anywhere."""
        return lattice_boxes(self.num_boxes)

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of boxes and scores; see ``Head``."""
        extent = np.array(self.extent_wh, np.float32)
        centers, sizes = centers_and_sizes(boxes_xyxy)
        rows = np.concatenate([centers * extent, sizes * extent, scores], axis=-1)
        return (np.ascontiguousarray(rows.swapaxes(1, 2), np.float32),)

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        """cx, cy, w, h and class probabilities of each box; see ``Head``."""
        return outputs[0].swapaxes(1, 2)

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
