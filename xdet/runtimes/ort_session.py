"""ONNX Runtime as xdet uses it: the provider asked for or an error; quiet; exact. Its only importer.

Two warnings per session ("Initializer ... appears in graph inputs") are by design: the thresholds are
optional inputs. ONNX Runtime cannot silence one message by its name, so a session is *created* at severity 3
(errors still appear, warnings do not). A *run* logs at severity 4: its errors are raised too, in the same words.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from xdet.errors import RuntimeUnavailableError, UsageError
from xdet.processors import usable_processors
from xdet.runtimes.base import VendorErrors, vendor_errors
from xdet.runtimes.providers import CPU

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

ERRORS = 3
FATAL_ONLY = 4
# It calls remote services; a graph that is given to it runs on the CPU.
NO_GRAPHS = frozenset({"AzureExecutionProvider"})
# By dtype of the activations. Both at once make int8 models fail at creation.
EXACT_KERNELS = {
    "uint8": "session.x64quantprecision",
    "int8": "session.qdqisint8allowed",
}
PLACEMENT = "get_provider_graph_assignment_info"  # of a session, since ONNX Runtime 1.24
NUMPY_NAMES = {"float": "float32", "double": "float64"}  # where ONNX Runtime's name is another
MODEL_ERRORS = (
    *("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "ModelLoaded", "NoModel", "NoSuchFile"),
    *("NotFound", "NotImplemented", "RuntimeException"),
)
RUNTIME_ERRORS = ("DeviceReset", "EPFail", "EngineError", "ModelLoadCanceled", "ModelRequiresCompilation")


@dataclass(frozen=True, slots=True)
class SessionChoices:
    """How a session is opened.

    Attributes:
        provider: full name of the execution provider.
        threads: threads inside an operator; None leaves it to ``default_threads``.
        exact_for: dtype of the activation codes, ``"uint8"`` or ``"int8"``, where the kernels saturate (x86
            without VNNI, see ``saturation``) and slower, exact ones must replace them; None elsewhere.
        optimized_path: where to save the optimised graph, or None.
        fuse: join DequantizeLinear, operator and QuantizeLinear into integer kernels; False computes each operator in float32
            between its pairs, as the standard says it.
        record_placement: keep what ``OrtSession.placement`` tells.
    """

    provider: str = CPU
    threads: int | None = None
    exact_for: str | None = None
    optimized_path: str | None = None
    fuse: bool = True
    record_placement: bool = False


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A graph input or output: numpy's name for its dtype, None in ``shape`` where a size is free."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class OrtSession:
    """An open model.

    Attributes:
        file: its name, for messages.
        model: its bytes.
        choices: how it was opened.
        inputs: required inputs.
        optional_inputs: names of inputs that have a default.
        outputs: outputs in the graph's order.
    """

    def __init__(self, model: bytes, *, file: str, choices: SessionChoices) -> None:
        self.file, self.model, self.choices = file, model, choices
        advice = "see that the file is a complete ONNX model"
        if choices.provider != CPU:
            advice += f", and that {choices.provider} is set up here and takes its operators"
        with _border(file, "ONNX Runtime cannot load it", advice):
            self._session = _create(model, choices)
        working = self._session.get_providers()[0]
        if working != choices.provider:  # ONNX Runtime drops a provider that cannot start, and goes on
            raise RuntimeUnavailableError(
                f"'{file}': {choices.provider} could not be started, ONNX Runtime offers {working} "
                f"instead; see that its libraries and drivers are installed, or choose another --provider"
            )
        self.inputs = tuple(map(_tensor_info, self._session.get_inputs()))
        self.outputs = tuple(map(_tensor_info, self._session.get_outputs()))
        self.optional_inputs = tuple(value.name for value in self._session.get_overridable_initializers())
        self._run_options = ort.RunOptions()
        self._run_options.log_severity_level = FATAL_ONLY

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The named outputs for these inputs.

        Raises:
            ModelError: ONNX Runtime failed on the model.
            UsageError: the session is closed.
        """
        if self._session is None:
            raise UsageError(f"'{self.file}' was closed; open it again")
        with _border(
            self.file, "ONNX Runtime failed while running it", "convert the source again with xdet convert"
        ):
            return list(self._session.run(list(outputs), dict(feeds), self._run_options))

    def placement(self) -> dict[str, int] | None:
        """Nodes per provider (full name), before fusion; None unless recorded, or where ONNX Runtime is too old to tell."""
        if not self.choices.record_placement or not hasattr(self._session, PLACEMENT):
            return None
        placed: dict[str, int] = {}
        for part in getattr(self._session, PLACEMENT)():
            placed[str(part.ep_name)] = placed.get(str(part.ep_name), 0) + len(part.get_nodes())
        return placed

    def close(self) -> None:
        """End ONNX Runtime's session, and with it its threads and buffers."""
        self._session = None


def installed_providers() -> dict[str, tuple[str, ...]]:
    """Execution providers of this process, best first, with their devices where ONNX Runtime tells them."""
    devices: dict[str, list[str]] = {
        name: [] for name in ort.get_available_providers() if name not in NO_GRAPHS
    }
    for device in _ep_devices():
        vendor, kind = str(device.ep_vendor), str(device.device.type).rsplit(".", 1)[-1]
        devices.setdefault(str(device.ep_name), []).append(
            f"{kind.removeprefix('OrtHardwareDeviceType_')} ({vendor})"
        )
    return {name: tuple(found) for name, found in devices.items()}


def default_threads() -> int:
    """0 (ONNX Runtime's own choice, a thread per physical core), or the CPUs this process may use if fewer.

    ONNX Runtime pins its threads to all cores, and complains on stderr where a container allows only some.
    """
    usable = usable_processors()
    return 0 if usable == os.cpu_count() else usable


def _create(model: bytes, choices: SessionChoices) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS
    options.intra_op_num_threads = default_threads() if choices.threads is None else choices.threads
    options.inter_op_num_threads = (
        1  # waiting threads spin between calls: 4 ms become 2.5 for a small network
    )
    options.add_session_config_entry("session.load_model_format", "ONNX")  # never its own flatbuffers
    if choices.exact_for is not None:
        options.add_session_config_entry(EXACT_KERNELS[choices.exact_for], "1")
    if not choices.fuse:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if choices.record_placement:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if choices.optimized_path is not None:
        options.optimized_model_filepath = choices.optimized_path
    if choices.provider in ort.get_available_providers():
        return ort.InferenceSession(model, options, providers=[choices.provider], enable_fallback=0)
    devices = [device for device in _ep_devices() if device.ep_name == choices.provider]
    options.add_provider_for_devices(devices, {})
    return ort.InferenceSession(model, options, enable_fallback=0)


def _ep_devices() -> list[Any]:
    """Devices of registered providers; empty before ONNX Runtime 1.23, which brought the list."""
    return list(ort.get_ep_devices()) if hasattr(ort, "get_ep_devices") else []


def _tensor_info(value: Any) -> TensorInfo:
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    dtype = value.type.removeprefix("tensor(").removesuffix(")")
    return TensorInfo(value.name, NUMPY_NAMES.get(dtype, dtype), shape)


def _border(file: str, doing: str, advice: str) -> Any:
    return vendor_errors(
        VendorErrors(
            model=(*_classes(MODEL_ERRORS), ValueError, RuntimeError, MemoryError),
            runtime=_classes(RUNTIME_ERRORS),
        ),
        file=file,
        doing=doing,
        advice=advice,
    )


def _classes(names: Sequence[str]) -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions by name, as far as it has them; they share no base but ``Exception``."""
    return tuple(getattr(ort_state, name) for name in names if hasattr(ort_state, name))
