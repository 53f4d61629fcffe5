"""Parquet: one row per image, readable by every reader, never half a file, and gone on with after any interruption."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.slow import mostly_slow
from tests.xdet.finished_models import finished_model, red_image
from xdet.detection import parquet as written
from xdet.detection.batch import detect_to_file
from xdet.detection.detector import Detector
from xdet.detection.parquet import (
    METADATA_KEY,
    arrow_schema,
    growing_path,
    lines_to_parquet,
    open_results,
    row_to_entry,
)
from xdet.detection.results import CSV_COLUMNS, LINES_SCHEMA, NamedImage, entry_to_row, failure_to_entry, results_header
from xdet.errors import DataError, MissingExtraError, OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

parquet = pytest.importorskip("pyarrow.parquet", reason='needs pip install "xdet[parquet]"')


@pytest.fixture
def detector(tmp_path: Path) -> Iterator[Detector]:
    (tmp_path / "m.onnx").write_bytes(finished_model())
    with Detector(tmp_path / "m.onnx", threads=1) as detector:
        yield detector


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Two boxes, none, and a picture that cannot be read."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, reds in (("a", [250, 0, 199, 0]), ("b", [0] * 4)):
        Image.fromarray(red_image(*reds)[0]).save(folder / f"{name}.png")
    (folder / "c.png").write_bytes(b"no picture")
    return sorted(folder.iterdir())


def write(detector: Detector, images: list[Path], path: Path) -> None:
    with open_results(path, results_header(detector, None)) as results:
        detect_to_file(detector, images, results)


def test_a_row_is_an_image_found_empty_or_failed(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    write(detector, images, tmp_path / "out.parquet")
    write(detector, images, tmp_path / "out.jsonl")
    table = parquet.read_table(tmp_path / "out.parquet")
    header, *entries = map(json.loads, (tmp_path / "out.jsonl").read_text("utf-8").splitlines())
    assert json.loads(table.schema.metadata[METADATA_KEY]) == header
    assert table.schema.equals(arrow_schema())
    rows = table.to_pylist()
    assert [row_to_entry(row) for row in rows] == entries  # to the last digit
    found, empty, failed = rows
    assert [box["score"] for box in found["detections"]] == [np.float32(250 / 255), np.float32(199 / 255)]
    assert (empty["detections"], empty["width"], empty["error"]) == ([], 2, None)
    assert (failed["detections"], failed["width"]) == (None, None)
    assert "is no readable image" in failed["error"]
    assert not growing_path(tmp_path / "out.parquet").exists()


def test_pandas_explodes_it_to_the_columns_of_the_csv(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="needs pip install pandas")
    write(detector, images, tmp_path / "out.parquet")
    write(detector, images, tmp_path / "out.csv")
    frame = pandas.read_parquet(tmp_path / "out.parquet").explode("detections", ignore_index=True)
    boxes = pandas.json_normalize(frame.pop("detections").map(lambda box: box if isinstance(box, dict) else {}))
    flat = pandas.concat([frame, boxes], axis=1)[list(CSV_COLUMNS)]
    expected = pandas.read_csv(tmp_path / "out.csv", comment="#")
    pandas.testing.assert_frame_equal(flat, expected, check_dtype=False)


def interrupted(detector: Detector, images: list[Path], path: Path) -> None:
    with open_results(path, results_header(detector, None)) as results:
        detect_to_file(detector, images, results)
        raise KeyboardInterrupt


def test_an_interrupted_run_leaves_lines_and_goes_on_to_the_same_file(
    detector: Detector, images: list[Path], tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole.parquet", tmp_path / "cut.parquet"
    write(detector, images, whole)
    with pytest.raises(KeyboardInterrupt):
        interrupted(detector, images[:1], cut)
    assert not cut.exists()
    assert growing_path(cut).read_bytes().count(b"\n") == 2
    write(detector, images, cut)
    assert cut.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.glob("*cut*")} == {"cut.parquet"}


def test_a_finished_file_is_gone_on_with_and_changed_images_have_one_row(
    detector: Detector, images: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "out.parquet"
    write(detector, images[:2], path)
    Image.new("RGB", (3, 3)).save(images[0])
    write(detector, images, path)
    rows = parquet.read_table(path).to_pylist()
    assert [(row["image"][-5:], row["width"]) for row in rows] == [("b.png", 2), ("a.png", 3), ("c.png", None)]


def test_results_of_another_run_are_refused_unharmed(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    write(detector, images, path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"out\.parquet' holds results of another classes; go on as"):
        open_results(path, results_header(detector, ["person"])).__enter__()
    assert path.read_bytes() == before
    assert not growing_path(path).exists()


@pytest.mark.parametrize("content", [b"my notes", b"PAR1" * 9, b""])
def test_a_file_of_another_kind_is_refused_unharmed(detector: Detector, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "out.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"out\.parquet' is no Parquet file of xdet detect; name another file"):
        open_results(path, results_header(detector, None)).__enter__()
    assert path.read_bytes() == content


def test_a_parquet_file_of_somebody_else_is_refused(detector: Detector, tmp_path: Path) -> None:
    import pyarrow as pa

    parquet.write_table(pa.table({"image": ["a"]}), tmp_path / "out.parquet")
    with pytest.raises(DataError, match="is no Parquet file of xdet detect"):
        open_results(tmp_path / "out.parquet", results_header(detector, None)).__enter__()


@pytest.mark.parametrize("places", mostly_slow([12, 60], fast=1))
def test_a_damaged_file_and_a_pipe_are_refused(
    places: int, detector: Detector, images: list[Path], tmp_path: Path
) -> None:
    write(detector, images, tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    path = tmp_path / "out.parquet"
    for place in range(4, len(whole) - 8, max(1, len(whole) // places)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        before = path.read_bytes()
        try:
            read_parquet_whole(path)
        except DataError:
            with pytest.raises((DataError, UsageError)):
                open_results(path, results_header(detector, None)).__enter__()
            assert path.read_bytes() == before
            assert not growing_path(path).exists()
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe.parquet")
        with pytest.raises(DataError, match="is no Parquet file"):
            written.read_parquet(tmp_path / "pipe.parquet")


BOX = {"class_id": 0, "class_name": "p", "score": 0.5, "x1": 0, "y1": 0, "x2": 1, "y2": 1, "anchor": 0}
ROW = {"image": "a", "sha256": "0", "width": 1, "height": 1}


@pytest.mark.parametrize(
    "rows",
    [
        [{**ROW, "detections": [BOX] * (2 * written.BOXES_PER_GROUP)}],
        [{**ROW, "detections": []}] * (2 * written.ROWS_PER_GROUP),
        [{**ROW, "detections": [], "image": "x" * (1 << 20)}] * 100,
        [{**ROW, "detections": [{**BOX, "class_name": "x" * (1 << 16)}] * 2000}],
    ],
    ids=["boxes", "rows", "names", "classes"],
)
def test_a_small_file_that_unfolds_to_much_is_refused(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    table = pa.Table.from_pylist(rows, arrow_schema({"schema": LINES_SCHEMA}))
    parquet.write_table(table, tmp_path / "bomb.parquet", compression="zstd")
    assert (tmp_path / "bomb.parquet").stat().st_size < 200_000
    with pytest.raises(DataError, match="is no Parquet file of xdet detect"):
        read_parquet_whole(tmp_path / "bomb.parquet")


def test_a_file_whose_columns_end_the_process_that_asks_for_them_is_refused(
    detector: Detector, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.parquet"
    write(detector, images, path)
    read_parquet_whole(path)
    monkeypatch.setattr(written, "COUNT", "import os; os.abort()")
    with pytest.raises(DataError, match="is no Parquet file of xdet detect"):
        read_parquet_whole(path)


def test_whole_numbers_of_real_columns_become_real_ones(tmp_path: Path) -> None:
    box = {"class_id": 0, "class_name": "p", "score": 1, "anchor": 0, "box_xyxy_px": [0, 0, 2**31 - 1, 5]}
    entry = {"image": "a", "sha256": "0", "width": 1, "height": 1, "detections": [box]}
    lines = tmp_path / "out.parquet.jsonl"
    lines.write_text(json.dumps({"schema": LINES_SCHEMA}) + "\n" + json.dumps(entry) + "\n", "utf-8")
    lines_to_parquet(lines, tmp_path / "out.parquet")
    (row,) = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert (row["detections"][0]["x2"], row["detections"][0]["score"]) == (2.0**31, 1.0)


def read_parquet_whole(path: Path) -> None:
    _, entries = written.read_parquet(path)
    for _ in entries:
        pass


def test_many_rows_are_written_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "ROWS_PER_GROUP", 2)
    lines = tmp_path / "out.parquet.jsonl"
    entries = [failure_to_entry(NamedImage(f"{number}.jpg", ""), "why") for number in range(5)]
    lines.write_text("".join(json.dumps(line) + "\n" for line in ({"schema": LINES_SCHEMA}, *entries)), "utf-8")
    lines_to_parquet(lines, tmp_path / "out.parquet")
    with parquet.ParquetFile(tmp_path / "out.parquet") as file:
        assert file.num_row_groups == 3
        assert file.read().to_pylist() == [entry_to_row(entry) for entry in entries]


def test_a_folder_in_the_way_keeps_the_lines(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    path, lines = tmp_path / "out.parquet", tmp_path / "out.jsonl"
    write(detector, images, lines)
    path.mkdir()
    with pytest.raises(OutputError, match=r"cannot write '.*out\.parquet': it is a folder; give a file name"):
        lines_to_parquet(lines, path)
    assert lines.read_bytes().count(b"\n") == 4


def test_without_pyarrow_the_extra_is_named_before_any_work(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'pip install "xdet\[parquet\]"'):
        open_results(tmp_path / "out.parquet", results_header(detector, None)).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
