"""An ONNX source as it is on ONNX Runtime's CPU kernels, with the numpy head: what its conversion is compared with.

The file is looked through as for a conversion before ONNX Runtime gets it, and runs with the kernels that the finished
file gets: exact ones where the processor's fast ones saturate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.graph import NCHW_TO_NHWC, NHWC_TO_NCHW
from xdet.errors import converter_errors
from xdet.model.wire import UNTOLD, value_names, with_outputs
from xdet.runtimes.finished import SourceRuntime, describe_source, rescaled
from xdet.runtimes.ort_session import CPU, EXACT_KERNELS, OrtSession, SessionChoices, inexact_codes

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices
    from xdet.runtimes.finished import Arrays


class OnnxSourceRuntime(SourceRuntime):
    """An ONNX network, open on ONNX Runtime; its sidecar and the caller describe it.

    Raises:
        ModelError: damaged, or with more than a network of standard operators.
        UsageError: its anchors or classes are stated nowhere, or its size is open.
    """

    def __init__(self, model: ModelFile, choices: RuntimeChoices) -> None:
        from converters.graph import float_products
        from converters.sources.onnx.importer import activation_codes
        from converters.sources.onnx.network import facts_from_onnx, fixed_graph, turned_outputs
        from converters.sources.onnx.reader import read_onnx

        size = choices.source_options.input_size if choices.source_options else None
        if choices.spec is not None:
            size = choices.spec.image.height, choices.spec.image.width
        with converter_errors():
            source = read_onnx(model.data, model.file, size)
            graph = fixed_graph(source)
            spec = choices.spec or describe_source(model, facts_from_onnx(source), choices)
        codes, batch = activation_codes(graph), None if source.any_batch else 1
        exact_for = inexact_codes(codes, in_float=bool(float_products(graph)))
        super().__init__(model, name=choices.name, spec=spec, batch=batch, exact=codes in EXACT_KERNELS)
        session_choices = SessionChoices(provider=CPU, threads=choices.threads, exact_for=exact_for)
        self._session = self._inner = OrtSession(model.data, file=model.file, choices=session_choices)
        self._source, self._turned = source, turned_outputs(graph)
        self._own = [output.name for output in self._session.outputs]
        self._hidden: list[str] = []  # what the inner session shows besides

    def _outputs(self, images: NDArray[np.uint8]) -> Arrays:
        outputs = zip(self._session.run(self._own, self._fed(images)), self._turned, strict=True)
        return [array.transpose(NCHW_TO_NHWC) if channels_first else array for array, channels_first in outputs]

    @property
    def _value_names(self) -> Collection[str]:
        return {*self._own, *value_names(self.model.data)}

    def _values(self, images: NDArray[np.uint8], names: Sequence[str]) -> Arrays:
        """Values of the graph, as the file lays them out; the session that showed the last ones is kept."""
        hidden = [name for name in names if name not in self._own]
        if hidden != self._hidden:
            if self._inner is not self._session:
                self._inner.close()
            shown = with_outputs(self.model.data, [(name, UNTOLD) for name in hidden])
            self._hidden, self._inner = hidden, self._session.reopen(shown)
        return self._inner.run(names, self._fed(images))

    def _free(self) -> None:
        self._session.close()
        self._inner.close()

    def _fed(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        pixels: NDArray[Any] = rescaled(images, self.spec) if self._source.dtype == "float32" else images
        if self._source.is_nchw:
            pixels = np.ascontiguousarray(pixels.transpose(NHWC_TO_NCHW))
        return {self._source.picture: pixels}


def open_model(model: ModelFile, choices: RuntimeChoices) -> OnnxSourceRuntime:
    """Look through an ONNX source that is in memory, and open it."""
    return OnnxSourceRuntime(model, choices)
