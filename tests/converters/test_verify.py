"""Every promise of the contract, broken on purpose: one finished model, one change, the sentence that tells it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.errors import ContractError
from converters.graph import GraphWriter
from converters.options import ConvertOptions
from converters.spec import METADATA_KEY, ModelDocument
from converters.verify import require_contract
from tests.converters.sources.tflite.networks import HEAD_CHANNELS, NetworkBuilder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Break = Callable[[ir.Model], None]

ANCHORS = ((1.0, 2.0), (2.0, 3.0), (3.0, 4.0), (4.0, 5.0), (5.0, 6.0))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    source: Path = tmp_path_factory.mktemp("verify") / "net.tflite"
    net = NetworkBuilder(32).conv(4, stride=2, activation="RELU").conv(4, stride=2)
    source.write_bytes(net.conv(HEAD_CHANNELS, 1).build())
    options = ConvertOptions(source=SourceOptions(anchors=ANCHORS, anchor_unit="cell"))
    return convert_to_bytes(source, options).model


def model_of(data: bytes) -> ir.Model:
    return ir.from_proto(onnx.load_model_from_string(data))


def check(model: ir.Model, *, batch: int | str = 1) -> None:
    require_contract(model, ir.to_proto(model).SerializeToString(), batch=batch)


def first(model: ir.Model, op_type: str) -> ir.Node:
    return next(node for node in model.graph if node.op_type == op_type)


def value(model: ir.Model, name: str) -> ir.Value:
    return next(v for node in model.graph for v in node.outputs if v.name == name)


def producer(of: ir.Value | None) -> ir.Node:
    node = None if of is None else of.producer()
    assert node is not None
    return node


def set_opset(model: ir.Model) -> None:
    model.graph.opset_imports[""] = 12


def invent_an_attribute(model: ir.Model) -> None:
    node = first(model, "Conv")
    node.attributes["invented"] = ir.AttrInt64("invented", 1)


def name_an_older_runtime(model: ir.Model) -> None:
    document = ModelDocument.from_json(model.metadata_props[METADATA_KEY])
    older = replace(document, oldest_runtimes={"onnxruntime": "1.9"})
    model.metadata_props[METADATA_KEY] = older.to_json()


def set_ir_version(model: ir.Model) -> None:
    model.ir_version = 10


def add_custom_operator(model: ir.Model) -> None:
    model.graph.opset_imports["com.example"] = 1
    node = first(model, "Conv")
    node.domain = "com.example"


def rename_input(model: ir.Model) -> None:
    model.graph.inputs[0].name = "pixels_nhwc"


def reorder_outputs(model: ir.Model) -> None:
    outputs = model.graph.outputs
    outputs[0], outputs[1] = outputs[1], outputs[0]


def change_output_dtype(model: ir.Model) -> None:
    model.graph.outputs[2].type = ir.TensorType(ir.DataType.DOUBLE)


def drop_default(model: ir.Model) -> None:
    del model.graph.initializers["iou_threshold"]


def rename_head(model: ir.Model) -> None:
    value(model, "head").name = "raw"


def forget_shape(model: ir.Model) -> None:
    first(model, "Conv").outputs[0].shape = None


def invent_size(model: ir.Model) -> None:
    first(model, "Conv").outputs[0].shape = ir.Shape([1, 4, "unk__0", 16])


def contradict_shape(model: ir.Model) -> None:
    first(model, "Conv").outputs[0].shape = ir.Shape([1, 4, 9, 9])


def share_scale(model: ir.Model) -> None:
    convs = [node for node in model.graph if node.op_type == "Conv"]
    ours, other = producer(convs[0].inputs[1]), producer(convs[1].inputs[1])
    other.replace_input_with(1, ours.inputs[1])


def nudge_bias_scale(model: ir.Model) -> None:
    scale = producer(first(model, "Conv").inputs[2]).inputs[1]
    assert scale is not None
    assert scale.const_value is not None
    nudged = np.nextafter(scale.const_value.numpy(), np.float32(np.inf))
    scale.const_value = ir.tensor(nudged, name=scale.name)


def read_product_twice(model: ir.Model) -> None:
    conv = first(model, "Conv")
    quantised = next(iter(conv.outputs[0].uses())).node
    GraphWriter.inserting(model.graph, quantised).op("Neg", [conv.outputs[0]], "second_reader")


def skip_dequantisation(model: ir.Model) -> None:
    conv = first(model, "Conv")
    real = GraphWriter.inserting(model.graph, conv).constant(np.ones((4, 3, 3, 3), np.float32), "real_weights")
    conv.replace_input_with(1, real)


def change_dialect(model: ir.Model) -> None:
    node = first(model, "QuantizeLinear")
    int8 = GraphWriter.inserting(model.graph, node).constant(np.int8(-3), "int8_zero_point")
    node.replace_input_with(2, int8)


def lose_a_tensor(model: ir.Model) -> None:
    document = ModelDocument.from_json(model.metadata_props[METADATA_KEY])
    twins = dict(document.tensors)
    name = next(iter(twins))
    twins[name] = replace(twins[name], onnx="nowhere")
    model.metadata_props[METADATA_KEY] = replace(document, tensors=twins).to_json()


def forget_metadata(model: ir.Model) -> None:
    del model.metadata_props[METADATA_KEY]


def garble_metadata(model: ir.Model) -> None:
    data = json.loads(model.metadata_props[METADATA_KEY])
    data["spec"]["class_names"] = [5]
    model.metadata_props[METADATA_KEY] = json.dumps(data)


BROKEN: list[tuple[Break, str]] = [
    (set_opset, r"opset \{'': 12\} and IR 7, expected 13 to 22 and its own"),
    (set_ir_version, r"opset \{'': 13\} and IR 10, expected 13 to 22 and 7"),
    (invent_an_attribute, "Conv '.*' is not of opset 13"),
    (
        name_an_older_runtime,
        r"said to be \{'onnxruntime': '1.9'\}, expected \{'onnxruntime': '1.15', .*'tvm': '0.26'\}",
    ),
    (add_custom_operator, r"operators of domains \['com.example'\]"),
    (rename_input, r"inputs pixels_nhwc uint8 \[1, 32, 32, 3\], .* expected image uint8 \[1, 32, 32, 3\]"),
    (reorder_outputs, r"outputs detection_boxes float32 \[1, 100, 4\], num_detections"),
    (change_output_dtype, r"detection_scores float64 \[1, 100\]"),
    (drop_default, r"inputs with defaults \['score_threshold'\], expected \['iou_threshold', 'score_threshold'\]"),
    (rename_head, r"raw output missing, expected head float32 \[1, 8, 8, 30\]"),
    (forget_shape, r"Conv gives .* float32 \[\?\], expected a fixed shape"),
    (invent_size, r"Conv gives .* float32 \[1, 4, unk__0, 16\], expected a fixed shape"),
    (contradict_shape, "onnx.checker: .*Inferred shape and existing shape differ"),
    (share_scale, r"'.*/scale' is read by .*, .*, expected one reader"),
    (nudge_bias_scale, r"the bias of Conv '.*' has scale .*, expected .* = x \* w"),
    (read_product_twice, "Conv '.*' is read by QuantizeLinear, Neg, expected one QuantizeLinear"),
    (skip_dequantisation, "Conv '.*' reads operand 1 from a constant or input, expected DequantizeLinear"),
    (change_dialect, "QuantizeLinear '.*' writes int8, expected uint8"),
    (lose_a_tensor, "source tensor '.*' is said to be 'nowhere', which does not exist"),
    (forget_metadata, "metadata: Expecting value"),
    (garble_metadata, "metadata: each of class_names must be text, got 5"),
]


def test_a_finished_model_keeps_every_promise(finished: bytes) -> None:
    check(model_of(finished))


@pytest.mark.parametrize(("change", "said"), BROKEN, ids=[change.__name__ for change, _ in BROKEN])
def test_a_broken_promise_is_told(finished: bytes, change: Break, said: str) -> None:
    model = model_of(finished)
    change(model)
    with pytest.raises(ContractError, match=said) as caught:
        check(model)
    assert str(caught.value).endswith("please report this with the source file")


def test_all_broken_promises_are_told_at_once(finished: bytes) -> None:
    model = model_of(finished)
    set_ir_version(model)
    nudge_bias_scale(model)
    lose_a_tensor(model)
    with pytest.raises(ContractError, match=r"(?s)and IR 10.*'nowhere'.*the bias of Conv"):
        check(model)


def test_another_batch_than_the_files_is_told(finished: bytes) -> None:
    with pytest.raises(ContractError, match=r"expected image uint8 \[3, 32, 32, 3\]"):
        check(model_of(finished), batch=3)


def test_a_float_model_makes_no_promise_about_integers(finished: bytes) -> None:
    model = model_of(finished)
    document = ModelDocument.from_json(model.metadata_props[METADATA_KEY])
    model.metadata_props[METADATA_KEY] = replace(document, activations="float32").to_json()
    nudge_bias_scale(model)
    read_product_twice(model)
    check(model)
