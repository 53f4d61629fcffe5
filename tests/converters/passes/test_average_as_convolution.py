"""Average pools become depthwise convolutions of ones, and no code changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.passes.depthwise import AverageAsConvolution
from tests.converters.passes.networks import QdqWriter, assert_bits_stay, assert_declined, kinds, rewritten

if TYPE_CHECKING:
    import onnx_ir as ir


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
        net = QdqWriter([1, 3, 9, 11], dtype=self.dtype, zero_point=self.zero_point)
        codes = net.between("Relu", [net.x], "codes")
        nudged = net.link("DequantizeLinear", codes, "nudged", 0.05 * self.nudge, self.pivot)
        attributes: dict[str, Any] = {"kernel_shape": self.window, "strides": self.strides, "auto_pad": self.padding}
        real = net.writer.op("AveragePool", [nudged], "pool", ceil_mode=self.ceil_mode, **attributes)
        return net.model(net.link("QuantizeLinear", real, "mean", self.scale_out, self.pivot))


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
)
def test_codes_are_equal_bit_for_bit(network: Network, seed: int) -> None:
    model = assert_bits_stay(AverageAsConvolution(), network.build, seed=seed)
    assert [kind for kind in kinds(model).split() if not kind.endswith("Linear")] == ["Relu", "Conv"]


def test_the_pipeline_keeps_the_tensors_on_both_sides() -> None:
    kept = ("kept", None)
    assert rewritten(Network().build(), "codes", "mean") == (("average as convolution",), {"codes": kept, "mean": kept})


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
    assert_declined(AverageAsConvolution(), replace(Network(), **change).build(), reason)
