"""Depthwise convolutions on groups of pixels: an honest conversion passes, and what is wrong in it is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.converters.sources.tflite.networks import HEAD_CHANNELS, NetworkBuilder
from tests.xdet.checking import keras_faults
from tests.xdet.checking.numbers.cpu_conversions import convert_for_cpu, require_sound, verdict_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx

CONV = "depthwise_conv_2d_2/float/rows"
PASSES = ("fold pad", "full channels", "strided stem", "shifted rows", "cancel transposes")


def network() -> bytes:
    """Depthwise convolutions of 28 (filled) and 24 channels, SAME and behind a PAD, at 32 x 32."""
    net = NetworkBuilder(64).conv(28, stride=2, activation="RELU").depthwise(activation="RELU")
    net.conv(12, 1).conv(24, 1).pad(1, 1).depthwise(padding="VALID").conv(16, 3, 2)
    return net.conv(HEAD_CHANNELS, 1).build()


def dilation(proto: onnx.ModelProto) -> None:
    """Copies one group further apart."""
    (conv,) = (node for node in proto.graph.node if node.name == f"{CONV}/float")
    (found,) = (attribute for attribute in conv.attribute if attribute.name == "dilations")
    found.ints[1] -= 1


def other_row(proto: onnx.ModelProto) -> None:
    """Another value in place of a copy, and the copies in another order."""
    (concat,) = (node for node in proto.graph.node if node.name == f"{CONV}/copies")
    concat.input[0], concat.input[1] = concat.input[1], concat.input[0]


def exchanged_operands(proto: onnx.ModelProto) -> None:
    """The picture as the weights, and the weights as the picture."""
    (conv,) = (node for node in proto.graph.node if node.name == f"{CONV}/float")
    conv.input[0], conv.input[1] = conv.input[1], conv.input[0]


FAULTS: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "weight": (lambda p: keras_faults.edit(p, f"{CONV}/weights/codes", lambda codes: codes ^ np.int8(1)), "weight"),
    "bias": (lambda p: keras_faults.edit(p, f"{CONV}/bias/codes", lambda codes: codes + np.int32(1)), "bias"),
    "padding": (lambda p: keras_faults.edit(p, f"{CONV}/1", lambda codes: codes + np.uint8(1)), "padding"),
    "order": (other_row, "padding"),
    "distance": (dilation, "attributes"),
}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_for_cpu(network(), tmp_path_factory.mktemp("shifted"))


def test_an_honest_conversion_passes(converted: Path) -> None:
    require_sound(converted, *PASSES)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_named(name: str, converted: Path, tmp_path: Path) -> None:
    fault, expected = FAULTS[name]
    verdict = verdict_on(fault, converted, tmp_path)
    assert [(finding.cause, finding.layer) for finding in verdict.findings] == [(expected, "depthwise_conv_2d_2")]


def test_weights_that_are_computed_are_named(converted: Path, tmp_path: Path) -> None:
    finding, *_ = verdict_on(exchanged_operands, converted, tmp_path).findings
    assert (finding.cause, finding.layer) == ("missing-tensor", "depthwise_conv_2d_2")
    assert "are no constant of the graph" in finding.message
