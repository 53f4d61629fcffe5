"""From photographs to a network's pixels: the stages read and resize, timed, and overlapped with what comes behind them.

Whoever runs a network (``Detector``, evaluation, benchmarks, checks) takes ``Prepared`` images from here, in batches,
so that all of them see the same pixels.

Many photographs through one network: a worker takes each all the way, results come in order.

Reading, stretching, the network and what is done with its boxes are one piece of work, so processors are busy as long
as there are photographs, and little more than results waits in memory. Nothing depends on which worker did what:
results, their order and the place of every error are those of a single worker.
"""

from __future__ import annotations

import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from xdet.errors import ImageError
from xdet.pictures.images import decoded_picture, network_pixels, read_image

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from converters.spec import ImageInput, Placement

T = TypeVar("T")
Ready = TypeVar("Ready")
Result = TypeVar("Result")

WAITING_PER_WORKER = 2  # work begun or done whose turn has not come


def through_network(
    photographs: Iterable[T],
    prepare: Callable[[T], Ready],
    detect: Callable[[Sequence[Ready]], Sequence[Result]],
    *,
    batch: int,
    workers: int,
) -> Iterator[tuple[T, Result | ImageError]]:
    """Prepare every photograph and detect in it.

    Args:
        photographs: read lazily, ``batch`` at a time, no further ahead than the workers need.
        prepare: makes one ready for the network, or raises ``ImageError``.
        detect: from as many as were ready, at least one, to a result for each.
        batch: photographs that are given to ``detect`` at a time; the last time fewer, and without those that failed.
        workers: threads; with one, everything happens in the caller's thread when its turn comes.

    Yields:
        Each photograph with its result, or with the error of preparing it, in order. What ``detect`` raises is raised
        in its place.
    """

    def whole(group: list[T]) -> list[tuple[T, Result | ImageError]]:
        outcomes = [_ready_or_error(photograph, prepare) for photograph in group]
        ready = [outcome for outcome in outcomes if not isinstance(outcome, ImageError)]
        results = iter(detect(ready) if ready else ())
        return [
            (photograph, outcome if isinstance(outcome, ImageError) else next(results))
            for photograph, outcome in zip(group, outcomes, strict=True)
        ]

    groups = in_groups(photographs, batch)
    with closing(in_order(groups, whole, workers=workers if workers > 1 else 0)) as in_their_order:
        for _, outcomes in in_their_order:
            yield from outcomes()


def in_order(
    items: Iterable[T], work: Callable[[T], Result], *, workers: int, waiting: int | None = None
) -> Generator[tuple[T, Callable[[], Result]]]:
    """Do ``work`` on every item.

    Close it where it is left early: what is collected as garbage in a worker's thread cannot wait for that worker.

    Args:
        items: taken lazily.
        work: called in one of the workers' threads.
        workers: threads; 0 does the work in the caller's thread when its outcome is asked for.
        waiting: items taken beyond the one whose turn it is; None is ``WAITING_PER_WORKER`` for each worker.

    Yields:
        Each item, in order, with the call that gives its result or raises what ``work`` raised. When the caller goes
        away, what has not begun is dropped, and what has is waited for.
    """
    if workers < 1:
        for item in items:
            yield item, partial(work, item)
        return
    most = workers * WAITING_PER_WORKER if waiting is None else waiting
    ahead: deque[tuple[T, Future[Result]]] = deque()
    with ThreadPoolExecutor(workers, "xdet-worker") as pool:
        try:
            for item in items:
                ahead.append((item, pool.submit(work, item)))
                if len(ahead) > most:
                    first, future = ahead.popleft()
                    yield first, future.result
            while ahead:
                first, future = ahead.popleft()
                yield first, future.result
        finally:
            for _, future in ahead:
                future.cancel()


def in_groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items, the last one shorter."""
    waiting: list[T] = []
    for item in items:
        waiting.append(item)
        if len(waiting) == size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _ready_or_error(photograph: T, prepare: Callable[[T], Ready]) -> Ready | ImageError:
    try:
        return prepare(photograph)
    except ImageError as error:
        return error


Photograph = str | os.PathLike[str] | NDArray[np.uint8]
ARRAY = "<array>"


@dataclass(frozen=True, eq=False, slots=True)
class Prepared:
    """An image on its way into a network.

    Attributes:
        name: as the caller gave it; ``ARRAY`` for an array.
        size_wh: width and height of the photograph in pixels, after EXIF orientation where that was honoured.
        pixels: uint8 ``(height, width, channels)``, as the network takes them.
        placement: where the photograph stands in ``pixels``.
        original: the photograph itself, uint8 ``(h, w, 3)``, where it was asked for; else None.
        read_s: seconds that reading and decoding took; 0 for an array.
        resize_s: seconds that stretching took.
    """

    name: str
    size_wh: tuple[int, int]
    pixels: NDArray[np.uint8]
    placement: Placement
    original: NDArray[np.uint8] | None = None
    read_s: float = 0.0
    resize_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Preparation:
    """How images are prepared.

    Attributes:
        image: what the network takes: size and resize rule.
        honour_exif: turn photographs as their EXIF orientation says.
        keep_original: hand the photograph on, for drawing on it.
        reduced: decode JPEG files no larger than the network needs (``decoded_picture``): in less time, to other
            pixels.
    """

    image: ImageInput
    honour_exif: bool = True
    keep_original: bool = False
    reduced: bool = False


def prepare(image: Photograph, how: Preparation) -> Prepared:
    """Read one image and bring it to the network's size and channels.

    Args:
        image: a file, or uint8 ``(h, w, 3)``, RGB.
        how: size, resize rule and the rest.

    Raises:
        ImageError: it cannot be read, or is no such array.
    """
    target, original = how.image, None
    started = time.perf_counter()
    file = image if isinstance(image, np.ndarray) else Path(image)
    if isinstance(file, np.ndarray):
        original = file
    elif how.keep_original:
        original = read_image(file, honour_exif=how.honour_exif)
    if original is not None and (isinstance(file, np.ndarray) or not how.reduced):
        stands = size_wh = (original.shape[1], original.shape[0])
        read = time.perf_counter()
        pixels = network_pixels(original, target)
    else:  # without a copy of the photograph as an array
        assert not isinstance(file, np.ndarray)  # noqa: S101 - it is its own original
        with decoded_picture(file, honour_exif=how.honour_exif, reduced_for=target if how.reduced else None) as (
            picture,
            size_wh,
        ):
            stands, read = picture.size, time.perf_counter()
            pixels = network_pixels(picture, target)
    return Prepared(
        name=image_name(image),
        size_wh=size_wh,
        pixels=pixels,
        placement=target.placement(stands),
        original=original if how.keep_original else None,
        read_s=0.0 if isinstance(image, np.ndarray) else read - started,
        resize_s=time.perf_counter() - read,
    )


def prepare_many(
    images: Iterable[Photograph],
    how: Preparation,
    *,
    workers: int = 0,
    on_failure: Callable[[str, ImageError], None] | None = None,
) -> Iterator[Prepared]:
    """Prepare a stream of images, in order.

    Args:
        images: files or arrays.
        how: size, resize rule and the rest.
        workers: threads that prepare images while the caller works on those before; at most ``workers`` + 1 of them
            wait in memory. 0 prepares each image when it is asked for.
        on_failure: called, in order and in the caller's thread, with the name of an image that cannot be read, and why;
            the stream goes on. Without it the error is raised in the image's place.
    """
    ahead = in_order(images, lambda image: prepare(image, how), workers=workers, waiting=workers)
    with closing(ahead) as prepared_in_order:
        for image, outcome in prepared_in_order:
            try:
                prepared = outcome()
            except ImageError as error:
                if on_failure is None:
                    raise
                on_failure(image_name(image), error)
            else:
                yield prepared


def stack_pixels(prepared: Sequence[Prepared]) -> NDArray[np.uint8]:
    """A batch for ``Runtime.detect``: uint8 ``(N, height, width, channels)``."""
    return np.stack([image.pixels for image in prepared])


def image_name(image: Photograph) -> str:
    """How results and messages call an image."""
    return ARRAY if isinstance(image, np.ndarray) else os.fspath(image)
