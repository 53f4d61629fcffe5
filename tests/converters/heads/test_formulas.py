"""Heads checked against plain loops over the makers' formulas, box by box in float64, and by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.heads.blazeface import BlazeFace
from converters.heads.grids import AnchorGrid, YoloV3, YoloV5Raw
from converters.heads.lists import YoloV5, YoloV8, Yolox
from converters.heads.one_grid import FastestDet
from tests.converters.heads.decoding import Float32, decode_twice, decoder, random_outputs

if TYPE_CHECKING:
    from collections.abc import Iterator

Box = tuple[float, float, float, float, list[float]]  # centre, size, scores

GRIDS = (
    AnchorGrid(4, 6, ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0))),
    AnchorGrid(2, 3, ((30.0, 61.0), (62.0, 45.0))),
    AnchorGrid(1, 2, ((116.0, 90.0),)),
)
SCALED = tuple(replace(grid, xy_scale=scale) for grid, scale in zip(GRIDS, (1.2, 1.1, 1.05), strict=True))
SIZE = (192.0, 128.0)
CLOSE_RANGE = BlazeFace((128.0, 128.0), ((16, 16, 2), (8, 8, 6)), 6)


def sigmoid(t: float) -> float:
    return 1 / (1 + math.exp(-t))


def cells(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    return itertools.product(range(rows), range(columns))


def yolo_v3(head: YoloV3, outputs: list[Float32]) -> Iterator[Box]:
    """Level by level, cell by cell, anchor by anchor, as ``get_yolo_box`` does."""
    for grid, output in zip(head.grids, outputs, strict=True):
        for row, column in cells(grid.rows, grid.columns):
            cell = output[row, column].reshape(len(grid.anchors_px), -1).tolist()
            for (anchor_w, anchor_h), (x, y, tw, th, objectness, *classes) in zip(grid.anchors_px, cell, strict=True):
                lead = 0.5 * (grid.xy_scale - 1)
                cx = (column + sigmoid(x) * grid.xy_scale - lead) / grid.columns
                cy = (row + sigmoid(y) * grid.xy_scale - lead) / grid.rows
                w, h = math.exp(tw) * anchor_w / head.image_wh[0], math.exp(th) * anchor_h / head.image_wh[1]
                probabilities = [sigmoid(t) for t in classes]
                if head.class_activation == "softmax":
                    probabilities = [math.exp(t) / sum(map(math.exp, classes)) for t in classes]
                yield cx, cy, w, h, [sigmoid(objectness) * p for p in probabilities]


def yolo_v5_raw(head: YoloV5Raw, outputs: list[Float32]) -> Iterator[Box]:
    """Level by level, box by box, in pixels, as ``Detect`` does."""
    width, height = head.image_wh
    for grid, output in zip(head.grids, outputs, strict=True):
        stride_x, stride_y, count = width / grid.columns, height / grid.rows, len(grid.anchors_px)
        places = [(row, column, anchor) for row, column in cells(grid.rows, grid.columns) for anchor in range(count)]
        if head.anchors_first:
            places.sort(key=lambda place: place[2])
        for row, column, anchor in places:
            cell = output[:, row, column] if head.anchors_first else output[row, column].reshape(count, -1)
            x, y, w, h, objectness, *classes = map(sigmoid, cell[anchor].tolist())
            cx, cy = (x * 2 - 0.5 + column) * stride_x, (y * 2 - 0.5 + row) * stride_y
            w, h = (w * 2) ** 2 * grid.anchors_px[anchor][0], (h * 2) ** 2 * grid.anchors_px[anchor][1]
            yield cx / width, cy / height, w / width, h / height, [objectness * p for p in classes]


def yolo_v5(head: YoloV5, outputs: list[Float32]) -> Iterator[Box]:
    width, height = head.extent_wh
    for cx, cy, w, h, objectness, *classes in outputs[0].astype(np.float64).tolist():
        yield cx / width, cy / height, w / width, h / height, [objectness * p for p in classes]


def yolo_v8(head: YoloV8, outputs: list[Float32]) -> Iterator[Box]:
    width, height = head.extent_wh
    for cx, cy, w, h, *classes in outputs[0].T.astype(np.float64).tolist():
        yield cx / width, cy / height, w / width, h / height, classes


def yolox(head: Yolox, outputs: list[Float32]) -> Iterator[Box]:
    """Stride by stride, cell by cell, in pixels."""
    width, height = head.image_wh
    rows = iter(np.concatenate([output.reshape(-1, 5 + head.num_classes) for output in outputs]).tolist())
    for stride in head.strides:
        for row, column in cells(height // stride, width // stride):
            tx, ty, tw, th, *scores = next(rows)
            objectness, *classes = scores if head.activated else map(sigmoid, scores)
            cx, cy, w, h = (tx + column) * stride, (ty + row) * stride, math.exp(tw) * stride, math.exp(th) * stride
            yield cx / width, cy / height, w / width, h / height, [objectness * p for p in classes]


def fastestdet(head: FastestDet, outputs: list[Float32]) -> Iterator[Box]:
    for row, column in cells(head.grid_h, head.grid_w):
        objectness, tx, ty, tw, th, *classes = outputs[0][row, column].tolist()
        cx, cy = (column + math.tanh(tx)) / head.grid_w, (row + math.tanh(ty)) / head.grid_h
        yield cx, cy, sigmoid(tw), sigmoid(th), [max(objectness, 0) ** 0.6 * max(p, 0) ** 0.4 for p in classes]


def centers_of_cells(head: BlazeFace) -> list[tuple[float, float]]:
    """Row by row, each as often as a cell has boxes."""
    return [
        ((column + 0.5) / columns, (row + 0.5) / rows)
        for rows, columns, each in head.levels
        for row, column in cells(rows, columns)
        for _ in range(each)
    ]


def blazeface(head: BlazeFace, outputs: list[Float32]) -> Iterator[Box]:
    width, height = head.image_wh
    half = len(outputs) // 2
    boxes, scores = np.concatenate(outputs[:half]).tolist(), np.concatenate(outputs[half:]).ravel().tolist()
    for (x, y), row, score in zip(centers_of_cells(head), boxes, scores, strict=True):
        size = max(row[2], 0) / width, max(row[3], 0) / height
        yield row[0] / width + x, row[1] / height + y, *size, [sigmoid(min(max(score, -100.0), 100.0))]


def tolerances(head: Any) -> tuple[float, float, float]:
    """Of boxes, and of scores (relative, absolute): float32 against float64."""
    if isinstance(head, YoloV8):
        return 3e-7, 0, 0  # four roundings; scores are the numbers themselves
    if isinstance(head, YoloV5):
        return 3e-7, 1e-6, 0  # a product
    return 1e-6, 0, 2e-6 if isinstance(head, FastestDet) else 1e-6


@pytest.mark.parametrize(
    ("loop", "head", "spread"),
    [
        pytest.param(yolo_v3, YoloV3(GRIDS[:1], 1, SIZE), 1.5, id="yolo_v3, one level, one class"),
        pytest.param(yolo_v3, YoloV3(GRIDS[:2], 5, SIZE), 1.5, id="yolo_v3, two levels"),
        pytest.param(yolo_v3, YoloV3(GRIDS, 3, SIZE), 1.5, id="yolo_v3, three levels"),
        pytest.param(yolo_v3, YoloV3(SCALED, 3, SIZE), 1.5, id="yolo_v3, scales of YOLO v4"),
        pytest.param(yolo_v3, YoloV3(GRIDS, 3, SIZE, "softmax"), 1.5, id="YOLO v2 over three levels"),
        pytest.param(yolo_v3, YoloV3(GRIDS, 1, SIZE, "softmax"), 1.5, id="YOLO v2 over levels, one class"),
        pytest.param(yolo_v5_raw, YoloV5Raw(GRIDS, 3, SIZE), 2.0, id="yolo_v5_raw, row, column, anchor"),
        pytest.param(yolo_v5_raw, YoloV5Raw(GRIDS, 1, SIZE, anchors_first=True), 2.0, id="anchor, row, column"),
        pytest.param(yolo_v5_raw, YoloV5Raw(GRIDS[:1], 2, (96.0, 64.0)), 2.0, id="yolo_v5_raw, one level"),
        pytest.param(yolo_v5, YoloV5(50, 4), 1.0, id="yolo_v5, fractions"),
        pytest.param(yolo_v5, YoloV5(50, 1, (640.0, 480.0)), 1.0, id="yolo_v5, pixels"),
        pytest.param(yolo_v8, YoloV8(50, 4), 1.0, id="yolo_v8, fractions"),
        pytest.param(yolo_v8, YoloV8(50, 4, (640.0, 480.0)), 1.0, id="yolo_v8, pixels"),
        pytest.param(yolox, Yolox((96, 64), 3), 1.0, id="yolox, activated"),
        pytest.param(yolox, Yolox((96, 64), 1, activated=False), 1.0, id="yolox, raw, one class"),
        pytest.param(yolox, Yolox((96, 64), 3, activated=False, separate=True), 1.0, id="yolox, an output per level"),
        pytest.param(yolox, Yolox((64, 128), 2, (4, 64)), 1.0, id="yolox, other strides"),
        pytest.param(fastestdet, FastestDet(3, 4, 2), 3.0, id="fastestdet"),
        pytest.param(blazeface, CLOSE_RANGE, 30.0, id="blazeface, close range"),
        pytest.param(blazeface, replace(CLOSE_RANGE, separate=True), 30.0, id="blazeface, an output per level"),
        pytest.param(blazeface, BlazeFace((192.0, 96.0), ((6, 12, 2), (3, 6, 6)), 7), 30.0, id="palm, not square"),
        pytest.param(blazeface, BlazeFace((64.0, 64.0), ((4, 4, 1),), 0), 30.0, id="no keypoints, one level"),
    ],
)
def test_boxes_and_scores_are_those_of_a_plain_loop(loop: Any, head: Any, spread: float) -> None:
    outputs = random_outputs(head, 2, spread=spread)
    if isinstance(head, YoloV5 | YoloV8):  # places in the unit of their boxes
        extent = np.array([*head.extent_wh, *head.extent_wh], np.float32)
        outputs = [np.abs(outputs[0])]
        places = outputs[0][..., 0:4] if isinstance(head, YoloV5) else outputs[0][:, 0:4].swapaxes(1, 2)
        places *= extent
    of_boxes, relative, absolute = tolerances(head)
    for boxes, scores in decode_twice(head, *outputs):
        for image in range(2):
            rows: list[Box] = list(loop(head, [output[image] for output in outputs]))
            corners = [(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2) for cx, cy, w, h, _ in rows]
            np.testing.assert_allclose(boxes[image], np.clip(corners, 0, 1), rtol=0, atol=of_boxes)
            expected = np.array([row[4] for row in rows])
            np.testing.assert_allclose(scores[image], expected, rtol=relative, atol=absolute)


@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0])
def test_a_yolo_v3_row_of_zeros_is_the_anchor_in_the_middle_of_its_cell_at_any_scale(scale: float) -> None:
    head = YoloV3((AnchorGrid(2, 2, ((16.0, 8.0),), scale),), 2, (64.0, 64.0))
    boxes, scores = head.decode([np.zeros((1, 2, 2, 7), np.float32)])
    assert boxes[0, 1].tolist() == [0.625, 0.1875, 0.875, 0.3125]
    assert scores.ravel().tolist() == [0.25] * 8


def test_a_yolo_v5_row_of_zeros_is_the_anchor_in_the_middle_of_its_cell() -> None:
    head = YoloV5Raw((AnchorGrid(2, 2, ((16.0, 8.0),)),), 1, (64.0, 64.0))
    boxes, scores = head.decode([np.zeros((1, 2, 2, 6), np.float32)])
    assert boxes[0, 1].tolist() == [0.625, 0.1875, 0.875, 0.3125]
    assert scores.ravel().tolist() == [0.25] * 4


def test_classes_of_yolo_v3_do_not_compete() -> None:
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


def test_a_centre_of_yolo_v5_reaches_half_a_cell_beyond_its_own() -> None:
    head = YoloV5Raw((AnchorGrid(4, 4, ((1.0, 1.0),)),), 1, (64.0, 64.0))
    requested = np.repeat([[[0.0, 0.0, 0.5, 0.5]]], 16, axis=1).astype(np.float32)  # centre (1, 1) in cells
    boxes, _ = head.decode(head.encode(requested, np.ones((1, 16, 1), np.float32)))
    centers = (boxes[0, :, :2] + boxes[0, :, 2:]) * 2
    np.testing.assert_allclose(centers[[0, 5, 10]], np.array([[1, 1], [1, 1], [1.5, 1.5]]), atol=1e-5)


def test_a_yolo_v8_box_in_pixels_by_hand() -> None:
    head = YoloV8(1, 2, (320.0, 160.0))
    boxes, scores = head.decode([np.array([160, 80, 80, 40, 0.25, 0.75], np.float32).reshape(1, 6, 1)])
    assert boxes.tolist() == [[[0.375, 0.375, 0.625, 0.625]]]
    assert scores.tolist() == [[[0.25, 0.75]]]


def test_a_size_below_0_is_an_empty_box() -> None:
    output = np.array([0.5, 0.5, -0.25, 0.5, 1.0], np.float32).reshape(1, 5, 1)
    for boxes, _ in decode_twice(YoloV8(1, 1), output):
        assert boxes.tolist() == [[[0.5, 0.25, 0.5, 0.75]]]


def test_fractions_are_not_divided() -> None:
    assert decoder(YoloV8(5, 2, (96.0, 96.0))).count(b"Div") > decoder(YoloV8(5, 2)).count(b"Div")


def test_a_yolox_row_of_zeros_is_as_large_as_its_cell_and_centred_on_its_corner() -> None:
    head = Yolox((32, 32), 1, (8,), activated=False)
    boxes, scores = head.decode([np.zeros((1, 16, 6), np.float32)])
    assert boxes[0, 6].tolist() == [0.375, 0.125, 0.625, 0.375]  # cell 2, 1 of 4 x 4
    assert scores[0, 6].tolist() == [0.25]


def test_a_640_pixel_yolox_has_8400_boxes() -> None:
    assert Yolox((640, 640), 80).num_boxes == 8400


@pytest.mark.parametrize("value", [0.0, -0.01])
def test_probabilities_of_0_and_codes_below_it_score_0(value: float) -> None:
    for _, scores in decode_twice(FastestDet(1, 1, 1), np.full((1, 1, 1, 6), value, np.float32)):
        assert scores.item() == 0


def test_keypoints_are_moved_from_the_centres_of_cells() -> None:
    boxes, scores = random_outputs(CLOSE_RANGE, 2, spread=30.0)
    points = CLOSE_RANGE.decode_keypoints([boxes, scores])
    for index, center in enumerate(centers_of_cells(CLOSE_RANGE)):
        expected = boxes[:, index, 4:].astype(np.float64) / 128 + np.tile(center, CLOSE_RANGE.num_keypoints)
        np.testing.assert_allclose(points[:, index], expected, rtol=0, atol=4e-7)


def test_the_face_detector_for_close_range_has_896_boxes_and_16_numbers_each() -> None:
    assert [raw.shape for raw in CLOSE_RANGE.raw_outputs()] == [(896, 16), (896, 1)]
    separate = replace(CLOSE_RANGE, separate=True).raw_outputs()
    assert {raw.name: raw.shape for raw in separate} == {
        "boxes_0": (512, 16),
        "boxes_1": (384, 16),
        "scores_0": (512, 1),
        "scores_1": (384, 1),
    }


def test_a_blazeface_box_by_hand() -> None:
    head = BlazeFace((128.0, 64.0), ((2, 2, 1),), 1)
    raw_boxes, raw_scores = np.zeros((1, 4, 6), np.float32), np.zeros((1, 4, 1), np.float32)
    raw_boxes[0, 3] = [-16, 8, 32, 16, 99, 99]  # of the cell whose centre is 0.75, 0.75
    boxes, probabilities = head.decode([raw_boxes, raw_scores])
    assert boxes[0, 3].tolist() == [0.5, 0.75, 0.75, 1.0]
    assert boxes[0, 0].tolist() == [0.25] * 4
    assert probabilities.ravel().tolist() == [0.5] * 4


@pytest.mark.parametrize("t", [-1e4, -101.0, -100.0, -99.0, 99.0, 100.0, 101.0, 1e4])
def test_clipping_scores_before_the_sigmoid_would_change_nothing(t: float) -> None:
    outputs = np.zeros((1, 4, 4), np.float32), np.full((1, 4, 1), t, np.float32)
    for _, scores in decode_twice(BlazeFace((128.0, 64.0), ((2, 2, 1),), 0), *outputs):
        np.testing.assert_allclose(scores, float(t > 0), rtol=0, atol=1e-37)
