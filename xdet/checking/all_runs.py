"""Every runtime of a check: source and model side by side, each runtime noted that gives no result.

Three threads: the source's runtimes, those of the model that run in subprocesses, and those that run here. Each
runtime is used by one thread at a time; results stand in the order in which runtimes are named.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING

from xdet.checking.any_size import AnySize, PreparedPictures, compare_any_size
from xdet.checking.heads.probes import prepare_probes, run_probes
from xdet.checking.result import Finding, MissingRuntime
from xdet.checking.runs import OpenRuntimes, Run, Work, run_finished, run_open, run_source, runs_here
from xdet.errors import MissingExtraError, RuntimeCrashedError, UnsoundOutputError, UsageError, XdetError
from xdet.runtimes.base import RuntimeChoices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from converters.spec import Placement, Thresholds
    from xdet.checking.pair import OpenedPair
    from xdet.pictures.preparation import Photograph
    from xdet.runtimes.base import Runtime


@dataclass(frozen=True, eq=False)
class CheckInputs:
    """What every run gets."""

    pair: OpenedPair
    photographs: Sequence[Photograph]
    pixels: NDArray[np.uint8]  # ``(N, height, width, 3)``, at network size
    placements: Sequence[Placement]
    thresholds: tuple[Thresholds, ...]  # pairs at which boxes are asked for
    runtimes: OpenRuntimes
    counts: Mapping[str, int]  # how many of the images each runtime gets, by name
    are_named: bool  # whether the caller named the runtimes, which are the default ones otherwise
    # called with a runtime's name and the number of images it has done since the last call
    progress: Callable[[str, int], None]


@dataclass(frozen=True, eq=False)
class AllRuns:
    """What ran: the source and the model on photographs, the model's decoder on crafted heads, files for any size.

    ``missing`` gave no result, and ``faults`` are what that proves.
    """

    of_source: Sequence[Run]
    of_model: Sequence[Run]
    of_probes: Sequence[Run]
    any_size: Mapping[str, AnySize]
    missing: Sequence[MissingRuntime]
    faults: Sequence[Finding]


def run_all(
    inputs: CheckInputs, finished: Sequence[RuntimeChoices | Runtime], sources: Sequence[RuntimeChoices]
) -> AllRuns:
    """Run everything that can run; the witness stays open.

    Raises:
        UsageError: a runtime refuses what the caller asks of it.
    """
    inputs = replace(inputs, progress=_one_at_a_time(inputs.progress))
    with _thread() as for_source, _thread() as for_subprocesses:
        # the witness comes last: it stays open, and its subprocess has served the others
        ordered = sorted(sources, key=inputs.runtimes.is_witness)
        running = [for_source.submit(_attempt, inputs, choices, of_source=True) for choices in ordered]
        there = [
            None if runs_here(runtime) else for_subprocesses.submit(_attempt, inputs, runtime) for runtime in finished
        ]
        attempts = [
            _attempt(inputs, runtime) if future is None else future
            for runtime, future in zip(finished, there, strict=True)
        ]
        of_model = [attempt.result() if isinstance(attempt, Future) else attempt for attempt in attempts]
        of_source = [future.result() for future in running]
    gaps = _Gaps(inputs.are_named)
    for _, found in (*of_source, *of_model):
        gaps.missing.extend(found.missing)
        gaps.faults.extend(found.faults)
    names = [choices.name for choices in sources]
    source_runs = sorted((run for run, _ in of_source if run is not None), key=lambda run: names.index(run.name))
    runs = [run for run, _ in of_model if run is not None]
    # a runtime that the caller opened takes no other model
    ran = [(choices, run) for choices, (run, _) in zip(finished, of_model, strict=True) if run is not None]
    others = [(choices, run) for choices, run in ran if isinstance(choices, RuntimeChoices)]
    probed = _probe_all(inputs, [choices for choices, _ in others], gaps) if runs else []
    any_size = _compare_any_size(inputs, others, gaps) if inputs.pair.any_size is not None else {}
    return AllRuns(source_runs, runs, probed, any_size, gaps.missing, gaps.faults)


@dataclass(frozen=True, eq=False)
class _Gaps:
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


@contextmanager
def _thread() -> Iterator[ThreadPoolExecutor]:
    """A thread that finishes what it is doing and begins nothing more where the caller fails or is interrupted."""
    pool = ThreadPoolExecutor(1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _one_at_a_time(progress: Callable[[str, int], None]) -> Callable[[str, int], None]:
    lock = Lock()

    def advance(name: str, images: int) -> None:
        with lock:
            progress(name, images)

    return advance


def _attempt(
    inputs: CheckInputs, runtime: RuntimeChoices | Runtime, *, of_source: bool = False
) -> tuple[Run | None, _Gaps]:
    """The run of a runtime, None with the reason where it gives none."""
    gaps, name = _Gaps(inputs.are_named), runtime.name
    with gaps.noting(name):
        return _run(inputs, runtime, name, of_source=of_source), gaps
    return None, gaps


def _run(inputs: CheckInputs, runtime: RuntimeChoices | Runtime, name: str, *, of_source: bool) -> Run:
    pixels = inputs.pixels[: inputs.counts[name]]

    def progress(count: int) -> None:
        inputs.progress(name, count)

    if of_source and isinstance(runtime, RuntimeChoices):
        return run_source(inputs.pair.source, runtime, Work(pixels, progress=progress), inputs.runtimes)
    gives_boxes = inputs.pair.document.spec.gives_boxes
    work = Work(pixels, inputs.thresholds if gives_boxes else (), progress)
    if not isinstance(runtime, RuntimeChoices):
        return run_open(runtime, replace(work, pixels=runtime.spec.image.as_fed(pixels)))
    return run_finished(inputs.pair.model, runtime, work, inputs.runtimes)


def _probe_all(inputs: CheckInputs, runtimes: Sequence[RuntimeChoices], gaps: _Gaps) -> list[Run]:
    """What runtimes give for crafted heads."""
    probing, probed = prepare_probes(inputs.pair), []
    if probing is None:
        return []
    for choices in runtimes:
        with gaps.noting(f"{choices.name}, probes"):
            probed.append(run_probes(probing, choices, inputs.runtimes))
    return probed


def _compare_any_size(
    inputs: CheckInputs, ran: Sequence[tuple[RuntimeChoices, Run]], gaps: _Gaps
) -> dict[str, AnySize]:
    """What runtimes do with the photographs as decoded."""
    prepared, any_size = PreparedPictures(inputs.photographs, inputs.pixels, inputs.placements), {}
    for choices, run in ran:
        with gaps.noting(f"{run.name}, photographs of any size"):
            any_size[run.name] = compare_any_size(inputs.pair, run, choices, prepared, inputs.runtimes)
            gaps.faults.extend(any_size[run.name].findings)
    return any_size
