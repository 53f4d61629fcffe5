"""OpenCV that would compute wrong heads without a word is refused by name; no OpenCV is needed to see it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from tests.converters.sources.tflite.networks import NetworkBuilder
from tests.xdet.finished_models import finished_model
from xdet.errors import MissingExtraError, RuntimeUnavailableError
from xdet.model.file import ModelFile, read_document
from xdet.runtimes import opencv
from xdet.runtimes.base import RuntimeChoices

if TYPE_CHECKING:
    from numpy.typing import NDArray

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


@pytest.mark.parametrize("channels", [1, 3])
def test_an_opencv_that_errs_on_the_golden_picture_is_refused_with_the_distance(
    channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "net.tflite"
    source.write_bytes(NetworkBuilder(64, channels=channels).conv(8, stride=2).conv(8, stride=2).build())
    model = convert_to_bytes(source, ConvertOptions(source=SourceOptions(head="none"))).model
    document = read_document(model, file="m.onnx")

    def head(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert images.shape == (1, 64, 64, channels)
        return np.full((1, 16, 16, 8), 1e6, np.float32)

    wrong = SimpleNamespace(document=document, spec=document.spec, file="m.onnx", release="5.0.0", head=head)
    monkeypatch.setattr(opencv, "OpenCvRuntime", lambda *_, **__: wrong)
    with pytest.raises(RuntimeUnavailableError, match=r"errs on this processor: .* steps off, expected at most \d"):
        opencv.open_model(ModelFile(Path("m.onnx"), model, "onnx"), CHOICES)


def test_no_opencv_gives_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r'pip install "xdet\[opencv\]"'):
        opencv.open_model(MODEL, CHOICES)
