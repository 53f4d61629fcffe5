"""What heads share: exact overlaps, monotone sigmoids and their inverses, cells in order, no back end imported."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converters.heads.arithmetic import (
    Float32,
    area_xyxy,
    cells_xy,
    clip_xyxy,
    corners_from_centers,
    iou_xyxy,
    lattice_boxes,
    logit,
    sigmoid,
    softmax,
    split_scores,
)

HEADS = ("yolo_v2", "grids", "lists", "ssd", "one_grid", "blazeface")


@given(hnp.arrays(np.float32, (50,), elements=st.floats(-(2.0**126), 2.0**126, width=32)))
def test_a_higher_logit_never_has_a_lower_probability(logits: Float32) -> None:
    probabilities = sigmoid(np.sort(logits))
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert (np.diff(probabilities) >= 0).all()


@given(hnp.arrays(np.float32, (50,), elements=st.floats(0, 1, width=32)))
def test_logit_is_the_inverse_of_sigmoid_to_the_ends(probabilities: Float32) -> None:
    logits = logit(probabilities)
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(sigmoid(logits), probabilities, rtol=0, atol=2e-7)  # of a logit's own rounding
    np.testing.assert_array_equal(sigmoid(logit(np.array([0.5, 1.0], np.float32))), [0.5, 1.0])


@given(hnp.arrays(np.float32, (4, 7), elements=st.floats(-(2.0**126), 2.0**126, width=32)))
def test_a_softmax_adds_up_to_one(logits: Float32) -> None:
    np.testing.assert_allclose(softmax(logits).sum(axis=-1), 1, rtol=0, atol=1e-6)  # seven float32 roundings


@given(hnp.arrays(np.float32, (5, 3), elements=st.floats(0, 1, width=32)))
def test_objectness_times_class_is_the_score_and_the_best_class_is_certain(scores: Float32) -> None:
    objectness, classes = split_scores(scores)
    np.testing.assert_allclose(objectness * classes, scores, rtol=2e-7, atol=1e-44)
    assert (classes.max(axis=-1) == (scores.max(axis=-1) > 0)).all()


def test_cells_run_row_by_row_with_the_column_first() -> None:
    assert cells_xy(2, 3).tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]


@pytest.mark.parametrize("count", [1, 2, 4, 5, 8400])
def test_lattice_boxes_part_the_picture(count: int) -> None:
    boxes = lattice_boxes(count)
    assert boxes.shape == (count, 4)
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert len({tuple(box) for box in boxes.tolist()}) == count


@pytest.mark.parametrize("module", HEADS)
def test_importing_a_head_loads_no_onnx(module: str) -> None:
    code = f"import sys, converters.heads.{module}; assert not {{'onnx', 'onnx_ir', 'onnxruntime'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# On a lattice of quarters degenerate boxes, shared edges, equal boxes and containment come up all the time.
quarters = st.integers(0, 8).map(lambda n: n / 4)
thousandths = st.integers(0, 1024).map(lambda n: n / 1024)
quarters_or_anywhere = st.one_of(quarters, st.floats(0.0, 1.0, width=32))


@st.composite
def boxes_xyxy(draw: st.DrawFn, coordinates: st.SearchStrategy[float] = quarters_or_anywhere) -> Float32:
    corners = draw(hnp.arrays(np.float32, (6, 2, 2), elements=coordinates.map(np.float32)))
    return np.sort(corners, axis=1).reshape(6, 4)


def iou_in_float64(first: Float32, second: Float32) -> float:
    ax1, ay1, ax2, ay2 = first.astype(np.float64).tolist()
    bx1, by1, bx2, by2 = second.astype(np.float64).tolist()
    width = min(ax2, bx2) - max(ax1, bx1)
    height = min(ay2, by2) - max(ay1, by1)
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    return float(intersection / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection))


@given(boxes_xyxy(coordinates=st.one_of(quarters, thousandths)))
def test_the_matrix_of_ious_is_that_of_plain_arithmetic(boxes: Float32) -> None:
    matrix = iou_xyxy(boxes[:, None], boxes[None])
    assert matrix.shape == (6, 6)
    assert matrix.dtype == np.float32
    expected = np.array([[iou_in_float64(a, b) for b in boxes] for a in boxes])
    # On these lattices every area is exact in float32, so only the division rounds, and it rounds correctly.
    np.testing.assert_array_equal(matrix, expected.astype(np.float32))


@given(boxes_xyxy())
def test_iou_is_symmetric_finite_and_between_0_and_1(boxes: Float32) -> None:
    matrix = iou_xyxy(boxes[:, None], boxes[None])
    assert np.isfinite(matrix).all()
    assert ((matrix >= 0) & (matrix <= 1)).all()
    np.testing.assert_array_equal(matrix, matrix.T)


@given(boxes_xyxy())
def test_a_box_has_iou_1_with_itself_unless_it_has_no_area(boxes: Float32) -> None:
    np.testing.assert_array_equal(iou_xyxy(boxes, boxes), (area_xyxy(boxes) > 0).astype(np.float32))


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        pytest.param([1, 0, 2, 1], 0, id="a shared edge"),
        pytest.param([1, 1, 2, 2], 0, id="a shared corner"),
        pytest.param([3, 3, 4, 4], 0, id="apart on both axes: two negative extents do not make an overlap"),
        pytest.param([0, 0, 0, 1], 0, id="no width"),
        pytest.param([0.5, 0.5, 0.5, 0.5], 0, id="a point inside"),
        pytest.param([0, 0, 1, 0.5], 0.5, id="half of it"),
        pytest.param([0, 0, 1, 2], 0.5, id="twice of it"),
    ],
)
def test_iou_with_the_unit_square_is_exact_at_the_edges(second: list[float], expected: float) -> None:
    unit = np.array([0, 0, 1, 1], np.float32)
    assert iou_xyxy(unit, np.array(second, np.float32)) == expected


def test_boxes_broadcast_and_no_boxes_give_no_ious() -> None:
    assert iou_xyxy(np.zeros(4, np.float32), np.zeros((3, 4), np.float32)).shape == (3,)
    assert iou_xyxy(np.zeros((2, 1, 4), np.float32), np.zeros((1, 0, 4), np.float32)).shape == (2, 0)


@given(hnp.arrays(np.float32, (5, 4), elements=st.floats(width=32, allow_nan=False)))
def test_clipped_boxes_lie_in_the_image_and_clipping_again_changes_nothing(boxes: Float32) -> None:
    clipped = clip_xyxy(boxes)
    assert clipped.dtype == np.float32
    assert ((clipped >= 0) & (clipped <= 1)).all()
    np.testing.assert_array_equal(clip_xyxy(clipped), clipped)
    inside = (boxes >= 0) & (boxes <= 1)
    np.testing.assert_array_equal(clipped[inside], boxes[inside])


def test_a_box_outside_the_image_collapses_to_the_border() -> None:
    outside = np.array([[-2, 0.2, -1, 0.4], [0.2, 3, 0.4, np.inf]], np.float32)
    np.testing.assert_array_equal(clip_xyxy(outside), np.array([[0, 0.2, 0, 0.4], [0.2, 1, 0.4, 1]], np.float32))
    np.testing.assert_array_equal(area_xyxy(clip_xyxy(outside)), [0, 0])


@given(boxes_xyxy())
def test_corners_made_from_centres_are_the_box_again(boxes: Float32) -> None:
    half = np.float32(0.5)
    centers, half_sizes = (boxes[:, :2] + boxes[:, 2:]) * half, (boxes[:, 2:] - boxes[:, :2]) * half
    corners = corners_from_centers(centers, half_sizes)
    assert corners.dtype == np.float32
    # four float32 roundings of values up to 2
    np.testing.assert_allclose(corners, boxes, rtol=0, atol=4e-7)


def test_infinite_sizes_make_infinite_corners() -> None:
    corners = corners_from_centers(np.array([0.5, 0.5], np.float32), np.array([np.inf, 0.25], np.float32))
    np.testing.assert_array_equal(corners, [-np.inf, 0.25, np.inf, 0.75])
