"""One image or frame as a row: what JSON Lines, CSV and Parquet hold of it, and the schema of Parquet (docs/json.md).

An *entry* is the object of a JSON line. A *row* is the same for tables: every column always there, boxes as
``list<struct>``, so that a count of rows is a count of images, and whoever unnests ``detections`` has the columns of
the CSV. An image that failed is a row without a size and with ``detections`` null, not empty, and its ``error``.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from xdet.detections import shortest_float32
from xdet.errors import import_extra

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdet.detections import Detections

METADATA_KEY = b"xdet"  # of the schema's metadata; the value is the header as JSON
CORNERS = ("x1", "y1", "x2", "y2")
# Columns of a row, and of each of its detections, to the name of their Arrow type; behind "!" it is never null.
COLUMNS = {
    "image": "!string",
    "sha256": "string",
    "frame": "int64",
    "time_s": "float64",
    "width": "int32",
    "height": "int32",
    "detections": "list",
    "error": "string",
}
BOX_COLUMNS = {
    "class_id": "!int32",
    "class_name": "!string",
    "score": "!float32",
    **dict.fromkeys(CORNERS, "!float32"),
    "anchor": "!int32",
}


class NamedImage(NamedTuple):
    """An image as results name it: its path, ``/`` between folders, or its address, and the SHA-256 of its file.

    That is empty where the file cannot be read. Of a video ``frame`` counts from 0, ``time_s`` from the first frame.
    """

    name: str
    sha256: str
    frame: int | None = None
    time_s: float | None = None

    @classmethod
    def of_entry(cls, entry: Mapping[str, Any]) -> NamedImage:
        """The image that an entry or a row names."""
        return cls(entry["image"], entry["sha256"] or "", entry.get("frame"), entry.get("time_s"))

    def to_entry(self) -> dict[str, Any]:
        """The keys of an entry that name the image."""
        moment = {} if self.frame is None else {"frame": self.frame, "time_s": self.time_s}
        return {"image": self.name, "sha256": self.sha256, **moment}


def detections_to_entry(image: NamedImage, detections: Detections) -> dict[str, Any]:
    """An image with its detections as the object of a JSON line."""
    return {**image.to_entry(), **detections.to_dict(), "image": image.name}


def failure_to_entry(image: NamedImage, error: str) -> dict[str, Any]:
    """An image without a result, and why, as the object of a JSON line."""
    return {**image.to_entry(), "error": error}


def entry_to_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with every column of ``COLUMNS``; each detection has those of ``BOX_COLUMNS``.

    Raises:
        LookupError: a detection lacks a member.
    """
    row = {column: entry.get(column) for column in COLUMNS}
    row["sha256"] = row["sha256"] or None
    if row["detections"] is not None:
        row["detections"] = [_flat(detection) for detection in entry["detections"]]
    return row


def require_entry(entry: object) -> dict[str, Any]:
    """The object of a line that somebody wrote, if every value is of its column's kind.

    Raises:
        ValueError, LookupError, TypeError, OverflowError: one is missing, or is of another kind.
    """
    if not isinstance(entry, dict):
        raise TypeError
    row = entry_to_row(entry)
    if " " in entry["sha256"] or (row["error"] is None and None in (row["width"], row["detections"])):
        raise ValueError
    for columns, values in ((COLUMNS, row), *((BOX_COLUMNS, box) for box in row["detections"] or ())):
        for column, kind in columns.items():
            _require_kind(values[column], kind)
    return entry


def _require_kind(value: object, kind: str) -> None:
    simple = kind.removeprefix("!")
    if value is None:
        sound = simple == kind
    elif simple == "string":
        sound = isinstance(value, str) and bool(value.encode("utf-8") or True)
    elif simple == "list":
        sound = isinstance(value, list)
    elif simple.startswith("int"):
        sound = type(value) is int and abs(value) < 2 ** (int(simple[3:]) - 1)
    else:
        sound = (type(value) is int and abs(value) <= 2**53) or (type(value) is float and math.isfinite(value))
    if not sound:
        raise ValueError


def row_to_entry(row: Mapping[str, Any]) -> dict[str, Any]:
    """Back from ``entry_to_row``; float32 numbers become their shortest decimals again."""
    image = NamedImage.of_entry(row)
    if row["error"] is not None:
        return failure_to_entry(image, row["error"])
    detections = [
        {
            "box_xyxy_px": [shortest_float32(box[corner]) for corner in CORNERS],
            "score": shortest_float32(box["score"]),
            **{key: box[key] for key in ("class_id", "class_name", "anchor")},
        }
        for box in row["detections"]
    ]
    return {**image.to_entry(), "width": row["width"], "height": row["height"], "detections": detections}


def arrow_schema(header: Mapping[str, Any] | None = None) -> Any:
    """The ``pyarrow.Schema`` of rows; ``header`` (``xdet.detection.results.results_header``) is kept as metadata.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    arrow = import_arrow()

    def field(name: str, kind: str) -> Any:
        if kind == "list":
            boxes = arrow.struct([field(*column) for column in BOX_COLUMNS.items()])
            return arrow.field(name, arrow.list_(arrow.field("element", boxes, nullable=False)))
        simple = arrow.type_for_alias(kind.removeprefix("!"))
        return arrow.field(name, simple, nullable=not kind.startswith("!"))

    metadata = None if header is None else {METADATA_KEY: json.dumps(header).encode("ascii")}
    return arrow.schema([field(*column) for column in COLUMNS.items()], metadata)


def import_arrow() -> Any:
    """The package ``pyarrow``.

    Raises:
        MissingExtraError: it is not installed.
    """
    return import_extra("pyarrow", "pyarrow, which Parquet needs,", "parquet")


def _flat(detection: Mapping[str, Any]) -> dict[str, Any]:
    """With a column per corner; whole numbers of real columns as real ones: Arrow takes none that float32 rounds."""
    values = {**detection, **dict(zip(CORNERS, detection["box_xyxy_px"], strict=True))}
    row = {column: values[column] for column in BOX_COLUMNS}
    for column, value in row.items():
        if type(value) is int and BOX_COLUMNS[column].endswith("float32") and abs(value) <= 2**53:
            row[column] = float(value)
    return row
