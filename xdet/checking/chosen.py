"""Which runtimes a check runs: those that were named, or the default ones; and what could be added."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from xdet.checking.result import MissingRuntime
from xdet.errors import UsageError
from xdet.runtimes.base import Runtime
from xdet.runtimes.choices import RuntimeChoices
from xdet.runtimes.opening import RUNTIMES, parse_runtimes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.formats import ModelFormat

Asked = str | Runtime
SLOW = {"onnx-reference": 2, "onnxruntime-web": 2}  # runtime -> the most images it is given


def planned_images(
    runtimes: str | Sequence[Asked] | None, source_format: ModelFormat | None, images: int
) -> int:
    """How many images all runtimes together will be given: the length of a progress bar."""
    finished, sources = split_runtimes(runtimes, source_format, None)
    return sum(
        min(images, SLOW.get(runtime_name(asked).split(":")[0], images)) for asked in (*finished, *sources)
    )


def split_runtimes(
    runtimes: str | Sequence[Asked] | None, source_format: ModelFormat | None, threads: int | None
) -> tuple[list[RuntimeChoices | Runtime], list[RuntimeChoices]]:
    """Runtimes of the finished model, and those of the source."""
    own = _source_runtimes(source_format)
    if runtimes is None:
        runtimes = ["onnxruntime:cpu", *(["openvino:cpu"] if find_spec("openvino") else []), *own]
    named = runtimes.split(",") if isinstance(runtimes, str) else list(runtimes)
    texts = [name for name in named if isinstance(name, str)]
    choices = parse_runtimes(",".join(texts), threads=threads) if texts else ()
    chosen = [replace(c, provider=c.provider or usual_provider(str(c.runtime))) for c in choices]
    sources = [c for c in chosen if source_format in RUNTIMES[str(c.runtime)].formats]
    foreign = [c for c in chosen if c not in sources and "onnx" not in RUNTIMES[str(c.runtime)].formats]
    if foreign:
        listed = ", ".join(runtime_name(c) for c in foreign)
        raise UsageError(f"{listed} runs neither ONNX files nor {source_format} sources; leave it out")
    finished = [c for c in chosen if c not in sources]
    if not sources:
        sources = list(parse_runtimes(",".join(own), threads=threads)) if own else []
    return [*finished, *(r for r in named if not isinstance(r, str))], sources


def usual_provider(runtime: str) -> str:
    """The provider or kernels of a runtime that was named alone."""
    return {"litert": "xnnpack", "onnxruntime-web": "wasm", "onnx-reference": "numpy"}.get(runtime, "cpu")


def _source_runtimes(source_format: ModelFormat | None) -> list[str]:
    if source_format == "tflite":
        return ["litert:xnnpack", "litert:builtin", "litert:reference"]
    return ["keras:cpu"] if source_format in ("h5", "keras") else []


def runtime_name(asked: RuntimeChoices | Asked) -> str:
    """A runtime as results call it."""
    if isinstance(asked, str):
        return asked
    return f"{asked.runtime}:{asked.provider}" if isinstance(asked, RuntimeChoices) else asked.name


def suggest_runtimes(finished: Sequence[RuntimeChoices | Runtime]) -> list[MissingRuntime]:
    """What could be added, and how."""
    named = {runtime_name(asked).split(":")[0] for asked in finished}
    found: list[MissingRuntime] = []
    if "openvino" not in named and find_spec("openvino") is None:
        found.append(MissingRuntime("openvino:cpu", 'pip install "xdet[openvino]"', asked=False))
    slow = [name for name in SLOW if name not in named]
    return found + [
        MissingRuntime(
            f"{name}:{usual_provider(name)}", "name it in --runtimes (slow: two images)", asked=False
        )
        for name in slow
    ]
