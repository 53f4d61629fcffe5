"""YOLO v3 and v4: checked against a plain loop over Darknet's formula, and by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from converters.heads.grids import AnchorGrid, YoloV3
from tests.converters.heads.decoding import decoder, random_outputs, run_onnxruntime

Float32 = NDArray[np.float32]

ANCHORS_PX = (((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)), ((30.0, 61.0), (62.0, 45.0)), ((116.0, 90.0),))
SIZES = ((4, 6), (2, 3), (1, 2))


def make_head(levels: int, classes: int, scales: tuple[float, ...] = (1.0, 1.0, 1.0)) -> YoloV3:
    grids = [
        AnchorGrid(rows, columns, anchors, scale)
        for (rows, columns), anchors, scale in zip(SIZES, ANCHORS_PX, scales, strict=True)
    ]
    return YoloV3(tuple(grids[:levels]), classes, (192.0, 128.0))


def sigmoid(t: float) -> float:
    return 1 / (1 + math.exp(-t))


def decode_slowly(head: YoloV3, outputs: list[Float32], image: int) -> tuple[list[list[float]], list[list[float]]]:
    """Level by level, cell by cell, anchor by anchor, in float64, as ``get_yolo_box`` does."""
    boxes, scores = [], []
    for grid, output in zip(head.grids, outputs, strict=True):
        for row, column in np.ndindex(grid.rows, grid.columns):
            cell = output[image, row, column].reshape(len(grid.anchors_px), -1).tolist()
            for (anchor_w, anchor_h), (x, y, tw, th, objectness, *classes) in zip(grid.anchors_px, cell, strict=True):
                lead = 0.5 * (grid.xy_scale - 1)
                cx = (column + sigmoid(x) * grid.xy_scale - lead) / grid.columns
                cy = (row + sigmoid(y) * grid.xy_scale - lead) / grid.rows
                w, h = math.exp(tw) * anchor_w / head.image_wh[0], math.exp(th) * anchor_h / head.image_wh[1]
                corners = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
                boxes.append([min(max(corner, 0.0), 1.0) for corner in corners])
                if head.class_activation == "softmax":
                    total = sum(math.exp(t) for t in classes)
                    scores.append([sigmoid(objectness) * math.exp(t) / total for t in classes])
                else:
                    scores.append([sigmoid(objectness) * sigmoid(t) for t in classes])
    return boxes, scores


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(make_head(1, 1), id="one level, one class"),
        pytest.param(make_head(2, 5), id="two levels"),
        pytest.param(make_head(3, 3), id="three levels"),
        pytest.param(make_head(3, 3, (1.2, 1.1, 1.05)), id="three levels with the scales of YOLO v4"),
        pytest.param(replace(make_head(3, 3), class_activation="softmax"), id="YOLO v2 over three levels"),
        pytest.param(replace(make_head(3, 1), class_activation="softmax"), id="YOLO v2 over levels, one class"),
    ],
)
def test_boxes_and_scores_are_those_of_a_plain_loop(head: YoloV3) -> None:
    outputs = random_outputs(head, 2, spread=1.5)
    for boxes, scores in (head.decode(outputs), run_onnxruntime(decoder(head), outputs)):
        for image in range(2):
            expected = decode_slowly(head, outputs, image)
            np.testing.assert_allclose(boxes[image], expected[0], rtol=0, atol=1e-6)  # float32 against float64
            np.testing.assert_allclose(scores[image], expected[1], rtol=0, atol=1e-6)


def test_a_row_of_zeros_is_the_anchor_in_the_middle_of_its_cell_at_any_scale() -> None:
    for scale in (1.0, 1.5, 2.0):
        head = YoloV3((AnchorGrid(2, 2, ((16.0, 8.0),), scale),), 2, (64.0, 64.0))
        boxes, scores = head.decode([np.zeros((1, 2, 2, 7), np.float32)])
        assert boxes[0, 1].tolist() == [0.625, 0.1875, 0.875, 0.3125]
        assert scores.ravel().tolist() == [0.25] * 8


def test_classes_do_not_compete() -> None:
    head = YoloV3((AnchorGrid(1, 1, ((16.0, 8.0),)),), 2, (64.0, 64.0))
    _, scores = head.decode([np.array([0, 0, 0, 0, 40, 40, 40], np.float32).reshape(1, 1, 1, 7)])
    assert scores.tolist() == [[[1.0, 1.0]]]


@settings(deadline=None, max_examples=50)
@given(scale=st.sampled_from([1.0, 1.05, 1.2, 2.0]), logit=st.floats(-30, 30, width=32), cell=st.integers(0, 15))
def test_a_centre_leaves_its_cell_by_no_more_than_the_scale_says(scale: float, logit: float, cell: int) -> None:
    head = YoloV3((AnchorGrid(4, 4, ((1.0, 1.0),), scale),), 1, (64.0, 64.0))
    output = np.zeros((1, 16, 6), np.float32)
    output[..., 0:2] = logit
    boxes, _ = head.decode([output.reshape(1, 4, 4, 6)])
    row, column = divmod(cell, 4)
    x1, y1, x2, y2 = (float(v) * 4 for v in boxes[0, cell])
    room = (scale - 1) / 2 + 1e-5
    half = 4 / 64 / 2
    assert max(0.0, column - room - half) <= x1 <= x2 <= column + 1 + room + half
    assert max(0.0, row - room - half) <= y1 <= y2 <= row + 1 + room + half


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(((), 1, (64.0, 64.0)), "at least one grid is needed", id="no grid"),
        pytest.param((SIZES, 1, (64.0, 64.0)), "each grid must be a AnchorGrid", id="pairs"),
        pytest.param((make_head(1, 1).grids, 0, (64.0, 64.0)), "num_classes must be a whole", id="no classes"),
        pytest.param((make_head(1, 1).grids, 1, (64.0,)), "image_wh must be a", id="one size"),
        pytest.param(
            (make_head(1, 1).grids, 1, (64.0, 64.0), "relu"),
            "class_activation must be one of sigmoid, softmax",
            id="activation",
        ),
    ],
)
def test_malformed_parameters_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        YoloV3(*arguments)  # type: ignore[arg-type]
