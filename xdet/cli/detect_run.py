"""What ``xdet detect`` does: it refuses what cannot go well, then writes results to files or shows them."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from converters.errors import counted
from xdet.cli.console import STDOUT, json_outputs, print_line, print_report, progress_bar, write_json
from xdet.detection.batch import (
    LABELS,
    detect_files,
    detect_film_to_file,
    detect_to_file,
    detect_to_labels,
    label_paths,
    result_name,
)
from xdet.detection.parquet import PARQUET_MARK, growing_path, open_results
from xdet.detection.report import (
    DETECTIONS_SCHEMA,
    coco_image_ids,
    detections_report,
    detections_to_coco_json,
    report_to_json,
)
from xdet.detection.results import LINES_MARK, is_results_file, require_names, results_header
from xdet.errors import ImageError, UsageError
from xdet.pictures.addresses import Address
from xdet.pictures.render import picture_paths
from xdet.pictures.video import frames_expected, import_av, recording_paths, require_encoder
from xdet.writing.files import PICTURE_MARK, Output, has_mark, make_folder, require_apart
from xdet.writing.text import format_pixels, format_score

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xdet.detection.batch import FrameDetections
    from xdet.detection.detector import Detector
    from xdet.detection.results import ResultsFile
    from xdet.pictures.video import Film

ANYTHING = re.compile(b"")  # --resume looks at the file itself


@dataclass(frozen=True)
class DetectRun:
    """What is detected in, and where results go."""

    images: Sequence[Path | Address]  # photographs
    films: Sequence[Film]  # videos, cameras, streams; they come after the photographs
    json: Path | None  # the file of results; a folder for layouts of label files; None writes none
    layout: str  # of ``--format``
    resume: bool  # go on with ``json``
    save: Path | None  # the folder of pictures and videos with boxes; None draws none
    engine: str  # "local" or "ray"
    actors: int | None  # on Ray; None is one per processor of the cluster

    @property
    def growing(self) -> Path | None:
        """The file of results that grows image by image, if ``json`` is of such a kind."""
        path = None if self.json is None or self.layout in LABELS else growing_path(self.json)
        return path if path is not None and is_results_file(path) else None

    @cached_property
    def pictures(self) -> list[Path] | None:
        """Where each photograph goes with its boxes."""
        return None if self.save is None else picture_paths(self._names, self.save)

    @cached_property
    def recordings(self) -> list[Path | None]:
        """Where each film goes with its boxes."""
        if self.save is None:
            return [None] * len(self.films)
        return [*recording_paths([film.name for film in self.films], self.save)]

    @cached_property
    def labels(self) -> list[Path] | None:
        """A label file per photograph, for layouts of such."""
        if self.layout not in LABELS or self.json is None:
            return None
        return label_paths(self._names, self.json, self.layout)

    @property
    def _names(self) -> list[Path]:
        return [image if isinstance(image, Path) else Path(image.path) for image in self.images]

    def files(self) -> list[Path]:
        """The files that are read."""
        films = [film.path for film in self.films if film.path is not None]
        return [*(image for image in self.images if isinstance(image, Path)), *films]

    def outputs(self) -> list[Output]:
        """The files that are written."""
        pictures = [Output(path, PICTURE_MARK, in_new_folder=True) for path in self.pictures or ()]
        recordings = [Output(path, in_new_folder=True) for path in self.recordings if path is not None]
        if self.labels is not None:
            results = [Output(path, in_new_folder=True) for path in self.labels]
        elif self.json is not None and self.growing is not None:
            marks = {self.json: PARQUET_MARK, self.growing: LINES_MARK}
            results = [Output(path, ANYTHING if self.resume else mark) for path, mark in marks.items()]
        else:
            results = json_outputs(self.json, None if self.layout == "coco" else DETECTIONS_SCHEMA)
        return [*results, *pictures, *recordings]

    def require_possible(self, *, described: bool, decode: str, force: bool) -> None:
        """Refuse what cannot be done, before any work: options that contradict, names that a file cannot hold."""
        of_ray = self._ray_problems(described=described, decode=decode) if self.engine == "ray" else ()
        of_results = self._label_problems() if self.layout in LABELS else self._json_problems(force=force)
        for problem in chain(of_ray, of_results, self._film_problems()):
            raise UsageError(problem)
        if self.save is not None:
            require_apart(self.save, self.files())

    def _ray_problems(self, *, described: bool, decode: str) -> Iterator[str]:
        if self.growing is None or self.layout != "xdet":
            yield "--engine ray writes image by image: add --output FILE.parquet, FILE.jsonl or FILE.csv"
        if self.save is not None or any(film.format is not None for film in self.films):
            yield "--engine ray draws no pictures and has no cameras; leave out --save and --camera"
        if self.films or any(isinstance(image, Address) and not image.in_store for image in self.images):
            yield "--engine ray is for photographs in files and stores; leave out videos and http addresses"
        if described:
            yield "--engine ray takes a model that says all itself; convert it first: xdet convert --help"
        if decode != "full":
            yield "--decode reduced is for this machine; leave it out with --engine ray"
        from xdet.ray import import_ray

        import_ray()

    def _label_problems(self) -> Iterator[str]:
        if self.json is None or self.json == STDOUT or self.json.suffix:
            yield f"--format {self.layout} writes a label file per image: name a folder for them, such as --json labels"
        if self.films:
            yield (
                f"--format {self.layout} is for pictures; results of a video go to FILE.jsonl, FILE.csv or FILE.parquet"
            )
        if self.resume:
            yield (
                f"--resume goes on with one file; --format {self.layout} writes a label file per image: leave out "
                f"--resume, and give --force to write those that are there anew"
            )

    def _json_problems(self, *, force: bool) -> Iterator[str]:
        if self.json is None or self.growing is None:
            if self.resume:
                grows = "FILE.jsonl, FILE.csv or FILE.parquet"
                yield f"--resume goes on with a file that grows image by image: add --json {grows}"
            if self.films and self.json is not None:
                yield "results of a video grow frame by frame: name a file FILE.jsonl, FILE.csv or FILE.parquet"
            if self.layout == "coco" and self.json is not None:
                coco_image_ids(list(map(str, self.images)))  # refuses images whose results could not be told apart
            return
        if self.layout == "coco":
            yield f"--format coco is one list, '{self.json}' grows image by image; name a file FILE.json"
        require_names(self.growing, [*map(result_name, self.images), *(film.name for film in self.films)])
        for path in () if self.resume or force else (self.json, self.growing):
            if has_mark(path, LINES_MARK) or has_mark(path, PARQUET_MARK):
                yield f"'{path}' holds results already; add --resume to go on, or --force to begin anew"

    def _film_problems(self) -> Iterator[str]:
        if not self.films:
            return
        import_av()
        if self.save is not None:
            require_encoder()
        for film in self.films if self.resume else ():
            if film.path is None:
                yield f"--resume cannot go on with '{film.name}', which does not come again; name a new results file"
            if self.save is not None:
                yield (
                    f"--resume cannot go on with a video in '{self.save}' ('{film.name}'); leave out --save, or begin "
                    f"anew with --force"
                )


def detect_all(detector: Detector, run: DetectRun, classes: Sequence[str] | None, *, anew: bool) -> None:
    """Detect in everything; ``classes`` are the names to keep, ``anew`` empties a growing file first."""
    for folder in (run.save, None if run.labels is None else run.json):
        if folder is not None:
            make_folder(folder)
    if run.labels is not None:
        _write_labels(detector, run, run.labels, classes)
    elif run.json is not None and run.growing is not None:
        _write_results(detector, run, run.json, classes, anew=anew)
    else:
        _print_results(detector, run, classes)


def _write_results(
    detector: Detector, run: DetectRun, json: Path, classes: Sequence[str] | None, *, anew: bool
) -> None:
    """Results into a file as they come; what is done stays, whatever stops the rest."""
    with open_results(json, results_header(detector, classes), anew=anew) as results:
        before, failed = len(results.done), results.failed
        try:
            with progress_bar("detecting", len(run.images)) as advance:
                if run.engine == "ray":
                    from xdet.ray import detect_to_file as detect_on_ray

                    detect = partial(detect_on_ray, concurrency=run.actors)
                else:
                    detect = partial(detect_to_file, pictures=run.pictures)
                changed = detect(detector, run.images, results, classes=classes, progress=advance)
            for film, recording in zip(run.films, run.recordings, strict=True):
                _watch(detector, film, recording, classes, results)
        except KeyboardInterrupt:
            print_line(f"xdet: interrupted; {_count(results)} are in '{run.growing}', --resume goes on", err=True)
            raise
    if changed:
        which = f"; of their lines in '{json}' the last count" if json == run.growing else ""
        print_line(f"xdet: images that have changed since: {changed}{which}", err=True)
    earlier = f", {before} of them before" if before else ""
    earlier += f" ({failed} without a result, tried again)" if failed else ""
    print_line(f"{json}: {_count(results)}{earlier}, {results.failed} without a result")
    if results.failed:
        print_line(
            f"xdet: {results.failed} of {counted(len(results.done), 'image', 'images')} failed; '{json}' says why",
            err=True,
        )
        raise typer.Exit(3)


def _print_results(detector: Detector, run: DetectRun, classes: Sequence[str] | None) -> None:
    """Results of photographs as a table or one JSON document, of films line by line."""
    if run.json != STDOUT:
        print_line(_first_line(detector))
    with progress_bar("detecting", len(run.images)) as advance:
        report = detect_files(detector, run.images, pictures=run.pictures, classes=classes, progress=advance)
    if run.json is not None:
        coco = run.layout == "coco"
        write_json(run.json, detections_to_coco_json(report.images) if coco else report_to_json(report))
    if run.json != STDOUT and report.images:
        print_report(detections_report(report.images))
    errors = [failure.error for failure in report.failed]
    for film, recording in zip(run.films, run.recordings, strict=True):
        try:
            _watch(detector, film, recording, classes, None)
        except ImageError as error:
            errors.append(str(error))
    _fail(errors, len(run.images) + len(run.films))


def _write_labels(detector: Detector, run: DetectRun, labels: Sequence[Path], classes: Sequence[str] | None) -> None:
    with progress_bar("detecting", len(run.images)) as advance:
        failed = detect_to_labels(
            detector, run.images, labels, run.layout, pictures=run.pictures, classes=classes, progress=advance
        )
    print_line(f"{run.json}: {len(labels) - len(failed)} label files")
    _fail([failure.error for failure in failed], len(labels))


def _fail(errors: Sequence[str], count: int) -> None:
    for error in errors:
        print_line(f"xdet: error: {error}", err=True)
    if errors and count > 1:
        print_line(f"xdet: {len(errors)} of {count} images failed", err=True)
    if errors:
        raise typer.Exit(3)


def _first_line(detector: Detector) -> str:
    """What looks, where, and above which score."""
    name = "the embedded person detector" if detector.embedded else Path(detector.runtime.file).name
    by_class = detector.score_by_class or {}
    scores = ", ".join(f"{key} {value:g}" for key, value in by_class.items()) or f"{detector.thresholds.score:g}"
    return f"{name} on {detector.runtime.name}, boxes that score above {scores}"


def _watch(
    detector: Detector, film: Film, recording: Path | None, classes: Sequence[str] | None, results: ResultsFile | None
) -> None:
    """Detect in one film, and tell how a live one ended; without ``results`` each box is a line on the terminal."""
    watch = partial(detect_film_to_file, detector, film, results, classes=classes, recording=recording)
    if results is None:
        end = watch(show=partial(_print_frame, film.name))
    else:
        with progress_bar(film.name, _length(film)) as advance:
            end = watch(show=lambda _: advance(1))
    if end.live:
        how = "stopped" if end.stopped else "ended"
        print_line(f"xdet: '{film.name}' {how}; frames seen {end.frames}, dropped between them {end.dropped}", err=True)


def _length(film: Film) -> int:
    """Frames for the progress bar, where somebody sees it."""
    if film.path is None or not sys.stderr.isatty():
        return 0
    try:
        return frames_expected(film)
    except ImageError:  # detecting tells
        return 0


def _print_frame(name: str, each: FrameDetections) -> None:
    moment = f"{name}  {each.frame.number:>6}  {each.frame.time_s:>9.3f} s"
    for box in each.detections:
        corners = "  ".join(f"{format_pixels(value):>7}" for value in box.box_xyxy_px)
        print_line(f"{moment}  {box.class_name}  {format_score(box.score)}  {corners}")


def _count(results: ResultsFile) -> str:
    images, frames = results.images, results.frames
    parts = [counted(images, "image", "images")] if images or not frames else []
    return " and ".join([*parts, *([counted(frames, "frame", "frames")] if frames else [])])
