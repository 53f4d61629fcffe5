"""ONNX Runtime as xdet uses it: the provider asked for or an error; quiet; exact. Its only importer.

Two warnings per session ("Initializer ... appears in graph inputs") are by design: the thresholds are
optional inputs. ONNX Runtime cannot silence one message by its name, so a session is *created* at severity 3
(errors still appear, warnings do not). A *run* logs at severity 4: its errors are raised too, in the same words.

x86 without VNNI multiplies bytes in pairs and adds each pair in *saturating* 16-bit: 255 * 127 + 255 * 127
becomes 32767 instead of 64770. ONNX Runtime then returns wrong integers and says nothing. A list of CPU models would be
out of date, so a probe is run once per process: one quantised 3x3 convolution of nothing but such pairs (pixels 255,
weights 127, 16 channels), requantised so that the true answer is 200 everywhere.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from converters.spec.document import INT8_ENTRY
from xdet.errors import ModelError, RuntimeUnavailableError, UsageError
from xdet.runtimes.base import usable_processors, vendor_errors
from xdet.runtimes.onnxruntime_packages import (
    installed_plugins,
    not_importable,
    read_plugin,
    require_new_enough,
    two_distributions,
    warn_of_two,
)

try:
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as ort_state
except ImportError as missing:
    raise RuntimeUnavailableError(not_importable(missing)) from missing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

CPU = "CPUExecutionProvider"
SUFFIX = "ExecutionProvider"
SHORT_NAMES = {"NvTensorRTRTXExecutionProvider": "tensorrt-rtx"}  # others are in lower case, without the suffix
ERRORS = 3
FATAL_ONLY = 4
# It calls remote services; a graph that is given to it runs on the CPU.
NO_GRAPHS = frozenset({"AzureExecutionProvider"})
# By dtype of the activations. Both at once make int8 models fail at creation.
EXACT_KERNELS = {"uint8": "session.x64quantprecision", "int8": INT8_ENTRY}
PROBE = Path(__file__).parent.parent / "data" / "saturation_probe.onnx"
EXACT = 200
REGISTER = "register_execution_provider_library"  # since ONNX Runtime 1.22
PLACEMENT = "get_provider_graph_assignment_info"  # of a session, since ONNX Runtime 1.24
NUMPY_NAMES = {"float": "float32", "double": "float64"}  # where ONNX Runtime's name is another
MODEL_ERRORS = (
    *("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "ModelLoaded", "NoModel", "NoSuchFile"),
    *("NotFound", "NotImplemented", "RuntimeException"),
)
RUNTIME_ERRORS = ("DeviceReset", "EPFail", "EngineError", "ModelLoadCanceled", "ModelRequiresCompilation")


@dataclass(frozen=True, slots=True)
class Provider:
    """An execution provider that can be chosen here."""

    name: str  # ONNX Runtime's full name
    short: str  # the name to type
    devices: tuple[str, ...]  # where ONNX Runtime tells them


def available_providers() -> tuple[Provider, ...]:
    """The execution providers that ONNX Runtime has here, plug-ins included, in its order of preference."""
    register_plugins()
    names = [name for name in ort.get_available_providers() if name not in NO_GRAPHS]
    names += [str(device.ep_name) for device in _ep_devices()]
    return tuple(
        Provider(name, short_name(name), tuple(listed for _, listed, _ in _devices_of(name)))
        for name in dict.fromkeys(names)
    )


def short_name(provider: str) -> str:
    """The name to type for a provider's full name."""
    return SHORT_NAMES.get(provider, provider.removesuffix(SUFFIX).lower())


def resolve_provider(name: str | None) -> str:
    """The full name of an available provider, never another one; None means the CPU.

    Args:
        name: short or full, in any case.

    Raises:
        RuntimeUnavailableError: it is not available; the message lists what is.
    """
    word = (name or CPU).lower()
    if word in (CPU.lower(), short_name(CPU)):  # without a look at the others
        return CPU
    providers = available_providers()
    for provider in providers:
        if word in (provider.name.lower(), provider.short):
            return provider.name
    here = ", ".join(f"{provider.short} ({provider.name})" for provider in providers)
    problems = "".join(f" ({problem})" for problem in provider_problems())
    raise RuntimeUnavailableError(
        f"execution provider {name!r} is not available; this ONNX Runtime has: {here}{problems}; "
        f"choose one of these, or install the onnxruntime package that brings it"
    )


@dataclass(frozen=True, slots=True)
class SessionChoices:
    """How a session is opened."""

    provider: str = CPU  # full name of the execution provider
    threads: int | None = None  # inside an operator; None leaves it to default_threads
    exact_for: str | None = None  # dtype of the activation codes that get exact kernels, see inexact_codes
    optimized_path: str | None = None  # where to save the optimised graph
    # Join DequantizeLinear, operator and QuantizeLinear into integer kernels; False computes each operator in float32
    # between its pairs, as the standard says it.
    fuse: bool = True
    record_placement: bool = False  # keep what OrtSession.placement tells
    device: str | None = None  # of the provider, as available_providers names it, or its kind; None is its own choice
    provider_options: Mapping[str, str] = field(default_factory=dict)  # handed to the provider
    profile_prefix: str | None = None  # how the path of ONNX Runtime's profile begins; None writes none

    def __post_init__(self) -> None:
        if self.provider == CPU and (self.device or self.provider_options):
            raise UsageError(
                "the CPU provider has no devices to choose and no options; name another provider with them"
            )


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A graph input or output: numpy's name for its dtype, None in ``shape`` where a size is free."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class OrtSession:
    """An open model: its bytes, and how it was opened.

    Attributes:
        inputs: required inputs.
        optional_inputs: names of inputs that have a default.
        outputs: outputs in the graph's order.
    """

    def __init__(self, model: bytes, *, file: str, choices: SessionChoices) -> None:
        warn_of_two()
        self.file, self.model, self.choices = file, model, choices
        advice = "see that the file is a complete ONNX model"
        if choices.provider != CPU:
            advice += f", and that {choices.provider} is set up here, takes its operators and knows the options given"
        try:
            with _border(file, "ONNX Runtime cannot load it", advice):
                self._session = _create(model, choices)
        except ModelError:
            require_new_enough(model, file, installed_release())
            raise
        working = self._session.get_providers()[0]
        if working != choices.provider:  # ONNX Runtime drops a provider that cannot start, and goes on
            raise RuntimeUnavailableError(
                f"'{file}': {choices.provider} could not be started, ONNX Runtime offers {working} "
                f"instead; see that its libraries and drivers are installed, or choose another `provider`"
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
        with _border(self.file, "ONNX Runtime failed while running it", "convert the source again with xdet convert"):
            return list(self._session.run(list(outputs), dict(feeds), self._run_options))

    def placement(self) -> dict[str, dict[str, int]] | None:
        """Nodes by operator per provider, before fusion; None unless recorded, or where ONNX Runtime is too old."""
        if not self.choices.record_placement or not hasattr(self._session, PLACEMENT):
            return None
        placed: dict[str, Counter[str]] = {}  # by short name
        for part in getattr(self._session, PLACEMENT)():
            operators = placed.setdefault(short_name(str(part.ep_name)), Counter())
            operators.update(str(node.op_type) for node in part.get_nodes())
        return {name: dict(operators) for name, operators in placed.items()}

    def reopen(self, model: bytes) -> Self:
        """Another model, such as an edited copy, opened as this one was."""
        if self._session is None:
            raise UsageError(f"'{self.file}' was closed; open it again")
        choices = replace(self.choices, optimized_path=None, record_placement=False, profile_prefix=None)
        return type(self)(model, file=self.file, choices=choices)

    def end_profiling(self) -> str:
        """Write the profile of all runs so far; returns its path."""
        return str(self._session.end_profiling())

    def close(self) -> None:
        """End ONNX Runtime's session, and with it its threads and buffers."""
        self._session = None


@cache
def register_plugins() -> tuple[str, ...]:
    """Register the plug-ins of this environment, once per process; why some of their providers cannot be chosen."""
    failures: tuple[type[Exception], ...] = (
        ImportError,
        RuntimeError,
        *_classes(MODEL_ERRORS),
        *_classes(RUNTIME_ERRORS),
    )
    problems = []
    for name in installed_plugins():
        if not hasattr(ort, REGISTER):
            problems.append(f"{name} needs a newer onnxruntime than {ort.__version__}")
            continue
        try:
            plugin = read_plugin(name)
            getattr(ort, REGISTER)(name, plugin.path)
        except failures as error:
            problems.append(f"{name} cannot be loaded: {' '.join(str(error).split())}")
            continue
        if not any(device.ep_name in plugin.providers for device in _ep_devices()):
            problems.append(f"{name} finds no device here that its {', '.join(plugin.providers)} supports")
    return tuple(problems)


def provider_problems() -> tuple[str, ...]:
    """Why providers may be missing here: plug-ins that cannot be chosen, and distributions in each other's way."""
    overwritten = two_distributions()
    return (*register_plugins(), *(() if overwritten is None else (overwritten,)))


def installed_release() -> str:
    """The release of ONNX Runtime that is here: ``"1.24.1"``."""
    return str(ort.__version__)


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
    options.inter_op_num_threads = 1  # waiting threads spin between calls: 4 ms become 2.5 for a small network
    options.add_session_config_entry("session.load_model_format", "ONNX")  # never its own flatbuffers
    if choices.exact_for is not None:
        options.add_session_config_entry(EXACT_KERNELS[choices.exact_for], "1")
    if not choices.fuse:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if choices.record_placement:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if choices.optimized_path is not None:
        options.optimized_model_filepath = choices.optimized_path
    if choices.profile_prefix is not None:
        options.enable_profiling, options.profile_file_prefix = True, choices.profile_prefix
    settings = dict(choices.provider_options)
    if choices.device is None and choices.provider in ort.get_available_providers():
        return ort.InferenceSession(model, options, providers=[(choices.provider, settings)], enable_fallback=0)
    options.add_provider_for_devices(_chosen_devices(choices.provider, choices.device), settings)
    return ort.InferenceSession(model, options, enable_fallback=0)


def _chosen_devices(provider: str, word: str | None) -> list[Any]:
    """A provider's device by name, or by kind the first of that kind; all of them for None."""
    devices = _devices_of(provider)
    if word is None:
        return [device for _, _, device in devices]
    wanted = word.lower() if ":" in word else f"{word.lower()}:0"
    chosen = [device for name, _, device in devices if name == wanted]
    if chosen:
        return chosen
    here = f"it has {', '.join(listed for _, listed, _ in devices)}; choose one of these"
    unlisted = "ONNX Runtime lists none for it; try its own option for that, such as device_id=0 or device_type=GPU"
    raise RuntimeUnavailableError(f"{provider} has no device {word!r} here: {here if devices else unlisted}")


def _devices_of(provider: str) -> list[tuple[str, str, Any]]:
    """Name (its kind and a number), the name with its maker, and ONNX Runtime's handle of a provider's devices."""
    devices: list[tuple[str, str, Any]] = []
    numbers: Counter[str] = Counter()
    for device in _ep_devices():
        if device.ep_name == provider:
            kind = str(device.device.type).rsplit(".", 1)[-1].removeprefix("OrtHardwareDeviceType_").lower()
            name = f"{kind}:{numbers[kind]}"
            numbers[kind] += 1
            devices.append((name, f"{name} ({device.device.vendor or device.ep_vendor})", device))
    return devices


def _ep_devices() -> list[Any]:
    """Devices of registered providers; empty before ONNX Runtime 1.23, which brought the list."""
    return list(ort.get_ep_devices()) if hasattr(ort, "get_ep_devices") else []


def _tensor_info(value: Any) -> TensorInfo:
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    dtype = value.type.removeprefix("tensor(").removesuffix(")")
    return TensorInfo(value.name, NUMPY_NAMES.get(dtype, dtype), shape)


def _border(file: str, doing: str, advice: str) -> Any:
    errors = (*_classes(MODEL_ERRORS), ValueError, RuntimeError, MemoryError)
    return vendor_errors(errors, _classes(RUNTIME_ERRORS), file=file, doing=doing, advice=advice)


@cache
def _classes(names: Sequence[str]) -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions by name, as far as it has them; they share no base but ``Exception``."""
    return tuple(getattr(ort_state, name) for name in names if hasattr(ort_state, name))


@cache
def kernels_saturate() -> bool:
    """Whether default sessions here compute wrong sums."""
    return bool((run_probe() != EXACT).any())


def inexact_codes(activations: str, *, in_float: bool) -> str | None:
    """The dtype of activation codes again where the usual kernels for it are not exact here, None elsewhere.

    They saturate, or leave products of int8 codes ``in_float`` (``converters.graph.float_products``).
    """
    if activations not in EXACT_KERNELS:
        return None
    return activations if (in_float and activations == "int8") or kernels_saturate() else None


def run_probe(*, exact_for: str | None = None, optimized_path: str | None = None) -> NDArray[np.uint8]:
    """The probe's outputs, uint8 ``(1, 16, 3, 3)``: 200 everywhere from exact kernels."""
    choices = SessionChoices(threads=1, exact_for=exact_for, optimized_path=optimized_path)
    session = OrtSession(PROBE.read_bytes(), file=PROBE.name, choices=choices)
    output: NDArray[np.uint8] = session.run(["y"], {"x": np.full((1, 16, 5, 5), 255, np.uint8)})[0]
    return output
