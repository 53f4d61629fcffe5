"""A Detector reads, stretches and names photographs, streams them in order, and settles thresholds once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.xdet.finished_models import SPEC, finished_model
from xdet.detection.detector import Detector
from xdet.errors import ImageError, ModelError, UsageError
from xdet.runtimes.onnxruntime import OnnxRuntime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.heads.base import BatchDetections
    from converters.spec import Thresholds
    from xdet.pictures.preparation import Photograph


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(finished_model())
    return path


def photograph(width: int, height: int, *, red: int) -> NDArray[np.uint8]:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = red
    return pixels


def test_a_file_gives_boxes_in_its_own_pixels(model: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a b ü.png"
    Image.fromarray(photograph(40, 20, red=255)).save(picture)
    found = Detector(model, threads=1)(picture)
    assert (found.image, found.width, found.height, len(found)) == (str(picture), 40, 20, 4)
    first = next(iter(found))
    assert (first.box_xyxy_px, first.score, first.class_name, first.anchor) == (
        (0, 0, 20, 5),
        1.0,
        "person",
        0,
    )


def test_exif_orientation_is_honoured(model: Path, tmp_path: Path) -> None:
    picture = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photograph(40, 20, red=255)).save(picture, exif=exif)
    found = Detector(model, threads=1)(picture)
    assert (found.width, found.height) == (20, 40)


def test_an_array_is_an_image_too(model: Path) -> None:
    found = Detector(str(model), threads=1)(photograph(3, 5, red=200))
    assert (found.image, found.width, found.height, len(found)) == ("<array>", 3, 5, 4)


def test_thresholds_come_from_the_model_unless_given(model: Path) -> None:
    assert Detector(model, threads=1).thresholds == SPEC.thresholds
    strict = Detector(model, threads=1, score_threshold=0.9, iou_threshold=0.2)
    assert (strict.thresholds.score, strict.thresholds.iou) == (0.9, 0.2)
    assert len(strict(photograph(3, 5, red=200))) == 0


def test_a_threshold_out_of_range_is_a_usage_error(model: Path) -> None:
    with pytest.raises(UsageError, match=r"score threshold must lie in 0\.\.1, got 1\.5"):
        Detector(model, score_threshold=1.5)


def test_a_frozen_model_refuses_a_lower_threshold_before_any_image(tmp_path: Path) -> None:
    path = tmp_path / "frozen.onnx"
    path.write_bytes(finished_model(freeze=True))
    with pytest.raises(UsageError, match=r"frozen at 0\.5, 0\.1 is below"):
        Detector(path, score_threshold=0.1)
    assert len(Detector(path, threads=1, score_threshold=0.9)(photograph(3, 5, red=200))) == 0


def test_no_thread_is_too_few(model: Path) -> None:
    for path in (model, None):
        with pytest.raises(UsageError, match="threads must be at least 1, got 0"):
            Detector(path, threads=0)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("batch", [1, 3, "N"])
def test_many_images_come_back_in_order_whatever_the_batch(
    batch: int | str, workers: int, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(finished_model(batch=batch))
    detector = Detector(path, threads=1, workers=workers)
    found = list(detector.detect_many(photograph(i + 1, 2, red=255) for i in range(7)))
    assert [one.width for one in found] == list(range(1, 8))


def test_a_stream_is_lazy(model: Path) -> None:
    taken: list[int] = []

    def endless() -> Iterator[NDArray[np.uint8]]:
        while True:
            taken.append(len(taken))
            yield photograph(2, 2, red=255)

    results = Detector(model, threads=1).detect_many(endless())
    next(results)
    next(results)
    assert taken == [0, 1]


@pytest.mark.parametrize("batch", [1, 2])
def test_a_bad_image_is_reported_and_the_others_are_done(batch: int, tmp_path: Path) -> None:
    path, bad = tmp_path / "m.onnx", tmp_path / "bad.jpg"
    path.write_bytes(finished_model(batch=batch))
    bad.write_bytes(b"no picture")
    failed: dict[str, ImageError] = {}
    images: list[Photograph] = [
        photograph(1, 1, red=255),
        bad,
        photograph(2, 1, red=255),
        photograph(3, 1, red=255),
    ]
    found = list(Detector(path, threads=1).detect_many(images, on_failure=failed.__setitem__))
    assert [one.width for one in found] == [1, 2, 3]
    assert list(failed) == [str(bad)]
    assert "bad.jpg" in str(failed[str(bad)])


def test_a_bad_image_raises_after_the_images_before_it(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(finished_model(batch=4))
    results = Detector(path, threads=1).detect_many([photograph(1, 1, red=255), tmp_path / "gone.jpg"])
    assert next(results).width == 1
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        next(results)


def test_no_image_gives_no_result(model: Path) -> None:
    assert list(Detector(model, threads=1).detect_many([])) == []


def test_a_missing_model_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx"):
        Detector(tmp_path / "gone.onnx")


@pytest.mark.parametrize("concurrent", [True, False])
def test_a_network_that_takes_one_caller_at_a_time_is_waited_for(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    concurrent: bool,  # noqa: FBT001 - parametrised
) -> None:
    monkeypatch.setattr(OnnxRuntime, "concurrent", concurrent)
    detector = Detector(model, threads=1, workers=3)
    inside: list[int] = []
    counts: list[int] = []
    detect = detector.runtime.detect

    def counting(images: NDArray[np.uint8], thresholds: Thresholds) -> BatchDetections:
        inside.append(1)
        counts.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return detect(images, thresholds)

    monkeypatch.setattr(detector.runtime, "detect", counting)
    assert len(list(detector.detect_many([photograph(2, 2, red=255)] * 6))) == 6
    assert (max(counts) > 1) == concurrent


@pytest.mark.parametrize(("workers", "threads", "expected"), [(1, None, None), (2, None, 2), (4, 3, 3)])
def test_workers_share_the_processors_unless_threads_are_asked_for(
    model: Path, monkeypatch: pytest.MonkeyPatch, workers: int, threads: int | None, expected: int | None
) -> None:
    monkeypatch.setattr("xdet.runtimes.processors.usable_processors", lambda: 4)
    detector = Detector(model, threads=threads, workers=workers)
    assert isinstance(detector.runtime, OnnxRuntime)
    assert detector.runtime._session.choices.threads == expected


def test_no_worker_is_too_few(model: Path) -> None:
    with pytest.raises(UsageError, match=r"--workers must lie in 1\.\.64, got 0"):
        Detector(model, workers=0)
