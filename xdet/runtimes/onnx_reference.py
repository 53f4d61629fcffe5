"""A finished model on the ONNX project's reference evaluator: the standard's own meaning of every operator, slowly.

It computes quantised networks operator by operator in float32 numpy, 1 to 6 seconds per photograph: for two images, not
for two hundred. Thresholds can be fed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xdet.model.wire import fixed_batch
from xdet.runtimes.finished import FinishedModelRuntime, Outputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices

OLDEST_DEQUANTIZE = 19  # the evaluator has no DequantizeLinear of an earlier opset


class OnnxReferenceRuntime(FinishedModelRuntime):
    """A finished model in ``onnx.reference.ReferenceEvaluator``."""

    TITLE = "the ONNX reference evaluator"

    def __init__(self, model: ModelFile, choices: RuntimeChoices) -> None:
        from onnx import load_model_from_string
        from onnx.reference import ReferenceEvaluator

        super().__init__(model, choices.name, batch=fixed_batch(model.data))
        with self._border("cannot load it"):
            proto = load_model_from_string(model.data)
            for entry in proto.opset_import:  # every file of ours was written in 19, and stamped with less
                entry.version = max(entry.version, OLDEST_DEQUANTIZE)
            self._evaluator: Any = ReferenceEvaluator(proto)
        self._require_outputs(self._evaluator.output_names)

    def _errors(self) -> tuple[type[Exception], ...]:
        from google.protobuf.message import DecodeError

        return (*super()._errors(), DecodeError, IndexError, KeyError, NotImplementedError)

    def _compute(self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Outputs:
        border = self._border("failed while running it", "convert the source again with xdet convert")
        with border, np.errstate(over="ignore"):  # exp of a huge size is infinity, and clips
            values = self._evaluator.run(list(names), dict(feeds))
            return [np.asarray(value) for value in values]

    def _free(self) -> None:
        self._evaluator = None


def open_model(model: ModelFile, choices: RuntimeChoices) -> OnnxReferenceRuntime:
    """Open a finished model."""
    return OnnxReferenceRuntime(model, choices)
