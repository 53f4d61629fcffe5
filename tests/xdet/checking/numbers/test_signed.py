"""uint8 weights as int8 ones: an honest conversion passes, and other weights or zero-points are found."""

from __future__ import annotations

import json
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

LAYERS = ((16, 2, 100, 30, 200), (16, 2, 100, 0, 255), (32, 2, 128, 0, 255), (HEAD_CHANNELS, 1, 7, 0, 130))


def network() -> bytes:
    """Four uint8 convolutions; weights of the second reach beyond int8."""
    rng, b = np.random.default_rng(0), TfliteBuilder()
    value, shape, scale = b.input("image", (1, 64, 64, 3), "uint8", 1 / 255, 0), (1, 64, 64, 3), 1 / 255
    for channels, stride, zero_point, lowest, highest in LAYERS:
        weights = rng.integers(lowest, highest + 1, (channels, 3, 3, shape[3])).astype(np.uint8)
        weights[0, 0, 0, :2] = lowest, highest
        bias = rng.integers(-500, 500, channels).astype(np.int32)
        operands = [value, b.constant(weights, 0.01, zero_point), b.constant(bias, float(scale * np.float32(0.01)))]
        shape, scale = (1, shape[1] // stride, shape[2] // stride, channels), 0.05
        options: dict[str, Any] = {
            "padding": "SAME",
            "stride_h": stride,
            "stride_w": stride,
            "fused_activation": "RELU",
        }
        value = b.op("CONV_2D", operands, shape, "uint8", scale, 0, **options)
    return b.build([b.op("DEQUANTIZE", [value], shape, "float32", name="head_real")])


def other_shift(proto: onnx.ModelProto) -> None:
    """The tensor map tells that one more was taken off than the weights say."""
    (entry,) = (p for p in proto.metadata_props if p.key == "xdet")
    document = json.loads(entry.value)
    (twin,) = (twin for twin in document["tensors"].values() if twin["onnx"] == f"{SIGNED}/codes")
    twin["zero_point_shift"] -= 1
    entry.value = json.dumps(document)


SIGNED = "conv_2d_1/float/signed"
FAULTS: dict[str, tuple[Callable[[onnx.ModelProto], None], set[str]]] = {
    "weight": (lambda p: keras_faults.edit(p, f"{SIGNED}/codes", lambda codes: codes ^ np.int8(1)), {"weight"}),
    "zero-point": (
        lambda p: keras_faults.edit(p, f"{SIGNED}/zero_point", lambda zero: zero + np.int8(1)),
        {"zero-point"},
    ),
    "shift": (other_shift, {"weight", "zero-point"}),
}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_for_cpu(network(), tmp_path_factory.mktemp("signed"))


def test_an_honest_conversion_passes(converted: Path) -> None:
    require_sound(converted, "signed weights", "strided stem", "cancel transposes")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_named(name: str, converted: Path, tmp_path: Path) -> None:
    fault, expected = FAULTS[name]
    verdict = verdict_on(fault, converted, tmp_path)
    assert {finding.layer for finding in verdict.findings} == {"conv_2d_1"}
    assert {finding.cause for finding in verdict.findings} <= expected
