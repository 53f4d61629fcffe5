"""``xdet detect``."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from converters.errors import quote_some
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

if TYPE_CHECKING:
    from xdet.detection.detector import Detector
    from xdet.writing.files import Output

ANYTHING = re.compile(b"")  # --resume looks at the file itself
MODEL_SUFFIXES = frozenset({".onnx", ".tflite", ".h5", ".hdf5", ".keras"})

EPILOG = """\b
Examples:
  xdet detect photo.jpg                         the embedded person detector
  xdet detect person.onnx photos/ --save out    a model of yours, annotated pictures
  xdet detect person.tflite photo.jpg --json -  the source itself on LiteRT, JSON to stdout
  xdet detect "photos/**/*.jpg" @more.txt       patterns and lists; or photos/ --recursive
  xdet detect photos/ --json out.jsonl          a line per image as it goes; --resume goes on
"""


def detect(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="[MODEL] IMAGE|DIR|PATTERN|@LIST|-...",
            help="A model first (or none), then images, folders, patterns, @FILE with a name per line, - for stdin.",
        ),
    ],
    *,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Search subfolders of the folders, too.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write annotated pictures to this folder.")
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(
            "--json",
            "--output",
            "-o",
            metavar="FILE",
            help="Write the detections as JSON; - is stdout. FILE.jsonl, .csv and .parquet grow image by image.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a FILE.jsonl, .csv or .parquet where it stopped.")
    ] = False,
    classes: Annotated[
        str | None, typer.Option(metavar="LIST", help='Keep these classes alone, such as "person,dog".')
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
    from xdet.detection.report import detections_to_coco_json, report_to_json
    from xdet.pictures.listing import list_images
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
    images = list_images(paths, recursive=recursive)
    lines = _require_json(json, images, coco=format == "coco", resume=resume)
    if save is not None:
        require_apart(save, images)
    pictures = None if save is None else picture_paths(images, save)
    drawn = [Output(picture, PICTURE_MARK, in_new_folder=True) for picture in pictures or ()]
    listed = _json_outputs(json, coco=format == "coco", lines=lines, resume=resume)
    require_outputs([*listed, *drawn], [*with_sidecars([model or SOURCE]), *images], force=force)
    if lines and not resume and not force:
        _require_new(json)
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
    wanted = None if classes is None else _read_classes(classes, detector)
    if save is not None:
        make_folder(save)
    with detector:
        if lines and json is not None:
            anew = force and not resume
            _detect_to_lines(detector, images, json, pictures=pictures, classes=wanted, anew=anew)
            return
        with progress_bar(len(images), "detecting") as advance:
            report = detect_files(detector, images, pictures=pictures, classes=wanted, progress=advance)
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


def _require_json(json: Path | None, images: list[Path], *, coco: bool, resume: bool) -> bool:
    """Refuse what ``--json`` cannot hold; tells whether it is a file that grows line by line."""
    from xdet.detection.parquet import growing_path
    from xdet.detection.report import coco_image_ids
    from xdet.detection.results import is_results_file, require_names

    lines = json is not None and is_results_file(growing_path(json))
    if resume and not lines:
        raise UsageError(
            "--resume goes on with a file that grows image by image: add --json FILE.jsonl, FILE.csv or FILE.parquet"
        )
    if coco and lines:
        raise UsageError(f"--format coco is one list, '{json}' grows image by image; name a file FILE.json")
    names = [str(image) for image in images]
    if coco and json is not None:
        coco_image_ids(names)  # refuses images whose results could not be told apart
    if lines and json is not None:
        require_names(growing_path(json), [image.as_posix() for image in images])
    return lines


def _json_outputs(json: Path | None, *, coco: bool, lines: bool, resume: bool) -> list[Output]:
    from xdet.detection.parquet import PARQUET_MARK, growing_path
    from xdet.detection.report import DETECTIONS_SCHEMA
    from xdet.detection.results import LINES_MARK
    from xdet.writing.files import Output

    if lines and json is not None:
        marks = {json: PARQUET_MARK, growing_path(json): LINES_MARK}
        return [Output(path, ANYTHING if resume else mark) for path, mark in marks.items()]
    return json_outputs(json, None if coco else DETECTIONS_SCHEMA)


def _require_new(json: Path | None) -> None:
    from xdet.detection.parquet import growing_path

    for path in () if json is None else (json, growing_path(json)):
        if path.is_file() and path.stat().st_size:
            raise UsageError(
                f"'{path}' holds results already; add --resume to go on, or --force to begin anew"
            )


def _read_classes(text: str, detector: Detector) -> list[str]:
    """``person,dog`` as names that the model knows."""
    names = [name.strip() for name in text.split(",")]
    known = detector.spec.class_names
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"--classes: the model finds no {quote_some(unknown)}; it finds {quote_some(known)}")
    return names


def _detect_to_lines(
    detector: Detector,
    images: list[Path],
    json: Path,
    *,
    pictures: list[Path] | None,
    classes: list[str] | None,
    anew: bool,
) -> None:
    """Results into a file as they come; what is done stays, whatever stops the rest."""
    from xdet.detection.batch import detect_to_file
    from xdet.detection.parquet import growing_path, open_results
    from xdet.detection.results import results_header

    growing = growing_path(json)
    with open_results(json, results_header(detector, classes), anew=anew) as results:
        before, failed = len(results.done), results.failed
        try:
            with progress_bar(len(images), "detecting") as advance:
                changed = detect_to_file(
                    detector, images, results, pictures=pictures, classes=classes, progress=advance
                )
        except KeyboardInterrupt:
            print_line(
                f"xdet: interrupted; {len(results.done)} images are in '{growing}', --resume goes on",
                err=True,
            )
            raise
    if changed:
        which = f"; of their lines in '{json}' the last count" if json == growing else ""
        print_line(f"xdet: images that have changed since: {changed}{which}", err=True)
    earlier = f", {before} of them before" if before else ""
    earlier += f" ({failed} without a result, tried again)" if failed else ""
    print_line(f"{json}: {len(results.done)} images{earlier}, {results.failed} without a result")
    if results.failed:
        print_line(
            f"xdet: {results.failed} of {len(results.done)} images failed; '{json}' says why", err=True
        )
        raise typer.Exit(3)


def _split_model(inputs: list[Path]) -> tuple[Path | None, list[Path]]:
    """The model in front, if the first argument is one by its bytes or its suffix, and the images."""
    first, rest = inputs[0], inputs[1:]
    for path in rest:
        if path.suffix.lower() in MODEL_SUFFIXES:
            raise UsageError(
                f"'{path}' is a model; one model stands first, before the images: xdet detect {path} photo.jpg"
            )
    if not _is_model(first):
        return None, inputs
    if not rest:
        msg = f"'{first}' is a model; name images or folders behind it: xdet detect {first} photo.jpg"
        raise UsageError(msg)
    return first, rest


def _is_model(path: Path) -> bool:
    from converters.files import read_model_bytes
    from converters.sources import sniff_format

    if path.suffix.lower() in MODEL_SUFFIXES:
        return True
    try:
        return sniff_format(read_model_bytes(path, sniff_format)) is not None
    except (OSError, ValueError):
        return False  # reading it as an image tells what is wrong
