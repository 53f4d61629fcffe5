"""What ``xdet.check`` found: frozen, complete, and free of anything that two equal runs would not share.

::

CheckResult ├── parts static, exact, spread, head: passed, failed or skipped, each with its findings ├── runs one line
per runtime: how far its head is from the source's ├── changes detections that a runtime loses, finds anew or moves,
each with its cause ├── proven numbers that differ from the source's on purpose, each with its proof ├── layers where it
was asked for: every tensor of the source beside its twin, and what runs on integers ├── missing runtimes that did not
run, and why └── other_cpus where other processors were named: what self-test and check found there

``other_cpus`` is no comparison between processors: heads are compared with LiteRT's kernels on the same processor. What
ties processors together is the self-test, whose golden vector is the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from xdet.checking.selftest import SelfTest  # noqa: TC001 - ``other_cpus.restored`` reads annotations

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

    from converters.spec import Thresholds
    from xdet.inspection.coverage import Coverage


PartName = Literal["static", "exact", "spread", "head"]
Status = Literal["passed", "tolerated", "failed", "skipped"]
# What a finding blames. docs/check.md tells of each what it means and what to do.
Cause = Literal[
    "another-source", "weight", "bias", "scale", "zero-point", "padding", "attributes", "slope", "float-convolution",
    "missing-tensor", "anchors", "anchor-unit", "priors", "classes", "image-input", "thresholds", "thresholds-swapped",
    "colour-order", "layer", "iou-rule", "rows", "resize", "tolerance", "wiring",
]  # fmt: skip
ChangeKind = Literal["lost", "new", "moved"]
ChangeCause = Literal[
    "score",  # the score crosses the threshold
    "iou",  # an overlap crosses the threshold
    "order",  # two boxes that suppress each other change places (an NMS tie)
    "follows",  # from another change
    "limit",  # the number of rows ends between them
    "iou-rule",  # the runtime suppresses at equality
    "rounding",  # moved by rounding within the measured distance
    "layer",  # the head is further off than kernels may be
    "head",  # the boxes do not follow from the runtime's own head
]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: in one sentence what, where, expected and found."""

    part: PartName
    cause: Cause
    message: str
    runtime: str | None = None  # the runtime that shows it, None for what the file itself shows
    # the source's tensor or operator output that it concerns, None where it concerns no single one
    layer: str | None = None


@dataclass(frozen=True, slots=True)
class PartVerdict:
    """One of the four parts; ``summary`` says what was compared, in one sentence."""

    part: PartName
    # ``"skipped"`` where there was nothing to compare; ``summary`` says why. ``"tolerated"`` where it failed but for
    # the tolerance: not equal, and accepted
    status: Status
    summary: str
    findings: tuple[Finding, ...] = ()  # what is wrong; empty unless failed


@dataclass(frozen=True, slots=True)
class ProvenChange:
    """A number that differs from the source's on purpose."""

    tensor: str  # source tensor to which it belongs
    operator: str  # output of the source operator for whose sake it was changed
    kind: str  # ``"scale"``, ``"zero_point"``, ``"slope"``, or ``"weights"`` for weights that stand several times
    source: float | None  # the source's number, None where it has none
    written: float | None  # the graph's number, None where it is more than one
    proof: str  # why the results are the same, in one sentence


@dataclass(frozen=True, slots=True)
class HeadDistance:
    """How far the raw heads of two runtimes are from each other, over all images."""

    first: str
    second: str
    differing: int  # values that are not equal, bit for bit
    values: int  # values that were compared
    # largest difference, in quantisation steps (LSB) of the source's head; for float heads as a fraction of the
    # head's largest magnitude
    max_steps: float
    mean_steps: float  # mean difference over all values, in the same unit


@dataclass(frozen=True, slots=True)
class HistogramBar:
    """How many head values differ by more than the bar before says and at most ``up_to``: 0 in the first bar."""

    up_to: float
    values: int


@dataclass(frozen=True, slots=True)
class RuntimeLine:
    """One runtime that ran the finished model."""

    name: str  # as ``--runtimes`` takes it
    images: int  # photographs it ran on
    must_be_exact: bool  # whether it is one of an exact pair with LiteRT XNNPACK
    # its distance to the nearest LiteRT kernel (``second``); None where no source runtime ran
    nearest: HeadDistance | None
    head_equal: bool | None  # whether its boxes are those of the numpy oracle for its own head (float32 rounding aside)
    notes: tuple[str, ...] = ()  # documented rules of this runtime that showed, one sentence each
    # differences from the nearest LiteRT kernel, all head values; empty where no source runtime ran
    histogram: tuple[HistogramBar, ...] = ()
    probes: int | None = None  # crafted heads that were put to it; None where none were
    probes_followed: int | None = None  # those whose boxes follow from the head, documented rules aside; likewise


@dataclass(frozen=True, slots=True)
class DetectionChange:
    """A detection that a runtime does not share with the source."""

    image: str  # name of the photograph
    runtime: str
    # ``"lost"``: only the source finds it; ``"new"``: only the runtime; ``"moved"``: a corner is more than a pixel of
    # the network's picture away
    kind: ChangeKind
    anchor: int  # index of the box in the head
    class_id: int
    source_score: float  # the score of the source's box, found or not; the runtime's likewise
    runtime_score: float
    # x1, y1, x2, y2 in 0..1 of the photograph, found or not; the runtime's likewise
    source_box_xyxy: tuple[float, float, float, float]
    runtime_box_xyxy: tuple[float, float, float, float]
    cause: ChangeCause
    message: str  # the numbers, in one sentence


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What the caller accepts; None is not judged by a number of the caller's."""

    head: float | None = None  # the largest difference of a value of the raw head, in the unit of ``HeadDistance``
    box: float | None = None  # the largest difference of a corner, in pixels of the network's picture
    score: float | None = None  # the largest difference of a score


@dataclass(frozen=True, slots=True)
class KnownDeviation:
    """How far the detections of a runtime are from the source's, over all that either side keeps."""

    runtime: str
    box: float  # the largest difference of a corner, in pixels of the network's picture
    score: float  # the largest difference of a score
    image: str  # the photograph with the largest difference of a corner


@dataclass(frozen=True, slots=True)
class MissingRuntime:
    """A runtime that gave no result."""

    name: str  # as ``--runtimes`` takes it
    reason: str  # why, and what to do, in one line
    # whether it was named by the caller, or is a default that is installed and failed; otherwise it is only what
    # could be added
    asked: bool
    crashed: bool = False  # whether it started and ended by itself

    @property
    def is_gap(self) -> bool:
        """Whether less ran than was asked for."""
        return self.asked or self.crashed


@dataclass(frozen=True, slots=True)
class NodePlacement:
    """Where ONNX Runtime puts the nodes of the model for a runtime."""

    runtime: str
    # execution provider, short -> number of nodes, before fusion; None where ONNX Runtime does not tell
    nodes: Mapping[str, int] | None
    fallen_back: Mapping[str, int]  # operator -> number of nodes that another provider left to the CPU


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The whole verdict.

    Attributes:
        model: file name of the finished model.
        model_sha256: hex digest of its bytes.
        source: file name of the source.
        source_sha256: hex digest of its bytes.
        images: names of the photographs, in order.
        unit: unit of all distances: ``"LSB"``, or ``"of the largest value"`` for float heads.
        thresholds: those at which detections are compared between runtimes.
        parts: the four parts, in order.
        runs: every runtime of the finished model that ran.
        source_runs: names of the source's runtimes that ran.
        source_images: photographs that each of them ran on.
        yardstick: the two source runtimes furthest from each other, by the mean; None with fewer than two.
        allowed_max: the most LSB that part spread allows; None where it was skipped.
        allowed_mean: likewise for the mean.
        changes: detections that runtimes do not share with the source.
        proven: deliberate differences.
        missing: runtimes without a result.
        versions: package -> version, of what ran.
        uncompared: what the model says of the detector and nobody states of the source: ``"anchors"``,
            ``"anchor-unit"`` (of anchors that are stated), ``"priors"``, ``"classes"``, ``"rescaling"``, ``"resize"``,
            ``"color"`` (other than RGB).
        output_uncompared: why the model's output is not compared with the source's, which are not the same numbers;
            None where it is.
        layers: every tensor of the source beside its twin, over the first images; None where it was not asked for.
        layers_problem: why layers were asked for and could not be compared; else None.
        coverage: what ONNX Runtime runs on integers, per provider that ran; empty where layers were not asked for.
        placement: which nodes it gives to which provider, likewise.
        other_cpus: what the self-test and the check found on other processors; empty where none were named.
        tolerance: what the caller accepts; None: nothing beyond what the parts allow.
        deviations: where a tolerance was named, per runtime how far its detections are from the source's.
    """

    model: str
    model_sha256: str
    source: str
    source_sha256: str
    images: tuple[str, ...]
    unit: str
    thresholds: Thresholds
    parts: tuple[PartVerdict, ...]
    runs: tuple[RuntimeLine, ...]
    source_runs: tuple[str, ...]
    yardstick: HeadDistance | None
    allowed_max: float | None
    allowed_mean: float | None
    changes: tuple[DetectionChange, ...]
    proven: tuple[ProvenChange, ...]
    missing: tuple[MissingRuntime, ...]
    versions: dict[str, str]
    uncompared: tuple[str, ...] = ()
    output_uncompared: str | None = None
    source_images: tuple[int, ...] = ()
    layers: LayerComparison | None = None
    layers_problem: str | None = None
    coverage: tuple[Coverage, ...] = ()
    placement: tuple[NodePlacement, ...] = ()
    other_cpus: tuple[OtherCpu, ...] = ()
    tolerance: Tolerance | None = None
    deviations: tuple[KnownDeviation, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no part failed, and nothing on another processor."""
        here = all(part.status != "failed" for part in self.parts)
        return here and all(cpu.status != "failed" for cpu in self.other_cpus)

    @property
    def complete(self) -> bool:
        """Whether all that was asked for gave a result: runtimes, layers, and what ran on other processors."""
        gaps = any(m.is_gap for m in self.missing) or any(cpu.status == "incomplete" for cpu in self.other_cpus)
        return not gaps and self.layers_problem is None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything that is wrong, part by part."""
        return tuple(finding for part in self.parts for finding in part.findings)


CpuStatus = Literal["passed", "failed", "incomplete"]


@dataclass(frozen=True, slots=True)
class CpuCheck:
    """A check there, with names as in ``CheckResult``: few images, no histograms, of the changes their number."""

    images: tuple[str, ...]
    parts: tuple[PartVerdict, ...]
    runs: tuple[RuntimeLine, ...]
    allowed_max: float | None
    allowed_mean: float | None
    changes: int
    missing: tuple[MissingRuntime, ...]
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class OtherCpu:
    """One processor: its name as the emulator takes it, and what ran there, or why it did not (``..._problem``)."""

    cpu: str
    emulated: bool
    simd: tuple[str, ...]  # instruction sets that numpy found in the process there
    selftest: SelfTest | None = None  # None also where the model holds no golden vector
    selftest_problem: str | None = None
    check: CpuCheck | None = None
    check_problem: str | None = None

    @property
    def status(self) -> CpuStatus:
        """``"failed"`` where a verdict is bad; ``"incomplete"`` where none is, but something gave no result."""
        broken = self.selftest is not None and self.selftest.verdict == "broken"
        parts = self.check.parts if self.check is not None else ()
        if broken or any(part.status == "failed" for part in parts):
            return "failed"
        missing = self.check.missing if self.check is not None else ()
        gaps = self.selftest_problem or self.check_problem or any(m.is_gap for m in missing)
        return "incomplete" if gaps else "passed"


Unit = Literal["LSB", "of the largest value"]


@dataclass(frozen=True, slots=True)
class LayerDistance:
    """How far two tensors are apart: in codes, or, of real numbers, in the unit of the comparison."""

    # values that are not equal; of real numbers those that are not the same float32, or nearest code
    differing: int = 0
    values: int = 0  # all of them
    worst: float = 0  # the largest difference; whole where both tensors hold codes
    total: float = 0  # the sum of all differences, likewise

    @classmethod
    def of_codes(cls, a: NDArray[Any], b: NDArray[Any]) -> LayerDistance:
        """The distance of two integer arrays of one shape."""
        steps = np.abs(a.astype(np.int64) - b)
        return cls(int(np.count_nonzero(steps)), steps.size, int(steps.max(initial=0)), int(steps.sum()))

    @classmethod
    def of_reals(cls, a: NDArray[Any], b: NDArray[Any], *, unit: float, differing: int) -> LayerDistance:
        """The distance of two arrays of one shape, in ``unit``; a value that is no number is infinitely far."""
        steps = np.abs(a.astype(np.float64) - b) / unit
        steps = np.where(np.isnan(steps), np.inf, steps)
        return cls(differing, steps.size, float(steps.max(initial=0.0)), float(steps.sum()))

    @property
    def mean(self) -> float:
        """The mean difference."""
        return self.total / max(self.values, 1)

    def joined(self, other: LayerDistance) -> LayerDistance:
        """Over the values of both."""
        counts = self.differing + other.differing, self.values + other.values
        return LayerDistance(*counts, max(self.worst, other.worst), self.total + other.total)


@dataclass(frozen=True, slots=True)
class LayerResult:
    """One tensor of a source and its twin; distances as ``xdet.checking.layers`` defines them."""

    tensor: str  # name in the source
    operator: str  # what computes it, such as ``"CONV_2D"`` or ``"Conv2D"``; ``"input"`` for the picture
    onnx: str  # name of its twin
    accumulated: LayerDistance  # of ONNX Runtime from the source
    local: LayerDistance  # of the graph from the source, given the source's values in front of the layer
    # of ONNX Runtime from exact integers, given its own in front of the layer; None for float models
    kernel: LayerDistance | None
    # what ``local`` may be: of codes 0 where the translation is exact, else 1 (docs/operators.md); None where it is a
    # measured cost and no fault
    local_bound: float | None
    kernel_bound: int | None  # what ``kernel`` may be: 0, or 1 behind float32 arithmetic and with int8 activations
    in_codes: bool  # whether ``accumulated`` and ``local`` are those of codes on both sides

    @property
    def is_mistranslated(self) -> bool:
        """Whether the graph computes something else than the source here."""
        return self.local_bound is not None and self.local.worst > self.local_bound

    @property
    def is_misrun(self) -> bool:
        """Whether the runtime computes something else than the graph here."""
        return self.kernel is not None and self.kernel_bound is not None and self.kernel.worst > self.kernel_bound

    @property
    def is_at_fault(self) -> bool:
        """Whether one of the two distances exceeds its bound."""
        return self.is_mistranslated or self.is_misrun


@dataclass(frozen=True, slots=True)
class LayerComparison:
    """All layers, in the source's order."""

    layers: tuple[LayerResult, ...]  # those that exist on both sides
    # source tensors that no value carries any more -> the pass that removed or rearranged them
    absent: Mapping[str, str] = field(default_factory=dict)
    fused_differs: int = 0  # values of the head in which the fused run and the one that shows inner values differ
    unit: Unit = "LSB"  # of ``accumulated`` and ``local``: codes of each tensor, or fractions of its largest magnitude

    @property
    def first_fault(self) -> LayerResult | None:
        """The first layer whose local or kernel distance exceeds its bound."""
        return next((layer for layer in self.layers if layer.is_at_fault), None)
