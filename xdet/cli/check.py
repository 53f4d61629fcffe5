"""``xdet check``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from xdet.cli.json_output import STDOUT, require_json_target, write_json
from xdet.cli.progress import progress_bar

EPILOG = """\b
Examples:
  xdet check person.onnx --source person.tflite --images photos
  xdet check person.onnx --source person.tflite --images photos --runtimes onnxruntime:cpu,openvino:cpu --json check.json
  xdet check person.onnx --source person.tflite --images photos --runtimes onnxruntime:cpu,onnx-reference,onnxruntime-web
"""
UNAVAILABLE = 3


def check(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A file of xdet convert.")],
    source: Annotated[Path, typer.Option(metavar="SRC", help="The file it was made of.")],
    images: Annotated[
        list[Path], typer.Option(metavar="DIR|IMAGE", help="Photographs: a folder or a file; repeatable.")
    ],
    *,
    runtimes: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Names with commas between them [default: onnxruntime:cpu, openvino if installed, all of the source's].",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads inside an operator [default: the runtime's].")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as JSON; - is stdout.")] = None,
) -> None:
    """Prove that a model is its source on every runtime at hand; exit code 1 where it is not."""
    from xdet.check_report import check_text, check_to_json
    from xdet.checking.chosen import planned_images
    from xdet.checking.verdict import check as check_model
    from xdet.images import find_images
    from xdet.runtimes.model_file import read_model_file

    require_json_target(json)
    photographs = find_images(images)
    planned = planned_images(runtimes, read_model_file(source).format, len(photographs))
    with progress_bar(planned, "checking") as advance:
        result = check_model(
            model, source, photographs, runtimes=runtimes, threads=threads, progress=lambda _, n: advance(n)
        )
    if json is not None:
        write_json(json, check_to_json(result))
    if json != STDOUT:
        typer.echo(check_text(result))
    if not result.passed:
        raise typer.Exit(1)
    if not result.complete:
        raise typer.Exit(UNAVAILABLE)
