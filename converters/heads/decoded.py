"""Boxes that a network has decoded, anywhere in the picture: what the heads of YOLO v5 and v8 share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from converters.checks import require_count
from converters.heads.arithmetic import centers_and_sizes, clipped_corners, clipped_corners_nodes, lattice_boxes
from converters.heads.base import HeadBase, read_values, require_pair

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from converters.graph import GraphWriter
    from converters.heads.boxes import Float32


@dataclass(frozen=True, slots=True)
class DecodedHead(HeadBase):
    """Centres and sizes.

    Attributes:
        num_boxes: B.
        num_classes: NC.
        extent_wh: the picture's width and height in the unit of the boxes: (1, 1) for fractions, else its size in
            pixels.
    """

    num_boxes: int
    num_classes: int
    extent_wh: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        require_count(self.num_boxes, "num_boxes")
        require_count(self.num_classes, "num_classes")
        require_pair(self.extent_wh, "extent_wh")

    def default_boxes(self) -> Float32:
        """Boxes side by side: any box can be anywhere."""
        return lattice_boxes(self.num_boxes)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote; see ``Head``."""
        num_boxes, num_classes, extent_wh = read_values(cls.kind, data, "num_boxes", "num_classes", "extent_wh")
        return cls(num_boxes, num_classes, require_pair(extent_wh, "extent_wh"))

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
        return clipped_corners_nodes(writer, centers, half_sizes, name, axis=axis)

    def _places_of(self, boxes_xyxy: Float32) -> list[Float32]:
        """Centres and sizes of corners, in the unit of the boxes."""
        return [part * np.array(self.extent_wh, np.float32) for part in centers_and_sizes(boxes_xyxy)]

    def _extent(self, axis: int) -> Float32:
        """Width and height along ``axis``; one number where they are equal, which runtimes divide by much faster."""
        extent = np.array(self.extent_wh, np.float32)
        if extent[0] == extent[1]:
            return np.array(extent[0], np.float32)
        return extent[:, None] if axis == 1 else extent
