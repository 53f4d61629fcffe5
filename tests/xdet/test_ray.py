"""Ray: the lines of plain ``xdet detect``, with a worker killed, from a store, and behind a stage that decodes."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.xdet.command import assert_one_line, run_xdet
from tests.xdet.finished_models import finished_model
from xdet.cli.app import build_app
from xdet.conversion import convert
from xdet.detection.batch import detect_to_file
from xdet.detection.detector import Detector
from xdet.detection.parquet import open_results, row_to_entry
from xdet.detection.results import results_header
from xdet.errors import DataError, MissingExtraError, UsageError
from xdet.pictures.addresses import Address, is_stored
from xdet.pictures.listing import list_stored

if TYPE_CHECKING:
    from collections.abc import Iterator

ray: Any = pytest.importorskip("ray", reason='needs Ray: pip install "xdet[ray]"')
pytest.importorskip("ray.data", reason='needs Ray: pip install "xdet[ray]"')
from xdet import ray as xdet_ray  # noqa: E402 - only where there is Ray

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning"),
]  # the warnings are Ray's own


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two processors, and a GPU that is but a number."""
    ray.init(num_cpus=2, num_gpus=1, logging_level="ERROR", log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A model, and photographs of several sizes, one that is none, one turned by EXIF, and one that is not there."""
    folder = tmp_path_factory.mktemp("ray")
    model = folder / "m.onnx"
    model.write_bytes(finished_model())
    photos = folder / "photos"
    photos.mkdir()
    random = np.random.default_rng(7)
    for number in range(40):
        pixels = random.integers(0, 256, (20 + number % 7, 30 + number % 5, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{number:02}.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(photos / "turned.jpg", exif=exif)
    (photos / "none.jpg").write_bytes(b"\xff\xd8 not a picture")
    return model, [*sorted(photos.iterdir()), photos / "missing.png"]


def plain_lines(model: Path, images: list[Path], target: Path) -> bytes:
    with Detector(model) as detector, open_results(target, results_header(detector, None)) as results:
        detect_to_file(detector, images, results)
    return target.read_bytes()


@pytest.mark.usefixtures("cluster")
def test_the_lines_are_those_of_plain_detect_and_the_rest_is_done_on_resume(
    scene: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    model, images = scene
    expected = plain_lines(model, images, tmp_path / "plain.jsonl")
    target = tmp_path / "ray.jsonl"
    told: list[int] = []
    with Detector(model) as detector:
        header = results_header(detector, None)
        with open_results(target, header) as results:
            xdet_ray.detect_to_file(detector, images[:10], results, progress=told.append)
        with open_results(target, header) as results:
            xdet_ray.detect_to_file(detector, images, results, progress=told.append)
    assert target.read_bytes() == expected
    assert sum(told) == 10 + len(images)


@pytest.mark.usefixtures("cluster")
def test_a_stage_that_decodes_and_bytes_of_a_dataset_change_nothing(
    scene: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    model, images = scene
    lines = plain_lines(model, images, tmp_path / "plain.jsonl").decode().splitlines()[1:]
    expected = sorted((json.loads(line) for line in lines), key=lambda entry: str(entry["image"]))
    there = [path for path in images if path.exists()]
    named = xdet_ray.detect([str(path) for path in images], model, num_gpus=1)
    held = ray.data.from_items([{"path": str(path), "bytes": path.read_bytes()} for path in there])
    for rows, wanted in (
        (named, expected),
        (xdet_ray.detect(held, model, concurrency=1), [e for e in expected if e["sha256"]]),
    ):
        found = sorted((row_to_entry(row) for row in rows.take_all()), key=lambda e: str(e["image"]))
        assert [entry["image"] for entry in found] == [entry["image"] for entry in wanted]
        for entry, other in zip(found, wanted, strict=True):
            assert entry == other


@pytest.mark.usefixtures("cluster")
def test_a_stage_that_decodes_hands_photographs_of_any_size_over(
    scene: tuple[Path, list[Path]], embedded_tflite: Path, tmp_path: Path
) -> None:
    model, images = tmp_path / "sized.onnx", scene[1][:3]
    convert(embedded_tflite, model, any_size=True, score_threshold=0.05)
    lines = plain_lines(model, images, tmp_path / "plain.jsonl").decode().splitlines()[1:]
    found = xdet_ray.detect([str(path) for path in images], model, num_gpus=1).take_all()
    entries = {entry["image"]: entry for entry in map(row_to_entry, found)}
    assert entries == {entry["image"]: entry for entry in map(json.loads, lines)}


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_loses_nothing_and_doubles_nothing(scene: tuple[Path, list[Path]], tmp_path: Path) -> None:
    model, images = scene
    many = []
    for number in range(1200):
        link = tmp_path / f"{number:04}{images[number % 41].suffix}"
        link.symlink_to(images[number % 41])
        many.append(link)
    expected = plain_lines(model, many, tmp_path / "plain.jsonl")
    target = tmp_path / "ray.jsonl"
    killed: list[int] = []

    def kill_one() -> None:
        """The first actor that is found at work, once some lines are there."""
        until = time.monotonic() + 120
        while time.monotonic() < until and not killed:
            pids = _workers()
            if pids and target.exists() and len(target.read_bytes().splitlines()) > 20:
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])
            time.sleep(0.02)

    killer = threading.Thread(target=kill_one)
    with Detector(model) as detector, open_results(target, results_header(detector, None)) as results:
        killer.start()
        xdet_ray.detect_to_file(detector, many, results)
    killer.join()
    assert killed, "no worker was there to kill"
    assert target.read_bytes() == expected


def _workers() -> list[int]:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                title = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::MapWorker"):
                found.append(int(process.name))
    return found


@pytest.mark.usefixtures("cluster")
def test_the_command_reads_a_store_and_writes_parquet(scene: tuple[Path, list[Path]], tmp_path: Path) -> None:
    from pyarrow import parquet

    model, images = scene
    uri = f"file://{images[0].parent}"
    target = tmp_path / "out.parquet"
    result = CliRunner().invoke(build_app(), ["detect", str(model), uri, "--engine", "ray", "-o", str(target)])
    assert result.exit_code == 3, result.output  # one is no picture
    assert "42 images, 1 without a result" in result.output
    rows = parquet.read_table(target).to_pylist()
    assert [row["image"] for row in rows] == [f"file://{path}" for path in images[:-1]]
    (broken,) = [row for row in rows if row["error"] is not None]
    assert "none.jpg" in broken["error"]
    assert broken["detections"] is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--save", "out", "-o", "out.jsonl"], "--save"),
        (["-o", "out.json"], "FILE.parquet"),
        ([], "FILE.parquet"),
        (["-o", "out.jsonl", "--classes", "walrus"], "walrus"),
    ],
)
def test_what_does_not_go_to_a_cluster_is_refused_before_it_starts(
    scene: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model, images = scene
    with pytest.raises(UsageError, match=told):
        CliRunner().invoke(
            build_app(), ["detect", str(model), str(images[0]), "--engine", "ray", *arguments], catch_exceptions=False
        )
    assert not list(tmp_path.iterdir())


def test_a_store_that_is_empty_or_not_there_is_told(tmp_path: Path) -> None:
    for uri in (f"file://{tmp_path}", f"file://{tmp_path}/nowhere"):
        with pytest.raises(DataError, match="no image at"):
            list_stored(uri)
    with pytest.raises(DataError, match="cannot list"):
        list_stored("hdfs://127.0.0.1:1/photos")


def test_addresses_of_stores_are_told_from_others() -> None:
    assert [is_stored(name) for name in ("s3://b/x.jpg", "GS://b", "http://h/x.jpg", "c:/x.jpg")] == [
        True,
        True,
        False,
        False,
    ]
    assert str(Address("s3://b/x.jpg", in_store=True)) == "s3://b/x.jpg"


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"xdet\[ray\]"):
        xdet_ray.detect(["a.jpg"])


def test_ray_decodes_in_full(sample_pictures: list[Path]) -> None:
    assert_one_line(
        run_xdet("detect", *sample_pictures, "--decode", "reduced", "--engine", "ray", "--json", "f.jsonl"), 2, "ray"
    )
