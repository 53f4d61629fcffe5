"""Networks with the blocks of YOLOv5n, YOLOv8n and YOLO11n: every raw value is LiteRT's."""

from __future__ import annotations

import numpy as np
import pytest

from tests.converters.sources.tflite.single_operator import run_litert, run_onnx
from tests.converters.sources.tflite.yolo_networks import yolo


@pytest.mark.parametrize("kind", ["v5", "v8", "v11"])
def test_every_raw_value_is_litert_s(kind: str) -> None:
    data = yolo(kind)
    pixels = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    wanted, _ = run_litert(data, [pixels])
    found = run_onnx(data, [pixels], "uint8")
    assert sum(int((a != b).sum()) for a, b in zip(wanted, found, strict=True)) == 0
    assert min(np.unique(output).size for output in wanted) > 5
