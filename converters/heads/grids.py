"""Grids of cells with anchors, several levels behind one another: what YOLO v3 and the raw form of YOLO v5 share.

Boxes are flattened row, column, anchor within a level, or anchor, row, column where a maker lays its levels out so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.checks import require_count, require_entries, require_instance, require_number
from converters.heads.arithmetic import cells_xy, join_levels, join_levels_nodes, part_levels
from converters.heads.base import HeadBase, RawOutput, level_outputs, require_pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from converters.graph import GraphWriter
    from converters.heads.boxes import Float32


@dataclass(frozen=True, slots=True)
class AnchorGrid:
    """One level.

    Attributes:
        rows: of cells.
        columns: of cells.
        anchors_px: width and height of each anchor, in pixels of the network's input.
        xy_scale: how far a centre can leave its cell: 1 not at all; YOLO v4 has 1.05 to 1.2, ``scale_x_y`` in its cfg.
    """

    rows: int
    columns: int
    anchors_px: tuple[tuple[float, float], ...]
    xy_scale: float = 1.0

    def __post_init__(self) -> None:
        require_count(self.rows, "grid rows")
        require_count(self.columns, "grid columns")
        if not require_entries(self.anchors_px, "anchors_px"):
            raise ValueError("each grid needs at least one anchor")
        for anchor in self.anchors_px:
            require_pair(anchor, "each anchor")
        if not 1 <= require_number(self.xy_scale, "xy_scale") <= 2:
            raise ValueError(f"xy_scale must lie in 1..2, got {self.xy_scale!r}")

    @property
    def num_boxes(self) -> int:
        """Rows x columns x anchors."""
        return self.rows * self.columns * len(self.anchors_px)


@dataclass(frozen=True, eq=False)
class BoxPlaces:
    """Float32 constants of every box, over all levels.

    Attributes:
        cells_xy: ``(B, 2)``: column and row of its cell.
        grid_wh: ``(B, 2)``: columns and rows of its grid.
        anchors_wh: ``(B, 2)``: its anchor as fractions of the image.
        xy_scales: ``(B, 1)``: ``xy_scale`` of its grid.
    """

    cells_xy: Float32
    grid_wh: Float32
    anchors_wh: Float32
    xy_scales: Float32

    @property
    def centers_xy(self) -> Float32:
        """The middle of every box's cell, as fractions of the image: ``(B, 2)``."""
        return (self.cells_xy + np.float32(0.5)) / self.grid_wh

    @property
    def boxes_xyxy(self) -> Float32:
        """Every anchor in the middle of its cell: ``(B, 4)``."""
        half = self.anchors_wh / np.float32(2)
        return np.concatenate([self.centers_xy - half, self.centers_xy + half], axis=-1)


@dataclass(frozen=True, slots=True)
class AnchorHead(HeadBase):
    """Raw grids with anchors, before a formula.

    Attributes:
        grids: the levels in the order of the outputs.
        num_classes: NC.
        image_wh: width and height of the network's input in pixels.
    """

    grids: tuple[AnchorGrid, ...]
    num_classes: int
    image_wh: tuple[float, float]

    def __post_init__(self) -> None:
        require_grids(self.grids)
        require_count(self.num_classes, "num_classes")
        require_pair(self.image_wh, "image_wh")

    @property
    def num_boxes(self) -> int:
        """Boxes over all levels."""
        return sum(self._counts())

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """An output per level."""
        return level_outputs(
            [(grid.rows, grid.columns, len(grid.anchors_px) * (5 + self.num_classes)) for grid in self.grids]
        )

    def default_boxes(self) -> Float32:
        """Every anchor in the middle of its cell."""
        return self._places().boxes_xyxy

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        """tx, ty, tw, th, objectness and classes of each box; see ``Head``."""
        return join_levels(outputs, 5 + self.num_classes)

    def _row_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> ir.Value:
        """The twin of ``rows``."""
        return join_levels_nodes(writer, outputs, self._counts(), 5 + self.num_classes)

    def _part(self, rows: Float32) -> tuple[Float32, ...]:
        """The inverse of ``rows``."""
        return part_levels(rows, [raw.shape for raw in self.raw_outputs()], self._counts())

    def _counts(self) -> list[int]:
        return [grid.num_boxes for grid in self.grids]

    def _places(self) -> BoxPlaces:
        return place_boxes(self.grids, self.image_wh)


def place_boxes(
    grids: Sequence[AnchorGrid], image_wh: tuple[float, float], *, anchors_first: bool = False
) -> BoxPlaces:
    """The constants of every box, in the order of the raw outputs."""
    cells, sizes, anchors, scales = [], [], [], []
    for grid in grids:
        at, wh = cells_xy(grid.rows, grid.columns), np.array(grid.anchors_px, np.float64) / image_wh
        count = len(wh)
        cells.append(np.tile(at, (count, 1)) if anchors_first else np.repeat(at, count, axis=0))
        anchors.append(np.repeat(wh, len(at), axis=0) if anchors_first else np.tile(wh, (len(at), 1)))
        sizes.append(np.tile(np.array([[grid.columns, grid.rows]], np.float32), (grid.num_boxes, 1)))
        scales.append(np.full((grid.num_boxes, 1), grid.xy_scale, np.float32))
    return BoxPlaces(
        cells_xy=np.concatenate(cells),
        grid_wh=np.concatenate(sizes),
        anchors_wh=np.concatenate(anchors).astype(np.float32),
        xy_scales=np.concatenate(scales),
    )


def require_grids(grids: object) -> None:
    """Raise ValueError unless this is a tuple of at least one ``AnchorGrid``."""
    if not require_entries(grids, "grids"):
        raise ValueError("at least one grid is needed")
    for grid in require_entries(grids, "grids"):
        require_instance(grid, AnchorGrid, "each grid")


def grids_from_json(data: object) -> tuple[AnchorGrid, ...]:
    """Read grids as ``asdict`` writes them; raises ValueError where they are malformed."""
    return tuple(_grid_from_json(grid) for grid in require_entries(data, "grids"))


def _grid_from_json(data: Any) -> AnchorGrid:
    keys = ("rows", "columns", "anchors_px", "xy_scale")
    if not isinstance(data, dict) or any(key not in data for key in keys):
        raise ValueError(f"each grid needs {', '.join(keys)}, got {data!r}")
    anchors = require_entries(data["anchors_px"], "anchors_px")
    pairs = tuple(require_pair(anchor, "each anchor") for anchor in anchors)
    return AnchorGrid(data["rows"], data["columns"], pairs, data["xy_scale"])
