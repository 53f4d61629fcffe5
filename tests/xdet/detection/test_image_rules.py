"""Letterbox, BGR and grey, from the sidecar or an option: boxes of the photograph, on source and finished model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import xdet
from converters.errors import OptionError
from converters.spec import ImageInput, Rescaling
from tests.converters.sources.tflite.networks import NetworkBuilder
from tests.xdet.finished_models import SPEC, document, finished_model
from xdet.checking.check import check
from xdet.detection.detector import Detector
from xdet.evaluation.evaluate import evaluate

if TYPE_CHECKING:
    from pathlib import Path

    from converters.spec import Color

LETTERBOX = replace(SPEC, image=ImageInput(2, 2, Rescaling(1 / 255, 0.0), "letterbox"))


@pytest.fixture(scope="module")
def grey_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FOMO look-alike: one grey channel, stride 8, a softmax over background and two classes."""
    net = NetworkBuilder(64, channels=1)
    net.conv(8, stride=2, activation="RELU6").conv(12, stride=2, activation="RELU6")
    net.conv(16, stride=2, activation="RELU6").conv(3, 1).softmax()
    path = tmp_path_factory.mktemp("grey") / "fomo.tflite"
    path.write_bytes(net.build())
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (50, 90, 3), np.uint8)).save(path)
    return path


def test_boxes_of_a_letterboxed_model_are_those_of_the_photograph(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(finished_model(metadata=document(LETTERBOX).to_json()))
    picture = np.full((4, 8, 3), 255, np.uint8)  # half the network's picture: 2 x 1 pixels and a bar of one
    with Detector(path) as detector:
        found = detector(picture)
    assert len(found) == 2  # the bar is no 255
    assert found.boxes_xyxy_px[0].tolist() == [0, 0, 4, 2]  # (0, 0, 0.5, 0.25) of the network's picture

    Image.fromarray(picture).save(tmp_path / "white.png")
    annotations = {
        "images": [{"id": 1, "file_name": "white.png", "width": 8, "height": 4}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 2]}],
        "categories": [{"id": 1, "name": "person"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(annotations), "utf-8")
    result = evaluate(path, tmp_path, tmp_path / "boxes.json", max_detections=4)
    assert result.results[0].score.metrics["AP50"] == pytest.approx(1.0)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_a_model_gets_its_channels_in_their_order(color: Color, tmp_path: Path) -> None:
    spec = replace(SPEC, image=replace(SPEC.image, color=color))
    path = tmp_path / "model.onnx"
    path.write_bytes(finished_model(metadata=document(spec).to_json()))
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[..., 0 if color == "rgb" else 2] = 255  # scores are the first channel
    with Detector(path) as detector:
        assert len(detector(picture)) == 4


def test_a_grey_detector_gives_the_same_boxes_as_its_source(grey_source: Path, photo: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    model = photo.with_name("fomo.onnx")
    done = xdet.convert(grey_source, model, head="fomo", resize="letterbox", classes="cup,plate", score_threshold=0.2)
    assert done.document.spec.image.shape == (64, 64, 1)
    assert done.document.spec.image.color == "grey"
    with Detector(model) as detector:
        assert len(detector(photo))
    source_options = xdet.describing_options(resize="letterbox", classes="cup,plate")
    result = check(
        model, grey_source, [photo], source_options=source_options, runtimes="onnxruntime:cpu,litert:xnnpack"
    )
    assert result.passed
    assert [line.nearest.differing for line in result.runs if line.nearest] == [0]


def test_colours_that_the_channels_cannot_be_are_refused(grey_source: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="takes pictures of 1 channels, which are not bgr: give --color grey"):
        xdet.convert(grey_source, tmp_path / "m.onnx", head="none", color="bgr")
    assert not list(tmp_path.iterdir())
