"""OpenCV that would compute wrong heads without a word is refused by name; no OpenCV is needed to see it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from converters.convert import convert_to_bytes
from converters.options import ConvertOptions
from tests.xdet.finished_models import finished_model
from xdet.errors import MissingExtraError, RuntimeUnavailableError
from xdet.model.file import ModelFile, read_document
from xdet.runtimes import opencv
from xdet.runtimes.base import RuntimeChoices

MODEL = ModelFile(Path("m.onnx"), finished_model(), "onnx")
CHOICES = RuntimeChoices("opencv", "cpu")


def release(version: str) -> SimpleNamespace:
    return SimpleNamespace(__version__=version, error=OSError, dnn=SimpleNamespace(ENGINE_NEW=2))


@pytest.mark.parametrize("version", ["4.12.0", "4.5.4-dev"])
def test_an_opencv_before_5_is_refused_by_name(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", release(version))
    with pytest.raises(RuntimeUnavailableError, match=rf"OpenCV {version} is installed, expected 5\.0 or newer: .*35"):
        opencv.open_model(MODEL, CHOICES)


def test_the_classic_engine_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", release("5.0.0"))
    monkeypatch.setenv("OPENCV_FORCE_DNN_ENGINE", "1")
    with pytest.raises(RuntimeUnavailableError, match="OPENCV_FORCE_DNN_ENGINE is '1', expected none or '2'"):
        opencv.open_model(MODEL, CHOICES)


def test_an_opencv_that_errs_on_the_golden_picture_is_refused_with_the_distance(
    embedded_tflite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = convert_to_bytes(embedded_tflite, ConvertOptions()).model
    document = read_document(model, file="m.onnx")
    wrong = SimpleNamespace(
        document=document,
        spec=document.spec,
        file="m.onnx",
        release="5.0.0",
        head=lambda images: np.zeros((len(images), 7, 7, 30), np.float32),
    )
    monkeypatch.setattr(opencv, "OpenCvRuntime", lambda *_, **__: wrong)
    with pytest.raises(RuntimeUnavailableError, match=r"errs on this processor: .* steps off, expected at most 6"):
        opencv.open_model(ModelFile(Path("m.onnx"), model, "onnx"), CHOICES)


def test_no_opencv_gives_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r'pip install "xdet\[opencv\]"'):
        opencv.open_model(MODEL, CHOICES)
