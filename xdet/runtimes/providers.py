"""Execution providers by short or full name; one that is not there is an error, never replaced by another."""

from __future__ import annotations

from dataclasses import dataclass

from xdet.errors import RuntimeUnavailableError

CPU = "CPUExecutionProvider"
SHORT_NAMES = {
    "acl": "ACLExecutionProvider",
    "cann": "CANNExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "dml": "DmlExecutionProvider",
    "dnnl": "DnnlExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "nnapi": "NnapiExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
    "vitisai": "VitisAIExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}


@dataclass(frozen=True, slots=True)
class Provider:
    """An execution provider that can be chosen here.

    Attributes:
        name: ONNX Runtime's full name.
        short: the name to type.
        devices: its devices, where ONNX Runtime tells them.
    """

    name: str
    short: str
    devices: tuple[str, ...]


def available_providers() -> tuple[Provider, ...]:
    """The execution providers that ONNX Runtime has here, in its order of preference."""
    from xdet.runtimes.ort_session import installed_providers

    return tuple(Provider(name, short_name(name), devices) for name, devices in installed_providers().items())


def short_name(provider: str) -> str:
    """The name to type for a provider's full name."""
    short = {name: alias for alias, name in SHORT_NAMES.items()}
    return short.get(provider, provider.removesuffix("ExecutionProvider").lower())


def resolve_provider(name: str | None) -> str:
    """The full name of an available provider; None means the CPU.

    Args:
        name: short or full, in any case.

    Raises:
        RuntimeUnavailableError: it is not available; the message lists what is.
    """
    wanted = SHORT_NAMES.get((name or CPU).lower(), name or CPU).lower()
    if wanted == CPU.lower():  # without a look at the others
        return CPU
    from xdet.runtimes.ort_session import register_plugins

    providers = available_providers()
    for provider in providers:
        if wanted in (provider.name.lower(), provider.short):
            return provider.name
    here = ", ".join(f"{provider.short} ({provider.name})" for provider in providers)
    problems = "".join(f" ({problem})" for problem in register_plugins())
    raise RuntimeUnavailableError(
        f"execution provider {name!r} is not available; this ONNX Runtime has: {here}{problems}; "
        f"choose one of these, or install the onnxruntime package that brings it"
    )
