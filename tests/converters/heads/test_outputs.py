"""The fused head's inputs and outputs are those of the model contract, and what cannot be a head is refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converters.errors import ContractError
from converters.graph import IR_VERSION, GraphWriter, infer_shapes, keep_static_shapes
from converters.heads.nms_nodes import add_head
from converters.heads.yolo_v2 import YoloV2
from converters.opset import stamp_opset
from converters.spec import Anchors, DetectorSpec, ImageInput, RawOutput, Rescaling, Thresholds, contract_io

ANCHORS = Anchors(((0.9, 3.3), (2.1, 1.3), (0.5, 0.5), (5.5, 9.3), (9.7, 11.1)), "cell")


def make_spec(grid: tuple[int, int], *, classes: int = 1, rows: int = 100, score: float = 0.5) -> DetectorSpec:
    return DetectorSpec(
        image=ImageInput(grid[0] * 32, grid[1] * 32, Rescaling(1 / 255, 0.0)),
        head=YoloV2(grid[0], grid[1], ANCHORS, classes),
        class_names=tuple(f"class {i}" for i in range(classes)),
        thresholds=Thresholds(score=score, iou=0.45, max_detections=rows),
    )


PROMISED = contract_io(make_spec((6, 6)), 1, freeze_thresholds=False)[1]


def head_model(spec: DetectorSpec, *, batch: int | str = 1, frozen: bool = False) -> bytes:
    """A checked model whose input is the raw head."""
    writer = GraphWriter("head")
    head = writer.input("head", ir.DataType.FLOAT, [batch, *spec.network_outputs[0].shape])
    _, promised = contract_io(spec, batch, freeze_thresholds=frozen)
    add_head(writer, [head], spec, promised, freeze_thresholds=frozen)
    written = ir.Model(writer.graph, ir_version=IR_VERSION)
    infer_shapes(written)
    stamp_opset(written, None)
    keep_static_shapes(written, batch)
    model = ir.to_proto(written)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


@pytest.mark.parametrize("batch", [1, 4, "N"])
@pytest.mark.parametrize("classes", [1, 3])
def test_outputs_have_the_contracts_names_dtypes_and_shapes_in_its_order(batch: int | str, classes: int) -> None:
    graph = onnx.load_from_string(head_model(make_spec((6, 6), classes=classes, rows=50), batch=batch)).graph
    found = [
        (
            output.name,
            output.type.tensor_type.elem_type,
            [dim.dim_param or dim.dim_value for dim in output.type.tensor_type.shape.dim],
        )
        for output in graph.output
    ]
    assert found == [
        ("num_detections", onnx.TensorProto.INT32, [batch]),
        ("detection_boxes", onnx.TensorProto.FLOAT, [batch, 50, 4]),
        ("detection_scores", onnx.TensorProto.FLOAT, [batch, 50]),
        ("detection_classes", onnx.TensorProto.INT32, [batch, 50]),
        ("detection_anchors", onnx.TensorProto.INT32, [batch, 50]),
    ]


def test_thresholds_are_inputs_with_defaults() -> None:
    graph = onnx.load_from_string(head_model(make_spec((6, 6), score=0.25))).graph
    assert [value.name for value in graph.input] == ["head", "score_threshold", "iou_threshold"]
    assert all(len(value.type.tensor_type.shape.dim) == 0 for value in graph.input[1:])
    defaults = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert defaults["score_threshold"].dtype == np.float32
    assert defaults["score_threshold"].shape == ()
    assert defaults["score_threshold"] == np.float32(0.25)
    assert defaults["iou_threshold"] == np.float32(0.45)


def test_frozen_thresholds_are_no_inputs() -> None:
    graph = onnx.load_from_string(head_model(make_spec((6, 6)), frozen=True)).graph
    assert [value.name for value in graph.input] == ["head"]


@pytest.mark.parametrize("batch", [1, "N"])
@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(make_spec((13, 13)), id="one class"),
        pytest.param(make_spec((1, 1)), id="fewer boxes than rows"),
        pytest.param(make_spec((13, 13), classes=80), id="more candidates than the limit"),
    ],
)
def test_the_graph_is_standard_small_and_the_same_every_time(spec: DetectorSpec, batch: int | str) -> None:
    first, second = (head_model(spec, batch=batch) for _ in range(2))
    assert first == second
    graph = onnx.load_from_string(first).graph
    assert {node.domain for node in graph.node} == {""}
    assert len(graph.node) <= 86
    assert len(first) < 17_000 + 40 * spec.num_boxes


def test_a_detector_without_a_decodable_head_is_refused() -> None:
    spec = DetectorSpec(ImageInput(32, 32, Rescaling(1.0, 0.0)), None, raw_outputs=(RawOutput("", (1, 1, 6)),))
    writer = GraphWriter("head")
    head = writer.input("head", ir.DataType.FLOAT, [1, 1, 1, 6])
    with pytest.raises(ContractError, match=r"head is not known .* cannot be written as nodes"):
        add_head(writer, [head], spec, PROMISED, freeze_thresholds=False)


def test_a_value_that_is_not_the_head_is_refused() -> None:
    writer = GraphWriter("head")
    head = writer.input("conv_9", ir.DataType.FLOAT, [1, 30, 6, 6])
    with pytest.raises(ContractError, match=r"head 'conv_9' is \[1,30,6,6\], expected \[N, 6, 6, 30\]"):
        add_head(writer, [head], make_spec((6, 6)), PROMISED, freeze_thresholds=False)


@pytest.mark.parametrize("name", ["score_threshold", "detection_boxes"])
def test_a_network_that_uses_a_name_of_the_contract_is_refused(name: str) -> None:
    writer = GraphWriter("head")
    head = writer.input(name, ir.DataType.FLOAT, [1, 6, 6, 30])
    with pytest.raises(ContractError, match=f"a tensor of the network is named '{name}', which the contract needs"):
        add_head(writer, [head], make_spec((6, 6)), PROMISED, freeze_thresholds=False)
