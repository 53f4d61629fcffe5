"""A Detector reads, stretches and names photographs, streams them in order, and settles thresholds once."""

from __future__ import annotations

import multiprocessing
import pickle  # noqa: TID251 - people do
import threading
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
    assert (first.box_xyxy_px, first.score, first.class_name, first.anchor) == ((0, 0, 20, 5), 1.0, "person", 0)


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
def test_many_images_come_back_in_order_whatever_the_batch(batch: int | str, workers: int, tmp_path: Path) -> None:
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
    images: list[Photograph] = [photograph(1, 1, red=255), bad, photograph(2, 1, red=255), photograph(3, 1, red=255)]
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
    detector = Detector(model, threads=1, workers=3)  # on the CPU provider, which several threads may call
    if not concurrent:
        detector.runtime.turns = threading.Lock()
    inside: list[int] = []
    counts: list[int] = []
    two = threading.Barrier(2, timeout=120)
    detect = detector.runtime.detect

    def counting(images: NDArray[np.uint8], thresholds: Thresholds) -> BatchDetections:
        inside.append(1)
        counts.append(len(inside))
        if concurrent:
            two.wait()
        else:
            time.sleep(0.01)
        inside.pop()
        return detect(images, thresholds)

    monkeypatch.setattr(detector.runtime, "detect", counting)
    assert len(list(detector.detect_many([photograph(2, 2, red=255)] * 6))) == 6
    assert (max(counts) > 1) == concurrent


@pytest.mark.parametrize(("workers", "threads", "expected"), [(1, None, None), (2, None, 2), (4, 3, 3)])
def test_workers_share_the_processors_unless_threads_are_asked_for(
    model: Path, monkeypatch: pytest.MonkeyPatch, workers: int, threads: int | None, expected: int | None
) -> None:
    monkeypatch.setattr("xdet.runtimes.base.usable_processors", lambda: 4)
    detector = Detector(model, threads=threads, workers=workers)
    assert isinstance(detector.runtime, OnnxRuntime)
    assert detector.runtime.session.choices.threads == expected


def test_no_worker_is_too_few(model: Path) -> None:
    with pytest.raises(UsageError, match=r"`workers` must lie in 1\.\.64, got 0"):
        Detector(model, workers=0)


def quarters() -> NDArray[np.uint8]:
    """Red, 2 x 2: quarters of 255, 0, 200 and 0, with other values in the other channels."""
    pixels = np.full((2, 2, 3), 7, np.uint8)
    pixels[..., 0] = [[255, 0], [200, 0]]
    pixels[..., 2] = 90
    return pixels


def test_a_picture_may_come_in_any_form_that_people_hold(model: Path, tmp_path: Path) -> None:
    rgb = quarters()
    Image.fromarray(rgb).save(tmp_path / "a.png")
    alpha = np.dstack([rgb, np.zeros((2, 2), np.uint8)])
    detector = Detector(model, threads=1)
    expected = detector(rgb)
    assert len(expected) == 2
    for image, color in (
        (str(tmp_path / "a.png"), "rgb"),
        (Image.open(tmp_path / "a.png"), "rgb"),
        (Image.fromarray(alpha), "rgb"),
        (alpha, "rgb"),
        (rgb[..., ::-1], "bgr"),
        (alpha[..., [2, 1, 0, 3]], "bgr"),
        (rgb[..., 0], "rgb"),
        (rgb[..., :1], "rgb"),
        (Image.fromarray(rgb[..., 0]), "rgb"),
    ):
        found = detector(image, color=color)  # type: ignore[call-overload]
        assert found.scores.tolist() == expected.scores.tolist()
    batch = detector([tmp_path / "a.png", rgb, Image.open(tmp_path / "a.png")])
    assert [found.image for found in batch] == [str(tmp_path / "a.png"), "<array>", str(tmp_path / "a.png")]
    assert detector([]) == []


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (None, r"an image must be a path, .*, got builtins\.NoneType"),
        (b"a.png", r"got builtins\.bytes"),
        (np.zeros((2, 2, 3)), r"got an array float64 \(2, 2, 3\); scale it to 0\.\.255"),
        (np.zeros((3, 8, 8), np.uint8), r"channels come last: image\.transpose\(1, 2, 0\)"),
        (np.zeros((5, 8, 8, 3), np.uint8), r"give a batch as a list of images: detector\(list\(images\)\)"),
        (np.zeros((0, 8, 3), np.uint8), r"got an array uint8 \(0, 8, 3\)"),
    ],
    ids=["none", "bytes", "float", "channels first", "batch", "empty"],
)
def test_what_is_no_picture_is_refused_with_what_was_expected(model: Path, image: object, words: str) -> None:
    detector = Detector(model, threads=1)
    with pytest.raises(ImageError, match=words):
        detector(image)
    with pytest.raises(ImageError, match="color must be 'rgb' or 'bgr', got 'cmyk'"):
        detector(quarters(), color="cmyk")  # type: ignore[call-overload]


def test_a_picture_in_the_place_of_the_model_is_told() -> None:
    for wrong in (Image.new("RGB", (2, 2)), quarters(), 7):
        with pytest.raises(UsageError, match=r"a model must be the path of a file.*; a picture goes to the call"):
            Detector(wrong)  # type: ignore[arg-type]


def test_score_thresholds_by_class(tmp_path: Path) -> None:
    path = tmp_path / "two.onnx"
    path.write_bytes(finished_model())
    for threshold, count in ((0.9, 1), (0.7, 2), (0.1, 2)):
        with Detector(path, threads=1, score_threshold={"person": threshold}) as detector:
            assert len(detector(quarters())) == count
            assert detector.score_by_class == {"person": threshold}
    for wrong, words in (
        ({"dog": 0.1}, "the model finds no 'dog'"),
        ({"person": 2.0}, "between 0 and 1"),
        ({}, "finds"),
    ):
        with pytest.raises(UsageError, match=words):
            Detector(path, score_threshold=wrong)


def test_a_pickled_detector_opens_its_file_anew(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Detector(model.name, threads=1, score_threshold={"person": 0.9}) as detector:
        pickled = pickle.dumps(detector)
        expected = detector(quarters()).scores.tolist()
    monkeypatch.chdir("/")
    with pickle.loads(pickled) as again:  # noqa: S301 - made above
        assert again(quarters()).scores.tolist() == expected
        assert again.score_by_class == {"person": 0.9}
    model.write_bytes(finished_model(batch="N"))
    with pytest.raises(ModelError, match=r"m\.onnx' is another model than when the detector was pickled"):
        pickle.loads(pickled)  # noqa: S301 - made above


def test_processes_share_a_detector(model: Path) -> None:
    with Detector(model, threads=1) as detector, multiprocessing.get_context("spawn").Pool(1) as pool:
        (found,) = pool.map(detector, [quarters()])
        assert found.scores.tolist() == detector(quarters()).scores.tolist()
