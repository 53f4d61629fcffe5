"""Average precision of one or several models on annotated photographs, by a named protocol."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from converters.spec import Thresholds
from xdet.datasets import read_coco
from xdet.errors import DataError, ModelError, UsageError
from xdet.evaluation_results import Evaluation, EvaluationOptions
from xdet.kept_predictions import KeptPredictions, name_run
from xdet.metrics.protocols import PROTOCOLS, CrowdRule, ProtocolName
from xdet.outputs import with_sidecars
from xdet.predictions import Found, PredictionOptions, predict
from xdet.processors import choose_workers
from xdet.runtimes.base import require_thresholds
from xdet.runtimes.choices import RuntimeChoices
from xdet.runtimes.opening import open_runtime
from xdet.scoring import ModelRun, score_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from xdet.datasets import Dataset, LabelledImage
    from xdet.runtimes.base import Runtime

PathLike = str | os.PathLike[str]


def evaluate(
    models: PathLike | Sequence[PathLike],
    images: PathLike,
    annotations: PathLike,
    *,
    protocol: ProtocolName = "coco",
    crowd: CrowdRule | None = None,
    max_gt: int | None = None,
    truncate_input: bool = False,
    score_threshold: float = 0.001,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
    provider: str | None = None,
    provider_options: Mapping[str, str] | None = None,
    device: str | None = None,
    threads: int | None = None,
    workers: int | None = None,
    resume: PathLike | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Evaluation:
    """Measure average precision.

    Args:
        models: one or several model files, finished or source; each runs on the runtime of its format. Further ones are
            compared with the first.
        images: the folder that the annotations' file names start from.
        annotations: a COCO json; its categories are matched with a model's classes by name.
        protocol: ``"coco"``, ``"zoo-3"`` or ``"zoo-4"``, see docs/evaluation.md.
        crowd: ``"ignore"``, ``"drop"`` or ``"keep"``; None is the protocol's own: ``"ignore"`` for coco, else ``"keep"``.
        max_gt: leave out images with more ground truths than this.
        truncate_input: feed what the zoo's truncating input quantisation makes of each pixel (the zoo's protocols only).
        score_threshold: detections score above this.
        iou_threshold: of non-maximum suppression.
        max_detections: per image.
        provider: execution provider or kernels, for all models; None is each runtime's usual one.
        provider_options: handed to ONNX Runtime's execution provider, for all models.
        device: of that provider, as ``xdet providers`` lists it; None is the provider's choice.
        threads: threads inside an operator; None is the runtime's default, for several workers the processors shared among
            them.
        workers: photographs worked on at the same time, 1 to 64; None is one per processor, eight at most.
        resume: a file that keeps each photograph's result; with it an interrupted call goes on where it stopped.
        progress: called with the photographs that are done since the last call, and with how many there are: models x images.

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
    options = _options(
        protocol, crowd, max_gt, truncate_input, (score_threshold, iou_threshold, max_detections)
    )
    choices = RuntimeChoices(
        provider=provider,
        threads=threads,
        workers=choose_workers(workers),
        provider_options=provider_options or {},
        device=device,
    )
    for path in paths:
        if not path.is_file():
            raise ModelError(f"cannot read model '{path}': no such file; check the path")
    dataset = read_coco(Path(annotations), Path(images))
    kept = None if resume is None else KeptPredictions(Path(resume))
    how = PredictionOptions(options.thresholds, truncate_input=truncate_input, workers=choices.workers)
    whole = len(paths) * len(dataset.images)

    def advance(done: int) -> None:
        if progress is not None:
            progress(done, whole)

    runs: list[ModelRun] = []
    for path in paths:
        with open_runtime(path, choices) as runtime:
            runs.append(_run(runtime, dataset, how, kept, advance))
    return score_runs(runs, dataset, options)


def evaluated_files(models: Iterable[Path], images: Path, annotations: Path) -> Iterator[Path]:
    """All files that ``evaluate`` reads.

    Raises:
        DataError: as ``read_coco``.
    """
    yield from with_sidecars(models)
    yield annotations
    yield from (image.path for image in read_coco(annotations, images).images)


def _options(
    protocol: ProtocolName,
    crowd: CrowdRule | None,
    max_gt: int | None,
    truncate_input: bool,  # noqa: FBT001 - handed on
    thresholds: tuple[float, float, int],
) -> EvaluationOptions:
    for name, value, known in (("protocol", protocol, ProtocolName), ("crowd", crowd, CrowdRule)):
        if value is not None and value not in get_args(known):
            raise UsageError(f"--{name} must be one of {', '.join(get_args(known))}, got {value!r}")
    try:
        limits = Thresholds(*thresholds)
    except ValueError as error:
        raise UsageError(f"{error}; choose another") from error
    return EvaluationOptions(protocol, crowd or PROTOCOLS[protocol].crowd, max_gt, truncate_input, limits)


def _run(
    runtime: Runtime,
    dataset: Dataset,
    how: PredictionOptions,
    kept: KeptPredictions | None,
    advance: Callable[[int], object],
) -> ModelRun:
    """Run one model, or take what an earlier run has kept."""
    require_thresholds(how.thresholds, runtime)
    categories = _match_classes(runtime, dataset)
    run = name_run(runtime, how)
    taken = {} if kept is None else kept.take(run, dataset.images)
    advance(len(taken))

    def remember(image: LabelledImage, found: Found) -> None:
        if kept is not None:
            kept.add(run, image, found)
        advance(1)

    missing = [image for image in dataset.images if image.id not in taken]
    predictions = predict(runtime, missing, how, on_result=remember)
    network = runtime.spec.image
    return ModelRun(
        file=runtime.file,
        sha256=runtime.sha256,
        runtime=runtime.name,
        network_size_wh=(network.width, network.height),
        categories=categories,
        found=taken | predictions.found,
        problems=predictions.problems,
        seconds=predictions.seconds,
        resumed=len(taken),
    )


def _match_classes(runtime: Runtime, dataset: Dataset) -> dict[int, int]:
    """The model's class numbers -> category ids, by name in any case, as far as the annotations have them."""
    by_name = {name.strip().casefold(): category for category, name in dataset.categories.items()}
    folded = [name.strip().casefold() for name in runtime.spec.class_names]
    matched = {number: by_name[name] for number, name in enumerate(folded) if name in by_name}
    if not matched:
        raise DataError(
            f"'{dataset.file}' has the categories {', '.join(map(repr, dataset.categories.values()))}, '{runtime.file}' "
            f"finds {', '.join(map(repr, runtime.spec.class_names)) or 'no named classes'}: no name is in both; rename the "
            f"categories, or convert the model with --classes"
        )
    return matched
