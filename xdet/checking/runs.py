"""The runs of a check: raw heads and boxes of every runtime for the photographs, source and model side by side.

Three threads: the source's runtimes, those of the model that run in subprocesses, and those that run here. Each
runtime is used by one thread at a time; results stand in the order in which runtimes are named. One that gives no
result is noted (``Gaps``), and the others go on.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from converters.files import FINISHED
from converters.heads.base import BatchDetections
from converters.spec import Thresholds
from xdet.checking.result import Finding, MissingRuntime
from xdet.checking.runtimes import OpenRuntimes, runs_here, suggest_runtimes
from xdet.errors import MissingExtraError, RuntimeCrashedError, UnsoundOutputError, UsageError, XdetError
from xdet.model.file import ModelFile
from xdet.model.wire import freeze_thresholds
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.table import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from converters.spec import Placement
    from xdet.checking.pair import OpenedPair
    from xdet.pictures.preparation import Photograph
    from xdet.runtimes.base import Runtime

CHUNK = 4  # photographs between two steps of the progress bar
FIELDS = ("num_detections", "boxes_xyxy", "scores", "classes", "anchors")


@dataclass(frozen=True, eq=False)
class CheckInputs:
    """What every run gets."""

    pair: OpenedPair
    photographs: Sequence[Photograph]
    pixels: NDArray[np.uint8]  # ``(N, height, width, 3)``, at network size
    placements: Sequence[Placement]
    names: tuple[str, ...]  # of the photographs
    thresholds: tuple[Thresholds, ...]  # pairs at which boxes are asked for: those in use, then any others
    runtimes: OpenRuntimes
    counts: Mapping[str, int]  # how many of the images each runtime gets, by name
    are_named: bool  # whether the caller named the runtimes, which are the default ones otherwise
    # called with a runtime's name and the number of images it has done since the last call
    progress: Callable[[str, int], None]


@dataclass(frozen=True, eq=False)
class Run:
    """What one runtime gave."""

    name: str  # as ``--runtimes`` takes it
    exact: bool  # whether its kernels are exact integers (``Capabilities.exact``)
    heads: NDArray[np.float32]  # ``(N, grid_h, grid_w, channels)``
    # per pair of thresholds, its detections; empty for runtimes of the source, whose boxes are the oracle's
    boxes: tuple[tuple[Thresholds, BatchDetections], ...] = ()
    probes: tuple[str, ...] = ()  # what the heads are where they were crafted, by name; empty for photographs

    def label(self, image: int) -> str:
        """What a head is, for messages: image 1, 2, ... or a probe's name."""
        return f"probe {self.probes[image]!r}" if self.probes else f"image {image + 1}"


@dataclass(frozen=True, eq=False)
class Work:
    """What a runtime is asked for: uint8 pictures at network size; boxes at pairs of thresholds, if any.

    ``progress`` is called with the number of images that were done since the last call.
    """

    pixels: NDArray[np.uint8]
    thresholds: tuple[Thresholds, ...] = ()
    progress: Callable[[int], None] = lambda _: None


@dataclass(frozen=True, eq=False)
class Gaps:
    """What gave no result, and what that proves."""

    are_named: bool
    missing: list[MissingRuntime] = field(default_factory=list)
    faults: list[Finding] = field(default_factory=list)

    @contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Note what gives no result, with its reason, and go on; a usage error is the caller's.

        One of the defaults that is not installed is only what could be added.
        """
        try:
            yield
        except UsageError:
            raise
        except MissingExtraError as error:
            self.missing.append(MissingRuntime(name, str(error), asked=self.are_named))
        except XdetError as error:
            crashed = isinstance(error, RuntimeCrashedError)
            self.missing.append(MissingRuntime(name, str(error), asked=True, crashed=crashed))
            if isinstance(error, UnsoundOutputError):
                self.faults.append(Finding("head", "rows", str(error), runtime=name.partition(",")[0]))


@dataclass(frozen=True, eq=False)
class AllRuns:
    """What the photographs gave, and what gave nothing."""

    of_source: Sequence[Run]
    of_model: Sequence[Run]
    # those of the model's runtimes that take another model, too: one that the caller opened does not
    opened: Sequence[tuple[RuntimeChoices, Run]]
    gaps: Gaps


def run_all(
    inputs: CheckInputs, finished: Sequence[RuntimeChoices | Runtime], sources: Sequence[RuntimeChoices]
) -> AllRuns:
    """Run everything that can run; the witness stays open.

    Raises:
        UsageError: a runtime refuses what the caller asks of it.
    """
    lock, tell = Lock(), inputs.progress

    def progress(name: str, images: int) -> None:
        with lock:
            tell(name, images)

    inputs = replace(inputs, progress=progress)
    with _thread() as for_source, _thread() as for_subprocesses:
        # the witness comes last: it stays open, and its subprocess has served the others
        ordered = sorted(sources, key=inputs.runtimes.is_witness)
        running = [for_source.submit(_attempt, inputs, choices, of_source=True) for choices in ordered]
        order, apart = range(len(finished)), [not runs_here(runtime) for runtime in finished]
        there = {i: for_subprocesses.submit(_attempt, inputs, finished[i]) for i in order if apart[i]}
        here = {i: _attempt(inputs, finished[i]) for i in order if not apart[i]}
        of_model = [there[i].result() if apart[i] else here[i] for i in order]
        of_source = [future.result() for future in running]
    gaps = Gaps(inputs.are_named, suggest_runtimes(finished))
    for _, noted in (*of_source, *of_model):
        gaps.missing.extend(noted.missing)
        gaps.faults.extend(noted.faults)
    names = [choices.name for choices in sources]
    source_runs = sorted((run for run, _ in of_source if run is not None), key=lambda run: names.index(run.name))
    runs = [run for run, _ in of_model if run is not None]
    opened = [
        (runtime, run)
        for runtime, (run, _) in zip(finished, of_model, strict=True)
        if isinstance(runtime, RuntimeChoices) and run is not None
    ]
    return AllRuns(source_runs, runs, opened, gaps)


@contextmanager
def _thread() -> Iterator[ThreadPoolExecutor]:
    """A thread that finishes what it is doing and begins nothing more where the caller fails or is interrupted."""
    pool = ThreadPoolExecutor(1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _attempt(
    inputs: CheckInputs, runtime: RuntimeChoices | Runtime, *, of_source: bool = False
) -> tuple[Run | None, Gaps]:
    """The run of a runtime, None with the reason where it gives none."""
    gaps, name = Gaps(inputs.are_named), runtime.name
    with gaps.noting(name):
        return _run(inputs, runtime, name, of_source=of_source), gaps
    return None, gaps


def _run(inputs: CheckInputs, runtime: RuntimeChoices | Runtime, name: str, *, of_source: bool) -> Run:
    pixels, progress = inputs.pixels[: inputs.counts[name]], partial(inputs.progress, name)
    if of_source and isinstance(runtime, RuntimeChoices):
        return run_source(inputs.pair.source, runtime, Work(pixels, progress=progress), inputs.runtimes)
    gives_boxes = inputs.pair.document.spec.gives_boxes
    work = Work(pixels, inputs.thresholds if gives_boxes else (), progress)
    if not isinstance(runtime, RuntimeChoices):
        return run_open(runtime, replace(work, pixels=runtime.spec.image.as_fed(pixels)))
    return run_finished(inputs.pair.model, runtime, work, inputs.runtimes)


def run_finished(model: ModelFile, choices: RuntimeChoices, work: Work, runtimes: OpenRuntimes) -> Run:
    """Run a finished model, the check's or one made from it; raises as ``OpenRuntimes.opened``."""
    runs: list[Run] = []
    for file, at in copies_at(model, choices, work.thresholds, runtimes):
        with runtimes.opened(file, choices) as runtime:
            part = replace(work, thresholds=at)
            runs.append(run_open(runtime, part, head_of=runs[0] if runs else None))
    by_thresholds = dict(pair for run in runs for pair in run.boxes)
    return replace(runs[0], boxes=tuple((at, by_thresholds[at]) for at in work.thresholds))


def run_open(runtime: Runtime, work: Work, *, head_of: Run | None = None) -> Run:
    """Head and boxes of the same images; ``head_of`` is a run of the same work at other thresholds, if any."""
    chunks = [work.pixels[start : start + CHUNK] for start in range(0, len(work.pixels), CHUNK)]
    heads = []
    for chunk in chunks if head_of is None else []:
        heads.append(runtime.head(chunk))
        work.progress(len(chunk))
    # one pair of thresholds after the other: a runtime may keep a session for each
    boxes = [[runtime.detect(chunk, at) for chunk in chunks] for at in work.thresholds]
    joined = tuple((at, _joined(parts)) for at, parts in zip(work.thresholds, boxes, strict=True))
    if head_of is not None:
        return replace(head_of, boxes=joined)
    return Run(runtime.name, runtime.capabilities.exact, np.concatenate(heads), joined)


def run_source(source: ModelFile, choices: RuntimeChoices, work: Work, runtimes: OpenRuntimes) -> Run:
    """Raw heads of the source on one of its own runtimes."""
    with runtimes.opened(source, choices) as runtime:
        return run_open(runtime, work)


def copies_at(
    model: ModelFile, choices: RuntimeChoices, thresholds: tuple[Thresholds, ...], runtimes: OpenRuntimes
) -> Iterator[tuple[ModelFile, tuple[Thresholds, ...]]]:
    """The model as it is, with the thresholds that it can take there.

    Where the runtime can take none: for every other IoU threshold, or lower score, a copy frozen at it and at the
    lowest score.
    """
    document = runtimes.document_of(model)
    if not thresholds or (RUNTIMES[str(choices.runtime)].feeds_thresholds and not document.freeze_thresholds):
        yield model, thresholds
        return
    own = document.spec.thresholds
    for iou in sorted({at.iou for at in thresholds}, key=lambda iou: iou != own.iou):
        of_iou = tuple(at for at in thresholds if at.iou == iou)
        lowest = min(at.score for at in of_iou)
        if iou == own.iou and lowest >= own.score:
            yield model, of_iou
            continue
        frozen = freeze_thresholds(model.data, document, Thresholds(lowest, iou, own.max_detections))
        yield ModelFile(model.path, frozen, FINISHED), of_iou


def _joined(parts: list[BatchDetections]) -> BatchDetections:
    return BatchDetections(*(np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS))
