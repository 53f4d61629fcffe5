"""An environment without ONNX Runtime: what needs it says so in one sentence with the line to type, all else works.

These tests want an environment of their own, ``pip install .`` without an extra; ``.ci/run`` makes one.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.no_onnxruntime,
    pytest.mark.skipif(
        find_spec("onnxruntime") is not None,
        reason="needs an environment without onnxruntime: a fresh one, pip install . hypothesis pytest pytest-xdist",
    ),
]

ROOT = Path(__file__).parents[3]
CAMERA = "xdet/data/camera.jpg"
TFLITE = "xdet/data/tiny_yolo_v2_person_224_int8.tflite"
SENTENCE = "xdet: error: ONNX Runtime is not installed; install it with: pip install onnxruntime"


def xdet(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "xdet", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "arguments", [["providers"], ["detect", CAMERA], ["demo", "--output", "{folder}/demo"]], ids=lambda a: str(a[0])
)
def test_a_command_that_needs_it_says_the_line_to_type(arguments: list[str], tmp_path: Path) -> None:
    done = xdet(*(word.format(folder=tmp_path) for word in arguments))
    assert done.returncode == 3
    (told,) = done.stderr.splitlines()
    assert told.startswith(SENTENCE)
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["detect", "--help"], ["inspect", TFLITE]], ids=" ".join)
def test_a_command_that_needs_none_works(arguments: list[str]) -> None:
    done = xdet(*arguments)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_onnx_file_is_told_but_for_what_onnx_runtime_makes_of_it(tmp_path: Path) -> None:
    model = str(tmp_path / "person.onnx")
    assert xdet("convert", TFLITE, "-o", model).returncode == 0
    done = xdet("inspect", model)
    assert (done.returncode, done.stderr) == (0, "")
    assert "not known: ONNX Runtime is not installed" in " ".join(done.stdout.split())


def test_a_conversion_works_and_what_runs_the_file_asks_for_it(tmp_path: Path) -> None:
    model = str(tmp_path / "person.onnx")
    assert xdet("convert", TFLITE, "-o", model).returncode == 0
    done = xdet("selftest", model)
    assert done.returncode == 3
    assert done.stderr.startswith(SENTENCE)


def test_the_embedded_detector_runs_on_a_runtime_that_is_here() -> None:
    done = xdet("detect", CAMERA, "--runtime", "onnx-reference")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the embedded person detector on onnx-reference:numpy" in done.stdout
    assert "camera.jpg  person   0.92" in done.stdout
