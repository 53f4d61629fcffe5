"""A finished model on OpenVINO's own runtime. Its only importer (extra ``openvino``).

OpenVINO folds the optional threshold inputs into constants, so a file runs at its own thresholds. What is not quantised
is computed in float32 (``INFERENCE_PRECISION_HINT``): processors with bfloat16 units would otherwise round every number
to 8 bits of mantissa without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.spec import DETECTION_OUTPUTS, IMAGE
from xdet.errors import RuntimeUnavailableError, import_extra
from xdet.runtimes.base import require_release
from xdet.runtimes.finished import FinishedModelRuntime, Outputs, showing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices


class OpenVinoRuntime(FinishedModelRuntime):
    """A finished model, compiled for one of OpenVINO's devices; for one thread at a time."""

    TITLE, ADVICE = "OpenVINO", "see that the file is complete"

    def __init__(self, model: ModelFile, choices: RuntimeChoices) -> None:
        super().__init__(model, choices.name)
        oldest = self.document.oldest_runtimes.get("openvino", "0")
        why = f"'{model.file}' does not load in older ones"
        release = str(_openvino().__version__).partition("-")[0]  # several distributions bring the package
        require_release("OpenVINO", release, oldest, extra="openvino", why=why)
        self._core, self._device, self._threads = _openvino().Core(), _device(choices.provider), choices.threads
        self.name = f"openvino:{self._device.lower()}"
        compiled = self._compile(model.data)
        self._require_outputs([name for output in compiled.outputs for name in output.get_names()])
        size = compiled.input(IMAGE).get_partial_shape()[0]
        self.batch = None if size.is_dynamic else size.get_length()
        self._own = DETECTION_OUTPUTS if self.spec.gives_boxes else self._raw_names
        self._compiled: dict[tuple[str, ...], Any] = {self._own: compiled}

    def _compute(self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Outputs:
        compiled = self._showing(tuple(names))
        with self._border("failed while running it"):
            results = compiled(dict(feeds))
            return [np.array(results[name]) for name in names]

    def _showing(self, names: tuple[str, ...]) -> Any:
        """A compiled model with these outputs; the last one beside that of the own outputs is kept."""
        for shown, compiled in self._compiled.items():
            if set(names) <= set(shown):
                return compiled
        hidden = [name for name in names if name not in self._own]
        compiled = self._compile(showing(self.model.data, hidden))
        self._compiled = {self._own: self._compiled[self._own], (*self._own, *hidden): compiled}
        return compiled

    def _compile(self, model: bytes) -> Any:
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if self._device == "CPU":
            # a pinned thread waits for whatever reads photographs on its processor
            settings["ENABLE_CPU_PINNING"] = False
        if self._threads is not None:
            settings["INFERENCE_NUM_THREADS"] = self._threads
        with self._border("cannot load it"):
            return self._core.compile_model(self._core.read_model(model), self._device, settings)

    def _free(self) -> None:
        self._compiled = {}


def open_model(model: ModelFile, choices: RuntimeChoices) -> OpenVinoRuntime:
    """Open a finished model on one of OpenVINO's devices."""
    return OpenVinoRuntime(model, choices)


def providers(_: str) -> tuple[str, ...]:
    """OpenVINO's devices here, in lower case; raises ``MissingExtraError``."""
    return tuple(device.lower() for device in _openvino().Core().available_devices)


def _device(name: str | None) -> str:
    """A device by name in any case; None is the CPU."""
    devices = [str(device) for device in _openvino().Core().available_devices]
    for device in devices:
        if (name or "cpu").lower() == device.lower():
            return device
    raise RuntimeUnavailableError(
        f"{name or 'cpu'!r} is not available: OpenVINO has {', '.join(map(str.lower, devices)) or 'no device'} here; "
        f"choose one of these"
    )


def _openvino() -> Any:
    return import_extra("openvino", "OpenVINO", "openvino")
