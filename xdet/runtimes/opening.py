"""From a model file to the runtime that runs it: a table by format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from xdet.errors import ModelError, RuntimeUnavailableError, UsageError
from xdet.runtimes.base import Runtime

LARGEST_FILE = 2**31 - 1  # both ONNX (protobuf) and TFLite (32-bit offsets) end here

Opener = Callable[[bytes, Path, str | None, int | None], Runtime]


def open_runtime(path: Path, *, provider: str | None = None, threads: int | None = None) -> Runtime:
    """Open a model file, finished or source, on the runtime of its format.

    Args:
        path: an ONNX file that xdet made, or a TFLite file.
        provider: an execution provider of ONNX Runtime; for a TFLite file ``xnnpack``, ``builtin`` or
            ``reference``, kernels of LiteRT.
        threads: threads inside an operator, at least 1; None is the runtime's default.

    Raises:
        ModelError: the file cannot be read, or is no model that xdet runs.
        RuntimeUnavailableError: the provider or the runtime's package is not there.
        UsageError: a number of threads below 1.
    """
    from converters.formats import sniff_format

    require_threads(threads)
    data = read_model(path)
    model_format = sniff_format(data)
    opener = RUNTIMES.get(model_format) if model_format is not None else None
    if opener is None:
        raise ModelError(
            f"'{path}' is not a model: its bytes are none of {', '.join(RUNTIMES)}; "
            f"give an ONNX file made by xdet convert, or a TFLite detector"
        )
    return opener(data, path, provider, threads)


def require_threads(threads: int | None) -> None:
    """Refuse a number of threads below 1."""
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}; leave it out for the runtime's default")


def read_model(path: Path) -> bytes:
    """A model file's bytes.

    Raises:
        ModelError: missing, a folder, unreadable, empty, or larger than any model can be.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise ModelError(
                f"'{path}' has {size:,} bytes, a model file has at most {LARGEST_FILE:,}; is it a model?"
            )
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read model '{path}': {error.strerror or error}; check the path") from error
    except MemoryError as error:
        raise ModelError(f"'{path}' does not fit into memory ({size:,} bytes)") from error
    if not data:
        raise ModelError(f"'{path}' is empty; give an ONNX file made by xdet convert, or a TFLite detector")
    return data


def _open_onnx(data: bytes, path: Path, provider: str | None, threads: int | None) -> Runtime:
    from xdet.runtimes.onnxruntime import open_onnxruntime

    return open_onnxruntime(data, file=str(path), provider=provider, threads=threads)


def _open_tflite(data: bytes, path: Path, provider: str | None, threads: int | None) -> Runtime:
    from converters.description.settings import resolve_source_spec
    from converters.errors import ConversionError, OptionError
    from xdet.runtimes.litert import LiteRtRuntime, kernels_by_name

    kernels = kernels_by_name(provider)
    try:
        spec = resolve_source_spec(path)  # checks every offset in the file, which LiteRT does not
    except OptionError as error:
        raise UsageError(str(error)) from error
    except ConversionError as error:
        raise ModelError(str(error)) from error
    return LiteRtRuntime(data, file=str(path), spec=spec, kernels=kernels, threads=threads)


def _refuse_keras(data: bytes, path: Path, provider: str | None, threads: int | None) -> Runtime:
    del data, provider, threads
    raise RuntimeUnavailableError(
        f"'{path}' is a Keras file, which xdet cannot run yet; give its TFLite file, "
        f"or an ONNX file made by xdet convert"
    )


RUNTIMES: dict[str, Opener] = {
    "onnx": _open_onnx,
    "tflite": _open_tflite,
    "h5": _refuse_keras,
    "keras": _refuse_keras,
}
