"""FOMO: peaks checked against a plain loop over neighbours, and joined patches of cells as the maker has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converters.heads.one_grid import Fomo
from tests.converters.heads.decoding import Float32, decode_twice

if TYPE_CHECKING:
    from numpy.typing import NDArray


def as_output(scores: Float32) -> Float32:
    """A raw output of class probabilities ``(N, rows, columns, NC)`` and the background's rest."""
    rest = np.clip(1 - scores.sum(axis=-1, keepdims=True), 0, 1)
    return np.concatenate([rest, scores], axis=-1).astype(np.float32)


def peaks_slowly(grid: Float32) -> Float32:
    """Cell by cell, neighbour by neighbour."""
    kept = np.zeros_like(grid)
    rows, columns = grid.shape
    for row, column in np.ndindex(rows, columns):
        around = [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
        inside = [(r, c) for r, c in around if 0 <= r < rows and 0 <= c < columns]
        beaten = any(
            grid[cell] > grid[row, column] or (grid[cell] == grid[row, column] and cell < (row, column))
            for cell in inside
        )
        kept[row, column] = 0 if beaten else grid[row, column]
    return kept


@settings(deadline=None, max_examples=80)
@given(levels=hnp.arrays(np.int8, (2, 5, 6, 2), elements=st.integers(0, 4)), steps=st.sampled_from([4, 8, 16]))
def test_peaks_are_those_of_a_plain_loop_whatever_the_ties(levels: NDArray[np.int8], steps: int) -> None:
    head = Fomo(5, 6, 2)
    scores = (levels / np.float32(steps)).astype(np.float32)
    expected = np.stack([[peaks_slowly(image[..., k]) for k in range(2)] for image in scores])
    for _, found in decode_twice(head, as_output(scores)):
        np.testing.assert_array_equal(found.reshape(2, 5, 6, 2), expected.transpose(0, 2, 3, 1))


def joined_patches(grid: Float32, threshold: float) -> list[float]:
    """The highest score of each patch of touching cells above the threshold, falling."""
    open_cells = {cell for cell in np.ndindex(*grid.shape) if grid[cell] > threshold}
    best = []
    while open_cells:
        patch, frontier = set(), [open_cells.pop()]
        while frontier:
            row, column = frontier.pop()
            patch.add((row, column))
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & open_cells
            open_cells -= near
            frontier += near
        best.append(max(float(grid[cell]) for cell in patch))
    return sorted(best, reverse=True)


@pytest.mark.parametrize("seed", range(5))
def test_objects_with_one_peak_are_found_as_often_and_as_sure_as_by_joining_cells(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = np.zeros((12, 16), np.float32)
    for row, column in [(2, 2), (2, 9), (8, 4), (9, 13)]:  # far enough apart not to touch
        height = rng.uniform(0.6, 1.0)
        for i, j in np.ndindex(3, 3):
            distance = abs(i - 1) + abs(j - 1)
            grid[row + i - 1, column + j - 1] = (
                height * (1.0, 0.9, 0.7)[distance] if rng.random() < 0.8 or not distance else 0
            )
    expected = joined_patches(grid, 0.3)
    assert len(expected) == 4
    _, scores = Fomo(12, 16, 1).decode([as_output(grid[None, ..., None])])
    found = np.sort(scores[scores > 0.3])[::-1]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_classes_do_not_merge_with_each_other() -> None:
    scores = np.zeros((1, 1, 2, 2), np.float32)
    scores[0, 0, 0, 0], scores[0, 0, 1, 1] = 0.75, 0.5
    _, found = Fomo(1, 2, 2).decode([as_output(scores)])
    assert found.tolist() == [[[0.75, 0.0], [0.0, 0.5]]]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        pytest.param(1.0, [0.25, 0.0, 0.5, 0.5], id="the cell"),
        pytest.param(2.0, [0.125, 0.0, 0.625, 0.75], id="two cells, clipped"),
        pytest.param(0.5, [0.3125, 0.125, 0.4375, 0.375], id="half a cell"),
    ],
)
def test_a_box_is_a_square_of_cells_around_the_centre_of_its_own(size: float, expected: list[float]) -> None:
    head = Fomo(2, 4, 1, size_cells=size)
    output = np.full((3, 2, 4, 2), 0.5, np.float32)
    for boxes, _ in decode_twice(head, output):
        assert boxes.shape == (3, 8, 4)
        assert boxes[:, 1].tolist() == [expected] * 3


def test_logits_pass_a_softmax_over_the_background_too() -> None:
    head = Fomo(1, 1, 2, activated=False)
    output = np.log(np.array([0.5, 0.125, 0.375], np.float32)).reshape(1, 1, 1, 3)
    for _, scores in decode_twice(head, output):
        np.testing.assert_allclose(scores, [[[0.125, 0.375]]], rtol=0, atol=1e-7)
