"""Convolutions with channels of zeros behind their own, which a Slice takes away: no code changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.graph import IR_VERSION, GraphWriter, infer_shapes
from converters.passes.base import Skipped
from converters.passes.full_outputs import FullOutputs
from converters.passes.pipelines import run_pipeline
from converters.passes.weights import codes_behind, dequantized
from converters.spec import TensorTwin

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Network:
    """One quantised convolution at 64 x 64."""

    inputs: int = 16
    outputs: int = 30
    kernel: int = 1
    stride: int = 1
    zero_point: int = 9
    weight_zero_point: int = 0
    per_channel: bool = True
    bias: bool = True
    float_bias: bool = False
    size: int | str = 64
    seed: int = 0

    def build(self) -> ir.Model:
        rng, writer = np.random.default_rng(self.seed), GraphWriter("net")
        value = writer.input("x", ir.DataType.UINT8, [1, self.inputs, self.size, 64])
        numbers = [writer.constant(np.float32(0.02), "s"), writer.constant(np.uint8(self.zero_point), "z")]
        operands = [writer.op("DequantizeLinear", [value, *numbers], "x/d")]
        scale = rng.uniform(0.001, 0.01, (self.outputs,) if self.per_channel else ()).astype(np.float32)
        shape = (self.outputs, self.inputs, self.kernel, self.kernel)
        weights = rng.integers(-127, 128, shape).astype(np.int8)
        zero_points = np.full(scale.shape, self.weight_zero_point, np.int8)
        operands.append(dequantized(writer, (weights, scale, zero_points), "w"))
        if self.bias:
            bias = rng.integers(-3000, 3000, self.outputs).astype(np.int32)
            zeros = np.zeros(scale.shape, np.int32)
            real_bias = writer.constant(bias.astype(np.float32), "b/real")
            held = (bias, scale * np.float32(0.02), zeros)
            operands.append(real_bias if self.float_bias else dequantized(writer, held, "b"))
        pads = [self.kernel // 2] * 4
        real = writer.op("Conv", operands, "conv", strides=[self.stride, self.stride], pads=pads)
        out = [writer.constant(np.float32(0.05), "y/s"), writer.constant(np.uint8(130), "y/z")]
        result = writer.op("QuantizeLinear", [real, *out], "y")
        writer.graph.outputs.append(result)
        result.type = ir.TensorType(ir.DataType.UINT8)
        model = ir.Model(writer.graph, ir_version=IR_VERSION)
        infer_shapes(model)
        return model

    def run(self, model: ir.Model) -> NDArray[Any]:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        data = ir.to_proto(model).SerializeToString()
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        codes = np.random.default_rng(3).integers(0, 256, (1, self.inputs, 64, 64)).astype(np.uint8)
        return np.asarray(session.run(None, {"x": codes})[0])


def channels(model: ir.Model) -> list[int]:
    codes = [codes_behind(node.inputs[1]) for node in model.graph if node.op_type == "Conv"]
    return [0 if array is None else len(array) for array in codes]


@settings(max_examples=30)
@given(
    st.builds(
        Network,
        inputs=st.sampled_from([16, 20]),
        outputs=st.sampled_from([25, 30, 33, 42, 255]),
        kernel=st.sampled_from([1, 3]),
        zero_point=st.sampled_from([0, 9, 255]),
        per_channel=st.booleans(),
        bias=st.booleans(),
        seed=st.integers(0, 1000),
    )
)
def test_codes_are_equal_bit_for_bit(network: Network) -> None:
    model, expected = network.build(), network.run(network.build())
    assert FullOutputs()(model).modified
    assert channels(model) == [-(-network.outputs // 16) * 16]
    np.testing.assert_array_equal(network.run(model), expected)
    assert not FullOutputs()(model).modified


def test_weights_are_followed() -> None:
    twins = {name: TensorTwin(name, "same", 0) for name in ("w/codes", "b/codes", "y")}
    rewritten = run_pipeline(Network().build(), "cpu", twins)
    assert rewritten.passes == ("full outputs",)
    told = {name: (twin.fate, twin.by) for name, twin in rewritten.twins.items()}
    copied = ("replicated", "full outputs")
    assert told == {"w/codes": copied, "b/codes": copied, "y": ("kept", None)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"stride": 8}, "it is small", id="small"),
        pytest.param({"size": "H"}, "has no fixed size", id="any size"),
        pytest.param({"weight_zero_point": 3}, "its weights have a zero-point", id="zero-point"),
        pytest.param({"float_bias": True}, "its bias is float", id="float bias"),
    ],
)
def test_others_stay_with_the_reason(change: dict[str, Any], reason: str) -> None:
    model = replace(Network(), **change).build()
    (skipped,) = FullOutputs().rewrite(model.graph)
    assert isinstance(skipped, Skipped)
    assert reason in skipped.reason
    assert channels(model) == [30]


@pytest.mark.parametrize("change", [{"outputs": 32}, {"inputs": 18}], ids=["full", "unrolled all the same"])
def test_the_kernel_takes_others_as_they_are(change: dict[str, Any]) -> None:
    assert list(FullOutputs().rewrite(replace(Network(), **change).build().graph)) == []
