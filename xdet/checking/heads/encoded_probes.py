"""Crafted heads of any kind: boxes and scores are asked for, ``Head.encode`` makes raw outputs that decode to them.

YOLO v2 heads have sharper ones (``probes``), made of their codes. Here the overlap and the score at the thresholds are
those that the numpy oracle decodes; where ``exp`` is rounded in another way, the judge excuses what rounding explains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.heads.arithmetic import centers_and_sizes, iou_xyxy
from converters.heads.base import join_outputs
from converters.heads.nms import MAX_CANDIDATES, decode_head
from converters.spec import Thresholds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from converters.heads.base import Head
    from converters.spec import DetectorSpec

    Float32 = NDArray[np.float32]

OVERLAPS = (0.2, 0.8)  # where the chosen pair's IoU lies
APART = 0.05  # the least difference between the two thresholds
ASIDE = 1e-5  # of an IoU: more than rounding (2e-6), less than any step of the codes
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0)  # of the default boxes, until two near the middle overlap so
NEAR = 150  # boxes that are looked at
HALF = 0.5  # the score threshold, as far as the head can express it


@dataclass(frozen=True, eq=False)
class ProbeSet:
    """Crafted heads, as runtimes hand heads over, and thresholds at which each is decoded.

    ``tables`` hold, for values of the graph, one row per probe.
    """

    names: tuple[str, ...]
    heads: Float32
    thresholds: tuple[Thresholds, ...]
    tables: Mapping[str, NDArray[Any]]


def overlapping_boxes(boxes: Float32, iou: float, *, apart_from: float | None = None) -> tuple[int, int, float] | None:
    """Two boxes (indices, the lower first) whose overlap is nearest to ``iou``, and it; None where none is in range.

    An overlap may have to differ from another threshold, ``apart_from``.
    """
    overlaps = np.triu(iou_xyxy(boxes[:, None], boxes[None]), 1)
    fits = (overlaps > OVERLAPS[0]) & (overlaps < OVERLAPS[1])
    if apart_from is not None:
        fits &= np.abs(overlaps - apart_from) > APART
    if not fits.any():
        return None
    off = np.where(fits, np.abs(overlaps - iou), np.inf)
    first, second = np.unravel_index(np.argmin(off), off.shape)
    return int(first), int(second), float(overlaps[first, second])


def thresholds_around(score: float, iou: float, rows: int) -> tuple[Thresholds, ...]:
    """Thresholds with an overlap at the edge, above and below it, and 1."""
    edges = (iou, iou + ASIDE, iou - ASIDE, 1)
    return tuple(Thresholds(score, float(np.float32(edge)), rows) for edge in edges)


@dataclass(frozen=True, eq=False)
class _Bench:
    """What probes are made of: two boxes near the middle that overlap, at a scale of the default boxes."""

    head: Head
    pair: tuple[int, int]
    scale: float
    thresholds: tuple[Thresholds, ...]

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


def overlapping_pair(bench: _Bench) -> Crafted:
    """Two boxes whose overlap is the IoU threshold."""
    scores = bench.blank()
    scores[list(bench.pair), 0] = 0.75, 0.875
    return bench.scale, scores


def equal_scores(bench: _Bench) -> Crafted:
    """Every box alike in score."""
    scores = bench.blank()
    scores[: bench.most_boxes, 0] = 0.75
    return bench.scale, scores


def classes_in_one_place(bench: _Bench) -> Crafted | None:
    """Two boxes as large as the picture, of two classes; only for several classes."""
    if bench.head.num_classes == 1:
        return None
    scores = bench.blank()
    scores[bench.pair[0], 0], scores[bench.pair[1], -1] = 0.75, 0.875
    return 100.0, scores


def more_than_the_rows(bench: _Bench) -> Crafted:
    """Small boxes that do not overlap, more of them than the result has rows where the head has as many."""
    return 0.25, bench.falling()


def scores_at_the_threshold(bench: _Bench) -> Crafted:
    """Scores below the score threshold, at it, and above it."""
    scores = bench.blank()
    scores[: bench.most_boxes, 0] = HALF + (np.arange(bench.most_boxes) % 3 - 1) / 64
    return 0.25, scores


def nothing_at_all(bench: _Bench) -> Crafted:
    """No score above the threshold."""
    return 1.0, bench.blank()


def beyond_the_picture(bench: _Bench) -> Crafted:
    """Boxes that reach beyond the picture, of every size that the head has."""
    return 3.0, bench.falling()


PROBES: dict[str, Callable[[_Bench], Crafted | None]] = {
    "overlapping pair": overlapping_pair,
    "equal scores": equal_scores,
    "classes in one place": classes_in_one_place,
    "more boxes than rows": more_than_the_rows,
    "scores at the threshold": scores_at_the_threshold,
    "nothing at all": nothing_at_all,
    "picture edges": beyond_the_picture,
}


def encode_probes(spec: DetectorSpec) -> ProbeSet | None:
    """Every probe that a head can express; None where no two of its boxes can overlap as wanted."""
    head = spec.head
    assert head is not None  # noqa: S101 - the caller decodes boxes
    bench = _find_bench(spec, head)
    if bench is None:
        return None
    crafted = {name: made for name, craft in PROBES.items() if (made := craft(bench)) is not None}
    boxes = np.stack([_scaled(head, scale) for scale, _ in crafted.values()])
    outputs = head.encode(boxes, np.stack([scores for _, scores in crafted.values()]))
    names = [output.value_name for output in head.raw_outputs()]
    tables = {name: np.asarray(output, np.float32) for name, output in zip(names, outputs, strict=True)}
    return ProbeSet(tuple(crafted), join_outputs(list(tables.values())), bench.thresholds, tables)


def _find_bench(spec: DetectorSpec, head: Head) -> _Bench | None:
    centers, _ = centers_and_sizes(head.default_boxes())
    near = np.sort(np.argsort(np.abs(centers - np.float32(0.5)).max(axis=1), kind="stable")[:NEAR])
    half = np.zeros((1, head.num_boxes, head.num_classes), np.float32)
    half[..., 0] = HALF
    for scale in SCALES:
        boxes, scores = decode_head(join_outputs(head.encode(_scaled(head, scale)[None], half)), spec)
        found = overlapping_boxes(boxes[0][near], spec.thresholds.iou)
        if found is not None:
            first, second, iou = found
            pair = int(near[first]), int(near[second])
            at = thresholds_around(float(scores[0, pair[0], 0]), iou, spec.thresholds.max_detections)
            return _Bench(head, pair, scale, at)
    return None


def _scaled(head: Head, scale: float) -> Float32:
    """The default boxes, larger or smaller around their centres."""
    centers, sizes = centers_and_sizes(head.default_boxes())
    half = sizes * np.float32(scale / 2)
    return np.concatenate([centers - half, centers + half], axis=-1)
