"""Running one runtime over the photographs: its raw heads, and its boxes at every pair of thresholds.

Runtimes that the table does not trust (other vendors' compilers, drivers) run in a subprocess: they may crash there without
hiding what the others found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from converters.heads.base import BatchDetections
from converters.spec import Thresholds
from xdet.model.file import ModelFile
from xdet.model.frozen_thresholds import freeze_thresholds
from xdet.model.metadata import read_document
from xdet.runtimes.table import RUNTIMES, open_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from converters.spec import DetectorSpec
    from xdet.runtimes.base import Runtime
    from xdet.runtimes.processors import RuntimeChoices

CHUNK = 4  # photographs between two steps of the progress bar
FIELDS = ("num_detections", "boxes_xyxy", "scores", "classes", "anchors")


@dataclass(frozen=True, eq=False)
class Run:
    """What one runtime gave.

    Attributes:
        name: as ``--runtimes`` takes it.
        exact: whether its kernels are exact integers (``Capabilities.exact``).
        heads: float32 ``(N, grid_h, grid_w, channels)``.
        boxes: per pair of thresholds, its detections; empty for runtimes of the source, whose boxes are the oracle's.
        probes: what the heads are where they were crafted, by name; empty for photographs.
    """

    name: str
    exact: bool
    heads: NDArray[np.float32]
    boxes: tuple[tuple[Thresholds, BatchDetections], ...] = ()
    probes: tuple[str, ...] = ()

    def label(self, image: int) -> str:
        """What a head is, for messages: image 1, 2, ... or a probe's name."""
        return f"probe {self.probes[image]!r}" if self.probes else f"image {image + 1}"


@dataclass(frozen=True, eq=False)
class Work:
    """What a runtime is asked for.

    Attributes:
        pixels: uint8 ``(N, height, width, 3)``, at network size.
        thresholds: pairs at which boxes are wanted; none for the raw head alone.
        progress: called with the number of images that were done since the last call.
    """

    pixels: NDArray[np.uint8]
    thresholds: tuple[Thresholds, ...] = ()
    progress: Callable[[int], None] = lambda _: None


def run_finished(model: ModelFile, choices: RuntimeChoices, work: Work) -> Run:
    """Run the finished model on the runtime that ``choices`` name, in a subprocess unless the table trusts it.

    Raises:
        XdetError: it cannot be opened, or failed; ``RuntimeCrashedError`` where its process ended.
    """
    runs: list[Run] = []
    for opened, asked in _openings(model, choices, work.thresholds):
        with opened as runtime:
            part = replace(work, thresholds=asked)
            runs.append(run_open(runtime, part, head_of=runs[0] if runs else None))
    found = dict(pair for run in runs for pair in run.boxes)
    return replace(runs[0], boxes=tuple((asked, found[asked]) for asked in work.thresholds))


def run_open(runtime: Runtime, work: Work, *, head_of: Run | None = None) -> Run:
    """Run a runtime that is open: head and boxes of the same images.

    Args:
        runtime: it stays open.
        work: what it is asked for.
        head_of: an earlier run of the same model and work at other thresholds, which gave the heads.
    """
    chunks = [work.pixels[start : start + CHUNK] for start in range(0, len(work.pixels), CHUNK)]
    heads = []
    for chunk in chunks if head_of is None else []:
        heads.append(runtime.head(chunk))
        work.progress(len(chunk))
    # one pair of thresholds after the other: a runtime may keep a session for each
    boxes = [[runtime.detect(chunk, asked) for chunk in chunks] for asked in work.thresholds]
    joined = tuple((asked, _joined(parts)) for asked, parts in zip(work.thresholds, boxes, strict=True))
    if head_of is not None:
        return replace(head_of, boxes=joined)
    return Run(runtime.name, runtime.capabilities.exact, np.concatenate(heads), joined)


def run_source(source: ModelFile, spec: DetectorSpec, choices: RuntimeChoices, work: Work) -> Run:
    """Raw heads of the source on one of its own runtimes, described as its finished model is: it needs no sidecar."""
    with open_model(source, replace(choices, spec=spec)) as runtime:
        return run_open(runtime, work)


def _openings(
    model: ModelFile, choices: RuntimeChoices, thresholds: tuple[Thresholds, ...]
) -> Iterator[tuple[Runtime, tuple[Thresholds, ...]]]:
    """The model as it is, with the thresholds that it can take there; whoever takes a runtime closes it.

    Where the runtime can take none: for every other IoU threshold, or lower score, a copy frozen at it and at the lowest score.
    """
    apart = choices.provider not in RUNTIMES[str(choices.runtime)].trusted
    runtime = open_model(model, choices, subprocess=apart)
    if runtime.capabilities.thresholds or model.format != "onnx" or not thresholds:
        yield runtime, thresholds
        return
    own, document = runtime.spec.thresholds, read_document(model.data, file=model.file)
    for iou in sorted({asked.iou for asked in thresholds}, key=lambda iou: iou != own.iou):
        asked = tuple(t for t in thresholds if t.iou == iou)
        lowest = min(t.score for t in asked)
        if iou == own.iou and lowest >= own.score:
            yield runtime, asked
            continue
        runtime.close()
        frozen = freeze_thresholds(model.data, document, Thresholds(lowest, iou, own.max_detections))
        yield open_model(ModelFile(model.path, frozen, "onnx"), choices, subprocess=apart), asked


def _joined(parts: list[BatchDetections]) -> BatchDetections:
    return BatchDetections(*(np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS))
