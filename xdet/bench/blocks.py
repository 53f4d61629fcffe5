"""One turn of one case: open, warm up, time, close. Only one session is ever alive: idle ones keep threads spinning.

The number of calls is fixed in a case's first turn, so that every turn weighs the same.
"""

from __future__ import annotations

import gc
import math
import time
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING

import numpy as np

from converters.spec import Thresholds
from xdet.pictures.preparation import Preparation, prepare, prepare_many, stack_pixels, through_network
from xdet.runtimes.base import choose_workers, require_thresholds
from xdet.runtimes.frozen_copies import open_at
from xdet.runtimes.table import RUNTIMES, open_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.spec import DetectorSpec
    from xdet.bench.cases import BenchCase
    from xdet.bench.records import BenchOptions
    from xdet.pictures.preparation import Prepared
    from xdet.runtimes.base import Runtime

    Find = Callable[[NDArray[np.uint8]], object]

WARM_UP = 3
LEAST_CALLS, MOST_CALLS = 5, 2000


@dataclass
class Samples:
    """All durations of one case, in seconds, over all its turns; grows while the benchmark runs."""

    read: list[float] = field(default_factory=list)  # per photograph
    resize: list[float] = field(default_factory=list)
    network: list[list[float]] = field(default_factory=list)  # per call, a list per turn
    boxes: list[list[float]] = field(default_factory=list)  # likewise; stays empty where no head is known
    pictures: int = 0  # that went from file to boxes
    pictures_s: float = 0.0
    runtime: str = ""
    sha256: str = ""
    thresholds: Thresholds = field(default_factory=Thresholds)
    calls: dict[str, int] = field(default_factory=dict)  # per turn, by kind; fixed in the first one


def require_sound_case(case: BenchCase) -> None:
    """Run a file once in a subprocess if hostile files crash its runtime: it is timed in this process, without pipes.

    Raises:
        RuntimeCrashedError: it ended the subprocess.
        XdetError: as ``run_block``.
    """
    if not RUNTIMES[str(case.choices.runtime)].subprocess:
        return
    with open_model(case.model, case.choices) as runtime:
        image = runtime.spec.image
        runtime.head(image.as_fed(np.zeros((runtime.batch or 1, *image.shape), np.uint8)))


def run_block(case: BenchCase, images: Sequence[Path], options: BenchOptions, samples: Samples) -> None:
    """Give a case its turn and add what it took to ``samples``.

    Raises:
        ImageError: a photograph cannot be read.
        ModelError, RuntimeUnavailableError, UsageError: the case cannot be run.
    """
    with open_at(case.model, case.choices, partial(_thresholds, options), subprocess=False) as runtime:
        thresholds = _thresholds(options, runtime.spec)
        require_thresholds(thresholds, runtime)
        samples.runtime, samples.sha256, samples.thresholds = runtime.name, runtime.sha256, thresholds
        finds_boxes = runtime.spec.gives_boxes or bool(runtime.spec.head and runtime.spec.class_names)
        find = partial(runtime.detect, thresholds=thresholds) if finds_boxes else runtime.head
        pixels = _time_pictures(runtime, find, images, options, samples)
        if finds_boxes:
            samples.boxes.append(_time_calls(find, pixels, options, samples.calls, "boxes"))
        if case.network is case.model:
            samples.network.append(_time_calls(runtime.network, pixels, options, samples.calls, "network"))
    gc.collect()
    if case.network is not case.model:
        with open_model(case.network, case.choices, subprocess=False) as network:
            samples.network.append(_time_calls(network.network, pixels, options, samples.calls, "network"))
        gc.collect()


def _thresholds(options: BenchOptions, spec: DetectorSpec) -> Thresholds:
    own = spec.thresholds
    return own if options.score_threshold is None else replace(own, score=options.score_threshold)


def _time_pictures(
    runtime: Runtime, find: Find, images: Sequence[Path], options: BenchOptions, samples: Samples
) -> list[NDArray[np.uint8]]:
    """Photographs from file to boxes, as ``xdet detect`` works on a folder; then reading and stretching alone.

    Turns go through the photographs one after the other. Returns those of this turn, as the runtime takes them.
    """
    start = samples.pictures % len(images)
    chosen = list(islice(cycle(images), start, start + options.pictures_per_block))
    how, batch = Preparation(runtime.spec.image), runtime.batch or 1
    for image in islice(prepare_many(chosen, how), 1):  # warm: decoder, network, boxes
        find(image.pixels[None].repeat(batch, axis=0))

    def find_boxes(group: Sequence[Prepared]) -> Sequence[object]:
        pixels = stack_pixels(group)
        with runtime.turns:
            find(pixels)
        return group

    started = time.perf_counter()
    for _ in through_network(chosen, partial(prepare, how=how), find_boxes, batch=batch, workers=choose_workers()):
        pass
    samples.pictures_s += time.perf_counter() - started
    samples.pictures += len(chosen)
    alone = list(prepare_many(chosen, how))
    samples.read += [image.read_s for image in alone]
    samples.resize += [image.resize_s for image in alone]
    return [image.pixels[None].repeat(batch, axis=0) for image in alone]


def _time_calls(
    call: Find, pixels: Sequence[NDArray[np.uint8]], options: BenchOptions, calls: dict[str, int], kind: str
) -> list[float]:
    """Seconds per image of single calls, each with the next photograph."""
    for image in islice(cycle(pixels), WARM_UP):
        call(image)
    if kind not in calls:
        started = time.perf_counter()
        call(pixels[0])
        once = max(time.perf_counter() - started, 1e-6)
        calls[kind] = min(max(math.ceil(options.block_s / once), LEAST_CALLS), MOST_CALLS)
    durations = []
    for image in islice(cycle(pixels), calls[kind]):
        started = time.perf_counter()
        call(image)
        durations.append((time.perf_counter() - started) / len(image))
    return durations
