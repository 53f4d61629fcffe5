"""Average pools become depthwise convolutions, and those of few channels run on groups of pixels; no code changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.passes import run_pipeline
from converters.passes.depthwise import AverageAsConvolution, ShiftedRows, row_parts
from converters.passes.weights import codes_behind
from tests.converters.passes.networks import (
    Convolution,
    QdqWriter,
    assert_bits_stay,
    assert_declined,
    assert_equal,
    kinds,
    rewritten,
    run,
)

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Average:
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
        net = QdqWriter([1, 3, 9, 11], dtype=self.dtype, zero_point=self.zero_point)
        codes = net.between("Relu", [net.x], "codes")
        nudged = net.link("DequantizeLinear", codes, "nudged", 0.05 * self.nudge, self.pivot)
        attributes: dict[str, Any] = {"kernel_shape": self.window, "strides": self.strides, "auto_pad": self.padding}
        real = net.writer.op("AveragePool", [nudged], "pool", ceil_mode=self.ceil_mode, **attributes)
        return net.model(net.link("QuantizeLinear", real, "mean", self.scale_out, self.pivot))


@settings(max_examples=40)
@given(
    network=st.builds(
        Average,
        window=st.sampled_from([(3, 3), (1, 3), (5, 5), (3, 7)]),
        strides=st.sampled_from([(1, 1), (2, 2), (2, 1)]),
        zero_point=st.integers(0, 255),
        pivot=st.sampled_from([0, 128, 255]),
        nudge=st.sampled_from([1.0, 1 + 2.0**-15]),
    ),
    seed=st.integers(0, 1000),
)
def test_codes_of_averages_are_equal_bit_for_bit(network: Average, seed: int) -> None:
    model = assert_bits_stay(AverageAsConvolution(), network.build, seed=seed)
    assert [kind for kind in kinds(model).split() if not kind.endswith("Linear")] == ["Relu", "Conv"]


def test_the_pipeline_keeps_the_tensors_on_both_sides() -> None:
    kept = ("kept", None)
    assert rewritten(Average().build(), "codes", "mean") == (("average as convolution",), {"codes": kept, "mean": kept})


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
    assert_declined(AverageAsConvolution(), replace(Average(), **change).build(), reason)


def depthwise(channels: int = 16, result: tuple[int, int] = (20, 32), **changes: Any) -> Convolution:
    """A depthwise convolution with a result of that height and width."""
    network = replace(Convolution(channels, channels, group=channels), **changes)
    top, left, bottom, right = network.pads or (1, 1, 1, 1)
    rows, columns = network.kernel
    height, width = result
    return replace(network, size=(height - top - bottom + rows - 1, width - left - right + columns - 1))


def groups(model: ir.Model) -> list[int]:
    return [node.attributes.get_int("group", 1) for node in model.graph if node.op_type == "Conv"]


@settings(max_examples=60)
@given(
    channels=st.sampled_from([8, 16, 24, 32]),
    width=st.sampled_from([28, 32, 40]),
    height=st.integers(38, 41),
    changes=st.fixed_dictionaries({
        "kernel": st.sampled_from([(3, 3), (5, 5), (1, 2), (2, 4)]),
        "pads": st.tuples(*[st.integers(0, 1)] * 4),
        "zero_point": st.sampled_from([0, 9, 255]),
        "per_channel": st.booleans(),
        "bias": st.sampled_from(["int32", None]),
        "batch": st.sampled_from([1, 2]),
        "seed": st.integers(0, 1000),
    }),
)  # fmt: skip
def test_codes_are_equal_bit_for_bit(channels: int, width: int, height: int, changes: dict[str, Any]) -> None:
    model = assert_bits_stay(ShiftedRows(), depthwise(channels, (height, width), **changes).build)
    pixels = {28: 4, 32: 16 if channels <= 16 else 8, 40: 8}[width]
    assert groups(model) == [channels * pixels]


@settings(max_examples=30)
@given(
    channels=st.sampled_from([8, 32, 64]),
    changes=st.fixed_dictionaries({
        "kernel": st.sampled_from([(3, 3), (2, 4)]),
        "pads": st.tuples(*[st.integers(0, 1)] * 4),
        "weight_zero_point": st.integers(0, 255).filter(lambda zero: zero != 128),
        "per_channel": st.booleans(),
        "seed": st.integers(0, 1000),
    }),
)  # fmt: skip
def test_weights_beyond_int8_are_split(channels: int, changes: dict[str, Any]) -> None:
    network = depthwise(channels, weight_dtype=np.uint8, **changes)
    model = assert_bits_stay(ShiftedRows(), network.build)
    (conv,) = (node for node in model.graph if node.op_type == "Conv")
    codes = codes_behind(conv.inputs[1])
    assert codes is not None
    assert codes.dtype == np.int8
    assert codes.shape[3] > network.kernel[1]


def test_rows_may_be_strided_and_padding_wide() -> None:
    network = depthwise(result=(90, 32), kernel=(5, 5), pads=(2, 2, 2, 2), strides=(2, 1))
    assert_bits_stay(ShiftedRows(), network.build)


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
    copied = ("replicated", "shifted rows")
    fates = {"conv/w/codes": copied, "conv/b/codes": copied, "conv": ("kept", None)}
    assert rewritten(depthwise().build(), *fates) == (("shifted rows",), fates)


@pytest.mark.parametrize(
    ("result", "change", "reason"),
    [
        pytest.param((20, 33), {}, "has no whole groups", id="width"),
        pytest.param((8, 32), {}, "its result of 8 x 32 is small", id="small"),
        pytest.param((20, 32), {"strides": (1, 2)}, "its columns are not next to each other", id="stride"),
        pytest.param((20, 32), {"dilations": (1, 2)}, "its columns are not next to each other", id="dilation"),
        pytest.param((20, 32), {"pads": None}, "its padding is automatic", id="automatic"),
        pytest.param((20, 32), {"batch": "N"}, "its batch is open", id="batch"),
    ],
)
def test_others_stay_with_the_reason(result: tuple[int, int], change: dict[str, Any], reason: str) -> None:
    assert_declined(ShiftedRows(), depthwise(result=result, **change).build(), reason)


def test_channels_that_fill_no_step_need_not_be_filled() -> None:
    network = depthwise(8)
    model = network.build()
    assert run_pipeline(model, "cpu", {}).passes == ("shifted rows",)
    assert_equal(run(model), run(network.build()))


def test_many_channels_are_left_alone() -> None:
    assert_declined(ShiftedRows(), depthwise(64).build())
