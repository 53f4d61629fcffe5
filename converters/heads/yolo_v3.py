"""YOLO v3 and v4, and YOLO v2 over several grids: raw values with anchors in pixels.

::

    per level [N, rows, columns, A * (5 + NC)]: tx, ty, tw, th, objectness, class logits; s = sigmoid(t)
    centre = (s * scale - (scale - 1) / 2 + cell) / grid       size = exp(t) * anchor       score = s(objectness) *
    class

Source of the formulas: ``get_yolo_box`` and ``get_yolo_detections`` of AlexeyAB/darknet (src/yolo_layer.c), where
``scale`` is ``scale_x_y`` of a YOLO v4 cfg, and 1 in YOLO v3. Unlike in YOLO v2, classes do not compete: each has its
own sigmoid.

With a softmax over the classes it is YOLO v2 over several grids, what STMicroelectronics' C code for ``st_yolo_x``
computes (lib_vision_models_pp, od_pp_st_yolox.c); a single class has probability 1 there. Its anchors are in cells:
times the stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from converters.checks import require_choice
from converters.heads.arithmetic import (
    LEAST_PROBABILITY,
    SMALLEST_SIZE,
    centers_and_sizes,
    clipped_corners,
    clipped_corners_nodes,
    logit,
    sigmoid,
    sigmoid_nodes,
    softmax,
    split_nodes,
    split_scores,
)
from converters.heads.base import read_values, require_arrays, require_pair, require_values
from converters.heads.grids import AnchorHead, BoxPlaces, grids_from_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from converters.graph import GraphWriter
    from converters.heads.boxes import Float32

ClassActivation = Literal["sigmoid", "softmax"]


@dataclass(frozen=True, slots=True)
class YoloV3(AnchorHead):
    """Grids before any activation.

    Attributes:
        class_activation: ``"sigmoid"`` each, or one ``"softmax"``, which makes a single class certain.
    """

    kind: ClassVar[str] = "yolo_v3"
    class_activation: ClassActivation = "sigmoid"

    def __post_init__(self) -> None:
        AnchorHead.__post_init__(self)
        require_choice(self.class_activation, ClassActivation, "class_activation")

    def decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        """Boxes and scores of raw outputs; see ``Head``."""
        require_arrays(self, outputs)
        places = self._places()
        rows = self.rows(outputs)
        offsets = sigmoid(rows[..., 0:2])
        if self._is_scaled():
            offsets = offsets * places.xy_scales
        centers = np.asarray((offsets + self._shifted_cells(places)) / places.grid_wh, np.float32)
        with np.errstate(over="ignore"):
            half_sizes = np.exp(rows[..., 2:4]) * (places.anchors_wh / np.float32(2))
        return clipped_corners(centers, half_sizes), self._decode_scores(rows[..., 4:5], rows[..., 5:])

    def _decode_scores(self, objectness: Float32, classes: Float32) -> Float32:
        if self.class_activation == "sigmoid":
            return sigmoid(objectness) * sigmoid(classes)
        return sigmoid(objectness) if self.num_classes == 1 else sigmoid(objectness) * softmax(classes)

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``."""
        require_values(self, outputs)
        places, rows = self._places(), self._row_nodes(writer, outputs)
        names = ["head/raw_xy", "head/raw_wh", "head/raw_objectness", "head/class_logits"]
        xy, wh, objectness, classes = split_nodes(writer, rows, [2, 2, 1, self.num_classes], names, axis=2)
        offsets = sigmoid_nodes(writer, xy, "head/offsets_xy")
        if self._is_scaled():
            scales = writer.constant(places.xy_scales, "head/xy_scales")
            offsets = writer.op("Mul", [offsets, scales], "head/offsets_xy_scaled")
        cells = writer.constant(self._shifted_cells(places), "head/cells_xy")
        shifted = writer.op("Add", [offsets, cells], "head/centers_xy_cells")
        centers = writer.op("Div", [shifted, writer.constant(places.grid_wh, "head/grid_wh")], "head/centers_xy")
        half_anchors = writer.constant(places.anchors_wh / np.float32(2), "head/half_anchors_wh")
        powers = writer.op("Exp", [wh], "head/anchor_multiples_wh")
        half_sizes = writer.op("Mul", [powers, half_anchors], "head/half_sizes_wh")
        boxes = clipped_corners_nodes(writer, centers, half_sizes, "head/boxes")
        return boxes, self._score_nodes(writer, objectness, classes)

    def _score_nodes(self, writer: GraphWriter, objectness: ir.Value, classes: ir.Value) -> ir.Value:
        if self.class_activation == "softmax" and self.num_classes == 1:
            return sigmoid_nodes(writer, objectness, "head/scores")
        confidence = sigmoid_nodes(writer, objectness, "head/objectness")
        if self.class_activation == "sigmoid":
            probabilities = sigmoid_nodes(writer, classes, "head/class_probabilities")
        else:
            probabilities = writer.op("Softmax", [classes], "head/class_probabilities", axis=2)
        return writer.op("Mul", [confidence, probabilities], "head/scores")

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of boxes and scores; see ``Head``. A centre stays in its cell, or as near as the scale lets it."""
        places = self._places()
        centers, sizes = centers_and_sizes(boxes_xyxy)
        offsets = (centers * places.grid_wh - self._shifted_cells(places)) / places.xy_scales
        wh = np.log(np.maximum(sizes, SMALLEST_SIZE) / places.anchors_wh)
        parts = [logit(offsets.clip(0, 1)), wh, *self._encode_scores(scores)]
        rows = np.concatenate(parts, axis=-1).astype(np.float32)
        return self._part(rows)

    def _encode_scores(self, scores: Float32) -> tuple[Float32, Float32]:
        if self.class_activation == "sigmoid":
            objectness, classes = split_scores(scores)
            return logit(objectness), logit(classes)
        total = scores.sum(axis=-1, keepdims=True)
        shares = np.divide(scores, total, out=np.zeros_like(scores), where=total > 0)
        return logit(total.clip(0, 1)), np.log(np.maximum(shares, np.float32(LEAST_PROBABILITY)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote; see ``Head``."""
        keys = ("grids", "num_classes", "image_wh", "class_activation")
        grids, num_classes, image_wh, activation = read_values(cls.kind, data, *keys)
        return cls(grids_from_json(grids), num_classes, require_pair(image_wh, "image_wh"), activation)

    def _is_scaled(self) -> bool:
        return any(grid.xy_scale != 1 for grid in self.grids)

    def _shifted_cells(self, places: BoxPlaces) -> Float32:
        """Column and row of each cell, less half of what the scale adds."""
        return np.asarray(places.cells_xy - (places.xy_scales - np.float32(1)) / np.float32(2), np.float32)
