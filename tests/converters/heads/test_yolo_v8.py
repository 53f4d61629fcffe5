"""YOLO v8, v9, v11: checked against a plain loop over the maker's layout, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from converters.heads.decoded import YoloV8
from tests.converters.heads.decoding import decoder, run_onnxruntime

Float32 = NDArray[np.float32]


def decode_slowly(output: Float32, width: float, height: float) -> tuple[list[list[float]], list[list[float]]]:
    """One column at a time, in float64: centre, size, class probabilities."""
    boxes, scores = [], []
    for column in output.T.astype(np.float64).tolist():
        cx, cy, w, h, *classes = column
        corners = [(cx - w / 2) / width, (cy - h / 2) / height, (cx + w / 2) / width, (cy + h / 2) / height]
        boxes.append([min(max(corner, 0.0), 1.0) for corner in corners])
        scores.append(classes)
    return boxes, scores


@pytest.mark.parametrize(
    "head", [pytest.param(YoloV8(50, 4), id="fractions"), pytest.param(YoloV8(50, 4, (640.0, 480.0)), id="pixels")]
)
def test_boxes_and_scores_are_those_of_a_plain_loop(head: YoloV8) -> None:
    rng = np.random.default_rng(0)
    output = rng.random((2, 8, 50)).astype(np.float32)
    output[:, 0:4] *= np.array([*head.extent_wh, *head.extent_wh], np.float32)[:, None]
    for boxes, scores in (head.decode([output]), run_onnxruntime(decoder(head), [output])):
        for image in range(2):
            expected = decode_slowly(output[image], *head.extent_wh)
            np.testing.assert_allclose(boxes[image], expected[0], rtol=0, atol=3e-7)  # four float32 roundings
            np.testing.assert_array_equal(scores[image], np.array(expected[1], np.float32))


def test_a_box_in_pixels_by_hand() -> None:
    head = YoloV8(1, 2, (320.0, 160.0))
    output = np.array([160, 80, 80, 40, 0.25, 0.75], np.float32).reshape(1, 6, 1)
    boxes, scores = head.decode([output])
    assert boxes.tolist() == [[[0.375, 0.375, 0.625, 0.625]]]
    assert scores.tolist() == [[[0.25, 0.75]]]


def test_a_size_below_0_is_an_empty_box() -> None:
    output = np.array([0.5, 0.5, -0.25, 0.5, 1.0], np.float32).reshape(1, 5, 1)
    for boxes, _ in (YoloV8(1, 1).decode([output]), run_onnxruntime(decoder(YoloV8(1, 1)), [output])):
        assert boxes.tolist() == [[[0.5, 0.25, 0.5, 0.75]]]


def test_fractions_are_not_divided() -> None:
    assert decoder(YoloV8(5, 2, (96.0, 96.0))).count(b"Div") > decoder(YoloV8(5, 2)).count(b"Div")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param((0, 1), "num_boxes must be a whole number in 1", id="no boxes"),
        pytest.param((10, 0), "num_classes must be a whole number in 1", id="no classes"),
        pytest.param((10, 1, (640.0,)), r"extent_wh must be a \(width, height\) pair above 0", id="one extent"),
        pytest.param((10, 1, (640.0, 0.0)), r"extent_wh must be a \(width, height\) pair above 0", id="no height"),
        pytest.param((10, 1, 640.0), "extent_wh must be a list, got 640.0", id="a number"),
    ],
)
def test_malformed_parameters_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        YoloV8(*arguments)  # type: ignore[arg-type]
