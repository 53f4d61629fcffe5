"""BlazeFace and BlazePalm: one class, boxes and keypoints relative to the centres of cells, in pixels.

::

    per level, or all levels at once: boxes [N, n, 4 + 2 P]: x, y, w, h, keypoints      scores [N, n, 1]
    centre = t / image + cell centre      size = t / image      score = sigmoid(t)

Levels have several boxes per cell: the face detector for close range 2 on a grid of 16 x 16 and 6 on 8 x 8, in this
order.

Sources of the formulas: V. Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs" (2019),
and google/mediapipe: tensors_to_detections_calculator.cc with the options of face_detection_short_range, and
ssd_anchors_calculator.cc with fixed_anchor_size. It clips scores to -100..100 before the sigmoid, where float32 is
exactly 0 or 1 anyway. It then blends boxes that overlap (weighted suppression); this head's tail keeps the best of
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from converters import require
from converters.heads import nodes
from converters.heads.arithmetic import Float32, centers_and_sizes, clipped_corners, logit, sigmoid
from converters.heads.base import CellHead, Level, RawOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from converters.description.precedence import AllStatements
    from converters.facts import SourceFacts
    from converters.graph import GraphWriter

LEVELS = (
    ((8, 2), (16, 6)),
    ((16, 2), (32, 6)),
    ((8, 2), (16, 2), (32, 6)),
    ((4, 1),),
)  # (stride, boxes per cell): close range and palms; back cameras; poses; full range


def _levels_of(facts: SourceFacts) -> tuple[tuple[int, int, int], ...] | None:
    """Rows, columns and boxes per cell of the levels whose boxes the outputs have; None where they have others."""
    counts = [output.shape[0] for output in facts.outputs]
    for strides in LEVELS:
        if any(facts.height % stride or facts.width % stride for stride, _ in strides):
            continue
        levels = tuple((facts.height // stride, facts.width // stride, each) for stride, each in strides)
        boxes = [rows * columns * each for rows, columns, each in levels]
        if sorted(counts) in ([sum(boxes)] * 2, sorted(boxes * 2)):
            return levels
    return None


@dataclass(frozen=True, slots=True)
class BlazeFace(CellHead):
    """Boxes relative to the centres of cells."""

    kind: ClassVar[str] = "blazeface"
    image_wh: tuple[float, float]  # width and height of the network's input in pixels
    levels: tuple[Level, ...]  # rows, columns and boxes per cell of each, in the order of the boxes
    num_keypoints: int  # P; they follow each box, x and y in turns, moved from the cell's centre as the box's own is
    separate: bool = False  # the network has its boxes, then its scores, as an output per level instead of one each

    def __post_init__(self) -> None:
        require.pair(self.image_wh, "image_wh")
        if not require.entries(self.levels, "levels"):
            raise ValueError("at least one level is needed")
        for level in self.levels:
            numbers = [require.count(entry, "each number of a level") for entry in require.entries(level, "each level")]
            if len(numbers) != 3:
                raise ValueError(f"each level must be rows, columns and boxes per cell, got {level!r}")
        require.count(self.num_keypoints, "num_keypoints", low=0)
        require.flag(self.separate, "separate")

    @property
    def num_classes(self) -> int:
        """One: a face, or a palm."""
        return 1

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """Boxes and scores, or the boxes of every level and then the scores of every level."""
        values = 4 + 2 * self.num_keypoints
        if not self.separate:
            return RawOutput("boxes", (self.num_boxes, values)), RawOutput("scores", (self.num_boxes, 1))
        counts = list(enumerate(self._counts()))
        return (
            *(RawOutput(f"boxes_{index}", (count, values)) for index, count in counts),
            *(RawOutput(f"scores_{index}", (count, 1)) for index, count in counts),
        )

    @classmethod
    def misfit(cls, facts: SourceFacts, *, by_name: bool) -> str | None:
        """Why a network is none; see ``Head``."""
        shapes = [output.shape for output in facts.outputs]
        flat = len(shapes) in (2, 4) and all(len(shape) == 2 for shape in shapes)
        widths = {shape[1] for shape in shapes} - {1} if flat else set()
        even = len(widths) == 1
        if facts.postprocess is not None or not even or min(widths) < 4 or min(widths) % 2:
            return "a BlazeFace head is boxes [1, n, 4 + 2 * keypoints] and scores [1, n, 1], of all levels or of each"
        if [shape[-1] for shape in shapes].count(1) != len(shapes) // 2 or _levels_of(facts) is None:
            levels = (", ".join(f"{each} a cell of stride {s}" for s, each in level) for level in LEVELS)
            return f"its boxes are none of a BlazeFace of this picture's size: {' or '.join(levels)}"
        return facts.activated(by_name=by_name)

    @classmethod
    def from_statements(cls, statements: AllStatements) -> BlazeFace:
        """The head of the levels whose boxes the outputs have; see ``Head``."""
        facts = statements.facts
        levels = _levels_of(facts)
        assert levels is not None, "it fits"  # noqa: S101
        statements.require_names(1)
        keypoints = (max(output.shape[-1] for output in facts.outputs) - 4) // 2
        size = float(facts.width), float(facts.height)
        return cls(size, levels, keypoints, separate=len(facts.outputs) > 2)

    def _levels(self) -> Sequence[Level]:
        return self.levels

    def _decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        boxes, scores = _boxes_and_scores(outputs)
        image = np.array(self.image_wh, np.float32)
        centers = np.asarray(boxes[..., 0:2] / image + self._centers(), np.float32)
        half_sizes = np.maximum(boxes[..., 2:4] / (image * np.float32(2)), np.float32(0))
        return clipped_corners(centers, half_sizes), sigmoid(scores)

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``."""
        half = len(outputs) // 2
        boxes = nodes.concat(writer, outputs[:half], "head/raw_boxes", axis=1)
        scores = nodes.concat(writer, outputs[half:], "head/raw_scores", axis=1)
        sizes = {"head/raw_xy": 2, "head/raw_wh": 2}
        if self.num_keypoints:
            sizes["head/keypoints"] = 2 * self.num_keypoints
        raw_xy, raw_wh, *_ = nodes.split(writer, boxes, sizes, axis=2)
        image = np.array(self.image_wh, np.float32)
        moves = writer.op("Div", [raw_xy, (image, "head/image_wh")], "head/moves_of_centers")
        centers = writer.op("Add", [moves, (self._centers(), "head/cell_centers")], "head/centers")
        signed = writer.op("Div", [raw_wh, (image * np.float32(2), "head/double_image_wh")], "head/half_sizes_raw")
        half_sizes = writer.op("Relu", [signed], "head/half_sizes")
        decoded = nodes.clipped_corners(writer, centers, half_sizes, "head/boxes")
        return decoded, nodes.sigmoid(writer, scores, "head/scores")

    def decode_keypoints(self, outputs: Sequence[Float32]) -> Float32:
        """Points of raw outputs; see ``KeypointHead``."""
        image, centers = self._for_keypoints()
        return np.asarray(_boxes_and_scores(outputs)[0][..., 4:] / image + centers, np.float32)

    def keypoint_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> ir.Value:
        """The twin of ``decode_keypoints``."""
        boxes = nodes.concat(writer, outputs[: len(outputs) // 2], "head/raw_keypoint_boxes", axis=1)
        sizes = {"head/place": 4, "head/raw_keypoints": 2 * self.num_keypoints}
        _, raw = nodes.split(writer, boxes, sizes, axis=2)
        image, centers = self._for_keypoints()
        moves = writer.op("Div", [raw, (image, "head/keypoint_image_wh")], "head/keypoint_moves")
        return writer.op("Add", [moves, (centers, "head/keypoint_centers")], "head/keypoints_xy")

    def _for_keypoints(self) -> tuple[Float32, Float32]:
        """Width and height of the picture, and every box's cell centre, as often as there are points."""
        image = np.array(self.image_wh, np.float32)
        return np.tile(image, self.num_keypoints), np.tile(self._centers(), self.num_keypoints)

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of boxes and scores; see ``Head``. Any box can be anywhere; keypoints are 0."""
        image = np.array(self.image_wh, np.float32)
        centers, sizes = centers_and_sizes(boxes_xyxy)
        keypoints = np.zeros((*scores.shape[:2], 2 * self.num_keypoints), np.float32)
        rows = np.concatenate([(centers - self._centers()) * image, sizes * image, keypoints], axis=-1)
        both = rows.astype(np.float32), logit(scores)
        if not self.separate:
            return both
        ends = np.cumsum(self._counts())[:-1]
        return tuple(part for whole in both for part in np.split(whole, ends, axis=1))

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        """Place and score of each box, without its keypoints; see ``Head``."""
        boxes, scores = _boxes_and_scores(outputs)
        return np.concatenate([boxes[..., :4], scores], axis=-1)


def _boxes_and_scores(outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
    """The raw numbers of all boxes and of all scores, over all levels."""
    half = len(outputs) // 2
    return np.concatenate(outputs[:half], axis=1), np.concatenate(outputs[half:], axis=1)
