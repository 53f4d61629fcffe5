"""The float network of a quantised file: its weights, no pair left, and every refusal in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.errors import OptionError, UnsupportedModelError
from converters.options import ConvertOptions
from converters.quant import real_numbers
from converters.sources.onnx.importer import dequantize_graph
from converters.sources.tflite.reader import read_tflite
from converters.spec import Rescaling
from tests.converters.sources.onnx.networks import tiny_yolo_v2, yolo_v8
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.networks import two_raw_outputs
from tests.converters.sources.tflite.test_floats import build_network

if TYPE_CHECKING:
    from pathlib import Path

RAW = SourceOptions(head="none")


def test_weights_become_the_numbers_behind_their_codes_and_no_pair_is_left(tmp_path: Path) -> None:
    source = tmp_path / "net.tflite"
    source.write_bytes(two_raw_outputs())
    result = convert_to_bytes(source, ConvertOptions(source=RAW, dequantize=True))
    graph = onnx.load_model_from_string(result.model).graph
    assert {node.op_type for node in graph.node}.isdisjoint({"QuantizeLinear", "DequantizeLinear"})
    document = result.document
    assert (document.activations, document.dequantize, document.leaky_relu) == ("float32", True, "float")
    assert document.quantization == "float32 of int8 per-channel"
    assert document.from_json(document.to_json()) == document
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    records = read_tflite(source.read_bytes(), source.name)
    weights = [records.tensors[op.inputs[1]] for op in records.operators if op.op == "CONV_2D"]
    assert weights
    for tensor in weights:
        assert tensor.data is not None
        assert tensor.quant is not None
        wanted = real_numbers(tensor.data, tensor.quant).transpose(0, 3, 1, 2)
        twin = document.tensors[tensor.name or f"tensor_{tensor.index}"]
        np.testing.assert_array_equal(held[str(twin.onnx)], wanted)


def test_documents_without_the_choice_say_nothing_of_it(tmp_path: Path) -> None:
    source = tmp_path / "net.tflite"
    source.write_bytes(two_raw_outputs())
    assert '"dequantize"' not in convert_to_bytes(source, ConvertOptions(source=RAW)).document.to_json()


CLIPPED = """
<ir_version: 8, opset_import: ["" : 19]>
g (float[1,2] x) => (float[1,2] y) <float s = {0.1}, int8 z = {-128}, float t = {0.2}, int8 u = {0}> {
  q = QuantizeLinear(x, s, z)
  a = DequantizeLinear(q, s, z)
  b = Flatten(a)
  r = QuantizeLinear(b, s, z)
  c = DequantizeLinear(r, s, z)
  d = Sigmoid(c)
  e = Add(d, d)
  p = QuantizeLinear(e, t, u)
  y = DequantizeLinear(p, t, u)
}
"""


def test_a_pair_of_an_onnx_file_becomes_a_clip_where_its_codes_cut_something_off() -> None:
    model = ir.from_proto(onnx.parser.parse_model(CLIPPED))
    ir.passes.common.ShapeInferencePass()(model)
    pairs = dequantize_graph(model.graph, "net.onnx")
    assert [pair.value for pair in pairs] == ["a", "c", "y"]
    assert [node.op_type for node in model.graph] == ["Clip", "Flatten", "Sigmoid", "Add", "Clip"]
    first = next(iter(model.graph))
    limits = [ir.convenience.get_const_tensor(value) for value in first.inputs[1:] if value is not None]
    assert [float(limit.numpy()) for limit in limits if limit is not None] == [0.0, 25.5]
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_codes_that_an_operator_reads_are_refused_by_name() -> None:
    text = CLIPPED.replace("a = DequantizeLinear(q, s, z)", "m = Flatten(q)\n  a = DequantizeLinear(m, s, z)")
    graph = ir.from_proto(onnx.parser.parse_model(text)).graph
    with pytest.raises(UnsupportedModelError, match="no float form for QuantizeLinear 'q'; it takes"):
        dequantize_graph(graph, "net.onnx")


@pytest.mark.parametrize("scale", ["-0.2", "0"])
def test_codes_of_a_scale_that_means_nothing_have_no_float_form(scale: str) -> None:
    graph = ir.from_proto(onnx.parser.parse_model(CLIPPED.replace("t = {0.2}", f"t = {{{scale}}}"))).graph
    with pytest.raises(UnsupportedModelError, match="no float form for QuantizeLinear 'p'"):
        dequantize_graph(graph, "net.onnx")


@pytest.mark.parametrize(
    ("data", "suffix", "choices", "message"),
    [
        (lambda: build_network("float32"), "tflite", {}, "computes on float32 numbers; leave it out"),
        (tiny_yolo_v2, "onnx", {}, "computes on float32 numbers; leave it out"),
        (two_raw_outputs, "tflite", {"importer": "tf2onnx"}, "`dequantize` needs `importer` native"),
        (two_raw_outputs, "tflite", {"activations": "int8"}, "is about integer codes"),
        (lambda: yolo_v8(quantised=True), "onnx", {"activations": "int8"}, "keeps the codes that it has, float32"),
    ],
    ids=["float tflite", "float onnx", "tf2onnx", "int8 codes", "int8 codes of onnx"],
)  # fmt: skip
def test_it_is_refused_where_it_makes_no_sense(
    data: object, suffix: str, choices: dict[str, str], message: str, tmp_path: Path
) -> None:
    assert callable(data)
    source = tmp_path / f"net.{suffix}"
    source.write_bytes(data())
    source_options = SourceOptions(head="none", rescaling=Rescaling(1 / 255, 0.0))
    with pytest.raises(OptionError, match=message):
        convert_to_bytes(source, ConvertOptions(source=source_options, dequantize=True, **choices))  # type: ignore[arg-type]  # names of choices


def test_codes_that_are_taken_as_numbers_have_no_float_form(tmp_path: Path) -> None:
    shape = (1, 8, 8, 3)
    b = TfliteBuilder()
    codes = b.input("image", shape, "uint8", 1 / 255, 0)
    source = tmp_path / "net.tflite"
    source.write_bytes(b.build([b.op("CAST", [codes], shape, "float32", name="numbers")]))
    with pytest.raises(UnsupportedModelError, match="operator 0 CAST takes codes as numbers"):
        convert_to_bytes(source, ConvertOptions(source=RAW, dequantize=True))
