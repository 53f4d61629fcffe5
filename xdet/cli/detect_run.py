"""What ``xdet detect`` does once all is checked: results into a file that grows, or on the screen."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from xdet.cli.options import STDOUT, print_line, print_report, progress_bar, write_json
from xdet.errors import ImageError
from xdet.pictures.addresses import Address, Stored
from xdet.writing.text import format_pixels, format_score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdet.detection.detector import Detector
    from xdet.detection.film import SeenFrame
    from xdet.detection.results import ResultsFile
    from xdet.pictures.video import Film


@dataclass(frozen=True, slots=True)
class Run:
    """What is detected in, and what is drawn.

    Attributes:
        images: photographs.
        pictures: where each goes with its boxes; None draws none.
        films: videos, cameras, streams; they come after the photographs.
        recordings: where each goes with its boxes; None draws none.
        classes: names of the classes to keep; None keeps all.
        engine: ``"local"`` or ``"ray"``.
        actors: on Ray; None is one per processor of the cluster.
    """

    images: Sequence[Path | Address | Stored]
    pictures: Sequence[Path] | None
    films: Sequence[Film]
    recordings: Sequence[Path] | None
    classes: Sequence[str] | None
    engine: str = "local"
    actors: int | None = None

    @property
    def read_here(self) -> list[Path | Address]:
        """The photographs that this process can read."""
        return [image for image in self.images if not isinstance(image, Stored)]

    @property
    def read_there(self) -> list[Path | Stored]:
        """The photographs that other machines can read."""
        return [image for image in self.images if not isinstance(image, Address)]


def write_results(detector: Detector, run: Run, json: Path, *, anew: bool) -> None:
    """Results into a file as they come; what is done stays, whatever stops the rest."""
    from xdet.detection.batch import detect_to_file
    from xdet.detection.parquet import growing_path, open_results
    from xdet.detection.results import results_header

    growing = growing_path(json)
    with open_results(json, results_header(detector, run.classes), anew=anew) as results:
        before, failed = len(results.done), results.failed
        try:
            with progress_bar(len(run.images), "detecting") as advance:
                if run.engine == "ray":
                    from xdet.ray import detect_to_file as detect_on_ray

                    changed = detect_on_ray(
                        detector, run.read_there, results, classes=run.classes, concurrency=run.actors, progress=advance
                    )
                else:
                    changed = detect_to_file(
                        detector, run.read_here, results, pictures=run.pictures, classes=run.classes, progress=advance
                    )
            for film, recording in _with_recordings(run):
                _watch(detector, film, recording, run, results)
        except KeyboardInterrupt:
            print_line(f"xdet: interrupted; {_count(results)} are in '{growing}', --resume goes on", err=True)
            raise
    if changed:
        which = f"; of their lines in '{json}' the last count" if json == growing else ""
        print_line(f"xdet: images that have changed since: {changed}{which}", err=True)
    earlier = f", {before} of them before" if before else ""
    earlier += f" ({failed} without a result, tried again)" if failed else ""
    print_line(f"{json}: {_count(results)}{earlier}, {results.failed} without a result")
    if results.failed:
        print_line(f"xdet: {results.failed} of {len(results.done)} images failed; '{json}' says why", err=True)
        raise typer.Exit(3)


def print_results(detector: Detector, run: Run, json: Path | None, *, coco: bool) -> None:
    """Results of photographs as a table or one JSON document, of films line by line."""
    from xdet.detection.batch import detect_files
    from xdet.detection.report import detections_report, detections_to_coco_json, report_to_json

    if json != STDOUT:
        print_line(_first_line(detector))
    with progress_bar(len(run.images), "detecting") as advance:
        report = detect_files(detector, run.read_here, pictures=run.pictures, classes=run.classes, progress=advance)
    if json is not None:
        write_json(json, detections_to_coco_json(report.images) if coco else report_to_json(report))
    if json != STDOUT and report.images:
        print_report(detections_report(report.images))
    errors = [failure.error for failure in report.failed]
    for film, recording in _with_recordings(run):
        try:
            _watch(detector, film, recording, run, None)
        except ImageError as error:
            errors.append(str(error))
    _fail(errors, len(run.images) + len(run.films))


def write_labels(detector: Detector, run: Run, labels: Sequence[Path], layout: str) -> None:
    """A label file per photograph."""
    from xdet.detection.labels import detect_to_labels

    with progress_bar(len(run.images), "detecting") as advance:
        failed = detect_to_labels(
            detector, run.read_here, labels, layout, pictures=run.pictures, classes=run.classes, progress=advance
        )
    print_line(f"{labels[0].parent}: {len(labels) - len(failed)} label files")
    _fail([failure.error for failure in failed], len(labels))


def _fail(errors: Sequence[str], count: int) -> None:
    for told in errors:
        print_line(f"xdet: error: {told}", err=True)
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


def _with_recordings(run: Run) -> list[tuple[Film, Path | None]]:
    recordings: Sequence[Path | None] = run.recordings or [None] * len(run.films)
    return list(zip(run.films, recordings, strict=True))


def _watch(detector: Detector, film: Film, recording: Path | None, run: Run, results: ResultsFile | None) -> None:
    """Detect in one film, and tell how a live one ended."""
    from xdet.detection.film import detect_film_to_file

    if results is None:
        end = detect_film_to_file(
            detector, film, None, classes=run.classes, recording=recording, show=partial(_print_frame, film.name)
        )
    else:
        with progress_bar(_length(film), film.name) as advance:
            end = detect_film_to_file(
                detector, film, results, classes=run.classes, recording=recording, show=lambda _: advance(1)
            )
    if end.live:
        how = "stopped" if end.stopped else "ended"
        print_line(f"xdet: '{film.name}' {how}; frames seen {end.frames}, dropped between them {end.dropped}", err=True)


def _length(film: Film) -> int:
    """Frames for the progress bar, where somebody sees it."""
    from xdet.pictures.video import frames_expected

    if film.path is None or not sys.stderr.isatty():
        return 0
    try:
        return frames_expected(film)
    except ImageError:  # detecting tells
        return 0


def _print_frame(name: str, seen: SeenFrame) -> None:
    """A line per box, as it comes."""
    for found in seen.found:
        corners = "  ".join(f"{format_pixels(value):>7}" for value in found.box_xyxy_px)
        moment = f"{name}  {seen.frame.number:>6}  {seen.frame.time_s:>9.3f} s"
        print_line(f"{moment}  {found.class_name}  {format_score(found.score)}  {corners}")


def _count(results: ResultsFile) -> str:
    images, frames = results.images, results.frames
    counted = [f"{images} images"] if images or not frames else []
    return " and ".join([*counted, *([f"{frames} frames"] if frames else [])])
