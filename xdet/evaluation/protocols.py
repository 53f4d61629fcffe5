"""The protocols by name: how each treats crowds, which numbers it gives, and which curve lies under them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from xdet.evaluation.coco import coco_curve, evaluate_coco, summarize_coco
from xdet.evaluation.records import Ranking, mean_of_numbers
from xdet.evaluation.zoo import rank_zoo, zoo_3_curve, zoo_4_curve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xdet.evaluation.records import Curve, Float64, ScoredImage

ProtocolName = Literal["coco", "zoo-3", "zoo-4"]
CrowdRule = Literal["ignore", "drop", "keep"]


@dataclass(frozen=True, slots=True)
class Setting:
    """What decides a score besides the images."""

    num_classes: int
    network_size_wh: tuple[int, int]  # the network's input in pixels
    max_detections: int  # per image


@dataclass(frozen=True, eq=False)
class Score:
    """What a protocol says about one model."""

    metrics: dict[str, float | None]  # by name, fractions 0..1; None where there is nothing to find
    per_class: tuple[dict[str, float | None], ...]  # the metrics of Protocol.averages, per class
    rankings: tuple[Ranking, ...]  # one per class, for resampling
    precision: Float64  # (101,), its curve at Protocol.iou, the mean over classes; NaN without ground truth


Ranked = tuple[tuple[Ranking, ...], dict[str, float | None]]  # one ranking per class; metrics that are no means of APs


@dataclass(frozen=True, slots=True)
class Protocol:
    """A way to score detections."""

    crowd: CrowdRule  # what happens to crowd annotations unless the caller says otherwise
    curve: Curve
    averages: dict[str, tuple[int, ...]]  # metrics that are means over IoU thresholds and classes -> those thresholds
    rank: Callable[[Sequence[ScoredImage], Setting, float], Ranked]
    iou: float = 0.5  # from which on a detection is a hit; the first of them where the protocol has several

    def at(self, iou: float | None) -> Protocol:
        """The same way to score with another IoU, after which its metric is named: ``AP40`` at 0.4."""
        return self if iou is None else replace(self, averages={f"AP{iou * 100:.6g}": (0,)}, iou=iou)

    def score(self, images: Sequence[ScoredImage], setting: Setting) -> Score:
        """Score one model's detections; ``images`` in order of their ids."""
        rankings, metrics = self.rank(images, setting, self.iou)
        per_class = tuple(
            {name: self._average(ranking, thresholds) for name, thresholds in self.averages.items()}
            for ranking in rankings
        )
        means = {
            name: mean_of_numbers(np.array([values[name] for values in per_class], np.float64))
            for name in self.averages
            if name not in metrics
        }
        curves = [ranking.curve(0, self.curve)[0] for ranking in rankings if ranking.positives.any()]
        precision = np.mean(curves, axis=0) if curves else np.full(101, np.nan)
        return Score({**metrics, **means}, per_class, rankings, np.asarray(precision, np.float64))

    def _average(self, ranking: Ranking, thresholds: Sequence[int]) -> float | None:
        return mean_of_numbers(np.array([ranking.curve(threshold, self.curve)[1] for threshold in thresholds]))


def _rank_coco(images: Sequence[ScoredImage], setting: Setting, _: float) -> Ranked:
    most = setting.max_detections
    arrays = evaluate_coco(images, setting.num_classes, limits=(*(limit for limit in (1, 10) if limit < most), most))
    return arrays.rankings, summarize_coco(arrays)


def _rank_zoo(images: Sequence[ScoredImage], setting: Setting, iou: float) -> Ranked:
    return rank_zoo(images, setting.num_classes, setting.network_size_wh, iou_threshold=iou), {}


PROTOCOLS: dict[ProtocolName, Protocol] = {
    "coco": Protocol("ignore", coco_curve, {"AP": tuple(range(10)), "AP50": (0,)}, _rank_coco),
    "zoo-3": Protocol("keep", zoo_3_curve, {"AP50": (0,)}, _rank_zoo),
    "zoo-4": Protocol("keep", zoo_4_curve, {"AP50": (0,)}, _rank_zoo),
}
