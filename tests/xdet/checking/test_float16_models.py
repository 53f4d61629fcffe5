"""A check of a float16 model: its source's weights rounded once, layers and head within float16's room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from converters.spec import Rescaling
from tests.converters.sources.onnx.networks import yolo_v8
from xdet.checking.check import check

if TYPE_CHECKING:
    from pathlib import Path

SAID = SourceOptions(class_names=("a", "b"), resize="bilinear", rescaling=Rescaling(1 / 255, 0.0))


@pytest.mark.parametrize("damaged", [False, True], ids=["sound", "a weight one step off"])
def test_weights_are_the_sources_rounded_once(damaged: object, tmp_path: Path, sample_pictures: list[Path]) -> None:
    source, model = tmp_path / "net.onnx", tmp_path / "model.onnx"
    source.write_bytes(yolo_v8())
    model.write_bytes(convert_to_bytes(source, ConvertOptions(source=SAID, float16=True)).model)
    if damaged:
        proto = onnx.load(model)
        tensor = next(
            t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16 and len(t.dims) == 4
        )
        numbers = onnx.numpy_helper.to_array(tensor).copy()
        numbers.flat[5] = np.nextafter(numbers.flat[5], np.float16(9))
        tensor.CopyFrom(onnx.numpy_helper.from_array(numbers, tensor.name))
        onnx.save(proto, model)
    result = check(model, source, sample_pictures[:1], runtimes="onnxruntime:cpu", source_options=SAID, layers=True)
    if damaged:
        assert [(f.part, f.cause) for f in result.findings] == [("static", "weight")]
        return
    assert result.findings == ()
    assert [part.status for part in result.parts] == ["passed", "skipped", "passed", "passed"]
    assert "the model rounds to float16" in result.parts[1].summary
    assert result.allowed_max is not None
    assert 1e-3 < result.allowed_max < 1e-2
    assert result.layers is not None
    assert max(layer.local.worst for layer in result.layers.layers) > 1e-5


def test_layers_are_compared_where_the_file_states_no_dtypes(tmp_path: Path, sample_pictures: list[Path]) -> None:
    """As that of a Keras source with an open batch, or what a tool has left of one."""
    source, model, bare = (tmp_path / name for name in ("net.onnx", "model.onnx", "bare.onnx"))
    source.write_bytes(yolo_v8())
    model.write_bytes(convert_to_bytes(source, ConvertOptions(source=SAID, float16=True)).model)
    proto = onnx.load(model)
    del proto.graph.value_info[:]
    onnx.save(proto, bare)
    stated, inferred = (
        check(path, source, sample_pictures[:1], runtimes="onnxruntime:cpu", source_options=SAID, layers=True)
        for path in (model, bare)
    )
    assert stated.findings == inferred.findings == ()
    assert stated.layers is not None
    assert inferred.layers is not None
    assert [layer.local for layer in inferred.layers.layers] == [layer.local for layer in stated.layers.layers]
    assert inferred.allowed_max == stated.allowed_max
