"""Keras files of every kind become float and int8 models that agree with Keras. TensorFlow runs in subprocesses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.slow import mostly_slow
from tests.xdet.command import run_xdet

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[4]
PROGRAM = Path(__file__).with_name("convert_small_models.py")
FILES = (
    ("tf_keras", "model.h5", "h5"),
    ("tf_keras", "model.keras", "keras"),
    ("tf_keras", "keras_2_8.h5", "h5"),
    ("keras", "model.h5", "h5"),
    ("keras", "model.keras", "keras"),
)
MERGED = {"conv1", "depthwise", "padding", "conv2"}  # layers whose result the next one's takes in
LAYERS = {"bn1", "darknet", "pool1", "bn2", "relu6", "pointwise", "add", "leaky", "pool2", "predictions"}

pytestmark = pytest.mark.skipif(find_spec("tf_keras") is None, reason='needs pip install "xdet[keras]"')


@pytest.fixture(scope="module")
def see(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """What ``convert_small_models.py`` sees with a library, once: file -> observations."""
    return cache(lambda library: _run(library, tmp_path_factory.mktemp(library)))


def _run(library: str, folder: Path) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(PROGRAM), library, str(folder)]
    result = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    observations: dict[str, Any] = json.loads(result.stdout)
    return observations


@pytest.fixture(params=mostly_slow(FILES, fast=3), ids=[f"{name} by {library}" for library, name, _ in FILES])
def one(request: pytest.FixtureRequest, see: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    library, name, container = request.param
    return {**see(library)[name], "expected library": library, "expected container": container}


def test_each_file_is_loaded_by_the_keras_that_can(one: dict[str, Any]) -> None:
    assert one["library"] == one["expected library"]


def test_the_float_head_is_that_of_keras(one: dict[str, Any]) -> None:
    assert one["difference"] < 1e-4  # float32, values up to about 10; measured 2e-6
    assert one["single difference"] < 1e-4


def test_the_same_file_gives_the_same_bytes_although_tf2onnx_counts_on(one: dict[str, Any]) -> None:
    assert one["deterministic"] is True


def test_batch_normalisation_is_folded_and_only_the_two_border_transposes_remain(one: dict[str, Any]) -> None:
    assert one["operators"] == sorted([
        *("Add", "Add", "Cast", "Clip", *["Conv"] * 5, "LeakyRelu", "LeakyRelu", "MaxPool", "MaxPool"),
        *("Mul", "Relu", "Transpose", "Transpose"),
    ])  # fmt: skip
    assert one["opset"] == [["", 13]]


def test_slopes_are_those_of_the_file(one: dict[str, Any]) -> None:
    assert one["slopes"] == [0.1, 0.2]  # the layer's own, and Keras' default for 'leaky_relu'


def test_a_same_pool_of_stride_1_is_written_as_the_reference_evaluator_reads_it(one: dict[str, Any]) -> None:
    assert one["padding of the last pool"] == "SAME_UPPER"


def test_the_document_says_float_and_names_a_twin_for_every_layer_that_is_left(one: dict[str, Any]) -> None:
    assert one["document"] == [one["expected container"], "float32", "float32", "float"]
    assert set(one["twins"]) - MERGED == LAYERS


def test_the_default_is_the_end_to_end_model(one: dict[str, Any]) -> None:
    assert one["outputs"] == [
        "num_detections",
        *(f"detection_{name}" for name in ("boxes", "scores", "classes", "anchors")),
    ]


def test_calibration_makes_every_convolution_an_integer_one(one: dict[str, Any]) -> None:
    assert one["quantised"] == ["int8 per-channel", "uint8"]
    assert one["integer convolutions"] == [5, 5]
    assert one["quantised difference"] < 0.01  # mean, of the head's span; measured 0.003


def test_a_quantised_source_is_not_quantised_again(
    embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    for index in range(8):
        (tmp_path / f"{index}.jpg").write_bytes(sample_pictures[0].read_bytes())
    options = ("--quantize", "per-channel", "--calibration", ".", "-o", "out.onnx")
    result = run_xdet("convert", str(embedded_tflite), *options, folder=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "the source is quantised already (int8 per-channel)" in result.stderr
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        pytest.param(("--quantize", "per-channel"), 2, "--quantize per-channel needs photographs", id="no folder"),
        pytest.param(
            ("--quantize", "per-channel", "--calibration", "."), 3, "no image in the folder", id="empty folder"
        ),
        pytest.param(("--percentile", "99"), 2, "--percentile is about calibration", id="percentile alone"),
        pytest.param(
            ("--quantize", "per-tensor", "--calibration", "a.png"),
            2,
            "1 photographs, expected at least 8",
            id="one photograph",
        ),
    ],
)
def test_a_calibration_that_cannot_work_is_told_before_anything_is_loaded(
    options: tuple[str, ...], code: int, message: str, tmp_path: Path
) -> None:
    result = run_xdet("convert", "absent.h5", *options, folder=tmp_path)
    assert result.returncode == code
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_without_tensorflow_a_keras_file_gives_the_line_to_type(tmp_path: Path) -> None:
    from tests.converters.sources.keras.stored_models import functional, h5_bytes, layer

    (tmp_path / "m.h5").write_bytes(h5_bytes(functional(layer("Conv2D", "conv"))))
    hidden = "import sys\nsys.modules['tensorflow'] = None\nsys.argv[:] = ['xdet', 'convert', 'm.h5']\n"
    program = hidden + "from xdet.__main__ import main\nmain()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 3
    assert 'pip install "xdet[keras]"' in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
