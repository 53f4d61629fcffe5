"""One opened pair: a check with layers decodes each file once, and opens each runtime once for it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import onnx
import pytest

from converters.sources.tflite import reader
from xdet.checking.check import check
from xdet.runtimes import ort_session, subprocess_runtime

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices

pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')


def test_a_check_with_layers_opens_each_runtime_once_and_decodes_each_file_once(
    person_onnx: Path, embedded_tflite: Path, sample_pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = person_onnx.read_bytes()
    seen: Counter[str] = Counter()

    def counted(owner: Any, name: str, told: Callable[..., str]) -> None:
        real = getattr(owner, name)

        def counting(*arguments: Any, **named: Any) -> Any:
            seen[told(*arguments, **named)] += 1
            return real(*arguments, **named)

        monkeypatch.setattr(owner, name, counting)

    def session(_: object, data: bytes, **__: object) -> str:
        # a session's model is the file, the file with more outputs, or the probes
        return "sessions of the model" if len(data) > len(model) // 2 else "sessions of the probes"

    def served(_: object, __: ModelFile, choices: RuntimeChoices, *___: object) -> str:
        return f"{choices.runtime}:{choices.provider}"

    ort_session.kernels_saturate()  # a session of its own, once per process
    counted(onnx, "load_model_from_string", lambda data, *_: "decoded" if data == model else "others decoded")
    counted(reader, "read_tflite", lambda *_: "parsed")
    counted(ort_session.OrtSession, "__init__", session)
    counted(subprocess_runtime.SubprocessRuntime, "__init__", served)
    counted(subprocess_runtime.Worker, "__init__", lambda *_: "subprocesses")
    subprocess_runtime.take_idle("xdet.runtimes.litert", None)  # ends what other tests left
    runtimes = "onnxruntime:cpu,litert:xnnpack,litert:builtin"
    result = check(person_onnx, embedded_tflite, sample_pictures, runtimes=runtimes, layers=True)
    assert result.passed
    assert result.layers is not None
    assert seen == {
        "decoded": 1,
        "others decoded": 1,  # the graph that ONNX Runtime runs, for the integer coverage
        "parsed": 1,
        "sessions of the model": 3,  # as it is, with the head, with every layer
        "sessions of the probes": 2,  # likewise, without layers
        "litert:xnnpack": 1,
        "litert:builtin": 1,
        "subprocesses": 1,
    }
