"""Results of many photographs on disk as they are made, for going on after an interruption (docs/json.md).

``.jsonl``: a header that names schema, model, runtime and thresholds, then one line per image. ``.csv``: the same
header behind ``#``, the names of the columns, then one line per detection, or one without a box. Each image is one
write; nothing of it stays in memory but its name and digest.

A line names its image as the call did, whatever else the call named, and holds the SHA-256 of its file: an image is
done where both agree. The last line of a name counts.

An *entry* is the object of a JSON line. A *row* is the same for tables, CSV and Parquet: every column always there,
boxes as ``list<struct>``, so that a count of rows is a count of images, and whoever unnests ``detections`` has the
columns of the CSV. An image that failed is a row without a size and with ``detections`` null, not empty, and its
``error``.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from xdet.detection.report import thresholds_to_dict
from xdet.errors import DataError, UsageError
from xdet.writing.files import AppendedFile, encode_text
from xdet.writing.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from xdet.detection.detector import Detector
    from xdet.detections import Detections

LINES_SCHEMA = "xdet.detection_lines"
LINES_VERSION = 1
LINES_MARK = re.compile(rb'(# )?\{"schema": "xdet\.detection_lines"')
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
CSV_COLUMNS = (*(column for column in COLUMNS if column not in {"detections", "error"}), *BOX_COLUMNS, "error")


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


def read_entries(lines: Path) -> Iterator[dict[str, Any]]:
    """The entries of a file of JSON lines, behind its header, as they stand there."""
    with lines.open("rb") as file:
        file.readline()
        yield from map(json.loads, file)


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


def _flat(detection: Mapping[str, Any]) -> dict[str, Any]:
    """With a column per corner; whole numbers of real columns as real ones: Arrow takes none that float32 rounds."""
    values = {**detection, **dict(zip(CORNERS, detection["box_xyxy_px"], strict=True))}
    row = {column: values[column] for column in BOX_COLUMNS}
    for column, value in row.items():
        if type(value) is int and BOX_COLUMNS[column].endswith("float32") and abs(value) <= 2**53:
            row[column] = float(value)
    return row


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file holds results."""

    before: bytes  # in front of the header's JSON
    titles: bytes  # lines behind the header
    line_start: bytes  # of every further line
    lines: Callable[[Mapping[str, Any]], str]  # an entry as whole lines
    read: Callable[[bytes], Mapping[str, Any]]  # a line as an entry, but for boxes; raises ValueError and the like
    many: bool  # an image may have several lines


def results_header(detector: Detector, classes: Sequence[str] | None) -> dict[str, Any]:
    """All that decides what is found in an image, as the first line of a results file names it.

    ``description`` is the SHA-256 of what the file, its sidecar and options say of the detector: anchors, names, resize
    rule.
    """
    facts = {key: value for key, value in detector.spec.to_dict().items() if key != "assumed"}
    return {
        "schema": LINES_SCHEMA,
        "version": LINES_VERSION,
        "model": {"name": Path(detector.runtime.file).name, "sha256": detector.runtime.sha256},
        "description": hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
        "runtime": detector.runtime.name,
        "thresholds": thresholds_to_dict(detector.thresholds, detector.score_by_class),
        "classes": None if classes is None else sorted(classes),
        **({} if detector.decode == "full" else {"decode": detector.decode}),
    }


def is_results_file(path: Path) -> bool:
    """Whether the suffix names a file of lines."""
    return path.suffix.lower() in LAYOUTS


class ResultsFile:
    """A results file, open for more images; a new one is made if it is missing or empty, or is to be begun ``anew``.

    Its suffix is a key of ``LAYOUTS``; a file that is there must begin with the same ``header`` (``results_header``).

    Attributes:
        done: names of the images that it holds, to the SHA-256 of each.
        errors: names of those without a result, to why.

    Raises:
        UsageError: it holds results of another model, runtime, thresholds or classes.
        DataError: it is a file of another kind.
        OutputError: it cannot be written, or another process writes to it.
    """

    def __init__(self, path: Path, header: dict[str, Any], *, anew: bool = False) -> None:
        self.done: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self._films: dict[str, tuple[str, int]] = {}  # name to SHA-256 and the number of the next frame
        self._layout = layout = LAYOUTS[path.suffix.lower()]
        if not anew:
            _require_same_start(path, layout, header)
        self._file = AppendedFile(
            path,
            layout.before + encode_text(json.dumps(header, ensure_ascii=False)) + b"\n" + layout.titles,
            line_start=layout.line_start,
            read_line=self._read_line,
            what="result of xdet detect",
            advice=("name another file, or a results file of xdet", "choose another `json`"),
            redo_last=layout.many,
            alone=True,
            anew=anew,
        )
        if self._file.cut is not None:
            self._forget(self._file.cut)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def failed(self) -> int:
        """Images and films without a result, or with a part of it."""
        return len(self.errors)

    @property
    def images(self) -> int:
        """Photographs, and films of which no frame could be read."""
        return len(self.done.keys() - self._films.keys())

    @property
    def frames(self) -> int:
        """Frames of films."""
        return sum(count for _, count in self._films.values())

    def frames_done(self, film: NamedImage) -> int:
        """How many frames of a film the file has, from the first on; none where the film has changed."""
        sha256, next_frame = self._films.get(film.name, ("", 0))
        return next_frame if sha256 == film.sha256 else 0

    def add(self, image: NamedImage, detections: Detections) -> None:
        """Append an image's detections."""
        self.add_entry(detections_to_entry(image, detections))

    def add_failure(self, image: NamedImage, error: str) -> None:
        """Append an image that gave no result, and why; nothing where the file holds just that already."""
        self.add_entry(failure_to_entry(image, error))

    def add_entry(self, entry: Mapping[str, Any]) -> None:
        """As ``add`` or ``add_failure``, from an entry; an ``OutputError`` where it cannot be written."""
        image, error = NamedImage.of_entry(entry), entry.get("error")
        held = self.done.get(image.name), self.errors.get(image.name)
        if error is not None and held == (image.sha256, one_line(error)):
            return
        self._file.append(encode_text(self._layout.lines(entry)))
        self._note(image, error)

    def _note(self, image: NamedImage, error: str | None) -> None:
        if image.frame is not None:
            self._films[image.name] = (image.sha256, image.frame + 1)
            return
        self.done[image.name] = image.sha256
        self.errors.pop(image.name, None)
        if error:
            self.errors[image.name] = one_line(error)

    def _forget(self, image: NamedImage) -> None:
        if image.frame is not None:
            self._films[image.name] = (image.sha256, image.frame)
        else:
            self.done.pop(image.name, None)
            self.errors.pop(image.name, None)

    def _read_line(self, line: bytes) -> NamedImage | None:
        try:
            entry = self._layout.read(line)
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError, csv.Error):
            return None
        image = NamedImage.of_entry(entry)
        self._note(image, entry.get("error"))
        return image


def require_names(path: Path, names: Sequence[str]) -> None:
    """Refuse names that the file's layout cannot hold by a ``DataError``, before any work: a line break, for CSV."""
    if LAYOUTS[path.suffix.lower()].many:
        for name in names:
            if len(name.splitlines()) != 1 or encode_text(name).decode("utf-8") != name:
                raise DataError(f"{name!r} cannot stand in a line of CSV; rename the image, or write .jsonl")


def require_same(path: Path, there: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    """Refuse to go on with the results of a run whose header is another, by a ``UsageError``."""
    other = [key for key in dict.fromkeys((*header, *there)) if there.get(key) != header.get(key)]
    if other:
        raise UsageError(
            f"'{path}' holds results of another {', another '.join(other)}; go on as that run was called, or name "
            "another file"
        )


def _require_same_start(path: Path, layout: Layout, header: dict[str, Any]) -> None:
    """``require_same`` of a results file; any other file is left to ``AppendedFile``."""
    try:
        with path.open("rb") if path.is_file() else io.BytesIO() as file:
            there = json.loads(file.readline(1 << 16).removeprefix(layout.before))
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(there, dict) and there.get("schema") == LINES_SCHEMA:
        require_same(path, there, header)


def _to_csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _entry_to_csv(entry: Mapping[str, Any]) -> str:
    row = entry_to_row(entry)
    if row["error"] is not None:
        row["error"] = one_line(row["error"])
    return _to_csv([{**row, **box}.get(column) for column in CSV_COLUMNS] for box in row["detections"] or [{}])


def _csv_to_entry(line: bytes) -> dict[str, Any]:
    (values,) = csv.reader([line.decode("utf-8")], strict=True)
    row: dict[str, Any] = dict(zip(CSV_COLUMNS, values, strict=True))
    row["frame"] = int(row["frame"]) if row["frame"] else None
    row["time_s"] = float(row["time_s"]) if row["time_s"] else None
    return row


JSON_LINES = Layout(
    before=b"",
    titles=b"",
    line_start=b'{"image": "',
    lines=lambda entry: json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n",
    read=lambda line: require_entry(json.loads(line)),
    many=False,
)
CSV = Layout(b"# ", _to_csv([CSV_COLUMNS]).encode(), b"", _entry_to_csv, _csv_to_entry, many=True)
LAYOUTS: dict[str, Layout] = {".jsonl": JSON_LINES, ".csv": CSV}
