"""Crafted raw heads that put one question each to a decoder: photographs meet these cases by chance only.

Every head is decoded at four pairs of thresholds, which differ in the IoU threshold: it *equals* the overlap of a chosen pair
of boxes as float32 computes it, lies ``ASIDE`` above or below, or is 1, the overlap of equal boxes on every runtime whatever
its rounding. The score threshold is the score of a box whose raw values are all 0. Zeros are decoded alike nearly everywhere:
``exp(0)`` is 1, the sigmoid 1/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.spec import MAX_CANDIDATES, Thresholds
from xdet.checking.probe_bench import Bench, find_pair
from xdet.decode import decode_scores, detect_from_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from converters.spec import DetectorSpec

ASIDE = 1e-5  # of an IoU: more than rounding (2e-6), less than any step of the codes


@dataclass(frozen=True, eq=False)
class ProbeSet:
    """Crafted heads.

    Attributes:
        names: of the probes, as ``PROBES`` has them.
        heads: float32 ``(P, grid_h, grid_w, channels)``.
        thresholds: at which each is decoded.
    """

    names: tuple[str, ...]
    heads: NDArray[np.float32]
    thresholds: tuple[Thresholds, ...]


def craft_probes(spec: DetectorSpec, levels: NDArray[np.float32]) -> ProbeSet | None:
    """Every probe that a head of these levels can hold; None where it holds no number below, at or above 0.

    Args:
        spec: the detector, with anchors.
        levels: float32, rising: what its raw values can be.
    """
    if not levels[0] < 0 < levels[-1] or 0 not in levels:
        return None
    score = float(decode_scores(*_zeros(1, 1, len(spec.class_names)))[0, 0, 0])
    pair = find_pair(spec, levels, apart_from=score)
    if pair is None:
        return None
    bench = Bench(spec, levels, pair, score)
    iou = float(pair.iou)
    thresholds = tuple(
        Thresholds(score, float(np.float32(edge)), spec.thresholds.max_detections)
        for edge in (iou, iou + ASIDE, iou - ASIDE, 1)
    )
    crafted = {name: rows for name, craft in PROBES.items() if (rows := craft(bench)) is not None}
    return ProbeSet(
        tuple(crafted), np.concatenate([bench.as_head(rows) for rows in crafted.values()]), thresholds
    )


def _zeros(images: int, boxes: int, classes: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Raw objectness and class logits of 0."""
    return np.zeros((images, boxes, 1), np.float32), np.zeros((images, boxes, classes), np.float32)


def overlapping_pair(bench: Bench) -> NDArray[np.float32]:
    """Two boxes whose overlap is the IoU threshold: the worse one stays at it and above it, and falls below it."""
    rows, (first, second) = bench.blank(), bench.pair.boxes
    rows[[first, second], 2:4] = bench.pair.size
    rows[first, 4], rows[second, 4] = bench.positive[len(bench.positive) // 2], bench.high
    return rows


def equal_scores(bench: Bench) -> NDArray[np.float32]:
    """Every box alike in score: the lower index suppresses, and rows stand in the order of their index."""
    rows = bench.blank()
    larger = bench.positive[bench.positive > bench.pair.size]
    rows[:, 2:4] = (
        larger[0] if larger.size else 0
    )  # not the pair's: or overlaps would equal the threshold everywhere
    rows[: bench.most_boxes, 4] = bench.high
    return rows


def classes_in_one_place(bench: Bench) -> NDArray[np.float32] | None:
    """Two boxes as large as may be, of two classes, and a box of both: none suppresses another; only for several classes."""
    if len(bench.spec.class_names) == 1:
        return None
    rows, (first, second) = bench.blank(), bench.pair.boxes
    rows[[first, second], 4] = bench.high
    rows[:, 5:] = bench.low
    rows[[first, second], 2:4] = bench.high
    rows[first, 5] = rows[second, -1] = bench.high
    both = 0 if first else bench.spec.num_boxes - 1
    rows[both, 4] = bench.high
    middle = len(bench.positive) // 2
    rows[both, 5], rows[both, -1] = bench.positive[[middle - 1, middle]]
    return rows


def more_than_the_rows(bench: Bench) -> NDArray[np.float32] | None:
    """More boxes that stay than the result has rows, of one class where its boxes suffice; None where the levels allow none."""
    rows, spec = bench.small_boxes(), bench.spec
    rows[: bench.most_boxes, 4] = bench.positive[(np.arange(bench.most_boxes) * 37) % len(bench.positive)]
    of_one_class = rows.copy()
    if len(spec.class_names) > 1:
        of_one_class[:, 5], of_one_class[:, 6:] = bench.high, bench.low
    limit = spec.thresholds.max_detections
    unlimited = Thresholds(bench.score, float(bench.pair.iou), min(limit + 1, MAX_CANDIDATES))
    for candidate in (of_one_class, rows):
        kept = detect_from_head(bench.as_head(candidate), spec, unlimited)
        if int(kept.num_detections[0]) > limit:
            return candidate
    return None


def scores_at_the_threshold(bench: Bench) -> NDArray[np.float32]:
    """Scores one level below the score threshold, at it, and one level above: only the last count."""
    rows = bench.small_boxes()
    below, above = bench.levels[bench.levels < 0][-1], bench.positive[0]
    around = np.array([below, 0, above], np.float32)
    rows[: bench.most_boxes, 4] = around[np.arange(bench.most_boxes) % len(around)]
    return rows


def nothing_at_all(bench: Bench) -> NDArray[np.float32]:
    """No score above the threshold: no row, and only padding."""
    return bench.blank()


def picture_edges(bench: Bench) -> NDArray[np.float32]:
    """Boxes of growing size in every cell of the border, pushed outwards: all are clipped to the picture."""
    rows, spec = bench.blank(), bench.spec
    line, column = np.divmod(
        np.arange(spec.num_boxes) * spec.grid_h * spec.grid_w // spec.num_boxes, spec.grid_w
    )
    outwards = [
        np.select([place == 0, place == size - 1], [bench.low, bench.high], np.float32(0))
        for place, size in ((column, spec.grid_w), (line, spec.grid_h))
    ]
    rows[:, 0:2] = np.stack(outwards, axis=-1)
    border = np.flatnonzero(rows[:, 0:2].any(axis=-1))
    most = min(bench.most_boxes, spec.thresholds.max_detections)
    border = border[:: -(-len(border) // most)]
    order = np.arange(len(border))
    rows[border, 2:4] = bench.levels[(order * 29) % len(bench.levels)][:, None]
    rows[border, 4] = bench.positive[(order * 31) % len(bench.positive)]
    return rows


def lowest_values(bench: Bench) -> NDArray[np.float32]:
    """Every raw value the least: boxes of next to no size, none of which counts."""
    return np.full_like(bench.blank(), bench.low)


def highest_values(bench: Bench) -> NDArray[np.float32]:
    """Every raw value the greatest, as far as candidates go: huge exponentials, and equal boxes as large as the picture."""
    rows = bench.blank()
    rows[: bench.most_boxes] = bench.high
    return rows


def smallest_boxes(bench: Bench) -> NDArray[np.float32]:
    """A box of next to no size in every cell: an area of next to nothing suppresses nothing, and is not divided by."""
    rows, spec = bench.blank(), bench.spec
    first_of_cells = slice(0, bench.most_boxes, spec.num_boxes // (spec.grid_h * spec.grid_w))
    rows[:, 0:4] = bench.low
    rows[first_of_cells, 4] = bench.high
    return rows


PROBES: dict[str, Callable[[Bench], NDArray[np.float32] | None]] = {
    "overlapping pair": overlapping_pair,
    "equal scores": equal_scores,
    "classes in one place": classes_in_one_place,
    "more boxes than rows": more_than_the_rows,
    "scores at the threshold": scores_at_the_threshold,
    "nothing at all": nothing_at_all,
    "picture edges": picture_edges,
    "lowest values": lowest_values,
    "highest values": highest_values,
    "smallest boxes": smallest_boxes,
}
