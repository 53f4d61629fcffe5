"""YOLOX: checked against a plain loop over the maker's formula, and by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from converters.heads.yolox import Yolox
from tests.converters.heads.decoding import decoder, random_outputs, run_onnxruntime

Float32 = NDArray[np.float32]


def sigmoid(t: float) -> float:
    return 1 / (1 + math.exp(-t))


def decode_slowly(head: Yolox, rows: Float32) -> tuple[list[list[float]], list[list[float]]]:
    """Stride by stride, cell by cell, in float64 and pixels."""
    boxes, scores = [], []
    width, height = head.image_wh
    remaining = iter(rows.tolist())
    for stride in head.strides:
        for row in range(height // stride):
            for column in range(width // stride):
                tx, ty, tw, th, objectness, *classes = next(remaining)
                cx, cy, w, h = (
                    (tx + column) * stride,
                    (ty + row) * stride,
                    math.exp(tw) * stride,
                    math.exp(th) * stride,
                )
                corners = [(cx - w / 2) / width, (cy - h / 2) / height, (cx + w / 2) / width, (cy + h / 2) / height]
                boxes.append([min(max(corner, 0.0), 1.0) for corner in corners])
                if not head.activated:
                    objectness, classes = sigmoid(objectness), [sigmoid(t) for t in classes]
                scores.append([objectness * p for p in classes])
    assert next(remaining, None) is None
    return boxes, scores


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(Yolox((96, 64), 3), id="activated"),
        pytest.param(Yolox((96, 64), 1, activated=False), id="raw, one class"),
        pytest.param(Yolox((96, 64), 3, activated=False, separate=True), id="raw, an output per level"),
        pytest.param(Yolox((64, 128), 2, (4, 64)), id="other strides"),
    ],
)
def test_boxes_and_scores_are_those_of_a_plain_loop(head: Yolox) -> None:
    outputs = random_outputs(head, 2, spread=1.0)
    rows = np.concatenate([output.reshape(2, -1, 5 + head.num_classes) for output in outputs], axis=1)
    for boxes, scores in (head.decode(outputs), run_onnxruntime(decoder(head), outputs)):
        for image in range(2):
            expected = decode_slowly(head, rows[image])
            np.testing.assert_allclose(boxes[image], expected[0], rtol=0, atol=1e-6)  # float32 against float64
            np.testing.assert_allclose(scores[image], expected[1], rtol=0, atol=2e-6)


def test_a_row_of_zeros_is_as_large_as_its_cell_and_centred_on_its_corner() -> None:
    head = Yolox((32, 32), 1, (8,), activated=False)
    boxes, scores = head.decode([np.zeros((1, 16, 6), np.float32)])
    assert boxes[0, 6].tolist() == [0.375, 0.125, 0.625, 0.375]  # cell 2, 1 of 4 x 4
    assert scores[0, 6].tolist() == [0.25]


def test_a_640_pixel_network_has_8400_boxes() -> None:
    assert Yolox((640, 640), 80).num_boxes == 8400


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"image_wh": (100, 64)}, "must be multiples of the strides, 8 does not fit", id="width"),
        pytest.param({"image_wh": (64,)}, r"must be a \(width, height\) pair", id="one size"),
        pytest.param({"image_wh": (64, 0)}, "each of image_wh must be a whole number", id="no height"),
        pytest.param({"strides": ()}, "at least one stride is needed", id="no stride"),
        pytest.param({"strides": (0,)}, "each stride must be a whole number", id="a stride of 0"),
        pytest.param({"num_classes": 0}, "num_classes must be a whole number", id="no classes"),
        pytest.param({"activated": 1}, "activated must be true or false", id="a number"),
    ],
)
def test_malformed_parameters_are_refused(change: dict[str, Any], message: str) -> None:
    given_parameters: dict[str, Any] = {"image_wh": (64, 64), "num_classes": 1}
    with pytest.raises(ValueError, match=message):
        Yolox(**{**given_parameters, **change})
