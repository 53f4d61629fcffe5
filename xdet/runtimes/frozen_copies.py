"""A finished model where thresholds cannot be fed: on copies in which those that are asked for are constants.

Before -> after: the file on a runtime whose row says that it feeds no thresholds -> a copy frozen at them
(``xdet.model.wire``) there, opened at once for the first pair and when they are asked for others. One copy
serves every higher score. Description and SHA-256 stay the file's own. Numeric effect: none, at those thresholds.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from xdet.model.file import read_document
from xdet.model.wire import freeze_thresholds
from xdet.runtimes.base import Runtime
from xdet.runtimes.table import RUNTIMES, open_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from converters.heads.base import BatchDetections
    from converters.spec import DetectorSpec, ModelDocument, Thresholds
    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices


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


class FrozenCopies(Runtime):
    """A finished model with fed thresholds, on a runtime that takes none; for one thread at a time."""

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
