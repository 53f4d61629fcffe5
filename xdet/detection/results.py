"""Results of many photographs on disk as they are made, so that an interrupted call goes on where it stopped (docs/json.md).

``.jsonl``: a header that names schema, model, runtime and thresholds, then one line per image. ``.csv``: the same header behind
``#``, the names of the columns, then one line per detection, or one without a box. Each image is one write; nothing of it stays
in memory but its name.
"""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file holds results.

    Attributes:
        before: what stands in front of the header's JSON.
        titles: lines behind the header.
        line_start: how every further line begins.
        found: an image's name and its detections to whole lines.
        failed: an image's name and its error to a line.
        read: a line to the image's name and whether it failed; raises ValueError or LookupError for one of another kind.
        many: an image may have several lines.
    """

    before: bytes
    titles: bytes
    line_start: bytes
    found: Callable[[str, Detections], str]
    failed: Callable[[str, str], str]
    read: Callable[[bytes], tuple[str, bool]]
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

    Attributes:
        done: names of the images that it holds.
        failed: how many of them have no result.

    Raises:
        UsageError: it holds results of another model, runtime, thresholds or classes.
        DataError: it is a file of another kind.
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.done: set[str] = set()
        self._failures: set[str] = set()
        self._layout = layout = LAYOUTS[path.suffix.lower()]
        _require_same(path, layout, header)
        self._file = AppendedFile(
            path,
            layout.before + encode_text(json.dumps(header, ensure_ascii=False)) + b"\n" + layout.titles,
            line_start=layout.line_start,
            read_line=self._read_line,
            what="result of xdet detect",
            advice=("name another file, or a results file of xdet", "choose another --json"),
            redo_last=layout.many,
        )
        self.done.discard(self._file.cut or "")
        self._failures.discard(self._file.cut or "")

    @property
    def failed(self) -> int:
        """Images without a result."""
        return len(self._failures)

    def add(self, name: str, found: Detections) -> None:
        """Append an image's detections.

        Raises:
            OutputError: they cannot be written.
        """
        self._file.append(encode_text(self._layout.found(name, found)))
        self.done.add(name)

    def add_failure(self, name: str, error: str) -> None:
        """Append an image that gave no result, and why.

        Raises:
            OutputError: it cannot be written.
        """
        self._file.append(encode_text(self._layout.failed(name, error)))
        self.done.add(name)
        self._failures.add(name)

    def _read_line(self, line: bytes) -> str | None:
        try:
            name, failed = self._layout.read(line)
        except (ValueError, LookupError, TypeError, RecursionError, csv.Error):
            return None
        self.done.add(name)
        if failed:
            self._failures.add(name)
        return name


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


def _found_to_json(name: str, found: Detections) -> str:
    return json.dumps({**found.to_dict(), "image": name}, ensure_ascii=False, allow_nan=False) + "\n"


def _failed_to_json(name: str, error: str) -> str:
    return json.dumps({"image": name, "error": error}, ensure_ascii=False) + "\n"


def _json_to_name(line: bytes) -> tuple[str, bool]:
    entry = json.loads(line)
    if "error" not in entry:
        entry["detections"]
    return str(entry["image"]), "error" in entry


def _to_csv(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _found_to_csv(name: str, found: Detections) -> str:
    size = (found.width, found.height)
    rows: list[tuple[object, ...]] = []
    for detection in map(type(found[0]).to_dict, found) if len(found) else ():
        what = (detection["class_id"], detection["class_name"], detection["score"])
        rows.append((name, *size, *what, *detection["box_xyxy_px"], detection["anchor"], ""))
    return _to_csv(rows or [(name, *size, *[""] * 9)])


def _failed_to_csv(name: str, error: str) -> str:
    return _to_csv([(name, *[""] * 10, " ".join(error.split()))])


def _csv_to_name(line: bytes) -> tuple[str, bool]:
    (row,) = csv.reader([line.decode("utf-8")], strict=True)
    if len(row) != len(COLUMNS):
        raise ValueError("another number of columns")
    return row[0], bool(row[-1])


JSON_LINES = Layout(b"", b"", b'{"image": "', _found_to_json, _failed_to_json, _json_to_name, many=False)
CSV = Layout(b"# ", _to_csv([COLUMNS]).encode(), b"", _found_to_csv, _failed_to_csv, _csv_to_name, many=True)
LAYOUTS: dict[str, Layout] = {".jsonl": JSON_LINES, ".csv": CSV}
