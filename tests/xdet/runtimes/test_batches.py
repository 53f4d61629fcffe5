"""Chunks, filters and cuts change no value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from converters.heads.base import BatchDetections
from xdet.runtimes.finished import above_score, first_rows, run_in_chunks

if TYPE_CHECKING:
    from numpy.typing import NDArray


@given(count=st.integers(1, 9), batch=st.none() | st.integers(1, 5))
def test_chunks_join_to_what_one_call_gives(count: int, batch: int | None) -> None:
    sizes: list[int] = []

    def run(images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        sizes.append(len(images))
        return [images, images[:, 0, 0, 0] + 1]

    images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(3, axis=3)
    same, plus_one = run_in_chunks(images, batch, run)
    assert np.array_equal(same, images)
    assert plus_one.tolist() == [i + 1 for i in range(count)]
    assert set(sizes) == {count if batch is None else batch}


@given(scores=st.lists(st.integers(0, 4), min_size=1, max_size=6), threshold=st.integers(0, 4), rows=st.integers(1, 7))
def test_filtering_and_cutting_keep_the_leading_rows_and_pad_the_rest(
    scores: list[int], threshold: int, rows: int
) -> None:
    ordered = np.array([sorted(scores, reverse=True)], np.float32) / np.float32(4)
    valid = int((ordered > 0).sum())
    k = ordered.shape[1]
    anchors = np.where(np.arange(k) < valid, np.arange(k), -1)[None].astype(np.int32)
    batch = BatchDetections(
        np.array([valid], np.int32),
        np.where(anchors[..., None] >= 0, np.ones((1, k, 4), np.float32), np.float32(0)),
        ordered,
        np.minimum(anchors, 0),
        anchors,
    )
    kept = first_rows(above_score(batch, threshold / 4), rows)
    expected = min(int((ordered > threshold / 4).sum()), rows)
    assert kept.num_detections.tolist() == [expected]
    assert kept.scores.shape[1] == min(k, rows)
    assert kept.anchors[0, :expected].tolist() == list(range(expected))
    assert (kept.anchors[0, expected:] == -1).all()
    assert not kept.boxes_xyxy[0, expected:].any()
    assert not kept.scores[0, expected:].any()
    assert kept.boxes_xyxy.dtype == np.float32
    assert kept.anchors.dtype == kept.classes.dtype == kept.num_detections.dtype == np.int32
