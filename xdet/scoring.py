"""From what models found to metrics, differences, and counts of all that was left out."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from xdet.errors import DataError, UsageError
from xdet.evaluation_results import Comparison, Evaluation, ModelResult
from xdet.metrics.bootstrap import difference, draw_weights, resample_average
from xdet.metrics.protocols import PROTOCOLS, ProtocolName, Setting
from xdet.metrics.records import ScoredImage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdet.datasets import Dataset, LabelledImage, Problem
    from xdet.evaluation_results import EvaluationOptions
    from xdet.predictions import Found, Seconds


@dataclass(frozen=True, eq=False)
class ModelRun:
    """What one model found.

    Attributes:
        file: the model as the caller named it.
        sha256: of its bytes.
        runtime: what ran it.
        network_size_wh: the network's input in pixels.
        categories: its class numbers -> category ids, as far as the annotations have them.
        found: by image id.
        problems: photographs that it could not be given.
        seconds: where the time went.
        resumed: photographs whose results were taken from an earlier run.
    """

    file: str
    sha256: str
    runtime: str
    network_size_wh: tuple[int, int]
    categories: dict[int, int]
    found: dict[int, Found]
    problems: tuple[Problem, ...]
    seconds: Seconds
    resumed: int


def score_runs(runs: Sequence[ModelRun], dataset: Dataset, options: EvaluationOptions) -> Evaluation:
    """Score what the models found in the photographs that all of them could use."""
    categories = _shared_categories(runs, dataset)
    ignored = Counter(dataset.ignored)
    problems = {problem.message: problem for run in runs for problem in run.problems}
    ignored["unreadable_images"] += len(problems)
    usable = [image for image in dataset.images if all(image.id in run.found for run in runs)]
    truths = [_only_categories(image, categories, options, ignored) for image in usable]
    counted = [image for image in truths if options.max_gt is None or len(image.areas) <= options.max_gt]
    ignored["images_over_max_gt"] += len(truths) - len(counted)
    if not counted:
        raise DataError(f"'{dataset.file}' leaves no image to evaluate: {_counts(ignored)}")
    protocol = PROTOCOLS[options.protocol]
    results = []
    for run in runs:
        started = time.perf_counter()
        scored = [_scored_image(image, run, categories, ignored) for image in counted]
        setting = Setting(len(categories), run.network_size_wh, options.thresholds.max_detections)
        score = protocol.score(scored, setting)
        results.append(
            ModelResult(
                file=run.file,
                sha256=run.sha256,
                runtime=run.runtime,
                score=score,
                seconds=run.seconds,
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
        results=tuple(results),
        comparisons=_compare(results, options.protocol, len(counted)),
        problems=(*dataset.problems, *problems.values()),
        ignored={kind: count for kind, count in ignored.items() if count},
    )


def _shared_categories(runs: Sequence[ModelRun], dataset: Dataset) -> list[int]:
    """The category ids that the models find, rising; the same for all of them."""
    first = set(runs[0].categories.values())
    for run in runs[1:]:
        others = set(run.categories.values())
        if others != first:
            odd = ", ".join(repr(dataset.categories[category]) for category in sorted(first ^ others))
            raise UsageError(
                f"'{runs[0].file}' and '{run.file}' cannot be compared: only one of them finds {odd}; evaluate them in "
                f"two calls"
            )
    return sorted(first)


def _only_categories(
    image: LabelledImage, categories: Sequence[int], options: EvaluationOptions, ignored: Counter[str]
) -> LabelledImage:
    """The image with the ground truths that count, crowds treated as asked."""
    mine = np.isin(image.category_ids, categories)
    ignored["annotations_of_other_categories"] += int((~mine).sum())
    kept = mine
    if options.crowd == "drop":
        kept = mine & ~image.crowd
        ignored["crowds_dropped"] += int((mine & image.crowd).sum())
    return replace(
        image,
        boxes_xywh_px=image.boxes_xywh_px[kept],
        areas=image.areas[kept],
        category_ids=image.category_ids[kept],
        crowd=image.crowd[kept] & (options.crowd == "ignore"),
    )


def _scored_image(
    image: LabelledImage, run: ModelRun, categories: Sequence[int], ignored: Counter[str]
) -> ScoredImage:
    """Ground truth and detections with classes numbered by the place of their category."""
    found = run.found[image.id]
    known = np.isin(found.classes, list(run.categories))
    own = np.array([run.categories[number] for number in found.classes[known].tolist()], np.int64)
    ignored["detections_without_category"] += int((~known).sum())
    return ScoredImage(
        size_wh=image.size_wh,
        truth_xywh_px=image.boxes_xywh_px,
        truth_areas=image.areas,
        truth_classes=np.searchsorted(categories, image.category_ids).astype(np.int64),
        truth_crowd=image.crowd,
        found_xyxy=found.boxes_xyxy[known].astype(np.float64),
        found_scores=found.scores[known].astype(np.float64),
        found_classes=np.searchsorted(categories, own).astype(np.int64),
    )


def _compare(
    results: Sequence[ModelResult], protocol: ProtocolName, num_images: int
) -> tuple[Comparison, ...]:
    """Every further model against the first, for each metric that is a mean of APs."""
    if len(results) < 2:
        return ()
    weights = draw_weights(num_images)
    how = PROTOCOLS[protocol]
    comparisons = []
    for name, thresholds in how.averages.items():
        drawn = [
            resample_average(result.score.rankings, how.curve, thresholds, weights) for result in results
        ]
        first = results[0].score.metrics[name]
        for index, result in enumerate(results[1:], 1):
            own = result.score.metrics[name]
            if first is not None and own is not None:
                comparisons.append(Comparison(index, name, difference(own - first, drawn[0], drawn[index])))
    return tuple(comparisons)


def _counts(ignored: Counter[str]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in ignored.items() if count) or "nothing was left out"
