"""Convolutions get channels of zeros up to whole steps of the kernel, and no code changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.passes.base import DeclinedError
from converters.passes.full_channels import FullChannels, FullOutputs
from converters.passes.weights import codes_behind
from tests.converters.passes.networks import (
    Convolution,
    QdqWriter,
    assert_bits_stay,
    assert_declined,
    assert_equal,
    rewritten,
    run,
)

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Network:
    """Convolution 1x1 -> clamp -> depthwise 3x3 (twice, with a pool between) -> convolution 1x1, quantised."""

    channels: int = 24
    stride: int = 1
    weights: type[Any] = np.int8
    weight_zero_point: int = 0
    per_channel: bool = True
    bias: str | None = "int32"
    between: str = "clamp"
    dtype: type[Any] = np.uint8
    batch: int | str = 1
    seed: int = 0

    @property
    def constants(self) -> dict[str, Any]:
        """What ``QdqWriter.weights`` takes."""
        names = {"dtype": self.weights, "zero_point": self.weight_zero_point}
        return {**names, "per_channel": self.per_channel, "bias": self.bias}

    def build(self) -> ir.Model:
        net = QdqWriter([self.batch, 5, 8, 8], dtype=self.dtype, seed=self.seed)
        c, constants, outputs = self.channels, self.constants, []
        value = net.conv(net.x, (c, 5, 1, 1), "expand", constants=constants)
        if self.between == "clamp":
            value = net.between("Clip", [value], "clamp", np.float32(0), np.float32(6))
        value = net.conv(value, (c, 1, 3, 3), "depthwise", constants=constants, strides=[self.stride] * 2)
        value = net.between("MaxPool", [value], "pool", kernel_shape=[2, 2])
        if self.between == "softmax":
            value = net.between("Softmax", [value], "softmax", axis=1)
        if self.between == "output":
            outputs.append(value)
        value = net.conv(value, (c, 1, 3, 3), "again", constants=constants)
        return net.model(net.conv(value, (7, c, 1, 1), "project", constants=constants), *outputs)


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
        net = QdqWriter([self.batch, 5, 8, 8], seed=self.seed)
        c, wider, constants = self.channels, self.wider, self.constants
        before = net.conv(net.x, (c, 5, 1, 1), "expand", constants=constants)
        value = net.conv(before, (c, 1, 3, 3), "depthwise", constants=constants)
        value = net.conv(value, (wider, c, 1, 1), "widen", constants=constants)
        real = net.link("DequantizeLinear", before, "pad/d")
        edges = np.array((0, 0, 0, 0, 0, wider - c, 0, 0) if self.edges is None else self.edges)
        operands = [net.writer.constant(edges, "pad/edges"), net.writer.constant(np.float32(self.value), "pad/value")]
        real = net.writer.op("Pad", [real, *operands], "pad/f")
        padded = net.link("QuantizeLinear", real, "pad", self.pad_scale)
        value = net.between(self.sum_of, [padded, value], "sum")
        value = net.conv(value, (wider, 1, 3, 3), "again", constants=constants)
        return net.model(net.conv(value, (7, wider, 1, 1), "project", constants=constants))


def shapes(model: ir.Model) -> list[tuple[list[int], int]]:
    """Of the weights of all convolutions, with their groups."""
    convolutions = [node for node in model.graph if node.op_type == "Conv"]
    weights = [codes_behind(conv.inputs[1]) for conv in convolutions]
    groups = [conv.attributes.get_int("group", 1) for conv in convolutions]
    return [(list(w.shape), group) for w, group in zip(weights, groups, strict=True) if w is not None]


@settings(max_examples=40)
@given(
    network=st.builds(
        Network,
        channels=st.sampled_from([8, 9, 15, 17, 24, 40]),
        stride=st.sampled_from([1, 2]),
        per_channel=st.booleans(),
        bias=st.sampled_from(["int32", None]),
        between=st.sampled_from(["clamp", "nothing"]),
        batch=st.sampled_from([1, "N"]),
        seed=st.integers(0, 1000),
    ),
    kind=st.sampled_from(["signed", "unsigned"]),
)
def test_codes_are_equal_bit_for_bit(network: Network, kind: str) -> None:
    if kind == "unsigned":
        network = replace(network, weights=np.uint8, weight_zero_point=131, per_channel=False)
    model = assert_bits_stay(FullChannels(), network.build)
    full = -(-network.channels // 16) * 16
    inner = ([full, 1, 3, 3], full)
    assert shapes(model) == [([full, 5, 1, 1], 1), inner, inner, ([7, full, 1, 1], 1)]


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
    assert_equal(run(model), expected)
    inner = [([full, 1, 3, 3], full), ([wide, full, 1, 1], 1), ([wide, 1, 3, 3], wide)]
    assert shapes(model) == [([full, 5, 1, 1], 1), *inner, ([7, wide, 1, 1], 1)]
    pads = [node.op_type for node in model.graph].count("Pad")
    assert pads == (not changed or full < wide)
    assert not FullChannels()(model).modified


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        pytest.param(Network(channels=7), "it has 7 channels", id="few channels"),
        pytest.param(Network(dtype=np.int8), "codes that are not uint8", id="int8 codes"),
        pytest.param(Network(between="softmax"), "Softmax", id="channels that meet"),
        pytest.param(Network(between="output"), "pool is an input or output of the graph", id="an output between"),
        pytest.param(Residual(edges=(0, 1, 0, 0, 0, 3, 0, 0)), "other than behind the channels", id="a pad in front"),
        pytest.param(Residual(value=1.0), "pads with another value than 0", id="a pad of ones"),
        pytest.param(Residual(pad_scale=0.06), "equal scale and zero-point", id="a pad that requantises"),
        pytest.param(Residual(sum_of="Sub"), "does not work on each channel by itself", id="a difference"),
    ],
)
def test_it_declines_with_a_reason(network: Network, reason: str) -> None:
    assert_declined(FullChannels(), network.build(), reason, reason)


def test_a_sum_that_repeats_one_channel_is_declined() -> None:
    outcomes = list(FullChannels().rewrite(Residual(channels=1, wider=24, edges=(0,) * 8).build().graph))
    assert any(isinstance(outcome, DeclinedError) and "other channels than" in str(outcome) for outcome in outcomes)


def test_weights_and_tensors_between_are_followed() -> None:
    full, kept = ("replicated", "full channels"), ("kept", None)
    fates = {"depthwise/w/codes": full, "project/w/codes": full, "project/b/codes": kept, "pool": full, "project": kept}
    assert rewritten(Network().build(), *fates) == (("full channels", "clamp codes"), fates)


def test_whole_steps_of_the_kernel_are_left_alone() -> None:
    assert_declined(FullChannels(), Network(channels=32).build())


HEAD = Convolution(outputs=30, size=(64, 64), kernel=(1, 1), pads=(0, 0, 0, 0))


@settings(max_examples=30)
@given(
    inputs=st.sampled_from([16, 20]),
    outputs=st.sampled_from([25, 30, 33, 42, 255]),
    kernel=st.sampled_from([1, 3]),
    zero_point=st.sampled_from([0, 9, 255]),
    per_channel=st.booleans(),
    bias=st.sampled_from(["int32", None]),
    seed=st.integers(0, 1000),
)
def test_a_head_with_more_outputs_keeps_its_bits(outputs: int, kernel: int, **changes: Any) -> None:
    network = replace(HEAD, outputs=outputs, kernel=(kernel, kernel), pads=(kernel // 2,) * 4, **changes)
    model = assert_bits_stay(FullOutputs(), network.build)
    assert shapes(model) == [([-(-outputs // 16) * 16, network.inputs, kernel, kernel], 1)]


def test_weights_of_a_head_are_followed() -> None:
    copied = ("replicated", "full outputs")
    fates = {"conv/w/codes": copied, "conv/b/codes": copied, "conv": ("kept", None)}
    assert rewritten(HEAD.build(), *fates) == (("full outputs",), fates)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"strides": (8, 8)}, "it is small", id="small"),
        pytest.param({"size": ("H", 64)}, "has no fixed size", id="any size"),
        pytest.param({"weight_zero_point": 3}, "its weights have a zero-point", id="zero-point"),
        pytest.param({"bias": "float32"}, "its bias is float", id="float bias"),
    ],
)
def test_other_heads_stay_with_the_reason(change: dict[str, Any], reason: str) -> None:
    assert_declined(FullOutputs(), replace(HEAD, **change).build(), reason)


@pytest.mark.parametrize("change", [{"outputs": 32}, {"inputs": 18}], ids=["full", "unrolled all the same"])
def test_the_kernel_takes_others_as_they_are(change: dict[str, Any]) -> None:
    assert_declined(FullOutputs(), replace(HEAD, **change).build())
