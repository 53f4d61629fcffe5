"""What is measured: every model on every runtime that takes its format, with every number of threads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from converters.description.statements import SourceOptions
from xdet.errors import ModelError, UsageError
from xdet.inspection.coverage import Coverage, integer_coverage
from xdet.model.file import ModelFile, read_model_file, require_source
from xdet.model.surgery import at_network_size, cut_at_head
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.table import RUNTIMES, parse_runtimes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.spec import Target

SOURCE = "source"


@dataclass(frozen=True, eq=False, slots=True)
class BenchCase:
    """One model on one runtime with one number of threads."""

    named: str  # the file as the caller named it
    graph: str  # "source", or the target it was converted for; empty where nothing was converted
    model: ModelFile  # the file that runs, read once
    network: ModelFile  # the same without its head: what is timed as the network
    choices: RuntimeChoices  # runtime, provider and threads, each of them named


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
        if case.choices.runtime != "onnxruntime":
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
    takers = [name for name, kind in RUNTIMES.items() if file.format in kind.formats]
    if requested is None:
        beside = graph == "portable" and RUNTIMES["openvino"].installed  # it runs the other targets much slower
        return [RuntimeChoices(takers[0]), *([RuntimeChoices("openvino")] if beside else ())]
    fitting = [choice for choice in requested if choice.runtime in takers]
    if not fitting and graph != SOURCE:
        raise UsageError(
            f"'{file.file}' is a file of format {file.format}, which none of the named runtimes takes; "
            f"add {' or '.join(takers)} to `runtimes`"
        )
    return fitting
