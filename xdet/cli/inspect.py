"""``xdet inspect``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from xdet.cli.describing import Said, describes_source
from xdet.cli.options import STDOUT, Force, json_outputs, print_report, write_json

EPILOG = """\b
Examples:
  xdet inspect person_224_int8.tflite
  xdet inspect person.onnx --layers
  xdet inspect person.onnx --json -
"""


@describes_source
def inspect(
    model: Annotated[Path, typer.Argument(help="A TFLite, ONNX, H5 or .keras file.")],
    *,
    layers: Annotated[
        bool, typer.Option("--layers", help="List every operator: shapes, MACs, bytes, scale and zero-point.")
    ] = False,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as JSON; - is stdout.")] = None,
    force: Force = False,
    source_options: Said,
) -> None:
    """Tell what a model file holds and costs, without running it."""
    from xdet.inspection import inspect as inspect_file
    from xdet.inspection.report import INSPECTION_SCHEMA, inspection_report, inspection_to_json
    from xdet.writing.files import require_outputs, with_sidecars

    require_outputs(
        json_outputs(json, INSPECTION_SCHEMA), [*with_sidecars([model]), *source_options.files()], force=force
    )
    inspection = inspect_file(model, layers=layers, source_options=source_options.options())
    if json is not None:
        write_json(json, inspection_to_json(inspection))
    if json != STDOUT:
        print_report(inspection_report(inspection))
