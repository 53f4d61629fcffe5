"""One model over a whole data set: what it found in each photograph, and where the time went.

The annotation says how large its photograph is, and that decides about EXIF: pixels as they are stored if they have that size,
else turned as EXIF says if then they have it, else the image is left out and reported.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xdet.datasets import Problem
from xdet.errors import ImageError, UsageError
from xdet.preparation import Preparation, in_batches, prepare, prepare_many, stack_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from converters.spec import DetectorSpec, ImageInput, Thresholds
    from xdet.datasets import LabelledImage
    from xdet.preparation import Prepared
    from xdet.runtimes.base import Runtime


@dataclass(frozen=True, eq=False)
class Found:
    """What a model found in one photograph, best score first.

    Attributes:
        boxes_xyxy: float32 ``(D, 4)``, corners as fractions of the photograph.
        scores: float32 ``(D,)``.
        classes: int32 ``(D,)``, the model's own numbers.
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Seconds:
    """Where the time of one model went. With workers, reading and resizing run beside the network.

    Attributes:
        read: reading and decoding photographs, summed over workers.
        resize: stretching them, likewise.
        network: the network with its head, boxes included.
        wall: from the first photograph to the last result.
    """

    read: float = 0.0
    resize: float = 0.0
    network: float = 0.0
    wall: float = 0.0


@dataclass(frozen=True, eq=False)
class Predictions:
    """One model's results, by image id, with the images it has none for."""

    found: dict[int, Found]
    problems: tuple[Problem, ...]
    seconds: Seconds


@dataclass(frozen=True, slots=True)
class PredictionOptions:
    """How a model is run over photographs.

    Attributes:
        thresholds: what is kept.
        truncate_input: feed what a truncating input quantisation makes of each pixel.
        workers: threads that read and resize ahead of the network; 0 does both in turn.
    """

    thresholds: Thresholds
    truncate_input: bool = False
    workers: int = 1


def predict(
    runtime: Runtime,
    images: Sequence[LabelledImage],
    options: PredictionOptions,
    *,
    on_result: Callable[[LabelledImage, Found], object],
) -> Predictions:
    """Run a model over photographs.

    Args:
        runtime: the open model.
        images: the photographs.
        options: thresholds, input, threads.
        on_result: called after each photograph, in order.

    Returns:
        The results; a photograph that cannot be used is a problem instead.
    """
    started = time.perf_counter()
    problems: list[Problem] = []
    found: dict[int, Found] = {}
    read_s = resize_s = network_s = 0.0
    table = truncation_table(runtime.spec, runtime.file) if options.truncate_input else None
    fitting: deque[LabelledImage] = deque()
    prepared_images = _prepared(images, runtime.spec.image, options.workers, fitting, problems)
    for batch in in_batches(prepared_images, runtime.batch or 1):
        pixels = stack_pixels(batch)
        begun = time.perf_counter()
        result = runtime.detect(pixels if table is None else table[pixels], options.thresholds)
        network_s += time.perf_counter() - begun
        for row, prepared in enumerate(batch):
            image = fitting.popleft()
            read_s, resize_s = read_s + prepared.read_s, resize_s + prepared.resize_s
            valid = slice(0, int(result.num_detections[row]))
            found[image.id] = Found(
                result.boxes_xyxy[row, valid], result.scores[row, valid], result.classes[row, valid]
            )
            on_result(image, found[image.id])
    seconds = Seconds(read_s, resize_s, network_s, time.perf_counter() - started)
    return Predictions(found, tuple(problems), seconds)


def truncation_table(spec: DetectorSpec, file: str) -> NDArray[np.uint8] | None:
    """What quantising a rescaled float image by truncation, as the zoo's evaluation does, makes of each pixel.

    A network that sees -1..1 has the input zero-point 127 where 127.5 would be exact: pixel p becomes
    ``trunc(p - 127.5 + 127)``, which is p - 1 for every p >= 1, and 0 for 0. One that sees 0..1 loses nothing.

    Returns:
        uint8 ``(256,)`` by pixel, or None where pixels stay as they are.

    Raises:
        UsageError: another rescaling, for which this is not defined.
    """
    rescaling = spec.image.rescaling
    exact_zero_point = -rescaling.offset / rescaling.scale
    if exact_zero_point == 0:
        return None
    if not 126.9 < exact_zero_point < 127.6:
        raise UsageError(
            f"--truncate-input is defined for networks that see pixels as 0..1 or -1..1; '{file}' rescales them by "
            f"{rescaling.scale:.9g}, {rescaling.offset:.9g}; leave it out"
        )
    pixels = np.arange(256)
    return np.maximum(pixels - 1, 0).astype(np.uint8)


def _prepared(
    images: Sequence[LabelledImage],
    network: ImageInput,
    workers: int,
    fitting: deque[LabelledImage],
    problems: list[Problem],
) -> Iterator[Prepared]:
    """The photographs that have the size of their annotation; the entry of each goes to ``fitting``, in step."""
    as_stored = Preparation(network, honour_exif=False)
    waiting = deque(images)

    def leave_out(_: str, error: ImageError) -> None:
        problems.append(_problem(waiting.popleft(), str(error)))

    paths = [image.path for image in images]
    for stored in prepare_many(paths, as_stored, workers=workers, on_failure=leave_out):
        image = waiting.popleft()
        prepared = stored
        if stored.size_wh != image.size_wh:
            prepared = prepare(image.path, Preparation(network, honour_exif=True))
        if prepared.size_wh == image.size_wh:
            fitting.append(image)
            yield prepared
        else:
            annotated, found = ("{} x {}".format(*size) for size in (image.size_wh, stored.size_wh))
            problems.append(
                _problem(image, f"'{image.path}' has {found} pixels, its annotation says {annotated}")
            )


def _problem(image: LabelledImage, reason: str) -> Problem:
    return Problem("unreadable_images", f"image {image.id}: {reason}")
