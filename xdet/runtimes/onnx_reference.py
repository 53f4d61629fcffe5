"""A finished model on the ONNX project's reference evaluator: the standard's own meaning of every operator, slowly.

It computes quantised networks operator by operator in float32 numpy, 1 to 6 seconds per photograph: for two images, not
for two hundred. Thresholds can be fed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.spec import IMAGE
from xdet.model.contract import read_document
from xdet.runtimes.base import VendorErrors, vendor_errors
from xdet.runtimes.finished import FinishedModelRuntime, Outputs, require_graph_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from converters.spec import ModelDocument
    from xdet.model.file import ModelFile
    from xdet.runtimes.processors import RuntimeChoices

OLDEST_DEQUANTIZE = 19  # the evaluator has no DequantizeLinear of an earlier opset


class OnnxReferenceRuntime(FinishedModelRuntime):
    """A finished model in ``onnx.reference.ReferenceEvaluator``.

    Args:
        model: the ONNX file's bytes.
        file: its name, for messages.
        document: what its metadata says.
    """

    def __init__(self, model: bytes, *, file: str, document: ModelDocument) -> None:
        self._file = file
        self._evaluator: Any = _load(model, file)
        require_graph_names(self._evaluator.output_names, document, file=file)
        super().__init__(model, file=file, document=document, batch=_batch(self._evaluator.proto_))

    @property
    def name(self) -> str:
        """``onnx-reference:numpy``."""
        return "onnx-reference:numpy"

    def _compute(self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Outputs:
        doing = "the ONNX reference evaluator failed while running it"
        with _border(self._file, doing), np.errstate(over="ignore"):  # exp of a huge size is infinity, and clips
            values = self._evaluator.run(list(names), dict(feeds))
            return [np.asarray(value) for value in values]

    def _free(self) -> None:
        self._evaluator = None


def open_model(model: ModelFile, choices: RuntimeChoices) -> OnnxReferenceRuntime:  # noqa: ARG001 - there is no choice
    """Open a finished model."""
    document = read_document(model.data, file=model.file)
    return OnnxReferenceRuntime(model.data, file=model.file, document=document)


def providers() -> tuple[str, ...]:
    """``("numpy",)``."""
    return ("numpy",)


def _load(model: bytes, file: str) -> Any:
    from google.protobuf.message import DecodeError
    from onnx import load_model_from_string
    from onnx.reference import ReferenceEvaluator

    with vendor_errors(
        VendorErrors(model=(DecodeError, RuntimeError, ValueError, TypeError, NotImplementedError)),
        file=file,
        doing="the ONNX reference evaluator cannot load it",
        advice="see that the file is a complete ONNX model",
    ):
        proto = load_model_from_string(model)
        for entry in proto.opset_import:  # every file of ours was written in 19, and stamped with less
            entry.version = max(entry.version, OLDEST_DEQUANTIZE)
        return ReferenceEvaluator(proto)


def _batch(model: Any) -> int | None:
    """The first size of the graph's input ``image``, None where it is free."""
    (image,) = [value for value in model.graph.input if value.name == IMAGE]
    size = image.type.tensor_type.shape.dim[0]
    return int(size.dim_value) if size.HasField("dim_value") else None


def _border(file: str, doing: str) -> Any:
    errors = (RuntimeError, ValueError, TypeError, IndexError, KeyError, NotImplementedError, MemoryError)
    return vendor_errors(
        VendorErrors(model=errors), file=file, doing=doing, advice="convert the source again with xdet convert"
    )
