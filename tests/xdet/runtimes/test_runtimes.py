"""Every runtime keeps one contract, and a model file finds its runtime by its bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from converters.spec import Thresholds
from tests.xdet.finished_models import PIXELS, SPEC, finished_model
from xdet.errors import MissingExtraError, ModelError, UsageError
from xdet.model.file import ModelFile
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.table import open_model, open_runtime

if TYPE_CHECKING:
    from numpy.typing import NDArray


ROOT = Path(__file__).resolve().parents[3]
ONE_THREAD = RuntimeChoices(threads=1)


@pytest.fixture(scope="module")
def converted(embedded_tflite: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The embedded model in three forms: its source, with boxes, and ending at the raw head."""
    folder = tmp_path_factory.mktemp("converted")
    paths = {"source": embedded_tflite, "boxes": folder / "boxes.onnx", "head": folder / "head.onnx"}
    paths["boxes"].write_bytes(convert_to_bytes(embedded_tflite, ConvertOptions()).model)
    raw = ConvertOptions(source=SourceOptions(head="none"))
    paths["head"].write_bytes(convert_to_bytes(embedded_tflite, raw).model)
    return paths


@pytest.fixture(scope="module")
def noise() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)


@pytest.mark.parametrize("form", ["source", "boxes", "head"])
def test_every_runtime_keeps_the_contract(form: str, converted: dict[str, Path], noise: NDArray[np.uint8]) -> None:
    if form == "source":
        pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    runtime, thresholds = (
        open_runtime(converted[form], ONE_THREAD),
        Thresholds(score=0.01, iou=0.4, max_detections=20),
    )
    found = runtime.detect(noise, thresholds)
    valid = np.arange(20) < found.num_detections[:, None]
    assert found.scores.shape == (3, 20)
    assert [getattr(found, name).dtype for name in ("boxes_xyxy", "scores")] == [np.float32] * 2
    assert [getattr(found, name).dtype for name in ("num_detections", "classes", "anchors")] == [np.int32] * 3
    assert (np.diff(found.scores) <= 0).all()
    assert (found.scores[valid] > np.float32(0.01)).all()
    assert not found.scores[~valid].any()
    assert not found.boxes_xyxy[~valid].any()
    assert (found.anchors[~valid] == -1).all()
    assert (found.classes[~valid] == -1).all()
    assert valid.any()
    assert runtime.sha256 == hashlib.sha256(converted[form].read_bytes()).hexdigest()
    alone = runtime.detect(noise[1:2], thresholds)
    assert np.array_equal(alone.boxes_xyxy[0], found.boxes_xyxy[1])
    with pytest.raises(UsageError, match="expected images as uint8"):
        runtime.detect(noise[:, :200], thresholds)
    if runtime.capabilities.max_detections is not None:
        with pytest.raises(UsageError, match="at most 100 detections"):
            runtime.detect(noise, Thresholds(max_detections=101))
    assert runtime.capabilities.exact
    assert runtime.head(noise).shape == (3, 7, 7, 30)
    with runtime:
        assert runtime.tensors(noise[:1], []) == {}
    with pytest.raises(UsageError, match="was closed; open it again"):
        runtime.head(noise)


def test_source_and_finished_models_find_the_same_boxes(converted: dict[str, Path], noise: NDArray[np.uint8]) -> None:
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    source, boxes, head = (open_runtime(converted[form], ONE_THREAD) for form in ("source", "boxes", "head"))
    assert np.array_equal(source.head(noise), head.head(noise))
    assert np.array_equal(source.head(noise), boxes.head(noise))
    thresholds = Thresholds(score=0.01)
    expected, found = source.detect(noise, thresholds), boxes.detect(noise, thresholds)
    assert expected.num_detections.min() > 0
    assert np.array_equal(found.anchors, expected.anchors)
    # exp and sigmoid differ between numpy and ONNX Runtime by a few units in the last place
    np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, rtol=0, atol=2e-6)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=2e-6)


def test_a_finished_model_is_opened_from_a_path_with_spaces_and_unicode(tmp_path: Path) -> None:
    path = tmp_path / "größe und übermaß.onnx"
    path.write_bytes(finished_model())
    runtime = open_runtime(path, ONE_THREAD)
    assert runtime.file == str(path)
    assert runtime.spec == SPEC


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"GIF89a" * 20, "is not a model: its bytes are none of onnx, onnx-source, tflite, h5, keras")],
    ids=["empty", "another-kind"],
)
def test_a_file_that_is_no_model_says_so(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        open_runtime(path)


def test_a_missing_file_and_a_folder_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.onnx", tmp_path):
        with pytest.raises(ModelError, match=r"cannot read model '.*': .*; check the path"):
            open_runtime(path)


def test_a_file_larger_than_any_model_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(ModelError, match="2,147,483,648 bytes"):
        open_runtime(path)


def test_no_thread_is_too_few() -> None:
    with pytest.raises(UsageError, match="threads must be at least 1, got 0"):
        RuntimeChoices(threads=0)


def test_a_damaged_tflite_file_is_refused_before_litert_sees_it(embedded_tflite: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(embedded_tflite.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"m\.tflite"):
        open_runtime(path)


def test_a_tflite_file_whose_anchors_nobody_knows_is_a_usage_error(embedded_tflite: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(embedded_tflite.read_bytes())
    with pytest.raises(UsageError, match="needs anchors"):
        open_runtime(path)


@pytest.mark.parametrize("model_format", ["h5", "keras"])
def test_a_damaged_keras_file_is_refused_before_a_framework_sees_it(model_format: str) -> None:
    with pytest.raises((ModelError, MissingExtraError), match=r"m\.h5: damaged|pip install"):
        open_model(ModelFile(Path("m.h5"), b"damage", model_format))


def test_detecting_with_a_finished_model_imports_no_converter_and_no_other_back_end(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(finished_model())
    program = f"""
import sys
import numpy as np
import xdet.detection.detector
xdet.detection.detector.Detector({str(path)!r}, threads=1)(np.zeros((5, 5, 3), np.uint8))
print(sorted({{name.partition(".")[0] for name in sys.modules}}
    & {{"onnx", "onnx_ir", "tflite", "tensorflow", "tf2onnx", "ai_edge_litert", "openvino", "yaml"}}))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_spec_of_the_test_models_is_one_row_per_pixel() -> None:
    assert SPEC.num_boxes == SPEC.thresholds.max_detections == PIXELS
