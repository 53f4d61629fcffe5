"""Results of many photographs on disk as they are made, so that an interrupted call goes on where it stopped (docs/json.md).

``.jsonl``: a header that names schema, model, runtime and thresholds, then one line per image. ``.csv``: the same header behind
``#``, the names of the columns, then one line per detection, or one without a box. Each image is one write; nothing of it stays
in memory but its name and digest.

A line names its image as the call did, whatever else the call named, and holds the SHA-256 of its file: an image is done where
both agree. The last line of a name counts.
"""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from xdet.errors import DataError, UsageError
from xdet.writing.appended import AppendedFile
from xdet.writing.files import encode_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xdet.detection.detector import Detector
    from xdet.detections import Detections

LINES_SCHEMA = "xdet.detection_lines"
LINES_VERSION = 1
LINES_MARK = re.compile(rb'(# )?\{"schema": "xdet\.detection_lines"')
COLUMNS = (
    "image",
    "sha256",
    "width",
    "height",
    "class_id",
    "class_name",
    "score",
    "x1",
    "y1",
    "x2",
    "y2",
    "anchor",
    "error",
)


class NamedImage(NamedTuple):
    """An image as a line holds it: its path, ``/`` between folders, and its SHA-256, empty where the file cannot be read."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file holds results.

    Attributes:
        before: what stands in front of the header's JSON.
        titles: lines behind the header.
        line_start: how every further line begins.
        found: an image and its detections to whole lines.
        failed: an image and its error to a line.
        read: a line to the image and whether it failed; raises ValueError or LookupError for one of another kind.
        many: an image may have several lines.
    """

    before: bytes
    titles: bytes
    line_start: bytes
    found: Callable[[NamedImage, Detections], str]
    failed: Callable[[NamedImage, str], str]
    read: Callable[[bytes], tuple[NamedImage, bool]]
    many: bool


def results_header(detector: Detector, classes: Sequence[str] | None) -> dict[str, Any]:
    """All that decides what is found in an image, as the first line of a results file names it."""
    return {
        "schema": LINES_SCHEMA,
        "version": LINES_VERSION,
        "model": {"name": Path(detector.runtime.file).name, "sha256": detector.runtime.sha256},
        "runtime": detector.runtime.name,
        "thresholds": asdict(detector.thresholds),
        "classes": None if classes is None else sorted(classes),
    }


def is_results_file(path: Path) -> bool:
    """Whether the suffix names a file of lines."""
    return path.suffix.lower() in LAYOUTS


class ResultsFile:
    """A results file, open for more images; a new one is made if it is missing or empty.

    Args:
        path: the file; its suffix is a key of ``LAYOUTS``.
        header: ``results_header``; a file that is there must begin with the same.
        anew: begin anew, whatever the file holds.

    Attributes:
        done: names of the images that it holds, to the SHA-256 of each.
        failed: how many of them have no result.

    Raises:
        UsageError: it holds results of another model, runtime, thresholds or classes.
        DataError: it is a file of another kind.
        OutputError: it cannot be written, or another process writes to it.
    """

    def __init__(self, path: Path, header: dict[str, Any], *, anew: bool = False) -> None:
        self.done: dict[str, str] = {}
        self._failures: set[str] = set()
        self._layout = layout = LAYOUTS[path.suffix.lower()]
        if not anew:
            _require_same(path, layout, header)
        self._file = AppendedFile(
            path,
            layout.before + encode_text(json.dumps(header, ensure_ascii=False)) + b"\n" + layout.titles,
            line_start=layout.line_start,
            read_line=self._read_line,
            what="result of xdet detect",
            advice=("name another file, or a results file of xdet", "choose another --json"),
            redo_last=layout.many,
            alone=True,
            anew=anew,
        )
        if self._file.cut is not None:
            name = self._file.cut.partition(" ")[2]
            self.done.pop(name, None)
            self._failures.discard(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def failed(self) -> int:
        """Images without a result."""
        return len(self._failures)

    def add(self, image: NamedImage, found: Detections) -> None:
        """Append an image's detections.

        Raises:
            OutputError: they cannot be written.
        """
        self._file.append(encode_text(self._layout.found(image, found)))
        self._note(image, failed=False)

    def add_failure(self, image: NamedImage, error: str) -> None:
        """Append an image that gave no result, and why.

        Raises:
            OutputError: it cannot be written.
        """
        self._file.append(encode_text(self._layout.failed(image, error)))
        self._note(image, failed=True)

    def _note(self, image: NamedImage, *, failed: bool) -> None:
        self.done[image.name] = image.sha256
        (self._failures.add if failed else self._failures.discard)(image.name)

    def _read_line(self, line: bytes) -> str | None:
        try:
            image, failed = self._layout.read(line)
        except (ValueError, LookupError, TypeError, RecursionError, csv.Error):
            return None
        self._note(image, failed=failed)
        return f"{image.sha256} {image.name}"


def require_names(path: Path, names: Sequence[str]) -> None:
    """Refuse names that the file's layout cannot hold, before any work.

    Raises:
        DataError: a line break in a name, for CSV.
    """
    if LAYOUTS[path.suffix.lower()].many:
        for name in names:
            if len(name.splitlines()) != 1 or encode_text(name).decode("utf-8") != name:
                raise DataError(f"{name!r} cannot stand in a line of CSV; rename the image, or write .jsonl")


def _require_same(path: Path, layout: Layout, header: dict[str, Any]) -> None:
    """Tell what is different about the run that made a results file; any other file is left to ``AppendedFile``."""
    try:
        with path.open("rb") if path.is_file() else io.BytesIO() as file:
            there = json.loads(file.readline(1 << 16).removeprefix(layout.before))
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(there, dict) and there.get("schema") == LINES_SCHEMA and there != header:
        other = [key for key in dict.fromkeys((*header, *there)) if there.get(key) != header.get(key)]
        raise UsageError(
            f"'{path}' holds results of another {', another '.join(other)}; go on as that run was called, or name another file"
        )


def _found_to_json(image: NamedImage, found: Detections) -> str:
    entry = {"image": "", "sha256": image.sha256, **found.to_dict()} | {"image": image.name}
    return json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"


def _failed_to_json(image: NamedImage, error: str) -> str:
    return (
        json.dumps({"image": image.name, "sha256": image.sha256, "error": error}, ensure_ascii=False) + "\n"
    )


def _json_to_image(line: bytes) -> tuple[NamedImage, bool]:
    entry = json.loads(line)
    if "error" not in entry:
        entry["detections"]
    return NamedImage(str(entry["image"]), str(entry["sha256"])), "error" in entry


def _to_csv(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _found_to_csv(image: NamedImage, found: Detections) -> str:
    start = (*image, found.width, found.height)
    rows: list[tuple[object, ...]] = []
    for detection in map(type(found[0]).to_dict, found) if len(found) else ():
        what = (detection["class_id"], detection["class_name"], detection["score"])
        rows.append((*start, *what, *detection["box_xyxy_px"], detection["anchor"], ""))
    return _to_csv(rows or [(*start, *[""] * 9)])


def _failed_to_csv(image: NamedImage, error: str) -> str:
    return _to_csv([(*image, *[""] * 10, " ".join(error.split()))])


def _csv_to_image(line: bytes) -> tuple[NamedImage, bool]:
    (row,) = csv.reader([line.decode("utf-8")], strict=True)
    if len(row) != len(COLUMNS):
        raise ValueError("another number of columns")
    return NamedImage(row[0], row[1]), bool(row[-1])


JSON_LINES = Layout(b"", b"", b'{"image": "', _found_to_json, _failed_to_json, _json_to_image, many=False)
CSV = Layout(b"# ", _to_csv([COLUMNS]).encode(), b"", _found_to_csv, _failed_to_csv, _csv_to_image, many=True)
LAYOUTS: dict[str, Layout] = {".jsonl": JSON_LINES, ".csv": CSV}
