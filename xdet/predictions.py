"""One model over a whole data set: what it found in each photograph, and where the time went.

The annotation says how large its photograph is, and that decides about EXIF: pixels as they are stored if they have that size,
else turned as EXIF says if then they have it, else the image is left out and reported.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from xdet.datasets import Problem
from xdet.errors import ImageError, UsageError
from xdet.preparation import Preparation, prepare, stack_pixels
from xdet.runtimes.base import network_turns
from xdet.stream import through_network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from converters.spec import DetectorSpec, ImageInput, Thresholds
    from xdet.datasets import LabelledImage
    from xdet.detections import BatchDetections
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
    """Where the time of one model went, summed over the workers, who work at the same time.

    Attributes:
        read: reading and decoding photographs.
        resize: stretching them.
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
        workers: photographs worked on at the same time.
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
        options: thresholds, input, workers.
        on_result: called after each photograph, in order.

    Returns:
        The results; a photograph that cannot be used is a problem instead.
    """
    started = time.perf_counter()
    problems: list[Problem] = []
    found: dict[int, Found] = {}
    read_s = resize_s = network_s = 0.0
    table = truncation_table(runtime.spec, runtime.file) if options.truncate_input else None
    turns = network_turns(runtime)

    def detect(batch: Sequence[Prepared]) -> list[_Seen]:
        pixels = stack_pixels(batch)
        pixels = pixels if table is None else table[pixels]
        with turns:
            begun = time.perf_counter()
            result = runtime.detect(pixels, options.thresholds)
            each_s = (time.perf_counter() - begun) / len(batch)
        return [_Seen(_row(result, row), image, each_s) for row, image in enumerate(batch)]

    fitting = partial(_prepare_fitting, network=runtime.spec.image)
    for image, seen in through_network(
        images, fitting, detect, batch=runtime.batch or 1, workers=options.workers
    ):
        if isinstance(seen, ImageError):
            problems.append(Problem("unreadable_images", f"image {image.id}: {seen}"))
            continue
        read_s, resize_s = read_s + seen.prepared.read_s, resize_s + seen.prepared.resize_s
        network_s += seen.network_s
        found[image.id] = seen.found
        on_result(image, seen.found)
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


@dataclass(frozen=True, eq=False, slots=True)
class _Seen:
    """A photograph behind the network, and its share of the seconds of the call."""

    found: Found
    prepared: Prepared
    network_s: float


def _row(result: BatchDetections, row: int) -> Found:
    valid = slice(0, int(result.num_detections[row]))
    return Found(result.boxes_xyxy[row, valid], result.scores[row, valid], result.classes[row, valid])


def _prepare_fitting(image: LabelledImage, network: ImageInput) -> Prepared:
    """The photograph in the orientation in which it has the size of its annotation.

    Raises:
        ImageError: it cannot be read, or has another size both ways.
    """
    prepared = stored = prepare(image.path, Preparation(network, honour_exif=False))
    if stored.size_wh != image.size_wh:
        prepared = prepare(image.path, Preparation(network, honour_exif=True))
    if prepared.size_wh != image.size_wh:
        annotated, found = ("{} x {}".format(*size) for size in (image.size_wh, stored.size_wh))
        raise ImageError(f"'{image.path}' has {found} pixels, its annotation says {annotated}")
    return prepared
