"""uint8 weights beyond int8, split in two: an honest conversion passes, and what is wrong in it is found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.networks import HEAD_CHANNELS
from tests.xdet.checking import keras_faults
from tests.xdet.checking.numbers.cpu_conversions import convert_for_cpu, require_sound, verdict_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx

STEM, DEPTHWISE = "conv_2d_0/float/groups", "depthwise_conv_2d_1/float/rows"


def network() -> bytes:
    """A stem, a depthwise convolution of its 16 channels, and the head; uint8 weights of all reach beyond int8."""
    rng, b = np.random.default_rng(0), TfliteBuilder()
    value, shape, scale = b.input("image", (1, 64, 64, 3), "uint8", 1 / 255, 0), (1, 64, 64, 3), 1 / 255
    for op, kernel, channels, stride in (
        ("CONV_2D", (16, 3, 3, 3), 16, 2),
        ("DEPTHWISE_CONV_2D", (1, 3, 3, 16), 16, 1),
        ("CONV_2D", (HEAD_CHANNELS, 1, 1, 16), HEAD_CHANNELS, 1),
    ):
        weights = rng.integers(60, 200, kernel).astype(np.uint8)
        weights[0, kernel[1] // 2, kernel[2] // 2, :2] = 0, 255
        bias = b.constant(rng.integers(-500, 500, channels).astype(np.int32), float(scale * np.float32(0.01)))
        shape, scale = (1, shape[1] // stride, shape[2] // stride, channels), 0.05
        options: dict[str, Any] = {"padding": "SAME", "stride_h": stride, "stride_w": stride}
        options |= {"depth_multiplier": 1} if op == "DEPTHWISE_CONV_2D" else {}
        operands = [value, b.constant(weights, 0.01, 100), bias]
        value = b.op(op, operands, shape, "uint8", scale, 0, fused_activation="RELU", **options)
    return b.build([b.op("DEQUANTIZE", [value], shape, "float32", name="head_real")])


def closer(proto: onnx.ModelProto) -> None:
    """Results that lie one row closer to each other."""
    (conv,) = (node for node in proto.graph.node if node.name == f"{STEM}/float")
    (found,) = (attribute for attribute in conv.attribute if attribute.name == "strides")
    found.ints[0] -= 1


def edit(name: str, change: Callable[[Any], Any]) -> Callable[[onnx.ModelProto], None]:
    return lambda proto: keras_faults.edit(proto, name, change)


FAULTS: dict[str, tuple[Callable[[onnx.ModelProto], None], str, str]] = {
    "weight of the stem": (edit(f"{STEM}/weights/codes", lambda w: w ^ np.int8(1)), "weight", "conv_2d_0"),
    "rows": (edit(f"{STEM}/rows", lambda rows: rows[::-1].copy()), "padding", "conv_2d_0"),
    "strides": (closer, "attributes", "conv_2d_0"),
    "weight on groups": (edit(f"{DEPTHWISE}/weights/codes", lambda w: w ^ np.int8(1)), "weight", "depthwise_conv_2d_1"),
}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_for_cpu(network(), tmp_path_factory.mktemp("split"))


def test_an_honest_conversion_passes(converted: Path) -> None:
    require_sound(converted, "signed weights", "strided stem", "shifted rows", "cancel transposes")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_named(name: str, converted: Path, tmp_path: Path) -> None:
    fault, cause, layer = FAULTS[name]
    verdict = verdict_on(fault, converted, tmp_path)
    assert {(finding.cause, finding.layer) for finding in verdict.findings} == {(cause, layer)}
