"""A finished model on the ONNX project's reference evaluator: the standard's own meaning of every operator, slowly.

It computes quantised networks operator by operator in float32 numpy, 1 to 6 seconds per photograph: for two images, not
for two hundred. Thresholds can be fed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xdet.model.file import read_document
from xdet.model.wire import fixed_batch
from xdet.runtimes.base import vendor_errors
from xdet.runtimes.finished import FinishedModelRuntime, Outputs, require_graph_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices

OLDEST_DEQUANTIZE = 19  # the evaluator has no DequantizeLinear of an earlier opset
RUN_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, KeyError, NotImplementedError, MemoryError)


class OnnxReferenceRuntime(FinishedModelRuntime):
    """A finished model in ``onnx.reference.ReferenceEvaluator``."""

    def __init__(self, model: ModelFile, choices: RuntimeChoices) -> None:
        document = read_document(model.data, file=model.file)
        self._evaluator: Any = _load(model.data, model.file)
        require_graph_names(self._evaluator.output_names, document, file=model.file)
        super().__init__(model, name=choices.name, document=document, batch=fixed_batch(model.data))

    def _compute(self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Outputs:
        doing, advice = (
            "the ONNX reference evaluator failed while running it",
            "convert the source again with xdet convert",
        )
        border = vendor_errors(RUN_ERRORS, file=self.file, doing=doing, advice=advice)
        with border, np.errstate(over="ignore"):  # exp of a huge size is infinity, and clips
            values = self._evaluator.run(list(names), dict(feeds))
            return [np.asarray(value) for value in values]

    def _free(self) -> None:
        self._evaluator = None


def open_model(model: ModelFile, choices: RuntimeChoices) -> OnnxReferenceRuntime:
    """Open a finished model."""
    return OnnxReferenceRuntime(model, choices)


def _load(model: bytes, file: str) -> Any:
    from google.protobuf.message import DecodeError
    from onnx import load_model_from_string
    from onnx.reference import ReferenceEvaluator

    errors = (DecodeError, RuntimeError, ValueError, TypeError, NotImplementedError)
    doing, advice = "the ONNX reference evaluator cannot load it", "see that the file is a complete ONNX model"
    with vendor_errors(errors, file=file, doing=doing, advice=advice):
        proto = load_model_from_string(model)
        for entry in proto.opset_import:  # every file of ours was written in 19, and stamped with less
            entry.version = max(entry.version, OLDEST_DEQUANTIZE)
        return ReferenceEvaluator(proto)
