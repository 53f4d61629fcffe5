"""``xdet detect``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from xdet.cli.describing import Said, describes_source
from xdet.cli.options import (
    STDOUT,
    Device,
    Force,
    Provider,
    ProviderOption,
    RuntimeName,
    json_outputs,
    read_provider_options,
)
from xdet.errors import UsageError
from xdet.pictures.addresses import Address, Stored, is_address, is_stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdet.detection.detector import Detector
    from xdet.pictures.video import Film
    from xdet.writing.files import Output

ANYTHING = re.compile(b"")  # --resume looks at the file itself
MODEL_SUFFIXES = frozenset({".onnx", ".tflite", ".h5", ".hdf5", ".keras"})

EPILOG = """\b
Examples:
  xdet detect photo.jpg                         the embedded person detector
  xdet detect person.onnx photos/ --save out    a model of yours, annotated pictures
  xdet detect person.tflite photo.jpg --json -  the source itself on LiteRT, JSON to stdout
  xdet detect "photos/**/*.jpg" @more.txt       patterns and lists; or photos/ --recursive
  xdet detect person.onnx photo.jpg --runtime openvino   another runtime; see docs/runtimes.md
  xdet detect photos/ --json out.jsonl          a line per image as it goes; --resume goes on
  xdet detect clip.mp4 --json out.parquet       a video, frame by frame (extra: video)
  xdet detect s3://bucket/photos --engine ray -o out.parquet   on a Ray cluster (extra: ray)
  xdet detect --camera 0 --save out             a camera until Ctrl-C, recorded with boxes
"""


@describes_source
def detect(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] IMAGE|VIDEO|URL|DIR|PATTERN|@LIST|-...",
            help="A model first (or none), then images, videos, addresses, folders, patterns, @FILE with a name per line, "
            "- for stdin.",
        ),
    ] = None,
    *,
    camera: Annotated[
        list[str] | None,
        typer.Option(metavar="NUMBER|NAME", help="Look through a camera until Ctrl-C; may be given several times."),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Search subfolders of the folders, too.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write pictures and videos with boxes to this folder.")
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
        Literal["xdet", "coco", "yolo", "voc"],
        typer.Option(
            help="Layout of --json: our own, a COCO results list; or label files, YOLO or Pascal VOC, in the folder --json."
        ),
    ] = "xdet",
    runtime: RuntimeName = None,
    provider: Provider = None,
    device: Device = None,
    provider_option: ProviderOption = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Threads inside an operator [default: physical cores; for several images processors / workers]."
        ),
    ] = None,
    decode: Annotated[
        Literal["full", "reduced"],
        typer.Option(help="reduced: JPEG files no larger than the network needs; faster, and boxes move a little."),
    ] = "full",
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Images worked on at the same time [default: one per processor, at most 8; on Ray, all of the cluster's].",
        ),
    ] = None,
    score_threshold: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|LIST",
            help="Keep boxes that score above this, or by class: person=0.5,dog=0.3 [default: the model's own].",
        ),
    ] = None,
    iou_threshold: Annotated[
        float | None, typer.Option(help="Suppress neighbours that overlap more than this [default: the model's own].")
    ] = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            help="ray: on the cluster of RAY_ADDRESS, or this machine's processors; takes s3://, gs://, hdfs:// (extra: ray)."
        ),
    ] = "local",
    force: Force = False,
    source_options: Said,
) -> None:
    """Find objects in photographs."""
    from xdet.cli.detect_run import Run, print_results, write_labels, write_results
    from xdet.detection.detector import Detector
    from xdet.detection.embedded import SOURCE
    from xdet.detection.labels import LABELS
    from xdet.pictures.listing import NO_INPUTS, list_inputs
    from xdet.pictures.video import Film
    from xdet.writing.files import Output, make_folder, require_outputs, with_sidecars

    cameras = camera or []
    model, names = _split_model(inputs or [], cameras=bool(cameras))
    stored: list[Stored] = []
    if engine == "ray":
        _require_ray(json, source_options, save=save, cameras=cameras, layout=format)
        stored, names = _list_stored(names, recursive=recursive)
    listed = list_inputs(names, recursive=recursive, without=save) if names or not stored else NO_INPUTS
    films = [*listed.films, *map(Film.of_camera, cameras)]
    images = [*listed.images, *stored]
    if engine == "ray" and (films or any(isinstance(image, Address) for image in images)):
        raise UsageError("--engine ray is for photographs in files and stores; leave out videos and http addresses")
    if engine == "ray" and decode != "full":
        raise UsageError("--decode reduced is for this machine; leave it out with --engine ray")
    labels = None if format not in LABELS else _label_paths(json, images, films, format)
    if resume and labels is not None:
        raise UsageError(
            f"--resume goes on with one file; --format {format} writes a label file per image: leave out --resume, and give "
            f"--force to write those that are there anew"
        )
    lines = labels is None and _require_json(json, images, films, coco=format == "coco", resume=resume)
    _require_films(films, save=save, resume=resume)
    pictures, recordings = _drawn(images, films, save)
    outputs = [
        *(
            _json_outputs(json, coco=format == "coco", lines=lines, resume=resume)
            if labels is None
            else [Output(label, None, in_new_folder=True) for label in labels]
        ),
        *_drawn_outputs(pictures, recordings),
    ]
    read = [
        *with_sidecars([model or SOURCE]),
        *source_options.files(),
        *_files(images),
        *(film.path for film in films if film.path is not None),
    ]
    require_outputs(outputs, read, force=force)
    if lines and not resume and not force:
        _require_new(json)
    score, by_class = _read_thresholds(score_threshold)
    detector = Detector(
        model,
        runtime=runtime,
        provider=provider,
        device=device,
        provider_options=read_provider_options(provider_option),
        threads=threads,
        score_threshold=by_class or score,
        iou_threshold=iou_threshold,
        workers=1 if engine == "ray" else _workers(workers, images, films),
        decode=decode,
        source_options=source_options.options(),
    )
    for note in detector.spec.assumptions:
        typer.echo(f"note: {note}", err=True)
    if listed.left_out:
        typer.echo(f"note: pictures in which xdet has drawn boxes, left out: {listed.left_out}", err=True)
    wanted = None if classes is None else _read_classes(classes, detector)
    for folder in (save, json if labels is not None else None):
        if folder is not None:
            make_folder(folder)
    run = Run(images, pictures, films, recordings, wanted, engine, workers)
    with detector:
        if labels is not None:
            write_labels(detector, run, labels, format)
        elif lines and json is not None:
            write_results(detector, run, json, anew=force and not resume)
        else:
            print_results(detector, run, json, coco=format == "coco")


def _require_ray(
    json: Path | None, source_options: Said, *, save: Path | None, cameras: Sequence[str], layout: str
) -> None:
    """Refuse what does not go to a cluster, before any work."""
    from xdet.detection.parquet import growing_path
    from xdet.detection.results import is_results_file
    from xdet.ray import import_ray

    if json is None or layout != "xdet" or not is_results_file(growing_path(json)):
        raise UsageError("--engine ray writes image by image: add --output FILE.parquet, FILE.jsonl or FILE.csv")
    if save is not None or cameras:
        raise UsageError("--engine ray draws no pictures and has no cameras; leave out --save and --camera")
    if source_options.options():
        raise UsageError("--engine ray takes a model that says all itself; convert it first: xdet convert --help")
    import_ray()


def _list_stored(names: Sequence[str], *, recursive: bool) -> tuple[list[Stored], list[str]]:
    """Photographs in stores such as s3://, each once, and the other names."""
    from xdet.ray import list_stored

    found = dict.fromkeys(
        image for name in names if is_stored(name) for image in list_stored(name, recursive=recursive)
    )
    return list(found), [name for name in names if not is_stored(name)]


def _require_json(
    json: Path | None, images: Sequence[Path | Address | Stored], films: Sequence[Film], *, coco: bool, resume: bool
) -> bool:
    """Refuse what ``--json`` cannot hold; tells whether it is a file that grows image by image."""
    from xdet.detection.batch import result_name
    from xdet.detection.parquet import growing_path
    from xdet.detection.report import coco_image_ids
    from xdet.detection.results import is_results_file, require_names

    growing = None if json is None else growing_path(json)
    lines = growing is not None and is_results_file(growing)
    if resume and not lines:
        raise UsageError(
            "--resume goes on with a file that grows image by image: add --json FILE.jsonl, FILE.csv or FILE.parquet"
        )
    if coco and lines:
        raise UsageError(f"--format coco is one list, '{json}' grows image by image; name a file FILE.json")
    if films and json is not None and not lines:
        raise UsageError("results of a video grow frame by frame: name a file FILE.jsonl, FILE.csv or FILE.parquet")
    if coco and json is not None:
        coco_image_ids(list(map(str, images)))  # refuses images whose results could not be told apart
    if lines and growing is not None:
        require_names(growing, [*map(result_name, images), *(film.name for film in films)])
    return lines


def _label_paths(
    json: Path | None, images: Sequence[Path | Address | Stored], films: Sequence[Film], layout: str
) -> list[Path]:
    from xdet.detection.labels import label_paths

    if json is None or json == STDOUT or json.suffix:
        raise UsageError(
            f"--format {layout} writes a label file per image: name a folder for them, such as --json labels"
        )
    if films:
        raise UsageError(
            f"--format {layout} is for pictures; results of a video go to FILE.jsonl, FILE.csv or FILE.parquet"
        )
    return label_paths(list(map(_as_path, images)), json, layout)


def _as_path(image: Path | Address | Stored) -> Path:
    """What names an image's files."""
    return image if isinstance(image, Path) else Path(image.path if isinstance(image, Address) else image.uri)


def _require_films(films: Sequence[Film], *, save: Path | None, resume: bool) -> None:
    """Refuse films that cannot be detected in, before any work."""
    if not films:
        return
    from xdet.pictures.recording import require_encoder
    from xdet.pictures.video import import_av

    import_av()
    if save is not None:
        require_encoder()
    for film in films if resume else ():
        if film.path is None:
            raise UsageError(
                f"--resume cannot go on with '{film.name}', which does not come again; name a new results file"
            )
        if save is not None:
            raise UsageError(
                f"--resume cannot go on with a video in '{save}' ('{film.name}'); leave out --save, or begin anew with --force"
            )


def _drawn(
    images: Sequence[Path | Address | Stored], films: Sequence[Film], save: Path | None
) -> tuple[list[Path] | None, list[Path] | None]:
    """Where pictures and videos with boxes go; None where nothing is drawn."""
    from xdet.pictures.render import picture_paths
    from xdet.writing.files import require_apart

    if save is None:
        return None, None
    require_apart(save, [*_files(images), *(film.path for film in films if film.path is not None)])
    recordings = None
    if films:
        from xdet.pictures.recording import recording_paths

        recordings = recording_paths([film.name for film in films], save)
    return picture_paths(list(map(_as_path, images)), save), recordings


def _drawn_outputs(pictures: Sequence[Path] | None, recordings: Sequence[Path] | None) -> list[Output]:
    from xdet.writing.files import PICTURE_MARK, Output

    drawn = [Output(picture, PICTURE_MARK, in_new_folder=True) for picture in pictures or ()]
    return drawn + [Output(recording, None, in_new_folder=True) for recording in recordings or ()]


def _files(images: Sequence[Path | Address | Stored]) -> list[Path]:
    return [image for image in images if isinstance(image, Path)]


def _workers(asked: int | None, images: Sequence[object], films: Sequence[Film]) -> int:
    """As many as there is work for; live sources are looked at one frame at a time, with all threads."""
    from xdet.runtimes.processors import choose_workers

    if asked is None and not images and all(film.path is None for film in films):
        return 1
    return choose_workers(asked) if films else min(choose_workers(asked), len(images))


def _read_thresholds(text: str | None) -> tuple[float | None, dict[str, float]]:
    """``0.4``, or ``person=0.5,dog=0.3`` by class."""
    if text is None:
        return None, {}
    words = [word.strip() for word in text.split(",")]
    try:
        if len(words) == 1 and "=" not in text:
            return float(text), {}
        pairs = [word.rpartition("=") for word in words]
        by_class = {name: float(value) for name, _, value in pairs}
    except ValueError:
        by_class = {}
    if "" in by_class or len(by_class) != len(words):
        raise UsageError(f"--score-threshold must be a number, or CLASS=NUMBER,CLASS=NUMBER, got {text!r}")
    return None, by_class


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
            raise UsageError(f"'{path}' holds results already; add --resume to go on, or --force to begin anew")


def _read_classes(text: str, detector: Detector) -> list[str]:
    """``person,dog`` as names that the model knows."""
    from xdet.detections import require_classes

    names = [name.strip() for name in text.split(",")]
    require_classes(names, detector.spec.class_names, what="--classes")
    return names


def _split_model(inputs: list[str], *, cameras: bool) -> tuple[Path | None, list[str]]:
    """The model in front, if the first argument is one by its bytes or its suffix, and the images."""
    if not inputs:
        if not cameras:
            raise UsageError("name images, folders or videos, such as: xdet detect photo.jpg; or give --camera 0")
        return None, []
    first, rest = Path(inputs[0]), inputs[1:]
    for name in rest:
        if Path(name).suffix.lower() in MODEL_SUFFIXES:
            raise UsageError(
                f"'{name}' is a model; one model stands first, before the images: xdet detect {name} photo.jpg"
            )
    if is_address(inputs[0]) or not _is_model(first):
        return None, inputs
    if not rest and not cameras:
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
