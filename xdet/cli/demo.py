"""``xdet demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xdet.cli.json_output import Force  # noqa: TC001 - typer reads the annotations

EPILOG = """\b
Examples:
  xdet demo
  xdet demo --output somewhere/else
"""


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("xdet-demo"),
    *,
    force: Force = False,
) -> None:
    """Convert the embedded detector, run it on the embedded photographs, and draw what it finds."""
    from xdet.demo import run_demo

    run_demo(output, typer.echo, force=force)
