"""A graph of tf2onnx gets names of its source, constants of its readers, and pools that every evaluator reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from converters.errors import UnsupportedModelError
from converters.graph import GraphWriter
from converters.sources.tf2onnx import take_over

TEXT = """<ir_version: 8, opset_import: ["": 18]>
g (float[1,1,5,5] image) => (float[1,1,5,5] out)
<float[1,1,1,1] const_fold_opt__27 = {3}, float[1] net_bias = {1}>
{
  t = Identity(image)
  c = Conv<kernel_shape = [1, 1]>(t, const_fold_opt__27, net_bias)
  p = MaxPool<kernel_shape = [2, 2], strides = [1, 1], pads = [0, 0, 1, 1]>(c)
  out = Relu(p)
}"""


def exported(**names: str) -> onnx.ModelProto:
    """The graph above with its values called as tf2onnx calls them."""
    proto = onnx.parser.parse_model(TEXT)
    called = {"c": "net/c1/Conv2D__8:0", "p": "net/pool/MaxPool:0", "net_bias": "net/c1/bias__3:0", **names}
    for node in proto.graph.node:
        for values in (node.input, node.output):
            values[:] = [called.get(name, name) for name in values]
    for tensor in proto.graph.initializer:
        tensor.name = called.get(tensor.name, tensor.name)
    return proto


def taken(proto: onnx.ModelProto) -> tuple[GraphWriter, list[ir.Value], dict[str, ir.Value]]:
    writer = GraphWriter("g")
    source = writer.input("image", ir.DataType.FLOAT, [1, 1, 5, 5])
    return writer, *take_over(proto, writer, source, "m.h5")


def test_counters_and_output_numbers_are_left_out_of_names() -> None:
    writer, _, values = taken(exported())
    assert [(n.op_type, n.name) for n in writer.graph] == [
        *(("Conv", "net/c1/Conv2D"), ("MaxPool", "net/pool/MaxPool"), ("Relu", "out"))
    ]
    assert list(writer.graph.initializers) == ["net/c1/Conv2D/weights", "net/c1/Conv2D/bias"]
    assert set(values) == {"net/pool/MaxPool", "out"}  # a counted tensor is none of the source's


def test_a_node_that_was_made_of_two_is_called_after_its_constants_scope() -> None:
    writer, _, values = taken(exported(c="Conv__25:0"))
    assert next(iter(writer.graph)).name == "net/c1/Conv"
    assert "net/c1/Conv" in values


@pytest.mark.parametrize("name", ["head", "score_threshold"])
def test_a_tensor_with_a_name_of_the_contract_gets_another(name: str) -> None:
    writer, _, _ = taken(exported(p=f"{name}:0"))
    assert [n.name for n in writer.graph][1] == f"{name}#source"


def test_the_opset_is_the_contracts() -> None:
    writer, _, _ = taken(exported())
    assert writer.graph.opset_imports == {"": 19}


@pytest.mark.parametrize(
    ("pads", "strides", "written"),
    [
        pytest.param([0, 0, 1, 1], [1, 1], ("SAME_UPPER", None), id="SAME of stride 1"),
        pytest.param([0, 0, 0, 0], [1, 1], ("VALID", None), id="none"),
        pytest.param([0, 0, 1, 1], [2, 2], ("SAME_UPPER", None), id="SAME of stride 2, odd size"),
        pytest.param([1, 1, 0, 0], [1, 1], ("NOTSET", [1, 1, 0, 0]), id="before, which is nothing SAME means"),
    ],
)
def test_a_pools_padding_is_automatic_where_that_means_the_same(
    pads: list[int], strides: list[int], written: tuple[str, list[int] | None]
) -> None:
    proto = exported()
    pool = proto.graph.node[2]
    del pool.attribute[:]
    attributes = {"kernel_shape": [2, 2], "strides": strides, "pads": pads}
    pool.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    writer, _, _ = taken(proto)
    pool = next(n for n in writer.graph if n.op_type == "MaxPool").attributes
    assert (pool.get_string("auto_pad", "NOTSET"), list(pool.get_ints("pads", [])) or None) == written


def test_scales_that_tf2onnx_shares_get_one_reader_each() -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 18]>
        g (float[4] image) => (float[4] out) <float s = {0.5}, int8 z = {0}>
        { q = QuantizeLinear(image, s, z)  out = DequantizeLinear(q, s, z) }""")
    writer = GraphWriter("g")
    take_over(proto, writer, writer.input("image", ir.DataType.FLOAT, [4]), "m.tflite")
    assert sorted(writer.graph.initializers) == ["out/scale", "out/zero_point", "q/scale", "q/zero_point"]


def test_custom_operators_and_control_flow_are_refused_by_name() -> None:
    proto = exported()
    proto.opset_import.append(helper.make_opsetid("ai.onnx.contrib", 1))
    proto.graph.node[1].domain = "ai.onnx.contrib"
    with pytest.raises(UnsupportedModelError, match=r"m\.h5: .*(ai\.onnx\.contrib\.Conv|opset 19)"):
        taken(proto)


def test_several_outputs_are_taken_over_in_their_order() -> None:
    proto = exported()
    proto.graph.output.append(helper.make_tensor_value_info("net/pool/MaxPool:0", 1, [1, 1, 5, 5]))
    _, outputs, _ = taken(proto)
    assert [str(output.name) for output in outputs] == [str(taken(exported())[1][0].name), "net/pool/MaxPool"]


def test_values_survive() -> None:
    writer, (output,), _ = taken(exported())
    writer.graph.outputs.append(output)
    proto = ir.to_proto(ir.Model(writer.graph, ir_version=9))
    x = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
    results: Any = ReferenceEvaluator(proto).run(None, {"image": x})
    y = results[0]
    assert y[0, 0, 0, 0] == 3 * 6 + 1  # the largest of 0, 1, 5, 6
    assert y[0, 0, 4, 4] == 3 * 24 + 1
