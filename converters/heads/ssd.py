"""SSD: scores and offsets of prior boxes; the priors are parameters, or an output of the network.

::

    scores [N, B, (1 +) NC], offsets t [N, B, 4]; u = t / scale
    coding "centers"    centre = u * prior size + prior centre      size = exp(u) * prior size
    coding "corners"    corner = u * prior size + prior corner      (a second corner before the first: an empty box)

``scale`` is the reciprocal of what Caffe calls a variance: 10, 10, 5, 5 for variances of 0.1, 0.1, 0.2, 0.2.

Sources of the formulas: W. Liu et al., "SSD: Single Shot MultiBox Detector" (2016), with its Caffe layer
DetectionOutput; for centres in the order y, x, h, w the kernel of ``TFLite_Detection_PostProcess`` in
tensorflow/tensorflow (lite/kernels/detection_postprocess.cc), operation for operation; for corners the SSD of
STMicroelectronics' model zoo.

The parameters of a ``TFLite_Detection_PostProcess`` operator: coding "centers", ``yx_first``, scales y, x, h, w of its
options, its third input as priors, activation "none"; a background where its scores have one column more than
``num_classes``. It clips nothing before boxes suppress each other, so this head does not either (``clipped``); see
``converters.spec.Suppression``.

Priors come from the operator behind the outputs, from a constant of the file, from an output that no product of the
picture reaches, from the columns of the one output (scores, offsets, priors: the SSD of STMicroelectronics' model zoo),
or from ``--priors``. The zoo's priors are corners without variances; any others state their format and variances.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np

from converters import require
from converters.errors import OptionError
from converters.heads import nodes
from converters.heads.arithmetic import (
    LEAST_PROBABILITY,
    Float32,
    centers_and_sizes,
    clip_xyxy,
    corners_from_centers,
    lattice_boxes,
    logarithms_of,
    logit,
    sigmoid,
    softmax,
)
from converters.heads.base import Head, RawOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from converters.description.precedence import AllStatements
    from converters.description.priors import PriorFormat, Priors, ScoreActivation
    from converters.facts import SourceFacts, SourceOutput
    from converters.graph import GraphWriter

Coding = Literal["centers", "corners"]
Activation = Literal["none", "sigmoid", "softmax"]
Part = Literal["scores", "offsets", "priors"]
Four = tuple[float, float, float, float]

ASK = "--priors FILE (.npy, .csv, .json) or --priors coco-ssd|coco-ssd-fpn"
PROBABILITIES = (-0.01, 1.01)
SWAPPED = [1, 0, 3, 2]  # y, x, h, w <-> x, y, w, h, and the same for corners


def _require_four(value: object, what: str) -> Four:
    numbers = [require.number(entry, f"each of {what}") for entry in require.entries(value, what)]
    if len(numbers) != 4:
        raise ValueError(f"{what} must be four numbers, got {value!r}")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _priors_from_base64(text: object) -> tuple[Four, ...] | None:
    if text is None:
        return None
    try:
        data = base64.b64decode(require.text(text, "priors"), validate=True)
    except binascii.Error as error:
        raise ValueError(f"priors must be base64: {error}") from error
    if not data or len(data) % 16:
        raise ValueError(f"priors must be four float32 numbers per box, got {len(data)} bytes")
    rows = np.frombuffer(data, "<f4").reshape(-1, 4).astype(np.float64)
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in rows)


def _require_parts(value: object) -> tuple[str, ...]:
    parts = require.texts(value, "parts")
    if not parts:
        raise ValueError("parts must name what the network gives")
    return parts


@dataclass(frozen=True, slots=True)
class Ssd(Head):
    """Scores and offsets of prior boxes."""

    kind: ClassVar[str] = "ssd"
    readers: ClassVar = {"priors": _priors_from_base64, "parts": _require_parts}
    num_boxes: int  # B
    num_classes: int  # NC, without the background
    coding: Coding  # what offsets move: ``"centers"`` and sizes, or ``"corners"``
    scales: Four  # four divisors of the offsets, in their order; 1 each where the network has none
    # float32 numbers, four per box, in the order of the offsets: centre and size, or two corners, as fractions of the
    # image; None where the network's third output has them
    priors: tuple[Four, ...] | None
    # offsets, scales and priors are in the order y, x, h, w (or y1, x1, y2, x2) instead of x, y, w, h
    yx_first: bool = False
    background: bool = True  # the first score is that of the background
    activation: Activation = "none"  # what the scores still need; over a softmax the background counts
    # what the network gives, in its order: scores, offsets, and priors where these are no parameters
    parts: tuple[Part, ...] = ()
    joined: bool = False  # the parts are the columns of one output, in their order
    clipped: bool = True  # boxes end at the picture's border; otherwise the tail clips them, after suppression

    def __post_init__(self) -> None:
        require.fields(self, require.count, "num_boxes", "num_classes")
        require.choice(self.coding, Coding, "coding")
        if min(_require_four(self.scales, "scales")) <= 0:
            raise ValueError(f"scales must be four numbers above 0, got {self.scales!r}")
        require.choice(self.activation, Activation, "activation")
        require.fields(self, require.flag, "yx_first", "background", "joined", "clipped")
        if self.priors is not None:
            self._require_priors()
        needed: tuple[Part, ...] = ("scores", "offsets", *(() if self.priors is not None else ("priors",)))
        if not require.texts(self.parts, "parts"):
            object.__setattr__(self, "parts", needed)
        if sorted(self.parts) != sorted(needed):
            raise ValueError(f"parts must be {', '.join(needed)} in any order, got {self.parts!r}")

    def _require_priors(self) -> None:
        priors = require.entries(self.priors, "priors")
        if len(priors) != self.num_boxes:
            raise ValueError(f"{len(priors)} priors do not fit {self.num_boxes} boxes: one prior per box is needed")
        for index, prior in enumerate(priors):
            a, b, c, d = _require_four(prior, f"prior {index}")
            w, h = (c, d) if self.coding == "centers" else (c - a, d - b)
            if min(w, h) <= 0:
                raise ValueError(f"prior {index} has no size above 0: {prior!r}, read as {self.coding}")
        kept = tuple(map(tuple, self._priors().tolist()))  # float32: what a document keeps, and nodes compute with
        object.__setattr__(self, "priors", kept)

    @classmethod
    def misfit(cls, facts: SourceFacts, *, by_name: bool) -> str | None:
        """Why a network is none; see ``Head``."""
        if facts.postprocess is not None:
            return None
        shapes = [output.shape for output in facts.outputs]
        if any(len(shape) != 2 for shape in shapes) or len({shape[0] for shape in shapes}) != 1:
            return "an SSD head is offsets [1, boxes, 4] and scores [1, boxes, classes], maybe priors [1, boxes, 4]"
        if len(shapes) == 1:
            if not by_name:
                return "one list of scores, offsets and priors is read as SSD only where --head ssd says so"
            least = "scores, 4 offsets and 4 priors of each box, 9 columns or more, are expected"
            return None if shapes[0][1] >= 9 else f"{least}, found {shapes[0][1]}"
        try:
            _parts(facts, by_name=by_name)
        except OptionError as error:
            return str(error)
        return None

    @classmethod
    def from_statements(cls, statements: AllStatements) -> Ssd:
        """The head of scores, offsets and priors; see ``Head``."""
        facts, stated = statements.facts, statements.priors
        if facts.postprocess is not None:
            statements.require_names(facts.postprocess.num_classes)
            return cls(
                num_boxes=len(facts.postprocess.priors),
                num_classes=facts.postprocess.num_classes,
                coding="centers",
                scales=facts.postprocess.scales,
                priors=facts.postprocess.priors,
                yx_first=True,
                background=facts.outputs[1].shape[-1] > facts.postprocess.num_classes,
                parts=("offsets", "scores"),
                clipped=False,
            )
        joined = len(facts.outputs) == 1
        parts = ("scores", "offsets", "priors") if joined else _parts(facts)
        scores = facts.outputs[0 if joined else parts.index("scores")]
        boxes, columns = scores.shape[0], scores.shape[1] - (8 if joined else 0)
        background = _has_background(facts, columns, statements.names_of_people)
        kind, variances, priors = _settle_priors(statements, boxes, own="priors" in parts)
        try:
            return cls(
                num_boxes=boxes,
                num_classes=columns - background,
                coding="centers" if kind in ("yxhw", "xywh") else "corners",
                scales=cast("Four", tuple(float(np.float32(1 / v)) for v in variances)),
                priors=None if priors is None else cast("tuple[Four, ...]", tuple(map(tuple, priors.rows.tolist()))),
                yx_first=kind in ("yxhw", "yxyx"),
                background=background,
                activation=_activation(facts, stated.activation, scores),
                parts=cast("tuple[Part, ...]", parts),
                joined=joined,
            )
        except ValueError as error:
            where = "the network's priors" if priors is None else priors.where
            raise OptionError(f"'{facts.file}': {where}, read as {kind}: {error}; check --prior-format") from error

    @classmethod
    def asks_for_priors(cls, facts: SourceFacts) -> bool:
        """Whether no output, no constant and no operator of the file holds them."""
        return facts.postprocess is None and facts.priors is None and len(facts.outputs) == 2

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """Scores, offsets, and priors where these are no parameters; or one output of all their columns."""
        widths = self._widths()
        if self.joined:
            return (RawOutput("", (self.num_boxes, sum(widths))),)
        return tuple(RawOutput(part, (self.num_boxes, width)) for part, width in zip(self.parts, widths, strict=True))

    def _widths(self) -> list[int]:
        """Columns of each part."""
        return [self.background + self.num_classes if part == "scores" else 4 for part in self.parts]

    def _part(self, outputs: Sequence[Float32]) -> dict[str, Float32]:
        """The parts by name."""
        arrays = np.split(outputs[0], np.cumsum(self._widths())[:-1], axis=-1) if self.joined else outputs
        return dict(zip(self.parts, arrays, strict=True))

    def _decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        parts = self._part(outputs)
        priors = self._priors() if self.priors is not None else parts["priors"]
        offsets = np.asarray(parts["offsets"] / np.array(self.scales, np.float32), np.float32)
        low, high = priors[..., 0:2], priors[..., 2:4]
        if self.coding == "centers":
            half_sizes = np.exp(offsets[..., 2:4]) * (high / np.float32(2))
            boxes = corners_from_centers(offsets[..., 0:2] * high + low, half_sizes)
        else:
            corners = offsets * np.tile(high - low, 2) + priors
            first, second = corners[..., 0:2], corners[..., 2:4]
            boxes = np.concatenate([first, np.maximum(first, second)], axis=-1)
        if self.clipped:
            boxes = clip_xyxy(boxes)
        if self.yx_first:
            boxes = np.ascontiguousarray(boxes[..., SWAPPED])
        scores = softmax(parts["scores"]) if self.activation == "softmax" else parts["scores"]
        scores = scores[..., int(self.background) :]
        return boxes, sigmoid(scores) if self.activation == "sigmoid" else scores

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The twin of ``decode``."""
        arrays = outputs
        if self.joined:
            widths = {f"head/{part}": width for part, width in zip(self.parts, self._widths(), strict=True)}
            arrays = nodes.split(writer, outputs[0], widths, axis=2)
        parts = dict(zip(self.parts, arrays, strict=True))
        offsets, priors = parts["offsets"], parts.get("priors")
        if self.scales != (1, 1, 1, 1):
            scales = np.array(self.scales, np.float32), "head/scales"
            offsets = writer.op("Div", [offsets, scales], "head/scaled_offsets")
        name = "head/boxes_yx" if self.yx_first else "head/boxes"
        boxes = self._center_nodes if self.coding == "centers" else self._corner_nodes
        decoded = boxes(writer, offsets, priors, name)
        if self.yx_first:
            decoded = writer.op("Gather", [decoded, (SWAPPED, "head/xy_order")], "head/boxes", axis=2)
        return decoded, self._score_nodes(writer, parts["scores"])

    def _center_nodes(self, writer: GraphWriter, offsets: ir.Value, priors: ir.Value | None, name: str) -> ir.Value:
        xy, wh = nodes.split(writer, offsets, {"head/offsets_of_centers": 2, "head/logarithms_of_sizes": 2}, axis=2)
        if priors is None:
            centers_xy, sizes_wh = np.split(self._priors(), 2, axis=1)
            low = writer.constant(centers_xy, "head/prior_centers")
            sizes = writer.constant(sizes_wh, "head/prior_sizes")
            half_sizes = writer.constant(sizes_wh / np.float32(2), "head/half_prior_sizes")
        else:
            low, sizes = nodes.split(writer, priors, {"head/prior_centers": 2, "head/prior_sizes": 2}, axis=2)
            half_sizes = writer.op("Div", [sizes, (np.float32(2), "head/two")], "head/half_prior_sizes")
        moved = writer.op("Mul", [xy, sizes], "head/moves_of_centers")
        centers = writer.op("Add", [moved, low], "head/centers")
        powers = writer.op("Exp", [wh], "head/multiples_of_sizes")
        half = writer.op("Mul", [powers, half_sizes], "head/half_sizes")
        if self.clipped:
            return nodes.clipped_corners(writer, centers, half, name)
        first = writer.op("Sub", [centers, half], "head/first_corners")
        second = writer.op("Add", [centers, half], "head/second_corners")
        return writer.op("Concat", [first, second], name, axis=2)

    def _corner_nodes(self, writer: GraphWriter, offsets: ir.Value, priors: ir.Value | None, name: str) -> ir.Value:
        if priors is None:
            own = self._priors()
            corners = writer.constant(own, "head/prior_corners")
            both = writer.constant(np.tile(own[:, 2:4] - own[:, 0:2], 2), "head/prior_sizes")
        else:
            low, high = nodes.split(writer, priors, {"head/prior_low": 2, "head/prior_high": 2}, axis=2)
            size = writer.op("Sub", [high, low], "head/prior_size")
            corners, both = priors, writer.op("Concat", [size, size], "head/prior_sizes", axis=2)
        moved = writer.op("Mul", [offsets, both], "head/moves_of_corners")
        both = writer.op("Add", [moved, corners], "head/corners")
        first, second = nodes.split(writer, both, {"head/first_corners": 2, "head/second_corners_raw": 2}, axis=2)
        second = writer.op("Max", [first, second], "head/second_corners")
        if not self.clipped:
            return writer.op("Concat", [first, second], name, axis=2)
        return nodes.clip_xyxy(writer, writer.op("Concat", [first, second], "head/boxes_unclipped", axis=2), name)

    def _score_nodes(self, writer: GraphWriter, scores: ir.Value) -> ir.Value:
        if self.activation == "softmax":
            scores = writer.op("Softmax", [scores], "head/class_probabilities", axis=2)
        if self.background:
            sizes = {"head/background": 1, "head/scores_of_classes": self.num_classes}
            _, scores = nodes.split(writer, scores, sizes, axis=2)
        return nodes.sigmoid(writer, scores, "head/scores") if self.activation == "sigmoid" else scores

    def default_boxes(self) -> Float32:
        """The priors; boxes side by side where they are an output."""
        if self.priors is None:
            return lattice_boxes(self.num_boxes)
        priors = self._priors()
        if self.coding == "centers":
            priors = corners_from_centers(priors[:, 0:2], priors[:, 2:4] / np.float32(2))
        return priors[:, SWAPPED] if self.yx_first else priors

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Raw outputs of boxes and scores; see ``Head``. Priors that are an output are boxes side by side."""
        boxes = boxes_xyxy[..., SWAPPED] if self.yx_first else boxes_xyxy
        priors = self._priors() if self.priors is not None else self.default_boxes()
        if self.priors is None and self.coding == "centers":
            priors = np.concatenate(centers_and_sizes(priors), axis=-1)
        if self.priors is None and self.yx_first:
            priors = priors[:, SWAPPED]
        low, high = priors[..., 0:2], priors[..., 2:4]
        if self.coding == "centers":
            centers, sizes = centers_and_sizes(boxes)
            offsets = np.concatenate([(centers - low) / high, logarithms_of(sizes, high)], axis=-1)
        else:
            offsets = (boxes - priors) / np.tile(high - low, 2)
        if self.background:
            rest = np.clip(1 - scores.sum(axis=-1, keepdims=True), 0, 1)
            scores = np.concatenate([rest, scores], axis=-1)
        if self.activation == "softmax":
            scores = np.log(np.maximum(scores, LEAST_PROBABILITY))
        values = {
            "scores": logit(scores) if self.activation == "sigmoid" else scores.astype(np.float32),
            "offsets": (offsets * np.array(self.scales)).astype(np.float32),
            "priors": np.repeat(priors[None], len(scores), axis=0),
        }
        raw = tuple(values[part] for part in self.parts)
        return (np.concatenate(raw, axis=-1),) if self.joined else raw

    def _priors(self) -> Float32:
        return np.array(self.priors, np.float32)

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        """Offsets and scores of each box; see ``Head``."""
        parts = self._part(outputs)
        return np.concatenate([parts["offsets"], parts["scores"]], axis=-1)

    def to_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values; priors as base64 of little-endian float32, four per box."""
        priors = None
        if self.priors is not None:
            priors = base64.b64encode(self._priors().astype("<f4").tobytes()).decode("ascii")
        return {**Head.to_dict(self), "priors": priors}


def _parts(facts: SourceFacts, *, by_name: bool = True) -> tuple[str, ...]:
    """What each of several outputs is, in the file's order."""
    outputs = facts.outputs
    fixed = [index for index, output in enumerate(outputs) if output.from_picture is False]
    if len(outputs) == 3 and outputs[0].from_picture is None:
        if not by_name:
            raise OptionError(
                "which output is the priors cannot be told here: --head ssd takes scores, offsets, priors"
            )
        fixed = [2]
    rest = [index for index in range(len(outputs)) if index not in fixed]
    if len(outputs) > 3 or len(fixed) > 1 or (len(outputs) == 3) != (len(fixed) == 1):
        raise OptionError(
            f"an SSD head is two outputs of the picture, and one at most that is no product of it (its priors), found "
            f"{len(rest)} and {len(fixed)}"
        )
    offsets = [index for index in rest if outputs[index].shape[1] == 4]
    if len(offsets) == 2:
        offsets = [index for index in rest if not outputs[index].activations]
    if len(offsets) != 1 or any(outputs[index].shape[1] != 4 for index in fixed):
        raise OptionError("which output holds the four offsets of each box cannot be told: expected [1, boxes, 4] once")
    names = {offsets[0]: "offsets", **dict.fromkeys(fixed, "priors")}
    return tuple(names.get(index, "scores") for index in range(len(outputs)))


def _has_background(facts: SourceFacts, columns: int, class_names: tuple[str, ...] | None) -> bool:
    """Whether the first score is that of a background; without names it is, unless it is the only one."""
    if class_names is None:
        return columns > 1
    if len(class_names) not in (columns, columns - 1):
        raise OptionError(
            f"'{facts.file}': its scores have {columns} columns, {columns} classes or a background and {columns - 1}; "
            f"{len(class_names)} are named; check --classes"
        )
    return len(class_names) == columns - 1


def _settle_priors(
    statements: AllStatements, boxes: int, *, own: bool
) -> tuple[PriorFormat, Sequence[float], Priors | None]:
    """Format, variances, and the priors where they are no output of the network's ``own``."""
    facts, stated = statements.facts, statements.priors
    if own and stated.priors is not None:
        raise OptionError(f"'{facts.file}' gives its priors itself: leave --priors out")
    if own or (facts.priors is not None and stated.priors is None):
        kind = stated.format or "xyxy"
        if stated.variances is None and kind in ("yxhw", "xywh"):
            raise OptionError(_ask_for_variances(facts, "its own priors", kind))
        return kind, stated.variances or (1, 1, 1, 1), None if own else statements.read_priors()
    priors = statements.read_priors()
    if priors is None:
        raise OptionError(
            f"'{facts.file}': its SSD head ({boxes} boxes) needs priors, and no one states them; give {ASK}"
        )
    if len(priors.rows) != boxes:
        raise OptionError(
            f"{priors.where}: {len(priors.rows)} priors, expected {boxes}, one for each box of '{facts.file}'"
        )
    kind_or_none, variances = stated.format or priors.format, stated.variances or priors.variances
    if kind_or_none is None:
        raise OptionError(
            f"{priors.where}: how its four numbers are read is not stated; give --prior-format yxhw (centre y and x, "
            "height, width), xywh, xyxy (corners) or yxyx"
        )
    if variances is None:
        raise OptionError(_ask_for_variances(facts, priors.where, kind_or_none))
    return kind_or_none, variances, priors


def _ask_for_variances(facts: SourceFacts, where: str, kind: str) -> str:
    return (
        f"'{facts.file}': {where} ({kind}) have no variances, which offsets are multiplied by: expected 8 columns, or "
        f"--variances 0.1,0.1,0.2,0.2 (1,1,1,1: none)"
    )


def _activation(facts: SourceFacts, stated: ScoreActivation | None, scores: SourceOutput) -> Activation:
    """What the scores still need: nothing where the network has activated them, or their codes are probabilities."""
    low, high = PROBABILITIES
    done = bool(scores.activations)
    if not done and scores.smallest is not None and scores.largest is not None:
        done = low <= scores.smallest and scores.largest <= high
    if done and stated not in (None, "none"):
        reason = " and ".join(scores.activations) or "its codes lie within 0..1"
        raise OptionError(
            f"'{facts.file}': its scores are probabilities already ({reason}); leave --score-activation out"
        )
    if not done and stated is None:
        raise OptionError(
            f"'{facts.file}': its scores are raw numbers; say what turns them into probabilities: --score-activation "
            "softmax (Caffe, ST) or sigmoid (TensorFlow's Object Detection API), or none"
        )
    return stated or "none"
