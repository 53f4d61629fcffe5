"""What runtimes share that hold a file's bytes and a description of its detector: identity, and boxes by the numpy head."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from xdet.runtimes.base import Runtime, require_images, require_thresholds
from xdet.runtimes.model_file import hash_model
from xdet.runtimes.numpy_head import decoder_for

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from converters.spec import DetectorSpec, Thresholds
    from xdet.detections import BatchDetections


class DescribedRuntime(Runtime):
    """A file that is open, and what it holds.

    Args:
        model: the file's bytes.
        file: its name, for messages.
        spec: the detector.
    """

    def __init__(self, model: bytes, *, file: str, spec: DetectorSpec) -> None:
        self._model, self._file, self._spec = model, file, spec

    @property
    def file(self) -> str:
        """The model's name as messages give it."""
        return self._file

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file's bytes, hex digits."""
        return hash_model(self._model)

    @property
    def spec(self) -> DetectorSpec:
        """The detector: as its document, or the source's settings, describe it."""
        return self._spec


class SourceRuntime(DescribedRuntime):
    """A source file, which ends at the raw head: boxes are the numpy oracle's."""

    def detect(self, images: NDArray[np.uint8], thresholds: Thresholds) -> BatchDetections:
        """Find boxes in uint8 RGB images ``(N, height, width, 3)``; see ``Runtime.detect``."""
        require_images(images, self._spec)
        require_thresholds(thresholds, self)
        decode = decoder_for(self._spec, file=self._file)
        return decode(self.head(images), thresholds)
