"""What every head promises: nodes equal numpy, ``encode`` goes back, dicts keep parameters, misfits are refused."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.heads.blazeface import BlazeFace
from converters.heads.grids import AnchorGrid, YoloV3, YoloV5Raw
from converters.heads.lists import YoloV5, YoloV8, Yolox
from converters.heads.one_grid import FastestDet, Fomo
from converters.heads.ssd import Ssd
from converters.heads.yolo_v2 import Anchors, YoloV2
from tests.converters.heads.decoding import (
    RAW_OUTPUTS,
    Float32,
    assert_decoded_alike,
    decode_nodes,
    decode_twice,
    lattice_outputs,
    random_outputs,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.heads.base import Head

GRIDS = (
    AnchorGrid(4, 6, ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0))),
    AnchorGrid(2, 3, ((30.0, 61.0), (62.0, 45.0))),
    AnchorGrid(1, 2, ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0))),
)

PRIORS = tuple((0.1 + 0.2 * (i % 5), 0.1 + 0.2 * (i // 5), 0.1 + i / 40, 0.6 - i / 50) for i in range(25))
CORNER_PRIORS = tuple((x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in PRIORS)

MERGING = "fomo, merging"  # its cells are not independent of each other

EXAMPLES: dict[str, Head] = {
    "yolo_v2, cells": YoloV2(3, 4, Anchors(((0.9, 1.3), (2.1, 1.3)), "cell"), 3),
    "yolo_v2, fractions, one class": YoloV2(2, 3, Anchors(((0.9, 0.3), (0.1, 0.3)), "image"), 1),
    "ssd, corners": Ssd(25, 2, "corners", (1, 1, 1, 1), CORNER_PRIORS),
    "ssd, corners from an output": Ssd(25, 1, "corners", (1, 1, 1, 1), None),
    "ssd, y first, scales": Ssd(25, 3, "centers", (10, 10, 5, 5), PRIORS, yx_first=True),
    "ssd, no background, logits": Ssd(25, 4, "centers", (10, 10, 5, 5), PRIORS, background=False, activation="sigmoid"),
    "ssd, softmax, centers from an output": Ssd(
        25, 4, "centers", (10, 8, 5, 4), None, yx_first=True, activation="softmax"
    ),
    "ssd, corners with scales": Ssd(
        25, 1, "corners", (10, 10, 10, 10), CORNER_PRIORS, yx_first=True, activation="sigmoid"
    ),
    "ssd, one output": Ssd(25, 2, "corners", (1, 1, 1, 1), None, parts=("scores", "offsets", "priors"), joined=True),
    "ssd, one output without priors": Ssd(
        25, 2, "centers", (10, 10, 5, 5), PRIORS, parts=("offsets", "scores"), joined=True, activation="softmax"
    ),
    "yolo_v3, three levels": YoloV3(GRIDS, 3, (192.0, 128.0)),
    "yolo_v3, scales of YOLO v4": YoloV3(
        tuple(replace(grid, xy_scale=scale) for grid, scale in zip(GRIDS, (1.2, 1.1, 1.05), strict=True)),
        1,
        (192.0, 128.0),
    ),
    "yolo_v3, softmax": YoloV3(GRIDS, 3, (192.0, 128.0), "softmax"),
    "yolo_v3, softmax, one class": YoloV3(GRIDS, 1, (192.0, 128.0), "softmax"),
    "yolo_v3, one box": YoloV3((AnchorGrid(1, 1, ((20.0, 30.0),)),), 80, (64.0, 64.0)),
    "blazeface": BlazeFace((96.0, 64.0), ((4, 6, 2), (2, 3, 6)), 6),
    "blazeface, an output per level": BlazeFace((96.0, 64.0), ((4, 6, 2), (2, 3, 6)), 0, separate=True),
    "fastestdet": FastestDet(4, 5, 3),
    "fastestdet, one class": FastestDet(3, 2, 1),
    "fomo": Fomo(4, 5, 2, merge=False),
    "fomo, logits, larger boxes": Fomo(3, 2, 1, size_cells=2.5, merge=False, activated=False),
    MERGING: Fomo(4, 5, 3),
    "yolo_v8, fractions": YoloV8(num_boxes=21, num_classes=3),
    "yolo_v8, pixels, one class": YoloV8(num_boxes=84, num_classes=1, extent_wh=(96.0, 64.0)),
    "yolo_v8, one box": YoloV8(num_boxes=1, num_classes=80),
    "yolo_v5, fractions": YoloV5(num_boxes=21, num_classes=3),
    "yolo_v5, pixels, one class": YoloV5(num_boxes=84, num_classes=1, extent_wh=(96.0, 64.0)),
    "yolo_v5_raw, three levels": YoloV5Raw(GRIDS, 3, (192.0, 128.0)),
    "yolo_v5_raw, anchors first": YoloV5Raw(GRIDS, 1, (192.0, 128.0), anchors_first=True),
    "yolo_v5_raw, one box": YoloV5Raw((AnchorGrid(1, 1, ((20.0, 30.0),)),), 80, (64.0, 64.0)),
    "yolox, activated": Yolox((96, 64), 3),
    "yolox, an output per level": Yolox((96, 64), 1, activated=False, separate=True),
    "yolox, one box": Yolox((32, 32), 80, (32,), activated=False),
}
INDEPENDENT = {name: head for name, head in EXAMPLES.items() if name != MERGING}
MOVABLE = {name: head for name, head in INDEPENDENT.items() if head.kind != "fomo"}  # its boxes are the cells

every_head = pytest.mark.parametrize("head", EXAMPLES.values(), ids=EXAMPLES)
every_independent_head = pytest.mark.parametrize("head", INDEPENDENT.values(), ids=INDEPENDENT)
every_head_that_moves_boxes = pytest.mark.parametrize("head", MOVABLE.values(), ids=MOVABLE)


@pytest.mark.parametrize("raw", RAW_OUTPUTS)
@pytest.mark.parametrize(
    ("runtime", "batch"), [("onnxruntime", 1), ("onnxruntime", 3), ("reference", 3), ("openvino", 3)]
)
@every_head
def test_nodes_decode_as_numpy(head: Head, runtime: str, raw: str, batch: int) -> None:
    outputs = RAW_OUTPUTS[raw](head, batch)
    assert_decoded_alike(decode_nodes(head, outputs, runtime=runtime), head.decode(outputs))


@settings(deadline=None, max_examples=60)
@given(
    head=st.sampled_from(list(EXAMPLES.values())),
    batch=st.sampled_from([1, 3]),
    spread=st.sampled_from([0.01, 1.0, 8.0, 40.0]),
    seed=st.integers(0, 99),
)
def test_nodes_decode_any_outputs_as_numpy(head: Head, batch: int, spread: float, seed: int) -> None:
    outputs = random_outputs(head, batch, spread=spread, seed=seed)
    assert_decoded_alike(decode_nodes(head, outputs), head.decode(outputs), reach=max(1.0, spread))


@every_head
def test_a_static_batch_is_decoded_as_a_dynamic_one(head: Head) -> None:
    outputs = random_outputs(head, 3)
    for static, dynamic in zip(decode_nodes(head, outputs, batch=3), decode_nodes(head, outputs), strict=True):
        np.testing.assert_array_equal(static, dynamic)


@every_head
def test_boxes_lie_in_the_picture_and_have_their_corners_in_order(head: Head) -> None:
    for raw in RAW_OUTPUTS.values():
        boxes, _ = head.decode(raw(head, 2))
        assert ((boxes >= 0) & (boxes <= 1)).all()
        assert (boxes[..., 2:] >= boxes[..., :2]).all()  # ONNX's suppression would turn them round, numpy's not


@every_independent_head
def test_equal_outputs_give_equal_scores_on_both_sides(head: Head) -> None:
    for _, scores in decode_twice(head, *lattice_outputs(head, 2, step=1.0, limit=0)):
        np.testing.assert_array_equal(scores, np.broadcast_to(scores[:1, :1], scores.shape))


def some_scores(head: Head, batch: int) -> Float32:
    """Scores in steps of 1/64, at most 1 per box over all classes; a third of the boxes has none."""
    rng = np.random.default_rng(2)
    scores = np.zeros((batch, head.num_boxes, head.num_classes), np.float32)
    boxes = np.arange(head.num_boxes)
    scores[:, boxes, boxes % head.num_classes] = rng.integers(0, 65, (batch, head.num_boxes)) / 64
    scores[:, boxes % 3 == 0] = 0
    return scores


@every_independent_head
def test_encode_makes_outputs_that_decode_to_the_requested_boxes_and_scores(head: Head) -> None:
    boxes, scores = np.repeat(head.default_boxes()[None], 3, axis=0), some_scores(head, 3)
    outputs = head.encode(boxes, scores)
    assert all(np.isfinite(output).all() and output.dtype == np.float32 for output in outputs)
    for decoded in decode_twice(head, *outputs):
        np.testing.assert_allclose(decoded[0], np.clip(boxes, 0, 1), rtol=0, atol=1e-6)
        np.testing.assert_allclose(decoded[1], scores, rtol=0, atol=1e-6)


@every_head_that_moves_boxes
def test_encode_moves_boxes_within_their_place(head: Head) -> None:
    default = head.default_boxes()[None]
    center, size = (default[..., :2] + default[..., 2:]) / 2, default[..., 2:] - default[..., :2]
    moved = default + np.concatenate([size, size], axis=-1) / 100
    smaller = np.concatenate([center - size / 8, center + size / 8], axis=-1)
    for requested in (moved, smaller):
        boxes, _ = head.decode(head.encode(requested.astype(np.float32), some_scores(head, 1)))
        np.testing.assert_allclose(boxes, np.clip(requested, 0, 1), rtol=0, atol=1e-6)


@every_head
def test_default_boxes_lie_over_the_picture(head: Head) -> None:
    boxes = head.default_boxes()
    assert boxes.shape == (head.num_boxes, 4)
    assert boxes.dtype == np.float32
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert ((boxes[:, 2:] > 0) & (boxes[:, :2] < 1)).all()


@every_head
def test_a_head_is_read_from_its_own_json(head: Head) -> None:
    data = json.loads(json.dumps(head.to_dict()))
    assert data["kind"] == head.kind
    assert type(head).from_dict({**data, "unknown": 1}) == head


@every_head
def test_a_dict_that_is_no_head_of_this_kind_is_refused(head: Head) -> None:
    data = json.loads(json.dumps(head.to_dict()))
    wrong: list[Any] = [None, [], {}, {**data, "kind": "yolo_v99"}]
    for key in data:
        wrong += [{k: v for k, v in data.items() if k != key}]
        values: tuple[Any, ...] = ("text", -1, [], {}, [None], [[1, 2, 3, 4, 5]], float("nan"))
        wrong += [{**data, key: value} for value in values]
    for malformed in wrong:
        with pytest.raises(ValueError, match=r"\w+ "):
            type(head).from_dict(malformed)


@every_head
def test_outputs_of_another_head_are_refused(head: Head) -> None:
    outputs = random_outputs(head, 2)
    wrong_outputs: tuple[list[NDArray[Any]], ...] = (
        [],
        outputs + outputs[:1],
        [output[..., :-1] for output in outputs],
        [output.astype(np.float64) for output in outputs],
        [output[0] for output in outputs],
    )
    for wrong in wrong_outputs:
        with pytest.raises(ValueError, match=rf"a {head.kind} head takes .*float32 \[N, .*got "):
            head.decode(wrong)


def test_every_parameter_has_a_word_beside_it() -> None:
    for head in EXAMPLES.values():
        lines = "".join(inspect.getsource(kind) for kind in type(head).__mro__[:-2])  # up to ABC
        for field in fields(head):
            assert re.search(rf"# .+\n +{field.name}: |\n +{field.name}: .+  # ", lines), (head.kind, field.name)


GRID = AnchorGrid(4, 4, ((1.0, 2.0),))
SOUND: dict[type, dict[str, Any]] = {
    BlazeFace: {"image_wh": (64.0, 64.0), "levels": ((4, 4, 2),), "num_keypoints": 6},
    Fomo: {"grid_h": 4, "grid_w": 4, "num_classes": 1},
    AnchorGrid: {"rows": 4, "columns": 4, "anchors_px": ((1.0, 2.0),)},
    YoloV3: {"grids": (GRID,), "num_classes": 1, "image_wh": (64.0, 64.0)},
    YoloV5Raw: {"grids": (GRID,), "num_classes": 1, "image_wh": (64.0, 64.0)},
    YoloV5: {"num_boxes": 10, "num_classes": 1},
    YoloV8: {"num_boxes": 10, "num_classes": 1},
    Yolox: {"image_wh": (64, 64), "num_classes": 1},
    Ssd: {"num_boxes": 25, "num_classes": 2, "coding": "centers", "scales": (10, 10, 5, 5), "priors": PRIORS},
}


@pytest.mark.parametrize(
    ("head", "parameter", "value", "message"),
    [
        (BlazeFace, "levels", (), "at least one level is needed"),
        (BlazeFace, "levels", ((4, 4),), "must be rows, columns and boxes per cell"),
        (BlazeFace, "levels", ((4, 4, 0),), "each number of a level must be a whole number"),
        (BlazeFace, "image_wh", (128.0, 0.0), "image_wh must be a"),
        (BlazeFace, "num_keypoints", -1, "num_keypoints must be a whole number in 0"),
        (BlazeFace, "separate", None, "separate must be true or false"),
        (Fomo, "grid_h", 0, "grid_h must be a whole number"),
        (Fomo, "grid_w", 1.5, "grid_w must be a whole number"),
        (Fomo, "num_classes", 0, "num_classes must be a whole number"),
        (Fomo, "size_cells", 0, "size_cells must be above 0"),
        (Fomo, "merge", "yes", "merge must be true or false"),
        (AnchorGrid, "anchors_px", (), "at least one anchor"),
        (AnchorGrid, "anchors_px", ((-1.0, 2.0),), "each anchor must be a"),
        (AnchorGrid, "xy_scale", 0.5, "xy_scale must lie in 1..2"),
        (YoloV3, "grids", (), "at least one grid is needed"),
        (YoloV3, "grids", ((4, 6), (2, 3)), "each grid must be a AnchorGrid"),
        (YoloV3, "num_classes", 0, "num_classes must be a whole"),
        (YoloV3, "image_wh", (64.0,), "image_wh must be a"),
        (YoloV3, "class_activation", "relu", "class_activation must be one of sigmoid, softmax"),
        (YoloV5Raw, "grids", (), "at least one grid is needed"),
        (YoloV5Raw, "grids", (AnchorGrid(4, 4, ((1.0, 2.0),), 1.2),), "xy_scale of a yolo_v5_raw grid must be 1"),
        (YoloV5, "num_boxes", 0, "num_boxes must be a whole number"),
        (YoloV5, "extent_wh", (0.0, 1.0), "extent_wh must be a"),
        (YoloV8, "num_boxes", 0, "num_boxes must be a whole number in 1"),
        (YoloV8, "num_classes", 0, "num_classes must be a whole number in 1"),
        (YoloV8, "extent_wh", (640.0,), r"extent_wh must be a \(width, height\) pair above 0"),
        (YoloV8, "extent_wh", (640.0, 0.0), r"extent_wh must be a \(width, height\) pair above 0"),
        (YoloV8, "extent_wh", 640.0, "extent_wh must be a list, got 640.0"),
        (Yolox, "image_wh", (100, 64), "must be multiples of the strides, 8 does not fit"),
        (Yolox, "image_wh", (64,), r"must be a \(width, height\) pair"),
        (Yolox, "image_wh", (64, 0), "each of image_wh must be a whole number"),
        (Yolox, "strides", (), "at least one stride is needed"),
        (Yolox, "strides", (0,), "each stride must be a whole number"),
        (Yolox, "num_classes", 0, "num_classes must be a whole number"),
        (Yolox, "activated", 1, "activated must be true or false"),
        (Ssd, "priors", PRIORS[:24], "24 priors do not fit 25 boxes"),
        (Ssd, "priors", [*PRIORS[:24], (0.1, 0.1, 0.0, 0.2)], "prior 24 has no size above 0"),
        (Ssd, "priors", [(0.1, 0.1)] * 25, "prior 0 must be four numbers"),
        (Ssd, "priors", [(0.1, 0.1, float("nan"), 0.1)] * 25, "prior 0 must be a finite number"),
        (Ssd, "coding", "corners", "has no size above 0: .*read as corners"),
        (Ssd, "coding", "sides", "coding must be one of centers, corners"),
        (Ssd, "scales", (10, 10, 5), "scales must be four numbers"),
        (Ssd, "scales", (10, 10, 0, 5), "scales must be four numbers above 0"),
        (Ssd, "activation", "tanh", "activation must be one of none, sigmoid, softmax"),
        (Ssd, "num_boxes", 0, "num_boxes must be a whole number"),
    ],
)
def test_malformed_parameters_are_refused(head: type, parameter: str, value: Any, message: str) -> None:
    head(**SOUND[head])
    with pytest.raises(ValueError, match=message):
        head(**{**SOUND[head], parameter: value})
