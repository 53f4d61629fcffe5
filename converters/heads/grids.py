"""Grids of cells with anchors in pixels, one or several behind one another: YOLO v3 and v4, and raw YOLO v5 and v7.

::

    per level [N, rows, columns, A * (5 + NC)]: tx, ty, tw, th, objectness, classes; s = sigmoid(t)
    yolo_v3       centre = (s * scale - (scale - 1) / 2 + cell) / grid      size = exp(t) * anchor
    yolo_v5_raw   centre = (2 s - 0.5 + cell) / grid                        size = (2 s)^2 * anchor
                  score = s(objectness) * s(class); outputs may be [N, A, rows, columns, 5 + NC]

Sources of the formulas: ``get_yolo_box`` and ``get_yolo_detections`` of AlexeyAB/darknet (src/yolo_layer.c), where
``scale`` is ``scale_x_y`` of a YOLO v4 cfg, and 1 in YOLO v3; the ``Detect`` layer of ultralytics/yolov5
(models/yolo.py). Unlike in YOLO v2, classes do not compete: each has its own sigmoid.

With a softmax over the classes ``yolo_v3`` is YOLO v2 over several grids, what STMicroelectronics' C code for
``st_yolo_x`` computes (lib_vision_models_pp, od_pp_st_yolox.c); a single class has probability 1 there. Its anchors are
in cells: times the stride. Anchors are stated finest grid first, as many for each grid; those of YOLO v3 and v5 in
pixels (or fractions) of the picture, those of ``st_yolo_x`` in cells of their own grid, where one list may serve all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from converters import require
from converters.errors import OptionError
from converters.heads import nodes
from converters.heads.arithmetic import (
    Float32,
    clipped_corners,
    exponential_boxes,
    logarithms_of,
    logit,
    sigmoid,
    split_scores,
)
from converters.heads.base import CellHead, Level, RawOutput, Shift, level_outputs, lists_to_tuples
from converters.heads.yolo_v2 import decode_scores, encode_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from converters.description.precedence import AllStatements
    from converters.description.values import StatedAnchors, StatedUnit
    from converters.facts import SourceFacts
    from converters.graph import GraphWriter
    from converters.heads.base import Head

ClassActivation = Literal["sigmoid", "softmax"]
MOST_LEVELS = 3


@dataclass(frozen=True, slots=True)
class AnchorGrid:
    """One level."""

    rows: int  # of cells
    columns: int  # of cells
    anchors_px: tuple[tuple[float, float], ...]  # width and height of each anchor, in pixels of the network's input
    # how far a centre can leave its cell: 1 not at all; YOLO v4 has 1.05 to 1.2, ``scale_x_y`` in its cfg
    xy_scale: float = 1.0

    def __post_init__(self) -> None:
        require.count(self.rows, "grid rows")
        require.count(self.columns, "grid columns")
        if not require.entries(self.anchors_px, "anchors_px"):
            raise ValueError("each grid needs at least one anchor")
        for anchor in self.anchors_px:
            require.pair(anchor, "each anchor")
        if not 1 <= require.number(self.xy_scale, "xy_scale") <= 2:
            raise ValueError(f"xy_scale must lie in 1..2, got {self.xy_scale!r}")


def grids_from_json(data: object) -> tuple[AnchorGrid, ...]:
    """Read grids as ``asdict`` writes them; raises ValueError where they are malformed."""
    keys = ("rows", "columns", "anchors_px", "xy_scale")
    grids = []
    for grid in require.entries(data, "grids"):
        if not isinstance(grid, dict) or any(key not in grid for key in keys):
            raise ValueError(f"each grid needs {', '.join(keys)}, got {grid!r}")
        grids.append(AnchorGrid(**{key: lists_to_tuples(grid[key]) for key in keys}))
    return tuple(grids)


def misfit_of_grids(facts: SourceFacts, *, least: int) -> str | None:
    """Why outputs are no raw grids ``[rows, columns, anchors * (5 + classes)]``; None where they are."""
    shapes = [output.shape for output in facts.outputs]
    fits = least <= len(shapes) <= MOST_LEVELS and all(len(shape) == 3 for shape in shapes)
    if fits and len({shape[2] for shape in shapes}) == 1 and len(set(shapes)) == len(shapes):
        return None
    grid = "[1, rows, columns, anchors * (5 + classes)]"
    return f"{least} to {MOST_LEVELS} outputs {grid} of different grids are expected"


def are_anchors_first(facts: SourceFacts) -> bool:
    """Whether outputs are grids as PyTorch has them, ``[anchors, rows, columns, 5 + classes]``."""
    shapes = [output.shape for output in facts.outputs]
    fits = 1 <= len(shapes) <= MOST_LEVELS and all(len(shape) == 4 and shape[3] > 5 for shape in shapes)
    return fits and len({(shape[0], shape[3]) for shape in shapes}) == 1 and len(set(shapes)) == len(shapes)


@dataclass(frozen=True, slots=True)
class AnchorHead(CellHead):
    """Raw grids with anchors, before a formula."""

    readers: ClassVar = {"grids": grids_from_json}
    title: ClassVar[str]
    grids: tuple[AnchorGrid, ...]  # the levels in the order of the outputs
    num_classes: int  # NC
    image_wh: tuple[float, float]  # width and height of the network's input in pixels

    def __post_init__(self) -> None:
        if not require.entries(self.grids, "grids"):
            raise ValueError("at least one grid is needed")
        for grid in self.grids:
            require.instance(grid, AnchorGrid, "each grid")
        require.count(self.num_classes, "num_classes")
        require.pair(self.image_wh, "image_wh")

    @classmethod
    def _levels_of(
        cls, statements: AllStatements, xy_scales: Sequence[float] = ()
    ) -> tuple[tuple[AnchorGrid, ...], int]:
        """The grids in the order of the outputs, with their anchors in pixels, and the number of classes.

        ``xy_scales``: what is stated of ``xy_scale``, the finest grid's first; empty where all are 1.
        """
        facts, anchors, in_cells = statements.facts, statements.anchors_or_default, cls.anchor_units == ("cell",)
        anchors_first, shape = are_anchors_first(facts), facts.outputs[0].shape
        corner = 1 if anchors_first else 0
        sides = [output.shape[corner : corner + 2] for output in facts.outputs]
        channels = shape[0] * shape[3] if anchors_first else shape[2]
        if anchors is None:
            grids = ", ".join(f"{rows} x {columns}" for rows, columns in sides)
            raise OptionError(
                f"'{facts.file}': its {cls.title} head (grids {grids}, {channels} channels) needs anchors of all "
                f"grids, the finest grid's first, and no one states them; {statements.how_to_state_anchors(cls)}; "
                "--head none keeps the raw outputs"
            )
        sizes, each = anchors.sizes_wh, len(anchors.sizes_wh) // len(sides)
        if in_cells and not _makes(channels, each, len(sizes), len(sides), statements):
            sizes, each = sizes * len(sides), len(sizes)  # one list for all grids
        if not _makes(channels, each, len(sizes), len(sides), statements) or (anchors_first and each != shape[0]):
            raise OptionError(
                f"'{facts.file}': {len(anchors.sizes_wh)} anchors ({anchors.where}) over {len(sides)} grids "
                f"cannot make {channels} = anchors * (5 + classes) channels each; check --anchors"
            )
        statements.require_names(channels // each - 5)
        unit = statements.unit_of(anchors)
        _require_unit(anchors, unit, in_cells=in_cells)
        finest_first = sorted(range(len(sides)), key=lambda index: -sides[index][0] * sides[index][1])
        scales = xy_scales or (1.0,) * len(sides)
        if len(scales) != len(sides):
            raise OptionError(
                f"'{facts.file}': {len(scales)} numbers of scale_x_y are stated, expected one of each of {len(sides)} "
                "grids"
            )
        grids_of_outputs = {}
        for place, index in enumerate(finest_first):
            rows, columns = sides[index]
            factors = {"cell": (facts.width / columns, facts.height / rows), "image": (facts.width, facts.height)}
            by_w, by_h = factors.get(unit or ("cell" if in_cells else "pixel"), (1, 1))
            pixels = tuple((w * by_w, h * by_h) for w, h in sizes[place * each : (place + 1) * each])
            grids_of_outputs[index] = AnchorGrid(rows, columns, pixels, scales[place])
        return tuple(grids_of_outputs[index] for index in range(len(sides))), channels // each - 5

    def _levels(self) -> Sequence[Level]:
        return [(grid.rows, grid.columns, len(grid.anchors_px)) for grid in self.grids]

    def _priors_wh(self) -> Float32:
        return self._by_cell([(np.array(grid.anchors_px, np.float64) / self.image_wh).tolist() for grid in self.grids])


@dataclass(frozen=True, slots=True)
class YoloV3(AnchorHead):
    """Grids before any activation."""

    kind: ClassVar[str] = "yolo_v3"
    title: ClassVar[str] = "YOLO v3"
    anchor_units: ClassVar[tuple[str, ...]] = ("pixel", "image")
    # ``"sigmoid"`` each, or one ``"softmax"``, which makes a single class certain
    class_activation: ClassActivation = "sigmoid"

    def __post_init__(self) -> None:
        AnchorHead.__post_init__(self)
        require.choice(self.class_activation, ClassActivation, "class_activation")

    @classmethod
    def misfit(cls, facts: SourceFacts, *, by_name: bool) -> str | None:
        """Why a network is none; see ``Head``."""
        return misfit_of_grids(facts, least=1 if by_name else 2) or facts.activated(by_name=by_name)

    @classmethod
    def from_statements(cls, statements: AllStatements) -> YoloV3:
        """The head of YOLO v3 or v4; see ``Head``."""
        grids, classes = cls._levels_of(statements, statements.xy_scales)
        return YoloV3(grids, classes, (float(statements.facts.width), float(statements.facts.height)))

    def _decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        rows = self.rows(outputs)
        scales, shift = self._scales_and_shift()
        offsets = sigmoid(rows[..., 0:2])
        centers = self._centers_in_grid(offsets if scales is None else offsets * scales, shift)
        boxes = exponential_boxes(centers, rows[..., 2:4], self._priors_wh())
        if self.class_activation == "softmax":
            return boxes, decode_scores(rows[..., 4:5], rows[..., 5:])
        return boxes, sigmoid(rows[..., 4:5]) * sigmoid(rows[..., 5:])

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``."""
        rows = self._row_nodes(writer, outputs)
        sizes = {"head/raw_xy": 2, "head/raw_wh": 2, "head/raw_objectness": 1, "head/class_logits": self.num_classes}
        xy, wh, objectness, classes = nodes.split(writer, rows, sizes, axis=2)
        scales, shift = self._scales_and_shift()
        offsets = nodes.sigmoid(writer, xy, "head/offsets_xy")
        if scales is not None:
            offsets = writer.op("Mul", [offsets, (scales, "head/xy_scales")], "head/offsets_xy_scaled")
        centers = self._center_nodes(writer, offsets, shift)
        boxes = nodes.exponential_boxes(writer, centers, wh, self._priors_wh())
        if self.class_activation == "softmax" and self.num_classes == 1:
            return boxes, nodes.sigmoid(writer, objectness, "head/scores")
        confidence = nodes.sigmoid(writer, objectness, "head/objectness")
        if self.class_activation == "softmax":
            probabilities = writer.op("Softmax", [classes], "head/class_probabilities", axis=2)
        else:
            probabilities = nodes.sigmoid(writer, classes, "head/class_probabilities")
        return boxes, writer.op("Mul", [confidence, probabilities], "head/scores")

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of boxes and scores; see ``Head``. A centre stays as near its cell as the scale says."""
        (moves, sizes), (scales, shift) = self._moves_and_sizes(boxes_xyxy), self._scales_and_shift()
        offsets = (moves + np.float32(shift)) / (np.float32(1) if scales is None else scales)
        of_softmax = self.class_activation == "softmax"
        parts = encode_scores(scores) if of_softmax else map(logit, split_scores(scores))
        return self._outputs_of(logit(offsets.clip(0, 1)), logarithms_of(sizes, self._priors_wh()), *parts)

    def _scales_and_shift(self) -> tuple[Float32 | None, Shift]:
        """The scale of every box ``(B, 1)``, and half of what it adds; None and 0 where each is 1."""
        if all(grid.xy_scale == 1 for grid in self.grids):
            return None, 0
        of_grids = np.array([[grid.xy_scale] for grid in self.grids], np.float32)
        scales = np.repeat(of_grids, self._counts(), axis=0)
        return scales, (scales - np.float32(1)) / np.float32(2)


class StYoloX(YoloV3):
    """How ``--head st_yolo_x`` reads grids, as STMicroelectronics decodes them: what it makes is a ``YoloV3``."""

    title: ClassVar[str] = "st_yolo_x"
    anchor_units: ClassVar[tuple[str, ...]] = ("cell",)

    @classmethod
    def misfit(cls, facts: SourceFacts, *, by_name: bool) -> str | None:
        """Why a network is none; see ``Head``."""
        why = misfit_of_grids(facts, least=1)
        return why or (None if by_name else "raw grids are read as st_yolo_x only where --head st_yolo_x says so")

    @classmethod
    def from_statements(cls, statements: AllStatements) -> YoloV3:
        """A softmax over the classes, and anchors in cells; see ``Head``."""
        facts, (grids, classes) = statements.facts, cls._levels_of(statements)
        return YoloV3(grids, classes, (float(facts.width), float(facts.height)), class_activation="softmax")


def row_of(head: Head) -> str:
    """The row of ``HEADS`` that makes such a head: its kind, but for what ``--head st_yolo_x`` makes."""
    return "st_yolo_x" if isinstance(head, YoloV3) and head.class_activation == "softmax" else head.kind


@dataclass(frozen=True, slots=True)
class YoloV5Raw(AnchorHead):
    """Grids before any activation; their ``xy_scale`` stays 1."""

    kind: ClassVar[str] = "yolo_v5_raw"
    title: ClassVar[str] = "raw YOLO v5"
    anchor_units: ClassVar[tuple[str, ...]] = ("pixel", "image")
    # outputs are ``[A, rows, columns, 5 + NC]``, as PyTorch has them, instead of ``[rows, columns, A * (5 + NC)]``
    anchors_first: bool = False

    def __post_init__(self) -> None:
        AnchorHead.__post_init__(self)
        require.flag(self.anchors_first, "anchors_first")
        if any(grid.xy_scale != 1 for grid in self.grids):
            raise ValueError("xy_scale of a yolo_v5_raw grid must be 1: its formula has no other")

    @classmethod
    def misfit(cls, facts: SourceFacts, *, by_name: bool) -> str | None:
        """Why a network is none; see ``Head``."""
        if are_anchors_first(facts) and (by_name or len(facts.outputs) > 1):
            return facts.activated(by_name=by_name)
        why = misfit_of_grids(facts, least=1)
        return why or (None if by_name else "such grids are read as raw YOLO v5 only where --head yolo_v5_raw says so")

    @classmethod
    def from_statements(cls, statements: AllStatements) -> YoloV5Raw:
        """The head of YOLO v5 or v7 before activation; see ``Head``."""
        facts, (grids, classes) = statements.facts, cls._levels_of(statements)
        return cls(grids, classes, (float(facts.width), float(facts.height)), anchors_first=are_anchors_first(facts))

    def _is_cell_by_cell(self) -> bool:
        return not self.anchors_first

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """An output per level."""
        if not self.anchors_first:
            return CellHead.raw_outputs(self)
        return level_outputs([(each, rows, columns, self._width()) for rows, columns, each in self._levels()])

    def _decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        activated = sigmoid(self.rows(outputs))
        xy, wh = activated[..., 0:2], activated[..., 2:4]
        centers = self._centers_in_grid(xy + xy, 0.5)
        half_sizes = wh * wh * (self._priors_wh() * np.float32(2))
        return clipped_corners(centers, half_sizes), activated[..., 4:5] * activated[..., 5:]

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``."""
        sizes = {"head/activated_xy": 2, "head/activated_wh": 2, "head/objectness": 1}
        sizes["head/class_probabilities"] = self.num_classes
        activated = nodes.sigmoid(writer, self._row_nodes(writer, outputs), "head/activated")
        xy, wh, objectness, classes = nodes.split(writer, activated, sizes, axis=2)
        offsets = writer.op("Add", [xy, xy], "head/offsets_xy")
        centers = self._center_nodes(writer, offsets, 0.5)
        squares = writer.op("Mul", [wh, wh], "head/squares_wh")
        anchors = self._priors_wh() * np.float32(2), "head/double_anchors_wh"
        half_sizes = writer.op("Mul", [squares, anchors], "head/half_sizes_wh")
        boxes = nodes.clipped_corners(writer, centers, half_sizes, "head/boxes")
        return boxes, writer.op("Mul", [objectness, classes], "head/scores")

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of boxes and scores; see ``Head``.

        A centre can leave its cell by half a cell; a size is at most four anchors.
        """
        moves, sizes = self._moves_and_sizes(boxes_xyxy)
        xy = logit(((moves + np.float32(0.5)) / 2).clip(0, 1))
        wh = logit((np.sqrt(np.maximum(sizes, 0) / self._priors_wh()) / 2).clip(0, 1))
        return self._outputs_of(xy, wh, *map(logit, split_scores(scores)))


def _makes(channels: int, each: int, count: int, levels: int, statements: AllStatements) -> bool:
    """Whether so many anchors a grid make its channels, with the classes that are named."""
    fits = each > 0 and count == each * levels and channels % each == 0 and channels // each > 5
    names = statements.names_of_people
    return fits and (names is None or levels > 1 or channels // each - 5 == len(names))


def _require_unit(anchors: StatedAnchors, unit: StatedUnit | None, *, in_cells: bool) -> None:
    if unit == "cell" and not in_cells:
        raise OptionError(
            f"{anchors.where}: anchors of several grids are taken in pixels or fractions of the image, since cells "
            "differ from grid to grid; multiply them by the strides, and say --anchor-unit pixel"
        )
    if unit == "pixel" or (unit is None and not in_cells):
        anchors.require_pixels(f"{anchors.where}, in pixels" + (", the default" if unit is None else ""))
