"""An ONNX source as it is on ONNX Runtime's CPU kernels, with the numpy head: what its conversion is compared with.

The file is looked through as for a conversion before ONNX Runtime gets it, and runs with the kernels that the finished
file gets: exact ones where the processor's fast ones saturate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.graph import NCHW_TO_NHWC, NHWC_TO_NCHW
from xdet.errors import ModelError, UsageError
from xdet.model.wire import UNTOLD, value_names, with_outputs
from xdet.runtimes.base import Capabilities, require_images, require_names
from xdet.runtimes.finished import SourceRuntime, raw_outputs_of, require_numbers, run_in_chunks
from xdet.runtimes.ort_session import CPU, EXACT_KERNELS, OrtSession, SessionChoices, kernels_saturate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from converters.sources.onnx.reader import OnnxSource
    from converters.spec import ActivationCodes, DetectorSpec
    from xdet.model.file import ModelFile
    from xdet.runtimes.processors import RuntimeChoices

PROVIDER = "cpu"


class OnnxSourceRuntime(SourceRuntime):
    """An ONNX network, open on ONNX Runtime.

    Args:
        source: the file, looked through.
        session: of its bytes.
        spec: what turns its outputs into boxes.
        codes: dtype of its activations.
        turned: of each output, whether its channels come first.
    """

    def __init__(
        self,
        source: OnnxSource,
        session: OrtSession,
        spec: DetectorSpec,
        codes: ActivationCodes,
        turned: tuple[bool, ...],
    ) -> None:
        super().__init__(session.model, file=session.file, spec=spec)
        self._source, self._session, self._codes, self._turned = source, session, codes, turned

    @property
    def name(self) -> str:
        """``onnxruntime-source:cpu``."""
        return f"onnxruntime-source:{PROVIDER}"

    @property
    def batch(self) -> int | None:
        """One image per call, or any number where the file leaves it open."""
        return None if self._source.any_batch else 1

    @property
    def capabilities(self) -> Capabilities:
        """Everything; exact where the network computes on codes."""
        exact = self._codes in EXACT_KERNELS
        return Capabilities(thresholds=True, max_detections=None, head=True, tensors=True, exact=exact)

    def head(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The raw outputs of uint8 ``(N, height, width, channels)``; see ``Runtime.head``."""
        require_images(images, self._spec)
        names = [output.name for output in self._session.outputs]
        arrays = run_in_chunks(images, self.batch, lambda chunk: self._session.run(names, self._fed(chunk)))
        told = [
            array.transpose(NCHW_TO_NHWC) if turned else array
            for array, turned in zip(arrays, self._turned, strict=True)
        ]
        return require_numbers(raw_outputs_of(told, self._spec, file=self._file), self)

    def tensors(self, images: NDArray[np.uint8], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Values of the graph by name, as the file lays them out; see ``Runtime.tensors``."""
        require_images(images, self._spec)
        wanted = list(dict.fromkeys(names))
        own = [output.name for output in self._session.outputs]
        hidden = [name for name in wanted if name not in own]
        require_names(hidden, value_names(self._model), file=self._file)
        session = self._session
        if hidden:
            session = session.reopen(with_outputs(self._model, [(name, UNTOLD) for name in hidden]))
        arrays = run_in_chunks(images, self.batch, lambda chunk: session.run(wanted, self._fed(chunk)))
        if hidden:
            session.close()
        return dict(zip(wanted, arrays, strict=True))

    def close(self) -> None:
        """End the session."""
        self._session.close()

    def _fed(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Pixels as the network sees them, both steps rounded to float32 as in a finished graph."""
        rescaling, fed = self._spec.image.rescaling, images
        if self._source.dtype == "float32":
            real = images.astype(np.float32) * np.float32(rescaling.scale) + np.float32(rescaling.offset)
            return {self._source.picture: self._laid_out(real)}
        return {self._source.picture: self._laid_out(fed)}

    def _laid_out(self, pixels: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(pixels.transpose(NHWC_TO_NCHW)) if self._source.is_nchw else pixels


def open_model(model: ModelFile, choices: RuntimeChoices) -> OnnxSourceRuntime:
    """Look through an ONNX source that is in memory, and open it; its sidecar and the caller describe it.

    Raises:
        ModelError: damaged, or with more than a network of standard operators.
        UsageError: its anchors or classes are stated nowhere, or its size is open.
    """
    from converters import errors
    from converters.description import statements as settings
    from converters.sources.onnx.importer import activation_codes
    from converters.sources.onnx.network import facts_from_onnx, fixed_graph, turned_outputs
    from converters.sources.onnx.reader import read_onnx

    spec = choices.spec
    source_options = choices.source_options or settings.SourceOptions()
    size = source_options.input_size if spec is None else (spec.image.height, spec.image.width)
    try:
        source = read_onnx(model.data, model.file, size)
        graph = fixed_graph(source)
        if spec is None:
            facts = facts_from_onnx(source)
            spec = settings.describe_source(model.path, facts, source_options).spec
    except errors.OptionError as error:
        raise UsageError(*error.lines) from error
    except errors.ConversionError as error:
        raise ModelError(*error.lines) from error
    codes = activation_codes(graph)
    exact_for = codes if codes in EXACT_KERNELS and kernels_saturate() else None
    asked = SessionChoices(provider=CPU, threads=choices.threads, exact_for=exact_for)
    session = OrtSession(model.data, file=model.file, choices=asked)
    return OnnxSourceRuntime(source, session, spec, codes, turned_outputs(graph))


def providers() -> tuple[str, ...]:
    """What stands behind ``onnxruntime-source:``."""
    return (PROVIDER,)
