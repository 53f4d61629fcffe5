"""Results as one Parquet file, which grows as JSON Lines until it is whole.

A Parquet file has no footer, and so cannot be read, before it is closed: what a killed process wrote of one is lost.
Part files in a folder lose the part that was being filled, and keep outdated rows of photographs that have changed. So
results go, image by image, into ``FILE.parquet.jsonl``, which ``--resume`` goes on with. When all are done they become
``FILE.parquet``, in row groups, under a temporary name that moves into place, and the lines are removed. Going on with
a finished file turns it into lines first.
"""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
from contextlib import contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

from converters.files import open_regular, write_problem
from xdet.detection.results import (
    BOX_COLUMNS,
    COLUMNS,
    CORNERS,
    LINES_SCHEMA,
    NamedImage,
    ResultsFile,
    entry_to_row,
    failure_to_entry,
    read_entries,
    require_entry,
    require_same,
)
from xdet.detections import shortest_float32
from xdet.errors import DataError, OutputError, import_extra
from xdet.writing.files import encode_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

METADATA_KEY = b"xdet"  # of the schema's metadata; the value is the header as JSON
SUFFIX = ".parquet"
PARQUET_MARK = re.compile(b"PAR1")
ROWS_PER_GROUP = 8192
BOXES_PER_GROUP = 1 << 18
ROWS_AT_ONCE = 256
LARGEST_BATCH = 64 << 20  # bytes of the text and of the arrays of that many rows
TEXT_COLUMNS = ("image", "sha256", "error", "detections.list.element.class_name")
COUNT = """
import sys
from pyarrow import parquet
data = parquet.read_metadata(sys.argv[1])
groups = [data.row_group(i) for i in range(data.num_row_groups)]
values = [group.column(i).num_values for group in groups for i in range(group.num_columns)]
print(max([0, *(group.num_rows for group in groups)]), max([0, *values]))
"""  # the most rows of a row group, and the most values of a column in one
COUNT_S = 60
LARGEST_RESULTS = 4 << 30  # bytes: some ten million photographs


def is_parquet(path: Path) -> bool:
    """Whether the suffix names a Parquet file."""
    return path.suffix.lower() == SUFFIX


def growing_path(path: Path) -> Path:
    """The file that grows while results are made: beside a Parquet file its lines, else the file itself."""
    return path.with_name(f"{path.name}.jsonl") if is_parquet(path) else path


@contextmanager
def open_results(path: Path, header: Mapping[str, Any], *, anew: bool = False) -> Iterator[ResultsFile]:
    """A results file, open for more images; a Parquet file is made of it when the block ends without an error.

    Args:
        path: the file; its suffix is ``.jsonl``, ``.csv`` or ``.parquet``.
        header: ``xdet.detection.results.results_header``.
        anew: begin anew, whatever the file holds.

    Raises:
        MissingExtraError: pyarrow is not installed.
        UsageError, DataError, OutputError: as ``ResultsFile``.
    """
    lines = growing_path(path)
    if is_parquet(path):
        import_arrow()
        if path.exists() and not lines.exists() and not anew:
            _to_lines(path, lines, header)
    with ResultsFile(lines, dict(header), anew=anew) as results:
        yield results
        if is_parquet(path):
            lines_to_parquet(lines, path)
            with suppress(PermissionError):  # Windows removes no open file
                lines.unlink()
    if is_parquet(path):
        lines.unlink(missing_ok=True)


def lines_to_parquet(lines: Path, target: Path) -> None:
    """Write JSON Lines of ``xdet detect`` as a Parquet file, whole or not at all.

    Of several lines of one image the last counts; of a video that has changed, the frames of its last content.

    Raises:
        MissingExtraError: pyarrow is not installed.
        OutputError: it cannot be written.
    """
    arrow = import_arrow()
    from pyarrow import parquet

    last = {entry["image"]: (entry["sha256"], number) for number, entry in enumerate(read_entries(lines))}

    def counts(number: int, entry: dict[str, Any]) -> bool:
        sha256, last_number = last[entry["image"]]
        return sha256 == entry["sha256"] and (number == last_number or "frame" in entry)

    rows = (entry_to_row(entry) for number, entry in enumerate(read_entries(lines)) if counts(number, entry))
    with lines.open("rb") as file:
        schema = arrow_schema(json.loads(file.readline()))
    with _replaced(target) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for group in _in_row_groups(rows):
            writer.write_table(arrow.Table.from_pylist(group, schema))


def read_parquet(path: Path) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """The header and the entries of a finished file.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DataError: it is no Parquet file of ``xdet detect``; also while entries are taken.
    """
    arrow = import_arrow()
    from pyarrow import parquet

    foreign = DataError(f"'{path}' is no Parquet file of xdet detect; name another file")
    damaged = (
        OSError, arrow.ArrowException, ValueError, LookupError, TypeError, OverflowError, RecursionError,
        subprocess.SubprocessError,
    )  # fmt: skip
    try:
        with open_regular(path, LARGEST_RESULTS):  # a pipe, which would wait for a writer, is refused
            header = json.loads((parquet.read_schema(path).metadata or {}).get(METADATA_KEY, b"null"))
    except damaged as error:
        raise foreign from error
    if not isinstance(header, dict) or header.get("schema") != LINES_SCHEMA:
        raise foreign

    def entries() -> Iterator[dict[str, Any]]:
        try:
            _require_modest_groups(path)
            with parquet.ParquetFile(path, read_dictionary=TEXT_COLUMNS) as file:
                for batch in file.iter_batches(ROWS_AT_ONCE):
                    _require_modest_batch(batch)
                    yield from (require_entry(row_to_entry(row)) for row in batch.to_pylist())
        except damaged as error:
            raise foreign from error

    return header, entries()


def _in_row_groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Lists of rows that end at ``ROWS_PER_GROUP``, and before their boxes are more than ``BOXES_PER_GROUP``."""
    group: list[dict[str, Any]] = []
    boxes = 0
    for row in rows:
        count = len(row["detections"] or ())
        if group and (len(group) == ROWS_PER_GROUP or boxes + count > BOXES_PER_GROUP):
            yield group
            group, boxes = [], 0
        group.append(row)
        boxes += count
    if group:
        yield group


def _require_modest_groups(path: Path) -> None:
    """Refuse by ValueError a file whose few bytes unfold to more than xdet writes into a row group.

    A process of its own counts: pyarrow ends the one that asks for the columns of some damaged files.
    """
    counted = subprocess.run(  # noqa: S603 - this Python, a literal, a path
        [sys.executable, "-P", "-c", COUNT, str(path.resolve())],
        capture_output=True,
        timeout=COUNT_S,
        check=False,
        text=True,
    )
    rows, values = map(int, counted.stdout.split())
    if rows > ROWS_PER_GROUP or values > BOXES_PER_GROUP + ROWS_PER_GROUP:
        raise ValueError


def _require_modest_batch(batch: Any) -> None:
    """Refuse by ValueError rows whose text, each time it stands there, or arrays are larger than any of xdet's."""
    from pyarrow import compute

    boxes = batch.column("detections").flatten()
    texts = [*(batch.column(name) for name in TEXT_COLUMNS[:-1]), boxes.field("class_name")]
    lengths = (compute.binary_length(text.dictionary).take(text.indices) for text in texts)
    if batch.nbytes + sum(compute.sum(length).as_py() or 0 for length in lengths) > LARGEST_BATCH:
        raise ValueError


def _to_lines(path: Path, lines: Path, header: Mapping[str, Any]) -> None:
    """The lines of a finished Parquet file again, if it is of the same run."""
    there, entries = read_parquet(path)
    require_same(path, there, header)
    with _replaced(lines) as temporary, temporary.open("wb") as growing:
        for line in chain([there], entries):
            growing.write(encode_text(json.dumps(line, ensure_ascii=False) + "\n"))


@contextmanager
def _replaced(target: Path) -> Iterator[Path]:
    """A temporary path, whose file moves over ``target`` when the block ends without an error."""
    try:
        place = target.resolve()
        temporary = place.with_name(f".xdet-{secrets.token_hex(6)}.tmp")
        try:
            yield temporary
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write '{target}': {write_problem(error, target)}") from error


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
    """The ``pyarrow.Schema`` of rows; ``header`` (``results_header``) is kept as metadata."""
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
    """The package ``pyarrow``; a ``MissingExtraError`` where it is not installed."""
    return import_extra("pyarrow", "pyarrow, which Parquet needs,", "parquet")
