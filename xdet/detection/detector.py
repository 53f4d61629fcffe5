"""Photographs in, detections out: a runtime with the reading and stretching that its model expects."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from converters.spec import DetectorSpec, Thresholds
from xdet.detections import Detections
from xdet.errors import ImageError, UsageError
from xdet.pictures.preparation import (
    Photograph,
    Preparation,
    Prepared,
    image_name,
    prepare,
    stack_pixels,
    through_network,
)
from xdet.runtimes.base import Runtime, network_turns, require_thresholds
from xdet.runtimes.processors import RuntimeChoices
from xdet.runtimes.table import open_runtime

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Self


class Detector:
    """A detector that is ready to look at photographs; a context manager that closes its runtime.

    Args:
        model: an ONNX file that xdet made, or a TFLite file; None is the embedded person detector.
        provider: execution provider, short or full name (``xdet providers`` lists them), None the CPU; for a TFLite
            file LiteRT's kernels, ``"xnnpack"`` (the default), ``"builtin"`` or ``"reference"``.
        provider_options: handed to ONNX Runtime's execution provider, as its documentation names them.
        device: of that provider, as ``xdet providers`` lists it (``"gpu"``, ``"gpu:1"``); None is the provider's choice.
        threads: threads inside an operator; None is the runtime's default, for several workers the processors shared among
            them.
        score_threshold: a box needs a score above it; None takes the model's own.
        iou_threshold: a box falls when its IoU with a better one of its class is above it; None takes the
            model's own.
        workers: images that ``detect_many`` works on at the same time; results do not depend on it.

    Raises:
        ModelError: the file is missing, damaged, or not a model that xdet runs.
        RuntimeUnavailableError: the provider, its device or a package is not there.
        UsageError: a threshold or a number of threads out of range, a threshold that the model cannot take, or options for what
            has none.

    Attributes:
        runtime: where the model runs.
        thresholds: those in use.
        workers: as given.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        provider: str | None = None,
        provider_options: Mapping[str, str] | None = None,
        device: str | None = None,
        threads: int | None = None,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        workers: int = 1,
    ) -> None:
        choices = RuntimeChoices(
            provider=provider,
            threads=threads,
            workers=workers,
            provider_options=provider_options or {},
            device=device,
        )
        self.workers = workers
        self.runtime: Runtime = (
            _open_embedded(choices) if model is None else open_runtime(Path(model), choices)
        )
        self.thresholds = _chosen(self.spec.thresholds, score_threshold, iou_threshold)
        require_thresholds(self.thresholds, self.runtime)
        self._turns = network_turns(self.runtime)

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
        return self.detect_prepared([prepare(image, Preparation(self.spec.image))])[0]

    def detect_many(
        self, images: Iterable[Photograph], *, on_failure: Callable[[str, ImageError], None] | None = None
    ) -> Iterator[Detections]:
        """Detect in a stream of images, lazily and in order, ``workers`` of them at a time.

        Args:
            images: files or arrays, as for a single one.
            on_failure: called with the name of an image that cannot be read, and why; the stream goes on.
                Without it the error is raised, after the results of the images before it.
        """
        how = Preparation(self.spec.image)
        for image, found in through_network(
            images, partial(prepare, how=how), self.detect_prepared, batch=self.batch, workers=self.workers
        ):
            if not isinstance(found, ImageError):
                yield found
            elif on_failure is None:
                raise found
            else:
                on_failure(image_name(image), found)

    @property
    def batch(self) -> int:
        """Images that are given to the runtime at a time."""
        return self.runtime.batch or 1

    def detect_prepared(self, images: Sequence[Prepared]) -> list[Detections]:
        """Detect in images that ``xdet.pictures.preparation`` made for ``spec.image``, at least one; from any thread."""
        pixels = stack_pixels(images)
        with self._turns:
            found = self.runtime.detect(pixels, self.thresholds)
        return [
            Detections.from_batch(
                found,
                index,
                image=image.name,
                size_wh=image.size_wh,
                placement=image.placement,
                class_names=self.spec.class_names,
            )
            for index, image in enumerate(images)
        ]

    def close(self) -> None:
        """Free what the runtime holds."""
        self.runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open_embedded(choices: RuntimeChoices) -> Runtime:
    """By the module's name: its first call of all converts, and detecting depends on no conversion code."""
    opened: Runtime = import_module("xdet.detection.embedded").open_embedded(choices)
    return opened


def _chosen(own: Thresholds, score: float | None, iou: float | None) -> Thresholds:
    try:
        return Thresholds(
            score=own.score if score is None else score,
            iou=own.iou if iou is None else iou,
            max_detections=own.max_detections,
        )
    except ValueError as error:
        raise UsageError(f"{error}; give a number between 0 and 1") from error
