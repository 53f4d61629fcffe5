"""The whole way on the embedded model and photographs: convert, load, detect, draw, and write the detections as JSON."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdet.conversion import convert
from xdet.detection.batch import detect_files
from xdet.detection.detector import Detector
from xdet.detection.embedded import SOURCE
from xdet.detection.report import DETECTIONS_SCHEMA, report_to_json
from xdet.runtimes.processors import choose_workers
from xdet.writing.files import (
    MODEL_MARK,
    PICTURE_MARK,
    Output,
    json_mark,
    make_folder,
    require_apart,
    require_outputs,
    with_sidecars,
    write_text,
)
from xdet.writing.text import format_duration, format_score, format_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xdet.detections import Detections

PHOTOGRAPHS = tuple(SOURCE.parent / name for name in ("astronaut.jpg", "camera.jpg"))


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """What the demo wrote.

    Attributes:
        model: the converted detector.
        pictures: the photographs with their boxes.
        detections: the same boxes as JSON (docs/json.md).
    """

    model: Path
    pictures: tuple[Path, ...]
    detections: Path


def run_demo(output: Path, report: Callable[[str], None], *, force: bool = False) -> DemoFiles:
    """Convert the embedded detector and run it on the embedded photographs; files of an earlier run are replaced.

    Args:
        output: the folder to write to; made if it is missing.
        report: takes one line per step.
        force: replace files of the same names that no demo made, too.

    Returns:
        The files written.

    Raises:
        UsageError: a file is there that no demo made, or the folder is that of the photographs.
        OutputError: the folder or a file in it cannot be written.
    """
    from xdet.runtimes.ort_session import resolve_provider

    resolve_provider(None)  # before any work
    files = DemoFiles(
        output / f"{SOURCE.stem}.onnx",
        tuple(output / f"{photograph.stem}.png" for photograph in PHOTOGRAPHS),
        output / "detections.json",
    )
    _require_free(output, files, force=force)
    make_folder(output)
    steps = _Steps(report)
    model, pictures, listed = files.model, files.pictures, files.detections
    convert(SOURCE, model, force=True)
    steps.wrote(f"converted {SOURCE.name} ({format_size(SOURCE.stat().st_size)})", model)
    with Detector(model, workers=min(choose_workers(), len(PHOTOGRAPHS))) as detector:
        steps.did(f"loaded it on {detector.runtime.name}")
        found = detect_files(detector, PHOTOGRAPHS, pictures=pictures)
    steps.did("detected and drew")
    for photograph, picture, detections in zip(PHOTOGRAPHS, pictures, found.images, strict=True):
        steps.lists(f"{photograph.name}: {_summary(detections)}", picture)
    write_text(listed, report_to_json(found))
    steps.wrote("listed them", listed)
    return files


def _require_free(folder: Path, files: DemoFiles, *, force: bool) -> None:
    marks = (
        (files.model, MODEL_MARK),
        *((picture, PICTURE_MARK) for picture in files.pictures),
        (files.detections, json_mark(DETECTIONS_SCHEMA)),
    )
    require_apart(folder, PHOTOGRAPHS)
    outputs = [Output(path, mark, in_new_folder=True) for path, mark in marks]
    require_outputs(outputs, [*with_sidecars([SOURCE]), *PHOTOGRAPHS], force=force)


class _Steps:
    """Tells what was done, with the time since the step before."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._since = time.perf_counter()

    def did(self, what: str) -> None:
        now = time.perf_counter()
        self._report(f"{what}, {format_duration(now - self._since)}")
        self._since = now

    def lists(self, what: str, path: Path) -> None:
        """A file of the step before, which has its time."""
        self._report(f"{what}: {path}, {format_size(path.stat().st_size)}")

    def wrote(self, what: str, path: Path) -> None:
        self.did(f"{what}: {path}, {format_size(path.stat().st_size)}")


def _summary(found: Detections) -> str:
    """Such as "person 0.92, person 0.88"."""
    return ", ".join(f"{one.class_name} {format_score(one.score)}" for one in found) or "nothing found"
