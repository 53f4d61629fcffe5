"""What is measured: every model on every runtime that takes its format, with every number of threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdet.errors import ModelError, UsageError
from xdet.inspection.coverage import Coverage, integer_coverage
from xdet.model.file import ModelFile, read_model_file, require_source
from xdet.model.surgery import cut_at_head
from xdet.runtimes.processors import RuntimeChoices
from xdet.runtimes.table import RUNTIMES, parse_runtimes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from converters.description.statements import SourceOptions


@dataclass(frozen=True, eq=False, slots=True)
class Case:
    """One model on one runtime with one number of threads.

    Attributes:
        model: the file, read once.
        network: the same without its head: what is timed as the network.
        choices: runtime, provider and threads, each of them named.
    """

    model: ModelFile
    network: ModelFile
    choices: RuntimeChoices


def plan_cases(
    models: Sequence[Path], runtimes: str | None, threads: Sequence[int], said: SourceOptions | None = None
) -> list[Case]:
    """List the cases in the order of models, runtimes, threads.

    Args:
        models: finished or source files.
        runtimes: a list such as ``"onnxruntime:cpu,litert:xnnpack"``; None is the usual one of each model's format.
        threads: numbers of threads.
        said: what the files and sidecars of sources do not say.

    Raises:
        ModelError: a file cannot be read, or is no model.
        UsageError: no model, a runtime that none of the models can use, or a model that none of the runtimes takes.
    """
    if not models:
        raise UsageError("name at least one model to measure")
    require_source(models, said)
    files = [_read(path) for path in models]
    wanted = None if runtimes is None else parse_runtimes(runtimes)
    cases = []
    for file in files:
        network = _without_head(file)
        for choice in _fitting(file, wanted):
            provider = choice.provider or RUNTIMES[str(choice.runtime)].usual
            cases += [
                Case(file, network, RuntimeChoices(choice.runtime, provider, count, said=said))
                for count in threads
            ]
    for choice in wanted or ():
        if not any(case.choices.runtime == choice.runtime for case in cases):
            formats = ", ".join(RUNTIMES[str(choice.runtime)].formats)
            raise UsageError(
                f"no model here runs on {choice.runtime!r}, which takes {formats} files; leave it out"
            )
    return cases


def case_coverage(case: Case) -> Coverage | None:
    """MACs in integer kernels: read back from ONNX Runtime; of a source as its file states it, which its runtimes follow."""
    if case.model.is_finished:
        fused = case.choices.runtime == "onnxruntime"
        return (
            integer_coverage(case.model.data, case.choices.provider, file=case.model.file) if fused else None
        )
    from xdet.inspection import inspect

    found = inspect(case.model.path)
    if found.coverage is not None or found.totals is None:
        return found.coverage
    return Coverage(str(case.choices.provider), found.totals.macs, found.totals.macs_integer)


def _read(path: Path) -> ModelFile:
    file = read_model_file(path)
    if file.format is None:
        raise ModelError(
            f"'{path}' is no model: its bytes are of no known format; give ONNX files made by xdet convert, or source files"
        )
    return file


def _without_head(file: ModelFile) -> ModelFile:
    """Source files end at the raw head anyway."""
    if not file.is_finished:
        return file
    return ModelFile(file.path, cut_at_head(file.data, file.file), file.format)


def _fitting(file: ModelFile, wanted: Sequence[RuntimeChoices] | None) -> list[RuntimeChoices]:
    takers = [name for name, kind in RUNTIMES.items() if file.format in kind.formats]
    if wanted is None:
        return [RuntimeChoices(takers[0])]
    fitting = [choice for choice in wanted if choice.runtime in takers]
    if not fitting:
        raise UsageError(
            f"'{file.file}' is a file of format {file.format}, which none of the named runtimes takes; "
            f"add {' or '.join(takers)} to `runtimes`"
        )
    return fitting
