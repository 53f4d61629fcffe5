"""A TFLite file runs on the LiteRT kernels that were named."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.xdet.finished_models import (
    SPEC,
)
from xdet.errors import MissingExtraError, ModelError, RuntimeUnavailableError
from xdet.runtimes.litert import LiteRtRuntime, kernels_by_name
from xdet.runtimes.opening import open_runtime

if TYPE_CHECKING:
    from pathlib import Path


def test_litert_kernels_are_named_in_any_case_and_nothing_else_is_taken() -> None:
    assert [kernels_by_name(name) for name in (None, "XNNPACK", "builtin", "reference")] == [
        *("xnnpack", "xnnpack", "builtin", "reference"),
    ]
    with pytest.raises(
        RuntimeUnavailableError, match=r"'cuda' is not available for a TFLite file.*xnnpack, builtin"
    ):
        kernels_by_name("cuda")


def test_litert_that_is_not_installed_gives_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingExtraError, match=r'pip install "xdet\[litert\]"'):
        LiteRtRuntime(b"", file="m.tflite", spec=SPEC)


def test_a_damaged_tflite_file_is_a_model_error_of_litert() -> None:
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    with pytest.raises(ModelError, match=r"'m\.tflite': LiteRT cannot load it"):
        LiteRtRuntime(b"not a flatbuffer", file="m.tflite", spec=SPEC)


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_the_embedded_source_runs_on_every_set_of_litert_kernels(kernels: str, embedded_tflite: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    runtime = open_runtime(embedded_tflite, provider=kernels, threads=1)
    images = np.full((2, 224, 224, 3), 128, np.uint8)
    head = runtime.head(images)
    assert runtime.name == f"litert:{kernels}"
    assert runtime.capabilities.head
    assert runtime.capabilities.max_detections is None
    assert head.shape == (2, 7, 7, 30)
    assert head.dtype == np.float32
    assert np.array_equal(head[0], head[1])
    assert runtime.detect(images, replace(runtime.spec.thresholds, score=0.0)).num_detections[0] > 0


def test_a_spec_of_another_size_does_not_fit_the_tflite_file(embedded_tflite: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    with pytest.raises(ModelError, match=r"input .* \[1, 224, 224, 3\], expected .* \[1, 2, 2, 3\]"):
        LiteRtRuntime(embedded_tflite.read_bytes(), file="m.tflite", spec=SPEC)
