"""Average pools become depthwise convolutions of ones, and no code changes."""

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
from converters.passes.average_as_convolution import AverageAsConvolution
from converters.passes.base import Skipped
from converters.passes.pipelines import run_pipeline
from converters.spec import TensorTwin

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (3, 9, 11)


@dataclass(frozen=True)
class Network:
    """Maximum with a constant -> AveragePool, with LiteRT's zero-point and nudge -> the codes."""

    window: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (2, 2)
    zero_point: int = 7
    pivot: int = 128
    nudge: float = 1 + 2.0**-15
    scale_out: float = 0.05
    padding: str = "VALID"
    dtype: type[Any] = np.uint8
    ceil_mode: int = 0

    def build(self) -> ir.Model:
        writer = GraphWriter("net")
        kind = ir.DataType.UINT8 if self.dtype is np.uint8 else ir.DataType.INT8
        value = writer.input("x", kind, [1, *SHAPE])
        real = writer.op("Relu", [self._pair(writer, "DequantizeLinear", value, "first")], "relu")
        codes = self._pair(writer, "QuantizeLinear", real, "codes")
        nudged = self._pair(writer, "DequantizeLinear", codes, "nudged", 0.05 * self.nudge, self.pivot)
        attributes: dict[str, Any] = {"kernel_shape": self.window, "strides": self.strides, "auto_pad": self.padding}
        real = writer.op("AveragePool", [nudged], "pool", ceil_mode=self.ceil_mode, **attributes)
        result = self._pair(writer, "QuantizeLinear", real, "mean", self.scale_out, self.pivot)
        writer.graph.outputs.append(result)
        result.type = ir.TensorType(kind)
        model = ir.Model(writer.graph, ir_version=IR_VERSION)
        infer_shapes(model)
        return model

    def _pair(self, writer: GraphWriter, op: str, value: ir.Value, name: str, *numbers: float) -> ir.Value:
        scale, zero_point = numbers or (0.05, self.zero_point)
        stored = zero_point - (0 if self.dtype is np.uint8 else 128)
        constants = [
            writer.constant(np.float32(scale), f"{name}/s"),
            writer.constant(np.array(stored, self.dtype), f"{name}/z"),
        ]
        return writer.op(op, [value, *constants], name)


def run(model: ir.Model, codes: NDArray[np.uint8]) -> NDArray[Any]:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": codes})[0])


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph if not node.op_type.endswith("Linear")]


@settings(max_examples=40)
@given(
    network=st.builds(
        Network,
        window=st.sampled_from([(3, 3), (1, 3), (5, 5), (3, 7)]),
        strides=st.sampled_from([(1, 1), (2, 2), (2, 1)]),
        zero_point=st.integers(0, 255),
        pivot=st.sampled_from([0, 128, 255]),
        nudge=st.sampled_from([1.0, 1 + 2.0**-15]),
    ),
    seed=st.integers(0, 1000),
    levels=st.sampled_from([2, 3, 256]),
)
def test_codes_are_equal_bit_for_bit(network: Network, seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.choice(rng.integers(0, 256, levels), (1, *SHAPE)).astype(np.uint8)
    model = network.build()
    assert AverageAsConvolution()(model).modified
    assert kinds(model) == ["Relu", "Conv"]
    np.testing.assert_array_equal(run(model, codes), run(network.build(), codes))
    assert not AverageAsConvolution()(model).modified


def test_the_pipeline_keeps_the_tensors_on_both_sides() -> None:
    twins = {name: TensorTwin(name, "same", 0) for name in ("codes", "mean")}
    rewritten = run_pipeline(Network().build(), "cpu", twins)
    assert rewritten.passes == ("average as convolution",)
    assert rewritten.twins == twins


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"window": (2, 2)}, "a mean of 4 codes may be a tie", id="even"),
        pytest.param({"window": (7, 7)}, "a mean of 49 codes may be", id="large"),
        pytest.param({"padding": "SAME_UPPER"}, "it pads, and does not count", id="padding"),
        pytest.param({"scale_out": 0.06}, "it changes the scale", id="requantised"),
        pytest.param({"dtype": np.int8}, "its codes are int8", id="int8"),
        pytest.param({"ceil_mode": 1}, "reach beyond the picture", id="ceil"),
    ],
)
def test_other_pools_stay_with_the_reason(change: dict[str, Any], reason: str) -> None:
    model = replace(Network(), **change).build()
    (skipped,) = AverageAsConvolution().rewrite(model.graph)
    assert isinstance(skipped, Skipped)
    assert reason in skipped.reason
    assert kinds(model) == ["Relu", "AveragePool"]
