"""Why one side keeps a box and the other does not: suppression replayed from both sides' own scores and overlaps.

A side is one image's decoded head with the boxes that were kept of it. A box that is kept on one side only was, on the
other,

* below the score threshold (``score``),
* suppressed by a rival: because their overlap crosses the threshold (``iou``), because the two change places
  (``order``, an NMS tie), because the rival itself is there on one side only (``follows``), or at equality
  (``iou-rule``),
* cut off by the number of rows, or of candidates (``limit``),
* or gone without a reason in its own head (``head``).

Detections that a runtime does not share with the source, each with its cause.

The source's boxes are those of the numpy oracle for LiteRT XNNPACK's head; boxes are matched by their index in the
head, never by overlap. Rounding is a cause only as far as rounding goes: where the head of a deciding box is further
from the source's than the runtime may be at all, the cause is a layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import counted
from converters.heads.arithmetic import iou_xyxy
from converters.heads.base import split_outputs
from converters.heads.nms import MAX_CANDIDATES, competing_scores, decode_head, detect_from_head, limit_candidates
from converters.spec import Suppression
from xdet.checking.heads.spread import steps_between
from xdet.checking.result import DetectionChange, KnownDeviation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from converters.heads.base import BatchDetections
    from converters.spec import DetectorSpec, Placement, Thresholds
    from xdet.checking.result import ChangeCause
    from xdet.checking.runs import Run

Key = tuple[int, int]  # anchor, class
ROOM = 2e-6  # float32: exp differs by a few units in the last place, and boxes add two such numbers


@dataclass(frozen=True, eq=False)
class Side:
    """One image of one runtime."""

    head: NDArray[np.float32]  # ``(B, R)``, raw, a row per box
    # float32 ``(B, 4)``, x1, y1, x2, y2 in 0..1: every box of the head, decoded by the numpy oracle
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]  # ``(B, classes)``
    # (anchor, class) of the boxes that were kept, best first, with box and score as the runtime gave them; only boxes
    # that the head has (``broken_rules`` tells of others)
    kept: dict[Key, tuple[NDArray[np.float32], np.float32]]
    rule: Suppression = field(default_factory=Suppression)

    def ranks_first(self, one: Key, other: Key) -> bool:
        """Whether ``one`` enters suppression before ``other``: a higher score, or an equal one and a lower index."""
        scores = self.scores[one], self.scores[other]
        return bool(scores[0] > scores[1] or (scores[0] == scores[1] and rank(one, self.rule) < rank(other, self.rule)))

    def ties(self, one: Key, other: Key) -> bool:
        """Whether two scores come of the same raw numbers, and are equal on every runtime."""
        first, second = self.head[one[0], 4:], self.head[other[0], 4:]
        classes = self.scores.shape[1]
        return bool(np.array_equal(first, second) and first[one[1] - classes] == second[other[1] - classes])

    def rivals(self, key: Key) -> tuple[list[Key], NDArray[np.float32]]:
        """The kept boxes that may suppress a box, best first, and their IoU with it."""
        across = self.rule.across_classes
        others = [other for other in self.kept if (other[0] != key[0] if across else other[1] == key[1])]
        rows = np.array([other[0] for other in others], np.int64)
        return others, np.asarray(iou_xyxy(self.boxes[rows], self.boxes[key[0]]), np.float32)

    @property
    def competing(self) -> NDArray[np.float32]:
        """The scores that enter suppression, 0 elsewhere."""
        return np.asarray(competing_scores(self.scores[None], self.rule)[0])

    def leader(self, key: Key) -> Key:
        """The box with the class that it enters suppression with."""
        return (key[0], int(self.scores[key[0]].argmax())) if self.rule.classes_per_box > 1 else key

    def last_candidate(self, score_threshold: float) -> Key | None:
        """The last box that enters suppression; None where all boxes above the threshold do."""
        flat = self.competing.reshape(-1)
        if np.count_nonzero(flat > np.float32(score_threshold)) <= MAX_CANDIDATES:
            return None
        last = int(limit_candidates(self.competing, score_threshold=score_threshold)[-1])
        row, class_id = divmod(last, self.scores.shape[1])
        return row, class_id

    def box(self, key: Key) -> NDArray[np.float32]:
        """The box as the runtime gave it, where it keeps it, else as its head says."""
        return self.kept[key][0] if key in self.kept else self.boxes[key[0]]

    def overlap(self, one: Key, other: Key) -> np.float32:
        """IoU of two boxes of the head."""
        return np.float32(iou_xyxy(self.boxes[one[0]], self.boxes[other[0]]))


@dataclass(frozen=True, slots=True)
class Why:
    """A reason."""

    cause: ChangeCause
    keys: tuple[Key, ...]  # the boxes whose heads decide it
    # how far the deciding number is from where it would fall the other way: a score, an IoU, or a difference of
    # scores; infinite where no number decides
    margin: float
    message: str
    root: ChangeCause | None = None  # for ``follows``, the cause of the rival's own change


def sides_of(heads: NDArray[np.float32], detections: BatchDetections, spec: DetectorSpec) -> list[Side]:
    """Every image of a run as a side, with the boxes that were kept."""
    assert spec.head is not None  # noqa: S101 - the caller decodes boxes
    boxes, scores = decode_head(heads, spec)
    rows = spec.head.rows(split_outputs(heads, spec.head.raw_outputs()))
    anchors, classes = range(spec.num_boxes), range(spec.num_classes)  # as ``has_box``, for thousands of boxes
    sides = []
    for i in range(len(heads)):
        kept = {key: row for key, row in kept_boxes(detections, i).items() if key[0] in anchors and key[1] in classes}
        sides.append(Side(rows[i], boxes[i], scores[i], kept, spec.suppression))
    return sides


def rank(key: Key, rule: Suppression) -> Key:
    """What boxes of equal score are sorted by."""
    return key[::-1] if rule.class_first else key


def has_box(spec: DetectorSpec, key: Key) -> bool:
    """Whether a head of this detector has such a box: a runtime that is broken may name others."""
    return 0 <= key[0] < spec.num_boxes and 0 <= key[1] < spec.num_classes


def kept_boxes(detections: BatchDetections, image: int) -> dict[Key, tuple[NDArray[np.float32], np.float32]]:
    """The boxes that an image's rows hold, best first: (anchor, class) -> box and score."""
    count = int(detections.num_detections[image])
    return {
        (int(detections.anchors[image, row]), int(detections.classes[image, row])): (
            detections.boxes_xyxy[image, row],
            np.float32(detections.scores[image, row]),
        )
        for row in range(min(count, detections.scores.shape[1]))
    }


def explain(
    present: Side, absent: Side, key: Key, thresholds: Thresholds, *, visited: frozenset[Key] = frozenset()
) -> Why:
    """Why ``absent`` does not keep the box ``key``, which ``present`` keeps."""
    limit, scores = np.float32(thresholds.score), (present.scores[key], absent.scores[key])
    if scores[1] <= limit:
        message = f"score {scores[1]:.7g} is not above {limit:.7g}, on the other side {scores[0]:.7g}"
        return Why("score", (key,), float(limit - scores[1]), message)
    if (leader := absent.leader(key)) != key:
        return _further_class(present, absent, key, leader, thresholds, visited=visited)
    rival = _rival(absent, key, thresholds)
    if rival is None:
        return _left_out(absent, key, thresholds)
    why = _suppressed(present, absent, (key, rival), thresholds)
    if why is not None:
        return why
    if key in visited:
        circle = f"it and box {rival[0]} depend on each other in a circle"
        return Why("order", (key, rival), float("inf"), circle)
    root = explain(absent, present, rival, thresholds, visited=visited | {key})
    message = f"suppressed by box {rival[0]}, which the other side does not keep: {root.message}"
    return Why("follows", (key, *root.keys), root.margin, message, root=root.root or root.cause)


def _left_out(side: Side, key: Key, thresholds: Thresholds) -> Why:
    """Why a side does not keep a box that no kept one suppresses."""
    last = side.last_candidate(thresholds.score)
    if last is not None and side.scores[key] <= side.scores[last] + np.float32(ROOM):
        return _cut_off(side, key, last, f"{MAX_CANDIDATES} candidates enter suppression", decided=side.ties(key, last))
    return _almost_suppressed(side, key, thresholds) or _without_rival(side, key, thresholds)


def _further_class(
    present: Side, absent: Side, key: Key, leader: Key, thresholds: Thresholds, *, visited: frozenset[Key]
) -> Why:
    """Why a class of a box that is not its best has no row."""
    if leader not in absent.kept:
        why = explain(present, absent, leader, thresholds, visited=visited)
        return replace(why, message=f"its best class {leader[1]}: {why.message}")
    own = [other for other in absent.kept if other[0] == key[0]]
    if len(own) < absent.rule.classes_per_box:
        return _without_rival(absent, key, thresholds)
    last = own[-1]
    # of equal raw scores the lower class comes first
    decided = absent.scores[last] == absent.scores[key] and key < last and absent.ties(key, last)
    return _cut_off(absent, key, last, f"{len(own)} classes of its box have rows", decided=decided)


def _suppressed(present: Side, absent: Side, pair: tuple[Key, Key], thresholds: Thresholds) -> Why | None:
    """What lets a rival suppress a box on one side only; None where the rival is there on that side only."""
    key, rival = pair
    overlaps = present.overlap(rival, key), absent.overlap(rival, key)
    edge = np.float32(thresholds.iou)
    if overlaps[1] == edge:
        message = f"suppressed by box {rival[0]} at IoU {overlaps[1]:.7g}, exactly the threshold"
        return Why("iou-rule", (key, rival), 0.0, message)
    message = f"suppressed by box {rival[0]} at IoU {overlaps[1]:.7g}, on the other side {overlaps[0]:.7g}"
    if rival in present.kept:
        margin = float(abs(overlaps[1] - edge))
        return Why("iou", (key, rival), margin, f"{message}, threshold {edge:.7g}")
    is_candidate = present.scores[rival] > np.float32(thresholds.score)
    if is_candidate and present.ranks_first(key, rival) and overlaps[0] > edge:
        margin = float(abs(absent.scores[rival] - absent.scores[key]))
        swapped = f"scores {absent.scores[rival]:.7g} and {absent.scores[key]:.7g} rank the other way round there"
        return Why("order", (key, rival), margin, f"{message}; {swapped}")
    return None


def _rival(side: Side, key: Key, thresholds: Thresholds) -> Key | None:
    """The best kept box that suppresses ``key``: of its class, ranked before it, overlapping more than the threshold.

    Where there is none, one that overlaps exactly as much.
    """
    edge = np.float32(thresholds.iou)
    others, overlaps = side.rivals(key)
    before = [i for i, other in enumerate(others) if side.ranks_first(other, key)]
    above = next((i for i in before if overlaps[i] > edge), None)
    place = next((i for i in before if overlaps[i] == edge), None) if above is None else above
    return None if place is None else others[place]


def _almost_suppressed(side: Side, key: Key, thresholds: Thresholds) -> Why | None:
    """A kept box that suppresses ``key`` once an overlap or two scores are rounded the other way; None without one."""
    edge = np.float32(thresholds.iou)
    for other, overlap in zip(*side.rivals(key), strict=True):
        if float(edge - overlap) > ROOM:
            continue
        gap = float(side.scores[key] - side.scores[other])
        ranks_first = side.ranks_first(other, key)
        if not (ranks_first or (gap <= ROOM and not side.ties(other, key))):
            continue
        margin = max(float(edge - overlap), 0.0 if ranks_first else gap)
        message = (
            f"box {other[0]} suppresses it at IoU {overlap:.7g}, threshold {edge:.7g}, within rounding: "
            f"scores {side.scores[other]:.7g} and {side.scores[key]:.7g}"
        )
        return Why("iou" if ranks_first else "order", (key, other), margin, message)
    return None


def _cut_off(side: Side, key: Key, last: Key, kept: str, *, decided: bool = False) -> Why:
    """Others that come first, ``last`` behind them, take all places; ``decided`` where no rounding can change that."""
    margin = float("inf") if decided else float(abs(side.scores[last] - side.scores[key]))
    message = f"{kept}, the last with score {side.scores[last]:.7g}, this one has {side.scores[key]:.7g}"
    return Why("limit", (key, last), margin, message)


def _without_rival(side: Side, key: Key, thresholds: Thresholds) -> Why:
    most = side.rule.per_class
    of_class = [other for other in side.kept if other[1] == key[1]]
    if most is not None and len(of_class) >= most:
        last = min(of_class, key=lambda other: (float(side.scores[other]), -other[0]))
        return _cut_off(side, key, last, f"{counted(most, 'box', 'boxes')} of its class kept")
    leaders = [other for other in side.kept if side.leader(other) == other]
    if is_full := len(side.kept) >= thresholds.max_detections:
        leaders = list(side.kept)
    if is_full or len(leaders) >= side.rule.max_boxes(thresholds.max_detections):
        worst_first = sorted(leaders, key=lambda other: rank(other, side.rule), reverse=True)
        last = min(worst_first, key=lambda other: float(side.scores[other]))
        decided = side.ranks_first(key, last) and side.ties(key, last)  # of equal raw scores the lower index
        return _cut_off(side, key, last, f"{counted(len(leaders), 'box', 'boxes')} kept", decided=decided)
    message = f"score {side.scores[key]:.7g} is above the threshold and no kept box overlaps it enough"
    return Why("head", (key,), float("inf"), message)


MOVED_PX = 1.0  # of the network's picture


@dataclass(frozen=True, eq=False)
class BoxComparison:
    """What the changes of one run are judged by."""

    spec: DetectorSpec
    thresholds: Thresholds
    unit: float  # step of the head (LSB), or the head's largest magnitude
    allowed: float  # how many units the run's head may be from the source's; 0 for an exact pair
    images: Sequence[str]  # names of the photographs
    placements: Sequence[Placement]  # where each stands in the network's picture


def find_changes(source: Run, run: Run, how: BoxComparison) -> list[DetectionChange]:
    """Every detection of ``run`` that is lost, new or moved against ``source``."""
    return [
        change
        for image, (origin, runtime) in enumerate(_both(source, run, how))
        for change in _image_changes(origin, runtime, how, image, run.name)
    ]


def find_deviation(source: Run, run: Run, how: BoxComparison) -> KnownDeviation:
    """How far the detections that either side keeps are apart, corner by corner and score by score."""
    furthest, score, where = 0.0, 0.0, how.images[0]
    for image, (origin, runtime) in enumerate(_both(source, run, how)):
        for key in origin.kept.keys() | runtime.kept.keys():
            moved = _moved_px(origin, runtime, key, how)
            if not moved <= furthest:
                furthest, where = moved, how.images[image]
            score = max(score, float(abs(np.float64(origin.scores[key]) - np.float64(runtime.scores[key]))))
    return KnownDeviation(run.name, furthest, score, where)


def _both(source: Run, run: Run, how: BoxComparison) -> Sequence[tuple[Side, Side]]:
    """The source's side and the run's, image by image; none where the run has no boxes at these thresholds."""
    detections = next((boxes for thresholds, boxes in run.boxes if thresholds == how.thresholds), None)
    if detections is None:
        return []
    count = len(run.heads)
    expected = detect_from_head(source.heads[:count], how.spec, how.thresholds)
    sides = sides_of(source.heads[:count], expected, how.spec), sides_of(run.heads, detections, how.spec)
    return list(zip(*sides, strict=True))


def _image_changes(origin: Side, runtime: Side, how: BoxComparison, index: int, name: str) -> list[DetectionChange]:
    changes = []
    for key in sorted(origin.kept.keys() | runtime.kept.keys()):
        if key not in runtime.kept:
            kind, why = "lost", explain(origin, runtime, key, how.thresholds)
        elif key not in origin.kept:
            kind, why = "new", explain(runtime, origin, key, how.thresholds)
        else:
            moved = _moved_px(origin, runtime, key, how)
            if moved <= MOVED_PX:
                continue
            kind, why = "moved", _why_moved(origin, runtime, key, moved)
        changes.append(
            DetectionChange(
                image=how.images[index],
                runtime=name,
                kind=kind,  # type: ignore[arg-type]  # one of the three above
                anchor=key[0],
                class_id=key[1],
                source_score=float(origin.scores[key]),
                runtime_score=float(runtime.scores[key]),
                source_box_xyxy=_corners(origin, key, how.placements[index]),
                runtime_box_xyxy=_corners(runtime, key, how.placements[index]),
                cause=_cause(origin, runtime, why, how),
                message=why.message,
            )
        )
    return changes


def _corners(side: Side, key: Key, placement: Placement) -> tuple[float, float, float, float]:
    """In fractions of the photograph."""
    x1, y1, x2, y2 = (float(value) for value in placement.to_photograph(side.box(key)))
    return x1, y1, x2, y2


def _moved_px(origin: Side, runtime: Side, key: Key, how: BoxComparison) -> float:
    size = np.array([how.spec.image.width, how.spec.image.height] * 2, np.float64)
    return float((np.abs(origin.box(key).astype(np.float64) - runtime.box(key)) * size).max())


def _why_moved(origin: Side, runtime: Side, key: Key, moved: float) -> Why:
    message = f"a corner is {moved:.1f} px of the network's picture away"
    if np.array_equal(origin.head[key[0]], runtime.head[key[0]]):
        return Why("head", (key,), float("inf"), f"{message} although the head's values are equal")
    return Why("rounding", (key,), moved, message)


def _cause(origin: Side, runtime: Side, why: Why, how: BoxComparison) -> ChangeCause:
    """The reason, unless a deciding box's head is further off than rounding goes."""
    boxes = [key[0] for key in why.keys]
    furthest = float(steps_between(origin.head[boxes], runtime.head[boxes], how.unit).max(initial=0))
    return "layer" if furthest > how.allowed else why.cause
