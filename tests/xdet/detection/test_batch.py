"""Many files at once: each read a single time, failures listed, pictures drawn on what was read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.xdet.finished_models import finished_model
from xdet.detection.batch import detect_files
from xdet.detection.detector import Detector
from xdet.detection.report import report_to_json
from xdet.pictures import preparation
from xdet.pictures.images import read_image
from xdet.pictures.render import picture_paths

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture(params=[(1, 1), (1, 3), (2, 1), (2, 2), ("N", 3)], ids="batch-{0[0]}-workers-{0[1]}".format)
def detector(request: pytest.FixtureRequest, tmp_path: Path) -> Detector:
    path = tmp_path / "m.onnx"
    batch, workers = request.param
    path.write_bytes(finished_model(batch=batch))
    return Detector(path, threads=1, workers=workers)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((30, 40 + i, 3), 250, np.uint8)).save(path)
    return paths


def test_a_picture_that_vanishes_once_it_was_read_is_still_drawn(
    detector: Detector, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def read_and_remove(path: Path, *, honour_exif: bool) -> NDArray[np.uint8]:
        read.append(path)
        pixels = read_image(path, honour_exif=honour_exif)
        path.unlink()
        return pixels

    monkeypatch.setattr(preparation, "read_image", read_and_remove)
    targets = picture_paths(images, tmp_path)
    report = detect_files(detector, images, pictures=targets)
    assert sorted(read) == images  # each a single time
    assert report.failed == ()
    for i, target in enumerate(targets):
        with Image.open(target) as drawn:
            assert drawn.size == (40 + i, 30)
            assert (np.asarray(drawn) != 250).any()


def test_failed_images_are_listed_in_order_and_counted_as_done(
    detector: Detector, images: list[Path], tmp_path: Path
) -> None:
    gone = [tmp_path / "gone 1.png", tmp_path / "gone 2.png"]
    asked, steps = [gone[0], *images[:3], gone[1], *images[3:]], list[int]()
    targets = picture_paths(asked, tmp_path)
    report = detect_files(detector, asked, pictures=targets, progress=steps.append)
    assert [found.image for found in report.images] == list(map(str, images))
    assert [failed.image for failed in report.failed] == list(map(str, gone))
    assert sum(steps) == 7
    assert [target.exists() for target in targets] == [False, True, True, True, False, True, True]


def test_the_report_names_the_model_and_hashes_it_only_as_json(
    detector: Detector, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[bytes] = []
    with monkeypatch.context() as patched:
        patched.setattr("xdet.runtimes.base.hash_model", hashed.append)
        patched.setattr("xdet.detection.report.hash_model", hashed.append)
        report = detect_files(detector, images[:1])
    assert hashed == []
    assert json.loads(report_to_json(report))["model"] == {"name": "m.onnx", "sha256": detector.runtime.sha256}
    assert len(report.images[0]) == 4
