"""Photographs in, detections out: a runtime with the reading and stretching that its model expects."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from converters.errors import quote_some
from xdet.detections import Detections, require_classes
from xdet.errors import ImageError, ModelError, UsageError
from xdet.model.file import read_model_file, require_source
from xdet.pictures.preparation import ARRAY, Preparation, Prepared, prepare, read_picture, stack_pixels, through_network
from xdet.runtimes.base import Runtime, RuntimeChoices, require_thresholds
from xdet.runtimes.finished import open_at
from xdet.runtimes.table import split_runtime

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Self

    from converters.description.statements import SourceOptions
    from converters.spec import DetectorSpec, Thresholds
    from xdet.pictures.preparation import Color


Image = Any  # str | os.PathLike[str] | NDArray[np.uint8] | PIL.Image.Image, and no package is loaded to say so


class Detector:
    """A detector that is ready to look at photographs; a context manager that closes its runtime.

    Args:
        model: an ONNX file that xdet made, or a TFLite file; None is the embedded person detector.
        runtime: what runs the file, as ``xdet check --runtimes`` takes it: ``"openvino"``,
            ``"onnxruntime-web:chromium"``; None is ONNX Runtime, for a source that of its format.
        provider: what stands behind the runtime's name and a colon: of ONNX Runtime an execution provider, short or
            full name (``xdet providers`` lists them), None the CPU; of LiteRT its kernels, ``"xnnpack"`` (the default),
            ``"builtin"`` or ``"reference"``.
        provider_options: handed to ONNX Runtime's execution provider, as its documentation names them.
        device: of that provider, as ``xdet providers`` lists it (``"gpu"``, ``"gpu:1"``); None is the provider's
            choice.
        threads: threads inside an operator; None is the runtime's default, for several workers the processors shared
            among them.
        score_threshold: a box needs a score above it; None takes the model's own. By class: ``{"person": 0.5, "dog":
            0.3}``; classes that are not named keep the model's own, and the model's limit of boxes counts all that are
            above the least.
        iou_threshold: a box falls when its IoU with a better one of its class is above it; None takes the
            model's own.
        workers: images that ``detect_many`` works on at the same time; results do not depend on it.
        decode: ``"reduced"`` decodes JPEG files no larger than the network needs: faster, and boxes move a little.
        source_options: what its file and sidecar do not say of a source (``xdet.describing_options``).

    Raises:
        ModelError: the file is missing, damaged, or not a model that xdet runs.
        RuntimeUnavailableError: the runtime, the provider, its device or a package is not there.
        UsageError: ``model`` is no path, a threshold or a number of threads is out of range, the model cannot take a
            threshold, a runtime that does not take the file, or options for what has none.

    Attributes:
        runtime: where the model runs.
        thresholds: those in use; of scores by class the least.
        score_by_class: the score thresholds of classes, where they were given; else None.
        workers: as given.
        decode: as given.
        arguments: all that were given, by name, the model's path absolute.

    A pickled detector, such as one that multiprocessing hands on, opens its model's file anew where it is unpickled.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        runtime: str | None = None,
        provider: str | None = None,
        provider_options: Mapping[str, str] | None = None,
        device: str | None = None,
        threads: int | None = None,
        score_threshold: float | Mapping[str, float] | None = None,
        iou_threshold: float | None = None,
        workers: int = 1,
        decode: Literal["full", "reduced"] = "full",
        source_options: SourceOptions | None = None,
    ) -> None:
        self.arguments = {name: value for name, value in locals().items() if name != "self"}
        if model is not None and not isinstance(model, str | os.PathLike):
            raise UsageError(
                f"a model must be the path of a file, or None for the embedded detector, got "
                f"{type(model).__qualname__}; a picture goes to the call: Detector()(picture)"
            )
        name, kind = split_runtime(runtime, provider)
        choices = RuntimeChoices(
            name, kind, threads, workers, provider_options or {}, device, source_options=source_options
        )
        if model is not None:
            require_source([Path(model)], source_options)
            self.arguments["model"] = os.path.abspath(model)  # noqa: PTH100 - links stay
        if decode not in {"full", "reduced"}:
            raise UsageError(f"`decode` must be full or reduced, got {decode!r}")
        self.workers, self.decode = workers, decode
        choose = partial(_choose, score=score_threshold, iou=iou_threshold)
        self.runtime: Runtime
        if model is None:  # by the module's name: its first call of all converts, which detecting does not depend on
            self.runtime = import_module("xdet.detection.embedded").open_embedded(choices, choose)
        else:
            self.runtime = open_at(read_model_file(Path(model)), choices, choose)
        self.score_by_class = _by_class(score_threshold, self.spec) if isinstance(score_threshold, Mapping) else None
        self.thresholds = choose(self.spec)
        require_thresholds(self.thresholds, self.runtime)

    def __reduce__(self) -> tuple[Callable[..., Detector], tuple[dict[str, Any], str]]:
        return _reopened, (self.arguments, self.runtime.sha256)

    @property
    def embedded(self) -> bool:
        """Whether it is the detector that comes with xdet."""
        return self.arguments["model"] is None

    @property
    def spec(self) -> DetectorSpec:
        """What the model expects and finds."""
        return self.runtime.spec

    @overload
    def __call__(self, image: list[Any] | tuple[Any, ...], *, color: Color = "rgb") -> list[Detections]: ...
    @overload
    def __call__(self, image: Image, *, color: Color = "rgb") -> Detections: ...
    def __call__(self, image: Any, *, color: Color = "rgb") -> Detections | list[Detections]:
        """Detect in one image, or in a list of them.

        Args:
            image: a file or an http address (EXIF orientation is honoured), a PIL picture, or uint8 ``(height, width,
                3)``, grey ``(height, width)``, or with transparency, which is dropped, ``(height, width, 4)``; or a
                list of such.
            color: order of an array's channels; OpenCV's is ``"bgr"``.

        Raises:
            ImageError: it cannot be read, or is nothing of the kind.
        """
        if isinstance(image, list | tuple):
            return list(self.detect_many(image, color=color))
        return self.detect_prepared([self._ready(image, color)])[0]

    def detect_many(
        self,
        images: Iterable[Image],
        *,
        color: Color = "rgb",
        on_failure: Callable[[str, ImageError], None] | None = None,
    ) -> Iterator[Detections]:
        """Detect in a stream of images, lazily and in order, ``workers`` of them at a time.

        Args:
            images: as for a single one.
            color: as for a single one.
            on_failure: called with the name of an image that cannot be read, and why; the stream goes on.
                Without it the error is raised, after the results of the images before it.
        """
        ready = partial(self._ready, color=color)
        for image, outcome in through_network(
            images, ready, self.detect_prepared, batch=self.batch, workers=self.workers
        ):
            if not isinstance(outcome, ImageError):
                yield outcome
            elif on_failure is None:
                raise outcome
            else:
                on_failure(os.fspath(image) if isinstance(image, str | os.PathLike) else ARRAY, outcome)

    def _ready(self, image: Image, color: Color) -> Prepared:
        name, photograph = read_picture(image, color=color)
        return prepare(photograph, Preparation(self.spec.image, reduced=self.decode == "reduced"), name=name)

    @property
    def batch(self) -> int:
        """Images that are given to the runtime at a time."""
        return self.runtime.batch or 1

    def detect_prepared(self, images: Sequence[Prepared], *, classes: Sequence[str] | None = None) -> list[Detections]:
        """Detect in images that ``xdet.pictures.preparation`` made for ``spec.image``, at least one; from any thread.

        ``classes`` are the names of those to keep; None keeps all.
        """
        pixels = stack_pixels(images)
        with self.runtime.turns:
            batch = self.runtime.detect(pixels, self.thresholds)
        names = self.spec.class_names
        results = [Detections.from_batch(batch, index, image, names) for index, image in enumerate(images)]
        if self.score_by_class is not None:
            above = np.array([self.score_by_class.get(name, self.spec.thresholds.score) for name in names], np.float32)
            results = [each[each.scores > above[each.classes]] for each in results]
        return results if classes is None else [each.filter(classes=classes) for each in results]

    def close(self) -> None:
        """Free what the runtime holds."""
        self.runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _reopened(arguments: dict[str, Any], sha256: str) -> Detector:
    """A detector that was pickled; its file may hold another model now."""
    detector = Detector(**arguments)
    if detector.runtime.sha256 != sha256:
        detector.close()
        raise ModelError(
            f"'{arguments['model']}' is another model than when the detector was pickled; make the detector anew"
        )
    return detector


def _by_class(scores: Mapping[str, float], spec: DetectorSpec) -> dict[str, float]:
    """Score thresholds by class, once they are known to fit."""
    if not scores:
        raise UsageError(f"thresholds by class: name a class that the model finds: {quote_some(spec.class_names)}")
    require_classes(scores, spec.class_names, what="thresholds by class")
    return {name: choose_thresholds(spec.thresholds, score, None).score for name, score in scores.items()}


def _choose(spec: DetectorSpec, *, score: float | Mapping[str, float] | None, iou: float | None) -> Thresholds:
    """The thresholds that a model is asked for; of scores by class the least."""
    if isinstance(score, Mapping):
        by_class = _by_class(score, spec)
        score = min(by_class.get(name, spec.thresholds.score) for name in spec.class_names)
    return choose_thresholds(spec.thresholds, score, iou)


def choose_thresholds(own: Thresholds, score: float | None, iou: float | None) -> Thresholds:
    """A model's own thresholds, but for those that are given; a ``UsageError`` where one is out of range."""
    try:
        return replace(own, score=own.score if score is None else score, iou=own.iou if iou is None else iou)
    except ValueError as error:
        raise UsageError(f"{error}; give a number between 0 and 1") from error
