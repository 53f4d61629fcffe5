"""``xdet detect``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated, Literal

import typer

from xdet.cli.options import (
    STDOUT,
    Device,
    Force,
    ProviderOption,
    json_outputs,
    print_line,
    progress_bar,
    read_provider_options,
    write_json,
)
from xdet.errors import UsageError
from xdet.writing.text import detections_table

MODEL_SUFFIXES = frozenset({".onnx", ".tflite", ".h5", ".hdf5", ".keras"})

EPILOG = """\b
Examples:
  xdet detect photo.jpg                         the embedded person detector
  xdet detect person.onnx photos/ --save out    a model of yours, annotated pictures
  xdet detect person.tflite photo.jpg --json -  the source itself on LiteRT, JSON to stdout
"""


def detect(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="[MODEL] IMAGE|DIR...", help="A model first (or none), then images or folders."
        ),
    ],
    *,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write annotated pictures to this folder.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the detections as JSON; - is stdout.")
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["xdet", "coco"], typer.Option(help="Layout of --json: our own, or a COCO results list.")
    ] = "xdet",
    provider: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Execution provider; see xdet providers [default: cpu]."),
    ] = None,
    device: Device = None,
    provider_option: ProviderOption = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Threads inside an operator [default: physical cores; for several images processors / workers]."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Images worked on at the same time [default: one per processor, at most 8]."
        ),
    ] = None,
    score_threshold: Annotated[
        float | None, typer.Option(help="Keep boxes that score above this [default: the model's own].")
    ] = None,
    iou_threshold: Annotated[
        float | None,
        typer.Option(help="Suppress neighbours that overlap more than this [default: the model's own]."),
    ] = None,
    force: Force = False,
) -> None:
    """Find objects in photographs."""
    from xdet.detection.batch import detect_files
    from xdet.detection.detector import Detector
    from xdet.detection.embedded import SOURCE
    from xdet.detection.report import (
        DETECTIONS_SCHEMA,
        coco_image_ids,
        detections_to_coco_json,
        report_to_json,
    )
    from xdet.pictures.images import find_images
    from xdet.pictures.names import picture_paths
    from xdet.runtimes.processors import choose_workers
    from xdet.writing.files import (
        PICTURE_MARK,
        Output,
        make_folder,
        require_apart,
        require_outputs,
        with_sidecars,
    )

    model, paths = _split_model(inputs)
    images = find_images(paths)
    if json is not None and format == "coco":
        coco_image_ids(
            [str(image) for image in images]
        )  # refuses images whose results could not be told apart
    pictures = None if save is None else picture_paths(images, save)
    drawn = [Output(picture, PICTURE_MARK, in_new_folder=True) for picture in pictures or ()]
    listed = json_outputs(json, DETECTIONS_SCHEMA if format == "xdet" else None)
    require_outputs([*listed, *drawn], [*with_sidecars([model or SOURCE]), *images], force=force)
    if save is not None:
        require_apart(save, images)
    detector = Detector(
        model,
        provider=provider,
        device=device,
        provider_options=read_provider_options(provider_option),
        threads=threads,
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        workers=min(choose_workers(workers), len(images)),
    )
    for note in detector.spec.assumptions:
        typer.echo(f"note: {note}", err=True)
    if save is not None:
        make_folder(save)
    with detector, progress_bar(len(images), "detecting") as advance:
        report = detect_files(detector, images, pictures=pictures, progress=advance)
    if json is not None:
        write_json(
            json, report_to_json(report) if format == "xdet" else detections_to_coco_json(report.images)
        )
    if json != STDOUT and report.images:
        typer.echo(detections_table(report.images))
    for failure in report.failed:
        print_line(f"xdet: error: {failure.error}", err=True)
    if report.failed and len(images) > 1:
        print_line(f"xdet: {len(report.failed)} of {len(images)} images failed", err=True)
    if report.failed:
        raise typer.Exit(3)


def _split_model(inputs: list[Path]) -> tuple[Path | None, list[Path]]:
    """The model in front, if the first argument is one by its bytes or its suffix, and the images."""
    first, rest = inputs[0], inputs[1:]
    if not _is_model(first):
        return None, inputs
    if not rest:
        msg = f"'{first}' is a model; name images or folders behind it: xdet detect {first} photo.jpg"
        raise UsageError(msg)
    return first, rest


def _is_model(path: Path) -> bool:
    from converters.files import read_model_bytes, sniff_format

    if path.suffix.lower() in MODEL_SUFFIXES:
        return True
    try:
        return sniff_format(read_model_bytes(path)) is not None
    except (OSError, ValueError):
        return False  # reading it as an image tells what is wrong
