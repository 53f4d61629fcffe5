"""``xdet selftest``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from xdet.cli.json_output import STDOUT, Force, json_outputs, write_json
from xdet.cli.provider_options import Device, ProviderOption, read_provider_options

EPILOG = """\b
Examples:
  xdet selftest person.onnx
  xdet selftest person.onnx --provider openvino --json -
"""


def selftest(
    model: Annotated[Path, typer.Argument(help="An ONNX file made by xdet convert.")],
    *,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Execution provider, see xdet providers; default: cpu.")
    ] = None,
    device: Device = None,
    provider_option: ProviderOption = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Threads per operator; default: one per core.")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as JSON; - is stdout.")] = None,
    force: Force = False,
) -> None:
    """Tell whether this host computes what the conversion computed: exact, bounded, or broken (exit code 1)."""
    from xdet.outputs import require_outputs, with_sidecars
    from xdet.selftest import run_selftest
    from xdet.selftest_report import SELFTEST_SCHEMA, selftest_text, selftest_to_json

    require_outputs(json_outputs(json, SELFTEST_SCHEMA), with_sidecars([model]), force=force)
    found = run_selftest(
        model,
        provider=provider,
        device=device,
        provider_options=read_provider_options(provider_option),
        threads=threads,
    )
    if json is not None:
        write_json(json, selftest_to_json(found))
    if json != STDOUT:
        typer.echo(selftest_text(found))
    if not found.passed:
        raise typer.Exit(1)
