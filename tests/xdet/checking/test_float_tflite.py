"""A check of float TFLite sources: weights and boxes are compared; heads where LiteRT computes on the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from converters.sources.tflite.reader import read_tflite
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.test_floats import SIDECAR, build_network
from tests.xdet.checking import keras_faults
from xdet.checking.check import check
from xdet.checking.heads.spread import why_not_exact
from xdet.checking.numbers import check_static
from xdet.checking.numbers.tflite_source import SourceGraph
from xdet.checking.pair import open_pair
from xdet.checking.report import check_text

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
DESCRIBED = SourceOptions(anchors=((1.0, 1.5),), anchor_unit="cell", class_names=("a", "b", "c"))
RUNTIMES = "onnxruntime:cpu,litert:xnnpack,litert:builtin"


@pytest.mark.parametrize(("kind", "spread"), [("float32", "passed"), ("float16", "passed"), ("int8", "skipped")])
def test_a_float_source_is_compared_as_far_as_litert_computes_the_same(
    kind: str, spread: str, sample_pictures: list[Path], tmp_path: Path
) -> None:
    source, model = tmp_path / "net.tflite", tmp_path / "net.onnx"
    source.write_bytes(build_network(kind))
    source.with_suffix(".xdet.json").write_text(SIDECAR)
    model.write_bytes(convert_to_bytes(source, ConvertOptions(source=DESCRIBED)).model)
    result = check(model, source, sample_pictures[:1], runtimes=RUNTIMES, layers=True)
    assert result.findings == ()
    assert [part.status for part in result.parts] == ["passed", "skipped", spread, "passed"]
    text = check_text(result).splitlines()
    if spread == "skipped":
        assert "rounds this source's float activations" in result.parts[2].summary
        assert text[1].startswith("NOT COMPARED: the output of the two: LiteRT rounds this source's float")
        assert "not compared: the output, exact, spread" in text[-1]
        assert "the layers of such a TFLite file are not compared" in str(result.layers_problem)
    else:
        assert "NOT COMPARED: the output" not in "".join(text)
        assert result.layers is not None
        assert (result.layers.unit, len(result.layers.layers) > 3) == ("of the largest value", True)
        assert max(layer.local.worst for layer in result.layers.layers) < 2e-6


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
@pytest.mark.parametrize("halved", [False, True], ids=["float32", "float16"])
def test_rescaling_limits_and_what_each_of_two_products_with_one_bias_reads_are_compared(
    kind: str, halved: object, tmp_path: Path
) -> None:
    source, model = tmp_path / "net.tflite", tmp_path / "net.onnx"
    source.write_bytes(build_network(kind))
    source.with_suffix(".xdet.json").write_text(SIDECAR)
    model.write_bytes(convert_to_bytes(source, ConvertOptions(source=DESCRIBED, float16=bool(halved))).model)
    assert check_static(open_pair(model, source))[0].findings == ()
    proto = onnx.load(model)
    conv = next(node for node in proto.graph.node if node.op_type == "Conv")
    keras_faults.edit(proto, conv.input[2], lambda bias: bias * bias.dtype.type(1.01))
    keras_faults.edit(proto, "rescaling/scale", lambda scale: scale * 2)
    keras_faults.edit(proto, "conv/clamp/max", lambda limit: limit - 1)
    onnx.save(proto, model)
    findings = check_static(open_pair(model, source))[0].findings
    assert [(finding.cause, finding.layer) for finding in findings] == [
        ("image-input", None),
        ("bias", "conv"),
        ("attributes", "conv"),
    ]
    assert findings[-1].message == "limits of 'conv': expected 0.0 to 6.0, found 0.0 to 5.0"


def test_a_float_operator_behind_a_quantised_network_is_not_declared_exact(tmp_path: Path) -> None:
    shape = (1, 8, 8, 3)
    b = TfliteBuilder()
    pixels = b.input("image", shape, "uint8", 1 / 255, 0)
    real = b.op("DEQUANTIZE", [pixels], shape, "float32")
    data = b.build([b.op("ADD", [real, real], shape, "float32", name="twice")])
    source, model = tmp_path / "net.tflite", tmp_path / "net.onnx"
    source.write_bytes(data)
    model.write_bytes(convert_to_bytes(source, ConvertOptions(source=SourceOptions(head="none"))).model)
    told = why_not_exact(open_pair(model, source).document, SourceGraph(read_tflite(data, "net.tflite")))
    assert "ADD on float32" in str(told)
