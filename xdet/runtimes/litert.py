"""A TFLite source file on LiteRT, with the numpy head: what its conversion is compared with.

LiteRT is not one reference: its kernels disagree with each other on int8 models, so the runtime's name always
says which ran. It trusts much of what it is given, and a native crash ends the whole process. So the very bytes that
will run are read and checked by the converter's reader first, to the last offset.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.quant import dequantize
from xdet.errors import MissingExtraError, ModelError, converter_errors
from xdet.runtimes.base import threads_of_one_network
from xdet.runtimes.finished import SourceRuntime, describe_source, raw_outputs_of, rescaled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from converters.sources.tflite.reader import TfliteModel
    from converters.spec import DetectorSpec
    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices

RESOLVERS: dict[str, str] = {
    "xnnpack": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",  # plain BUILTIN still delegates to XNNPACK
    "reference": "BUILTIN_REF",
}
CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})


class LiteRtRuntime(SourceRuntime):
    """A TFLite file, open on one set of LiteRT's kernels; for one thread at a time.

    Args:
        model: the file, already checked by ``converters.sources.tflite`` (LiteRT itself trusts it).
        spec: what turns its head into boxes.
        kernels: a key of ``RESOLVERS``; ``"xnnpack"`` is LiteRT's default.
        threads: threads inside an operator; None is LiteRT's own choice, one.
        integer: whether the file's convolutions compute on integers.
        outputs: indices of the tensors that are the network's outputs, where the file's own are what a post-processing
            operator makes of them; None for the file's own.
    """

    TITLE, ADVICE = "LiteRT", "see that the file is a complete TFLite model"

    def __init__(
        self,
        model: ModelFile,
        spec: DetectorSpec,
        *,
        kernels: str = "xnnpack",
        threads: int | None = None,
        integer: bool = True,
        outputs: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model, name=f"litert:{kernels}", spec=spec, batch=1, exact=integer)
        self._kernels, self._threads = kernels, threads
        self._interpreter = self._open(preserve=outputs is not None)
        self._showing: Any = None
        with self._border("cannot tell its tensors"):  # names that are no UTF-8, say
            (self._input,) = self._interpreter.get_input_details()
            self._tensors = self._interpreter.get_output_details()
            if outputs is not None:
                by_index = {tensor["index"]: tensor for tensor in self._interpreter.get_tensor_details()}
                self._tensors = [by_index[index] for index in outputs]
        self._require_fit()

    def _outputs(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        return [_as_reals(array, tensor) for array, tensor in zip(self.network(images), self._tensors, strict=True)]

    def network(self, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """The outputs of one image, as LiteRT gives them; see ``Runtime.network``."""
        self._require_open()
        return self._invoke(self._interpreter, images, [tensor["index"] for tensor in self._tensors])

    @cached_property
    def _value_names(self) -> dict[str, int]:
        """The file's tensors and their indices in a second interpreter, which keeps all and computes the same bits."""
        self._showing = self._open(preserve=True)
        indices: dict[str, int] = {}
        for tensor in self._showing.get_tensor_details():
            indices.setdefault(tensor["name"], tensor["index"])  # what delegates add stands behind the file's own
        return indices

    def _values(self, images: NDArray[np.uint8], names: Sequence[str]) -> list[NDArray[Any]]:
        return self._invoke(self._showing, images, [self._value_names[name] for name in names])

    def _free(self) -> None:
        self._interpreter = self._showing = None

    def _open(self, *, preserve: bool) -> Any:
        """An interpreter with its buffers; ``preserve`` keeps every tensor readable, kernel by kernel the same."""
        try:
            from ai_edge_litert.interpreter import Interpreter, OpResolverType
        except ImportError as error:
            raise MissingExtraError("LiteRT, which runs TFLite files,", "litert") from error
        with self._border("cannot load it"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Warning: Enabling `experimental_preserve_all_tensors`", UserWarning)
            interpreter = Interpreter(
                model_content=self.model.data,
                num_threads=self._threads,
                experimental_op_resolver_type=getattr(OpResolverType, RESOLVERS[self._kernels]),
                experimental_preserve_all_tensors=preserve,
            )
            interpreter.allocate_tensors()
        return interpreter

    def _invoke(self, interpreter: Any, image: NDArray[np.uint8], indices: Sequence[int]) -> list[NDArray[Any]]:
        with self._border("failed while running it"):
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
        return rescaled(image, self.spec)

    def _require_fit(self) -> None:
        """Refuse a file whose picture and outputs are not those of the detector."""
        tensor, expected = self._input, [1, *self.spec.image.shape]
        shape, dtype = [int(size) for size in tensor["shape"]], np.dtype(tensor["dtype"])
        if shape != expected or dtype not in (np.uint8, np.int8, np.float32):
            raise ModelError(
                f"'{self.file}': input {tensor['name']!r} is {dtype} {shape}, expected uint8, int8 or float32 "
                f"{expected}; see that sidecar and options belong to this file"
            )
        shapes = [tuple(int(size) for size in output["shape"]) for output in self._tensors]
        raw_outputs_of([np.zeros(shape, np.float32) for shape in shapes], self.spec, file=self.file)  # or refused


def _as_reals(array: NDArray[Any], output: dict[str, Any]) -> NDArray[np.float32]:
    if array.dtype not in (np.int8, np.uint8):
        return np.asarray(array, np.float32)
    scale, zero_point = output["quantization"]
    return dequantize(array, np.float32(scale), zero_point)


def open_model(model: ModelFile, choices: RuntimeChoices) -> LiteRtRuntime:
    """Check, describe and open a TFLite file that is in memory.

    Raises:
        ModelError: damaged, or with operators whose operands do not fit.
        UsageError: its anchors or classes are stated nowhere, or contradict it.
    """
    from converters.sources.tflite.facts import facts_from_tflite
    from converters.sources.tflite.reader import read_tflite
    from converters.sources.tflite.supported import require_sound

    with converter_errors():
        records = read_tflite(model.data, model.file)
        require_sound(records)
        facts = facts_from_tflite(records)
        spec = choices.spec or describe_source(model, facts, choices)
    threads = choices.threads
    if threads is None and choices.workers > 1:
        threads = threads_of_one_network(choices.workers)
    goes_on = records.postprocess is not None or records.constant_outputs
    return LiteRtRuntime(
        model,
        spec,
        kernels=str(choices.provider),
        threads=threads,
        integer=_is_integer(records),
        outputs=records.outputs if goes_on else None,
    )


def _is_integer(model: TfliteModel) -> bool:
    operands = [model.tensors[op.inputs[0]].dtype for op in model.operators if op.op in CONVOLUTIONS]
    return bool(operands) and all(dtype in ("int8", "uint8") for dtype in operands)
