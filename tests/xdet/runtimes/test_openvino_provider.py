"""ONNX Runtime with the OpenVINO execution provider compiled in.

The wheel ``onnxruntime-openvino`` replaces ``onnxruntime``, so these tests want an environment of their own;
``.ci/run`` makes one.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pytest

from xdet.conversion import convert
from xdet.detector import Detector
from xdet.runtimes.providers import available_providers
from xdet.selftest import run_selftest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.openvino_provider,
    pytest.mark.skipif(
        find_spec("onnxruntime") is None or "openvino" not in [p.short for p in available_providers()],
        reason="needs the wheel onnxruntime-openvino in an environment without onnxruntime: pip install onnxruntime-openvino",
    ),
]


@pytest.fixture(scope="module")
def model(embedded_tflite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("model") / "person.onnx"
    convert(embedded_tflite, output)
    return output


def test_the_provider_is_used_and_not_only_asked_for(model: Path) -> None:
    with Detector(model, provider="openvino") as detector:
        assert detector.runtime.name == "onnxruntime:openvino"
        assert not detector.runtime.capabilities.exact


def test_it_finds_the_boxes_that_the_cpu_finds(model: Path, sample_pictures: list[Path]) -> None:
    with Detector(model) as cpu, Detector(model, provider="OpenVINOExecutionProvider") as openvino:
        for picture in sample_pictures:
            expected, found = cpu(picture), openvino(picture)
            np.testing.assert_array_equal(found.anchors, expected.anchors)
            np.testing.assert_allclose(
                found.boxes_xyxy, expected.boxes_xyxy, atol=0.02
            )  # a few LSB of the head


def test_its_self_test_stays_within_the_documented_bound(model: Path) -> None:
    result = run_selftest(model, provider="openvino")
    assert result.verdict in ("exact", "bounded")
