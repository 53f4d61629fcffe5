"""What runtimes share: chunks, filters and cuts change no value, and what a model returns is looked at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from converters.heads.base import BatchDetections
from tests.xdet.finished_models import finished_model, head_model, red_image
from xdet.errors import ModelError
from xdet.model.file import ModelFile
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.finished import above_score, first_rows, run_in_chunks
from xdet.runtimes.table import open_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

BOX = [0, 0, 0.5, 0.25]


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


def with_constant(model: bytes, name: str, value: NDArray[Any]) -> ModelFile:
    """The model with another value in the place of one of its constants."""
    proto = onnx.load_from_string(model)
    (constant,) = [entry for entry in proto.graph.initializer if entry.name == name]
    constant.CopyFrom(numpy_helper.from_array(value, name))
    return ModelFile(Path("m.onnx"), proto.SerializeToString(), "onnx")


@pytest.mark.parametrize("runtime", ["onnxruntime", "onnx-reference"])
@pytest.mark.parametrize(
    ("constant", "value", "told"),
    [
        ("one", np.array(-98, np.int32), r"'detection_classes' holds 99, expected 0\.\.0"),
        ("one", np.array(2, np.int32), r"'detection_classes' holds -1, expected 0\.\.0"),
        ("box", np.array([*BOX[:3], np.nan], np.float32), r"'detection_boxes' holds nan, expected 0\.\.1"),
        ("box", np.array([*BOX[:3], np.inf], np.float32), r"'detection_boxes' holds inf, expected 0\.\.1"),
        ("box", np.array([-1e30, *BOX[1:]], np.float32), r"'detection_boxes' holds -1e\+30, expected 0\.\.1"),
    ],
)
def test_what_is_out_of_range_is_a_fault_of_the_model_by_file_runtime_and_output(
    runtime: str, constant: str, value: NDArray[Any], told: str
) -> None:
    model = with_constant(finished_model(), constant, value)
    with open_model(model, RuntimeChoices(runtime)) as opened, pytest.raises(ModelError) as raised:
        opened.detect(red_image(200, 0, 0, 0), opened.spec.thresholds)
    assert f"'m.onnx' on {opened.name}: output " in str(raised.value)
    assert raised.match(told)


def test_rows_behind_the_count_are_not_looked_at() -> None:
    model = with_constant(finished_model(), "box", np.array([np.nan] * 4, np.float32))
    with open_model(model, RuntimeChoices()) as opened:
        assert opened.detect(red_image(0, 0, 0, 0), opened.spec.thresholds).num_detections.tolist() == [0]


def test_a_head_that_is_no_number_is_told_with_its_first_place() -> None:
    model = with_constant(head_model(), "pick", np.array([0, 0, 0, 0, np.nan, 0], np.float32))
    with (
        open_model(model, RuntimeChoices()) as opened,
        pytest.raises(ModelError, match=r"the raw head holds NaN, 4 of 24 values, the first at \[0, 0, 0, 4\]"),
    ):
        opened.head(red_image(1, 2, 3, 4))
