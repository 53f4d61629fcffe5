"""A finished model where thresholds cannot be fed: on copies in which those that are asked for are constants.

Before -> after: the file on a runtime whose row says that it feeds no thresholds -> a copy frozen at them
(``xdet.model.frozen_thresholds``) there, opened at once for the first pair and when they are asked for others. One copy
serves every higher score. Description and SHA-256 stay the file's own. Numeric effect: none, at those thresholds.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from xdet.errors import UsageError
from xdet.model.contract import read_document
from xdet.model.frozen_thresholds import freeze_thresholds
from xdet.runtimes.finished import DescribedRuntime
from xdet.runtimes.table import RUNTIMES, open_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from converters.heads.base import BatchDetections
    from converters.spec import DetectorSpec, ModelDocument, Thresholds
    from xdet.model.file import ModelFile
    from xdet.runtimes.base import Capabilities, Runtime
    from xdet.runtimes.processors import RuntimeChoices


def open_at(
    model: ModelFile,
    choices: RuntimeChoices,
    choose: Callable[[DetectorSpec], Thresholds],
    *,
    subprocess: bool | None = None,
) -> Runtime:
    """Open a model that will be asked for boxes at certain thresholds, which every runtime can be asked for then.

    A file whose thresholds its maker froze keeps them: ``require_thresholds`` refuses others.

    Args:
        model: finished or source.
        choices: where and how it runs.
        choose: the thresholds, once it is known what the model holds.
        subprocess: as for ``open_model``.

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


class FrozenCopies(DescribedRuntime):
    """A finished model whose thresholds are inputs, on a runtime that ignores or refuses these; for one thread at a time.

    Args:
        model: the file.
        document: what its metadata says.
        open_copy: opens a copy.
        first: the thresholds of the first copy.
    """

    def __init__(
        self, model: ModelFile, document: ModelDocument, open_copy: Callable[[ModelFile], Runtime], first: Thresholds
    ) -> None:
        super().__init__(model.data, file=model.file, spec=document.spec)
        self._whole, self._document, self._open = model, document, open_copy
        self._baked, self._copy = self._opened(first)
        self._closed = False

    @property
    def name(self) -> str:
        """The runtime's own."""
        return self._copy.name

    @property
    def capabilities(self) -> Capabilities:
        """The runtime's own, and any thresholds."""
        return replace(self._copy.capabilities, thresholds=True)

    @property
    def batch(self) -> int | None:
        """Images per call, None for any number."""
        return self._copy.batch

    def detect(self, images: NDArray[np.uint8], thresholds: Thresholds) -> BatchDetections:
        """Find boxes, in another copy where the thresholds want one; see ``Runtime.detect``."""
        if self._closed:
            raise UsageError(f"'{self.file}' was closed; open it again")
        if thresholds.iou != self._baked.iou or thresholds.score < self._baked.score:
            before = self._copy
            self._baked, self._copy = self._opened(thresholds)
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

    def close(self) -> None:
        """Close the copy; there will be no other."""
        self._closed = True
        self._copy.close()

    def _opened(self, asked: Thresholds) -> tuple[Thresholds, Runtime]:
        own = self._document.spec.thresholds
        baked = replace(asked, max_detections=own.max_detections)
        data = freeze_thresholds(self._model, self._document, baked)
        return baked, self._open(replace(self._whole, data=data))
