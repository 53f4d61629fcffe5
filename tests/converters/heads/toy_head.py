"""A head as a newcomer would write it: its class alone (``test_toy_head`` adds its row).

One score for every cell of a grid ``[N, rows, columns, 1]``; its box is the cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from converters.heads.arithmetic import Float32, corners_from_centers
from converters.heads.base import CellHead, Level

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from converters.description.precedence import AllStatements
    from converters.facts import SourceFacts
    from converters.graph import GraphWriter


@dataclass(frozen=True, slots=True)
class ToyHead(CellHead):
    """Scores of cells."""

    kind: ClassVar[str] = "toy"
    rows_of_cells: int
    columns: int

    @property
    def num_classes(self) -> int:
        return 1

    @classmethod
    def misfit(cls, facts: SourceFacts, *, by_name: bool) -> str | None:  # noqa: ARG003 - a name changes nothing
        shapes = [output.shape for output in facts.outputs]
        return None if [len(shape) for shape in shapes] == [3] and shapes[0][2] == 1 else "a toy is one grid of scores"

    @classmethod
    def from_statements(cls, statements: AllStatements) -> ToyHead:
        statements.require_names(1)
        return cls(*statements.facts.outputs[0].shape[:2])

    def _levels(self) -> Sequence[Level]:
        return [(self.rows_of_cells, self.columns, 1)]

    def _width(self) -> int:
        return 1

    def _decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        boxes = np.repeat(self.default_boxes()[None], len(outputs[0]), axis=0)
        return boxes, CellHead.rows(self, outputs)

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        scores = self._row_nodes(writer, outputs)
        nothing = writer.op("Mul", [scores, writer.constant(np.float32(0), "head/zero")], "head/nothing")
        boxes = writer.constant(self.default_boxes(), "head/cell_boxes")
        return writer.op("Add", [nothing, boxes], "head/boxes"), scores

    def default_boxes(self) -> Float32:
        _, grid_wh = self._cells_and_grids()
        return corners_from_centers(self._centers(), np.float32(0.5) / grid_wh)

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:  # noqa: ARG002 - cells do not move
        return self._outputs_of(scores)

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        return np.pad(CellHead.rows(self, outputs), ((0, 0), (0, 0), (4, 0)))
