"""Runtimes are chosen by name from one table; whatever does not fit is told before anything runs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from converters.description.statements import SourceOptions
from converters.sources import SOURCES
from tests.xdet.finished_models import SPEC, finished_model
from xdet.errors import UsageError
from xdet.model.file import ModelFile
from xdet.runtimes.base import RuntimeChoices, most_threads
from xdet.runtimes.table import RUNTIMES, open_model, parse_runtimes, runtimes_for

FINISHED = ModelFile(Path("m.onnx"), finished_model(), "onnx")


def test_a_list_of_runtimes_is_read_in_order_and_any_case() -> None:
    assert parse_runtimes("onnxruntime:CPU, litert:builtin,litert", threads=2) == (
        RuntimeChoices("onnxruntime", "cpu", 2),
        RuntimeChoices("litert", "builtin", 2),
        RuntimeChoices("litert", None, 2),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensorrt", "there is no runtime 'tensorrt'; choose among onnxruntime, .*litert"),
        ("", "there is no runtime ''"),
        ("litert,", "there is no runtime ''"),
        ("litert:", "'litert:' names nothing behind its colon"),
        ("litert:xnnpack,LiteRT:xnnpack", "'litert:xnnpack' stands twice"),
    ],
)
def test_a_list_that_names_no_runtimes_is_a_usage_error(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_runtimes(text)


def test_a_runtime_is_named_as_the_list_names_it() -> None:
    for choices in parse_runtimes("onnxruntime,onnxruntime:cpu", threads=1):
        with open_model(FINISHED, choices) as runtime:
            assert runtime.name == "onnxruntime:cpu"


def test_a_runtime_that_does_not_take_the_file_says_who_does() -> None:
    with pytest.raises(UsageError, match=r"'m\.onnx' is a file of format onnx, which the runtime 'litert' .*onnxrun"):
        open_model(FINISHED, RuntimeChoices("litert"))
    with pytest.raises(UsageError, match="there is no runtime 'warp'"):
        open_model(FINISHED, RuntimeChoices("warp"))


def test_what_can_run_a_format_here_is_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "onnxruntime:cpu" in runtimes_for("onnx")
    assert not any(name.startswith("litert") for name in runtimes_for("onnx"))
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    assert runtimes_for("tflite") == ("litert:xnnpack", "litert:builtin", "litert:reference")
    monkeypatch.setitem(RUNTIMES, "litert", replace(RUNTIMES["litert"], package="no_such_package"))
    assert runtimes_for("tflite") == ()


def test_every_format_has_a_runtime() -> None:
    assert {found for kind in RUNTIMES.values() for found in kind.formats} == {"onnx", *SOURCES}


@pytest.mark.parametrize(("cpus", "most"), [(1, 16), (2, 16), (16, 64), (None, 16)])
def test_threads_are_capped_at_four_per_processor(cpus: int | None, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    assert most_threads() == most
    assert RuntimeChoices(threads=most).threads == most
    with pytest.raises(UsageError, match=rf"threads must be at most {most} here, four per processor, got {most + 1}"):
        RuntimeChoices(threads=most + 1)
    for few in (0, -1):
        with pytest.raises(UsageError, match=f"threads must be at least 1, got {few}"):
            RuntimeChoices(threads=few)


def test_choices_travel_as_json() -> None:
    choices = RuntimeChoices(
        *("onnxruntime", "openvino", 2, 3, {"precision": "FP16"}, "gpu", SPEC), SourceOptions(resize="letterbox")
    )
    assert RuntimeChoices.from_dict(json.loads(json.dumps(choices.to_dict()))) == choices
    assert RuntimeChoices.from_dict(RuntimeChoices().to_dict()) == RuntimeChoices()
