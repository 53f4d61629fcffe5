"""From photographs to a network's pixels: the stages read and resize, timed, and overlapped with what comes behind them.

Whoever runs a network (``Detector``, evaluation, benchmarks, checks) takes ``Prepared`` images from here, in batches, so
that all of them see the same pixels.
"""

from __future__ import annotations

import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from xdet.errors import ImageError
from xdet.images import read_image, resize_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from converters.spec import ImageInput

Photograph = str | os.PathLike[str] | NDArray[np.uint8]
ARRAY = "<array>"
T = TypeVar("T")


@dataclass(frozen=True, eq=False, slots=True)
class Prepared:
    """An image on its way into a network.

    Attributes:
        name: as the caller gave it; ``ARRAY`` for an array.
        size_wh: width and height of the photograph in pixels, after EXIF orientation where that was honoured.
        pixels: uint8 ``(height, width, 3)``, RGB, at network size.
        original: the photograph itself, uint8 ``(h, w, 3)``, where it was asked for; else None.
        read_s: seconds that reading and decoding took; 0 for an array.
        resize_s: seconds that stretching took.
    """

    name: str
    size_wh: tuple[int, int]
    pixels: NDArray[np.uint8]
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
    """

    image: ImageInput
    honour_exif: bool = True
    keep_original: bool = False


def prepare(image: Photograph, how: Preparation) -> Prepared:
    """Read one image and stretch it to the network's size.

    Args:
        image: a file, or uint8 ``(h, w, 3)``, RGB.
        how: size, resize rule and the rest.

    Raises:
        ImageError: it cannot be read, or is no such array.
    """
    started = time.perf_counter()
    is_array = isinstance(image, np.ndarray)
    original = (
        image if isinstance(image, np.ndarray) else read_image(Path(image), honour_exif=how.honour_exif)
    )
    read = time.perf_counter()
    pixels = resize_image(original, how.image.height, how.image.width, how.image.resize)
    return Prepared(
        name=image_name(image),
        size_wh=(original.shape[1], original.shape[0]),
        pixels=pixels,
        original=original if how.keep_original else None,
        read_s=0.0 if is_array else read - started,
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
        workers: threads that prepare images while the caller works on those before; at most ``workers`` + 1 of them wait
            in memory. 0 prepares each image when it is asked for.
        on_failure: called, in order and in the caller's thread, with the name of an image that cannot be read, and why;
            the stream goes on. Without it the error is raised in the image's place.
    """
    for name, outcome in _outcomes(images, how, workers):
        try:
            prepared = outcome()
        except ImageError as error:
            if on_failure is None:
                raise
            on_failure(name, error)
        else:
            yield prepared


def in_batches(prepared: Iterable[T], size: int) -> Iterator[list[T]]:
    """Groups of ``size`` images (or of whatever comes with each), the last one smaller.

    What was prepared before an ``ImageError`` still comes first.
    """
    waiting: list[T] = []
    stream = iter(prepared)
    while True:
        try:
            waiting.append(next(stream))
        except StopIteration:
            break
        except ImageError:
            if waiting:
                yield waiting
            raise
        if len(waiting) == size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def stack_pixels(prepared: Sequence[Prepared]) -> NDArray[np.uint8]:
    """A batch for ``Runtime.detect``: uint8 ``(N, height, width, 3)``."""
    return np.stack([image.pixels for image in prepared])


def image_name(image: Photograph) -> str:
    """How results and messages call an image."""
    return ARRAY if isinstance(image, np.ndarray) else os.fspath(image)


def _outcomes(
    images: Iterable[Photograph], how: Preparation, workers: int
) -> Iterator[tuple[str, Callable[[], Prepared]]]:
    """The name of every image, and the call that gives it prepared or raises."""
    if workers < 1:
        for image in images:
            yield image_name(image), partial(prepare, image, how)
        return
    ahead: deque[tuple[str, Future[Prepared]]] = deque()
    with ThreadPoolExecutor(workers, "xdet-prepare") as pool:
        try:
            for image in images:
                ahead.append((image_name(image), pool.submit(prepare, image, how)))
                if len(ahead) > workers:
                    name, future = ahead.popleft()
                    yield name, future.result
            while ahead:
                name, future = ahead.popleft()
                yield name, future.result
        finally:
            for _, future in ahead:
                future.cancel()
