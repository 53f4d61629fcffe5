"""Depthwise convolutions get channels of zeros up to whole steps of the kernel, and no code changes."""

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
from converters.passes.full_channels import FullChannels
from converters.passes.pipelines import run_pipeline
from converters.spec import TensorTwin

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Network:
    """Convolution 1x1 -> clamp -> depthwise 3x3 (twice, with a pool between) -> convolution 1x1, quantised."""

    channels: int = 24
    stride: int = 1
    weights: type[Any] = np.int8
    weight_zero_point: int = 0
    per_channel: bool = True
    bias: bool = True
    between: str = "clamp"
    dtype: type[Any] = np.uint8
    batch: int | str = 1
    seed: int = 0

    def build(self) -> ir.Model:
        rng = np.random.default_rng(self.seed)
        writer = GraphWriter("net")
        kind = ir.DataType.UINT8 if self.dtype is np.uint8 else ir.DataType.INT8
        value = writer.input("x", kind, [self.batch, 5, 8, 8])
        c = self.channels
        value = self._conv(writer, value, rng, (c, 5, 1, 1), "expand")
        if self.between == "clamp":
            value = self._between(writer, value, "Clip", "clamp")
        value = self._conv(writer, value, rng, (c, 1, 3, 3), "depthwise", strides=[self.stride] * 2)
        value = self._between(writer, value, "MaxPool", "pool")
        if self.between == "softmax":
            value = self._between(writer, value, "Softmax", "softmax")
        if self.between == "output":
            writer.graph.outputs.append(value)
            value.type = ir.TensorType(kind)
        value = self._conv(writer, value, rng, (c, 1, 3, 3), "again")
        value = self._conv(writer, value, rng, (7, c, 1, 1), "project")
        writer.graph.outputs.insert(0, value)
        value.type = ir.TensorType(kind)
        model = ir.Model(writer.graph, ir_version=IR_VERSION)
        infer_shapes(model)
        return model

    def _link(self, writer: GraphWriter, name: str) -> list[ir.Value]:
        zero = np.array(9 if self.dtype is np.uint8 else -119, self.dtype)
        return [writer.constant(np.float32(0.05), f"{name}/s"), writer.constant(zero, f"{name}/z")]

    def _between(self, writer: GraphWriter, value: ir.Value, op: str, name: str) -> ir.Value:
        real = writer.op("DequantizeLinear", [value, *self._link(writer, f"{name}/d")], f"{name}/d")
        if op == "Clip":
            bounds = [writer.constant(np.float32(b), f"{name}/{b}") for b in (0, 6)]
            real = writer.op("Clip", [real, *bounds], f"{name}/f")
        elif op == "MaxPool":
            real = writer.op("MaxPool", [real], f"{name}/f", kernel_shape=[2, 2])
        else:
            real = writer.op("Softmax", [real], f"{name}/f", axis=1)
        return writer.op("QuantizeLinear", [real, *self._link(writer, name)], name)

    def _conv(
        self,
        writer: GraphWriter,
        value: ir.Value,
        rng: np.random.Generator,
        shape: tuple[int, int, int, int],
        name: str,
        **attributes: Any,
    ) -> ir.Value:
        info = np.iinfo(self.weights)
        size = (shape[0],) if self.per_channel else ()
        scale = rng.uniform(0.002, 0.01, size).astype(np.float32)
        axis = {"axis": 0} if self.per_channel else {}
        parts = {"w": rng.integers(info.min, info.max + 1, shape).astype(self.weights)}
        if self.bias:
            parts["b"] = rng.integers(-2000, 2000, shape[0]).astype(np.int32)
        reals = []
        for part, codes in parts.items():
            zero = self.weight_zero_point if part == "w" else 0
            constants = [
                writer.constant(codes, f"{name}/{part}"),
                writer.constant(scale if part == "w" else np.float32(0.05) * scale, f"{name}/{part}/s"),
                writer.constant(np.full(size, zero, codes.dtype), f"{name}/{part}/z"),
            ]
            reals.append(writer.op("DequantizeLinear", constants, f"{name}/{part}/d", **axis))
        real = writer.op("DequantizeLinear", [value, *self._link(writer, f"{name}/x")], f"{name}/x")
        group = shape[0] if shape[1] == 1 else 1
        pads = [shape[2] // 2] * 4
        real = writer.op(
            "Conv", [real, *reals], f"{name}/f", kernel_shape=shape[2:], group=group, pads=pads, **attributes
        )
        return writer.op("QuantizeLinear", [real, *self._link(writer, name)], name)


@dataclass(frozen=True)
class Residual(Network):
    """Convolution 1x1 -> depthwise 3x3 and convolution 1x1, beside a Pad of the channels -> sum -> the same again.

    Attributes:
        wider: channels behind the Pad.
        sum_of: operator that puts both branches together.
        edges: what the Pad adds: in front of the channels, behind them, around the picture, as its operand has it.
        value: what it pads with.
        pad_scale: scale behind it.
    """

    wider: int = 28
    sum_of: str = "Add"
    edges: tuple[int, ...] | None = None
    value: float = 0.0
    pad_scale: float = 0.05

    def build(self) -> ir.Model:
        rng = np.random.default_rng(self.seed)
        writer = GraphWriter("net")
        value = writer.input("x", ir.DataType.UINT8, [self.batch, 5, 8, 8])
        c, wider = self.channels, self.wider
        before = self._conv(writer, value, rng, (c, 5, 1, 1), "expand")
        value = self._conv(writer, before, rng, (c, 1, 3, 3), "depthwise")
        value = self._conv(writer, value, rng, (wider, c, 1, 1), "widen")
        real = writer.op("DequantizeLinear", [before, *self._link(writer, "pad/d")], "pad/d")
        edges = (0, 0, 0, 0, 0, wider - c, 0, 0) if self.edges is None else self.edges
        operands = [writer.constant(np.array(edges), "pad/edges"), writer.constant(np.float32(self.value), "pad/value")]
        real = writer.op("Pad", [real, *operands], "pad/f")
        link = [writer.constant(np.float32(self.pad_scale), "pad/s"), self._link(writer, "pad")[1]]
        padded = writer.op("QuantizeLinear", [real, *link], "pad")
        reals = [
            writer.op("DequantizeLinear", [v, *self._link(writer, f"sum/{k}")], f"sum/{k}")
            for k, v in enumerate((padded, value))
        ]
        real = writer.op(self.sum_of, reals, "sum/f")
        value = writer.op("QuantizeLinear", [real, *self._link(writer, "sum")], "sum")
        value = self._conv(writer, value, rng, (wider, 1, 3, 3), "again")
        value = self._conv(writer, value, rng, (7, wider, 1, 1), "project")
        writer.graph.outputs.append(value)
        value.type = ir.TensorType(ir.DataType.UINT8)
        model = ir.Model(writer.graph, ir_version=IR_VERSION)
        infer_shapes(model)
        return model


def run(model: ir.Model) -> NDArray[Any]:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    codes = np.random.default_rng(3).integers(0, 256, (1, 5, 8, 8)).astype(np.uint8)
    return np.asarray(session.run(None, {"x": codes})[0])


def shapes(model: ir.Model) -> list[tuple[list[int], int]]:
    found = []
    for conv in (node for node in model.graph if node.op_type == "Conv"):
        dequantize = conv.inputs[1].producer() if conv.inputs[1] is not None else None
        assert dequantize is not None
        codes = dequantize.inputs[0]
        assert codes is not None
        assert codes.const_value is not None
        found.append((list(codes.const_value.shape.numpy()), conv.attributes.get_int("group", 1)))
    return found


@settings(max_examples=40)
@given(
    network=st.builds(
        Network,
        channels=st.sampled_from([8, 9, 15, 17, 24, 40]),
        stride=st.sampled_from([1, 2]),
        per_channel=st.booleans(),
        bias=st.booleans(),
        between=st.sampled_from(["clamp", "nothing"]),
        batch=st.sampled_from([1, "N"]),
        seed=st.integers(0, 1000),
    ),
    kind=st.sampled_from(["signed", "unsigned"]),
)
def test_codes_are_equal_bit_for_bit(network: Network, kind: str) -> None:
    if kind == "unsigned":
        network = replace(network, weights=np.uint8, weight_zero_point=131, per_channel=False)
    model = network.build()
    expected = run(network.build())
    assert FullChannels()(model).modified
    np.testing.assert_array_equal(run(model), expected)
    full = -(-network.channels // 16) * 16
    inner = ([full, 1, 3, 3], full)
    assert shapes(model) == [([full, 5, 1, 1], 1), inner, inner, ([7, full, 1, 1], 1)]
    assert not FullChannels()(model).modified


@settings(max_examples=30)
@given(
    network=st.builds(
        Residual,
        channels=st.sampled_from([8, 16, 24, 28, 30]),
        wider=st.sampled_from([30, 32, 40, 48]),
        sum_of=st.sampled_from(["Add", "Mul"]),
        per_channel=st.booleans(),
        batch=st.sampled_from([1, "N"]),
        seed=st.integers(0, 1000),
    )
)
def test_residuals_of_more_channels_keep_their_bits(network: Residual) -> None:
    model = network.build()
    expected = run(network.build())
    full, wide = (-(-n // 16) * 16 for n in (network.channels, network.wider))
    changed = FullChannels()(model).modified
    assert changed == bool(network.channels % 16 or network.wider % 16)
    np.testing.assert_array_equal(run(model), expected)
    inner = [([full, 1, 3, 3], full), ([wide, full, 1, 1], 1), ([wide, 1, 3, 3], wide)]
    assert shapes(model) == [([full, 5, 1, 1], 1), *inner, ([7, wide, 1, 1], 1)]
    pads = [node.op_type for node in model.graph].count("Pad")
    assert pads == (not changed or full < wide)
    assert not FullChannels()(model).modified


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"edges": (0, 1, 0, 0, 0, 3, 0, 0)}, "other than behind the channels", id="in front"),
        pytest.param({"value": 1.0}, "pads with another value than 0", id="ones"),
        pytest.param({"pad_scale": 0.06}, "equal scale and zero-point", id="requantised"),
        pytest.param({"sum_of": "Sub"}, "does not work on each channel by itself", id="a difference"),
        pytest.param({"channels": 1, "wider": 24, "edges": (0,) * 8}, "other channels than", id="broadcast"),
    ],
)
def test_other_residuals_stay_with_the_reason(change: dict[str, Any], reason: str) -> None:
    model = replace(Residual(channels=24), **change).build()
    before = shapes(model)
    outcomes = list(FullChannels().rewrite(model.graph))
    assert outcomes
    assert all(isinstance(outcome, Skipped) for outcome in outcomes)
    assert any(isinstance(outcome, Skipped) and reason in outcome.reason for outcome in outcomes)
    assert shapes(model) == before


def test_weights_and_tensors_between_are_followed() -> None:
    twins = {name: TensorTwin(name, "same", 0) for name in ("depthwise/w", "project/w", "project/b", "pool", "project")}
    rewritten = run_pipeline(Network().build(), "cpu", twins)
    assert rewritten.passes == ("full channels", "clamp codes")
    told = {name: (twin.fate, twin.by) for name, twin in rewritten.twins.items()}
    assert told == {
        "depthwise/w": ("replicated", "full channels"),
        "project/w": ("replicated", "full channels"),
        "project/b": ("kept", None),
        "pool": ("replicated", "full channels"),
        "project": ("kept", None),
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"channels": 7}, "it has 7 channels", id="few channels"),
        pytest.param({"dtype": np.int8}, "codes that are not uint8", id="int8 codes"),
        pytest.param({"between": "softmax"}, "Softmax", id="channels that meet"),
        pytest.param({"between": "output"}, "pool is an input or output of the graph", id="an output between"),
    ],
)
def test_it_declines_with_a_reason(change: dict[str, Any], reason: str) -> None:
    model = replace(Network(), **change).build()
    before = shapes(model)
    outcomes = list(FullChannels().rewrite(model.graph))
    assert outcomes
    for outcome in outcomes:
        assert isinstance(outcome, Skipped)
        assert reason in outcome.reason
    assert shapes(model) == before


def test_whole_steps_of_the_kernel_are_left_alone() -> None:
    assert list(FullChannels().rewrite(Network(channels=32).build().graph)) == []
