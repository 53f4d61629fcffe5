"""Layers and totals: MACs, parameters, bytes and scales of networks whose numbers are known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import xdet
from converters.sources.tflite.reader import read_tflite
from tests.converters.sources.tflite.builder import TfliteBuilder, build_small_model
from tests.xdet.finished_models import model_from_text
from xdet.errors import ModelError
from xdet.inspection import OperatorCost, TensorSummary, inspect
from xdet.inspection.costs import tensor_bytes
from xdet.inspection.layers import count_macs, onnx_layers, tflite_layers, tflite_network
from xdet.inspection.report import inspection_report, layers_table
from xdet.model.graph import inferred_model, load_onnx
from xdet.writing.terminal import block_text, report_text

if TYPE_CHECKING:
    from pathlib import Path

FILES = ["192_int8", "224_int8", "416_int8", "224_per_tensor_int8"]


def costs(layer: OperatorCost) -> tuple[int, int, int, int, int]:
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
    output, node = (", float[N,1,3,3] n", "n = Neg(real)") if extra_reader else ("", "")
    return model_from_text(
        f"""g (uint8[N,1,3,3] x) => (uint8[N,2,3,3] y{output})
        <float s = {{0.5}}, uint8 z = {{7}}, int8[2,1,1,1] w = {{0, 0}}, float ws = {{0.25}}, int8 wz = {{0}}>
        {{
            real = DequantizeLinear(x, s, z)
            weights = DequantizeLinear(w, ws, wz)
            [conv] sums = Conv(real, weights)
            codes = QuantizeLinear(sums, s, z)
            again = DequantizeLinear(codes, s, z)
            positive = Relu(again)
            y = QuantizeLinear(positive, s, z)
            {node}
        }}"""
    )


def layers_of(model: onnx.ModelProto) -> tuple[OperatorCost, ...]:
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
    model = model_from_text("g (float[1,3,h,w] x) => (float[1,3,h,w] y) { y = Relu(x) }")
    onnx.save(model, tmp_path / "free.onnx")
    found = inspect(tmp_path / "free.onnx")
    assert found.totals is None
    assert "the shape of value 'x' is not fixed" in str(found.totals_problem)
    with pytest.raises(ModelError, match=r"free\.onnx.*export the model with fixed sizes"):
        inspect(tmp_path / "free.onnx", layers=True)


@pytest.mark.parametrize(
    ("x", "w", "op", "y", "macs"),
    [
        ("1,4,5,5", (8, 2, 3, 3), "Conv <group = 2, pads = [1, 1, 1, 1]>", "1,8,5,5", 5 * 5 * 8 * 2 * 9),
        # every input value meets the kernel
        ("1,4,5,5", (4, 8, 2, 2), "ConvTranspose <strides = [2, 2]>", "1,8,10,10", 4 * 5 * 5 * 8 * 2 * 2),
        ("2,10", (10, 7), "MatMul", "2,7", 2 * 7 * 10),
        ("2,10", (7, 10), "Gemm <transB = 1>", "2,7", 2 * 7 * 10),
    ],
    ids=["grouped-convolution", "transposed-convolution", "product", "transposed-product"],
)
def test_multiply_accumulates_of_onnx_operators(x: str, w: tuple[int, ...], op: str, y: str, macs: int) -> None:
    weights = f"float[{','.join(map(str, w))}] w"
    model = model_from_text(f"g (float[{x}] x, {weights}) => (float[{y}] y) {{ y = {op}(x, w) }}")
    del model.graph.input[1]
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(w, np.float32), "w"))
    onnx.checker.check_model(model, full_check=True)
    (layer,) = layers_of(load_onnx(model.SerializeToString(), "m.onnx"))
    assert layer.macs == macs


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
