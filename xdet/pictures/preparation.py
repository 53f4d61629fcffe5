"""From photographs to a network's pixels, timed, and many of them through one network.

Whoever runs a network (``Detector``, evaluation, benchmarks, checks) takes ``Prepared`` images from here, in batches,
so that all of them see the same pixels.

A worker takes a photograph all the way: reading, stretching, the network and what is done with its boxes are one piece
of work, so processors are busy as long as there are photographs, and little more than results waits in memory. Nothing
depends on which worker did what: results, their order and the place of every error are those of a single worker.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xdet.errors import ImageError
from xdet.pictures.addresses import Address, is_address
from xdet.pictures.images import Encoded, decoded_picture, network_pixels, read_image, upright_rgb

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
        detect: from as many as were ready, at least one, ``batch`` at most, to a result for each.
        batch: photographs that are given to ``detect`` at a time, without those that failed.
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
    """Do ``work`` on every item, in the threads of ``workers``; 0 works in the caller's when the outcome is asked for.

    Close it where it is left early: what is collected as garbage in a worker's thread cannot wait for that worker. What
    has not begun is dropped then, and what has is waited for. Items are taken lazily, ``waiting`` of them beyond that
    whose turn it is; None is ``WAITING_PER_WORKER`` for each worker.

    Yields:
        Each item, in order, with the call that gives its result or raises what ``work`` raised.
    """
    if workers < 1:
        for item in items:
            yield item, partial(work, item)
        return
    most = workers * WAITING_PER_WORKER if waiting is None else waiting
    from concurrent.futures import ThreadPoolExecutor  # with logging, which one photograph can do without

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
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group


def _ready_or_error(photograph: T, prepare: Callable[[T], Ready]) -> Ready | ImageError:
    try:
        return prepare(photograph)
    except ImageError as error:
        return error


Color = Literal["rgb", "bgr"]
Photograph = str | os.PathLike[str] | NDArray[np.uint8]
ARRAY = "<array>"
EXPECTED = (
    "a path, an http address, a PIL picture, or a uint8 array (height, width), (height, width, 3) or (height, width, 4)"
)


@dataclass(frozen=True, eq=False, slots=True)
class Prepared:
    """An image on its way into a network."""

    name: str  # as the caller gave it; ``ARRAY`` for an array
    size_wh: tuple[int, int]  # of the photograph in pixels, after EXIF orientation where that was honoured
    pixels: NDArray[np.uint8]  # ``(height, width, channels)``, as the network takes them
    placement: Placement  # where the photograph stands in ``pixels``
    original: NDArray[np.uint8] | None = None  # the photograph itself, ``(h, w, 3)``, where it was asked for
    read_s: float = 0.0  # seconds that reading and decoding took; 0 for an array
    resize_s: float = 0.0  # seconds that stretching took


@dataclass(frozen=True, slots=True)
class Preparation:
    """How images are prepared."""

    image: ImageInput  # what the network takes
    honour_exif: bool = True  # turn photographs as their EXIF orientation says
    keep_original: bool = False  # hand the photograph on, for drawing on it
    reduced: bool = False  # decode JPEG files no larger than the network needs (``decoded_picture``), to other pixels


def prepare(image: Photograph | Encoded, how: Preparation, *, name: str | None = None) -> Prepared:
    """Bring a file, on disk or in memory, or uint8 ``(h, w, 3)``, RGB, to the network's size and channels.

    Raises:
        ImageError: it cannot be read, or is no such array.
    """
    target, started = how.image, time.perf_counter()
    file = image if isinstance(image, np.ndarray | Encoded) else Path(image)
    original = file if isinstance(file, np.ndarray) else None
    if not isinstance(file, np.ndarray) and how.keep_original:
        original = read_image(file, honour_exif=how.honour_exif)
    if isinstance(file, np.ndarray) or (original is not None and not how.reduced):
        assert original is not None  # noqa: S101 - an array is its own
        stands = size_wh = (original.shape[1], original.shape[0])
        read = time.perf_counter()
        pixels = network_pixels(original, target)
    else:  # without a copy of the photograph as an array
        reduced_for = target if how.reduced else None
        with decoded_picture(file, honour_exif=how.honour_exif, reduced_for=reduced_for) as (picture, size_wh):
            stands, read = picture.size, time.perf_counter()
            pixels = network_pixels(picture, target)
    return Prepared(
        name=image_name(image) if name is None else name,
        size_wh=size_wh,
        pixels=pixels,
        placement=target.placement(stands),
        original=original if how.keep_original else None,
        read_s=0.0 if isinstance(image, np.ndarray) else read - started,
        resize_s=time.perf_counter() - read,
    )


def prepare_many(images: Iterable[Photograph], how: Preparation, *, workers: int = 0) -> Iterator[Prepared]:
    """Prepare a stream of images, in order; an error is raised in its image's place.

    ``workers`` threads prepare images while the caller works on those before; at most ``workers`` + 1 of them wait in
    memory. 0 prepares each image when it is asked for.
    """
    ahead = in_order(images, lambda image: prepare(image, how), workers=workers, waiting=workers)
    with closing(ahead) as prepared_in_order:
        for _, outcome in prepared_in_order:
            yield outcome()


def stack_pixels(prepared: Sequence[Prepared]) -> NDArray[np.uint8]:
    """A batch for ``Runtime.detect``: uint8 ``(N, height, width, channels)``."""
    return np.stack([image.pixels for image in prepared])


def image_name(image: Photograph | Encoded) -> str:
    """How results and messages call an image."""
    if isinstance(image, np.ndarray):
        return ARRAY
    return image.name if isinstance(image, Encoded) else os.fspath(image)


def read_picture(image: Any, *, color: Color = "rgb") -> tuple[str, Photograph | Encoded]:
    """A picture of any kind that people hold (see ``EXPECTED``): its name, and what ``prepare`` takes.

    An address is fetched. Of arrays grey becomes RGB of equal channels, transparency is dropped, not blended, as of
    files, and ``color`` is the order of the others. A PIL picture is turned as its EXIF orientation says, as a file is.

    Raises:
        ImageError: it is nothing of the kind, or cannot be fetched.
    """
    if color not in {"rgb", "bgr"}:
        raise ImageError(f"color must be 'rgb' or 'bgr', got {color!r}")
    if isinstance(image, str) and is_address(image):
        from xdet.pictures.download import fetch

        address = Address(image)
        return str(address), Encoded(str(address), fetch(address))
    if isinstance(image, str | os.PathLike) and not isinstance(path := os.fspath(image), bytes):
        return path, path
    if isinstance(image, np.ndarray):
        return ARRAY, _array_to_rgb(image, color)
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "") or "<picture>"), upright_rgb(image)
    raise ImageError(f"an image must be {EXPECTED}, got {type(image).__module__}.{type(image).__qualname__}")


def _array_to_rgb(image: NDArray[Any], color: Color) -> NDArray[np.uint8]:
    """An array as uint8 ``(height, width, 3)``, RGB."""
    shape = image.shape
    channels = 1 if image.ndim == 2 else shape[2] if image.ndim == 3 else 0
    if image.dtype != np.uint8 or channels not in {1, 3, 4} or not image.size:
        hint = ""
        if np.issubdtype(image.dtype, np.floating):
            hint = "; scale it to 0..255 and convert it: (image * 255).round().astype('uint8')"
        elif image.ndim == 3 and shape[0] in {1, 3, 4}:
            hint = "; channels come last: image.transpose(1, 2, 0)"
        elif image.ndim == 4:
            hint = "; give a batch as a list of images: detector(list(images))"
        raise ImageError(f"an image must be {EXPECTED}, got an array {image.dtype} {shape}{hint}")
    if channels == 1:
        return np.repeat(image.reshape(*shape[:2], 1), 3, axis=2)
    rgb: NDArray[np.uint8] = image[..., 2::-1] if color == "bgr" else image[..., :3]
    return rgb if channels == 3 and color == "rgb" else np.ascontiguousarray(rgb)
