"""Part (d), head: the boxes that each run gave are those of the numpy oracle for that run's own head.

A run's heads are those of photographs, or crafted ones (``probes``) that ask what photographs rarely do.

Excused, and counted nowhere: what float32 cannot decide, since ``exp`` is correctly rounded nowhere
(``converters.heads.nms``): a score or an overlap within ``ROOM`` of its threshold, two scores within it of each other.

Excused with a note: rules that a runtime is documented to have. OpenVINO suppresses at IoU equal to the threshold, and
takes any of equal scores at the limit of candidates.

Everything else is a fault, and the usual mistakes are tried out (``MISTAKES``): the two thresholds swapped, the anchors
in the other unit, ``>=`` where ``>`` is meant. Whatever the head, rows must keep the contract's rules that need no
decoder (``broken_rules``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import counted
from converters.heads.arithmetic import clip_xyxy, iou_xyxy
from converters.heads.nms import MAX_CANDIDATES, detect_from_head, suppress, with_further_classes
from converters.heads.yolo_v2 import Anchors, YoloV2
from xdet.checking.heads.why import ROOM, Key, Side, explain, has_box, kept_boxes, rank, sides_of
from xdet.checking.result import Cause, Finding, PartVerdict
from xdet.runtimes.table import has_rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from converters.heads.base import BatchDetections
    from converters.spec import DetectorSpec, Thresholds
    from xdet.checking.result import Cause
    from xdet.checking.runs import Run


RULE_NOTE = "suppresses at IoU equal to the threshold (docs/contract.md)"
TIES_NOTE = f"takes any of equal scores at the limit of {MAX_CANDIDATES} candidates (docs/contract.md)"


@dataclass(frozen=True, slots=True)
class HeadFault:
    """Why a run's boxes do not follow from its heads: the cause, also in words; how often, and the first time."""

    cause: Cause
    why: str
    detail: str


@dataclass(frozen=True, slots=True)
class HeadVerdict:
    """How one run's boxes compare with the oracle."""

    images: int  # heads, times pairs of thresholds, that were compared
    fault: HeadFault | None
    notes: tuple[str, ...]  # documented rules that showed
    heads: int  # heads that were compared
    followed: int  # heads whose boxes follow from them, documented rules aside


def judge_run(run: Run, spec: DetectorSpec) -> HeadVerdict:
    """Compare a run's boxes with the oracle, at every pair of thresholds."""
    faults: list[str] = []
    rules: list[str] = []
    notes: dict[str, None] = {}  # a set that keeps its order; likewise
    wrong: dict[str, None] = {}
    documented = has_rule(run.name, "suppresses_at_equality")
    for thresholds, detections in run.boxes:
        for image, (oracle, runtime) in enumerate(both_sides(run, detections, spec, thresholds)):
            where = f"{run.label(image)}, score > {thresholds.score:g}, IoU > {thresholds.iou:g}"
            if documented and is_chosen_among_ties(oracle, thresholds):
                notes[TIES_NOTE] = None
            differences = list(box_differences(oracle, runtime, thresholds))
            differences += [(message, None) for message in broken_rules(detections, image, thresholds, spec)]
            for message, pair in differences:
                if pair is not None and overlaps_otherwise(run, image, pair, thresholds):
                    continue
                (faults if pair is None else rules).append(f"{where}: {message}")
                if pair is None or not documented:
                    wrong[run.probes[image] if run.probes else run.label(image)] = None
    count, images = len(run.heads), len(run.heads) * len(run.boxes)
    if not (faults or rules):
        return HeadVerdict(images, None, tuple(notes), count, count)
    cause, why = diagnose_boxes(run, spec) if faults else IOU_RULE
    if cause == "iou-rule" and documented:
        return HeadVerdict(images, None, (RULE_NOTE, *notes), count, count)
    first = [*rules, *faults][0] if cause == "iou-rule" else faults[0]
    which = f"probes ({', '.join(map(repr, wrong))})" if run.probes else "heads"
    detail = f"{len(wrong)} of {count} {which}, first: {first}"
    return HeadVerdict(images, HeadFault(cause, why, detail), (), count, count - len(wrong))


@dataclass(frozen=True, eq=False)
class HeadVerdicts:
    """The verdicts of all runs, by runtime: on photographs, where the model gives boxes, and on crafted heads."""

    photographs: Mapping[str, HeadVerdict]
    probes: Mapping[str, HeadVerdict]

    def faults(self, name: str) -> dict[Cause, str]:
        """A runtime's faults in words; those of one cause are told as one."""
        words: dict[Cause, str] = {}
        for fault in (verdict.fault for verdict in self._of(name)):
            if fault is not None:
                words[fault.cause] = f"{words.get(fault.cause, fault.why)}; {fault.detail}"
        return words

    def notes(self, name: str) -> tuple[str, ...]:
        """The documented rules that a runtime showed."""
        return tuple(dict.fromkeys(note for verdict in self._of(name) for note in verdict.notes))

    def _of(self, name: str) -> list[HeadVerdict]:
        return [verdicts[name] for verdicts in (self.photographs, self.probes) if name in verdicts]


def judge_runs(runs: Sequence[Run], probed: Sequence[Run], spec: DetectorSpec) -> HeadVerdicts:
    """Compare all runs, on photographs and on crafted heads, with the oracle."""
    if not spec.gives_boxes:
        return HeadVerdicts({}, {})
    photographs, crafted = ({run.name: judge_run(run, spec) for run in group} for group in (runs, probed))
    return HeadVerdicts(photographs, crafted)


def judge_heads(verdicts: HeadVerdicts, *, gives_boxes: bool, has_thresholds: bool = True) -> PartVerdict:
    """The part's verdict over all runs; without thresholds by name in the graph, probes had the model's own only."""
    if not gives_boxes:
        return PartVerdict("head", "skipped", "the model ends at the raw head (--head none) and gives no boxes")
    if not verdicts.photographs:
        return PartVerdict("head", "skipped", "no runtime of the finished model ran")
    findings = tuple(
        Finding("head", cause, f"{name}: {message}", runtime=name)
        for name in verdicts.photographs
        for cause, message in verdicts.faults(name).items()
    )
    sets = sum(verdict.images for verdict in verdicts.photographs.values())
    ran = counted(len(verdicts.photographs), "runtime", "runtimes")
    text = f"{counted(sets, 'set', 'sets')} of boxes of {ran} compared with the numpy oracle for their own heads"
    if verdicts.probes:
        crafted = max(verdict.heads for verdict in verdicts.probes.values())
        text += f"; {crafted} probes put to {len(verdicts.probes)} of them"
        if not has_thresholds:
            text += ", at the model's own thresholds alone: a tool has merged or renamed them in the graph"
    return PartVerdict("head", "failed" if findings else "passed", text, findings)


Pair = tuple[Key, Key] | None


def both_sides(
    run: Run, detections: BatchDetections, spec: DetectorSpec, thresholds: Thresholds
) -> Iterator[tuple[Side, Side]]:
    """The oracle's side and the run's, image by image."""
    expected = sides_of(run.heads, detect_from_head(run.heads, spec, thresholds), spec)
    sides = sides_of(run.heads, detections, spec)
    if has_rule(run.name, "breaks_ties_anyhow"):
        expected = [with_ties_of(own, side, thresholds) for own, side in zip(expected, sides, strict=True)]
    return zip(expected, sides, strict=True)


def with_ties_of(oracle: Side, runtime: Side, thresholds: Thresholds) -> Side:
    """The oracle's side where, of equal scores at the limit of candidates, the runtime chose which enter suppression.

    They are those that it kept, then those that fall to a box that it kept, and only then others.
    """
    last = oracle.last_candidate(thresholds.score)
    if last is None:
        return oracle
    flat, width = oracle.competing.reshape(-1), oracle.scores.shape[1]
    better, tied = np.flatnonzero(flat > oracle.scores[last]), np.flatnonzero(flat == oracle.scores[last])
    rows, classes = np.divmod(tied, width)
    kept, falls = np.zeros(tied.size, np.bool_), np.zeros(tied.size, np.bool_)
    for anchor, class_id in runtime.kept:
        index = anchor * width + class_id
        kept |= tied == index
        behind = (tied > index) | (flat[index] > oracle.scores[last])
        overlaps = iou_xyxy(oracle.boxes[rows], oracle.boxes[anchor]) >= np.float32(thresholds.iou - ROOM)
        falls |= overlaps & behind & (oracle.rule.across_classes | (classes == class_id))
    chosen = np.concatenate([tied[kept], tied[falls & ~kept], tied[~falls & ~kept]])
    entering = np.sort(np.concatenate([better, chosen])[:MAX_CANDIDATES])
    ranked = entering[np.argsort(-flat[entering], kind="stable")]
    stays = suppress(oracle.boxes, ranked, width, thresholds, oracle.rule)
    stays = with_further_classes(stays, oracle.scores, thresholds, oracle.rule)
    keys = [divmod(int(index), width) for index in stays]
    boxes = clip_xyxy(oracle.boxes)
    return replace(oracle, kept={key: (boxes[key[0]], oracle.scores[key]) for key in keys})


def is_chosen_among_ties(side: Side, thresholds: Thresholds) -> bool:
    """Whether ``with_ties_of`` kept other boxes than the lower indices that come first everywhere else."""
    last = side.last_candidate(thresholds.score)
    return last is not None and any(
        side.scores[key] == side.scores[last] and side.ranks_first(last, key) for key in side.kept
    )


def box_differences(oracle: Side, runtime: Side, thresholds: Thresholds) -> Iterator[tuple[str, Pair]]:
    """What float32 rounding does not excuse in one image: (message, the two boxes if it is the rule at equality)."""
    for key in sorted(oracle.kept.keys() - runtime.kept.keys()):
        yield from _unexcused(oracle, runtime, key, thresholds, f"box {key[0]} is missing")
    for key in sorted(runtime.kept.keys() - oracle.kept.keys()):
        yield from _unexcused(runtime, oracle, key, thresholds, f"box {key[0]} should not be there")
    for key in sorted(oracle.kept.keys() & runtime.kept.keys()):
        (box, score), (other_box, other_score) = oracle.kept[key], runtime.kept[key]
        off = max(float(np.abs(box - other_box).max()), float(abs(score - other_score)))
        if not off <= ROOM:
            yield f"box {key[0]} is {_box_text(other_box, other_score)}, expected {_box_text(box, score)}", None


def overlaps_otherwise(run: Run, image: int, pair: tuple[Key, Key], thresholds: Thresholds) -> bool:
    """Whether the runtime's own boxes, seen where it keeps both, overlap by another number than the threshold."""
    for _, detections in run.boxes:
        kept = kept_boxes(detections, image)
        if pair[0] in kept and pair[1] in kept:
            overlap = np.float32(iou_xyxy(kept[pair[0]][0], kept[pair[1]][0]))
            return bool(overlap != np.float32(thresholds.iou))
    return False


def _unexcused(present: Side, absent: Side, key: Key, thresholds: Thresholds, what: str) -> list[tuple[str, Pair]]:
    why = explain(present, absent, key, thresholds)
    message = f"{what}: {why.message}"
    if "iou-rule" in (why.cause, why.root):
        return [(message, (why.keys[-2], why.keys[-1]))]
    return [] if why.margin <= ROOM else [(message, None)]


def _box_text(box: np.ndarray[tuple[int], np.dtype[np.float32]], score: np.float32) -> str:
    return f"{[round(float(x), 5) for x in box]} at {float(score):.5f}"


def broken_rules(detections: BatchDetections, image: int, thresholds: Thresholds, spec: DetectorSpec) -> Iterator[str]:
    """The rules that one image's rows break, in words; all exact: each compares numbers that one runtime computed."""
    count, most = int(detections.num_detections[image]), detections.scores.shape[1]
    if not 0 <= count <= most:
        yield f"{count} rows are counted, there are {most}"
        return
    scores = detections.scores[image, :count]
    keys = list(
        zip(detections.anchors[image, :count].tolist(), detections.classes[image, :count].tolist(), strict=True)
    )
    strange = [key for key in keys if not has_box(spec, key)]
    if strange:
        yield f"box {strange[0][0]} of class {strange[0][1]} is none of the head's"
    low = np.flatnonzero(~(scores > np.float32(thresholds.score)))
    if low.size:
        yield f"box {keys[low[0]][0]} is kept at score {scores[low[0]]:.7g}, which is not above the threshold"
    if (scores[1:] > scores[:-1]).any():
        yield "the rows are not sorted by score"
    for row, (before, after) in enumerate(pairwise(keys)):
        if scores[row] == scores[row + 1] and rank(before, spec.suppression) > rank(after, spec.suppression):
            yield f"box {before[0]} stands before box {after[0]} at the same score, {scores[row]:.7g}"
            break
    if len(set(keys)) < count:
        yield "a box is in two rows"
    padding = ((detections.boxes_xyxy, 0), (detections.scores, 0), (detections.classes, -1), (detections.anchors, -1))
    if any((values[image, count:] != fill).any() for values, fill in padding):
        yield f"the rows behind the first {count} are not padding"


IOU_RULE: tuple[Cause, str] = (
    "iou-rule",
    "suppresses boxes whose IoU equals the threshold, where only a larger one should",
)


def diagnose_boxes(run: Run, spec: DetectorSpec) -> tuple[Cause, str]:
    """The usual mistake that explains every box of a run; ``rows`` where none does."""
    usual = ((cause, why) for cause, why, explains in MISTAKES if explains(run, spec))
    return next(usual, ("rows", "its boxes do not follow from its own head"))


def _agrees(run: Run, decode: Callable[[Thresholds], tuple[Thresholds, DetectorSpec]]) -> bool:
    """Whether decoding with other numbers gives the run's boxes, in every image and at all thresholds.

    A runtime that is documented to suppress at equality does so beside any other mistake.
    """
    for at, detections in run.boxes:
        used, spec = decode(at)
        used = _just_below(used) if has_rule(run.name, "suppresses_at_equality") else used
        for image, (oracle, runtime) in enumerate(both_sides(run, detections, spec, used)):
            differs = next(box_differences(oracle, runtime, used), None) is not None
            if differs or any(broken_rules(detections, image, used, spec)):
                return False
    return True


def _swapped(run: Run, spec: DetectorSpec) -> bool:
    fed = _agrees(run, lambda at: (replace(at, score=at.iou, iou=at.score), spec))
    # or rows of a copy with frozen thresholds
    return fed or _agrees(run, lambda at: (replace(at, score=max(at.iou, at.score), iou=at.score), spec))


def _other_unit(run: Run, spec: DetectorSpec) -> bool:
    if not isinstance(spec.head, YoloV2):
        return False
    anchors = spec.head.anchors
    width, height = spec.head.grid_w, spec.head.grid_h
    factor = (width, height) if anchors.unit == "cell" else (1 / width, 1 / height)
    sizes = tuple((w * factor[0], h * factor[1]) for w, h in anchors.sizes_wh)
    try:
        other = replace(spec, head=replace(spec.head, anchors=Anchors(sizes, anchors.unit)))
    except ValueError:  # no such fraction of an image
        return False
    return _agrees(run, lambda at: (at, other))


def _just_below(at: Thresholds) -> Thresholds:
    """Thresholds at which IoU > is what IoU >= is at these."""
    return replace(at, iou=float(np.nextafter(np.float32(at.iou), np.float32(0))))


MISTAKES: tuple[tuple[Cause, str, Callable[[Run, DetectorSpec], bool]], ...] = (
    ("thresholds-swapped", "score and IoU threshold are swapped in its head", _swapped),
    ("anchor-unit", "its head takes the anchors in another unit than the document says", _other_unit),
    (*IOU_RULE, lambda run, spec: _agrees(run, lambda at: (_just_below(at), spec))),
)
