"""Average pools as convolutions, residuals of more channels: honest conversions pass, what is wrong is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.converters.sources.tflite.networks import HEAD_CHANNELS, NetworkBuilder
from tests.xdet.checking import keras_faults
from tests.xdet.checking.numbers.cpu_conversions import convert_for_cpu, verdict_on
from xdet.checking.numbers import check_static
from xdet.checking.pair import open_pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx

PASSES = ("average as convolution", "fold pad", "full channels", "strided stem", "cancel transposes", "pad codes")


def network() -> bytes:
    """A stem, an average pool of 24 channels behind a PAD, residuals of 24, 28 and 40 channels."""
    net = NetworkBuilder(64).conv(24, stride=2, activation="RELU").pad(0, 1).average_pool()
    net.residual(24).residual(28).residual(40, activation="NONE").pad(1, 1).average_pool()
    return net.conv(16, 1).conv(HEAD_CHANNELS, 1).build()


def attribute(name: str, *numbers: int) -> Callable[[onnx.ModelProto], None]:
    """Other numbers for the convolution that stands for the second pool."""

    def change(proto: onnx.ModelProto) -> None:
        (conv,) = (node for node in proto.graph.node if node.name == "average_pool_2d_16/float/sum/float")
        (found,) = (attribute for attribute in conv.attribute if attribute.name == name)
        found.ints[:] = numbers

    return change


WEIGHTS = "average_pool_2d_16/float/sum/float/full/weights"
FAULTS: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "weights": (lambda p: keras_faults.edit(p, f"{WEIGHTS}/codes", lambda codes: codes * 2), "weight"),
    "scale": (lambda p: keras_faults.edit(p, f"{WEIGHTS}/scale", lambda scale: scale * np.float32(2)), "scale"),
    "padding": (attribute("pads", 0, 0, 2, 2), "padding"),
    "strides": (attribute("strides", 1, 2), "attributes"),
}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_for_cpu(network(), tmp_path_factory.mktemp("averaged"))


def test_an_honest_conversion_passes(converted: Path) -> None:
    pair = open_pair(converted, converted.with_suffix(".tflite"))
    assert pair.document.passes == PASSES
    verdict, proven = check_static(pair)
    assert (verdict.status, verdict.findings) == ("passed", ())
    assert "belong to no source tensor" not in verdict.summary
    assert sum("their scale is 1 / 9" in change.proof for change in proven) == 2


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_named(name: str, converted: Path, tmp_path: Path) -> None:
    fault, expected = FAULTS[name]
    verdict = verdict_on(fault, converted, tmp_path)
    assert [(finding.cause, finding.layer) for finding in verdict.findings] == [(expected, "average_pool_2d_16")]
