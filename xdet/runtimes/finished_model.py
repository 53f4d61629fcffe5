"""A finished model on a back end that only computes named values: what is the same for all of them.

Thresholds: a back end that cannot feed the optional inputs runs the file at its own; then a higher score threshold
filters the rows afterwards, as for a model with frozen thresholds.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.spec import DETECTION_OUTPUTS, HEAD, IMAGE, THRESHOLD_INPUTS
from xdet.detections import BatchDetections
from xdet.errors import ModelError, UsageError
from xdet.runtimes.base import Capabilities, require_images, require_names, require_thresholds
from xdet.runtimes.batches import above_score, first_rows, run_in_chunks
from xdet.runtimes.described import DescribedRuntime
from xdet.runtimes.numpy_head import decoder_for
from xdet.runtimes.onnx_wire import value_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from converters.spec import ModelDocument, Thresholds

Arrays = list["NDArray[Any]"]


class FinishedModelRuntime(DescribedRuntime):
    """A finished model on a back end; subclasses give ``name``, ``_compute`` and ``_free``.

    Args:
        model: the ONNX file's bytes.
        file: its name, for messages.
        document: what its metadata says.
        feeds_thresholds: whether the back end takes the optional inputs.
        batch: images per call of the back end.
    """

    def __init__(
        self, model: bytes, *, file: str, document: ModelDocument, feeds_thresholds: bool, batch: int | None
    ) -> None:
        super().__init__(model, file=file, spec=document.spec)
        self.document = document
        self._feeds = feeds_thresholds and not document.freeze_thresholds
        self._batch, self._open = batch, True

    @abc.abstractmethod
    def _compute(self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Arrays:
        """The named values, in the file's dtypes; ``feeds`` holds ``image`` and, if the back end takes them, thresholds."""

    @abc.abstractmethod
    def _free(self) -> None:
        """Free what the back end holds."""

    @property
    def batch(self) -> int | None:
        """Images per call, or None for any number."""
        return self._batch

    @property
    def capabilities(self) -> Capabilities:
        """Head and inner values always; thresholds where they can be fed; exact nowhere: none promises LiteRT's rounding."""
        only_head = self.spec.head == "none"
        return Capabilities(
            thresholds=only_head or self._feeds,
            max_detections=None if only_head else self.spec.thresholds.max_detections,
            head=True,
            tensors=True,
            exact=False,
        )

    def detect(self, images: NDArray[np.uint8], thresholds: Thresholds) -> BatchDetections:
        """Find boxes in uint8 RGB images ``(N, height, width, 3)``; see ``Runtime.detect``."""
        require_images(images, self.spec)
        require_thresholds(thresholds, self)
        if self.spec.head == "none":
            return decoder_for(self.spec, file=self.file)(self.head(images), thresholds)
        fed: dict[str, NDArray[Any]] = {}
        if self._feeds:
            values = (thresholds.score, thresholds.iou)
            fed = {
                n: np.asarray(value, np.float32) for n, value in zip(THRESHOLD_INPUTS, values, strict=True)
            }
        self._require_open()
        outputs = run_in_chunks(
            images, self.batch, lambda chunk: self._compute({IMAGE: chunk, **fed}, DETECTION_OUTPUTS)
        )
        found = BatchDetections(*outputs)
        if not self._feeds:
            found = above_score(found, thresholds.score)
        return first_rows(found, thresholds.max_detections)

    def head(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The raw head, float32 ``(N, grid_h, grid_w, channels)``; a model that ends in boxes shows it, too."""
        return self.tensors(images, [HEAD])[HEAD]

    def tensors(self, images: NDArray[np.uint8], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Values of the ONNX graph by name; see ``Runtime.tensors``."""
        require_images(images, self.spec)
        self._require_open()
        wanted = list(dict.fromkeys(names))
        require_names(wanted, value_names(self._model), file=self.file)
        if not wanted:
            return {}
        arrays = run_in_chunks(images, self.batch, lambda chunk: self._compute({IMAGE: chunk}, wanted))
        return dict(zip(wanted, arrays, strict=True))

    def close(self) -> None:
        """Free what the back end holds."""
        if self._open:
            self._open = False
            self._free()

    def _require_open(self) -> None:
        if not self._open:
            raise UsageError(f"'{self._file}' was closed; open it again")


def require_graph_names(names: Sequence[str], document: ModelDocument, *, file: str) -> None:
    """Refuse a graph without the outputs that its metadata promises."""
    wanted = [HEAD] if document.spec.head == "none" else list(DETECTION_OUTPUTS)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ModelError(
            f"'{file}' does not keep what its metadata says: {', '.join(map(repr, missing))} missing among its outputs "
            f"{list(names)}; was it edited? Convert the source again with xdet convert"
        )
