"""``xdet triton``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from xdet.cli.options import Force, print_line

EPILOG = """\b
Examples:
  xdet convert person.tflite --batch dynamic
  xdet triton person.onnx -o repository --max-batch 16
  tritonserver --model-repository repository
"""


def triton(
    model: Annotated[Path, typer.Argument(help="An ONNX file made by xdet convert.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The model repository.")],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the model there [default: the file's name].")
    ] = None,
    max_batch: Annotated[
        int, typer.Option(metavar="N", help="Pictures of a batch at most, where the file's batch is dynamic.")
    ] = 8,
    score_threshold: Annotated[
        float | None, typer.Option(metavar="X", help="Boxes need a score above it [default: the file's].")
    ] = None,
    iou_threshold: Annotated[
        float | None, typer.Option(metavar="X", help="Overlaps above it are suppressed [default: the file's].")
    ] = None,
    force: Force = False,
) -> None:
    """Write a model repository for Triton Inference Server.

    A file converted with --batch dynamic gets dynamic batching.
    """
    from xdet.triton import write_repository

    files = write_repository(
        model,
        output,
        name=name,
        max_batch=max_batch,
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        force=force,
    )
    print_line(f"wrote {files.config} and {files.model}")
