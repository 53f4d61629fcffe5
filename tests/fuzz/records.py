"""Mutants of what ``xdet detect`` wrote, read again by ``--resume`` and ``xdet eval``, and of videos."""

from __future__ import annotations

import io
import json
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fuzz.mutations import bend_bytes, bend_tree, to_json
from xdet.detection.parquet import growing_path, open_results
from xdet.detection.results import CSV
from xdet.errors import XdetError
from xdet.evaluation.evaluate import evaluate
from xdet.evaluation.report import evaluation_report
from xdet.writing.terminal import report_text

if TYPE_CHECKING:
    from random import Random

THRESHOLDS = {"score": 0.001, "iou": 0.5, "max_detections": 100}
HEADER: dict[str, Any] = {
    "schema": "xdet.detection_lines",
    "version": 1,
    "model": {"name": "m.onnx", "sha256": "0" * 64},
    "description": "1" * 64,
    "runtime": "onnxruntime",
    "thresholds": THRESHOLDS,
    "classes": None,
}
BOX = {"class_id": 0, "class_name": "person", "score": 0.75, "box_xyxy_px": [0.0, 1.5, 4.0, 8.0], "anchor": 3}
PICTURE = b"P6 8 8 255\n" + bytes(8 * 8 * 3)
COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "1.ppm", "width": 8, "height": 8}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 1, 4, 6], "area": 24.0, "iscrowd": 0}],
    "categories": [{"id": 1, "name": "person"}],
}
ENTRIES: tuple[dict[str, Any], ...] = (
    {"image": "1.ppm", "sha256": sha256(PICTURE).hexdigest(), "width": 8, "height": 8, "detections": [BOX, BOX]},
    {"image": "2.png", "sha256": "", "error": "cannot be read"},
    {"image": "f.mp4", "sha256": "3" * 64, "frame": 0, "time_s": 0.0, "width": 8, "height": 8, "detections": []},
)


@cache
def parquet_corpus() -> bytes:
    """A finished file of ``ENTRIES``."""
    import pyarrow as pa
    from pyarrow import parquet

    from xdet.detection.parquet import arrow_schema
    from xdet.detection.results import entry_to_row

    file = io.BytesIO()
    table = pa.Table.from_pylist([entry_to_row(entry) for entry in ENTRIES], arrow_schema(HEADER))
    parquet.write_table(table, file)
    return file.getvalue()


def _csv() -> list[bytes]:
    lines = [line for entry in ENTRIES for line in CSV.lines(entry).encode().splitlines()]
    return [CSV.before + to_json(HEADER), CSV.titles.rstrip(), *lines]


def _lines() -> list[bytes]:
    return [to_json(HEADER), *map(to_json, ENTRIES)]


def make_results(random: Random) -> bytes:
    """JSON Lines with a bent line, or bent bytes of them, of CSV and of Parquet."""
    kind = random.randrange(6)
    if kind == 0:
        return bend_bytes(random, parquet_corpus())
    lines = _csv() if kind == 1 else _lines()
    if kind < 3:
        return bend_bytes(random, b"\n".join(lines) + b"\n")
    place = random.randrange(len(lines))
    lines[place] = to_json(bend_tree(random, json.loads(lines[place])))
    return b"\n".join(lines) + b"\n"


def _suffix(data: bytes) -> str:
    return ".csv" if data.startswith(b"#") else ".parquet" if data.startswith(b"PAR1") else ".jsonl"


def run_results(path: Path) -> None:
    """As ``xdet detect --resume`` goes on with it; a file that is refused keeps every byte."""
    path = path.rename(path.with_suffix(_suffix(path.read_bytes())))
    before = path.read_bytes()
    for suffix in (path.suffix, ".parquet.jsonl"):
        other = path.with_name("grown.parquet") if suffix == ".parquet.jsonl" else path
        if other != path:
            growing_path(other).write_bytes(before)
        try:
            with open_results(other, HEADER) as results:
                results.add_entry(ENTRIES[0])
        except XdetError:
            assert growing_path(other).read_bytes() == before if other != path else path.read_bytes() == before
            if other == path:
                raise
        finally:
            for left in path.parent.glob("grown.parquet*"):
                left.unlink()
            growing_path(path).unlink(missing_ok=True)


def run_detected(path: Path) -> None:
    """As ``xdet eval`` scores it in place of a model."""
    path = path.rename(path.with_suffix(_suffix(path.read_bytes())))
    annotations = path.with_name("coco.json")
    annotations.write_bytes(to_json(COCO))
    path.with_name("1.ppm").write_bytes(PICTURE)
    report_text(evaluation_report(evaluate(path, path.parent, annotations)))


@cache
def video_corpus() -> tuple[bytes, ...]:
    """Three frames in every common container, of codecs that PyAV brings."""
    from tests.xdet.films import write_film

    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, codec, pixels in (
            ("a.mkv", "ffv1", "bgr0"),
            ("a.mp4", "mpeg4", "yuv420p"),
            ("b.mp4", "libx264", "yuv420p"),
            ("a.avi", "mjpeg", "yuvj420p"),
            ("a.webm", "libvpx", "yuv420p"),
            ("a.ts", "libx264", "yuv420p"),
        ):
            path = Path(folder) / name
            found.append(write_film(path, (0, 200, 90), codec=codec, pixel_format=pixels).read_bytes())
    return tuple(found)


def make_video(random: Random) -> bytes:
    """Bent bytes, half of them in the first 256, where containers keep sizes and kinds."""
    return bend_bytes(random, random.choice(video_corpus()))


def run_video(path: Path) -> None:
    """As ``xdet detect`` reads every frame of a film."""
    from xdet.pictures.video import Film, frames_expected, read_frames

    film = Film.of_file(path)
    frames_expected(film)
    for number, _ in enumerate(read_frames(film)):
        if number == 1000:  # a film may say that it is long
            return
