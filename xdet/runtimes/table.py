"""From a model file to the runtime that runs it: a table by name, each with the formats it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdet.errors import MissingExtraError, ModelError, RuntimeUnavailableError, UsageError
from xdet.model.file import read_model_file
from xdet.runtimes.processors import RuntimeChoices, threads_of_one_network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from converters.files import ModelFormat
    from xdet.model.file import ModelFile
    from xdet.runtimes.base import Runtime

DEFAULTS = RuntimeChoices()
TAKE_OPTIONS = frozenset({"onnxruntime", "onnxruntime-unfused"})  # of execution providers


@dataclass(frozen=True, slots=True)
class RuntimeKind:
    """A back end that xdet knows.

    Attributes:
        formats: of the files it takes.
        opener: opens a file of these formats.
        providers: lists what can stand behind its name and a colon here; raises ``MissingExtraError`` where the back
            end is not installed.
    """

    formats: tuple[ModelFormat, ...]
    opener: Callable[[ModelFile, RuntimeChoices], Runtime]
    providers: Callable[[], tuple[str, ...]]


def open_runtime(path: Path, choices: RuntimeChoices = DEFAULTS) -> Runtime:
    """Open a model file, finished or source.

    Args:
        path: an ONNX file that xdet made, or a TFLite or Keras file.
        choices: where and how it runs; without a runtime's name, the first of ``RUNTIMES`` that takes the file.

    Raises:
        ModelError: the file cannot be read, or is no model that xdet runs.
        RuntimeUnavailableError: the provider or the runtime's package is not there.
        UsageError: the runtime that was named does not take this kind of file, or no options.
    """
    return open_model(read_model_file(path), choices)


def open_model(model: ModelFile, choices: RuntimeChoices = DEFAULTS) -> Runtime:
    """Open a model that is in memory already; see ``open_runtime``."""
    takers = [name for name, kind in RUNTIMES.items() if model.format in kind.formats]
    if not takers:
        formats = dict.fromkeys(found for kind in RUNTIMES.values() for found in kind.formats)
        raise ModelError(
            f"'{model.file}' is not a model: its bytes are none of {', '.join(formats)}; "
            f"give an ONNX file made by xdet convert, or a TFLite or Keras detector"
        )
    name = choices.runtime or takers[0]
    if name not in takers:
        require_runtime(name)
        raise UsageError(
            f"'{model.file}' is a file of format {model.format}, which the runtime {name!r} does not take "
            f"(it takes {', '.join(RUNTIMES[name].formats)}); choose {' or '.join(takers)}"
        )
    if (choices.provider_options or choices.device) and name not in TAKE_OPTIONS:
        raise UsageError(
            f"'{model.file}' runs on {name}: options and devices are those of ONNX Runtime's execution providers; "
            f"leave them out, or give an ONNX file"
        )
    return RUNTIMES[name].opener(model, choices)


def parse_runtimes(text: str, *, threads: int | None = None) -> tuple[RuntimeChoices, ...]:
    """Read a list such as ``"onnxruntime:cpu,litert:xnnpack"``; a name alone takes its usual provider or kernels.

    Args:
        text: names of ``RUNTIMES``, each with a provider or kernels behind a colon if any, separated by commas.
        threads: threads inside an operator, for all of them.

    Raises:
        UsageError: an unknown or empty name, or one that stands there twice.
    """
    words = [word.strip().lower() for word in text.split(",")]
    doubles = sorted({word for word in words if words.count(word) > 1})
    if doubles:
        raise UsageError(f"{', '.join(map(repr, doubles))} stands twice in {text!r}; name every runtime once")
    chosen = []
    for word in words:
        name, colon, provider = word.partition(":")
        require_runtime(name)
        if colon and not provider:
            raise UsageError(f"{word!r} names nothing behind its colon; write {name!r}, or one of its kinds")
        chosen.append(RuntimeChoices(name, provider or None, threads))
    return tuple(chosen)


def runtimes_for(model_format: ModelFormat) -> tuple[str, ...]:
    """What can run files of this format here, as ``parse_runtimes`` reads it; back ends not installed are left out."""
    names: list[str] = []
    for name, kind in RUNTIMES.items():
        if model_format in kind.formats:
            try:
                names += [f"{name}:{provider}" for provider in kind.providers()]
            except MissingExtraError:
                continue
    return tuple(names)


def require_runtime(name: str) -> None:
    """Refuse a name that is not in ``RUNTIMES``."""
    if name not in RUNTIMES:
        raise UsageError(f"there is no runtime {name!r}; choose among {', '.join(RUNTIMES)}")


def _open_onnxruntime(model: ModelFile, choices: RuntimeChoices) -> Runtime:
    from xdet.runtimes.onnxruntime import open_onnxruntime

    return open_onnxruntime(model.data, file=model.file, choices=choices)


def _onnxruntime_providers() -> tuple[str, ...]:
    from xdet.runtimes.ort_session import available_providers

    return tuple(provider.short for provider in available_providers())


def _open_unfused(model: ModelFile, choices: RuntimeChoices) -> Runtime:
    from xdet.runtimes.onnxruntime import open_onnxruntime

    return open_onnxruntime(model.data, file=model.file, choices=choices, fuse=False)


def _cpu_alone() -> tuple[str, ...]:
    return ("cpu",)


def _open_openvino(model: ModelFile, choices: RuntimeChoices) -> Runtime:
    from xdet.runtimes.onnxruntime import read_document
    from xdet.runtimes.openvino import OpenVinoRuntime

    document = read_document(model.data, file=model.file)
    return OpenVinoRuntime(model.data, file=model.file, document=document, choices=choices)


def _openvino_devices() -> tuple[str, ...]:
    from xdet.runtimes.openvino import available_devices

    return available_devices()


def _open_onnx_reference(model: ModelFile, choices: RuntimeChoices) -> Runtime:
    from xdet.runtimes.onnx_reference import KERNELS, OnnxReferenceRuntime
    from xdet.runtimes.onnxruntime import read_document

    _require_kind(choices, KERNELS)
    return OnnxReferenceRuntime(
        model.data, file=model.file, document=read_document(model.data, file=model.file)
    )


def _onnx_reference_kernels() -> tuple[str, ...]:
    from xdet.runtimes.onnx_reference import KERNELS

    return KERNELS


def _open_ort_web(model: ModelFile, choices: RuntimeChoices) -> Runtime:
    from xdet.runtimes.onnxruntime import read_document
    from xdet.runtimes.onnxruntime_web import KERNELS, OrtWebRuntime

    _require_kind(choices, KERNELS)
    return OrtWebRuntime(model.data, file=model.file, document=read_document(model.data, file=model.file))


def _ort_web_kernels() -> tuple[str, ...]:
    from xdet.runtimes.onnxruntime_web import available_kernels

    return available_kernels()


def _require_kind(choices: RuntimeChoices, kinds: tuple[str, ...]) -> None:
    """Refuse a provider that a runtime of one or few kinds has not."""
    if choices.provider is not None and choices.provider.lower() not in kinds:
        raise RuntimeUnavailableError(
            f"{choices.provider!r} is not available for {choices.runtime}: it has {', '.join(kinds)}; "
            f"choose one of these, or leave it out"
        )


def _open_litert(model: ModelFile, choices: RuntimeChoices) -> Runtime:
    from xdet.runtimes.litert import LiteRtRuntime, describe_source, kernels_by_name

    kernels = kernels_by_name(choices.provider)
    source = describe_source(model)
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
    )


def _litert_kernels() -> tuple[str, ...]:
    from xdet.runtimes.litert import available_kernels

    return available_kernels()


def _open_keras(model: ModelFile, choices: RuntimeChoices) -> Runtime:
    from xdet.runtimes.keras import open_keras

    return open_keras(model, choices)


def _keras_providers() -> tuple[str, ...]:
    from xdet.runtimes.keras import keras_providers

    return keras_providers()


RUNTIMES: dict[str, RuntimeKind] = {
    "onnxruntime": RuntimeKind(("onnx",), _open_onnxruntime, _onnxruntime_providers),
    "onnxruntime-unfused": RuntimeKind(("onnx",), _open_unfused, _cpu_alone),
    "openvino": RuntimeKind(("onnx",), _open_openvino, _openvino_devices),
    "onnxruntime-web": RuntimeKind(("onnx",), _open_ort_web, _ort_web_kernels),
    "onnx-reference": RuntimeKind(("onnx",), _open_onnx_reference, _onnx_reference_kernels),
    "litert": RuntimeKind(("tflite",), _open_litert, _litert_kernels),
    "keras": RuntimeKind(("h5", "keras"), _open_keras, _keras_providers),
}
