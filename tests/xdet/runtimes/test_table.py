"""Runtimes are chosen by name from one table; whatever does not fit is told before anything runs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import xdet.runtimes.base
from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from converters.sources import SOURCES
from converters.spec import Thresholds
from tests.xdet.finished_models import PIXELS, SPEC, finished_model
from xdet.errors import MissingExtraError, ModelError, UsageError
from xdet.model.file import ModelFile
from xdet.runtimes.base import (
    RuntimeChoices,
    choose_workers,
    most_threads,
    threads_of_one_network,
    threads_per_network,
    usable_processors,
)
from xdet.runtimes.table import RUNTIMES, open_model, open_runtime, parse_runtimes, runtimes_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

FINISHED = ModelFile(Path("m.onnx"), finished_model(), "onnx")


def test_a_list_of_runtimes_is_read_in_order_and_any_case() -> None:
    assert parse_runtimes("onnxruntime:CPU, litert:builtin,litert", threads=2) == (
        RuntimeChoices("onnxruntime", "cpu", 2),
        RuntimeChoices("litert", "builtin", 2),
        RuntimeChoices("litert", None, 2),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensorrt", "there is no runtime 'tensorrt'; choose among onnxruntime, .*litert"),
        ("", "there is no runtime ''"),
        ("litert,", "there is no runtime ''"),
        ("litert:", "'litert:' names nothing behind its colon"),
        ("litert:xnnpack,LiteRT:xnnpack", "'litert:xnnpack' stands twice"),
    ],
)
def test_a_list_that_names_no_runtimes_is_a_usage_error(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_runtimes(text)


def test_a_runtime_is_named_as_the_list_names_it() -> None:
    for choices in parse_runtimes("onnxruntime,onnxruntime:cpu", threads=1):
        with open_model(FINISHED, choices) as runtime:
            assert runtime.name == "onnxruntime:cpu"


def test_a_runtime_that_does_not_take_the_file_says_who_does() -> None:
    with pytest.raises(UsageError, match=r"'m\.onnx' is a file of format onnx, which the runtime 'litert' .*onnxrun"):
        open_model(FINISHED, RuntimeChoices("litert"))
    with pytest.raises(UsageError, match="there is no runtime 'warp'"):
        open_model(FINISHED, RuntimeChoices("warp"))


def test_what_can_run_a_format_here_is_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "onnxruntime:cpu" in runtimes_for("onnx")
    assert not any(name.startswith("litert") for name in runtimes_for("onnx"))
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    assert runtimes_for("tflite") == ("litert:xnnpack", "litert:builtin", "litert:reference")
    monkeypatch.setitem(RUNTIMES, "litert", replace(RUNTIMES["litert"], package="no_such_package"))
    assert runtimes_for("tflite") == ()


def test_every_format_has_a_runtime() -> None:
    assert {found for kind in RUNTIMES.values() for found in kind.formats} == {"onnx", *SOURCES}


@pytest.mark.parametrize(("cpus", "most"), [(1, 16), (2, 16), (16, 64), (None, 16)])
def test_threads_are_capped_at_four_per_processor(cpus: int | None, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    assert most_threads() == most
    assert RuntimeChoices(threads=most).threads == most
    with pytest.raises(UsageError, match=rf"threads must be at most {most} here, four per processor, got {most + 1}"):
        RuntimeChoices(threads=most + 1)
    for few in (0, -1):
        with pytest.raises(UsageError, match=f"threads must be at least 1, got {few}"):
            RuntimeChoices(threads=few)


def test_choices_travel_as_json() -> None:
    choices = RuntimeChoices(
        *("onnxruntime", "openvino", 2, 3, {"precision": "FP16"}, "gpu", SPEC), SourceOptions(resize="letterbox")
    )
    assert RuntimeChoices.from_dict(json.loads(json.dumps(choices.to_dict()))) == choices
    assert RuntimeChoices.from_dict(RuntimeChoices().to_dict()) == RuntimeChoices()


@pytest.mark.parametrize(
    ("processors", "workers", "each", "one"),
    [(1, 1, 1, 1), (2, 2, 1, 1), (3, 3, 1, 2), (4, 4, 1, 2), (8, 8, 1, 4), (20, 8, 2, 13), (64, 8, 8, 57)],
)
def test_workers_and_their_networks_threads_fill_the_processors(
    monkeypatch: pytest.MonkeyPatch, processors: int, workers: int, each: int, one: int
) -> None:
    monkeypatch.setattr(xdet.runtimes.base, "usable_processors", lambda: processors)
    assert choose_workers() == workers
    assert (threads_per_network(workers), threads_of_one_network(workers)) == (each, one)


def test_what_is_asked_for_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xdet.runtimes.base, "usable_processors", lambda: 4)
    assert [choose_workers(asked) for asked in (1, 2, 64)] == [1, 2, 64]
    assert [threads_per_network(workers) for workers in (1, 2, 64)] == [4, 2, 1]
    assert [threads_of_one_network(workers) for workers in (1, 2, 64)] == [4, 3, 2]


@pytest.mark.parametrize("asked", [-1, 0, 65])
def test_a_number_out_of_range_is_refused(asked: int) -> None:
    with pytest.raises(UsageError, match=rf"`workers` must lie in 1\.\.64, got {asked}; leave it out"):
        choose_workers(asked)


def test_there_is_always_a_processor() -> None:
    assert usable_processors() >= 1


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
