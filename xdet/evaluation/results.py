"""What an evaluation is asked and what it answers: frozen records, without a way to compute them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdet.errors import UsageError

if TYPE_CHECKING:
    from converters.spec import Thresholds
    from xdet.evaluation.bootstrap import Difference
    from xdet.evaluation.dataset import Problem
    from xdet.evaluation.predictions import Seconds
    from xdet.evaluation.protocols import CrowdRule, ProtocolName, Score


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """What decides the numbers, besides models and photographs.

    Attributes:
        protocol: how detections are scored.
        crowd: ``"ignore"``: neither to be found nor wrong to find; ``"drop"``: as if not annotated; ``"keep"``:
            ordinary ground truth.
        max_gt: leave out images with more ground truths than this; None keeps all.
        truncate_input: feed what the zoo's truncating input quantisation makes of each pixel.
        thresholds: of the detectors.
        eval_iou: IoU with a ground truth from which on a detection is a hit, in the zoo's protocols; None for coco,
            which takes the mean over ten of them.
    """

    protocol: ProtocolName
    crowd: CrowdRule
    max_gt: int | None
    truncate_input: bool
    thresholds: Thresholds
    eval_iou: float | None

    def __post_init__(self) -> None:
        if self.truncate_input and self.protocol == "coco":
            raise UsageError("`truncate_input` belongs to the zoo's protocols; add `protocol` zoo-3 or zoo-4")
        if self.eval_iou is not None and self.protocol == "coco":
            raise UsageError(
                "`eval_iou` belongs to the zoo's protocols; coco has its ten IoU thresholds: leave it out, or add "
                "`protocol` zoo-3 or zoo-4"
            )
        if self.eval_iou is not None and not 0 < self.eval_iou <= 1:
            raise UsageError(f"`eval_iou` must be above 0 and at most 1, got {self.eval_iou}")
        if self.max_gt is not None and self.max_gt < 1:
            raise UsageError(f"`max_gt` must be at least 1, got {self.max_gt}")


@dataclass(frozen=True, eq=False)
class ModelResult:
    """One model's numbers."""

    file: str  # as the caller named it
    sha256: str
    runtime: str  # such as "onnxruntime:cpu"
    score: Score
    seconds: Seconds
    resumed: int  # photographs whose results were taken from an earlier run
    metric_s: float  # for matching and ranking


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model against the first one: index into ``Evaluation.results``, metric, and second minus first."""

    index: int
    metric: str
    difference: Difference


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What ``evaluate`` gives.

    Attributes:
        options: what decides the numbers.
        annotations: the annotations' file.
        annotations_sha256: of its bytes.
        class_names: the classes that models and annotations share, as the annotations spell them.
        num_images: photographs that counted.
        num_truths: ground truths to find in them.
        num_crowds: crowds in them that need not be found and are not wrong to find.
        over_the_edge: boxes that reach more than a pixel over an edge (kept).
        warning: what all boxes look like where that is not COCO's form, else None.
        results: one per model, in the order of the call.
        comparisons: every model but the first, against the first.
        problems: everything that was left out because something is wrong with it.
        ignored: everything that was left out for whatever reason: keys of ``xdet.evaluation.dataset.IGNORED`` -> how
            many.
    """

    options: EvaluationOptions
    annotations: str
    annotations_sha256: str
    class_names: tuple[str, ...]
    num_images: int
    num_truths: int
    num_crowds: int
    over_the_edge: int
    warning: str | None
    results: tuple[ModelResult, ...]
    comparisons: tuple[Comparison, ...]
    problems: tuple[Problem, ...]
    ignored: dict[str, int]
