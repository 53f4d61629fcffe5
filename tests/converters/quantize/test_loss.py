"""A network that 8 bits ruin is told with what was measured; one that they suit is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.quantize.network import FEWEST_BOXES, QuantizationLoss, quantize_network
from converters.spec import Rescaling
from tests.converters.quantize.float_networks import FloatNetwork, imported, options, spec_of

if TYPE_CHECKING:
    import onnx_ir as ir

UNIT = Rescaling(1 / 255, 0.0)


def depthwise(net: FloatNetwork, x: ir.Value) -> ir.Value:
    """Channels of a depthwise convolution with weights a thousandfold apart, made equal behind it, as training may."""
    op = net.writer.op
    x = op("Relu", [net.conv(x, (8, 3, 3, 3), "c1", strides=[2, 2])], "relu")
    spread = np.logspace(-3, 0, 8, dtype=np.float32)
    weights = net.rng.normal(size=(8, 1, 3, 3)).astype(np.float32) * spread.reshape(-1, 1, 1, 1)
    x = op(
        "Conv", [x, net.writer.constant(weights, "dw/w")], "dw",
        kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=8,
    )  # fmt: skip
    mixing = net.rng.normal(size=(12, 8, 1, 1)).astype(np.float32) / spread.reshape(1, -1, 1, 1)
    return op("Conv", [x, net.writer.constant(mixing, "pw/w")], "pw", kernel_shape=[1, 1], strides=[2, 2])


def plain(net: FloatNetwork, x: ir.Value) -> ir.Value:
    x = net.writer.op("Relu", [net.conv(x, (8, 3, 3, 3), "c1", strides=[2, 2])], "relu")
    return net.conv(x, (12, 8, 3, 3), "c2", strides=[2, 2])


def test_one_scale_for_all_channels_of_a_depthwise_convolution_is_told_with_the_number() -> None:
    net, network = imported(depthwise, UNIT)
    _, quantised = quantize_network(net.writer, network, spec_of(net, 4, 12), options("per-tensor"))
    assert quantised.notes[0].startswith(
        "--quantize per-tensor costs this network much: in 8 calibration photographs, its outputs are "
    )
    assert "--quantize per-channel keeps more" in quantised.notes[0]


@pytest.mark.parametrize("quantize", ["per-channel", "per-tensor"])
def test_a_network_that_keeps_its_outputs_is_not(quantize: str) -> None:
    net, network = imported(plain, UNIT)
    writer, quantised = quantize_network(net.writer, network, spec_of(net, 4, 12), options(quantize))
    assert quantised.notes == ()
    assert not writer.graph.outputs


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (QuantizationLoss(8, FEWEST_BOXES, 7, 3.0), None),
        (
            QuantizationLoss(8, 20, 13, 30.0),
            "of the 20 boxes that the float network finds, the int8 one finds 13 again (65%)",
        ),
        (QuantizationLoss(8, 3, 0, 12.0), None),
        (QuantizationLoss(8, 3, 3, 4.25), "its outputs are 4.2 dB above their noise"),
    ],
)
def test_boxes_count_where_there_are_enough_and_noise_elsewhere(loss: QuantizationLoss, said: str | None) -> None:
    warning = loss.warning("per-tensor")
    assert (warning is None) if said is None else (warning is not None and said in warning)
