"""YOLO v8, v9 and v11: one decoded output, boxes and class probabilities without an objectness.

::

    [N, 4 + NC, B]: cx, cy, w, h, class probabilities      x1 = (cx - w / 2) / width of the picture, and so on

Source of the layout: the ``Detect`` layer of ultralytics/ultralytics (nn/modules/head.py), which decodes in the
network: distances to the four sides become centres and sizes, class logits pass a sigmoid. Boxes are in pixels; exports
to TFLite divide them by the picture's size, so that int8 codes reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from converters.heads.arithmetic import split_nodes
from converters.heads.base import RawOutput, require_arrays, require_values
from converters.heads.decoded import DecodedHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from converters.graph import GraphWriter
    from converters.heads.boxes import Float32


@dataclass(frozen=True, slots=True)
class YoloV8(DecodedHead):
    """A decoded head without objectness; see ``DecodedHead`` for its parameters."""

    kind: ClassVar[str] = "yolo_v8"

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """The one output, ``[4 + NC, B]``."""
        return (RawOutput("", (4 + self.num_classes, self.num_boxes)),)

    def decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        """Boxes and scores of raw outputs; see ``Head``."""
        require_arrays(self, outputs)
        columns = outputs[0]
        boxes = self._corners(columns[:, 0:2], columns[:, 2:4], axis=1)
        return np.ascontiguousarray(boxes.swapaxes(1, 2)), np.ascontiguousarray(columns[:, 4:].swapaxes(1, 2))

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``: splits and divides along contiguous rows, and transposes only the results."""
        require_values(self, outputs)
        names = ["head/centers_xy_raw", "head/sizes_wh_raw", "head/scores_by_class"]
        centers, sizes, scores = split_nodes(writer, outputs[0], [2, 2, self.num_classes], names, axis=1)
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
