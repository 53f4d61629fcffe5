"""A finished model on OpenVINO's own runtime. Its only importer (extra ``openvino``).

OpenVINO folds the optional threshold inputs into constants, so a file runs at its own thresholds. What is not quantised
is computed in float32 (``INFERENCE_PRECISION_HINT``): processors with bfloat16 units would otherwise round every number
to 8 bits of mantissa without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.heads.base import is_raw_output
from converters.spec import DETECTION_OUTPUTS, IMAGE
from xdet.errors import MissingExtraError, RuntimeUnavailableError
from xdet.model.contract import read_document
from xdet.model.wire import FLOAT, UNTOLD, with_outputs
from xdet.runtimes.base import VendorErrors, require_release, vendor_errors
from xdet.runtimes.finished import FinishedModelRuntime, Outputs, require_graph_names
from xdet.runtimes.processors import RuntimeChoices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from converters.spec import ModelDocument
    from xdet.model.file import ModelFile

DEFAULTS = RuntimeChoices()
ERRORS = VendorErrors(model=(RuntimeError, ValueError, TypeError, MemoryError))


class OpenVinoRuntime(FinishedModelRuntime):
    """A finished model, compiled for one of OpenVINO's devices; for one thread at a time.

    Args:
        model: the ONNX file's bytes.
        file: its name, for messages.
        document: what its metadata says.
        choices: ``provider`` is a device as OpenVINO names it, in any case, None the CPU.
    """

    def __init__(self, model: bytes, *, file: str, document: ModelDocument, choices: RuntimeChoices = DEFAULTS) -> None:
        self._core, self._device, self._threads = _core(), _device(choices.provider), choices.threads
        self._file = file
        self._compiled: dict[tuple[str, ...], Any] = {}
        raw = [output.value_name for output in document.spec.raw_outputs]
        own = tuple(raw) or DETECTION_OUTPUTS
        compiled = self._compile(model, ())
        require_graph_names([name for out in compiled.outputs for name in out.get_names()], document, file=file)
        size = compiled.input(IMAGE).get_partial_shape()[0]
        super().__init__(model, file=file, document=document, batch=None if size.is_dynamic else size.get_length())
        self._compiled = {tuple(own): compiled}

    @property
    def name(self) -> str:
        """``openvino:`` and the device."""
        return f"openvino:{self._device.lower()}"

    def _compute(self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Outputs:
        compiled = self._showing(tuple(names))
        with self._border("OpenVINO failed while running it"):
            results = compiled(dict(feeds))
            return [np.array(results[name]) for name in names]

    def _showing(self, names: tuple[str, ...]) -> Any:
        """A compiled model with these outputs; the last one that was asked for beside the own ones is kept."""
        for known, compiled in self._compiled.items():
            if set(names) <= set(known):
                return compiled
        hidden = [name for name in names if not any(name in known for known in self._compiled)]
        compiled = self._compile(self._model, tuple(hidden))
        self._compiled = {**dict(list(self._compiled.items())[:1]), names: compiled}
        return compiled

    def _compile(self, model: bytes, hidden: tuple[str, ...]) -> Any:
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if self._device == "CPU":
            # a pinned thread waits for whatever reads photographs on its processor
            settings["ENABLE_CPU_PINNING"] = False
        if self._threads is not None:
            settings["INFERENCE_NUM_THREADS"] = self._threads
        with self._border("OpenVINO cannot load it"):
            read = self._core.read_model(
                with_outputs(model, [(name, FLOAT if is_raw_output(name) else UNTOLD) for name in hidden])
            )
            return self._core.compile_model(read, self._device, settings)

    def _border(self, doing: str) -> Any:
        return vendor_errors(ERRORS, file=self._file, doing=doing, advice="see that the file is complete")

    def _free(self) -> None:
        self._compiled = {}


def open_model(model: ModelFile, choices: RuntimeChoices) -> OpenVinoRuntime:
    """Open a finished model on one of OpenVINO's devices."""
    document = read_document(model.data, file=model.file)
    oldest = document.oldest_runtimes.get("openvino", "0")
    why = f"'{model.file}' does not load in older ones"
    require_release("OpenVINO", _release(), oldest, extra="openvino", why=why)
    return OpenVinoRuntime(model.data, file=model.file, document=document, choices=choices)


def providers() -> tuple[str, ...]:
    """OpenVINO's devices here, in lower case.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    return tuple(device.lower() for device in _core().available_devices)


def _device(name: str | None) -> str:
    """A device by name in any case; None is the CPU."""
    devices = [str(device) for device in _core().available_devices]
    for device in devices:
        if (name or "cpu").lower() == device.lower():
            return device
    raise RuntimeUnavailableError(
        f"{name or 'cpu'!r} is not available: OpenVINO has {', '.join(map(str.lower, devices)) or 'no device'} here; "
        f"choose one of these"
    )


def _release() -> str:
    """``2026.4.1``; several distributions bring the package."""
    _core()
    import openvino

    return str(openvino.__version__).partition("-")[0]


def _core() -> Any:
    try:
        from openvino import Core
    except ImportError as error:
        raise MissingExtraError("OpenVINO", "openvino") from error
    return Core()
