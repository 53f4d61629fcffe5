"""YOLO v2: one grid of anchors; xy and objectness behind a sigmoid, sizes as exponentials, classes as a softmax.

::

    [N, rows, columns, A * (5 + NC)]: tx, ty, tw, th, objectness, class logits; A and NC at least 1
    centre = (sigmoid(t) + cell) / grid      size = exp(t) * anchor      score = sigmoid(objectness) * softmax(classes)

Source of the formulas: Redmon and Farhadi, "YOLO9000: Better, Faster, Stronger", 2016.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from converters import require
from converters.errors import OptionError, counted
from converters.heads import nodes
from converters.heads.arithmetic import (
    LEAST_PROBABILITY,
    Float32,
    exponential_boxes,
    logarithms_of,
    logit,
    sigmoid,
    softmax,
)
from converters.heads.base import CellHead, Level, lists_to_tuples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from converters.description.precedence import AllStatements
    from converters.facts import SourceFacts
    from converters.graph import GraphWriter

AnchorUnit = Literal["cell", "image"]
MOST_GRIDS = 2  # an anchor beyond is in another unit: Darknet's own largest is 1.28, 16.62 cells of 13


@dataclass(frozen=True, slots=True)
class Anchors:
    """Prior boxes as (width, height) pairs in grid cells or as fractions of the image; the unit is never guessed."""

    sizes_wh: tuple[tuple[float, float], ...]
    unit: AnchorUnit

    def __post_init__(self) -> None:
        require.choice(self.unit, AnchorUnit, "anchor unit")
        if not require.entries(self.sizes_wh, "anchors"):
            raise ValueError("at least one anchor is needed")
        for size_wh in self.sizes_wh:
            sizes = [require.number(size, "each anchor size") for size in require.entries(size_wh, "each anchor")]
            if len(sizes) != 2:
                raise ValueError(f"each anchor must be a (width, height) pair, got {size_wh!r}")
            if min(sizes) <= 0:
                raise ValueError(f"anchors must be finite and above 0, got {tuple(size_wh)}")
        if self.unit == "image" and any(max(wh) > 1 for wh in self.sizes_wh):
            raise ValueError("an anchor above 1 cannot be a fraction of the image: the unit must be 'cell' or 'pixel'")

    def in_image_fractions(self, grid_h: int, grid_w: int) -> tuple[tuple[float, float], ...]:
        """The anchors as (width, height) fractions of the image."""
        if self.unit == "image":
            return self.sizes_wh
        return tuple((w / grid_w, h / grid_h) for w, h in self.sizes_wh)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read ``{"sizes_wh": [[w, h], ...], "unit": "cell"}``; raises ValueError where it is malformed."""
        if not isinstance(data, dict) or not {"sizes_wh", "unit"} <= data.keys():
            raise ValueError(f"anchors must be an object of sizes_wh and unit, got {data!r}")
        return cls(lists_to_tuples(data["sizes_wh"]), data["unit"])


@dataclass(frozen=True, slots=True)
class YoloV2(CellHead):
    """A YOLO v2 head."""

    kind: ClassVar[str] = "yolo_v2"
    readers: ClassVar = {"anchors": Anchors.from_dict}
    anchor_units: ClassVar = ("cell", "image", "pixel")
    anchor_lists: ClassVar = " (or tiny_yolo_v2, st_yolo_lc_v1: the ST zoo's default lists)"
    grid_h: int  # rows of the grid
    grid_w: int  # columns of the grid
    anchors: Anchors  # the prior boxes of every cell
    num_classes: int  # NC

    def __post_init__(self) -> None:
        require.fields(self, require.count, "grid_h", "grid_w", "num_classes")
        require.instance(self.anchors, Anchors, "anchors")

    @classmethod
    def misfit(cls, facts: SourceFacts, *, by_name: bool) -> str | None:
        """Why a network is none; see ``Head``."""
        if len(facts.outputs) != 1 or grid_of(facts.outputs[0].shape) is None:
            return "a YOLO v2 head is one output [1, rows, columns, anchors * (5 + classes)]"
        if not by_name and not fitting_counts(facts.outputs[0].shape):
            return f"no anchors and classes make {facts.outputs[0].shape[2]} channels of a YOLO v2 head"
        return facts.activated(by_name=by_name)

    @classmethod
    def from_statements(cls, statements: AllStatements) -> YoloV2:
        """The head of one grid and the anchors that are stated; see ``Head``."""
        facts, stated, names = statements.facts, statements.anchors_or_default, statements.names_of_people
        shape = facts.outputs[0].shape
        grid = grid_of(shape)
        assert grid is not None, "it fits"  # noqa: S101
        grid_h, grid_w, channels = grid
        if stated is None:
            raise OptionError(
                f"'{facts.file}': its YOLO v2 head ({grid_h} x {grid_w} x {channels}) needs anchors, and no one states "
                f"them; {statements.how_to_state_anchors(cls)}; --head none keeps the raw head; {describe_fit(shape)}"
            )
        anchors = statements.settle(stated, (grid_h, grid_w))
        classes = fit_num_classes(facts.file, shape, len(anchors.sizes_wh), None if names is None else len(names))
        return cls(grid_h, grid_w, anchors, classes)

    @property
    def num_anchors(self) -> int:
        """Boxes per cell."""
        return len(self.anchors.sizes_wh)

    @property
    def anchor_fractions(self) -> tuple[tuple[float, float], ...]:
        """The anchors as (width, height) fractions of the image."""
        return self.anchors.in_image_fractions(self.grid_h, self.grid_w)

    def _levels(self) -> Sequence[Level]:
        return [(self.grid_h, self.grid_w, self.num_anchors)]

    def _priors_wh(self) -> Float32:
        return self._by_cell([self.anchor_fractions])

    def _decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        rows = self.rows(outputs)
        boxes = self.decode_boxes(rows[..., 0:2], rows[..., 2:4])
        return boxes, decode_scores(rows[..., 4:5], rows[..., 5:])

    def decode_boxes(self, xy: Float32, wh: Float32) -> Float32:
        """Boxes ``(N, B, 4)`` of raw offsets and sizes ``(N, B, 2)``; an overflowing size is that of the image."""
        with np.errstate(over="ignore"):
            return exponential_boxes(self._centers_in_grid(sigmoid(xy)), wh, self._priors_wh())

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``."""
        rows = self._row_nodes(writer, outputs)
        sizes = {"head/raw_xy": 2, "head/raw_wh": 2, "head/raw_objectness": 1, "head/class_logits": self.num_classes}
        xy, wh, objectness, class_logits = nodes.split(writer, rows, sizes, axis=2)
        centers = self._center_nodes(writer, nodes.sigmoid(writer, xy, "head/offsets_xy"), one_grid=True)
        boxes = nodes.exponential_boxes(writer, centers, wh, self._priors_wh(), axis=2)
        confidence = nodes.sigmoid(writer, objectness, "head/objectness")
        if self.num_classes == 1:
            return boxes, confidence
        probabilities = writer.op("Softmax", [class_logits], "head/class_probabilities", axis=2)
        return boxes, writer.op("Mul", [confidence, probabilities], "head/scores")

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of boxes and scores; see ``Head``. Several classes add up to the objectness: at most 1."""
        moves, sizes = self._moves_and_sizes(boxes_xyxy)
        wh = logarithms_of(sizes, self._priors_wh())
        return self._outputs_of(logit(moves.clip(0, 1)), wh, *encode_scores(scores))

    def describe(self, width: int, height: int) -> tuple[tuple[str, str], ...]:
        """Grid and channels, and the anchors in pixels."""
        unit = "grid cells" if self.anchors.unit == "cell" else "fractions of the image"
        pixels = [f"{w * width:.0f} x {h * height:.0f}" for w, h in self.anchor_fractions]
        channels = self.num_anchors * (5 + self.num_classes)
        return (
            ("head", f"{self.kind}, grid {self.grid_h} x {self.grid_w}, {channels} channels"),
            ("anchors", f"{len(pixels)} in {unit}; in pixels (w x h): {', '.join(pixels)}"),
        )


def decode_scores(objectness: Float32, class_logits: Float32) -> Float32:
    """Scores ``(N, B, NC)`` of raw objectness ``(N, B, 1)`` and classes; a single class has probability 1, exactly."""
    if class_logits.shape[-1] == 1:
        return sigmoid(objectness)
    return sigmoid(objectness) * softmax(class_logits)


def encode_scores(scores: Float32) -> tuple[Float32, Float32]:
    """The way back of ``decode_scores``; several classes add up to the objectness."""
    total = scores.sum(axis=-1, keepdims=True)
    shares = np.divide(scores, total, out=np.zeros_like(scores), where=total > 0)
    return logit(total.clip(0, 1)), np.log(np.maximum(shares, np.float32(LEAST_PROBABILITY)))


def grid_of(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Rows, columns and channels of a raw output's shape without the batch; None where it is no grid.

    ``(rows, columns, A, 5 + NC)`` holds the numbers of ``(rows, columns, A * (5 + NC))`` in the same order.
    """
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    if len(shape) == 4 and shape[3] > 5:
        return shape[0], shape[1], shape[2] * shape[3]
    return None


def fit_num_classes(file: str, shape: tuple[int, ...], num_anchors: int, named: int | None) -> int:
    """The number of classes of a grid's shape without the batch, which must be that of the named ones.

    Raises:
        OptionError: no number of classes, or another one than was named, fits the head.
    """
    channels, classes, fit = math.prod(shape[2:]), dict(fitting_counts(shape)).get(num_anchors), describe_fit(shape)
    if len(shape) == 4 and classes is None:
        stated = counted(num_anchors, "anchor is", "anchors are")
        raise OptionError(f"'{file}': {stated} stated, but {fit}: check --anchors")
    anchors = counted(num_anchors, "anchor", "anchors")
    if named is not None and classes != named:
        made = f"{anchors} x (5 + {counted(named, 'class', 'classes')}) = {num_anchors * (5 + named)} channels"
        raise OptionError(f"'{file}': {made}, the head has {channels}; {fit}: check --anchors and --classes")
    if classes is None:
        made = f"{anchors} x (5 + classes) cannot make the head's {channels} channels"
        raise OptionError(f"'{file}': {made}; {fit}: check --anchors")
    return classes


def describe_fit(shape: tuple[int, ...]) -> str:
    """Which numbers of anchors and classes a head of this shape can have, as part of a sentence."""
    fits, channels = fitting_counts(shape), math.prod(shape[2:])
    if len(shape) == 4:
        ((anchors, classes),) = fits
        stated = f"{counted(anchors, 'anchor', 'anchors')}, {counted(classes, 'class', 'classes')}"
        return f"its last axes {list(shape[2:])} state {stated}"
    if not fits:
        return f"no anchors and classes make {channels} channels: no YOLO v2 head (--head none keeps it raw)"
    parts = [f"{counted(a, 'anchor', 'anchors')} with {counted(nc, 'class', 'classes')}" for a, nc in fits]
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
