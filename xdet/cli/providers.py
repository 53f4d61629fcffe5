"""``xdet providers``."""

from __future__ import annotations

import typer

from xdet.report import format_table

EPILOG = """\b
Examples:
  xdet providers
"""


def providers() -> None:
    """List the execution providers of the installed ONNX Runtime."""
    from xdet.runtimes.providers import available_providers

    rows = [(p.short, p.name, ", ".join(p.devices)) for p in available_providers()]
    typer.echo(format_table(("name", "provider", "devices"), rows))
