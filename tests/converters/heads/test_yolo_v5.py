"""YOLO v5: both forms checked against plain loops over the maker's formulas, and by hand."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from converters.heads.decoded import YoloV5
from converters.heads.grids import AnchorGrid, YoloV5Raw
from tests.converters.heads.decoding import decoder, random_outputs, run_onnxruntime

Float32 = NDArray[np.float32]

GRIDS = (
    AnchorGrid(4, 6, ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0))),
    AnchorGrid(2, 3, ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0))),
    AnchorGrid(1, 2, ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0))),
)


def sigmoid(t: float) -> float:
    return 1 / (1 + math.exp(-t))


def clipped(cx: float, cy: float, w: float, h: float) -> list[float]:
    return [min(max(v, 0.0), 1.0) for v in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)]


def decode_slowly(head: YoloV5Raw, outputs: list[Float32], image: int) -> tuple[list[list[float]], list[list[float]]]:
    """Level by level, box by box, in float64 and pixels, as ``Detect`` does."""
    boxes, scores = [], []
    width, height = head.image_wh
    for grid, output in zip(head.grids, outputs, strict=True):
        stride_x, stride_y, count = width / grid.columns, height / grid.rows, len(grid.anchors_px)
        places = [(r, c, a) for r in range(grid.rows) for c in range(grid.columns) for a in range(count)]
        if head.anchors_first:
            places.sort(key=lambda place: place[2])
        for row, column, anchor in places:
            if head.anchors_first:
                values = output[image, anchor, row, column]
            else:
                values = output[image, row, column].reshape(count, -1)[anchor]
            x, y, w, h, objectness, *classes = (sigmoid(float(t)) for t in values)
            cx, cy = (x * 2 - 0.5 + column) * stride_x, (y * 2 - 0.5 + row) * stride_y
            w, h = (w * 2) ** 2 * grid.anchors_px[anchor][0], (h * 2) ** 2 * grid.anchors_px[anchor][1]
            boxes.append(clipped(cx / width, cy / height, w / width, h / height))
            scores.append([objectness * p for p in classes])
    return boxes, scores


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(YoloV5Raw(GRIDS, 3, (192.0, 128.0)), id="row, column, anchor"),
        pytest.param(YoloV5Raw(GRIDS, 1, (192.0, 128.0), anchors_first=True), id="anchor, row, column"),
        pytest.param(YoloV5Raw(GRIDS[:1], 2, (96.0, 64.0)), id="one level"),
    ],
)
def test_raw_grids_are_decoded_as_a_plain_loop_does(head: YoloV5Raw) -> None:
    outputs = random_outputs(head, 2)
    for boxes, scores in (head.decode(outputs), run_onnxruntime(decoder(head), outputs)):
        for image in range(2):
            expected = decode_slowly(head, outputs, image)
            np.testing.assert_allclose(boxes[image], expected[0], rtol=0, atol=1e-6)  # float32 against float64
            np.testing.assert_allclose(scores[image], expected[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "head", [pytest.param(YoloV5(50, 4), id="fractions"), pytest.param(YoloV5(50, 1, (640.0, 480.0)), id="pixels")]
)
def test_decoded_rows_are_read_as_a_plain_loop_does(head: YoloV5) -> None:
    output = np.random.default_rng(0).random((2, 50, 5 + head.num_classes)).astype(np.float32)
    width, height = head.extent_wh
    output[..., 0:4] *= np.array([width, height, width, height], np.float32)
    for boxes, scores in (head.decode([output]), run_onnxruntime(decoder(head), [output])):
        for image, row in np.ndindex(2, 50):
            cx, cy, w, h, objectness, *classes = output[image, row].astype(np.float64).tolist()
            expected = clipped(cx / width, cy / height, w / width, h / height)
            np.testing.assert_allclose(boxes[image, row], expected, rtol=0, atol=3e-7)  # four float32 roundings
            np.testing.assert_allclose(scores[image, row], [objectness * p for p in classes], rtol=1e-6)


def test_a_row_of_zeros_is_the_anchor_in_the_middle_of_its_cell() -> None:
    head = YoloV5Raw((AnchorGrid(2, 2, ((16.0, 8.0),)),), 1, (64.0, 64.0))
    boxes, scores = head.decode([np.zeros((1, 2, 2, 6), np.float32)])
    assert boxes[0, 1].tolist() == [0.625, 0.1875, 0.875, 0.3125]
    assert scores.ravel().tolist() == [0.25] * 4


def test_a_centre_reaches_half_a_cell_beyond_its_own() -> None:
    head = YoloV5Raw((AnchorGrid(4, 4, ((1.0, 1.0),)),), 1, (64.0, 64.0))
    asked = np.repeat([[[0.0, 0.0, 0.5, 0.5]]], 16, axis=1).astype(np.float32)  # centre (1, 1) in cells
    boxes, _ = head.decode(head.encode(asked, np.ones((1, 16, 1), np.float32)))
    centers = (boxes[0, :, :2] + boxes[0, :, 2:]) * 2
    np.testing.assert_allclose(centers[0], [1, 1], atol=1e-5)
    np.testing.assert_allclose(centers[5], [1, 1], atol=1e-5)
    np.testing.assert_allclose(centers[10], [1.5, 1.5], atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: YoloV5(0, 1), "num_boxes must be a whole number", id="no boxes"),
        pytest.param(lambda: YoloV5(5, 1, (0.0, 1.0)), "extent_wh must be a", id="no width"),
        pytest.param(lambda: YoloV5Raw((), 1, (64.0, 64.0)), "at least one grid is needed", id="no grid"),
        pytest.param(
            lambda: YoloV5Raw(cast("Any", ((4, 4),)), 1, (64.0, 64.0)), "each grid must be a AnchorGrid", id="a tuple"
        ),
        pytest.param(lambda: AnchorGrid(4, 4, ()), "at least one anchor", id="no anchor"),
        pytest.param(lambda: AnchorGrid(4, 4, ((-1.0, 2.0),)), "each anchor must be a", id="negative anchor"),
        pytest.param(lambda: AnchorGrid(4, 4, ((1.0, 2.0),), 0.5), "xy_scale must lie in 1..2", id="scale"),
        pytest.param(
            lambda: YoloV5Raw((AnchorGrid(4, 4, ((1.0, 2.0),), 1.2),), 1, (64.0, 64.0)),
            "xy_scale of a yolo_v5_raw grid must be 1",
            id="a scale of YOLO v4",
        ),
    ],
)
def test_malformed_parameters_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
