"""The commands that carry a model elsewhere: ``xdet page`` and ``xdet triton``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations

from xdet.cli import options  # noqa: TC001 - typer reads the annotations
from xdet.cli.console import print_line


def page(
    model: Path | None = None,
    *,
    output: options.OutputPath,
    onnxruntime_web: Path | None = None,
    title: str | None = None,
    sample: list[Path] | None = None,
    force: options.Force = False,
) -> None:
    """Write a web page that runs a detector in the browser.

    The folder is self-contained: any web server hands it out, and no picture leaves the browser.

    Options:
        model [MODEL.onnx]: Made by xdet convert [default: the embedded detector].
        output DIR: Folder to write to.
        onnxruntime_web DIR: The npm package onnxruntime-web 1.30.0, or a folder that holds it [default:
            ./node_modules].
        title TEXT: Of the page [default: the model's name].
        sample PHOTO: A picture that the page offers; may be given several times, the first is shown.

    Examples:
        npm install onnxruntime-web@1.30.0
        xdet page -o site                 the embedded detector
        xdet page person.onnx -o site --sample street.jpg
        python -m http.server --directory site
            then open http://localhost:8000
    """
    from xdet.page.site import make_page
    from xdet.writing.text import format_size

    files = make_page(model, output, package=onnxruntime_web, title=title, samples=sample or (), force=force)
    size = sum(path.stat().st_size for path in files)
    print_line(f"wrote {output}: {len(files)} files, {format_size(size)}")
    print_line(f"look at it: python -m http.server --directory {output}, then open http://localhost:8000")


def triton(
    model: Path,
    *,
    output: options.OutputPath,
    name: str | None = None,
    max_batch: int = 8,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    force: options.Force = False,
) -> None:
    """Write a model repository for Triton Inference Server.

    A file converted with --batch dynamic gets dynamic batching.

    Options:
        model: An ONNX file made by xdet convert.
        output DIR: The model repository.
        name NAME: Of the model there [default: the file's name].
        max_batch N: Pictures of a batch at most, where the file's batch is dynamic.
        score_threshold X: Boxes need a score above it [default: the file's].
        iou_threshold X: Overlaps above it are suppressed [default: the file's].

    Examples:
        xdet convert person.tflite --batch dynamic
        xdet triton person.onnx -o repository --max-batch 16
        tritonserver --model-repository repository
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
