"""Images are read and taken through the network in order, by any number of workers, and failures keep their place."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from converters.spec import ImageInput, Rescaling, ResizeRule
from xdet.errors import ImageError, ModelError
from xdet.pictures import preparation
from xdet.pictures.images import resize_image
from xdet.pictures.preparation import (
    ARRAY,
    Photograph,
    Preparation,
    Prepared,
    in_groups,
    in_order,
    prepare,
    prepare_many,
    stack_pixels,
    through_network,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

HOW = Preparation(ImageInput(4, 6, Rescaling(1.0, 0.0), "bilinear-antialias"))


def photograph(width: int, height: int = 5) -> NDArray[np.uint8]:
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)


def test_a_file_is_turned_stretched_named_and_timed(tmp_path: Path) -> None:
    path, pixels = tmp_path / "turned.png", photograph(20, 10)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(path, exif=exif)
    upright = np.rot90(pixels, -1)
    found = prepare(path, HOW)
    assert (found.name, found.size_wh, found.original) == (str(path), (10, 20), None)
    assert np.array_equal(found.pixels, resize_image(np.ascontiguousarray(upright), 4, 6, "bilinear-antialias"))
    assert found.read_s > 0
    assert found.resize_s > 0
    lying = prepare(path, Preparation(HOW.image, honour_exif=False, keep_original=True))
    assert lying.size_wh == (20, 10)
    assert lying.original is not None
    assert np.array_equal(lying.original, pixels)


def test_an_array_takes_no_reading() -> None:
    pixels = photograph(7)
    found = prepare(pixels, Preparation(HOW.image, keep_original=True))
    assert (found.name, found.size_wh, found.read_s) == (ARRAY, (7, 5), 0.0)
    assert found.original is pixels


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_many_images_come_in_order_whoever_reads_them(workers: int) -> None:
    images = [photograph(1 + i) for i in range(9)]
    found = list(prepare_many(images, HOW, workers=workers))
    assert [one.size_wh[0] for one in found] == list(range(1, 10))
    for one, image in zip(found, images, strict=True):
        assert np.array_equal(one.pixels, prepare(image, HOW).pixels)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failure_is_raised_in_its_place(workers: int, tmp_path: Path) -> None:
    images: list[Photograph] = [photograph(1), tmp_path / "gone.jpg", photograph(2)]
    stream = prepare_many(images, HOW, workers=workers)
    assert next(stream).size_wh[0] == 1
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        next(stream)


def test_workers_have_ended_when_a_failure_is_raised(tmp_path: Path) -> None:
    """Not when the error is forgotten: that may happen in one of them."""
    images: list[Photograph] = [tmp_path / "gone.jpg", *(photograph(1 + i) for i in range(5))]
    with pytest.raises(ImageError, match=r"gone\.jpg") as raised:
        list(prepare_many(images, HOW, workers=2))
    assert raised.value.__traceback__ is not None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("xdet-worker")]


@pytest.mark.parametrize(("workers", "taken"), [(0, 2), (1, 3), (3, 5)])
def test_no_more_is_read_ahead_than_the_workers_need(workers: int, taken: int) -> None:
    asked: list[int] = []

    def endless() -> Iterator[NDArray[np.uint8]]:
        while True:
            asked.append(1)
            yield photograph(3)

    stream = prepare_many(endless(), HOW, workers=workers)
    next(stream)
    next(stream)
    assert len(asked) == taken
    stream.close()  # type: ignore[attr-defined]  # a generator


def test_preparing_goes_on_while_the_caller_works(monkeypatch: pytest.MonkeyPatch) -> None:
    second = threading.Event()
    begun = iter(range(5))

    def noticing(image: Photograph, how: Preparation) -> Prepared:
        if next(begun) == 1:
            second.set()
        return prepare(image, how)

    monkeypatch.setattr(preparation, "prepare", noticing)
    stream = prepare_many([photograph(1 + i) for i in range(5)], HOW, workers=1)
    next(stream)
    assert second.wait(120), "nothing was prepared while the caller held the first image"
    assert len(list(stream)) == 4


@pytest.mark.parametrize("rule", ["nearest", "bilinear", "bilinear-antialias"])
@pytest.mark.parametrize("size_wh", [(20, 10), (6, 4), (1, 1)])
def test_a_file_gives_the_same_pixels_whether_its_photograph_is_kept_or_not(
    tmp_path: Path, rule: ResizeRule, size_wh: tuple[int, int]
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(photograph(*size_wh)).save(path)
    image = ImageInput(4, 6, Rescaling(1.0, 0.0), rule)
    kept = prepare(path, Preparation(image, keep_original=True))
    passed = prepare(path, Preparation(image))
    assert np.array_equal(passed.pixels, kept.pixels)
    assert np.array_equal(passed.pixels, resize_image(photograph(*size_wh), 4, 6, rule))
    assert (passed.size_wh, passed.original) == (kept.size_wh, None) == (size_wh, None)


def test_a_batch_is_one_array() -> None:
    batch = stack_pixels([prepare(photograph(1 + i), HOW) for i in range(3)])
    assert (batch.shape, batch.dtype.name) == ((3, 4, 6, 3), "uint8")


WORKERS = [1, 2, 5]


def ready(number: int) -> int:
    """Unreadable where the number ends in 3; the even ones take longer than their neighbours."""
    if number % 10 == 3:
        raise ImageError(f"cannot read {number}")
    time.sleep(0.002 if number % 2 == 0 else 0)
    return number


def doubled(numbers: Sequence[int]) -> list[int]:
    return [2 * number for number in numbers]


def endless(taken: list[int]) -> Iterator[int]:
    while True:
        taken.append(len(taken))
        yield len(taken)


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("batch", [1, 4])
def test_results_and_errors_come_in_the_order_of_the_photographs(workers: int, batch: int) -> None:
    found = list(through_network(range(27), ready, doubled, batch=batch, workers=workers))
    assert [number for number, _ in found] == list(range(27))
    told = [str(result) if isinstance(result, ImageError) else result for _, result in found]
    assert told == [f"cannot read {number}" if number % 10 == 3 else 2 * number for number in range(27)]


@pytest.mark.parametrize("workers", WORKERS)
def test_a_network_sees_full_batches_without_what_cannot_be_read(workers: int) -> None:
    seen: list[tuple[int, ...]] = []

    def detect(numbers: Sequence[int]) -> list[int]:
        seen.append(tuple(numbers))
        return doubled(numbers)

    list(through_network([0, 1, 2, 3, 13, 23, 33, 43, 8, 9], ready, detect, batch=4, workers=workers))
    assert sorted(seen) == [(0, 1, 2), (8, 9)]


@pytest.mark.parametrize("workers", WORKERS)
def test_what_the_network_raises_comes_in_its_place(workers: int) -> None:
    def detect(numbers: Sequence[int]) -> list[int]:
        if 5 in numbers:
            raise ModelError("no kernel")
        return doubled(numbers)

    found = through_network(range(20), ready, detect, batch=1, workers=workers)
    assert [next(found)[0] for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ModelError, match="no kernel"):
        next(found)


@pytest.mark.parametrize(("workers", "taken"), [(1, 2), (2, 6), (5, 12)])
def test_no_more_is_taken_than_the_workers_need(workers: int, taken: int) -> None:
    asked: list[int] = []
    stream = through_network(endless(asked), lambda number: number, doubled, batch=1, workers=workers)
    next(stream)
    next(stream)
    assert len(asked) == taken
    stream.close()  # type: ignore[attr-defined]  # a generator


def test_one_worker_is_the_callers_own_thread_and_several_work_at_the_same_time() -> None:
    names: set[str] = set()

    def noticing(number: int) -> int:
        names.add(threading.current_thread().name)
        return number

    list(through_network(range(3), noticing, doubled, batch=1, workers=1))
    assert names == {threading.current_thread().name}
    together = threading.Barrier(2)

    def detect(numbers: Sequence[int]) -> list[int]:
        together.wait(120)  # raises unless two are in here
        return doubled(numbers)

    found = through_network(range(4), lambda number: number, detect, batch=1, workers=2)
    assert [result for _, result in found] == [0, 2, 4, 6]


def test_an_interrupted_caller_leaves_no_work_and_no_thread_behind() -> None:
    begun: list[int] = []
    held = threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number > 1:
            held.wait(120)
        return number

    def interrupted() -> None:
        for _, outcome in in_order(range(1000), work, workers=2):
            outcome()
            threading.Timer(0.05, held.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    held.wait(120)
    deadline = time.monotonic() + 120
    while workers_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not workers_alive()
    assert len(begun) <= 5  # the first, and four that might wait


def workers_alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("xdet-worker")]


@given(st.lists(st.integers(), max_size=20), st.integers(1, 7))
def test_groups_are_full_but_the_last(items: list[int], size: int) -> None:
    groups = list(in_groups(items, size))
    assert [item for group in groups for item in group] == items
    assert all(len(group) == size for group in groups[:-1])
    assert all(1 <= len(group) <= size for group in groups)
