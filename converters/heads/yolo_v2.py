"""YOLO v2: one grid of anchors; xy and objectness behind a sigmoid, sizes as exponentials, classes as a softmax.

Flatten order is row, column, anchor; per anchor tx, ty, tw, th, objectness, class logits. B is the number
of boxes per image, NC of classes. Logits of any finite size are safe: an overflowing ``Exp`` is infinity,
and clips to the border. Numeric effect of the nodes: float32 rounding of ``Exp`` as the runtime does it; each numpy
function has a twin ``..._nodes`` below it.

What ties anchors and classes to the raw output: ``channels = A * (5 + NC)``, A and NC at least 1.

Source of the formulas: Redmon and Farhadi, "YOLO9000: Better, Faster, Stronger", 2016.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from converters.checks import require_choice, require_count, require_entries, require_instance, require_number
from converters.errors import OptionError
from converters.heads.arithmetic import (
    LEAST_PROBABILITY,
    SMALLEST_SIZE,
    centers_and_sizes,
    logit,
    sigmoid,
    sigmoid_nodes,
    softmax,
)
from converters.heads.base import RawOutput, default_class_names, read_values, require_arrays, require_values
from converters.heads.boxes import Float32, clip_xyxy, corners_from_centers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from converters.graph import GraphWriter

AnchorUnit = Literal["cell", "image"]
MOST_GRIDS = 2  # an anchor beyond is in another unit: Darknet's own largest is 1.28, 16.62 cells of 13


@dataclass(frozen=True, slots=True)
class Anchors:
    """Prior boxes as (width, height) pairs in grid cells or as fractions of the image; the unit is never guessed."""

    sizes_wh: tuple[tuple[float, float], ...]
    unit: AnchorUnit

    def __post_init__(self) -> None:
        require_choice(self.unit, AnchorUnit, "anchor unit")
        if not require_entries(self.sizes_wh, "anchors"):
            raise ValueError("at least one anchor is needed")
        for size_wh in self.sizes_wh:
            if len(require_entries(size_wh, "each anchor")) != 2:
                raise ValueError(f"each anchor must be a (width, height) pair, got {size_wh!r}")
            if min(require_number(size, "each anchor size") for size in size_wh) <= 0:
                raise ValueError(f"anchors must be finite and above 0, got {tuple(size_wh)}")
        if self.unit == "image" and any(max(wh) > 1 for wh in self.sizes_wh):
            msg = "an anchor above 1 cannot be a fraction of the image: the unit must be 'cell' or 'pixel'"
            raise ValueError(msg)

    def in_image_fractions(self, grid_h: int, grid_w: int) -> tuple[tuple[float, float], ...]:
        """The anchors as (width, height) fractions of the image."""
        if self.unit == "image":
            return self.sizes_wh
        return tuple((w / grid_w, h / grid_h) for w, h in self.sizes_wh)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read ``{"sizes_wh": [[w, h], ...], "unit": "cell"}``.

        Raises:
            ValueError: malformed.
        """
        if not isinstance(data, dict) or not {"sizes_wh", "unit"} <= data.keys():
            raise ValueError(f"anchors must be an object of sizes_wh and unit, got {data!r}")
        sizes = require_entries(data["sizes_wh"], "anchors")
        pairs = [[require_number(n, "each anchor size") for n in require_entries(s, "each anchor")] for s in sizes]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"each anchor must be a (width, height) pair, got {sizes!r}")
        return cls(tuple((float(w), float(h)) for w, h in pairs), data["unit"])


@dataclass(frozen=True, slots=True)
class YoloV2:
    """A YOLO v2 head.

    Attributes:
        grid_h: rows of the grid.
        grid_w: columns of the grid.
        anchors: the prior boxes of every cell.
        num_classes: NC.
    """

    kind: ClassVar[str] = "yolo_v2"

    grid_h: int
    grid_w: int
    anchors: Anchors
    num_classes: int

    def __post_init__(self) -> None:
        for name in ("grid_h", "grid_w", "num_classes"):
            require_count(getattr(self, name), name)
        require_instance(self.anchors, Anchors, "anchors")

    @property
    def num_anchors(self) -> int:
        """Boxes per cell."""
        return len(self.anchors.sizes_wh)

    @property
    def channels(self) -> int:
        """Channels of the raw output, ``A * (5 + NC)``."""
        return self.num_anchors * (5 + self.num_classes)

    @property
    def num_boxes(self) -> int:
        """Rows x columns x anchors."""
        return self.grid_h * self.grid_w * self.num_anchors

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """One grid, NHWC."""
        return (RawOutput("", (self.grid_h, self.grid_w, self.channels)),)

    @property
    def anchor_fractions(self) -> tuple[tuple[float, float], ...]:
        """The anchors as (width, height) fractions of the image."""
        return self.anchors.in_image_fractions(self.grid_h, self.grid_w)

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        """tx, ty, tw, th, objectness, class logits of each box: float32 ``(N, B, 5 + NC)``."""
        return outputs[0].reshape(len(outputs[0]), self.num_boxes, 5 + self.num_classes)

    def decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        """Boxes ``(N, B, 4)`` and scores ``(N, B, NC)`` of the raw output ``(N, grid_h, grid_w, channels)``."""
        require_arrays(self, outputs)
        rows = self.rows(outputs)
        boxes = decode_boxes(rows[..., 0:2], rows[..., 2:4], self)
        return boxes, decode_scores(rows[..., 4:5], rows[..., 5:])

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The same as nodes."""
        require_values(self, outputs)
        xy, wh, objectness, class_logits = split_rows_nodes(writer, outputs[0], self)
        boxes = decode_boxes_nodes(writer, xy, wh, self)
        return boxes, decode_scores_nodes(writer, objectness, class_logits)

    def default_boxes(self) -> Float32:
        """Every anchor in the middle of its cell."""
        cells_xy, half_anchors_wh = _cells_and_half_anchors(self)
        centers_xy = (cells_xy + np.float32(0.5)) / np.array([self.grid_w, self.grid_h], np.float32)
        return corners_from_centers(np.asarray(centers_xy, np.float32), half_anchors_wh)

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of boxes and scores; see ``Head``. Several classes add up to the objectness: at most 1."""
        cells_xy, half_anchors_wh = _cells_and_half_anchors(self)
        centers, sizes = centers_and_sizes(boxes_xyxy)
        offsets = centers * np.array([self.grid_w, self.grid_h], np.float32) - cells_xy
        wh = np.log(np.maximum(sizes, SMALLEST_SIZE) / (half_anchors_wh * 2))
        total = scores.sum(axis=-1, keepdims=True)
        classes = np.divide(scores, total, out=np.zeros_like(scores), where=total > 0)
        logits = np.log(np.maximum(classes, LEAST_PROBABILITY))
        parts = [logit(offsets.clip(0, 1)), wh, logit(total.clip(0, 1)), logits]
        rows = np.concatenate(parts, axis=-1).astype(np.float32)
        return (rows.reshape(len(rows), self.grid_h, self.grid_w, self.channels),)

    def describe(self, width: int, height: int) -> tuple[tuple[str, str], ...]:
        """Grid and channels, and the anchors in pixels."""
        unit = "grid cells" if self.anchors.unit == "cell" else "fractions of the image"
        pixels = [f"{w * width:.0f} x {h * height:.0f}" for w, h in self.anchor_fractions]
        return (
            ("head", f"{self.kind}, grid {self.grid_h} x {self.grid_w}, {self.channels} channels"),
            ("anchors", f"{len(pixels)} in {unit}; in pixels (w x h): {', '.join(pixels)}"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Grid, anchors and number of classes, with the kind."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote; see ``Head``."""
        grid_h, grid_w, anchors, num_classes = read_values(cls.kind, data, "grid_h", "grid_w", "anchors", "num_classes")
        return cls(grid_h, grid_w, Anchors.from_dict(anchors), num_classes)


def split_rows_nodes(
    writer: GraphWriter, raw: ir.Value, head: YoloV2
) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value | None]:
    """Flatten the raw output to boxes and cut it into its parts.

    Args:
        writer: the graph to append to.
        raw: float32 ``[N, grid_h, grid_w, A * (5 + NC)]``.
        head: its parameters.

    Returns:
        Raw xy ``[N, B, 2]``, wh ``[N, B, 2]``, objectness ``[N, B, 1]`` and class logits ``[N, B, NC]``; None
        for the logits of a single class.
    """
    shape = writer.constant(np.array([-1, head.num_boxes, 5 + head.num_classes], np.int64), "head/rows_shape")
    rows = writer.op("Reshape", [raw, shape], "head/rows")
    sizes = writer.constant(np.array([2, 2, 1, head.num_classes], np.int64), "head/part_sizes")
    names = ["head/raw_xy", "head/raw_wh", "head/raw_objectness", "head/class_logits"]
    xy, wh, objectness, class_logits = writer.ops("Split", [rows, sizes], names, axis=2)
    return xy, wh, objectness, class_logits if head.num_classes > 1 else None


def decode_boxes(xy: Float32, wh: Float32, head: YoloV2) -> Float32:
    """Turn raw offsets and sizes into boxes: ``(sigmoid(xy) + cell) / grid`` and ``exp(wh) * anchor``.

    Args:
        xy: float32 ``(N, B, 2)``, raw.
        wh: float32 ``(N, B, 2)``, raw; an overflowing exponential is a box as large as the image.
        head: grid and anchors.

    Returns:
        float32 ``(N, B, 4)``: x1, y1, x2, y2 as fractions of the image, clipped to 0..1.
    """
    cells_xy, half_anchors_wh = _cells_and_half_anchors(head)
    centers_xy = (sigmoid(xy) + cells_xy) / np.array([head.grid_w, head.grid_h], np.float32)
    with np.errstate(over="ignore"):
        half_sizes_wh = np.exp(wh) * half_anchors_wh
    return clip_xyxy(corners_from_centers(centers_xy.astype(np.float32), half_sizes_wh.astype(np.float32)))


def decode_boxes_nodes(writer: GraphWriter, xy: ir.Value, wh: ir.Value, head: YoloV2) -> ir.Value:
    """The same as nodes, ``[N, B, 4]``."""
    cells_xy, half_anchors_wh = _cells_and_half_anchors(head)
    offsets = sigmoid_nodes(writer, xy, "head/offsets_xy")
    shifted = writer.op("Add", [offsets, writer.constant(cells_xy, "head/cells_xy")], "head/centers_xy_cells")
    grid = writer.constant(np.array([head.grid_w, head.grid_h], np.float32), "head/grid_wh")
    centers = writer.op("Div", [shifted, grid], "head/centers_xy")
    powers = writer.op("Exp", [wh], "head/anchor_multiples_wh")
    half_sizes = writer.op(
        "Mul", [powers, writer.constant(half_anchors_wh, "head/half_anchors_wh")], "head/half_sizes_wh"
    )
    corners = [
        writer.op("Sub", [centers, half_sizes], "head/top_left_xy"),
        writer.op("Add", [centers, half_sizes], "head/bottom_right_xy"),
    ]
    unclipped = writer.op("Concat", corners, "head/boxes_unclipped", axis=2)
    limits = [writer.constant(np.float32(0), "head/zero"), writer.constant(np.float32(1), "head/one")]
    return writer.op("Clip", [unclipped, *limits], "head/boxes")


def _cells_and_half_anchors(head: YoloV2) -> tuple[Float32, Float32]:
    """Column and row of each box's cell, and half its anchor as fractions of the image: float32 ``(B, 2)`` each."""
    fractions = np.array(head.anchor_fractions, np.float64)
    rows, columns = np.divmod(np.arange(head.num_boxes) // len(fractions), head.grid_w)
    half_anchors_wh = np.tile(fractions / 2, (head.grid_h * head.grid_w, 1)).astype(np.float32)
    return np.stack([columns, rows], axis=-1).astype(np.float32), half_anchors_wh


def decode_scores(objectness: Float32, class_logits: Float32) -> Float32:
    """Score every class of every box: ``sigmoid(objectness) * softmax(class_logits)``.

    A single class has probability 1, exactly.

    Args:
        objectness: float32 ``(N, B, 1)``, raw.
        class_logits: float32 ``(N, B, NC)``, raw.

    Returns:
        float32 ``(N, B, NC)``, 0..1.
    """
    if class_logits.shape[-1] == 1:
        return sigmoid(objectness)
    return sigmoid(objectness) * softmax(class_logits)


def decode_scores_nodes(writer: GraphWriter, objectness: ir.Value, class_logits: ir.Value | None) -> ir.Value:
    """The same as nodes, ``[N, B, NC]``; None for the logits of one class."""
    confidence = sigmoid_nodes(writer, objectness, "head/objectness")
    if class_logits is None:
        return confidence
    probabilities = writer.op("Softmax", [class_logits], "head/class_probabilities", axis=2)
    return writer.op("Mul", [confidence, probabilities], "head/scores")


def grid_of(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Rows, columns and channels of a raw output's shape without the batch; None where it is no grid.

    ``(rows, columns, A, 5 + NC)`` holds the numbers of ``(rows, columns, A * (5 + NC))`` in the same order.
    """
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    if len(shape) == 4 and shape[3] > 5:
        return shape[0], shape[1], shape[2] * shape[3]
    return None


def fit_class_names(
    file: str, shape: tuple[int, ...], num_anchors: int, class_names: tuple[str, ...] | None
) -> tuple[str, ...]:
    """Check the names against a grid's shape without the batch, or make up as many as it has classes.

    Raises:
        OptionError: no number of classes, or another one than was named, fits the head.
    """
    channels, fits = math.prod(shape[2:]), dict(fitting_counts(shape))
    if len(shape) == 4 and num_anchors not in fits:
        stated = _count(num_anchors, "anchor is", "anchors are")
        raise OptionError(f"'{file}': {stated} stated, but {describe_fit(shape)}: check --anchors")
    if class_names is None:
        num_classes = fits.get(num_anchors)
        if num_classes is None:
            msg = (
                f"'{file}': {_count(num_anchors, 'anchor', 'anchors')} x (5 + classes) cannot make "
                f"the head's {channels} channels; {describe_fit(shape)}: check --anchors"
            )
            raise OptionError(msg)
        return default_class_names(num_classes)
    made = num_anchors * (5 + len(class_names))
    if fits.get(num_anchors) != len(class_names):
        msg = (
            f"'{file}': {_count(num_anchors, 'anchor', 'anchors')} x (5 + "
            f"{_count(len(class_names), 'class', 'classes')}) = {made} channels, the head has {channels}; "
            f"{describe_fit(shape)}: check --anchors and --classes"
        )
        raise OptionError(msg)
    return class_names


def describe_fit(shape: tuple[int, ...]) -> str:
    """Which numbers of anchors and classes a head of this shape can have, as part of a sentence."""
    fits, channels = fitting_counts(shape), math.prod(shape[2:])
    if len(shape) == 4:
        ((anchors, classes),) = fits
        stated = f"{_count(anchors, 'anchor', 'anchors')}, {_count(classes, 'class', 'classes')}"
        return f"its last axes {list(shape[2:])} state {stated}"
    if not fits:
        return f"no anchors and classes make {channels} channels: no YOLO v2 head (--head none keeps it raw)"
    parts = [f"{_count(a, 'anchor', 'anchors')} with {_count(nc, 'class', 'classes')}" for a, nc in fits]
    return f"{channels} channels fit {' or '.join(parts)}"


def fitting_counts(shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """All (anchors, classes) that a grid's shape can have, fewest anchors first.

    Anchors with an axis of their own leave one choice, else every ``anchors * (5 + classes) == channels`` is one.
    """
    if len(shape) == 4:
        return ((shape[2], shape[3] - 5),)
    channels = shape[2]
    small = [a for a in range(1, math.isqrt(max(channels, 0)) + 1) if channels % a == 0]
    divisors = sorted({*small, *(channels // a for a in small)})
    return tuple((a, channels // a - 5) for a in divisors if channels // a > 5)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
