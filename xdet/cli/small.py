"""The commands of a few lines: ``xdet selftest``, ``xdet demo`` and ``xdet providers``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xdet.cli.options import (
    STDOUT,
    Device,
    Force,
    Provider,
    ProviderOption,
    RuntimeName,
    json_outputs,
    print_line,
    print_report,
    read_provider_options,
    write_json,
)
from xdet.writing.blocks import Items, Report, Section, Table

SELFTEST_EPILOG = """\b
Examples:
  xdet selftest person.onnx
  xdet selftest person.onnx --provider openvino --json -
"""


def selftest(
    model: Annotated[Path, typer.Argument(help="An ONNX file made by xdet convert.")],
    *,
    runtime: RuntimeName = None,
    provider: Provider = None,
    device: Device = None,
    provider_option: ProviderOption = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Threads per operator; default: one per core.")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as JSON; - is stdout.")] = None,
    force: Force = False,
) -> None:
    """Does this host compute what the conversion computed?

    The answer is exact, bounded, or broken (exit code 1).
    """
    from xdet.checking.selftest import run_selftest
    from xdet.checking.selftest_report import SELFTEST_SCHEMA, selftest_report, selftest_to_json
    from xdet.writing.files import require_outputs, with_sidecars

    require_outputs(json_outputs(json, SELFTEST_SCHEMA), with_sidecars([model]), force=force)
    found = run_selftest(
        model,
        runtime=runtime,
        provider=provider,
        device=device,
        provider_options=read_provider_options(provider_option),
        threads=threads,
    )
    if json is not None:
        write_json(json, selftest_to_json(found))
    if json != STDOUT:
        print_report(selftest_report(found))
    if not found.passed:
        raise typer.Exit(1)


DEMO_EPILOG = """\b
Examples:
  xdet demo
  xdet demo --output somewhere/else
"""


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("xdet-demo"),
    *,
    force: Force = False,
) -> None:
    """Convert, run and draw: the embedded detector and photographs."""
    from xdet.detection.demo import run_demo

    run_demo(output, print_line, force=force)


PROVIDERS_EPILOG = """\b
Examples:
  xdet providers
  xdet providers person.onnx    which provider takes which nodes of it
"""


def providers(
    model: Annotated[
        Path | None,
        typer.Argument(help="An ONNX file: tell which of its nodes each provider takes, and which fall back."),
    ] = None,
) -> None:
    """List the execution providers of ONNX Runtime here.

    Plug-ins and devices are listed, too.
    """
    from xdet.runtimes.ort_session import available_providers, provider_problems

    found = available_providers()
    rows = [(p.short, p.name, ", ".join(p.devices)) for p in found]
    if model is None:
        table = Table(("name", "provider", "devices"), tuple(rows))
        print_report(Report("xdet providers", (Section("", (table,)),)))
    else:
        _print_placement(model, [p.short for p in found])
    for problem in provider_problems():
        print_line(f"xdet: {problem}", err=True)


def _print_placement(model: Path, names: list[str]) -> None:
    from xdet.checking.placement import find_placement
    from xdet.checking.report import placement_text
    from xdet.errors import ModelError
    from xdet.model.file import read_model_file

    file = read_model_file(model)
    if not file.is_finished:
        raise ModelError(f"'{model}' is no ONNX file; convert it with xdet convert")
    told = tuple(f"{name}: {placement_text(find_placement(file.data, name))}" for name in names)
    print_report(Report("xdet providers", (Section("", (Items(told),)),)))
