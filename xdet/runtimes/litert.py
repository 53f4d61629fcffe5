"""A TFLite source file on LiteRT, with the numpy head: what its conversion is compared with.

LiteRT is not one reference: its kernels disagree with each other on int8 models, so the runtime's name always
says which ran.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from xdet.errors import MissingExtraError, ModelError, RuntimeUnavailableError
from xdet.runtimes.base import Capabilities, VendorErrors, require_images, require_thresholds, vendor_errors
from xdet.runtimes.batches import run_in_chunks
from xdet.runtimes.numpy_head import decoder_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.spec import DetectorSpec, Thresholds
    from xdet.detections import BatchDetections

Kernels = Literal["xnnpack", "builtin", "reference"]
RESOLVERS: dict[str, str] = {
    "xnnpack": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",  # plain BUILTIN still delegates to XNNPACK
    "reference": "BUILTIN_REF",
}
ERRORS = VendorErrors(model=(ValueError, RuntimeError, MemoryError))


class LiteRtRuntime:
    """A TFLite file, open on one set of LiteRT's kernels; for one thread at a time.

    Args:
        model: the file's bytes, already checked by ``converters.tflite`` (LiteRT itself trusts them).
        file: its name, for messages.
        spec: what turns its head into boxes.
        kernels: ``"xnnpack"`` (LiteRT's default), ``"builtin"`` or ``"reference"``.
        threads: threads inside an operator; None is LiteRT's own choice, one.
    """

    def __init__(
        self,
        model: bytes,
        *,
        file: str,
        spec: DetectorSpec,
        kernels: Kernels = "xnnpack",
        threads: int | None = None,
    ) -> None:
        self._model, self._file, self._spec, self._kernels = model, file, spec, kernels
        with _border(file, "LiteRT cannot load it"):
            self._interpreter = _create(model, kernels, threads)
            self._interpreter.allocate_tensors()
        (self._input,), (self._output,) = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        _require_fit(self._input, (1, spec.image.height, spec.image.width, 3), file=file, what="input")
        _require_fit(
            self._output, (1, spec.grid_h, spec.grid_w, spec.head_channels), file=file, what="output"
        )

    @property
    def name(self) -> str:
        """``litert:`` and the kernels."""
        return f"litert:{self._kernels}"

    @property
    def file(self) -> str:
        """The model's name as messages give it."""
        return self._file

    @property
    def model(self) -> bytes:
        """The TFLite file's bytes."""
        return self._model

    @property
    def spec(self) -> DetectorSpec:
        """The detector, as the source's settings describe it."""
        return self._spec

    @property
    def batch(self) -> int | None:
        """One image per call."""
        return 1

    @property
    def capabilities(self) -> Capabilities:
        """Everything: the numpy head takes any thresholds."""
        return Capabilities(thresholds=True, max_detections=None, head=True, exact=True)

    def detect(self, images: NDArray[np.uint8], thresholds: Thresholds) -> BatchDetections:
        """Find boxes in uint8 RGB images ``(N, height, width, 3)``; see ``Runtime.detect``."""
        require_images(images, self._spec)
        require_thresholds(thresholds, self)
        decode = decoder_for(self._spec, file=self._file)
        return decode(self.head(images), thresholds)

    def head(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The raw head, float32 ``(N, grid_h, grid_w, channels)``, of uint8 ``(N, height, width, 3)``."""
        require_images(images, self._spec)
        (head,) = run_in_chunks(images, 1, lambda image: [self._run(image)])
        return head

    def _run(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        with _border(self._file, "LiteRT failed while running it"):
            self._interpreter.set_tensor(self._input["index"], self._encoded(image))
            self._interpreter.invoke()
            output = self._interpreter.get_tensor(self._output["index"])
        if output.dtype == np.float32:
            return np.asarray(output, np.float32)
        scale, zero_point = self._output["quantization"]
        real: NDArray[np.float32] = (output.astype(np.int32) - zero_point).astype(np.float32) * np.float32(
            scale
        )
        return real

    def _encoded(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """Pixels as the file's input takes them: uint8 raw, int8 minus 128, float32 rescaled."""
        dtype = np.dtype(self._input["dtype"])
        if dtype == np.uint8:
            return image
        if dtype == np.int8:
            return (image.astype(np.int16) - 128).astype(np.int8)
        rescaling = self._spec.image.rescaling
        return image.astype(np.float32) * np.float32(rescaling.scale) + np.float32(rescaling.offset)


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


def _create(model: bytes, kernels: Kernels, threads: int | None) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise MissingExtraError("LiteRT, which runs TFLite files,", "litert") from error
    resolver = getattr(OpResolverType, RESOLVERS[kernels])
    return Interpreter(model_content=model, num_threads=threads, experimental_op_resolver_type=resolver)


def _require_fit(tensor: dict[str, Any], shape: tuple[int, ...], *, file: str, what: str) -> None:
    found, dtype = tuple(int(size) for size in tensor["shape"]), np.dtype(tensor["dtype"])
    if found != shape or dtype not in (np.uint8, np.int8, np.float32):
        raise ModelError(
            f"'{file}': {what} {tensor['name']!r} is {dtype} {list(found)}, expected uint8, int8 or float32 "
            f"{list(shape)}; see that sidecar and options belong to this file"
        )


def _border(file: str, doing: str) -> Any:
    return vendor_errors(
        ERRORS, file=file, doing=doing, advice="see that the file is a complete TFLite model"
    )
