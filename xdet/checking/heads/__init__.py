"""Part (d), head: the boxes that each run gave are those of the numpy oracle for that run's own head.

A run's heads are those of photographs, or crafted ones (``probes``) that ask what photographs rarely do.

Excused, and counted nowhere: what float32 cannot decide, since ``exp`` is correctly rounded nowhere
(``converters.heads.nms``): a score or an overlap within ``ROOM`` of its threshold, two scores within it of each other.

Excused with a note: rules that a runtime is documented to have. OpenVINO suppresses at IoU equal to the threshold, and
takes any of equal scores at the limit of candidates.

Everything else is a fault, and the usual ones are tried out: the two thresholds swapped, the anchors in the other unit,
``>=`` where ``>`` is meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.spec import MAX_CANDIDATES
from xdet.checking.heads.boxes import (
    IOU_RULE,
    both_sides,
    box_differences,
    broken_rules,
    diagnose_boxes,
    is_chosen_among_ties,
    overlaps_otherwise,
)
from xdet.checking.result import Cause, Finding, PartVerdict
from xdet.runtimes.table import suppresses_at_equality

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.spec import DetectorSpec
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
    notes: dict[str, None] = {}
    wrong: dict[str, None] = {}
    documented = suppresses_at_equality(run.name)
    for thresholds, found in run.boxes:
        for image, (oracle, runtime) in enumerate(both_sides(run, found, spec, thresholds)):
            where = f"{run.label(image)}, score > {thresholds.score:g}, IoU > {thresholds.iou:g}"
            if documented and is_chosen_among_ties(oracle, thresholds):
                notes[TIES_NOTE] = None
            differences = list(box_differences(oracle, runtime, thresholds))
            differences += [(message, None) for message in broken_rules(found, image, thresholds, spec)]
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
        found: dict[Cause, str] = {}
        for fault in (verdict.fault for verdict in self._of(name)):
            if fault is not None:
                found[fault.cause] = f"{found.get(fault.cause, fault.why)}; {fault.detail}"
        return found

    def follows(self, name: str) -> bool:
        """Whether a runtime's boxes follow from its heads."""
        return not self.faults(name)

    def notes(self, name: str) -> tuple[str, ...]:
        """The documented rules that a runtime showed."""
        return tuple(dict.fromkeys(note for verdict in self._of(name) for note in verdict.notes))

    def _of(self, name: str) -> list[HeadVerdict]:
        return [verdicts[name] for verdicts in (self.photographs, self.probes) if name in verdicts]


def judge_runs(runs: Sequence[Run], probed: Sequence[Run], spec: DetectorSpec) -> HeadVerdicts:
    """Compare all runs, on photographs and on crafted heads, with the oracle."""
    if not spec.gives_boxes:
        return HeadVerdicts({}, {})
    found, crafted = ({run.name: judge_run(run, spec) for run in group} for group in (runs, probed))
    return HeadVerdicts(found, crafted)


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
    ran = f"{len(verdicts.photographs)} runtime{'s' if len(verdicts.photographs) != 1 else ''}"
    text = f"{sets} sets of boxes of {ran} compared with the numpy oracle for their own heads"
    if verdicts.probes:
        crafted = max(verdict.heads for verdict in verdicts.probes.values())
        text += f"; {crafted} probes put to {len(verdicts.probes)} of them"
        if not has_thresholds:
            text += ", at the model's own thresholds alone: a tool has merged or renamed them in the graph"
    return PartVerdict("head", "failed" if findings else "passed", text, findings)
