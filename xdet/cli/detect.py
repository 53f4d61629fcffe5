"""``xdet detect``: its options, and the model and the names among its arguments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from xdet.cli.options import Describing, Force, Running
from xdet.errors import UsageError
from xdet.pictures.addresses import is_address

if TYPE_CHECKING:
    from xdet.cli.detect_run import DetectRun

MODEL_SUFFIXES = frozenset({".onnx", ".tflite", ".h5", ".hdf5", ".keras"})


@dataclass(frozen=True)
class DescribingBeside(Describing):
    """As ``Describing``, in a command whose own ``--classes`` is another thing.

    Options:
        classes LIST|FILE: Of a source: "person,car" or a file, one per line.
    """

    classes: Annotated[str | None, typer.Option("--class-names")] = None


def detect(
    inputs: list[str] | None = None,
    *,
    camera: list[str] | None = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r")] = False,
    save: Path | None = None,
    json: Annotated[Path | None, typer.Option("--json", "--output", "-o")] = None,
    resume: bool = False,
    keep: Annotated[str | None, typer.Option("--classes")] = None,
    format: Literal["xdet", "coco", "yolo", "voc"] = "xdet",  # noqa: A002 - the option's name
    running: Running,
    decode: Literal["full", "reduced"] = "full",
    workers: int | None = None,
    score_threshold: str | None = None,
    iou_threshold: float | None = None,
    engine: Literal["local", "ray"] = "local",
    force: Force = False,
    describing: DescribingBeside,
) -> None:
    """Find objects in photographs.

    Options:
        inputs [MODEL] IMAGE|VIDEO|URL|DIR|PATTERN|@LIST|-...: A model first (or none), then images, videos, addresses,
            folders, patterns, @FILE with a name per line, - for stdin.
        camera NUMBER|NAME: Look through a camera until Ctrl-C; may be given several times.
        recursive: Search subfolders of the folders, too.
        save DIR: Write pictures and videos with boxes to this folder.
        json FILE: Write the detections as JSON; - is stdout. FILE.jsonl, .csv and .parquet grow image by image.
        resume: Go on with a FILE.jsonl, .csv or .parquet where it stopped.
        keep LIST: Keep these classes alone, such as "person,dog".
        format: Layout of --json: our own, a COCO results list; or label files, YOLO or Pascal VOC, in the folder
            --json.
        decode: reduced: JPEG files no larger than the network needs; faster, and boxes move a little.
        workers N: Images worked on at the same time [default: one per processor, at most 8; on Ray, all of the
            cluster's].
        score_threshold NUMBER|LIST: Keep boxes that score above this, or by class: person=0.5,dog=0.3 [default: the
            model's own].
        iou_threshold: Suppress neighbours that overlap more than this [default: the model's own].
        engine: ray: on the cluster of RAY_ADDRESS, or this machine's processors; takes s3://, gs://, hdfs:// (extra:
            ray).

    Examples:
        xdet detect photo.jpg                        the embedded person detector
        xdet detect m.onnx photos/ --save out        a model of yours, drawn boxes
        xdet detect m.tflite photo.jpg --json -      the source itself, to stdout
        xdet detect "photos/**/*.jpg" @more.txt      patterns, and a list of names
        xdet detect m.onnx a.jpg --runtime openvino  another runtime
        xdet detect photos/ --json out.jsonl         grows; --resume goes on with it
        xdet detect clip.mp4 --json out.parquet      frame by frame (extra: video)
        xdet detect s3://bucket/photos --engine ray -o out.parquet      (extra: ray)
        xdet detect --camera 0 --save out            until Ctrl-C, with a recording
    """
    from xdet.cli.detect_run import DetectRun, detect_all
    from xdet.detection.detector import Detector
    from xdet.detection.embedded import SOURCE
    from xdet.detections import require_classes
    from xdet.pictures.listing import list_inputs
    from xdet.pictures.video import Film
    from xdet.writing.files import require_outputs, with_sidecars

    model, names = _split_model(inputs or [], cameras=bool(camera))
    listed = list_inputs(names, recursive=recursive, without=save, stores=engine == "ray")
    films = [*listed.films, *map(Film.of_camera, camera or [])]
    run = DetectRun(listed.images, films, json, format, resume, save, engine, workers)
    run.require_possible(described=bool(describing.keywords), decode=decode, force=force)
    require_outputs(run.outputs(), [*with_sidecars([model or SOURCE]), *describing.files(), *run.files()], force=force)
    detector = Detector(
        model,
        **running.keywords,
        score_threshold=_read_thresholds(score_threshold),
        iou_threshold=iou_threshold,
        workers=_choose_workers(run),
        decode=decode,
        source_options=describing.options(),
    )
    with detector:
        for note in detector.spec.assumptions:
            typer.echo(f"note: {note}", err=True)
        if listed.left_out:
            typer.echo(f"note: pictures in which xdet has drawn boxes, left out: {listed.left_out}", err=True)
        classes = None if keep is None else [name.strip() for name in keep.split(",")]
        require_classes(classes or (), detector.spec.class_names, what="--classes")
        detect_all(detector, run, classes, anew=force and not resume)


def _choose_workers(run: DetectRun) -> int:
    """As many as there is work for; live sources are looked at one frame at a time, with all threads."""
    from xdet.runtimes.base import choose_workers

    if run.engine == "ray" or (run.actors is None and not run.images and all(film.path is None for film in run.films)):
        return 1
    most = choose_workers(run.actors)
    return most if run.films else min(most, len(run.images))


def _read_thresholds(text: str | None) -> float | dict[str, float] | None:
    """``0.4``, or ``person=0.5,dog=0.3`` by class."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    try:
        if len(words) == 1 and "=" not in text:
            return float(text)
        pairs = [word.rpartition("=") for word in words]
        by_class = {name: float(value) for name, _, value in pairs}
    except ValueError:
        by_class = {}
    if "" in by_class or len(by_class) != len(words):
        raise UsageError(f"--score-threshold must be a number, or CLASS=NUMBER,CLASS=NUMBER, got {text!r}")
    return by_class


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
        raise UsageError(f"'{first}' is a model; name images or folders behind it: xdet detect {first} photo.jpg")
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
