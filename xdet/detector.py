"""Photographs in, detections out: a runtime with the reading and stretching that its model expects."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from converters.spec import DetectorSpec, Thresholds
from xdet.detections import Detections
from xdet.embedded import open_embedded
from xdet.errors import ImageError, UsageError
from xdet.images import read_image, resize_image
from xdet.runtimes.base import Runtime, require_thresholds
from xdet.runtimes.opening import open_runtime, require_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Photograph = str | os.PathLike[str] | NDArray[np.uint8]
ARRAY = "<array>"


@dataclass(frozen=True, eq=False)
class _Prepared:
    """An image on its way through the network: name, size as a photograph, pixels at network size."""

    name: str
    size_wh: tuple[int, int]
    pixels: NDArray[np.uint8]


class Detector:
    """A detector that is ready to look at photographs.

    Args:
        model: an ONNX file that xdet made, or a TFLite file; None is the embedded person detector.
        provider: execution provider, short or full name (``xdet providers`` lists them); None is the CPU.
        threads: threads inside an operator; None is the runtime's default.
        score_threshold: a box needs a score above it; None takes the model's own.
        iou_threshold: a box falls when its IoU with a better one of its class is above it; None takes the
            model's own.

    Raises:
        ModelError: the file is missing, damaged, or not a model that xdet runs.
        RuntimeUnavailableError: the provider or a package is not there.
        UsageError: a threshold out of range, or one that the model cannot take.

    Attributes:
        runtime: where the model runs.
        thresholds: those in use.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        provider: str | None = None,
        threads: int | None = None,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
    ) -> None:
        require_threads(threads)
        if model is None:
            self.runtime: Runtime = open_embedded(provider=provider, threads=threads)
        else:
            self.runtime = open_runtime(Path(model), provider=provider, threads=threads)
        self.thresholds = _chosen(self.spec.thresholds, score_threshold, iou_threshold)
        require_thresholds(self.thresholds, self.runtime)

    @property
    def spec(self) -> DetectorSpec:
        """What the model expects and finds."""
        return self.runtime.spec

    def __call__(self, image: Photograph) -> Detections:
        """Detect in one image.

        Args:
            image: a file (its EXIF orientation is honoured), or uint8 ``(height, width, 3)``, RGB.

        Raises:
            ImageError: it cannot be read, or is no such array.
        """
        return self._detect([self._prepare(image)])[0]

    def detect_many(
        self, images: Iterable[Photograph], *, on_failure: Callable[[str, ImageError], None] | None = None
    ) -> Iterator[Detections]:
        """Detect in a stream of images, lazily and in order; only one batch is in memory at a time.

        Args:
            images: files or arrays, as for a single one.
            on_failure: called with the name of an image that cannot be read, and why; the stream goes on.
                Without it the error is raised, after the results of the images before it.
        """
        waiting: list[_Prepared] = []
        for image in images:
            try:
                waiting.append(self._prepare(image))
            except ImageError as error:
                if on_failure is None:
                    yield from self._detect(waiting)
                    raise
                on_failure(_name(image), error)
            if len(waiting) == (self.runtime.batch or 1):
                yield from self._detect(waiting)
                waiting = []
        yield from self._detect(waiting)

    def _prepare(self, image: Photograph) -> _Prepared:
        pixels = image if isinstance(image, np.ndarray) else read_image(Path(image), honour_exif=True)
        expected = self.spec.image
        resized = resize_image(pixels, expected.height, expected.width, expected.resize)
        return _Prepared(_name(image), (pixels.shape[1], pixels.shape[0]), resized)

    def _detect(self, images: list[_Prepared]) -> list[Detections]:
        if not images:
            return []
        batch = self.runtime.detect(np.stack([image.pixels for image in images]), self.thresholds)
        return [
            Detections.from_batch(
                batch, index, image=image.name, size_wh=image.size_wh, class_names=self.spec.class_names
            )
            for index, image in enumerate(images)
        ]


def _name(image: Photograph) -> str:
    return ARRAY if isinstance(image, np.ndarray) else os.fspath(image)


def _chosen(own: Thresholds, score: float | None, iou: float | None) -> Thresholds:
    try:
        return Thresholds(
            score=own.score if score is None else score,
            iou=own.iou if iou is None else iou,
            max_detections=own.max_detections,
        )
    except ValueError as error:
        raise UsageError(f"{error}; give a number between 0 and 1") from error
