"""The oldest ONNX Runtime that xdet declares, which has no kernel for ``--target cpu``.

These tests want an environment of their own with ``onnxruntime==1.20``; ``.ci/run`` makes one.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from converters.spec.contract import UINT8_MAX_ONNXRUNTIME, is_older
from xdet.checking.selftest import run_selftest
from xdet.conversion import convert
from xdet.detection.detector import Detector
from xdet.detection.embedded import DEFAULTS, target_for
from xdet.errors import RuntimeUnavailableError
from xdet.runtimes.ort_session import installed_release

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.oldest_onnxruntime,
    pytest.mark.skipif(
        find_spec("onnxruntime") is None or not is_older(installed_release(), UINT8_MAX_ONNXRUNTIME),
        reason=f"needs an environment with onnxruntime before {UINT8_MAX_ONNXRUNTIME}: pip install onnxruntime==1.20",
    ),
]


def test_the_embedded_detector_finds_what_newer_ones_find(sample_pictures: list[Path]) -> None:
    assert target_for(DEFAULTS) == "portable"
    with Detector() as detector:
        assert detector(sample_pictures[0]).anchors.tolist() == [124, 72]


@pytest.mark.parametrize("opset", [None, 21])
def test_a_portable_file_computes_what_the_conversion_computed(
    embedded_tflite: Path, tmp_path: Path, opset: int | None
) -> None:
    convert(embedded_tflite, tmp_path / "person.onnx", opset=opset)
    assert run_selftest(tmp_path / "person.onnx").verdict == "exact"


@pytest.mark.parametrize(
    ("options", "needed", "advice"),
    [({"target": "cpu"}, "1.24", "`target` portable"), ({"opset": 22}, "1.21", "a lower `opset`")],
)
def test_a_file_that_is_too_new_is_told_so(
    embedded_tflite: Path, tmp_path: Path, options: dict[str, Any], needed: str, advice: str
) -> None:
    convert(embedded_tflite, tmp_path / "person.onnx", **options)
    source_options = rf"needs ONNX Runtime {needed} or newer, found {installed_release()}; .* with {advice}"
    for use in (Detector, run_selftest):
        with pytest.raises(RuntimeUnavailableError, match=source_options):
            use(tmp_path / "person.onnx")
