"""The Triton model repository, read by tritonclient's protobuf and compared with what ONNX Runtime says of the file."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest

from converters.convert import convert_to_bytes
from converters.options import ConvertOptions
from tests.xdet.finished_models import SPEC, document, finished_model, head_model, red_image
from xdet.errors import ModelError, UsageError
from xdet.model.file import read_document
from xdet.triton import write_repository

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = "XDET_TRITONCLIENT"  # a Python that has tritonclient[grpc], whose protobuf and ml-dtypes are older than ours
PARSE = """
import sys
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        config = text_format.Parse(file.read(), model_config_pb2.ModelConfig())
    print(json_format.MessageToJson(config, preserving_proto_field_name=True, indent=None))
"""
TYPES = {"TYPE_UINT8": "tensor(uint8)", "TYPE_INT32": "tensor(int32)", "TYPE_FP32": "tensor(float)"}


def write(folder: Path, data: bytes) -> Path:
    path = folder / "my person.onnx"
    path.write_bytes(data)
    return path


def read_configs(*paths: Path) -> list[dict[str, Any]]:
    python = os.environ.get(PYTHON)
    if not python:
        pytest.skip(f'needs {PYTHON}: the Python of an environment with pip install "tritonclient[grpc]"')
    done = subprocess.run([python, "-c", PARSE, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def models(embedded_tflite: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The embedded detector with a dynamic batch, the identity with one, two and any number of pictures, a raw head."""
    folder = tmp_path_factory.mktemp("models")
    contents = {
        "embedded": convert_to_bytes(embedded_tflite, ConvertOptions(batch="dynamic")).model,
        "one": finished_model(),
        "two": finished_model(batch=2),
        "any": finished_model(batch="N"),
        "raw": head_model(batch="N"),
        "frozen": finished_model(freeze=True),
        "sized": convert_to_bytes(embedded_tflite, ConvertOptions(any_size=True)).model,
    }
    for name, data in contents.items():
        (folder / f"{name}.onnx").write_bytes(data)
    return {name: folder / f"{name}.onnx" for name in contents}


def test_the_configuration_is_triton_s_and_says_what_the_file_says(models: dict[str, Path], tmp_path: Path) -> None:
    written = {name: write_repository(path, tmp_path / "repo", max_batch=16) for name, path in models.items()}
    configs = read_configs(*(files.config for files in written.values()))
    for (name, files), config in zip(written.items(), configs, strict=True):
        session = ort.InferenceSession(files.model, providers=["CPUExecutionProvider"])
        assert session.get_overridable_initializers() == []
        batched = isinstance(session.get_inputs()[0].shape[0], str)
        assert config["name"] == files.config.parent.name == name
        assert config["platform"] == "onnxruntime_onnx"
        assert config.get("max_batch_size", 0) == (16 if batched else 0)
        assert ("dynamic_batching" in config) == batched
        for kind, values in (("input", session.get_inputs()), ("output", session.get_outputs())):
            assert [tensor["name"] for tensor in config[kind]] == [value.name for value in values]
            assert [TYPES[tensor["data_type"]] for tensor in config[kind]] == [value.type for value in values]
            for tensor, value in zip(config[kind], values, strict=True):
                shape = tensor["reshape"].get("shape", []) if "reshape" in tensor else tensor["dims"]
                sizes = [size if isinstance(size, int) else -1 for size in value.shape[1 if batched else 0 :]]
                assert [int(size) for size in shape] == sizes
                assert np.prod([int(size) for size in tensor["dims"]]) == np.prod([int(size) for size in shape])


def test_the_model_has_the_thresholds_that_were_asked_for_as_constants(models: dict[str, Path], tmp_path: Path) -> None:
    files = write_repository(models["any"], tmp_path, name="strict", score_threshold=0.75)
    assert files.model == tmp_path / "strict" / "1" / "model.onnx"
    found = read_document(files.model.read_bytes(), file="model.onnx")
    assert (found.freeze_thresholds, found.spec.thresholds.score, found.spec.thresholds.iou) == (True, 0.75, 0.5)
    session = ort.InferenceSession(files.model, providers=["CPUExecutionProvider"])
    (count,) = session.run(["num_detections"], {"image": red_image(255, 200, 180, 100)})
    assert count.tolist() == [2]


def test_a_repository_is_written_again_and_nothing_else_is_replaced(models: dict[str, Path], tmp_path: Path) -> None:
    files = write_repository(models["one"], tmp_path)
    first = files.config.read_bytes()
    write_repository(models["one"], tmp_path)
    assert files.config.read_bytes() == first
    files.config.write_text("mine", "utf-8")
    with pytest.raises(UsageError, match=r"config\.pbtxt' exists already; give `force`"):
        write_repository(models["one"], tmp_path)
    assert files.config.read_text("utf-8") == "mine"


def test_a_photograph_of_any_size_has_sides_that_are_not_told(models: dict[str, Path], tmp_path: Path) -> None:
    files = write_repository(models["sized"], tmp_path / "repo")
    assert "dims: [ 1, -1, -1, 3 ]" in files.config.read_text("utf-8")


def test_names_are_made_fit_and_bad_ones_refused(tmp_path: Path) -> None:
    path = write(tmp_path, finished_model())
    assert write_repository(path, tmp_path / "repo").config.parent.name == "my_person"
    for name in ("", "..", "a/b", 'a"b'):
        with pytest.raises(UsageError, match="a model's name has letters, digits"):
            write_repository(path, tmp_path / "repo", name=name)


def test_what_cannot_be_served_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no ONNX file or a damaged one"):
        write_repository(write(tmp_path, b"no model"), tmp_path / "repo")
    with pytest.raises(UsageError, match="`max_batch` must be at least 1, got 0"):
        write_repository(models["any"], tmp_path / "repo", max_batch=0)
    with pytest.raises(UsageError, match=r"score threshold must lie in .*; give a number between 0 and 1"):
        write_repository(models["any"], tmp_path / "repo", score_threshold=2)
    for name in ("frozen", "raw"):
        with pytest.raises(UsageError, match="the file's thresholds are constants, or it has none"):
            write_repository(models[name], tmp_path / "repo", iou_threshold=0.4)
    assert not (tmp_path / "repo").exists()


def test_thresholds_that_the_file_holds_may_be_asked_for(tmp_path: Path) -> None:
    told = document(replace(SPEC, thresholds=replace(SPEC.thresholds, score=0.25)), freeze=True).to_json()
    path = write(tmp_path, finished_model(freeze=True, metadata=told))
    files = write_repository(path, tmp_path / "repo", score_threshold=0.25)
    assert files.model.read_bytes() == path.read_bytes()
