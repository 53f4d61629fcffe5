"""A head as a newcomer would write it: its class, and why a network's outputs are none (``test_toy_head`` adds both rows).

One score for every cell of a grid ``[N, rows, columns, 1]``; its box is the cell.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from converters.heads.arithmetic import cells_xy
from converters.heads.base import RawOutput, describe_boxes, read_values, require_arrays

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from converters.description.recognition import Stated
    from converters.facts import SourceFacts
    from converters.graph import GraphWriter
    from converters.heads.boxes import Float32


@dataclass(frozen=True, slots=True)
class ToyHead:
    """Scores of cells."""

    kind: ClassVar[str] = "toy"
    rows_of_cells: int
    columns: int

    @property
    def num_boxes(self) -> int:
        return self.rows_of_cells * self.columns

    @property
    def num_classes(self) -> int:
        return 1

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        return (RawOutput("", (self.rows_of_cells, self.columns, 1)),)

    def decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        require_arrays(self, outputs)
        boxes = np.repeat(self.default_boxes()[None], len(outputs[0]), axis=0)
        return boxes, outputs[0].reshape(len(outputs[0]), self.num_boxes, 1)

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        shape = writer.constant(np.array([-1, self.num_boxes, 1], np.int64), "head/scores_shape")
        scores = writer.op("Reshape", [outputs[0], shape], "head/scores")
        nothing = writer.op("Mul", [scores, writer.constant(np.float32(0), "head/zero")], "head/nothing")
        boxes = writer.constant(self.default_boxes(), "head/cell_boxes")
        return writer.op("Add", [nothing, boxes], "head/boxes"), scores

    def default_boxes(self) -> Float32:
        cells = cells_xy(self.rows_of_cells, self.columns)
        wh = np.array([self.columns, self.rows_of_cells], np.float32)
        return np.concatenate([cells / wh, (cells + np.float32(1)) / wh], axis=-1)

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        return (scores.reshape(len(boxes_xyxy), self.rows_of_cells, self.columns, 1),)

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        return np.pad(self.decode(outputs)[1], ((0, 0), (0, 0), (4, 0)))

    def describe(self, width: int, height: int) -> tuple[tuple[str, str], ...]:
        return describe_boxes(self, width, height)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(*read_values(cls.kind, data, "rows_of_cells", "columns"))


def is_no_toy(facts: SourceFacts, asked: bool) -> str | None:  # noqa: ARG001, FBT001 - a table's call
    shapes = [output.shape for output in facts.outputs]
    return None if [len(shape) for shape in shapes] == [3] and shapes[0][2] == 1 else "a toy is one grid of scores"


def build_toy(facts: SourceFacts, stated: Stated) -> ToyHead:
    stated.require_names(facts, 1)
    return ToyHead(*facts.outputs[0].shape[:2])
