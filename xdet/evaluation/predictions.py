"""What was found in each photograph of a data set: by a model, in an earlier run, or by ``xdet detect``.

A model: the annotation says how large its photograph is, and that decides about EXIF: pixels as they are stored if they
have that size, else turned as EXIF says if then they have it, else the image is left out and reported.

An earlier run that was interrupted: a file of JSON lines (``AppendedFile``). The first is ``HEADER``; files of earlier
versions lack it. Each further line is one model and photograph. It names its run (model, description, runtime,
thresholds, input, version of xdet) and its photograph by their SHA-256, so nothing is taken that another run, or
another version of the photograph, made; one file serves any number of models.

``xdet detect``: lines or Parquet in place of a model. A photograph is known by the SHA-256 of its file, so it may have
another name or place than where it was detected in. Boxes were written to 1/100 pixel.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.files import open_regular
from xdet import __version__
from xdet.detection.parquet import LARGEST_RESULTS, is_parquet, read_parquet
from xdet.detection.results import LINES_SCHEMA, read_entries, require_entry
from xdet.errors import DataError, ImageError, UsageError
from xdet.evaluation.dataset import Problem
from xdet.pictures.images import hash_file
from xdet.pictures.preparation import Preparation, prepare, stack_pixels, through_network
from xdet.writing.files import AppendedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.heads.base import BatchDetections
    from converters.spec import DetectorSpec, ImageInput, Placement, Thresholds
    from xdet.evaluation.dataset import LabelledImage
    from xdet.evaluation.evaluate import EvaluationOptions
    from xdet.pictures.preparation import Prepared
    from xdet.runtimes.base import Runtime

HEADER = b'{"schema": "xdet.kept_predictions", "version": 1}\n'
RESULT_SUFFIXES = frozenset({".jsonl", ".parquet"})


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """What a model found in one photograph, best score first."""

    boxes_xyxy: NDArray[np.float32]  # (D, 4), corners as fractions of the photograph
    scores: NDArray[np.float32]  # (D,)
    classes: NDArray[np.int32]  # (D,), the model's own numbers

    @classmethod
    def from_lists(cls, boxes_xyxy: object, scores: object, classes: object) -> ImageDetections:
        """Of a file's numbers; ValueError, TypeError or OverflowError where they are not finite, or of other shapes."""
        with np.errstate(over="ignore"):  # beyond float32 is infinite
            boxes, score_array = np.array(boxes_xyxy, np.float32), np.array(scores, np.float32)
        detections = cls(boxes.reshape(len(score_array), 4), score_array, np.array(classes, np.int32))
        if not detections.classes.shape == score_array.shape == (len(score_array),):
            raise ValueError(f"{detections.classes.shape} classes for {score_array.shape} scores")
        if not (np.isfinite(boxes).all() and np.isfinite(score_array).all()):
            raise ValueError("a box or score is not finite")
        return detections


@dataclass(frozen=True, slots=True)
class Seconds:
    """Where the time of one model went, summed over the workers, who work at the same time."""

    read: float = 0.0  # reading and decoding photographs
    resize: float = 0.0
    network: float = 0.0  # with its head, boxes included
    wall: float = 0.0  # from the first photograph to the last result


@dataclass(frozen=True, eq=False)
class Predictions:
    """One model's results, by image id, with the images it has none for."""

    detections: dict[int, ImageDetections]
    problems: tuple[Problem, ...]
    seconds: Seconds


class OtherSizeError(ImageError):
    """A photograph that can be read, and is not the one that was annotated."""


def predict(
    runtime: Runtime,
    images: Sequence[LabelledImage],
    options: EvaluationOptions,
    *,
    workers: int,
    on_result: Callable[[LabelledImage, ImageDetections], object],
) -> Predictions:
    """Run an open model over photographs, ``workers`` at the same time; one that cannot be used is a problem instead.

    ``on_result`` is called after each photograph, in order.
    """
    started = time.perf_counter()
    problems: list[Problem] = []
    detections: dict[int, ImageDetections] = {}
    read_s = resize_s = network_s = 0.0
    table = truncation_table(runtime.spec, runtime.file) if options.truncate_input else None

    def detect(batch: Sequence[Prepared]) -> list[tuple[ImageDetections, Prepared, float]]:
        pixels = stack_pixels(batch)
        pixels = pixels if table is None else table[pixels]
        with runtime.turns:
            begun = time.perf_counter()
            result = runtime.detect(pixels, options.thresholds)
            each_s = (time.perf_counter() - begun) / len(batch)
        return [(_row(result, row, image.placement), image, each_s) for row, image in enumerate(batch)]

    fitting = partial(_prepare_fitting, network=runtime.spec.image)
    for image, result in through_network(images, fitting, detect, batch=runtime.batch or 1, workers=workers):
        if isinstance(result, ImageError):
            kind = "images_of_another_size" if isinstance(result, OtherSizeError) else "unreadable_images"
            problems.append(Problem(kind, f"image {image.id}: {result}"))
            continue
        detections[image.id], prepared, each_s = result
        read_s, resize_s, network_s = read_s + prepared.read_s, resize_s + prepared.resize_s, network_s + each_s
        on_result(image, detections[image.id])
    seconds = Seconds(read_s, resize_s, network_s, time.perf_counter() - started)
    return Predictions(detections, tuple(problems), seconds)


def truncation_table(spec: DetectorSpec, file: str) -> NDArray[np.uint8] | None:
    """What quantising a rescaled float image by truncation, as the zoo's evaluation does, makes of each pixel.

    A network that sees -1..1 has the input zero-point 127 where 127.5 would be exact: pixel p becomes
    ``trunc(p - 127.5 + 127)``, which is p - 1 for every p >= 1, and 0 for 0. One that sees 0..1 loses nothing.

    Returns:
        uint8 ``(256,)`` by pixel, or None where pixels stay as they are.

    Raises:
        UsageError: another rescaling, for which this is not defined.
    """
    if spec.image.any_size:
        raise UsageError(
            f"`truncate_input` changes the pixels of the network, which '{file}' makes inside itself; evaluate the "
            "file that is converted without `any_size`, which has the same boxes"
        )
    rescaling = spec.image.rescaling
    exact_zero_point = -rescaling.offset / rescaling.scale
    if exact_zero_point == 0:
        return None
    if not 126.9 < exact_zero_point < 127.6:
        raise UsageError(
            f"`truncate_input` is defined for networks that see pixels as 0..1 or -1..1; '{file}' rescales them by "
            f"{rescaling.scale:.9g}, {rescaling.offset:.9g}; leave it out"
        )
    pixels = np.arange(256)
    return np.maximum(pixels - 1, 0).astype(np.uint8)


def _row(result: BatchDetections, row: int, placement: Placement) -> ImageDetections:
    valid = slice(0, int(result.num_detections[row]))
    boxes = placement.to_photograph(result.boxes_xyxy[row, valid])
    return ImageDetections(boxes, result.scores[row, valid], result.classes[row, valid])


def _prepare_fitting(image: LabelledImage, network: ImageInput) -> Prepared:
    """The photograph in the orientation in which it has the size of its annotation."""
    prepared = stored = prepare(image.path, Preparation(network, honour_exif=False))
    if stored.size_wh != image.size_wh:
        prepared = prepare(image.path, Preparation(network, honour_exif=True))
    if prepared.size_wh != image.size_wh:
        raise OtherSizeError(
            f"'{image.path}' {_sizes_text(stored.size_wh, image)}: it was scaled or cut since, or is another picture; "
            "take the ones that were annotated"
        )
    return prepared


def _sizes_text(actual_wh: tuple[int, int], image: LabelledImage) -> str:
    annotated, actual = ("{} x {}".format(*size) for size in (image.size_wh, actual_wh))
    return f"has {actual} pixels, its annotation says {annotated}"


class KeptPredictions:
    """The lines of one file; a new one is made if it is missing or empty.

    Raises:
        DataError: it exists and is no such file.
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        # (run, image id) -> SHA-256 of the photograph -> result
        self._lines: dict[tuple[str, int], dict[str, ImageDetections]] = {}
        self._file = AppendedFile(
            path,
            HEADER,
            line_start=b'{"run": "',
            read_line=self._read_line,
            what="kept prediction",
            advice=("give `resume` a file that xdet eval made, or a new one", "choose another `resume`"),
            headless=True,
        )

    def take(self, run: str, images: Sequence[LabelledImage]) -> dict[int, ImageDetections]:
        """What this run has found in those photographs that have not changed since, by image id."""
        taken = {}
        for image in images:
            versions = self._lines.get((run, image.id))
            detections = None if versions is None else versions.get(hash_file(image.path))
            if detections is not None:
                taken[image.id] = detections
        return taken

    def add(self, run: str, image: LabelledImage, detections: ImageDetections) -> None:
        """Append one line; an ``OutputError`` where it cannot be written."""
        line = {
            "run": run,
            "image": image.id,
            "sha256": hash_file(image.path),
            "boxes_xyxy": detections.boxes_xyxy.tolist(),
            "scores": detections.scores.tolist(),
            "classes": detections.classes.tolist(),
        }
        self._file.append(json.dumps(line).encode("ascii") + b"\n")

    def _read_line(self, line: bytes) -> str | None:
        if line + b"\n" == HEADER:  # a second one, too: of two processes that began the file at the same time
            return ""
        try:
            entry = json.loads(line)
            key, sha256 = (str(entry["run"]), int(entry["image"])), str(entry["sha256"])
            detections = ImageDetections.from_lists(entry["boxes_xyxy"], entry["scores"], entry["classes"])
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
            return None
        self._lines.setdefault(key, {})[sha256] = detections
        return ""


def name_run(runtime: Runtime, options: EvaluationOptions) -> str:
    """A digest of all that decides what a model finds in a photograph."""
    parts = {
        "xdet": __version__,
        "model": runtime.sha256,
        "spec": runtime.spec.to_dict(),
        "runtime": runtime.name,
        "thresholds": asdict(options.thresholds),
        "truncate_input": options.truncate_input,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class DetectionFile:
    """The photographs of a results file."""

    file: str  # with the name of the model that made it
    sha256: str  # of that model
    name: str  # of what ran it
    class_names: Mapping[int, str]  # by number, as far as something was found
    # by the photograph's SHA-256: its width and height in pixels with what was found, or why there is no result
    entries: Mapping[str, tuple[tuple[int, int], ImageDetections] | str]

    def predictions(self, images: Sequence[LabelledImage]) -> Predictions:
        """What the file holds of those photographs; one that it has not, or without a result, is a problem."""
        detections: dict[int, ImageDetections] = {}
        problems = []
        for image in images:
            entry = self.entries.get(hash_file(image.path), "it is not among the results")
            if isinstance(entry, str):
                problems.append(Problem("unreadable_images", f"image {image.id}: '{self.file}': {entry}"))
            elif entry[0] != image.size_wh:
                message = f"image {image.id}: '{image.path}' {_sizes_text(entry[0], image)}"
                problems.append(Problem("images_of_another_size", message))
            else:
                detections[image.id] = entry[1]
        return Predictions(detections, tuple(problems), Seconds())


def is_detected(path: Path) -> bool:
    """Whether the suffix is one of results."""
    return path.suffix.lower() in RESULT_SUFFIXES


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
    return header, map(require_entry, read_entries(path))


def _read_entry(line: Mapping[str, Any], names: dict[int, str]) -> tuple[tuple[int, int], ImageDetections] | str:
    """One photograph; the names of its classes are added to ``names``."""
    if line.get("error") is not None:
        return str(line["error"])
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
    return size_wh, image_detections
