"""A whole benchmark: plan, memory, turns, summary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xdet.bench.blocks import Samples, require_sound_case, run_block
from xdet.bench.cases import case_coverage, plan_cases
from xdet.bench.machine import describe_machine, measure_memory, others_share, read_clock
from xdet.bench.records import Benchmark, BenchOptions, CaseResult, Spread
from xdet.detection.embedded import SOURCE
from xdet.errors import RuntimeUnavailableError
from xdet.pictures.images import find_images

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from converters.description.statements import SourceOptions
    from xdet.bench.cases import Case
    from xdet.bench.records import Memory

SAMPLES = SOURCE.parent  # the photographs that come with xdet
DEFAULTS = BenchOptions()


def run_benchmark(
    models: Sequence[str | os.PathLike[str]],
    *,
    runtimes: str | None = None,
    images: str | os.PathLike[str] | None = None,
    options: BenchOptions = DEFAULTS,
    said: SourceOptions | None = None,
    progress: Callable[[int], object] | None = None,
) -> Benchmark:
    """Measure models against each other.

    Args:
        models: finished or source files; ratios refer to the first one.
        runtimes: such as ``"onnxruntime:cpu,litert:xnnpack"``; each model runs on those that take its format. None is the
            usual one of each format: ONNX Runtime's CPU provider, LiteRT's XNNPACK kernels.
        images: a folder of photographs, or one photograph; None are the two that come with xdet.
        options: threads, blocks and the rest.
        said: what the files and sidecars of sources do not say (``xdet.describing_options``).
        progress: called with the number of steps that are done since the last call, of ``count_steps``.

    Raises:
        ModelError: a model cannot be read or run.
        DataError: no photographs.
        ImageError: a photograph cannot be read.
        UsageError: runtimes and models do not fit, or an option is out of range.
        RuntimeUnavailableError: a runtime, provider or package is not there.
    """
    found = find_images([SAMPLES if images is None else Path(images)])
    cases = plan_cases([Path(model) for model in models], runtimes, options.threads, said)
    advance = progress or (lambda _: None)
    coverages = [case_coverage(case) for case in cases]
    notes: list[str] = []
    memories: list[Memory | None] = []
    for case in cases:
        require_sound_case(case)
        memories.append(_memory(case, notes) if options.memory else None)
        advance(1)
    samples = [Samples() for _ in cases]
    started = read_clock()
    for _ in range(options.blocks):
        for case, collected in zip(cases, samples, strict=True):
            run_block(case, found, options, collected)
            advance(1)
    others = others_share(started, read_clock())
    results = [
        replace(_summary(case, collected), coverage=coverage, memory=memory)
        for case, collected, coverage, memory in zip(cases, samples, coverages, memories, strict=True)
    ]
    return Benchmark(
        options=options,
        machine=describe_machine(),
        images=len(found),
        embedded_images=images is None,
        results=tuple(replace(result, ratio=_ratio(result, results)) for result in results),
        others_share=others,
        notes=tuple(dict.fromkeys(notes)),
    )


def count_steps(
    models: Sequence[str | os.PathLike[str]],
    runtimes: str | None,
    options: BenchOptions,
    said: SourceOptions | None = None,
) -> int:
    """How many steps ``run_benchmark`` tells its ``progress``."""
    cases = plan_cases([Path(model) for model in models], runtimes, options.threads, said)
    return len(cases) * (options.blocks + 1)


def _memory(case: Case, notes: list[str]) -> Memory | None:
    try:
        return measure_memory(case.model.path, case.choices)
    except RuntimeUnavailableError as error:
        notes.append(f"memory not measured: {error}")
        return None


def _summary(case: Case, samples: Samples) -> CaseResult:
    return CaseResult(
        model=case.model.file,
        sha256=samples.sha256,
        runtime=samples.runtime,
        threads=case.choices.threads or 0,
        thresholds=samples.thresholds,
        read=Spread.of(samples.read),
        resize=Spread.of(samples.resize),
        network=Spread.of(samples.network),
        boxes=Spread.of(samples.boxes),
        images_per_s=samples.pictures / samples.pictures_s,
        coverage=None,
        memory=None,
        ratio=1.0,
    )


def _ratio(result: CaseResult, results: Sequence[CaseResult]) -> float:
    """The first result with as many threads, divided by this one."""
    first = next(other for other in results if other.threads == result.threads)
    return first.boxes.median_s / result.boxes.median_s
