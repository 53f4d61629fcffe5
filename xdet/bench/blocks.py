"""One turn of one case: open, warm up, time, close. Only one session is ever alive: idle ones keep threads spinning.

The number of calls is fixed in a case's first turn, so that every turn weighs the same. Where the time of a network
goes on ONNX Runtime tells its own profile, node by node of the graph that it runs. The int8 peak says what a core can
do at best: a large product of 8-bit matrices on one thread.
"""

from __future__ import annotations

import gc
import json
import math
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converters.spec import Thresholds
from xdet.bench.records import Operator
from xdet.pictures.preparation import Preparation, prepare, prepare_many, stack_pixels, through_network
from xdet.runtimes.base import choose_workers, require_thresholds
from xdet.runtimes.finished import open_at
from xdet.runtimes.onnxruntime import open_onnxruntime
from xdet.runtimes.ort_session import OrtSession, SessionChoices
from xdet.runtimes.table import RUNTIMES, open_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from converters.spec import DetectorSpec
    from xdet.bench.records import BenchCase, BenchOptions, Memory
    from xdet.inspection.coverage import Coverage
    from xdet.pictures.preparation import Prepared
    from xdet.runtimes.base import Runtime

    Find = Callable[[NDArray[np.uint8]], object]

WARM_UP = 3
LEAST_CALLS, MOST_CALLS = 5, 2000
RUNS = 60  # of a network whose nodes are timed
SUFFIX = "_kernel_time"
PEAK_SIZE = 1024


@dataclass
class Samples:
    """All that is measured of one case, in seconds, over all its turns; grows while the benchmark runs."""

    case: BenchCase
    coverage: Coverage | None = None
    memory: Memory | None = None
    operators: tuple[Operator, ...] = ()  # if requested
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


def run_block(samples: Samples, images: Sequence[Path], options: BenchOptions) -> None:
    """Give a case its turn and add what it took to its samples.

    Raises:
        ImageError: a photograph cannot be read.
        ModelError, RuntimeUnavailableError, UsageError: the case cannot be run.
    """
    case = samples.case
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


def measure_operators(case: BenchCase) -> tuple[Operator, ...]:
    """The nodes of a case's network in order of execution; none but on ONNX Runtime's CPU provider."""
    row = RUNTIMES[str(case.choices.runtime)]
    if not row.shows_nodes or case.choices.provider != row.usual:
        return ()
    with tempfile.TemporaryDirectory() as folder:
        prefix = str(Path(folder) / "profile")
        network = case.network
        with open_onnxruntime(network.data, file=network.file, choices=case.choices, profile_prefix=prefix) as runtime:
            noise = np.random.default_rng(0).integers(0, 256, (runtime.batch or 1, *runtime.spec.image.shape), np.uint8)
            for _ in range(RUNS):
                runtime.network(noise)
            events = json.loads(Path(runtime.session.end_profiling()).read_text(encoding="utf-8"))
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(SUFFIX):
            seconds[event["args"]["op_name"], event["name"].removesuffix(SUFFIX)].append(event["dur"] / 1e6)
    return tuple(Operator(kind, name, statistics.median(each)) for (kind, name), each in seconds.items())


def int8_peak() -> float:
    """Multiply-accumulates per second that one thread reaches in a MatMulInteger of 1024 x 1024 matrices."""
    from onnx import TensorProto, helper, numpy_helper

    shape, rng = [PEAK_SIZE, PEAK_SIZE], np.random.default_rng(0)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["left", "right"], ["product"])],
        "peak",
        [helper.make_tensor_value_info("left", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("product", TensorProto.INT32, shape)],
        [numpy_helper.from_array(rng.integers(-127, 128, shape).astype(np.int8), "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    session = OrtSession(model.SerializeToString(), file="peak", choices=SessionChoices(threads=1))
    feeds, seconds = {"left": rng.integers(0, 256, shape).astype(np.uint8)}, []
    for _ in range(RUNS):
        started = time.perf_counter()
        session.run(["product"], feeds)
        seconds.append(time.perf_counter() - started)
    session.close()
    return PEAK_SIZE**3 / statistics.median(seconds)
