"""The commands that carry a model elsewhere: ``xdet page`` and ``xdet triton``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from xdet.cli.options import Force, print_line

PAGE_EPILOG = """\b
Examples:
  npm install onnxruntime-web@1.30.0
  xdet page -o site                 the embedded detector
  xdet page person.onnx -o site --sample street.jpg
  python -m http.server --directory site
      then open http://localhost:8000
"""
TRITON_EPILOG = """\b
Examples:
  xdet convert person.tflite --batch dynamic
  xdet triton person.onnx -o repository --max-batch 16
  tritonserver --model-repository repository
"""


def page(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="[MODEL.onnx]", help="Made by xdet convert [default: the embedded detector]."),
    ] = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to.")],
    onnxruntime_web: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The npm package onnxruntime-web 1.30.0, or a folder that holds it [default: ./node_modules].",
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Of the page [default: the model's name].")] = None,
    sample: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PHOTO", help="A picture that the page offers; may be given several times, the first is shown."
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Write a web page that runs a detector in the browser.

    The folder is self-contained: any web server hands it out, and no picture leaves the browser.
    """
    from xdet.page.site import make_page
    from xdet.writing.text import format_size

    files = make_page(model, output, package=onnxruntime_web, title=title, samples=sample or (), force=force)
    size = sum(path.stat().st_size for path in files)
    print_line(f"wrote {output}: {len(files)} files, {format_size(size)}")
    print_line(f"look at it: python -m http.server --directory {output}, then open http://localhost:8000")


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
