"""Detections as a table for people, and as JSON for programs: ``xdet.detections`` and COCO results (docs/json.md).

They hold no time, folder, host, thread or provider, so equal detections give equal bytes. Scores are the
shortest decimal that reads back as the same float32: two scores print alike only if they are equal. Boxes are
in pixels of the photograph, rounded to 1/100.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from xdet.detections import round_box, shortest_float32
from xdet.errors import DataError
from xdet.model.file import hash_model
from xdet.writing.blocks import Report, Section, Table
from xdet.writing.text import format_pixels, format_score, image_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.spec import Thresholds
    from xdet.detections import Detections
    from xdet.model.file import ModelFile

DETECTIONS_SCHEMA = "xdet.detections"
DETECTIONS_VERSION = 1


@dataclass(frozen=True, slots=True)
class FailedImage:
    """An image of a batch that gave no result: its name as the caller gave it, and the message, one line."""

    image: str
    error: str


@dataclass(frozen=True, slots=True)
class DetectionReport:
    """One run of one model over some images: results and failures in the order of the request."""

    model: ModelFile
    thresholds: Thresholds  # in force
    images: tuple[Detections, ...]
    failed: tuple[FailedImage, ...] = ()
    score_by_class: Mapping[str, float] | None = None
    decode: str = "full"  # or "reduced", as for ``Detector``

    @property
    def model_name(self) -> str:
        """File name of the model, without its folder."""
        return self.model.path.name

    @property
    def model_sha256(self) -> str:
        """SHA-256 of the model's bytes, as hex digits, computed when it is read."""
        return hash_model(self.model.data)


def detections_report(images: Sequence[Detections]) -> Report:
    """A table with one line per detection; an image without any has one line that says so."""
    rows: list[tuple[str, ...]] = []
    for name, detections in zip(image_names([detections.image for detections in images]), images, strict=True):
        for detection in detections:
            corners = (format_pixels(value) for value in detection.box_xyxy_px)
            rows.append((name, detection.class_name, format_score(detection.score), *corners))
        if not len(detections):
            rows.append((name, "nothing found", "", "", "", "", ""))
    table = Table(("image", "class", "score", "x1", "y1", "x2", "y2"), tuple(rows))
    return Report("xdet detect", (Section("", (table,)),))


def report_to_json(report: DetectionReport) -> str:
    """The report as JSON text of the schema ``xdet.detections``, one detection per line, with final newline.

    The path of a failed image is cut down to its name in the error, too, where the message quotes it as given.
    """
    images = [detections.image for detections in report.images]
    names = image_names(images + [failed.image for failed in report.failed])
    document = {
        "schema": DETECTIONS_SCHEMA,
        "version": DETECTIONS_VERSION,
        "model": {"name": report.model_name, "sha256": report.model_sha256},
        "thresholds": thresholds_to_dict(report.thresholds, report.score_by_class),
        **({} if report.decode == "full" else {"decode": report.decode}),
        "images": [
            {**detections.to_dict(), "image": name} for name, detections in zip(names, report.images, strict=False)
        ],
        "failed": [
            {"image": name, "error": failed.error.replace(failed.image, name)}
            for name, failed in zip(names[len(images) :], report.failed, strict=True)
        ],
    }
    return _to_json_lines(document) + "\n"


def thresholds_to_dict(thresholds: Thresholds, score_by_class: Mapping[str, float] | None) -> dict[str, Any]:
    """As JSON holds them: ``score_by_class`` only where it was given."""
    by_class = {} if score_by_class is None else {"score_by_class": dict(sorted(score_by_class.items()))}
    return {**asdict(thresholds), **by_class}


def detections_to_coco_json(images: Sequence[Detections]) -> str:
    """The detections as a COCO results list, one per line, with a final newline.

    ``image_id`` is ``coco_image_ids``; ``category_id`` is the class index plus one; ``bbox`` is x, y, width, height in
    pixels.

    Raises:
        DataError: two images would share one id.
    """
    results = []
    for image_id, detections in zip(coco_image_ids([detections.image for detections in images]), images, strict=True):
        for detection in detections:
            x1, y1, x2, y2 = round_box(detection.box_xyxy_px)
            bbox, score = [x1, y1, *round_box((x2 - x1, y2 - y1))], shortest_float32(detection.score)
            results.append({"image_id": image_id, "category_id": detection.class_id + 1, "bbox": bbox, "score": score})
    return _to_json_lines(results) + "\n"


def coco_image_ids(images: Sequence[str]) -> list[int | str]:
    """COCO image ids: the file stem as an integer where it is one (``00139.jpg`` is 139), else the name.

    A ``DataError`` refuses images that share an id: their results could not be told apart.
    """
    owner: dict[int | str, str] = {}
    ids: list[int | str] = []
    for image, name in zip(images, image_names(images), strict=True):
        stem = PurePath(image).stem
        image_id = int(stem) if stem.isascii() and stem.isdecimal() else name
        if image_id in owner:
            raise DataError(f"'{owner[image_id]}' and '{image}' share the COCO image id {image_id}; write two files")
        owner[image_id] = image
        ids.append(image_id)
    return ids


def _to_json_lines(value: object, indent: str = "") -> str:
    """JSON in which whatever holds no further object stands on one line."""
    if not _holds_objects(value):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    inner = indent + "  "
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(key)}: {_to_json_lines(member, inner)}" for key, member in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    lines = [inner + _to_json_lines(member, inner) for member in _members(value)]
    return "[\n" + ",\n".join(lines) + f"\n{indent}]"


def _holds_objects(value: object) -> bool:
    return any(isinstance(member, dict) or _holds_objects(member) for member in _members(value))


def _members(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
