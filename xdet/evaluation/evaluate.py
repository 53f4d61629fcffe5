"""Average precision of one or several models on annotated photographs, by a named protocol.

From what models found to metrics, differences, and counts of all that was left out.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converters import require
from converters.spec import Thresholds
from xdet.errors import DataError, ModelError, UsageError
from xdet.evaluation import PROTOCOLS, ProtocolName
from xdet.evaluation.dataset import read_coco
from xdet.evaluation.predictions import (
    DetectionFile,
    KeptPredictions,
    Predictions,
    is_detected,
    name_run,
    predict,
    read_detected,
    truncation_table,
)
from xdet.evaluation.scoring import CrowdRule, ScoredImage, Setting, difference, draw_weights, resample_average
from xdet.model.file import read_model_file, require_source
from xdet.runtimes.base import RuntimeChoices, choose_workers, require_thresholds
from xdet.runtimes.finished import open_at
from xdet.runtimes.table import split_runtime
from xdet.writing.files import with_sidecars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from converters.description.statements import SourceOptions
    from xdet.evaluation.dataset import Dataset, LabelledImage, Problem
    from xdet.evaluation.predictions import ImageDetections, Seconds
    from xdet.evaluation.scoring import Difference, Protocol, Score
    from xdet.runtimes.base import Runtime


PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """What decides the numbers, besides models and photographs."""

    protocol: ProtocolName  # how detections are scored
    # "ignore": neither to be found nor wrong to find; "drop": as if not annotated; "keep": ordinary ground truth
    crowd: CrowdRule
    max_gt: int | None  # leave out images with more ground truths than this; None keeps all
    truncate_input: bool  # feed what the zoo's truncating input quantisation makes of each pixel
    thresholds: Thresholds  # of the detectors
    # IoU with a ground truth from which on a detection is a hit; None for coco, which takes the mean over ten of them
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
        ignored: everything that was left out for whatever reason: keys of ``dataset.IGNORED`` -> how many.
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


def evaluate(
    models: PathLike | Sequence[PathLike],
    images: PathLike,
    annotations: PathLike,
    *,
    protocol: ProtocolName = "coco",
    crowd: CrowdRule | None = None,
    max_gt: int | None = None,
    eval_iou: float | None = None,
    truncate_input: bool = False,
    score_threshold: float = 0.001,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
    runtime: str | None = None,
    provider: str | None = None,
    provider_options: Mapping[str, str] | None = None,
    device: str | None = None,
    threads: int | None = None,
    workers: int | None = None,
    resume: PathLike | None = None,
    source_options: SourceOptions | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Evaluation:
    """Measure average precision; all models are opened and checked before the first one runs.

    Args:
        models: one or several model files, finished or source, each of which runs on the runtime of its format; or
            results of ``xdet detect`` at the same thresholds, as ``.jsonl`` or ``.parquet``. Further ones are compared
            with the first.
        images: the folder that the annotations' file names start from.
        annotations: a COCO json; its categories are matched with a model's classes by name.
        protocol: ``"coco"``, ``"zoo-3"`` or ``"zoo-4"``, see docs/evaluation.md.
        crowd: ``"ignore"``, ``"drop"`` or ``"keep"``; None is the protocol's own: ``"ignore"`` for coco, else
            ``"keep"``.
        max_gt: leave out images with more ground truths than this.
        eval_iou: IoU with a ground truth from which on a detection is a hit, above 0 and at most 1 (the zoo's protocols
            only); None is 0.5. Their metric is named after it: ``"AP40"`` at 0.4.
        truncate_input: feed what the zoo's truncating input quantisation makes of each pixel (the zoo's protocols
            only).
        score_threshold: detections score above this.
        iou_threshold: of non-maximum suppression.
        max_detections: per image.
        runtime: what runs the models, as ``xdet.Detector`` takes it; None is the one of each file's format.
        provider: execution provider or kernels, for all models; None is each runtime's usual one.
        provider_options: handed to ONNX Runtime's execution provider, for all models.
        device: of that provider, as ``xdet providers`` lists it; None is the provider's choice.
        threads: threads inside an operator; None is the runtime's default, for several workers the processors shared
            among them.
        workers: photographs worked on at the same time, 1 to 64; None is one per processor, eight at most.
        resume: a file that keeps each photograph's result; with it an interrupted call goes on where it stopped.
        source_options: what their files and sidecars do not say of those models that are sources.
        progress: called with the photographs that are done since the last call, and with how many there are: models x
            images.

    Returns:
        Metrics per model, differences between models, and all that was left out.

    Raises:
        UsageError: an option is out of range, or a model cannot take the thresholds.
        ModelError: a model cannot be read or run.
        RuntimeUnavailableError: a provider, device or package is not there.
        DataError: the annotations are no COCO file, share no class with a model, or leave nothing to evaluate.
        OutputError: ``resume`` cannot be written.
    """
    paths = [Path(model) for model in ([models] if isinstance(models, str | os.PathLike) else models)]
    if not paths:
        raise UsageError("name at least one model to evaluate")
    try:
        require.choice(protocol, ProtocolName, "--protocol")
        if crowd is not None:
            require.choice(crowd, CrowdRule, "--crowd")
        thresholds = Thresholds(score_threshold, iou_threshold, max_detections)
    except ValueError as error:
        raise UsageError(f"{error}; choose another") from error
    options = EvaluationOptions(
        protocol=protocol,
        crowd=crowd or PROTOCOLS[protocol].crowd,
        max_gt=max_gt,
        truncate_input=truncate_input,
        thresholds=thresholds,
        eval_iou=eval_iou if eval_iou is not None or protocol == "coco" else PROTOCOLS[protocol].iou,
    )
    name, kind = split_runtime(runtime, provider)
    choices = RuntimeChoices(
        name,
        kind,
        threads=threads,
        workers=choose_workers(workers),
        provider_options=provider_options or {},
        device=device,
        source_options=source_options,
    )
    for path in paths:
        if not path.is_file():
            raise ModelError(f"cannot read model '{path}': no such file; check the path")
    models_only = [path for path in paths if not is_detected(path)]
    require_source(models_only, source_options)
    if len(models_only) < len(paths) and (protocol != "coco" or truncate_input):
        raise UsageError("results of xdet detect do not say the network's size: evaluate them with --protocol coco")
    dataset = read_coco(Path(annotations), Path(images))
    whole = len(paths) * len(dataset.images)

    def advance(done: int) -> None:
        if progress is not None:
            progress(done, whole)

    with ExitStack() as stack:
        runtimes = [
            read_detected(path, options.thresholds)
            if is_detected(path)
            else stack.enter_context(open_at(read_model_file(path), choices, lambda _: options.thresholds))
            for path in paths
        ]
        matched = [_require_usable(runtime, dataset, options) for runtime in runtimes]
        categories = _shared_categories(runtimes, matched, dataset)
        kept = None if resume is None else KeptPredictions(Path(resume))
        runs = [
            _run(runtime, names, dataset, options, workers=choices.workers, kept=kept, advance=advance)
            for runtime, names in zip(runtimes, matched, strict=True)
        ]
    return _score_runs(runs, categories, dataset, options)


def evaluated_files(models: Iterable[Path], images: Path, annotations: Path) -> Iterator[Path]:
    """All files that ``evaluate`` reads; a ``DataError`` as ``read_coco``."""
    yield from with_sidecars(models)
    yield annotations
    yield from (image.path for image in read_coco(annotations, images).images)


def _require_usable(runtime: Runtime | DetectionFile, dataset: Dataset, options: EvaluationOptions) -> dict[int, int]:
    """Refuse a model that cannot be evaluated with these options; gives its class numbers -> category ids."""
    if isinstance(runtime, DetectionFile):
        return _match_classes(runtime.file, runtime.class_names, dataset)
    require_thresholds(options.thresholds, runtime)
    if options.truncate_input:
        truncation_table(runtime.spec, runtime.file)
    return _match_classes(runtime.file, dict(enumerate(runtime.spec.class_names)), dataset)


def _shared_categories(
    runtimes: Sequence[Runtime | DetectionFile], matched: Sequence[dict[int, int]], dataset: Dataset
) -> list[int]:
    """The category ids that the models find, rising; the same for all of them."""
    first = set(matched[0].values())
    for runtime, categories in zip(runtimes, matched, strict=True):
        odd = first.symmetric_difference(categories.values())
        if odd:
            names = ", ".join(repr(dataset.categories[category]) for category in sorted(odd))
            raise UsageError(
                f"'{runtimes[0].file}' and '{runtime.file}' cannot be compared: only one of them finds {names}; "
                "evaluate them in two calls"
            )
    return sorted(first)


@dataclass(frozen=True, eq=False)
class _Run:
    """What one model found."""

    model: Runtime | DetectionFile
    categories: dict[int, int]  # its class numbers -> category ids, as far as the annotations have them
    predictions: Predictions
    resumed: int  # photographs whose results were taken from an earlier run

    @property
    def network_size_wh(self) -> tuple[int, int]:
        """The network's input in pixels; nothing for results, whose protocol does not need it."""
        if isinstance(self.model, DetectionFile):
            return 0, 0
        return self.model.spec.image.width, self.model.spec.image.height


def _run(
    runtime: Runtime | DetectionFile,
    categories: dict[int, int],
    dataset: Dataset,
    options: EvaluationOptions,
    *,
    workers: int,
    kept: KeptPredictions | None,
    advance: Callable[[int], object],
) -> _Run:
    """Run one model, or take what an earlier run has kept."""
    if isinstance(runtime, DetectionFile):
        advance(len(dataset.images))
        predictions = runtime.predictions(dataset.images)
        return _Run(runtime, categories, predictions, len(predictions.detections))
    run = name_run(runtime, options)
    taken = {} if kept is None else kept.take(run, dataset.images)
    advance(len(taken))

    def remember(image: LabelledImage, detections: ImageDetections) -> None:
        if kept is not None:
            kept.add(run, image, detections)
        advance(1)

    missing = [image for image in dataset.images if image.id not in taken]
    made = predict(runtime, missing, options, workers=workers, on_result=remember)
    return _Run(runtime, categories, replace(made, detections=taken | made.detections), len(taken))


def _match_classes(file: str, names: Mapping[int, str], dataset: Dataset) -> dict[int, int]:
    """A model's class numbers -> category ids, by name in any case, as far as the annotations have them."""
    by_name = {name.strip().casefold(): category for category, name in dataset.categories.items()}
    folded = {number: name.strip().casefold() for number, name in names.items()}
    matched = {number: by_name[name] for number, name in folded.items() if name in by_name}
    if not matched:
        raise DataError(
            f"'{dataset.file}' has the categories {', '.join(map(repr, dataset.categories.values()))}, '{file}' "
            f"finds {', '.join(map(repr, names.values())) or 'no named classes'}: no name is in both; rename the "
            f"categories, or give the names with `classes`: here for a source, else where it is converted"
        )
    return matched


def _score_runs(
    runs: Sequence[_Run], categories: Sequence[int], dataset: Dataset, options: EvaluationOptions
) -> Evaluation:
    """Score what the models found in the photographs that all of them could use."""
    ignored = Counter(dataset.ignored)
    problems = {problem.message: problem for run in runs for problem in run.predictions.problems}
    ignored.update(problem.kind for problem in problems.values())
    usable = [image for image in dataset.images if all(image.id in run.predictions.detections for run in runs)]
    truths = [_only_categories(image, categories, options, ignored) for image in usable]
    counted = [image for image in truths if options.max_gt is None or len(image.areas) <= options.max_gt]
    ignored["images_over_max_gt"] += len(truths) - len(counted)
    if not counted:
        counts = ", ".join(f"{kind} {count}" for kind, count in ignored.items() if count)
        raise DataError(f"'{dataset.file}' leaves no image to evaluate: {counts or 'nothing was left out'}")
    protocol = PROTOCOLS[options.protocol].at(options.eval_iou)
    results = []
    for run in runs:
        started = time.perf_counter()
        scored = [_scored_image(image, run, categories, ignored) for image in counted]
        setting = Setting(len(categories), run.network_size_wh, options.thresholds.max_detections)
        score = protocol.score(scored, setting)
        results.append(
            ModelResult(
                file=run.model.file,
                sha256=run.model.sha256,
                runtime=run.model.name,
                score=score,
                seconds=run.predictions.seconds,
                resumed=run.resumed,
                metric_s=time.perf_counter() - started,
            )
        )
    crowds = sum(int(image.crowd.sum()) for image in counted)
    return Evaluation(
        options=options,
        annotations=dataset.file,
        annotations_sha256=dataset.sha256,
        class_names=tuple(dataset.categories[category] for category in categories),
        num_images=len(counted),
        num_truths=sum(len(image.areas) for image in counted) - crowds,
        num_crowds=crowds,
        over_the_edge=dataset.over_the_edge,
        warning=dataset.warning,
        results=tuple(results),
        comparisons=_compare(results, protocol, len(counted)),
        problems=(*dataset.problems, *problems.values()),
        ignored={kind: count for kind, count in ignored.items() if count},
    )


def _only_categories(
    image: LabelledImage, categories: Sequence[int], options: EvaluationOptions, ignored: Counter[str]
) -> LabelledImage:
    """The image with the ground truths that count, crowds treated by the options."""
    kept = np.isin(image.category_ids, categories)
    ignored["annotations_of_other_categories"] += int((~kept).sum())
    if options.crowd == "drop":
        ignored["crowds_dropped"] += int((kept & image.crowd).sum())
        kept &= ~image.crowd
    return replace(
        image,
        boxes_xywh_px=image.boxes_xywh_px[kept],
        areas=image.areas[kept],
        category_ids=image.category_ids[kept],
        crowd=image.crowd[kept] & (options.crowd == "ignore"),
    )


def _scored_image(image: LabelledImage, run: _Run, categories: Sequence[int], ignored: Counter[str]) -> ScoredImage:
    """Ground truth and detections with classes numbered by the place of their category."""
    detections = run.predictions.detections[image.id]
    kept = np.isin(detections.classes, list(run.categories))
    category_ids = np.array([run.categories[number] for number in detections.classes[kept].tolist()], np.int64)
    ignored["detections_without_category"] += int((~kept).sum())
    return ScoredImage(
        size_wh=image.size_wh,
        truth_xywh_px=image.boxes_xywh_px,
        truth_areas=image.areas,
        truth_classes=np.searchsorted(categories, image.category_ids).astype(np.int64),
        truth_crowd=image.crowd,
        detected_xyxy=detections.boxes_xyxy[kept].astype(np.float64),
        detected_scores=detections.scores[kept].astype(np.float64),
        detected_classes=np.searchsorted(categories, category_ids).astype(np.int64),
    )


def _compare(results: Sequence[ModelResult], protocol: Protocol, num_images: int) -> tuple[Comparison, ...]:
    """Every further model against the first, for each metric that is a mean of APs."""
    if len(results) < 2:
        return ()
    weights = draw_weights(num_images)
    comparisons = []
    for name, thresholds in protocol.averages.items():
        drawn = [resample_average(result.score.rankings, protocol.curve, thresholds, weights) for result in results]
        first = results[0].score.metrics[name]
        for index, result in enumerate(results[1:], 1):
            second = result.score.metrics[name]
            if first is not None and second is not None:
                comparisons.append(Comparison(index, name, difference(second - first, drawn[0], drawn[index])))
    return tuple(comparisons)
