"""A source runs in a check only if its conversion would take it: nothing else was ever looked through that far."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import xdet
from tests.converters.sources.tflite.builder import TfliteBuilder
from xdet.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path


def network(last: str) -> bytes:
    b = TfliteBuilder()
    x = b.input("image", (1, 8, 8, 3), "uint8", 1 / 255, 0)
    codes = b.op("QUANTIZE", [x], (1, 8, 8, 3), "int8", 1 / 255, -128)
    weights = b.constant(np.ones((6, 1, 1, 3), np.int8), 0.01)
    bias = b.constant(np.zeros(6, np.int32), 0.01 / 255)
    sums = b.op("CONV_2D", [codes, weights, bias], (1, 8, 8, 6), "int8", 0.02, 0, padding="SAME")
    if last != "none":
        sums = b.op(last, [sums], (1, 8, 8, 6), "int8", 0.02, 0)
    return b.build([b.op("DEQUANTIZE", [sums], (1, 8, 8, 6), "float32")])


def test_a_source_that_no_conversion_takes_is_not_run(tmp_path: Path) -> None:
    source = tmp_path / "s.tflite"
    source.write_bytes(network("none"))
    xdet.convert(source, tmp_path / "m.onnx", head="none")
    source.write_bytes(network("CUSTOM:mine"))
    images = [np.zeros((8, 8, 3), np.uint8)]
    with pytest.raises(ModelError, match="no translation for operators CUSTOM:mine x1"):
        xdet.check(tmp_path / "m.onnx", source, images)
