"""Crafted heads of any kind, by way of ``Head.encode``: boxes and scores are asked, raw outputs that decode to them are made.

YOLO v2 heads have sharper ones (``probes``), made of their codes. Here the overlap and the score at the thresholds are
those that the numpy oracle decodes; where ``exp`` is rounded in another way, the judge excuses what rounding explains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.heads.arithmetic import centers_and_sizes
from converters.heads.base import join_outputs
from converters.heads.boxes import iou_xyxy
from converters.heads.nms import MAX_CANDIDATES, decode_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from converters.heads.base import Head
    from converters.spec import DetectorSpec

    Float32 = NDArray[np.float32]

OVERLAPS = (0.2, 0.8)  # where the chosen pair's IoU lies
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0)  # of the default boxes, until two near the middle overlap so
NEAR = 150  # boxes that are looked at
HALF = 0.5  # the score threshold, as far as the head can express it


@dataclass(frozen=True, eq=False)
class Asked:
    """What probes are made of.

    Attributes:
        spec: the detector.
        head: its head.
        pair: two boxes near the middle that overlap, the lower index first.
        scale: of the default boxes at which they do.
        iou: their overlap.
        score: the score threshold.
    """

    spec: DetectorSpec
    head: Head
    pair: tuple[int, int]
    scale: float
    iou: float
    score: float

    @property
    def most_boxes(self) -> int:
        """Boxes that may count without exceeding the candidates."""
        return min(self.head.num_boxes, MAX_CANDIDATES)

    def blank(self) -> Float32:
        """Scores of nothing, ``(B, NC)``."""
        return np.zeros((self.head.num_boxes, self.head.num_classes), np.float32)

    def falling(self) -> Float32:
        """Scores between the threshold and 1, in an order of their own, of the first class."""
        scores, count = self.blank(), self.most_boxes
        scores[:count, 0] = 0.55 + 0.4 * (np.arange(count) * 37 % count) / count
        return scores


Crafted = tuple[float, "Float32"]  # scale of the boxes, and scores


def overlapping_pair(asked: Asked) -> Crafted:
    """Two boxes whose overlap is the IoU threshold."""
    scores = asked.blank()
    scores[list(asked.pair), 0] = 0.75, 0.875
    return asked.scale, scores


def equal_scores(asked: Asked) -> Crafted:
    """Every box alike in score."""
    scores = asked.blank()
    scores[: asked.most_boxes, 0] = 0.75
    return asked.scale, scores


def classes_in_one_place(asked: Asked) -> Crafted | None:
    """Two boxes as large as the picture, of two classes; only for several classes."""
    if asked.head.num_classes == 1:
        return None
    scores = asked.blank()
    scores[asked.pair[0], 0], scores[asked.pair[1], -1] = 0.75, 0.875
    return 100.0, scores


def more_than_the_rows(asked: Asked) -> Crafted:
    """Small boxes that do not overlap, more of them than the result has rows where the head has as many."""
    return 0.25, asked.falling()


def scores_at_the_threshold(asked: Asked) -> Crafted:
    """Scores below the score threshold, at it, and above it."""
    scores = asked.blank()
    scores[: asked.most_boxes, 0] = HALF + (np.arange(asked.most_boxes) % 3 - 1) / 64
    return 0.25, scores


def nothing_at_all(asked: Asked) -> Crafted:
    """No score above the threshold."""
    return 1.0, asked.blank()


def beyond_the_picture(asked: Asked) -> Crafted:
    """Boxes that reach beyond the picture, of every size that the head has."""
    return 3.0, asked.falling()


PROBES: dict[str, Callable[[Asked], Crafted | None]] = {
    "overlapping pair": overlapping_pair,
    "equal scores": equal_scores,
    "classes in one place": classes_in_one_place,
    "more boxes than rows": more_than_the_rows,
    "scores at the threshold": scores_at_the_threshold,
    "nothing at all": nothing_at_all,
    "picture edges": beyond_the_picture,
}


@dataclass(frozen=True, eq=False)
class EncodedProbes:
    """Crafted heads.

    Attributes:
        names: of the probes.
        outputs: raw output's name in the graph -> float32 ``(P, *shape)``.
        heads: the same as runtimes hand heads over.
        score: the score threshold.
        iou: the overlap of the chosen pair.
    """

    names: tuple[str, ...]
    outputs: dict[str, Float32]
    heads: Float32
    score: float
    iou: float


def encode_probes(spec: DetectorSpec) -> EncodedProbes | None:
    """Every probe that a head can express; None where no two of its boxes can overlap as wanted."""
    head = spec.head
    assert head is not None  # noqa: S101 - the caller decodes boxes
    asked = _find_pair(spec, head)
    if asked is None:
        return None
    crafted = {name: made for name, craft in PROBES.items() if (made := craft(asked)) is not None}
    boxes = np.stack([_scaled(head, scale) for scale, _ in crafted.values()])
    outputs = head.encode(boxes, np.stack([scores for _, scores in crafted.values()]))
    names = [output.value_name for output in head.raw_outputs()]
    named = {name: np.asarray(output, np.float32) for name, output in zip(names, outputs, strict=True)}
    return EncodedProbes(tuple(crafted), named, join_outputs(list(named.values())), asked.score, asked.iou)


def _find_pair(spec: DetectorSpec, head: Head) -> Asked | None:
    """Two boxes near the middle whose IoU comes nearest to the model's threshold."""
    centers, _ = centers_and_sizes(head.default_boxes())
    near = np.sort(np.argsort(np.abs(centers - np.float32(0.5)).max(axis=1), kind="stable")[:NEAR])
    half = np.zeros((1, head.num_boxes, head.num_classes), np.float32)
    half[..., 0] = HALF
    for scale in SCALES:
        boxes, scores = decode_head(join_outputs(head.encode(_scaled(head, scale)[None], half)), spec)
        there = boxes[0][near]
        overlaps = np.triu(iou_xyxy(there[:, None], there[None]), 1)
        fits = (overlaps > OVERLAPS[0]) & (overlaps < OVERLAPS[1])
        if fits.any():
            off = np.where(fits, np.abs(overlaps - spec.thresholds.iou), np.inf)
            first, second = np.unravel_index(np.argmin(off), off.shape)
            pair, iou = (int(near[first]), int(near[second])), float(overlaps[first, second])
            return Asked(spec, head, pair, scale, iou, float(scores[0, pair[0], 0]))
    return None


def _scaled(head: Head, scale: float) -> Float32:
    """The default boxes, larger or smaller around their centres."""
    centers, sizes = centers_and_sizes(head.default_boxes())
    half = sizes * np.float32(scale / 2)
    return np.concatenate([centers - half, centers + half], axis=-1)
