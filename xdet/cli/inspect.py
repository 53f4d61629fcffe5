"""``xdet inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xdet.cli.json_output import write_json

EPILOG = """\b
Examples:
  xdet inspect person_224_int8.tflite
  xdet inspect person.onnx --json -
"""


def inspect(
    model: Annotated[Path, typer.Argument(help="A TFLite or ONNX file.")],
    *,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as JSON; - is stdout.")] = None,
) -> None:
    """Tell what a model file holds, without running it."""
    from xdet.inspection import inspect as inspect_file
    from xdet.inspection_report import inspection_text, inspection_to_json

    inspection = inspect_file(model)
    if json is not None:
        write_json(json, inspection_to_json(inspection))
    if json != Path("-"):
        typer.echo(inspection_text(inspection))
