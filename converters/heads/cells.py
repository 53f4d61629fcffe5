"""Heads whose boxes belong to the cells of grids: places of boxes, rows of raw numbers, and boxes from both.

Boxes are flattened row, column, box of the cell within a grid unless a head says otherwise, and grid behind grid.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.heads.arithmetic import cells_xy, clipped_corners, clipped_corners_nodes, concat_nodes, integers
from converters.heads.base import Head, RawOutput, level_outputs
from converters.heads.boxes import Float32

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from converters.facts import SourceFacts
    from converters.graph import GraphWriter

Level = tuple[int, int, int]  # rows, columns, boxes per cell
Shift = float | Float32  # of all cells, or of every box's
STRIDES = (8, 16, 32)  # of the three grids that YOLO heads usually have


@dataclass(frozen=True, slots=True)
class CellHead(Head):
    """A row of raw numbers for every box of every cell, in one output per grid unless a head says otherwise."""

    @abstractmethod
    def _levels(self) -> Sequence[Level]:
        """The grids in the order of the boxes."""

    @property
    def num_boxes(self) -> int:
        """Boxes over all grids."""
        return sum(self._counts())

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """An output per grid, ``[rows, columns, boxes per cell * numbers of a box]``."""
        return level_outputs([(rows, columns, each * self._width()) for rows, columns, each in self._levels()])

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        """tx, ty, tw, th, objectness and classes of each box; see ``Head``."""
        return np.concatenate([output.reshape(len(output), -1, self._width()) for output in outputs], axis=1)

    def _row_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> ir.Value:
        """The twin of ``rows``."""
        rows = []
        for output, count in zip(outputs, self._counts(), strict=True):
            shape = integers(writer, [-1, count, self._width()], "head/rows_shape")
            rows.append(writer.op("Reshape", [output, shape], "head/rows"))
        return concat_nodes(writer, rows, "head/all_rows", axis=1)

    def _outputs_of(self, *parts: Float32) -> tuple[Float32, ...]:
        """Raw outputs whose ``rows`` are these parts side by side."""
        rows, wanted = np.concatenate(parts, axis=-1).astype(np.float32), self.raw_outputs()
        ends = np.cumsum([raw.size // self._width() for raw in wanted])[:-1]
        levels = zip(np.split(rows, ends, axis=1), wanted, strict=True)
        return tuple(level.reshape(len(rows), *raw.shape) for level, raw in levels)

    def _width(self) -> int:
        """Raw numbers of a box."""
        return 5 + self.num_classes

    def _counts(self) -> list[int]:
        return [rows * columns * each for rows, columns, each in self._levels()]

    def _is_cell_by_cell(self) -> bool:
        """Whether the boxes of a cell stand side by side; otherwise a grid is flattened box, row, column."""
        return True

    def _cells_and_grids(self) -> tuple[Float32, Float32]:
        """Column and row of every box's cell, and columns and rows of its grid: ``(B, 2)`` each."""
        cells, grids = [], []
        for rows, columns, each in self._levels():
            own = cells_xy(rows, columns)
            cells.append(np.repeat(own, each, axis=0) if self._is_cell_by_cell() else np.tile(own, (each, 1)))
            grids.append(np.full((rows * columns * each, 2), (columns, rows), np.float32))
        return np.concatenate(cells), np.concatenate(grids)

    def _centers(self) -> Float32:
        """The middle of every box's cell, as fractions of the image: ``(B, 2)``."""
        cells, grid_wh = self._cells_and_grids()
        return (cells + np.float32(0.5)) / grid_wh

    def _centers_in_grid(self, offsets_xy: Float32, shift: Shift = 0) -> Float32:
        """Centres as fractions of the image, of offsets from cells that are shifted up and to the left, in cells."""
        cells, grid_wh = self._cells_and_grids()
        return np.asarray((offsets_xy + (cells - np.float32(shift))) / grid_wh, np.float32)

    def _center_nodes(
        self, writer: GraphWriter, offsets: ir.Value, shift: Shift = 0, *, one_grid: bool = False
    ) -> ir.Value:
        """The twin of ``_centers_in_grid``; with ``one_grid`` its size is written once instead of for every box."""
        cells, grid_wh = self._cells_and_grids()
        moved = writer.constant(cells - np.float32(shift), "head/cells_xy")
        shifted = writer.op("Add", [offsets, moved], "head/centers_xy_cells")
        size = writer.constant(grid_wh[0] if one_grid else grid_wh, "head/grid_wh")
        return writer.op("Div", [shifted, size], "head/centers_xy")


def exponential_boxes(centers_xy: Float32, logarithms_wh: Float32, sizes_wh: Float32) -> Float32:
    """Boxes ``(N, B, 4)`` around centres, ``exp(logarithms)`` times as large as ``sizes_wh``, clipped to 0..1."""
    half_sizes = np.asarray(np.exp(logarithms_wh) * (sizes_wh / np.float32(2)), np.float32)
    return clipped_corners(centers_xy, half_sizes)


def exponential_box_nodes(
    writer: GraphWriter,
    centers: ir.Value,
    logarithms: ir.Value,
    sizes_wh: Float32,
    *,
    of: str = "anchor",
    axis: int = -1,
) -> ir.Value:
    """The twin of ``exponential_boxes``; ``of`` is what the sizes are of, for names."""
    half_sizes = writer.constant(sizes_wh / np.float32(2), f"head/half_{of}s_wh")
    multiples = writer.op("Exp", [logarithms], f"head/{of}_multiples_wh")
    half_sizes = writer.op("Mul", [multiples, half_sizes], "head/half_sizes_wh")
    return clipped_corners_nodes(writer, centers, half_sizes, "head/boxes", axis=axis)


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
