"""Layers and totals: MACs, parameters, bytes and scales of networks whose numbers are known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import xdet
from converters.sources.tflite.reader import read_tflite
from tests.converters.sources.tflite.builder import TfliteBuilder, build_small_model
from xdet.errors import ModelError
from xdet.inspection import Layer, TensorSummary, inspect
from xdet.inspection.layers import tensor_bytes
from xdet.inspection.onnx_layers import onnx_layers
from xdet.inspection.report import inspection_report, layers_table
from xdet.inspection.tflite_layers import count_macs, tflite_layers, tflite_network
from xdet.model.graph import inferred_model, load_onnx
from xdet.writing.terminal import block_text, report_text

if TYPE_CHECKING:
    from pathlib import Path

FILES = ["192_int8", "224_int8", "416_int8", "224_per_tensor_int8"]


def costs(layer: Layer) -> tuple[int, int, int, int, int]:
    return layer.macs, layer.parameters, layer.weight_bytes, layer.weight_scales, layer.activation_bytes


def test_a_small_tflite_network_by_hand() -> None:
    builder, y = build_small_model()
    conv, leaky = tflite_layers(read_tflite(builder.build([y]), "m.tflite"))
    # 4 x 4 x 2 results of 2 x 2 x 3 products; 24 weights of one byte and 2 biases of four.
    assert (conv.op, *costs(conv)) == ("CONV_2D", 384, 26, 32, 2, 32)
    assert conv.inputs == ((1, 4, 4, 3),)
    assert conv.output == TensorSummary("sums", "int8", (1, 4, 4, 2), 0.5, 3)
    assert (leaky.op, *costs(leaky)) == ("LEAKY_RELU", 0, 0, 0, 0, 32)
    assert (conv.integer, leaky.integer) == (True, True)


def single(op: str, shape: tuple[int, ...], weights: tuple[int, ...], out: tuple[int, ...]) -> Any:
    b = TfliteBuilder()
    x = b.input("x", shape, "float32")
    w = b.constant(np.zeros(weights, np.float32))
    return read_tflite(b.build([b.op(op, [x, w, None], out, "float32")]), "m.tflite")


@pytest.mark.parametrize(
    ("op", "shape", "weights", "out", "macs"),
    [
        ("CONV_2D", (1, 5, 5, 4), (8, 3, 3, 4), (1, 5, 5, 8), 5 * 5 * 8 * 3 * 3 * 4),
        ("CONV_2D", (1, 5, 5, 4), (8, 3, 3, 2), (1, 5, 5, 8), 5 * 5 * 8 * 3 * 3 * 2),
        ("DEPTHWISE_CONV_2D", (1, 5, 5, 4), (1, 3, 3, 8), (1, 5, 5, 8), 5 * 5 * 8 * 3 * 3),
        ("FULLY_CONNECTED", (2, 10), (7, 10), (2, 7), 2 * 7 * 10),
        ("ADD", (1, 5, 5, 4), (4,), (1, 5, 5, 4), 0),
    ],
    ids=["convolution", "grouped", "depthwise", "fully-connected", "sum"],
)
def test_multiply_accumulates_by_operator(
    op: str, shape: tuple[int, ...], weights: tuple[int, ...], out: tuple[int, ...], macs: int
) -> None:
    model = single(op, shape, weights, out)
    assert count_macs(model.operators[0], model) == macs
    (layer,) = tflite_layers(model)
    assert (layer.parameters, layer.weight_bytes) == (math.prod(weights), 4 * math.prod(weights))
    assert not layer.integer


def test_shapes_and_axes_are_no_weights_and_a_shared_weight_counts_once() -> None:
    b = TfliteBuilder()
    x = b.input("x", (1, 2, 2, 2), "int8", 0.5)
    w = b.constant(np.zeros((2, 1, 1, 2), np.int8), 0.5)
    first = b.op("CONV_2D", [x, w, None], (1, 2, 2, 2), "int8", 0.5)
    second = b.op("CONV_2D", [first, w, None], (1, 2, 2, 2), "int8", 0.5)
    flat = b.op("RESHAPE", [second, b.constant(np.array([1, 8], np.int32))], (1, 8), "int8", 0.5)
    layers = tflite_layers(read_tflite(b.build([flat]), "m.tflite"))
    assert [layer.weight_bytes for layer in layers] == [4, 0, 0]
    assert [layer.macs for layer in layers] == [16, 16, 0]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        *(("int8", 15), ("float32", 60), ("bool", 15), ("int4", 8), ("float16", 30), ("bfloat16", 30), ("int64", 120)),
        *(("complex128", 240), ("string", 0), ("float8_e4m3fn", 15), ("float8e5m2", 15), ("type_99", 0)),
    ],
)
def test_bytes_of_a_tensor(dtype: str, expected: int) -> None:
    assert tensor_bytes((3, 5), dtype) == expected


@pytest.mark.shared
@pytest.mark.parametrize("name", FILES)
def test_weights_flash_is_the_zoos_published_number(name: str, shared_dir: Path) -> None:
    path = shared_dir / "models" / f"tiny_yolo_v2_person_{name}.tflite"
    found = inspect(path)
    assert found.totals is not None
    assert found.totals.weight_bytes == 11_034_600
    assert found.totals.parameters == 11_026_878
    assert found.totals.macs_integer == found.totals.macs
    assert "\nWeights Flash       10775.98 KiB  (11,026,878 parameters, scales not counted)\n" in report_text(
        inspection_report(found)
    )


@pytest.mark.shared
@pytest.mark.parametrize(
    ("size", "macs", "plain", "best"),
    [
        # plain: the first convolution's result and its activation, 2 x size x size x 16
        # best: image, two rows of that result, the pooled picture: 3 size^2 + 2 x 16 size + 16 (size / 2)^2
        (192, 568_553_472, 1_179_648, 264_192),
        (224, 773_864_448, 1_605_632, 358_400),
        (416, 2_669_042_688, 5_537_792, 1_224_704),
    ],
)
def test_macs_and_peaks_of_tiny_yolo_v2(size: int, macs: int, plain: int, best: int, shared_dir: Path) -> None:
    totals = inspect(shared_dir / "models" / f"tiny_yolo_v2_person_{size}_int8.tflite").totals
    assert totals is not None
    assert (plain, best) == (2 * size**2 * 16, 3 * size**2 + 2 * 16 * size + 16 * (size // 2) ** 2)
    assert (totals.macs, totals.peak_plain_bytes, totals.peak_best_bytes) == (macs, plain, best)
    assert totals.best_is_exact


def test_a_converted_model_has_its_sources_weights_and_operations(embedded_tflite: Path, tmp_path: Path) -> None:
    xdet.convert(embedded_tflite, tmp_path / "m.onnx")
    source, made = inspect(embedded_tflite, layers=True), inspect(tmp_path / "m.onnx", layers=True)
    assert source.totals is not None
    assert made.totals is not None
    assert (made.totals.macs, made.totals.weight_bytes) == (source.totals.macs, source.totals.weight_bytes)
    assert made.totals.macs_integer == made.totals.macs
    convolutions = [layer for layer in made.layers if layer.op == "Conv"]
    assert [layer.macs for layer in convolutions] == [n.macs for n in source.layers if n.op == "CONV_2D"]
    assert [layer.weight_scales for layer in convolutions] == [16, 32, 64, 128, 256, 512, 1024, 512, 30]
    assert {layer.output.dtype for layer in convolutions} == {"uint8"}
    assert made.coverage is not None
    assert (made.coverage.share, made.coverage.misses) == (1.0, ())


def quantised_network(*, extra_reader: bool) -> onnx.ModelProto:
    """uint8 codes -> DQ -> Conv 1 -> 2 channels -> Q -> DQ -> Relu -> Q, 3 x 3; perhaps a Neg behind the first DQ."""
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["real"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["weights"]),
        helper.make_node("Conv", ["real", "weights"], ["sums"], name="conv"),
        helper.make_node("QuantizeLinear", ["sums", "s", "z"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "s", "z"], ["again"]),
        helper.make_node("Relu", ["again"], ["positive"]),
        helper.make_node("QuantizeLinear", ["positive", "s", "z"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.UINT8, ["N", 2, 3, 3])]
    if extra_reader:
        nodes.append(helper.make_node("Neg", ["real"], ["n"]))
        outputs.append(helper.make_tensor_value_info("n", TensorProto.FLOAT, ["N", 1, 3, 3]))
    constants = {
        "s": np.float32(0.5),
        "z": np.uint8(7),
        "w": np.zeros((2, 1, 1, 1), np.int8),
        "ws": np.float32(0.25),
        "wz": np.int8(0),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", 1, 3, 3])],
        outputs,
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def layers_of(model: onnx.ModelProto) -> tuple[Layer, ...]:
    return onnx_layers(inferred_model(model, "m.onnx").graph, "m.onnx")


def test_a_quantised_onnx_operator_is_one_layer_with_its_q_and_dq() -> None:
    conv, relu = layers_of(quantised_network(extra_reader=False))
    assert (conv.op, *costs(conv), conv.integer) == ("Conv", 18, 2, 2, 1, 18, True)
    assert conv.inputs == ((1, 1, 3, 3),)
    assert conv.output == TensorSummary("codes", "uint8", (1, 2, 3, 3), 0.5, 7)
    assert (relu.op, relu.inputs, relu.output.name, relu.integer) == ("Relu", ((1, 2, 3, 3),), "y", True)


def test_a_dequantised_value_that_somebody_else_reads_is_a_layer_of_its_own() -> None:
    layers = layers_of(quantised_network(extra_reader=True))
    assert [layer.op for layer in layers] == ["DequantizeLinear", "Conv", "Relu", "Neg"]
    assert [layer.activation_bytes for layer in layers] == [36, 18, 18, 36]


def test_a_shape_that_is_not_fixed_is_told_by_the_value(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, "h", "w"])
    model = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y]), ir_version=9)
    onnx.save(model, tmp_path / "free.onnx")
    found = inspect(tmp_path / "free.onnx")
    assert found.totals is None
    assert "the shape of value 'x' is not fixed" in str(found.totals_problem)
    with pytest.raises(ModelError, match=r"free\.onnx.*export the model with fixed sizes"):
        inspect(tmp_path / "free.onnx", layers=True)


@pytest.mark.parametrize(
    ("op", "operands", "attributes", "out", "macs"),
    [
        ("Conv", ((1, 4, 5, 5), (8, 2, 3, 3)), {"group": 2, "pads": [1, 1, 1, 1]}, (1, 8, 5, 5), 5 * 5 * 8 * 2 * 9),
        ("ConvTranspose", ((1, 4, 5, 5), (4, 8, 2, 2)), {"strides": [2, 2]}, (1, 8, 10, 10), 100 * 8 * 4 * 4),
        ("MatMul", ((2, 10), (10, 7)), {}, (2, 7), 2 * 7 * 10),
        ("Gemm", ((2, 10), (7, 10)), {"transB": 1}, (2, 7), 2 * 7 * 10),
    ],
    ids=["grouped-convolution", "transposed-convolution", "product", "transposed-product"],
)
def test_multiply_accumulates_of_onnx_operators(
    op: str, operands: tuple[tuple[int, ...], ...], attributes: dict[str, Any], out: tuple[int, ...], macs: int
) -> None:
    expected = macs if op != "ConvTranspose" else 4 * 5 * 5 * 8 * 2 * 2  # every input value meets the kernel
    shape, weights = operands
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(np.zeros(weights, np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    (layer,) = layers_of(load_onnx(model.SerializeToString(), "m.onnx"))
    assert layer.macs == expected


def test_the_table_names_every_layer_with_scale_and_zero_point() -> None:
    builder, y = build_small_model()
    told = layers_table(tflite_layers(read_tflite(builder.build([y]), "m.tflite")))
    table = block_text(told).splitlines()
    assert table[2].split() == [
        *("0", "CONV_2D", "1x4x4x3", "1x4x4x2", "int8", "384", "26", "32", "2", "32", "0.5", "3")
    ]


def test_memory_sees_pools_with_their_windows() -> None:
    b = TfliteBuilder()
    x = b.input("x", (1, 4, 4, 2), "int8", 0.5)
    y = b.op("MAX_POOL_2D", [x], (1, 2, 2, 2), "int8", 0.5, stride_h=2, stride_w=2, filter_h=2, filter_w=3)
    network = tflite_network(read_tflite(b.build([y]), "m.tflite"))
    assert (network.steps[0].kind, network.steps[0].window_rows) == ("pool", 2)
    assert (network.buffers["0"].size_bytes, network.buffers["0"].row_bytes) == (32, 8)


def test_operators_that_onnx_runtime_lacks_leave_the_totals_known(tmp_path: Path) -> None:
    model = quantised_network(extra_reader=False)
    model.graph.node[-1].domain = "com.example"
    model.graph.node[-1].op_type = "Own"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, tmp_path / "own.onnx")
    found = inspect(tmp_path / "own.onnx")
    assert found.totals is not None
    assert (found.totals.macs, found.coverage) == (18, None)
    assert "Integer coverage    not known: 'own.onnx': ONNX Runtime cannot load it" in report_text(
        inspection_report(found)
    )


@pytest.mark.shared
def test_a_keras_file_is_told_without_loading_it(shared_dir: Path) -> None:
    found = inspect(shared_dir / "models" / "tiny_yolo_v2_person_224.h5")
    assert (found.format, found.producer) == ("h5", "Keras 2.21.0")
    assert found.operators["Conv2D"] == 9
    assert found.inputs[0].shape == ("N", 224, 224, 3)
    assert "add --layers" in report_text(inspection_report(found))
