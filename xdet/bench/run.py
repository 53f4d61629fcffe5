"""A whole benchmark: plan, memory, turns, summary.

The plan is every model on every runtime that takes its format, with every number of threads.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from converters.description.statements import SourceOptions
from xdet.bench.blocks import Samples, int8_peak, measure_operators, require_sound_case, run_block
from xdet.bench.machine import describe_machine, measure_memory, others_share, read_clock
from xdet.bench.records import SOURCE, BenchCase, Benchmark, BenchOptions, CaseResult, Ratio, Spread
from xdet.detection import embedded
from xdet.errors import ModelError, RuntimeUnavailableError, UsageError
from xdet.inspection.coverage import Coverage, integer_coverage
from xdet.model.file import ModelFile, read_model_file, require_source
from xdet.model.surgery import at_network_size, cut_at_head
from xdet.pictures.images import find_images
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.table import RUNTIMES, parse_runtimes

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from converters.spec import Target

SAMPLES = embedded.SOURCE.parent  # the photographs that come with xdet
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
        every = [Samples(case) for case in cases]
        steps = len(cases) * (options.blocks + 1)
        for samples in every:
            _measure_once(samples, options, notes)
            progress(1, steps)
        started = read_clock()
        for _ in range(options.blocks):
            for samples in every:
                run_block(samples, photographs, options)
                progress(1, steps)
        others = others_share(started, read_clock())
        if options.profile:
            for samples in every:
                samples.operators = measure_operators(samples.case)
    return Benchmark(
        options=options,
        machine=describe_machine(),
        images=len(photographs),
        embedded_images=images is None,
        results=tuple(_summary(samples, every) for samples in every),
        others_share=others,
        notes=tuple(dict.fromkeys(notes)),
        int8_peak=int8_peak() if options.profile else None,
    )


def _measure_once(samples: Samples, options: BenchOptions, notes: list[str]) -> None:
    """What is found once per case, in front of all turns."""
    case = samples.case
    samples.coverage = case_coverage(case)
    require_sound_case(case)
    if options.memory:
        try:
            samples.memory = measure_memory(case.model.path, case.choices)
        except RuntimeUnavailableError as error:
            notes.append(f"memory not measured: {error}")


def _summary(samples: Samples, every: Sequence[Samples]) -> CaseResult:
    """One case next to the first one with as many threads, of its own source where there is one."""
    case = samples.case
    first = next(
        other
        for other in every
        if other.case.choices.threads == case.choices.threads and (not case.graph or other.case.named == case.named)
    )
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
        coverage=samples.coverage,
        memory=samples.memory,
        network_ratio=Ratio.of(first.network, samples.network),
        ratio=Ratio.of(first.boxes, samples.boxes) if first.boxes and samples.boxes else None,
        operators=samples.operators,
    )


def plan_cases(
    models: Sequence[Path],
    runtimes: str | None,
    threads: Sequence[int],
    source_options: SourceOptions | None = None,
    *,
    targets: Sequence[Target] = (),
    folder: Path = Path(),
) -> list[BenchCase]:
    """List the cases in the order of models, targets, runtimes, threads; see ``run_benchmark``.

    ``folder`` is for the converted files.

    Raises:
        ModelError: a file cannot be read, or is no model.
        UsageError: no model, a runtime that none of the models can use, a model that none of the runtimes takes, or a
            finished model with targets.
        ConversionError: a model cannot be converted.
    """
    if not models:
        raise UsageError("name at least one model to measure")
    require_source(models, source_options)
    requested = None if runtimes is None else parse_runtimes(runtimes)
    cases = []
    for place, path in enumerate(models):
        named = _read(path)
        graphs = _graphs(named, targets, source_options, folder / str(place)) if targets else {"": named}
        for graph, file in graphs.items():
            # source files end at their raw outputs anyway
            network = replace(file, data=cut_at_head(file.data, file.file)) if file.is_finished else file
            for choice in _fitting(file, requested, graph):
                provider = choice.provider or RUNTIMES[str(choice.runtime)].usual
                for count in threads:
                    choices = RuntimeChoices(choice.runtime, provider, count, source_options=source_options)
                    cases.append(BenchCase(named.file, graph, file, network, choices))
    for choice in requested or ():
        if not any(case.choices.runtime == choice.runtime for case in cases):
            formats = ", ".join(RUNTIMES[str(choice.runtime)].formats)
            raise UsageError(f"no model here runs on {choice.runtime!r}, which takes {formats} files; leave it out")
    return cases


def case_coverage(case: BenchCase) -> Coverage | None:
    """MACs in integer kernels: read back from ONNX Runtime; of a source as its file states it."""
    if case.model.is_finished:
        if not RUNTIMES[str(case.choices.runtime)].shows_nodes:
            return None
        network = at_network_size(case.model.data, case.model.file)
        return integer_coverage(network, case.choices.provider, file=case.model.file)
    from xdet.inspection import inspect

    inspection = inspect(case.model.path)
    if inspection.coverage is not None or inspection.totals is None:
        return inspection.coverage
    return Coverage(str(case.choices.provider), inspection.totals.macs, inspection.totals.macs_integer)


def _read(path: Path) -> ModelFile:
    file = read_model_file(path)
    if file.format is None:
        raise ModelError(
            f"'{path}' is no model: its bytes are of no known format; give ONNX files made by xdet convert, or source "
            f"files"
        )
    return file


def _graphs(
    source: ModelFile, targets: Sequence[Target], source_options: SourceOptions | None, folder: Path
) -> dict[str, ModelFile]:
    """The source, and what it becomes for each target."""
    from converters.convert import convert_to_bytes
    from converters.options import ConvertOptions

    if source.is_finished:
        raise UsageError(
            f"'{source.file}' is a finished model: `targets` converts sources; give its source, or leave `targets` out"
        )
    folder.mkdir()
    graphs = {SOURCE: source}
    for target in targets:
        options = ConvertOptions(source=source_options or SourceOptions(), target=target)
        path = folder / f"{source.path.stem}_{target}.onnx"
        path.write_bytes(convert_to_bytes(source.path, options).model)
        graphs[target] = read_model_file(path)
    return graphs


def _fitting(file: ModelFile, requested: Sequence[RuntimeChoices] | None, graph: str) -> list[RuntimeChoices]:
    takers = {name: row for name, row in RUNTIMES.items() if file.format in row.formats}
    if requested is None:
        best = [name for name, row in takers.items() if row.target == graph and row.installed]
        return [RuntimeChoices(name) for name in dict.fromkeys((next(iter(takers)), *best))]
    fitting = [choice for choice in requested if choice.runtime in takers]
    if not fitting and graph != SOURCE:
        raise UsageError(
            f"'{file.file}' is a file of format {file.format}, which none of the named runtimes takes; "
            f"add {' or '.join(takers)} to `runtimes`"
        )
    return fitting
