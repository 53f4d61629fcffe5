"""Crafted raw heads that put one question each to a decoder: photographs meet these cases by chance only.

Every head is decoded at four pairs of thresholds, which differ in the IoU threshold: it *equals* the overlap of a
chosen pair of boxes as float32 computes it, lies ``ASIDE`` above or below, or is 1, the overlap of equal boxes on every
runtime whatever its rounding. The score threshold is the score of a box whose raw values are all 0. Zeros are decoded
alike nearly everywhere: ``exp(0)`` is 1, the sigmoid 1/2.

YOLO v2 heads have sharp ones, made of the numbers that the model's codes can hold (``craft_probes``). Of any other head
boxes and scores are asked for, and ``Head.encode`` makes raw outputs that decode to them (``encode_probes``); the
overlap and the score at the thresholds are those that the numpy oracle decodes, and where ``exp`` is rounded in another
way, the judge excuses what rounding explains. All are put to the model's own decoder, on every runtime that ran the
model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from converters.files import FINISHED
from converters.heads.arithmetic import centers_and_sizes, iou_xyxy
from converters.heads.base import join_outputs
from converters.heads.nms import MAX_CANDIDATES, decode_head, detect_from_head
from converters.heads.yolo_v2 import YoloV2, decode_scores
from converters.spec import Thresholds
from xdet.checking.runs import Work, run_finished
from xdet.model.file import ModelFile
from xdet.model.surgery import build_probe_model, find_entry, pictures_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from numpy.typing import NDArray

    from converters.heads.base import Head
    from converters.spec import DetectorSpec
    from xdet.checking.pair import OpenedPair
    from xdet.checking.runs import AllRuns, CheckInputs, Run
    from xdet.checking.runtimes import OpenRuntimes
    from xdet.model.surgery import HeadEntry
    from xdet.runtimes.base import RuntimeChoices

    Float32 = NDArray[np.float32]

OVERLAPS = (0.2, 0.8)  # where the chosen pair's IoU lies
APART = 0.05  # the least difference between the two thresholds
ASIDE = 1e-5  # of an IoU: more than rounding (2e-6), less than any step of the codes
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0)  # of the default boxes, until two near the middle overlap so
NEAR = 150  # boxes that are looked at
HALF = 0.5  # the score threshold, as far as the head can express it
NEIGHBOURS = 3  # cells to each side in which the pair is looked for
FILLING = 0.7  # of its place, each side of a small box


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
class BoxPair:
    """Two boxes (row, column, anchor flattened, the lower first) that overlap, with this raw width and height."""

    boxes: tuple[int, int]
    size: np.float32
    iou: np.float32


@dataclass(frozen=True, eq=False)
class Bench:
    """What a probe is made of; ``levels`` are what a raw value can be, rising, with numbers below, at and above 0."""

    spec: DetectorSpec
    head: YoloV2
    levels: Float32
    pair: BoxPair
    score: float

    @property
    def low(self) -> np.float32:
        """The least raw value."""
        return np.float32(self.levels[0])

    @property
    def high(self) -> np.float32:
        """The greatest raw value."""
        return np.float32(self.levels[-1])

    @property
    def positive(self) -> Float32:
        """Raw values above 0, rising."""
        return self.levels[self.levels > 0]

    @property
    def most_boxes(self) -> int:
        """Boxes that may count without exceeding the candidates, where runtimes may break ties differently."""
        return min(self.spec.num_boxes, MAX_CANDIDATES // self.head.num_classes)

    def near(self, values: NDArray[np.floating]) -> Float32:
        """The levels that are nearest to some values."""
        right = np.clip(np.searchsorted(self.levels, values), 1, len(self.levels) - 1)
        left, above = self.levels[right - 1], self.levels[right]
        return np.where(values - left < above - values, left, above)

    def blank(self) -> Float32:
        """Rows of a head in which no box counts: float32 ``(B, 5 + classes)``, objectness lowest, the rest 0."""
        rows = np.zeros((self.spec.num_boxes, 5 + self.head.num_classes), np.float32)
        rows[:, 4] = self.low
        return rows

    def as_head(self, rows: Float32) -> Float32:
        """Rows as a raw head, ``(1, grid_h, grid_w, channels)``."""
        return rows.reshape(1, *self.head.raw_outputs()[0].shape)

    def small_boxes(self) -> Float32:
        """As ``blank``, with boxes that do not overlap, as far as the levels allow: a cell's anchors side by side."""
        rows, count = self.blank(), self.head.num_anchors
        columns = int(np.ceil(np.sqrt(count)))
        lines = -(-count // columns)
        line, column = np.divmod(np.arange(count), columns)
        places = np.stack([(column + 0.5) / columns, (line + 0.5) / lines], axis=-1)
        fractions = np.array(self.head.anchor_fractions)
        wanted = FILLING / np.array([columns * self.head.grid_w, lines * self.head.grid_h])
        cell = np.concatenate([np.log(places / (1 - places)), np.log(wanted / fractions)], axis=-1)
        rows[:, :4] = np.tile(self.near(cell), (self.head.grid_h * self.head.grid_w, 1))
        return rows


def find_pair(head: YoloV2, thresholds: Thresholds, levels: Float32, *, apart_from: float) -> BoxPair | None:
    """Two boxes near the middle of the picture whose IoU comes nearest to the model's threshold, if there are any.

    Boxes of the anchors' own sizes where these overlap, else larger ones.
    """
    rows, columns = (
        np.arange(max(0, size // 2 - NEIGHBOURS), min(size, size // 2 + NEIGHBOURS + 1))
        for size in (head.grid_h, head.grid_w)
    )
    anchors = head.num_anchors
    near = (rows[:, None, None] * head.grid_w + columns[:, None]) * anchors + np.arange(anchors)
    indices, xy = near.reshape(-1), np.zeros((1, head.num_boxes, 2), np.float32)
    for size in levels[levels >= 0]:
        boxes = head.decode_boxes(xy, np.full_like(xy, size))[0]
        overlapping = overlapping_boxes(np.asarray(boxes)[indices], thresholds.iou, apart_from=apart_from)
        if overlapping is not None:
            first, second, iou = overlapping
            return BoxPair((int(indices[first]), int(indices[second])), np.float32(size), np.float32(iou))
    return None


def craft_probes(spec: DetectorSpec, entry: HeadEntry) -> ProbeSet | None:
    """Every probe that a YOLO v2 head can hold; None where its codes hold no number below, at or above 0."""
    head, levels = spec.head, entry.levels()
    if not isinstance(head, YoloV2) or not levels[0] < 0 < levels[-1] or 0 not in levels:
        return None
    objectness, classes = np.zeros((1, 1, 1), np.float32), np.zeros((1, 1, head.num_classes), np.float32)
    score = float(decode_scores(objectness, classes)[0, 0, 0])
    pair = find_pair(head, spec.thresholds, levels, apart_from=score)
    if pair is None:
        return None
    bench = Bench(spec, head, levels, pair, score)
    thresholds = thresholds_around(score, float(pair.iou), spec.thresholds.max_detections)
    crafted = {name: rows for name, craft in PROBES.items() if (rows := craft(bench)) is not None}
    heads = np.concatenate([bench.as_head(rows) for rows in crafted.values()])
    return ProbeSet(tuple(crafted), heads, thresholds, {entry.value: entry.table(heads)})


def overlapping_pair(bench: Bench) -> Float32:
    """Two boxes whose overlap is the IoU threshold: the worse one stays at it and above it, and falls below it."""
    rows, (first, second) = bench.blank(), bench.pair.boxes
    rows[[first, second], 2:4] = bench.pair.size
    rows[first, 4], rows[second, 4] = bench.positive[len(bench.positive) // 2], bench.high
    return rows


def equal_scores(bench: Bench) -> Float32:
    """Every box alike in score: the lower index suppresses, and rows stand in the order of their index."""
    rows = bench.blank()
    larger = bench.positive[bench.positive > bench.pair.size]
    rows[:, 2:4] = larger[0] if larger.size else 0  # not the pair's: or overlaps would equal the threshold everywhere
    rows[: bench.most_boxes, 4] = bench.high
    return rows


def classes_in_one_place(bench: Bench) -> Float32 | None:
    """Two boxes as large as may be, of two classes, and one of both: none suppresses another; for several classes."""
    if bench.head.num_classes == 1:
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


def more_than_the_rows(bench: Bench) -> Float32 | None:
    """More boxes that stay than the result has rows, of one class where its boxes suffice, if levels allow it."""
    rows, spec = bench.small_boxes(), bench.spec
    rows[: bench.most_boxes, 4] = bench.positive[(np.arange(bench.most_boxes) * 37) % len(bench.positive)]
    of_one_class = rows.copy()
    if spec.num_classes > 1:
        of_one_class[:, 5], of_one_class[:, 6:] = bench.high, bench.low
    limit = spec.thresholds.max_detections
    unlimited = Thresholds(bench.score, float(bench.pair.iou), min(limit + 1, MAX_CANDIDATES))
    for candidate in (of_one_class, rows):
        kept = detect_from_head(bench.as_head(candidate), spec, unlimited)
        if int(kept.num_detections[0]) > limit:
            return candidate
    return None


def scores_at_the_threshold(bench: Bench) -> Float32:
    """Scores one level below the score threshold, at it, and one level above: only the last count."""
    rows = bench.small_boxes()
    below, above = bench.levels[bench.levels < 0][-1], bench.positive[0]
    around = np.array([below, 0, above], np.float32)
    rows[: bench.most_boxes, 4] = around[np.arange(bench.most_boxes) % len(around)]
    return rows


def picture_edges(bench: Bench) -> Float32:
    """Boxes of growing size in every cell of the border, pushed outwards: all are clipped to the picture."""
    rows, spec, head = bench.blank(), bench.spec, bench.head
    line, column = np.divmod(np.arange(spec.num_boxes) // head.num_anchors, head.grid_w)
    outwards = [
        np.select([place == 0, place == size - 1], [bench.low, bench.high], np.float32(0))
        for place, size in ((column, head.grid_w), (line, head.grid_h))
    ]
    rows[:, 0:2] = np.stack(outwards, axis=-1)
    border = np.flatnonzero(rows[:, 0:2].any(axis=-1))
    most = min(bench.most_boxes, spec.thresholds.max_detections)
    border = border[:: -(-len(border) // most)]
    order = np.arange(len(border))
    rows[border, 2:4] = bench.levels[(order * 29) % len(bench.levels)][:, None]
    rows[border, 4] = bench.positive[(order * 31) % len(bench.positive)]
    return rows


def highest_values(bench: Bench) -> Float32:
    """Every raw value the greatest, as far as candidates go: huge exponentials, equal boxes as large as the picture."""
    rows = bench.blank()
    rows[: bench.most_boxes] = bench.high
    return rows


def smallest_boxes(bench: Bench) -> Float32:
    """A box of next to no size in every cell: an area of next to nothing suppresses nothing, and is not divided by."""
    rows = bench.blank()
    first_of_cells = slice(0, bench.most_boxes, bench.head.num_anchors)
    rows[:, 0:4] = bench.low
    rows[first_of_cells, 4] = bench.high
    return rows


PROBES: dict[str, Callable[[Bench], Float32 | None]] = {
    "overlapping pair": overlapping_pair,
    "equal scores": equal_scores,
    "classes in one place": classes_in_one_place,
    "more boxes than rows": more_than_the_rows,
    "scores at the threshold": scores_at_the_threshold,
    "nothing at all": Bench.blank,  # no score above the threshold: no row, and only padding
    "picture edges": picture_edges,
    # boxes of next to no size, none of which counts
    "lowest values": lambda bench: np.full_like(bench.blank(), bench.low),
    "highest values": highest_values,
    "smallest boxes": smallest_boxes,
}


def encode_probes(spec: DetectorSpec) -> ProbeSet | None:
    """Every probe that a head can express by ``Head.encode``; None where no two of its boxes can overlap as wanted."""
    head = spec.head
    assert head is not None  # noqa: S101 - the caller decodes boxes
    centers, _ = centers_and_sizes(head.default_boxes())
    near = np.sort(np.argsort(np.abs(centers - np.float32(0.5)).max(axis=1), kind="stable")[:NEAR])
    half = np.zeros((1, head.num_boxes, head.num_classes), np.float32)
    half[..., 0] = HALF
    for scale in SCALES:
        boxes, scores = decode_head(join_outputs(head.encode(_scaled(head, scale)[None], half)), spec)
        overlapping = overlapping_boxes(boxes[0][near], spec.thresholds.iou)
        if overlapping is not None:
            pair, iou = (int(near[overlapping[0]]), int(near[overlapping[1]])), overlapping[2]
            thresholds = thresholds_around(float(scores[0, pair[0], 0]), iou, spec.thresholds.max_detections)
            return _encoded(head, _wanted(head, pair, scale), thresholds)
    return None


def _wanted(head: Head, pair: tuple[int, int], scale: float) -> dict[str, tuple[float, Float32]]:
    """By probe, the scale of the default boxes, and scores ``(B, NC)``; two boxes overlap at ``scale``."""
    most = min(head.num_boxes, MAX_CANDIDATES)  # boxes that may count without exceeding the candidates
    blank, order = np.zeros((head.num_boxes, head.num_classes), np.float32), np.arange(most)

    def of_first_class(scores: NDArray[np.float64] | float) -> Float32:
        rows = blank.copy()
        rows[:most, 0] = scores
        return rows

    overlapping, two_classes = blank.copy(), blank.copy()
    overlapping[list(pair), 0] = 0.75, 0.875
    two_classes[pair[0], 0], two_classes[pair[1], -1] = 0.75, 0.875
    falling = of_first_class(0.55 + 0.4 * (order * 37 % most) / most)  # in an order of their own
    return {
        "overlapping pair": (scale, overlapping),
        "equal scores": (scale, of_first_class(0.75)),
        **({"classes in one place": (100.0, two_classes)} if head.num_classes > 1 else {}),  # as large as the picture
        "more boxes than rows": (0.25, falling),  # small ones that do not overlap
        "scores at the threshold": (0.25, of_first_class(HALF + (order % 3 - 1) / 64)),  # below, at, and above
        "nothing at all": (1.0, blank),
        "picture edges": (3.0, falling),  # beyond the picture, of every size that the head has
    }


def _encoded(head: Head, wanted: Mapping[str, tuple[float, Float32]], thresholds: tuple[Thresholds, ...]) -> ProbeSet:
    boxes = np.stack([_scaled(head, scale) for scale, _ in wanted.values()])
    outputs = head.encode(boxes, np.stack([scores for _, scores in wanted.values()]))
    names = [output.value_name for output in head.raw_outputs()]
    tables = {name: np.asarray(output, np.float32) for name, output in zip(names, outputs, strict=True)}
    return ProbeSet(tuple(wanted), join_outputs(list(tables.values())), thresholds, tables)


def _scaled(head: Head, scale: float) -> Float32:
    """The default boxes, larger or smaller around their centres."""
    centers, sizes = centers_and_sizes(head.default_boxes())
    half = sizes * np.float32(scale / 2)
    return np.concatenate([centers - half, centers + half], axis=-1)


def probe_all(inputs: CheckInputs, runs: AllRuns) -> list[Run]:
    """What the runtimes of ``runs`` give for crafted heads."""
    probing, probed = prepare_probes(inputs.pair), []
    if probing is None:
        return []
    for choices, _ in runs.opened:
        with runs.gaps.noting(f"{choices.name}, probes"):
            probed.append(run_probes(probing, choices, inputs.runtimes))
    return probed


@dataclass(frozen=True, eq=False)
class Probing:
    """What is put to every runtime: the model's decoder behind a table of crafted heads."""

    model: ModelFile
    probes: ProbeSet


def prepare_probes(pair: OpenedPair) -> Probing | None:
    """Craft heads for a finished model; None where it ends at the raw head, or it can express none."""
    document = pair.document
    if not document.spec.gives_boxes:
        return None
    if isinstance(document.spec.head, YoloV2):
        probes = craft_probes(document.spec, find_entry(pair.graph.model.graph, pair.model.file))
    else:
        probes = encode_probes(document.spec)
    if probes is None:
        return None
    if not pair.has_thresholds:  # the decoder knows its own only
        probes = replace(probes, thresholds=(document.spec.thresholds,))
    data = build_probe_model(pair.graph.model, probes.tables, document=document, thresholds=probes.thresholds[0])
    return Probing(ModelFile(pair.model.path, data, FINISHED), probes)


def run_probes(probing: Probing, choices: RuntimeChoices, runtimes: OpenRuntimes) -> Run:
    """What a runtime, opened as one of ``runtimes``, gives for the crafted heads.

    Raises:
        XdetError: as ``run_finished``.
    """
    probes = probing.probes
    work = Work(pictures_of(len(probes.names)), probes.thresholds)
    return replace(run_finished(probing.model, choices, work, runtimes), probes=probes.names)
