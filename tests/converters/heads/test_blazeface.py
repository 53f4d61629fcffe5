"""BlazeFace: checked against a plain loop over the maker's formula, and by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from converters.heads.blazeface import BlazeFace
from tests.converters.heads.decoding import decoder, random_outputs, run_onnxruntime

Float32 = NDArray[np.float32]

CLOSE_RANGE = BlazeFace((128.0, 128.0), ((16, 16, 2), (8, 8, 6)), 6)


def anchors_slowly(head: BlazeFace) -> list[tuple[float, float]]:
    """Cell centres, row by row, each as often as a cell has boxes, in float64."""
    return [
        ((column + 0.5) / columns, (row + 0.5) / rows)
        for rows, columns, each in head.levels
        for row in range(rows)
        for column in range(columns)
        for _ in range(each)
    ]


def decode_slowly(head: BlazeFace, boxes: Float32, scores: Float32) -> tuple[list[list[float]], list[float]]:
    """Box by box, in float64."""
    width, height = head.image_wh
    found, probabilities = [], []
    for (x, y), row, score in zip(anchors_slowly(head), boxes.tolist(), scores.ravel().tolist(), strict=True):
        cx, cy, w, h = (row[0] / width + x, row[1] / height + y, max(row[2], 0) / width, max(row[3], 0) / height)
        corners = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
        found.append([min(max(corner, 0.0), 1.0) for corner in corners])
        probabilities.append(1 / (1 + math.exp(-min(max(score, -100.0), 100.0))))
    return found, probabilities


def test_keypoints_are_moved_from_the_centres_of_cells() -> None:
    boxes, scores = random_outputs(CLOSE_RANGE, 2, spread=30.0)
    found = CLOSE_RANGE.decode_keypoints([boxes, scores])
    for index, (x, y) in enumerate(anchors_slowly(CLOSE_RANGE)):
        for point in range(CLOSE_RANGE.num_keypoints):
            raw = boxes[:, index, 4 + 2 * point : 6 + 2 * point].astype(np.float64)
            expected = raw / 128 + [x, y]
            np.testing.assert_allclose(found[:, index, 2 * point : 2 * point + 2], expected, rtol=0, atol=4e-7)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(CLOSE_RANGE, id="close range"),
        pytest.param(BlazeFace((256.0, 256.0), ((16, 16, 2), (8, 8, 6)), 6, separate=True), id="an output per level"),
        pytest.param(BlazeFace((192.0, 96.0), ((6, 12, 2), (3, 6, 6)), 7), id="palm, not square"),
        pytest.param(BlazeFace((64.0, 64.0), ((4, 4, 1),), 0), id="no keypoints, one level"),
    ],
)
def test_boxes_and_scores_are_those_of_a_plain_loop(head: BlazeFace) -> None:
    outputs = random_outputs(head, 2, spread=30.0)
    half = len(outputs) // 2
    raw_boxes, raw_scores = np.concatenate(outputs[:half], axis=1), np.concatenate(outputs[half:], axis=1)
    for boxes, scores in (head.decode(outputs), run_onnxruntime(decoder(head), outputs)):
        for image in range(2):
            expected = decode_slowly(head, raw_boxes[image], raw_scores[image])
            np.testing.assert_allclose(boxes[image], expected[0], rtol=0, atol=1e-6)  # float32 against float64
            np.testing.assert_allclose(scores[image, :, 0], expected[1], rtol=0, atol=1e-6)


def test_the_face_detector_for_close_range_has_896_boxes_and_16_numbers_each() -> None:
    assert [raw.shape for raw in CLOSE_RANGE.raw_outputs()] == [(896, 16), (896, 1)]
    separate = BlazeFace(CLOSE_RANGE.image_wh, CLOSE_RANGE.levels, 6, separate=True).raw_outputs()
    assert [(raw.name, raw.shape) for raw in separate] == [
        ("boxes_0", (512, 16)),
        ("boxes_1", (384, 16)),
        ("scores_0", (512, 1)),
        ("scores_1", (384, 1)),
    ]


def test_a_box_by_hand() -> None:
    head = BlazeFace((128.0, 64.0), ((2, 2, 1),), 1)
    boxes, scores = np.zeros((1, 4, 6), np.float32), np.zeros((1, 4, 1), np.float32)
    boxes[0, 3] = [-16, 8, 32, 16, 99, 99]  # of the cell whose centre is 0.75, 0.75
    found, probabilities = head.decode([boxes, scores])
    assert found[0, 3].tolist() == [0.5, 0.75, 0.75, 1.0]
    assert found[0, 0].tolist() == [0.25] * 4
    assert probabilities.ravel().tolist() == [0.5] * 4


@pytest.mark.parametrize("t", [-1e4, -101.0, -100.0, -99.0, 99.0, 100.0, 101.0, 1e4])
def test_clipping_scores_before_the_sigmoid_would_change_nothing(t: float) -> None:
    head = BlazeFace((128.0, 64.0), ((2, 2, 1),), 0)
    outputs = [np.zeros((1, 4, 4), np.float32), np.full((1, 4, 1), t, np.float32)]
    for _, scores in (head.decode(outputs), run_onnxruntime(decoder(head), outputs)):
        np.testing.assert_allclose(scores, float(t > 0), rtol=0, atol=1e-37)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"levels": ()}, "at least one level is needed", id="no level"),
        pytest.param({"levels": ((4, 4),)}, "must be rows, columns and boxes per cell", id="a pair"),
        pytest.param({"levels": ((4, 4, 0),)}, "each number of a level must be a whole number", id="no boxes"),
        pytest.param({"image_wh": (128.0, 0.0)}, "image_wh must be a", id="no height"),
        pytest.param({"num_keypoints": -1}, "num_keypoints must be a whole number in 0", id="negative keypoints"),
        pytest.param({"separate": None}, "separate must be true or false", id="None"),
    ],
)
def test_malformed_parameters_are_refused(change: dict[str, Any], message: str) -> None:
    given_parameters: dict[str, Any] = {"image_wh": (64.0, 64.0), "levels": ((4, 4, 2),), "num_keypoints": 6}
    with pytest.raises(ValueError, match=message):
        BlazeFace(**{**given_parameters, **change})
