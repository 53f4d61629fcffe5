"""Parameters that no head can have are refused with their name."""

from __future__ import annotations

from typing import Any

import pytest

from converters.heads.blazeface import BlazeFace
from converters.heads.decoded import YoloV5, YoloV8
from converters.heads.fomo import Fomo
from converters.heads.grids import AnchorGrid, YoloV3, YoloV5Raw
from converters.heads.ssd import Ssd
from converters.heads.yolox import Yolox

GRID = AnchorGrid(4, 4, ((1.0, 2.0),))
CENTERS = tuple((0.1 + 0.2 * (i % 5), 0.1 + 0.2 * (i // 5), 0.1 + i / 40, 0.6 - i / 50) for i in range(25))
SOUND: dict[type, dict[str, Any]] = {
    BlazeFace: {"image_wh": (64.0, 64.0), "levels": ((4, 4, 2),), "num_keypoints": 6},
    Fomo: {"grid_h": 4, "grid_w": 4, "num_classes": 1},
    AnchorGrid: {"rows": 4, "columns": 4, "anchors_px": ((1.0, 2.0),)},
    YoloV3: {"grids": (GRID,), "num_classes": 1, "image_wh": (64.0, 64.0)},
    YoloV5Raw: {"grids": (GRID,), "num_classes": 1, "image_wh": (64.0, 64.0)},
    YoloV5: {"num_boxes": 10, "num_classes": 1},
    YoloV8: {"num_boxes": 10, "num_classes": 1},
    Yolox: {"image_wh": (64, 64), "num_classes": 1},
    Ssd: {"num_boxes": 25, "num_classes": 2, "coding": "centers", "scales": (10, 10, 5, 5), "priors": CENTERS},
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
        (Ssd, "priors", CENTERS[:24], "24 priors do not fit 25 boxes"),
        (Ssd, "priors", [*CENTERS[:24], (0.1, 0.1, 0.0, 0.2)], "prior 24 has no size above 0"),
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
