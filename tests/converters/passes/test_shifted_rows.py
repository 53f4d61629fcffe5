"""Depthwise convolutions of few channels run on groups of pixels, and no code changes."""

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
from converters.passes.pipelines import run_pipeline
from converters.passes.shifted_rows import ShiftedRows, row_parts
from converters.passes.split_weights import split_columns
from converters.passes.weights import codes_behind, dequantized
from converters.spec import TensorTwin

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Network:
    """One quantised depthwise convolution; ``width`` is that of its result."""

    channels: int = 16
    width: int = 32
    height: int = 20
    kernel: tuple[int, int] = (3, 3)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    zero_point: int = 9
    weight_dtype: type[Any] = np.int8
    weight_zero_point: int = 0
    per_channel: bool = True
    bias: bool = True
    batch: int | str = 1
    automatic: bool = False
    seed: int = 0

    @property
    def size(self) -> tuple[int, int]:
        top, left, bottom, right = self.pads
        return self.height - top - bottom + self.kernel[0] - 1, self.width - left - right + self.kernel[1] - 1

    def build(self) -> ir.Model:
        rng, c = np.random.default_rng(self.seed), self.channels
        writer = GraphWriter("net")
        value = writer.input("x", ir.DataType.UINT8, [self.batch, c, *self.size])
        numbers = [writer.constant(np.float32(0.02), "s"), writer.constant(np.uint8(self.zero_point), "z")]
        operands = [writer.op("DequantizeLinear", [value, *numbers], "x/d")]
        scale = rng.uniform(0.001, 0.01, (c,) if self.per_channel else ()).astype(np.float32)
        info = np.iinfo(self.weight_dtype)
        weights = rng.integers(info.min, info.max + 1, (c, 1, *self.kernel)).astype(self.weight_dtype)
        if self.weight_dtype is np.uint8:
            weights[0, 0, 0, :2] = 0, 255
        zero_points = np.full(scale.shape, self.weight_zero_point, self.weight_dtype)
        operands.append(dequantized(writer, (weights, scale, zero_points), "w"))
        if self.bias:
            bias = rng.integers(-3000, 3000, c).astype(np.int32)
            zeros = np.zeros(scale.shape, np.int32)
            operands.append(dequantized(writer, (bias, scale * np.float32(0.02), zeros), "b"))
        pads: dict[str, Any] = {"auto_pad": "SAME_UPPER"} if self.automatic else {"pads": self.pads}
        real = writer.op("Conv", operands, "conv", group=c, strides=self.strides, dilations=self.dilations, **pads)
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
        shape = (self.batch if isinstance(self.batch, int) else 1, self.channels, *self.size)
        codes = np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)
        return np.asarray(session.run(None, {"x": codes})[0])


def groups(model: ir.Model) -> list[int]:
    return [node.attributes.get_int("group", 1) for node in model.graph if node.op_type == "Conv"]


@settings(max_examples=60)
@given(
    st.builds(
        Network,
        channels=st.sampled_from([8, 16, 24, 32]),
        width=st.sampled_from([28, 32, 40]),
        height=st.integers(38, 41),
        kernel=st.sampled_from([(3, 3), (5, 5), (1, 2), (2, 4)]),
        pads=st.tuples(*[st.integers(0, 1)] * 4),
        zero_point=st.sampled_from([0, 9, 255]),
        per_channel=st.booleans(),
        bias=st.booleans(),
        batch=st.sampled_from([1, 2]),
        seed=st.integers(0, 1000),
    )
)
def test_codes_are_equal_bit_for_bit(network: Network) -> None:
    model, expected = network.build(), network.run(network.build())
    assert ShiftedRows()(model).modified
    np.testing.assert_array_equal(network.run(model), expected)
    pixels = {28: 4, 32: 16 if network.channels <= 16 else 8, 40: 8}[network.width]
    assert groups(model) == [network.channels * pixels]
    assert not ShiftedRows()(model).modified


@settings(max_examples=30)
@given(
    network=st.builds(
        Network,
        channels=st.sampled_from([8, 32, 64]),
        kernel=st.sampled_from([(3, 3), (2, 4)]),
        pads=st.tuples(*[st.integers(0, 1)] * 4),
        weight_zero_point=st.integers(0, 255).filter(lambda zero: zero != 128),
        per_channel=st.booleans(),
        seed=st.integers(0, 1000),
    )
)
def test_weights_beyond_int8_are_split(network: Network) -> None:
    network = replace(network, weight_dtype=np.uint8)
    model, expected = network.build(), network.run(network.build())
    assert ShiftedRows()(model).modified
    np.testing.assert_array_equal(network.run(model), expected)
    (conv,) = (node for node in model.graph if node.op_type == "Conv")
    codes = codes_behind(conv.inputs[1])
    assert codes is not None
    assert codes.dtype == np.int8
    assert codes.shape[3] > network.kernel[1]


def test_a_weight_of_255_is_the_sum_of_three() -> None:
    kernel, columns = split_columns(np.array([[[[0, 255, -7]]]]))
    assert kernel.tolist() == [[[[0, 127, 127, 1, -7]]]]
    assert columns == (0, 1, 1, 1, 2)


def test_rows_may_be_strided_and_padding_wide() -> None:
    network = Network(height=90, kernel=(5, 5), pads=(2, 2, 2, 2), strides=(2, 1))
    model = network.build()
    assert ShiftedRows()(model).modified
    np.testing.assert_array_equal(network.run(model), network.run(network.build()))


@given(
    width=st.integers(1, 300),
    times=st.lists(st.integers(1, 3), min_size=2, max_size=7),
    pads=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    group=st.sampled_from([2, 4, 8]),
)
def test_every_column_of_the_kernel_finds_its_pixels(
    width: int, times: list[int], pads: tuple[int, int], group: int
) -> None:
    left, right = (min(pad, len(times) - 1) for pad in pads)
    results = (width + left + right - len(times) + 1) // group * group
    columns = [column for column, n in enumerate(times) for _ in range(n)]
    apart, padding = row_parts(width, columns, (left, right), group)
    row: list[int | None] = []
    for pixels in padding[:-1]:
        row += [None] * pixels + list(range(width))
    row += [None] * padding[-1]
    for result in range(results):
        for copy, column in enumerate(columns):
            pixel = result + column - left
            found = row[copy * apart * group + result]
            assert found == (pixel if 0 <= pixel < width else None)


def test_weights_are_followed() -> None:
    twins = {name: TensorTwin(name, "same", 0) for name in ("w/codes", "b/codes", "y")}
    rewritten = run_pipeline(Network().build(), "cpu", twins)
    assert rewritten.passes == ("shifted rows",)
    told = {name: (twin.fate, twin.by) for name, twin in rewritten.twins.items()}
    copied = ("replicated", "shifted rows")
    assert told == {"w/codes": copied, "b/codes": copied, "y": ("kept", None)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"width": 33}, "has no whole groups", id="width"),
        pytest.param({"height": 8}, "its result of 8 x 32 is small", id="small"),
        pytest.param({"strides": (1, 2)}, "its columns are not next to each other", id="stride"),
        pytest.param({"dilations": (1, 2)}, "its columns are not next to each other", id="dilation"),
        pytest.param({"automatic": True}, "its padding is automatic", id="automatic"),
        pytest.param({"batch": "N"}, "its batch is open", id="batch"),
    ],
)
def test_others_stay_with_the_reason(change: dict[str, Any], reason: str) -> None:
    model = replace(Network(), **change).build()
    (skipped,) = ShiftedRows().rewrite(model.graph)
    assert isinstance(skipped, Skipped)
    assert reason in skipped.reason
    assert groups(model) == [16]


def test_channels_that_fill_no_step_need_not_be_filled() -> None:
    network = Network(channels=8)
    model = network.build()
    assert run_pipeline(model, "cpu", {}).passes == ("shifted rows",)
    np.testing.assert_array_equal(network.run(model), network.run(network.build()))


def test_many_channels_are_left_alone() -> None:
    assert list(ShiftedRows().rewrite(Network(channels=64).build().graph)) == []
