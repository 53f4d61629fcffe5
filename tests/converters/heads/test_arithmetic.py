"""What heads share: monotone sigmoids and their inverses, cells in order, and no back end behind an import."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from converters.heads.arithmetic import cells_xy, lattice_boxes, logit, sigmoid, softmax, split_scores

Float32 = NDArray[np.float32]

HEADS = ("yolo_v2", "grids", "decoded", "yolox", "ssd", "fomo", "blazeface", "fastestdet")


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
