"""Results that ``xdet detect`` wrote as lines or Parquet, in place of a model.

A photograph is known by the SHA-256 of its file, so it may have another name or place than where it was detected in.
Boxes were written to 1/100 pixel.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.files import open_regular
from xdet.detection.parquet import LARGEST_RESULTS, is_parquet, read_parquet
from xdet.detection.results import LINES_SCHEMA
from xdet.detection.rows import require_entry
from xdet.errors import DataError, UsageError
from xdet.evaluation.dataset import Problem
from xdet.evaluation.predictions import ImageDetections, Predictions, Seconds
from xdet.pictures.images import hash_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from converters.spec import Thresholds
    from xdet.evaluation.dataset import LabelledImage

SUFFIXES = frozenset({".jsonl", ".parquet"})


@dataclass(frozen=True, eq=False)
class DetectionFile:
    """The photographs of a results file."""

    file: str  # with the name of the model that made it
    sha256: str  # of that model
    name: str  # of what ran it
    class_names: Mapping[int, str]  # by number, as far as something was found
    entries: Mapping[str, _Entry]  # by the photograph's SHA-256

    def predictions(self, images: Sequence[LabelledImage]) -> Predictions:
        """What the file holds of those photographs; one that it has not, or without a result, is a problem."""
        detections: dict[int, ImageDetections] = {}
        problems = []
        for image in images:
            entry = self.entries.get(hash_file(image.path))
            if entry is None or entry.error is not None:
                why = "it is not among the results" if entry is None else entry.error
                problems.append(Problem("unreadable_images", f"image {image.id}: '{self.file}': {why}"))
            elif entry.size_wh != image.size_wh:
                annotated, actual = ("{} x {}".format(*size) for size in (image.size_wh, entry.size_wh))
                message = f"image {image.id}: '{image.path}' has {actual} pixels, its annotation says {annotated}"
                problems.append(Problem("images_of_another_size", message))
            else:
                detections[image.id] = entry.detections
        return Predictions(detections, tuple(problems), Seconds())


@dataclass(frozen=True, eq=False)
class _Entry:
    size_wh: tuple[int, int]
    detections: ImageDetections
    error: str | None


def is_detected(path: Path) -> bool:
    """Whether the suffix is one of results."""
    return path.suffix.lower() in SUFFIXES


def read_detected(path: Path, thresholds: Thresholds) -> DetectionFile:
    """Read results that were made at those thresholds, of all classes.

    Raises:
        DataError: it is no results file, or damaged.
        UsageError: it was made with other thresholds, or of some classes alone.
        MissingExtraError: pyarrow is not installed.
    """
    header, lines = read_parquet(path) if is_parquet(path) else _read_lines(path)
    try:
        model, runtime = header["model"], str(header["runtime"])
        name, sha256, used = str(model["name"]), str(model["sha256"]), dict(header["thresholds"])
        _require_comparable(path, used, header["classes"], thresholds)
        names: dict[int, str] = {}
        entries = {str(line["sha256"]): _read_entry(line, names) for line in lines}
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"'{path}' is a damaged results file of xdet detect; make it anew") from error
    return DetectionFile(f"{path} ({name})", sha256, runtime, dict(sorted(names.items())), entries)


def _require_comparable(path: Path, used: Mapping[str, Any], classes: object, thresholds: Thresholds) -> None:
    requested = asdict(thresholds)
    names = [name for name in dict.fromkeys((*requested, *used)) if requested.get(name) != used.get(name)]
    if names:
        differ = ", ".join(f"{name} {used.get(name, 'none')}, not {requested.get(name, 'none')}" for name in names)
        raise UsageError(
            f"'{path}' was made with {differ}; detect with `score_threshold` {thresholds.score:g} "
            f"`iou_threshold` {thresholds.iou:g}, or evaluate at its own thresholds"
        )
    if classes is not None:
        raise UsageError(f"'{path}' holds some classes alone; detect without `classes`")


def _read_lines(path: Path) -> tuple[dict[str, Any], Iterable[Mapping[str, Any]]]:
    foreign = f"'{path}' is no results file of xdet detect; check the path"
    try:
        with open_regular(path, LARGEST_RESULTS) as file:
            header = json.loads(file.readline(1 << 16))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(foreign) from error
    if not isinstance(header, dict) or header.get("schema") != LINES_SCHEMA:
        raise DataError(foreign)
    return header, _entries(path)


def _entries(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as file:
        file.readline()
        for line in file:
            yield require_entry(json.loads(line))


def _read_entry(line: Mapping[str, Any], names: dict[int, str]) -> _Entry:
    """One photograph; the names of its classes are added to ``names``."""
    if line.get("error") is not None:
        return _Entry((0, 0), ImageDetections.from_lists([], [], []), str(line["error"]))
    size_wh = (int(line["width"]), int(line["height"]))
    if min(size_wh) < 1:
        raise ValueError(f"a photograph of {size_wh} pixels")
    detections = line["detections"]
    for detection in detections:
        names.setdefault(int(detection["class_id"]), str(detection["class_name"]))
    corners_px = np.array([detection["box_xyxy_px"] for detection in detections], np.float64).reshape(-1, 4)
    image_detections = ImageDetections.from_lists(
        corners_px / np.array(size_wh * 2),
        [detection["score"] for detection in detections],
        [detection["class_id"] for detection in detections],
    )
    return _Entry(size_wh, image_detections, None)
