"""Integer coverage: read back from ONNX Runtime, with the rule behind every miss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import xdet
from xdet.errors import ModelError
from xdet.inspection.coverage import integer_coverage

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Network:
    """A quantised 1x1 convolution of 4 to 4 channels on 5 x 5: 400 MACs; a field spoils one rule of integer fusion."""

    input_is_quantised: bool = True
    weights_are_quantised: bool = True
    bias_scale: float | tuple[float, ...] | None = 0.5 * 0.25
    weight_scale: float | tuple[float, ...] = 0.25
    float_bias: bool = False
    float_output: bool = False
    extra_reader: bool = False
    relu_behind: bool = False

    def build(self) -> bytes:
        nodes, constants = self._operands()
        outputs = [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, 4, 5, 5])]
        result = "sums"
        if self.relu_behind:
            nodes.append(helper.make_node("Sigmoid", ["sums"], ["bent"]))
            result = "bent"
        nodes.append(helper.make_node("QuantizeLinear", [result, "s", "z"], ["y"]))
        if self.float_output:
            outputs.append(helper.make_tensor_value_info("sums", TensorProto.FLOAT, [1, 4, 5, 5]))
        if self.extra_reader:
            nodes.append(helper.make_node("Neg", ["sums"], ["n"]))
            outputs.append(helper.make_tensor_value_info("n", TensorProto.FLOAT, [1, 4, 5, 5]))
        dtype = TensorProto.UINT8 if self.input_is_quantised else TensorProto.FLOAT
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", dtype, [1, 4, 5, 5])],
            outputs,
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
        serialized: bytes = model.SerializeToString()
        return serialized

    def _operands(self) -> tuple[list[Any], dict[str, Any]]:
        codes = np.arange(16, dtype=np.int8).reshape(4, 4, 1, 1)
        constants: dict[str, Any] = {"s": np.float32(0.5), "z": np.uint8(7)}
        nodes, read = [], ["x", "weights"]
        if self.input_is_quantised:
            nodes.append(helper.make_node("DequantizeLinear", ["x", "s", "z"], ["real"]))
            read[0] = "real"
        if self.weights_are_quantised:
            constants |= {"codes": codes, "ws": np.asarray(self.weight_scale, np.float32)}
            constants["wz"] = np.zeros_like(constants["ws"], np.int8)
            nodes.append(helper.make_node("DequantizeLinear", ["codes", "ws", "wz"], ["weights"]))
        else:
            constants["weights"] = codes.astype(np.float32)
        if self.float_bias:
            constants["bias"] = np.ones(4, np.float32)
            read.append("bias")
        elif self.bias_scale is not None:
            constants |= {"b": np.ones(4, np.int32), "bs": np.asarray(self.bias_scale, np.float32)}
            constants["bz"] = np.zeros_like(constants["bs"], np.int32)
            nodes.append(helper.make_node("DequantizeLinear", ["b", "bs", "bz"], ["bias"]))
            read.append("bias")
        nodes.append(helper.make_node("Conv", read, ["sums"], name="conv"))
        return nodes, constants


@pytest.mark.parametrize("network", [Network(), Network(bias_scale=None), Network(float_bias=True)])
def test_a_quantised_convolution_runs_in_integers_whatever_its_bias(network: Network) -> None:
    found = integer_coverage(network.build())
    assert (found.provider, found.macs_total, found.macs_integer, found.misses) == ("cpu", 400, 400, ())
    assert found.share == 1.0


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Network(input_is_quantised=False), "its input 'x' is float: no DequantizeLinear in front of it"),
        (Network(weights_are_quantised=False), "its weights 'weights' are float: no DequantizeLinear behind them"),
        (Network(bias_scale=0.2), "its bias scale is 60.0% off input scale x weight scale, more than 1%"),
        (
            Network(weight_scale=(0.25,) * 4, bias_scale=(0.125,) * 2),
            "its input, weights and bias have 1, 4 and 2 scales",
        ),
        (Network(float_output=True), "its float result 'sums' is an output of the model"),
        (Network(extra_reader=True), "its float result 'sums' is read by 2 operators, not by one QuantizeLinear"),
        (Network(relu_behind=True), "its float result 'sums' goes to Sigmoid, not to a QuantizeLinear"),
    ],
    ids=["input", "weights", "bias-scale", "bias-scales", "output", "readers", "behind"],
)
def test_what_stays_in_float_is_told_with_the_rule_that_blocked_it(network: Network, reason: str) -> None:
    found = integer_coverage(network.build())
    assert (found.macs_total, found.macs_integer, found.share) == (400, 0, 0.0)
    assert [(miss.node, miss.reason) for miss in found.misses] == [("conv", reason)]


def two_convolutions(*, second_in_float: bool) -> bytes:
    """Two convolutions that share one weight; the second one perhaps reads real numbers."""
    scale = [("s", np.float32(0.5)), ("z", np.uint8(7)), ("ws", np.float32(0.25)), ("wz", np.int8(0))]
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "ws", "wz"], ["w1"]),
        helper.make_node("DequantizeLinear", ["codes", "ws", "wz"], ["w2"]),
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["real"]),
        helper.make_node("Conv", ["real", "w1"], ["sums"], name="first"),
        helper.make_node("QuantizeLinear", ["sums", "s", "z"], ["y"]),
        helper.make_node("DequantizeLinear", ["x2", "s", "z"], ["real2"]),
        helper.make_node("Conv", ["x2" if second_in_float else "real2", "w2"], ["sums2"], name="second"),
        helper.make_node("QuantizeLinear", ["sums2", "s", "z"], ["y2"]),
    ]
    if second_in_float:
        del nodes[5]
    shape, kind = [1, 4, 5, 5], TensorProto.FLOAT if second_in_float else TensorProto.UINT8
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.UINT8, shape),
            helper.make_tensor_value_info("x2", kind, shape),
        ],
        [helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name in ("y", "y2")],
        [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in [*scale, ("codes", np.ones((4, 4, 1, 1), np.int8))]
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    serialized: bytes = model.SerializeToString()
    return serialized


@pytest.mark.parametrize(("in_float", "integer", "misses"), [(True, 400, ["second"]), (False, 800, [])])
def test_convolutions_that_share_a_weight_are_told_apart(*, in_float: bool, integer: int, misses: list[str]) -> None:
    found = integer_coverage(two_convolutions(second_in_float=in_float))
    assert (found.macs_total, found.macs_integer) == (800, integer)
    assert [miss.node for miss in found.misses] == misses


@pytest.mark.parametrize("target", ["portable", "cpu"])
def test_every_convolution_of_the_embedded_detector_runs_in_integers(
    target: Any, embedded_tflite: Path, tmp_path: Path
) -> None:
    xdet.convert(embedded_tflite, tmp_path / "m.onnx", target=target)
    found = integer_coverage((tmp_path / "m.onnx").read_bytes(), "cpu")
    assert (found.share, found.misses) == (1.0, ())
    # the cpu target's first convolution does more, cheaper work: zeros in its kernel count, too
    assert found.macs_total == (773_864_448 if target == "portable" else 829_258_752)


def test_the_exact_kernels_of_saturating_processors_are_integer_kernels_too(
    embedded_tflite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xdet.runtimes.ort_session.kernels_saturate", lambda: True)
    xdet.convert(embedded_tflite, tmp_path / "m.onnx")
    assert integer_coverage((tmp_path / "m.onnx").read_bytes()).share == 1.0


def test_nodes_without_names_are_found_by_their_weights() -> None:
    model = onnx.load_from_string(two_convolutions(second_in_float=False))
    for node in model.graph.node:
        node.name = ""
    model.graph.node[1].input[0] = "codes2"
    model.graph.initializer.append(numpy_helper.from_array(np.ones((4, 4, 1, 1), np.int8), "codes2"))
    assert integer_coverage(model.SerializeToString()).macs_integer == 800


def test_damage_is_told_with_the_file() -> None:
    with pytest.raises(ModelError, match=r"'m\.onnx' is a damaged ONNX file"):
        integer_coverage(Network().build()[:-5], file="m.onnx")
