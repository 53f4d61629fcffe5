"""A TFLite file runs on the LiteRT kernels that were named."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.xdet.finished_models import SPEC
from xdet.errors import MissingExtraError, ModelError, UsageError
from xdet.model.file import ModelFile, hash_model, read_model_file
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.litert import LiteRtRuntime
from xdet.runtimes.table import open_model, open_runtime


def test_litert_that_is_not_installed_gives_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingExtraError, match=r'pip install "xdet\[litert\]"'):
        LiteRtRuntime(ModelFile(Path("m.tflite"), b"", "tflite"), SPEC)


def test_a_damaged_tflite_file_is_a_model_error_of_litert() -> None:
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    with pytest.raises(ModelError, match=r"'m\.tflite': LiteRT cannot load it"):
        LiteRtRuntime(ModelFile(Path("m.tflite"), b"not a flatbuffer", "tflite"), SPEC)


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_the_embedded_source_runs_on_every_set_of_litert_kernels(kernels: str, embedded_tflite: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    runtime = open_runtime(embedded_tflite, RuntimeChoices(provider=kernels, threads=1))
    images = np.full((2, 224, 224, 3), 128, np.uint8)
    head = runtime.head(images)
    assert runtime.name == f"litert:{kernels}"
    assert runtime.capabilities.max_detections is None
    assert head.shape == (2, 7, 7, 30)
    assert head.dtype == np.float32
    assert np.array_equal(head[0], head[1])
    assert runtime.detect(images, replace(runtime.spec.thresholds, score=0.0)).num_detections[0] > 0


def one_element_bias(source: bytes) -> bytes:
    """The file with the first convolution's bias cut down to one element."""
    schema: Any = pytest.importorskip("ai_edge_litert.schema_py_generated", reason='needs pip install "xdet[litert]"')
    flatbuffers: Any = pytest.importorskip("flatbuffers", reason="needs pip install flatbuffers")
    model = schema.ModelT.InitFromPackedBuf(source, 0)
    graph = model.subgraphs[0]
    bias = next(op for op in graph.operators if len(op.inputs) == 3).inputs[2]
    graph.tensors[bias].shape = np.array([1], np.int32)
    graph.tensors[bias].quantization.scale = graph.tensors[bias].quantization.scale[:1]
    graph.tensors[bias].quantization.zeroPoint = graph.tensors[bias].quantization.zeroPoint[:1]
    buffer = model.buffers[graph.tensors[bias].buffer]
    buffer.data = buffer.data[:4]
    builder = flatbuffers.Builder(len(source) + 1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_a_bias_that_does_not_fit_is_refused_before_litert_sees_it(embedded_tflite: Path) -> None:
    damaged = ModelFile(embedded_tflite, one_element_bias(embedded_tflite.read_bytes()), "tflite")
    with pytest.raises(ModelError, match=r"CONV_2D .*\[1\]"):
        open_model(damaged)


def test_what_is_checked_is_what_runs(embedded_tflite: Path, tmp_path: Path) -> None:
    """The file is read once: its bytes may change on the disk while it is opened."""
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    path = tmp_path / "m.tflite"
    path.write_bytes(embedded_tflite.read_bytes())
    path.with_suffix(".xdet.json").write_bytes(embedded_tflite.with_suffix(".xdet.json").read_bytes())
    model = read_model_file(path)
    path.write_bytes(b"other bytes")
    with open_model(model) as runtime:
        assert runtime.sha256 == hash_model(embedded_tflite.read_bytes())


def test_every_tensor_of_the_file_is_shown_by_name(embedded_tflite: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    images = np.random.default_rng(3).integers(0, 256, (2, 224, 224, 3), np.uint8)
    with open_runtime(embedded_tflite, RuntimeChoices(threads=1)) as runtime:
        shown = runtime.tensors(images, ["serving_default_image:0", "tiny_yolo_v2/pool1/MaxPool"])
        assert np.array_equal(shown["serving_default_image:0"], images)
        pooled = shown["tiny_yolo_v2/pool1/MaxPool"]
        assert (pooled.shape, pooled.dtype.name) == ((2, 112, 112, 16), "int8")
        with pytest.raises(UsageError, match=r"computes no value named 'nowhere'; the tensor map"):
            runtime.tensors(images, ["nowhere"])
    with pytest.raises(UsageError, match="was closed; open it again"):
        runtime.tensors(images, ["serving_default_image:0"])


def test_a_spec_of_another_size_does_not_fit_the_tflite_file(embedded_tflite: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    with pytest.raises(ModelError, match=r"input .* \[1, 224, 224, 3\], expected .* \[1, 2, 2, 3\]"):
        LiteRtRuntime(read_model_file(embedded_tflite), SPEC)
