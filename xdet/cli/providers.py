"""``xdet providers``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from xdet.report import format_table

EPILOG = """\b
Examples:
  xdet providers
  xdet providers person.onnx    which provider takes which nodes of it
"""


def providers(
    model: Annotated[
        Path | None,
        typer.Argument(
            help="An ONNX file: tell which of its nodes each provider takes, and which fall back."
        ),
    ] = None,
) -> None:
    """List the execution providers of the installed ONNX Runtime, plug-ins included, and their devices."""
    from xdet.runtimes.ort_session import register_plugins
    from xdet.runtimes.providers import available_providers

    found = available_providers()
    rows = [(p.short, p.name, ", ".join(p.devices)) for p in found]
    if model is None:
        typer.echo(format_table(("name", "provider", "devices"), rows))
    else:
        _print_placement(model, [p.short for p in found])
    for problem in register_plugins():
        typer.echo(f"xdet: {problem}", err=True)


def _print_placement(model: Path, names: list[str]) -> None:
    from xdet.check_report import placement_text
    from xdet.checking.placement import find_placement
    from xdet.errors import ModelError
    from xdet.runtimes.model_file import read_model_file

    file = read_model_file(model)
    if file.format != "onnx":
        raise ModelError(f"'{model}' is no ONNX file; convert it with xdet convert")
    for name in names:
        typer.echo(f"{name}: {placement_text(find_placement(file.data, name))}")
