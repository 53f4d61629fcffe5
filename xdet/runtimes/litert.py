"""A TFLite source file on LiteRT, with the numpy head: what its conversion is compared with.

LiteRT is not one reference: its kernels disagree with each other on int8 models, so the runtime's name always
says which ran.

A source file before its own runtime gets it: verified to the last offset, and described.

LiteRT trusts much of what it is given, and a native crash ends the whole process. So the very bytes that will run are
read and checked by the converter's reader first.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from converters.quant import dequantize
from xdet.errors import MissingExtraError, ModelError, RuntimeUnavailableError, UsageError
from xdet.runtimes.base import Capabilities, VendorErrors, require_images, require_names, vendor_errors
from xdet.runtimes.finished import SourceRuntime, raw_outputs_of, require_numbers, run_in_chunks
from xdet.runtimes.processors import threads_of_one_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from converters.sources.tflite.reader import TfliteModel
    from converters.spec import DetectorSpec
    from xdet.model.file import ModelFile
    from xdet.runtimes.processors import RuntimeChoices

Kernels = Literal["xnnpack", "builtin", "reference"]
RESOLVERS: dict[str, str] = {
    "xnnpack": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",  # plain BUILTIN still delegates to XNNPACK
    "reference": "BUILTIN_REF",
}
ERRORS = VendorErrors(model=(ValueError, RuntimeError, MemoryError))


class LiteRtRuntime(SourceRuntime):
    """A TFLite file, open on one set of LiteRT's kernels; for one thread at a time.

    Args:
        model: the file's bytes, already checked by ``converters.sources.tflite`` (LiteRT itself trusts them).
        file: its name, for messages.
        spec: what turns its head into boxes.
        kernels: ``"xnnpack"`` (LiteRT's default), ``"builtin"`` or ``"reference"``.
        threads: threads inside an operator; None is LiteRT's own choice, one.
        integer: whether the file's convolutions compute on integers.
        outputs: indices of the tensors that are the network's outputs, where the file's own are what a post-processing
            operator makes of them; None for the file's own.
    """

    def __init__(
        self,
        model: bytes,
        *,
        file: str,
        spec: DetectorSpec,
        kernels: Kernels = "xnnpack",
        threads: int | None = None,
        integer: bool = True,
        outputs: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model, file=file, spec=spec)
        self._kernels, self._threads, self._integer = kernels, threads, integer
        self._interpreter = _open(model, file, kernels, threads, preserve=outputs is not None)
        self._showing: Any = None
        with _border(file, "LiteRT cannot tell its tensors"):  # names that are no UTF-8, say
            (self._input,) = self._interpreter.get_input_details()
            self._outputs = self._interpreter.get_output_details()
            if outputs is not None:
                by_index = {tensor["index"]: tensor for tensor in self._interpreter.get_tensor_details()}
                self._outputs = [by_index[index] for index in outputs]
        _require_fit(self._input, (1, *spec.image.shape), file=file)
        shapes = [tuple(int(size) for size in output["shape"]) for output in self._outputs]
        raw_outputs_of([np.zeros(shape, np.float32) for shape in shapes], spec, file=file)  # or refused

    @property
    def name(self) -> str:
        """``litert:`` and the kernels."""
        return f"litert:{self._kernels}"

    @property
    def batch(self) -> int | None:
        """One image per call."""
        return 1

    @property
    def capabilities(self) -> Capabilities:
        """Everything: the numpy head takes any thresholds; exact for integer models."""
        return Capabilities(thresholds=True, max_detections=None, head=True, tensors=True, exact=self._integer)

    def head(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The raw outputs of uint8 ``(N, height, width, 3)``; see ``Runtime.head``."""
        require_images(images, self._spec)
        outputs = run_in_chunks(images, 1, self._run)
        return require_numbers(raw_outputs_of(outputs, self._spec, file=self._file), self)

    def network(self, images: NDArray[np.uint8]) -> object:
        """The outputs of one image, as LiteRT gives them; see ``Runtime.network``."""
        self._require_open()
        return self._invoke(self._interpreter, images, [output["index"] for output in self._outputs])

    def tensors(self, images: NDArray[np.uint8], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Tensors of the TFLite file by name; see ``Runtime.tensors``.

        The first call opens a second interpreter, which keeps every tensor and computes the same bits.
        """
        require_images(images, self._spec)
        self._require_open()
        if not names:
            return {}
        if self._showing is None:
            self._showing = _open(self._model, self._file, self._kernels, self._threads, preserve=True)
        indices: dict[str, int] = {}
        for tensor in self._showing.get_tensor_details():
            indices.setdefault(tensor["name"], tensor["index"])  # what delegates add stands behind the file's own
        require_names(names, indices, file=self._file)
        wanted = list(dict.fromkeys(names))
        arrays = run_in_chunks(
            images, 1, lambda image: self._invoke(self._showing, image, [indices[name] for name in wanted])
        )
        return dict(zip(wanted, arrays, strict=True))

    def close(self) -> None:
        """Free the interpreters."""
        self._interpreter = self._showing = None

    def _require_open(self) -> None:
        if self._interpreter is None:
            raise UsageError(f"'{self._file}' was closed; open it again")

    def _run(self, image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        self._require_open()
        found = self._invoke(self._interpreter, image, [output["index"] for output in self._outputs])
        return [_as_reals(array, output) for array, output in zip(found, self._outputs, strict=True)]

    def _invoke(self, interpreter: Any, image: NDArray[np.uint8], indices: Sequence[int]) -> list[NDArray[Any]]:
        with _border(self._file, "LiteRT failed while running it"):
            interpreter.set_tensor(self._input["index"], self._encoded(image))
            interpreter.invoke()
            return [np.asarray(interpreter.get_tensor(index)) for index in indices]

    def _encoded(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """Pixels as the file's input takes them: uint8 raw, int8 minus 128, float32 rescaled."""
        dtype = np.dtype(self._input["dtype"])
        if dtype == np.uint8:
            return image
        if dtype == np.int8:
            return (image.astype(np.int16) - 128).astype(np.int8)
        rescaling = self._spec.image.rescaling
        return image.astype(np.float32) * np.float32(rescaling.scale) + np.float32(rescaling.offset)


def _as_reals(array: NDArray[Any], output: dict[str, Any]) -> NDArray[np.float32]:
    if array.dtype not in (np.int8, np.uint8):
        return np.asarray(array, np.float32)
    scale, zero_point = output["quantization"]
    return dequantize(array, np.float32(scale), zero_point)


def kernels_by_name(name: str | None) -> Kernels:
    """LiteRT's kernels by the name given as provider; None means XNNPACK.

    Raises:
        RuntimeUnavailableError: no such kernels.
    """
    for kernels in get_args(Kernels):
        if (name or "xnnpack").lower() == kernels:
            return kernels  # type: ignore[no-any-return]  # one of the Literal's own strings
    raise RuntimeUnavailableError(
        f"{name!r} is not available for a TFLite file, which runs on LiteRT: {', '.join(RESOLVERS)}; "
        f"choose one of these, or convert the file with xdet convert to use ONNX Runtime's providers"
    )


def open_model(model: ModelFile, choices: RuntimeChoices) -> LiteRtRuntime:
    """Check, describe and open a TFLite file."""
    kernels = kernels_by_name(choices.provider)
    source = describe_source(model, choices)
    threads = choices.threads
    if threads is None and choices.workers > 1:
        threads = threads_of_one_network(choices.workers)
    return LiteRtRuntime(
        model.data,
        file=model.file,
        spec=source.spec,
        kernels=kernels,
        threads=threads,
        integer=source.integer,
        outputs=source.outputs,
    )


def providers() -> tuple[str, ...]:
    """The sets of kernels that LiteRT has here.

    Raises:
        MissingExtraError: LiteRT is not installed.
    """
    _litert()
    return tuple(RESOLVERS)


def _litert() -> tuple[Any, Any]:
    """LiteRT's interpreter, and the enumeration of its kernels."""
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise MissingExtraError("LiteRT, which runs TFLite files,", "litert") from error
    return Interpreter, OpResolverType


def _open(model: bytes, file: str, kernels: Kernels, threads: int | None, *, preserve: bool) -> Any:
    """An interpreter with its buffers; ``preserve`` keeps every tensor readable, kernel by kernel the same."""
    new_interpreter, resolvers = _litert()
    with _border(file, "LiteRT cannot load it"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning: Enabling `experimental_preserve_all_tensors`", UserWarning)
        interpreter = new_interpreter(
            model_content=model,
            num_threads=threads,
            experimental_op_resolver_type=getattr(resolvers, RESOLVERS[kernels]),
            experimental_preserve_all_tensors=preserve,
        )
        interpreter.allocate_tensors()
    return interpreter


def _require_fit(tensor: dict[str, Any], shape: tuple[int, ...], *, file: str) -> None:
    found, dtype = tuple(int(size) for size in tensor["shape"]), np.dtype(tensor["dtype"])
    if found != shape or dtype not in (np.uint8, np.int8, np.float32):
        raise ModelError(
            f"'{file}': input {tensor['name']!r} is {dtype} {list(found)}, expected uint8, int8 or float32 "
            f"{list(shape)}; see that sidecar and options belong to this file"
        )


def _border(file: str, doing: str) -> Any:
    return vendor_errors(ERRORS, file=file, doing=doing, advice="see that the file is a complete TFLite model")


CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})


@dataclass(frozen=True, slots=True)
class SourceModel:
    """What is known of a source file without running it.

    Attributes:
        spec: the detector, from the file and the sidecar beside it.
        integer: whether its convolutions compute on integers.
        outputs: indices of the network's outputs, where the file goes on behind them; else None.
    """

    spec: DetectorSpec
    integer: bool
    outputs: tuple[int, ...] | None = None


def describe_source(model: ModelFile, choices: RuntimeChoices) -> SourceModel:
    """Check a TFLite file that is in memory, and describe it unless ``choices.spec`` does.

    Raises:
        ModelError: damaged, or with operators whose operands do not fit.
        UsageError: its anchors or classes are stated nowhere, or contradict it.
    """
    from converters.description import statements as settings
    from converters.errors import ConversionError, OptionError
    from converters.sources.tflite.facts import facts_from_tflite
    from converters.sources.tflite.reader import read_tflite
    from converters.sources.tflite.supported import require_sound

    try:
        records = read_tflite(model.data, model.file)
        require_sound(records)
        facts = facts_from_tflite(records)
        source_options = choices.source_options or settings.SourceOptions()
        spec = choices.spec or settings.describe_source(model.path, facts, source_options).spec
    except OptionError as error:
        raise UsageError(*error.lines) from error
    except ConversionError as error:
        raise ModelError(*error.lines) from error
    goes_on = records.postprocess is not None or records.constant_outputs
    return SourceModel(spec, _is_integer(records), records.outputs if goes_on else None)


def _is_integer(model: TfliteModel) -> bool:
    operands = [model.tensors[op.inputs[0]].dtype for op in model.operators if op.op in CONVOLUTIONS]
    return bool(operands) and all(dtype in ("int8", "uint8") for dtype in operands)
