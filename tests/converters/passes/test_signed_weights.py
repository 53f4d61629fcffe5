"""uint8 weights become int8, and no code changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.graph import IR_VERSION, GraphWriter, constant_of, infer_shapes
from converters.passes.base import Skipped
from converters.passes.pipelines import run_pipeline
from converters.passes.signed_weights import SignedWeights
from converters.passes.weights import codes_behind, dequantized
from converters.spec import TensorTwin

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Network:
    """One quantised convolution of 16 channels, its weights between ``lowest`` and ``highest``, both of which occur."""

    lowest: int = 0
    highest: int = 255
    zero_point: int | tuple[int, ...] = 120
    group: int = 1
    padding: int = 1
    seed: int = 0

    def build(self) -> ir.Model:
        rng = np.random.default_rng(self.seed)
        writer = GraphWriter("net")
        value = writer.input("x", ir.DataType.UINT8, [1, 16, 8, 8])
        numbers = [writer.constant(np.float32(0.02), "s"), writer.constant(np.uint8(9), "z")]
        weights = rng.integers(self.lowest, self.highest + 1, (16, 16 // self.group, 3, 3)).astype(np.uint8)
        weights[0, 0, 0, :2] = self.lowest, self.highest
        zero_point = np.array(self.zero_point, np.uint8)
        scale = np.full(zero_point.shape, 0.003, np.float32)
        bias = rng.integers(-3000, 3000, 16).astype(np.int32)
        operands = [
            writer.op("DequantizeLinear", [value, *numbers], "x/d"),
            dequantized(writer, (weights, scale, zero_point), "w"),
            dequantized(writer, (bias, np.full(16, 0.003 * 0.02, np.float32), np.zeros(16, np.int32)), "b"),
        ]
        real = writer.op("Conv", operands, "conv", group=self.group, pads=[self.padding] * 4)
        out = [writer.constant(np.float32(0.05), "y/s"), writer.constant(np.uint8(130), "y/z")]
        result = writer.op("QuantizeLinear", [real, *out], "y")
        writer.graph.outputs.append(result)
        result.type = ir.TensorType(ir.DataType.UINT8)
        model = ir.Model(writer.graph, ir_version=IR_VERSION)
        infer_shapes(model)
        return model


def run(model: ir.Model, **entries: str) -> NDArray[Any]:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    for name, value in entries.items():
        options.add_session_config_entry(f"session.{name}", value)
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    codes = np.random.default_rng(3).integers(0, 256, (1, 16, 8, 8)).astype(np.uint8)
    return np.asarray(session.run(None, {"x": codes})[0])


def stored(model: ir.Model) -> tuple[NDArray[Any], NDArray[Any]]:
    (conv,) = (node for node in model.graph if node.op_type == "Conv")
    codes, real = codes_behind(conv.inputs[1]), conv.inputs[1].producer() if conv.inputs[1] else None
    assert codes is not None
    assert real is not None
    zero_point = constant_of(real.inputs[2])
    assert zero_point is not None
    return codes, zero_point


@settings(max_examples=40)
@given(
    bounds=st.tuples(st.integers(0, 255), st.integers(0, 255)).map(sorted),
    network=st.builds(
        Network,
        zero_point=st.integers(0, 255),
        group=st.sampled_from([1, 16]),
        padding=st.integers(0, 1),
        seed=st.integers(0, 1000),
    ),
)
def test_codes_are_equal_bit_for_bit(bounds: list[int], network: Network) -> None:
    network = replace(network, lowest=bounds[0], highest=bounds[1])
    assert isinstance(network.zero_point, int)
    model, expected = network.build(), run(network.build())
    fits = bounds[0] - network.zero_point >= -128 and bounds[1] - network.zero_point <= 127
    assert SignedWeights()(model).modified == (fits or network.group == 1)
    np.testing.assert_array_equal(run(model), expected)
    np.testing.assert_array_equal(run(model, x64quantprecision="1"), expected)
    if fits or network.group == 1:
        codes, zero_point = stored(model)
        assert codes.dtype == np.int8
        assert zero_point == (0 if fits else network.zero_point - 128)
        assert not SignedWeights()(model).modified


def test_weights_are_followed_with_what_was_taken_off() -> None:
    twins = {name: TensorTwin(name, "same", 0) for name in ("w/codes", "b/codes")}
    network = Network(lowest=30, highest=200, zero_point=100)
    rewritten = run_pipeline(network.build(), "cpu", twins)
    assert rewritten.passes == ("signed weights",)
    assert rewritten.twins == {"w/codes": TensorTwin("conv/signed/codes", "same", -100), "b/codes": twins["b/codes"]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"group": 16}, "its weights, less their zero-point 120, are no int8", id="depthwise"),
        pytest.param({"zero_point": tuple(range(16))}, "more than one zero-point", id="per channel"),
    ],
)
def test_others_stay_with_the_reason(change: dict[str, Any], reason: str) -> None:
    model = replace(Network(), **change).build()
    (skipped,) = SignedWeights().rewrite(model.graph)
    assert isinstance(skipped, Skipped)
    assert reason in skipped.reason
    assert stored(model)[0].dtype == np.uint8
