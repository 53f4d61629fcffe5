"""A sum or product with other numbers than the source's is proven by all pairs of codes; a wrong number is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.cases import build_case
from tests.xdet.checking import faults
from xdet.checking.heads.spread import why_not_exact
from xdet.checking.numbers import check_static
from xdet.checking.pair import open_pair

if TYPE_CHECKING:
    from pathlib import Path

    from converters.options import Activations

SHAPE = (1, 32, 32, 3)


def build_network(*, sum_scale: float = 0.0911, activation: str = "NONE", name: str = "sum") -> bytes:
    """Pixels plus a constant per channel, minus half of it, times themselves: ``name``, ``difference``, ``head``."""
    b = TfliteBuilder()
    pixels = b.input("image", SHAPE, "uint8", 1 / 255, 0)
    x = b.op("QUANTIZE", [pixels], SHAPE, "int8", 1 / 255, -128, name="codes")
    constant = b.constant(np.array([-100, 3, 90], np.int8), 0.0037, 11)
    fused: dict[str, Any] = {"fused_activation": activation}
    total = b.op("ADD", [constant, x], SHAPE, "int8", sum_scale / 10, -9, name=name, **fused)
    difference = b.op("SUB", [total, x], SHAPE, "int8", 0.0061, 4, name="difference", **fused)
    product = b.op("MUL", [difference, total], SHAPE, "int8", 0.0093, 21, name="product", **fused)
    return b.build([b.op("DEQUANTIZE", [product], SHAPE, "float32", name="real")])


def convert(tmp_path: Path, data: bytes, activations: Activations = "uint8") -> tuple[bytes, Path]:
    source = tmp_path / "pairs.tflite"
    source.write_bytes(data)
    options = ConvertOptions(source=SourceOptions(head="none"), activations=activations)
    return convert_to_bytes(source, options).model, source


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_other_numbers_are_proven_by_all_pairs(tmp_path: Path, activations: Activations) -> None:
    model, source = convert(tmp_path, build_network(), activations)
    (tmp_path / "model.onnx").write_bytes(model)
    pair = open_pair(tmp_path / "model.onnx", source)
    part, proven = check_static(pair)
    assert part.status == "passed", part.findings
    assert any("pairs of codes of ADD equal LiteRT XNNPACK's" in change.proof for change in proven)
    assert why_not_exact(pair.document, pair.origin.graph) is None


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_fused_activations_of_operators_step_by_step_are_compared(
    tmp_path: Path, activations: Activations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converters.sources.tflite.ops.arithmetic.search_form", lambda *_, **__: None)
    model, source = convert(tmp_path, build_network(activation="RELU_N1_TO_1"), activations)
    (tmp_path / "model.onnx").write_bytes(model)
    part, proven = check_static(open_pair(tmp_path / "model.onnx", source))
    assert part.status == "passed", part.findings
    assert {change.operator for change in proven if change.kind == "table"} == {"sum", "difference", "product"}


def test_a_tensor_of_the_source_may_be_called_like_the_pixels(tmp_path: Path) -> None:
    model, source = convert(tmp_path, build_network(name="pixels/rescaled"))
    (tmp_path / "model.onnx").write_bytes(model)
    assert check_static(open_pair(tmp_path / "model.onnx", source))[0].findings == ()


def test_results_that_litert_wraps_around_are_not_declared_exact(tmp_path: Path) -> None:
    model, source = convert(tmp_path, build_network(sum_scale=200.0))
    (tmp_path / "model.onnx").write_bytes(model)
    pair = open_pair(tmp_path / "model.onnx", source)
    told = str(why_not_exact(pair.document, pair.origin.graph))
    assert "SUB outside XNNPACK's range, where results pass 32,767 codes" in told
    assert "ADD" not in told


def test_steps_that_end_in_codes_of_another_type_are_named(tmp_path: Path) -> None:
    model, source = convert(tmp_path, build_case("ABS", ""))

    def edit(proto: onnx.ModelProto) -> None:
        for attribute in (a for node in proto.graph.node if node.op_type == "Cast" for a in node.attribute):
            if attribute.i == onnx.TensorProto.INT32:
                attribute.i = onnx.TensorProto.INT64

    (tmp_path / "model.onnx").write_bytes(faults.planted(model, edit))
    (finding,) = check_static(open_pair(tmp_path / "model.onnx", source))[0].findings
    assert finding.cause == "attributes"
    assert "ABS" in finding.message
    assert "stands as steps that are not understood" in finding.message


def test_a_scale_with_which_pairs_differ_is_named(tmp_path: Path) -> None:
    model, source = convert(tmp_path, build_network())

    def edit(proto: onnx.ModelProto) -> None:
        (add,) = [node for node in proto.graph.node if node.op_type == "Add" and "sum" in node.name]
        (read,) = [node for node in proto.graph.node if node.output[0] == add.input[0]]
        (scale,) = [tensor for tensor in proto.graph.initializer if tensor.name == read.input[1]]
        array: Any = onnx.numpy_helper.to_array(scale) * np.float32(1.001)
        scale.CopyFrom(onnx.numpy_helper.from_array(np.asarray(array, np.float32), scale.name))

    (tmp_path / "model.onnx").write_bytes(faults.planted(model, edit))
    part, _ = check_static(open_pair(tmp_path / "model.onnx", source))
    (finding,) = part.findings
    assert (finding.cause, finding.layer) == ("scale", "codes")
    assert "+0.10%" in finding.message


def build_moving_network() -> bytes:
    """uint8 tensors of other scales: put together, tiled and resized."""
    b = TfliteBuilder()
    pixels = b.input("image", SHAPE, "uint8", 1 / 255, 0)
    total = b.op("ADD", [pixels, pixels], SHAPE, "uint8", 2 / 255, 0, name="sum")
    both = (1, 32, 32, 6)
    joined = b.op("CONCATENATION", [pixels, total], both, "uint8", 2 / 255, 0, name="joined", axis=3)
    repeats = b.constant(np.array([1, 1, 1, 2], np.int32))
    tiled = b.op("TILE", [joined, repeats], (1, 32, 32, 12), "uint8", 0.02, 7, name="tiled")
    indices = b.constant(np.array([0, 4, 5], np.int32))
    chosen = b.op("GATHER", [tiled, indices], SHAPE, "uint8", 0.03, 9, name="chosen", axis=3)
    size = b.constant(np.array([64, 64], np.int32))
    large = b.op("RESIZE_NEAREST_NEIGHBOR", [chosen, size], (1, 64, 64, 3), "uint8", 0.01, 0, name="large")
    return b.build([b.op("DEQUANTIZE", [large], (1, 64, 64, 3), "float32", name="real")])


def test_rescaled_operands_and_moved_codes_are_proven(tmp_path: Path) -> None:
    model, source = convert(tmp_path, build_moving_network())
    (tmp_path / "model.onnx").write_bytes(model)
    part, proven = check_static(open_pair(tmp_path / "model.onnx", source))
    assert part.status == "passed", part.findings
    proofs = {change.proof for change in proven}
    assert "all 256 codes equal those of LiteRT's CONCATENATION" in proofs
    for op in ("TILE", "GATHER", "RESIZE_NEAREST_NEIGHBOR"):
        assert f"{op} moves codes, whatever the scale of its output" in proofs


def build_stepwise_network(activation: str = "NONE") -> bytes:
    """Products with ties and odd zero-points, one a square, and a resize by 1.5: two have no exact fused form."""
    b = TfliteBuilder()
    pixels = b.input("image", SHAPE, "uint8", 0.5, 128)
    constant = b.constant(np.arange(1024).astype(np.uint8).reshape(1, 32, 32, 1), 1.0, 128)
    product = b.op("MUL", [pixels, constant], SHAPE, "uint8", 1.0, 129, name="product", fused_activation=activation)
    square = b.op("MUL", [product, product], SHAPE, "uint8", 2.0, 101, name="square", fused_activation=activation)
    size = b.constant(np.array([48, 48], np.int32))
    large = b.op("RESIZE_BILINEAR", [square, size], (1, 48, 48, 3), "uint8", 2.0, 101, name="large")
    return b.build([b.op("DEQUANTIZE", [large], (1, 48, 48, 3), "float32", name="real")])


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_operators_step_by_step_are_run(tmp_path: Path, activations: Activations) -> None:
    model, source = convert(tmp_path, build_stepwise_network(), activations)
    (tmp_path / "model.onnx").write_bytes(model)
    part, proven = check_static(open_pair(tmp_path / "model.onnx", source))
    assert part.status == "passed", part.findings
    assert {change.operator for change in proven if change.kind == "table"} == {"product", "large"}


def test_a_square_without_a_fused_form_is_compared_as_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converters.sources.tflite.ops.arithmetic.search_form", lambda *_, **__: None)
    model, source = convert(tmp_path, build_stepwise_network(activation="RELU6"))
    (tmp_path / "model.onnx").write_bytes(model)
    part, proven = check_static(open_pair(tmp_path / "model.onnx", source))
    assert part.status == "passed", part.findings
    assert {change.operator for change in proven if change.kind == "table"} == {"product", "square", "large"}


@pytest.mark.parametrize("layer", ["product", "large"])
def test_a_wrong_number_among_the_steps_is_named(tmp_path: Path, layer: str) -> None:
    model, source = convert(tmp_path, build_stepwise_network())

    def edit(proto: onnx.ModelProto) -> None:
        named = [tensor for tensor in proto.graph.initializer if tensor.name.startswith(layer)]
        tensor = next(t for t in named if t.name.endswith(("weights", "number")))
        array: Any = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(array + 1, array.dtype), tensor.name))

    (tmp_path / "model.onnx").write_bytes(faults.planted(model, edit))
    part, _ = check_static(open_pair(tmp_path / "model.onnx", source))
    assert [(finding.cause, finding.layer) for finding in part.findings] == [("attributes", layer)]


def test_a_wrong_entry_of_a_table_is_found(tmp_path: Path) -> None:
    model, source = convert(tmp_path, build_case("HARD_SWISH", ""))

    def edit(proto: onnx.ModelProto) -> None:
        (gather,) = [node for node in proto.graph.node if node.op_type == "Gather"]
        (table,) = [tensor for tensor in proto.graph.initializer if tensor.name == gather.input[0]]
        array = onnx.numpy_helper.to_array(table).copy()
        array[200] += 1
        table.CopyFrom(onnx.numpy_helper.from_array(array, table.name))

    (tmp_path / "model.onnx").write_bytes(faults.planted(model, edit))
    part, _ = check_static(open_pair(tmp_path / "model.onnx", source))
    (finding,) = part.findings
    assert finding.layer == "y"
    assert "1 of 256 codes of HARD_SWISH 'y'" in finding.message
