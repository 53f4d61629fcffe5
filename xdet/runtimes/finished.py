"""What runtimes share: those of finished models, which compute named values, and those of sources, with our head.

Thresholds: a back end that cannot feed the optional inputs runs the file at its own; then a higher score threshold
filters the rows afterwards, as for a model with frozen thresholds.

Images: any number of them on a model with a fixed batch; no value changes.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from converters.heads.base import BatchDetections, is_raw_output, join_outputs, match_outputs
from converters.heads.nms import detect_from_head
from converters.spec import DETECTION_OUTPUTS, IMAGE, THRESHOLD_INPUTS
from xdet.errors import ModelError, UnsoundOutputError, UsageError
from xdet.model.file import read_document
from xdet.model.wire import FLOAT, UNTOLD, freeze_thresholds, value_names, with_outputs
from xdet.runtimes.base import Capabilities, Runtime, require_images, require_thresholds, vendor_errors
from xdet.runtimes.table import RUNTIMES, open_model, row_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from contextlib import AbstractContextManager

    from converters.facts import SourceFacts
    from converters.spec import DetectorSpec, ModelDocument, Thresholds
    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices

Arrays = Sequence[NDArray[Any]]
Outputs = list[NDArray[Any]]
SLACK = 1e-3  # beyond 0..1, for runtimes that round
LAST_ANCHOR = np.iinfo(np.int32).max


def run_in_chunks(images: NDArray[np.uint8], batch: int | None, run: Callable[[NDArray[np.uint8]], Arrays]) -> Arrays:
    """Call ``run`` with ``batch`` images at a time, None for all at once, and join its outputs along the first axis.

    The last chunk is filled up with black images, whose results are cut off.
    """
    if batch is None or len(images) == batch:
        return run(images)
    parts = []
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch]
        filler = np.zeros((batch - len(chunk), *chunk.shape[1:]), chunk.dtype)
        outputs = run(np.concatenate([chunk, filler]) if len(filler) else chunk)
        parts.append([output[: len(chunk)] for output in outputs])
    return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]


def above_score(batch: BatchDetections, score: float) -> BatchDetections:
    """Keep the rows with a score > ``score`` (compared in float32); the others become padding."""
    count = (batch.scores > np.float32(score)).sum(axis=1, dtype=np.int32)  # rows fall by score: the kept ones lead
    count = np.minimum(count, batch.num_detections)
    keep = np.arange(batch.scores.shape[1]) < count[:, None]
    return BatchDetections(
        num_detections=count,
        boxes_xyxy=np.where(keep[..., None], batch.boxes_xyxy, np.float32(0)),
        scores=np.where(keep, batch.scores, np.float32(0)),
        classes=np.where(keep, batch.classes, np.int32(-1)),
        anchors=np.where(keep, batch.anchors, np.int32(-1)),
    )


def first_rows(batch: BatchDetections, rows: int) -> BatchDetections:
    """Keep the best ``rows`` rows of each image."""
    if rows >= batch.scores.shape[1]:
        return batch
    return BatchDetections(
        num_detections=np.minimum(batch.num_detections, np.int32(rows)),
        boxes_xyxy=batch.boxes_xyxy[:, :rows],
        scores=batch.scores[:, :rows],
        classes=batch.classes[:, :rows],
        anchors=batch.anchors[:, :rows],
    )


def require_sound(detections: BatchDetections, runtime: Runtime) -> BatchDetections:
    """What a back end returned as boxes, unchanged, if they keep the contract: all of xdet relies on it from here on.

    Raises:
        UnsoundOutputError: a count, coordinate, score, class or box index is out of range or no number; names output
            and image.
    """
    rows, classes = detections.scores.shape[1], len(runtime.spec.class_names)
    counts = detections.num_detections
    # slices of one image are views: this runs after every inference
    filled = np.s_[:, : max(counts[0], 0)] if len(counts) == 1 else np.arange(rows) < counts[:, None]
    for name, values, least, most in (
        ("num_detections", counts, 0, rows),
        ("detection_boxes", detections.boxes_xyxy[filled], -SLACK, 1 + SLACK),
        ("detection_scores", detections.scores[filled], -SLACK, 1 + SLACK),
        ("detection_classes", detections.classes[filled], 0, classes - 1),
        ("detection_anchors", detections.anchors[filled], 0, LAST_ANCHOR),
    ):
        lowest, highest = np.minimum.reduce(values, None, initial=0), np.maximum.reduce(values, None, initial=0)
        if not (lowest >= least and highest <= most):  # so that NaN is wrong
            wrong = values[~((values >= least) & (values <= most))]
            bounds = f"{round(least)}..{round(most)}" if most != LAST_ANCHOR else "0 or more"
            raise UnsoundOutputError(
                f"'{runtime.file}' on {runtime.name}: output {name!r} holds {wrong[0]:.6g}, expected {bounds}; "
                f"see with xdet check whether file or runtime is at fault, and convert the source again"
            )
    return detections


def require_numbers(head: NDArray[np.float32], runtime: Runtime) -> NDArray[np.float32]:
    """A raw head, unchanged, if it holds no NaN.

    Raises:
        ModelError: it does; names the first place.
    """
    wrong = np.isnan(head)
    if wrong.any():
        place = [int(index) for index in np.argwhere(wrong)[0]]
        raise ModelError(
            f"'{runtime.file}' on {runtime.name}: the raw head holds NaN, {int(wrong.sum())} of {head.size} values, "
            f"the first at {place}; expected numbers; see that the source's weights are numbers, and convert it again"
        )
    return head


def raw_outputs_of(arrays: Arrays, spec: DetectorSpec, *, file: str) -> NDArray[np.float32]:
    """What a source gives, in its own order and shapes, as the raw outputs of its detector.

    Raises:
        ModelError: they are not those of the detector.
    """
    outputs = spec.network_outputs
    try:
        order = match_outputs([array.shape[1:] for array in arrays], outputs)
    except ValueError as error:
        raise ModelError(f"'{file}': {error}; see that sidecar and options belong to this file") from error
    return join_outputs(
        [
            np.asarray(arrays[place], np.float32).reshape(-1, *output.shape)
            for output, place in zip(outputs, order, strict=True)
        ]
    )


def rescaled(images: NDArray[np.uint8], spec: DetectorSpec) -> NDArray[np.float32]:
    """Pixels as a float network takes them, both steps rounded to float32 as in a finished graph."""
    rescaling = spec.image.rescaling
    return images.astype(np.float32) * np.float32(rescaling.scale) + np.float32(rescaling.offset)


class TensorRuntime(Runtime):
    """A file whose inner values a back end computes by name."""

    TITLE: ClassVar[str]  # of the back end, for messages
    ADVICE: ClassVar[str] = "see that the file is a complete ONNX model"

    def _errors(self) -> tuple[type[Exception], ...]:
        """What the back end raises for a file that it cannot take."""
        return (RuntimeError, ValueError, TypeError, MemoryError)

    def _border(self, doing: str, advice: str | None = None) -> AbstractContextManager[None]:
        """Where these become a ``ModelError``, which tells what failed and what to do."""
        doing = f"{self.TITLE} {doing}"
        return vendor_errors(self._errors(), file=self.file, doing=doing, advice=advice or self.ADVICE)

    @property
    @abc.abstractmethod
    def _value_names(self) -> Collection[str]:
        """The values that the file computes."""

    @abc.abstractmethod
    def _values(self, images: NDArray[np.uint8], names: Sequence[str]) -> Arrays:
        """The named values, in the file's dtypes, of as many images as one call takes."""

    def tensors(self, images: NDArray[np.uint8], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Inner values by name; see ``Runtime.tensors``."""
        require_images(images, self.spec)
        self._require_open()
        names = list(dict.fromkeys(names))
        if not names:
            return {}
        unknown = sorted(set(names).difference(self._value_names))
        if unknown:
            raise UsageError(
                f"'{self.file}' computes no value named {', '.join(map(repr, unknown))}; the tensor map of its "
                f"metadata, and xdet inspect, name what it holds"
            )
        arrays = run_in_chunks(images, self.batch, lambda chunk: self._values(chunk, names))
        return dict(zip(names, arrays, strict=True))

    def _decoded(self, images: NDArray[np.uint8], thresholds: Thresholds) -> BatchDetections:
        """The numpy oracle's boxes of the raw outputs."""
        if self.spec.head is None or not self.spec.class_names:
            missing = "anchors" if self.spec.head is None else "class names"
            raise ModelError(
                f"'{self.file}' ends at the raw head and no {missing} are known, so boxes cannot be decoded; "
                f"convert its source with `anchors` and `classes`, or write both into the source's sidecar"
            )
        return detect_from_head(self.head(images), self.spec, thresholds)


class SourceRuntime(TensorRuntime):
    """A source file, which ends at its raw outputs: boxes are the numpy oracle's."""

    def __init__(self, model: ModelFile, *, name: str, spec: DetectorSpec, batch: int | None, exact: bool) -> None:
        capabilities = Capabilities(thresholds=True, max_detections=None, exact=exact)
        super().__init__(model, name=name, spec=spec, capabilities=capabilities, batch=batch)

    @abc.abstractmethod
    def _outputs(self, images: NDArray[np.uint8]) -> Arrays:
        """The network's outputs as numbers, channels last, of as many images as one call takes."""

    def head(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The raw outputs as one array; see ``Runtime.head``."""
        require_images(images, self.spec)
        self._require_open()
        arrays = run_in_chunks(images, self.batch, self._outputs)
        return require_numbers(raw_outputs_of(arrays, self.spec, file=self.file), self)

    def detect(self, images: NDArray[np.uint8], thresholds: Thresholds) -> BatchDetections:
        """Find boxes; see ``Runtime.detect``."""
        require_images(images, self.spec)
        require_thresholds(thresholds, self)
        return self._decoded(images, thresholds)


def describe_source(model: ModelFile, facts: SourceFacts, choices: RuntimeChoices) -> DetectorSpec:
    """The detector in a source, as its file, its sidecar and the caller describe it.

    Raises:
        ConversionError: its anchors or classes are stated nowhere, or contradict it.
    """
    from converters.description.statements import SourceOptions, describe_source

    return describe_source(model.path, facts, choices.source_options or SourceOptions()).spec


class FinishedModelRuntime(TensorRuntime):
    """A finished model on a back end; subclasses give ``_compute`` and ``_free``.

    Attributes:
        document: all that the file's metadata says; read unless it is given.
    """

    def __init__(
        self, model: ModelFile, name: str, *, batch: int | None = None, document: ModelDocument | None = None
    ) -> None:
        self.document = document = document or read_document(model.data, file=model.file)
        spec, row = document.spec, row_of(name)
        self._raw_names = tuple(output.value_name for output in spec.network_outputs)
        self._feeds_thresholds = row is not None and row.feeds_thresholds and not document.freeze_thresholds
        capabilities = Capabilities(
            thresholds=self._feeds_thresholds or not spec.gives_boxes,
            max_detections=spec.thresholds.max_detections if spec.gives_boxes else None,
            exact=False,  # none promises LiteRT's rounding
        )
        super().__init__(model, name=name, spec=spec, capabilities=capabilities, batch=batch)

    @abc.abstractmethod
    def _compute(self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Outputs:
        """The named values, in the file's dtypes; ``feeds`` holds ``image``, and thresholds if they can be fed."""

    def _require_outputs(self, names: Sequence[str]) -> None:
        """Refuse a graph, which has outputs of these names, without those that its metadata promises."""
        promised = [output.value_name for output in self.spec.raw_outputs] or list(DETECTION_OUTPUTS)
        missing = [name for name in promised if name not in names]
        if missing:
            raise ModelError(
                f"'{self.file}' does not keep what its metadata says: {', '.join(map(repr, missing))} missing among "
                f"its outputs {list(names)}; was it edited? Convert the source again with xdet convert"
            )

    def _values(self, images: NDArray[np.uint8], names: Sequence[str]) -> Outputs:
        return self._compute({IMAGE: images}, names)

    @cached_property
    def _value_names(self) -> frozenset[str]:
        return value_names(self.model.data)

    def detect(self, images: NDArray[np.uint8], thresholds: Thresholds) -> BatchDetections:
        """Find boxes; see ``Runtime.detect``."""
        require_images(images, self.spec)
        require_thresholds(thresholds, self)
        if not self.spec.gives_boxes:
            return self._decoded(images, thresholds)
        self._require_open()
        outputs = run_in_chunks(images, self.batch, lambda chunk: self._boxes(chunk, thresholds))
        detections = require_sound(BatchDetections(*outputs), self)
        if not self._feeds_thresholds:
            detections = above_score(detections, thresholds.score)
        return first_rows(detections, thresholds.max_detections)

    def _boxes(self, images: NDArray[np.uint8], thresholds: Thresholds) -> Outputs:
        """The graph's boxes; at its own thresholds where none are fed."""
        feeds: dict[str, NDArray[Any]] = {IMAGE: images}
        if self._feeds_thresholds:  # arrays without dimensions: ONNX Runtime refuses numpy scalars
            values = (thresholds.score, thresholds.iou)
            feeds |= {n: np.asarray(v, np.float32) for n, v in zip(THRESHOLD_INPUTS, values, strict=True)}
        return self._compute(feeds, DETECTION_OUTPUTS)

    def head(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The raw outputs as one array; a model that ends in boxes shows them, too. See ``Runtime.head``."""
        return require_numbers(join_outputs(list(self.tensors(images, self._raw_names).values())), self)

    def network(self, images: NDArray[np.uint8]) -> object:
        """The raw outputs, as the back end gives them; see ``Runtime.network``."""
        self._require_open()
        return self._compute({IMAGE: images}, self._raw_names)


class FrozenCopies(Runtime):
    """A finished model with fed thresholds, on a runtime whose row says that it feeds none; for one thread at a time.

    It runs copies in which thresholds are constants (``freeze_thresholds``): one at once for the first pair, others
    when they are asked for. One serves every higher score. Description and SHA-256 stay the file's own.
    """

    def __init__(
        self, model: ModelFile, document: ModelDocument, open_copy: Callable[[ModelFile], Runtime], first: Thresholds
    ) -> None:
        self._document, self._open = document, open_copy
        self._baked, self._copy = self._opened(model, first)
        super().__init__(
            model,
            name=self._copy.name,
            spec=document.spec,
            capabilities=replace(self._copy.capabilities, thresholds=True),
            batch=self._copy.batch,
        )

    def detect(self, images: NDArray[np.uint8], thresholds: Thresholds) -> BatchDetections:
        """Find boxes, in another copy where the thresholds want one; see ``Runtime.detect``."""
        self._require_open()
        if thresholds.iou != self._baked.iou or thresholds.score < self._baked.score:
            before = self._copy
            self._baked, self._copy = self._opened(self.model, thresholds)
            before.close()
        return self._copy.detect(images, thresholds)

    def head(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The raw head; see ``Runtime.head``."""
        return self._copy.head(images)

    def network(self, images: NDArray[np.uint8]) -> object:
        """The raw outputs without checks; see ``Runtime.network``."""
        return self._copy.network(images)

    def tensors(self, images: NDArray[np.uint8], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Inner values by name; see ``Runtime.tensors``."""
        return self._copy.tensors(images, names)

    def _free(self) -> None:
        self._copy.close()

    def _opened(self, model: ModelFile, requested: Thresholds) -> tuple[Thresholds, Runtime]:
        baked = replace(requested, max_detections=self._document.spec.thresholds.max_detections)
        return baked, self._open(replace(model, data=freeze_thresholds(model.data, self._document, baked)))


def open_at(
    model: ModelFile,
    choices: RuntimeChoices,
    choose: Callable[[DetectorSpec], Thresholds],
    *,
    subprocess: bool | None = None,
) -> Runtime:
    """Open a model that will be asked for boxes at certain thresholds, which every runtime can be asked for then.

    A file whose thresholds its maker froze keeps them: ``require_thresholds`` refuses others.

    ``choose`` gives the thresholds, once it is known what the model holds.

    Raises:
        XdetError: as ``open_model``; whatever ``choose`` raises.
    """
    row = RUNTIMES.get(choices.runtime or "")
    opened = partial(open_model, choices=choices, subprocess=subprocess)
    if row is None or row.feeds_thresholds or not model.is_finished:
        return opened(model)
    document = read_document(model.data, file=model.file)
    if document.freeze_thresholds or not document.spec.gives_boxes:
        return opened(model)
    return FrozenCopies(model, document, opened, choose(document.spec))


def showing(model: bytes, names: Iterable[str]) -> bytes:
    """A finished model that shows inner values as outputs: raw ones are float32, other dtypes the back end infers."""
    return with_outputs(model, [(name, FLOAT if is_raw_output(name) else UNTOLD) for name in names])
