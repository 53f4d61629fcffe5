"""The canonical form's parts, run on ONNX Runtime: exact numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.errors import SourceFileError
from converters.graph import (
    IR_VERSION,
    GraphWriter,
    bias_params,
    constant_node,
    cut_graph,
    image_pixels,
    infer_shapes,
    nodes_before,
    pixel_codes,
    pixels_are_codes,
    require_finite,
    rescaled_pixels,
)
from converters.options import ConvertOptions
from converters.quant import QuantParams
from converters.spec import ImageInput, Rescaling
from tests.converters.sessions import session_of
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.xdet.finished_models import finished_model
from xdet.errors import ModelError
from xdet.model.graph import load_onnx

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

IMAGE = ImageInput(16, 16, Rescaling(1 / 255, 0.0))
PIXELS = np.arange(768, dtype=np.int64).astype(np.uint8).reshape(1, 16, 16, 3)


def run(writer: GraphWriter, output: ir.Value, **feeds: NDArray[Any]) -> NDArray[Any]:
    writer.graph.outputs.append(output)
    model = ir.to_proto(ir.Model(writer.graph, ir_version=IR_VERSION)).SerializeToString()
    return np.asarray(session_of(model, fuse=False).run(None, feeds)[0])


def test_pixels_are_moved_to_nchw() -> None:
    writer = GraphWriter("g")
    pixels = image_pixels(writer, IMAGE, 1)
    pixels.type = ir.TensorType(ir.DataType.UINT8)
    np.testing.assert_array_equal(run(writer, pixels, image=PIXELS), PIXELS.transpose(0, 3, 1, 2))


def test_rescaled_pixels_are_rounded_to_float32_at_both_steps() -> None:
    writer = GraphWriter("g")
    real = rescaled_pixels(writer, image_pixels(writer, IMAGE, 1), Rescaling(1 / 127.5, -1.0))
    real.type = ir.TensorType(ir.DataType.FLOAT)
    expected = PIXELS.transpose(0, 3, 1, 2).astype(np.float32) * np.float32(1 / 127.5) + np.float32(-1)
    np.testing.assert_array_equal(run(writer, real, image=PIXELS), expected)


@pytest.mark.parametrize("scale", [1 / 255, 1 / 127.5, 0.37])
def test_int8_codes_are_the_pixels_less_128(scale: float) -> None:
    writer = GraphWriter("g")
    codes = pixel_codes(writer, image_pixels(writer, IMAGE, 1), QuantParams.per_tensor(scale, -5), np.int8, "x")
    codes.type = ir.TensorType(ir.DataType.INT8)
    expected = (PIXELS.transpose(0, 3, 1, 2).astype(np.int16) - 128).astype(np.int8)
    np.testing.assert_array_equal(run(writer, codes, image=PIXELS), expected)


def test_uint8_codes_are_the_pixels_themselves() -> None:
    writer = GraphWriter("g")
    pixels = image_pixels(writer, IMAGE, 1)
    assert pixel_codes(writer, pixels, QuantParams.per_tensor(0.1, 3), np.uint8, "x") is pixels


@pytest.mark.parametrize(
    ("rescaling", "scale", "zero_point", "expected"),
    [
        (Rescaling(1 / 255, 0.0), 1 / 255, 0, True),
        (Rescaling(1 / 127.5, -1.0), 1 / 127.5, 128, False),  # -1 is half a step off the lattice of zero-point 127.5
        (Rescaling(0.5, -64.0), 0.5, 128, True),
        (Rescaling(0.5, -64.0), 0.51, 128, False),
    ],
)
def test_pixels_are_codes_where_all_256_come_back(
    rescaling: Rescaling, scale: float, zero_point: int, *, expected: bool
) -> None:
    params = QuantParams.per_tensor(scale, zero_point)
    assert pixels_are_codes(rescaling, params, np.uint8) == expected
    assert pixels_are_codes(rescaling, params.shifted(-128), np.int8) == expected


@pytest.mark.parametrize("scales", [[0.1], [0.1, 0.2, 0.3]], ids=["per tensor", "per channel"])
def test_weights_and_bias_are_dequantised_by_constants_of_their_own(scales: list[float]) -> None:
    writer = GraphWriter("g")
    axis = None if len(scales) == 1 else 0
    weights = QuantParams(np.array(scales, np.float32), np.zeros(len(scales), np.int64), axis)
    params = bias_params(QuantParams.per_tensor(0.7, 12), weights)
    np.testing.assert_array_equal(params.scale, np.float32(0.7) * np.array(scales, np.float32))
    codes = np.array([[1, -2], [3, -4], [5, -6]], np.int8)
    stored, real = constant_node(writer, codes, weights, "w")
    biases, offset = constant_node(writer, np.array([7, 8, 9], np.int32), params, "b")
    assert (stored.name, real.name, biases.name, offset.name) == (
        "w/codes", "w/dequantized", "b/codes", "b/dequantized",
    )  # fmt: skip
    shared, _ = constant_node(writer, codes, weights, "w")
    assert shared.name == "w_2/codes"
    owners = [use.node for constant in writer.graph.initializers.values() for use in constant.uses()]
    assert len(owners) == len(set(writer.graph.initializers)) == 9
    product = writer.op("Gemm", [writer.input("x", ir.DataType.FLOAT, [1, 2]), real, offset], "y", transB=1)
    product.type = ir.TensorType(ir.DataType.FLOAT)
    x = np.array([[2, 1]], np.float32)
    wide = np.broadcast_to(np.array(scales, np.float32), 3)
    expected = x @ (codes.astype(np.float32) * wide[:, None]).T + np.array([7, 8, 9], np.float32) * params.scale
    np.testing.assert_allclose(run(writer, product, x=x), expected, rtol=1e-6)  # sums in another order


def test_a_writer_appends_to_the_end_of_an_existing_graph_without_taking_its_names() -> None:
    first = GraphWriter("g")
    x = first.input("x", ir.DataType.FLOAT, [1])
    y = first.op("Neg", [x], "y")
    second = GraphWriter.appending(first.graph)
    z = second.op("Abs", [y], "y")
    assert [node.op_type for node in first.graph] == ["Neg", "Abs"]
    assert z.name == "y_2"


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([1.0, np.nan], "holds nan, expected numbers up to"),
        ([np.nan], "holds nan"),
        ([1.0, -3e38], r"holds 3e\+38, expected numbers up to 1e\+30"),
        ([1.0, np.inf], "holds inf"),
        ([3.4e38], None),
        ([1e29, -1e29], None),
    ],
    ids=str,
)
def test_weights_that_no_training_ends_with_are_refused(numbers: list[float], said: str | None) -> None:
    writer = GraphWriter("net")
    writer.constant(np.array(numbers, np.float32), "weights")
    if said is None:
        require_finite(writer.graph, "m.tflite")
        return
    with pytest.raises(SourceFileError, match=f"m.tflite: constant 'weights' {said}"):
        require_finite(writer.graph, "m.tflite")


def test_a_float_network_with_a_weight_that_is_no_number_does_not_convert(tmp_path: Path) -> None:
    b = TfliteBuilder()
    x = b.input("image", (1, 4, 4, 3), "float32")
    weights = np.ones((6, 1, 1, 3), np.float32)
    weights[3, 0, 0, 1] = np.nan
    output = b.op("CONV_2D", [x, b.constant(weights), b.constant(np.zeros(6, np.float32))], (1, 4, 4, 6), "float32")
    (tmp_path / "m.tflite").write_bytes(b.build([output]))
    (tmp_path / "m.xdet.json").write_text('{"rescaling": {"scale": 0.5, "offset": 0}}')
    with pytest.raises(SourceFileError, match="holds nan"):
        convert_to_bytes(tmp_path / "m.tflite", ConvertOptions(source=SourceOptions(head="none")))


def test_a_negative_size_in_a_finished_file_is_damage() -> None:
    """Shape inference of the onnx package ends the process over some of them."""
    model = onnx.load_model_from_string(finished_model())
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -1
    with pytest.raises(ModelError, match="value 'image' has a negative size"):
        load_onnx(model.SerializeToString(), "m.onnx")


def test_a_stated_shape_that_holds_another_number_of_values_is_refused(tmp_path: Path) -> None:
    """A STRIDED_SLICE whose mask was bent gives 48 values, and the file says 18."""
    b = TfliteBuilder()
    x = b.input("image", (1, 4, 4, 3), "uint8", 1 / 255, 0)
    operands = [b.constant(np.array(values, np.int32)) for values in ([0] * 4, [1, 2, 3, 3], [1] * 4)]
    cut = b.op("STRIDED_SLICE", [x, *operands], (1, 2, 3, 3), "uint8", 1 / 255, 0, new_axis_mask=127)
    (tmp_path / "m.tflite").write_bytes(b.build([cut]))
    with pytest.raises(SourceFileError, match=r"turns shape .* into \[1, 2, 3, 3\]: another number of values"):
        convert_to_bytes(tmp_path / "m.tflite", ConvertOptions(source=SourceOptions(head="none")))


def test_a_part_of_a_graph_is_cut_out_with_its_own_constants_and_inputs() -> None:
    whole = ir.from_onnx_text("""
        <ir_version: 9, opset_import: ["": 19]>
        g (float[2] x, float[2] y) => (float[2] last)
        <float[2] used = {1, 2}, float[2] other = {3, 4}>
        {
            first = Add(x, other)
            second = Mul(first, used)
            beside = Neg(second)
            third = Sub(second, y)
            last = Add(third, beside)
        }
    """)
    infer_shapes(whole)
    graph, values = whole.graph, ir.convenience.create_value_mapping(whole.graph)
    before = ir.to_proto(graph)
    part = cut_graph(graph, [values["third"]], [values["first"]])
    assert [node.op_type for node in part] == ["Mul", "Sub"]
    assert [value.name for value in part.inputs] == ["y", "first"]
    assert list(part.initializers) == ["used"]
    model = ir.to_proto(ir.Model(part, ir_version=9))
    onnx.checker.check_model(model, full_check=True)
    assert ir.to_proto(graph) == before
    assert {node.op_type for node in nodes_before([values["second"]])} == {"Add", "Mul"}
