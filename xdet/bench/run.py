"""A whole benchmark: plan, memory, turns, summary."""

from __future__ import annotations

import tempfile
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from xdet.bench.blocks import Samples, require_sound_case, run_block
from xdet.bench.cases import case_coverage, plan_cases
from xdet.bench.machine import describe_machine, measure_memory, others_share, read_clock
from xdet.bench.operators import int8_peak, measure_operators
from xdet.bench.records import Benchmark, BenchOptions, CaseResult, Ratio, Spread
from xdet.detection.embedded import SOURCE
from xdet.errors import RuntimeUnavailableError
from xdet.pictures.images import find_images

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from converters.description.statements import SourceOptions
    from xdet.bench.cases import BenchCase
    from xdet.bench.records import Memory, Operator
    from xdet.inspection.coverage import Coverage

SAMPLES = SOURCE.parent  # the photographs that come with xdet
DEFAULTS = BenchOptions()


def run_benchmark(
    models: Sequence[str | os.PathLike[str]],
    *,
    runtimes: str | None = None,
    images: str | os.PathLike[str] | None = None,
    options: BenchOptions = DEFAULTS,
    source_options: SourceOptions | None = None,
    progress: Callable[[int, int], object] = lambda *_: None,
) -> Benchmark:
    """Measure models against each other.

    Args:
        models: finished or source files; ratios refer to the first one, or with ``options.targets`` to each one's own
            source.
        runtimes: such as ``"onnxruntime:cpu,litert:xnnpack"``; each model runs on those that take its format. None is
            the usual one of each format: ONNX Runtime's CPU provider, LiteRT's XNNPACK kernels; and OpenVINO, where it
            is installed, for portable graphs that ``options.targets`` asks for.
        images: a folder of photographs, or one photograph; None are the two that come with xdet.
        options: threads, blocks and the rest.
        source_options: what the files and sidecars of sources do not say (``xdet.describing_options``).
        progress: called with the number of steps that are done since the last call, and that of all of them.

    Raises:
        ModelError: a model cannot be read or run.
        DataError: no photographs.
        ImageError: a photograph cannot be read.
        UsageError: runtimes and models do not fit, or an option is out of range.
        RuntimeUnavailableError: a runtime, provider or package is not there.
        ConversionError: a model cannot be converted.
    """
    photographs = find_images([SAMPLES if images is None else Path(images)])
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        cases = plan_cases(
            [Path(model) for model in models],
            runtimes,
            options.threads,
            source_options,
            targets=options.targets,
            folder=Path(folder),
        )
        steps = len(cases) * (options.blocks + 1)
        about = [_about(case, options, notes, lambda: progress(1, steps)) for case in cases]
        samples = [Samples() for _ in cases]
        started = read_clock()
        for _ in range(options.blocks):
            for case, collected in zip(cases, samples, strict=True):
                run_block(case, photographs, options, collected)
                progress(1, steps)
        others = others_share(started, read_clock())
        operators = [measure_operators(case) if options.profile else () for case in cases]
    results = [
        _summary(case, collected, _first(case, cases, samples), coverage, memory, operators=timed)
        for case, collected, (coverage, memory), timed in zip(cases, samples, about, operators, strict=True)
    ]
    return Benchmark(
        options=options,
        machine=describe_machine(),
        images=len(photographs),
        embedded_images=images is None,
        results=tuple(results),
        others_share=others,
        notes=tuple(dict.fromkeys(notes)),
        int8_peak=int8_peak() if options.profile else None,
    )


def _about(
    case: BenchCase, options: BenchOptions, notes: list[str], done: Callable[[], object]
) -> tuple[Coverage | None, Memory | None]:
    """What is found once per case, in front of all turns."""
    coverage = case_coverage(case)
    require_sound_case(case)
    memory = None
    if options.memory:
        try:
            memory = measure_memory(case.model.path, case.choices)
        except RuntimeUnavailableError as error:
            notes.append(f"memory not measured: {error}")
    done()
    return coverage, memory


def _first(case: BenchCase, cases: Sequence[BenchCase], samples: Sequence[Samples]) -> Samples:
    """What a case is compared with: the first one with as many threads, of its own source where there is one."""
    return next(
        collected
        for other, collected in zip(cases, samples, strict=True)
        if other.choices.threads == case.choices.threads and (not case.graph or other.named == case.named)
    )


def _summary(
    case: BenchCase,
    samples: Samples,
    first: Samples,
    coverage: Coverage | None,
    memory: Memory | None,
    *,
    operators: tuple[Operator, ...],
) -> CaseResult:
    return CaseResult(
        model=case.named,
        graph=case.graph,
        sha256=samples.sha256,
        runtime=samples.runtime,
        threads=case.choices.threads or 0,
        thresholds=samples.thresholds,
        read=Spread.of(samples.read),
        resize=Spread.of(samples.resize),
        network=Spread.of([*chain(*samples.network)]),
        boxes=Spread.of([*chain(*samples.boxes)]) if samples.boxes else None,
        images_per_s=samples.pictures / samples.pictures_s,
        coverage=coverage,
        memory=memory,
        network_ratio=Ratio.of(first.network, samples.network),
        ratio=Ratio.of(first.boxes, samples.boxes) if first.boxes and samples.boxes else None,
        operators=operators,
    )
