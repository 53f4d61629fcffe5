"""The whole way on the embedded model and photographs: convert, load, detect, draw, and write the boxes as JSON."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdet.conversion import convert
from xdet.detection.batch import detect_files
from xdet.detection.detector import Detector
from xdet.detection.embedded import SOURCE
from xdet.detection.report import DETECTIONS_SCHEMA, report_to_json
from xdet.runtimes.base import choose_workers
from xdet.writing import files as written
from xdet.writing.text import format_duration, format_score, format_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PHOTOGRAPHS = tuple(SOURCE.parent / name for name in ("astronaut.jpg", "camera.jpg"))


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """What the demo wrote: the converted detector, photographs with boxes, the same boxes as JSON (docs/json.md)."""

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
    model, listed = output / f"{SOURCE.stem}.onnx", output / "detections.json"
    pictures = tuple(output / f"{photograph.stem}.png" for photograph in PHOTOGRAPHS)
    written.require_apart(output, PHOTOGRAPHS)
    marks = {
        model: written.MODEL_MARK,
        **dict.fromkeys(pictures, written.PICTURE_MARK),
        listed: written.json_mark(DETECTIONS_SCHEMA),
    }
    outputs = [written.Output(path, mark, in_new_folder=True) for path, mark in marks.items()]
    written.require_outputs(outputs, [*written.with_sidecars([SOURCE]), *PHOTOGRAPHS], force=force)
    written.make_folder(output)
    since = time.perf_counter()

    def tell(step: str) -> None:
        nonlocal since
        before, since = since, time.perf_counter()
        report(f"{step}, {format_duration(since - before)}")

    convert(SOURCE, model, force=True)
    tell(f"converted {SOURCE.name} ({format_size(SOURCE.stat().st_size)}): {_with_size(model)}")
    with Detector(model, workers=min(choose_workers(), len(PHOTOGRAPHS))) as detector:
        tell(f"loaded it on {detector.runtime.name}")
        results = detect_files(detector, PHOTOGRAPHS, pictures=pictures)
    tell("detected and drew")
    for photograph, picture, detections in zip(PHOTOGRAPHS, pictures, results.images, strict=True):
        boxes = ", ".join(f"{box.class_name} {format_score(box.score)}" for box in detections) or "nothing found"
        report(f"{photograph.name}: {boxes}: {_with_size(picture)}")
    written.write_text(listed, report_to_json(results))
    tell(f"listed them: {_with_size(listed)}")
    return DemoFiles(model, pictures, listed)


def _with_size(path: Path) -> str:
    return f"{path}, {format_size(path.stat().st_size)}"
