"""Darknet's cfg as ``--config``: anchors in the heads' order, units, classes and size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from converters.description.darknet import read_config
from converters.description.statements import SourceOptions, describe_source
from converters.description.values import parse_anchors
from converters.errors import ConversionError, SourceFileError
from converters.facts import SourceFacts, SourceOutput
from converters.heads.grids import YoloV3

if TYPE_CHECKING:
    from pathlib import Path

V3 = """[net]
# comment
width=64 ; another
height=64
channels=3

[convolutional]
filters=18

[yolo]
mask = 3,4,5
anchors = 10,14,  23,27,  37,58,  81,82,  135,169,  344,319
classes=1

[yolo]
mask = 1,2,3
anchors = 10,14,  23,27,  37,58,  81,82,  135,169,  344,319
classes=1
"""
V2 = "[net]\nwidth=416\nheight=416\n[region]\nanchors = 1.08,1.19, 16.62,10.52\nclasses=20\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tiny.cfg"
    path.write_text(text, "utf-8")
    return path


def facts(*shapes: tuple[int, int, int]) -> SourceFacts:
    outputs = tuple(SourceOutput(str(i), shape) for i, shape in enumerate(shapes))
    return SourceFacts("m.tflite", 64, 64, outputs, "uint8", None)


def test_masks_choose_the_anchors_of_each_grid_the_finest_first(tmp_path: Path) -> None:
    text = V3.replace("mask = 1,2,3", "mask = 1,2,3\nscale_x_y = 1.05")
    config = written(tmp_path, text)
    found = read_config(config)
    assert (found.anchor_unit, found.num_classes, found.size_hw, found.color) == ("pixel", 1, (64, 64), "rgb")
    small = text.replace("344,319", "120,110").replace("135,169", "100,90")
    described = describe_source(
        tmp_path / "m.tflite", facts((2, 2, 18), (4, 4, 18)), SourceOptions(config=written(tmp_path, small))
    )
    head = described.spec.head
    assert isinstance(head, YoloV3)
    coarse, fine = head.grids
    assert (fine.anchors_px, fine.xy_scale) == (((23, 27), (37, 58), (81, 82)), 1.05)
    assert (coarse.anchors_px, coarse.xy_scale) == (((81, 82), (100, 90), (120, 110)), 1.0)


def test_a_region_is_in_cells_and_another_size_is_told(tmp_path: Path) -> None:
    config = written(tmp_path, V2.replace("16.62,10.52", "2.6,1.5").replace("classes=20", "classes=1"))
    described = describe_source(tmp_path / "m.tflite", facts((2, 2, 12)), SourceOptions(config=config))
    assert described.spec.head is not None
    assert described.spec.head.to_dict()["anchors"] == {"sizes_wh": ((1.08, 1.19), (2.6, 1.5)), "unit": "cell"}
    assert described.notes == ("config 'tiny.cfg' was trained at (416, 416), 'm.tflite' takes (64, 64)",)


def test_a_cfg_of_another_model_is_refused(tmp_path: Path) -> None:
    config = written(tmp_path, V2.replace("16.62,10.52", "2.6,1.5"))
    with pytest.raises(SourceFileError, match=r"has 20 classes, the head of 'm.tflite' scores 1: use the one"):
        describe_source(tmp_path / "m.tflite", facts((2, 2, 12)), SourceOptions(config=config))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (V3.replace("mask = 1,2,3", "mask = 1,2,9"), "mask: expected places in a list of 6 anchors"),
        (V3.replace("mask = 1,2,3", ""), "mask: expected places"),
        (V3.replace("10,14,", "10,x,"), "anchors: 'x' is not a number"),
        (V3.replace("classes=1", "classes=one"), "classes: expected a whole number, found 'one'"),
        (V3.replace("classes=1", "new_coords=1"), "new_coords"),
        (V3.replace("filters=18", "filters"), r"line 8: expected \[section\] or key = value"),
        ("[net]\n[detection]\nclasses=2", "found neither"),
        (V3.replace("mask = 1,2,3", "mask = 1,2,3\nscale_x_y=1/0"), "scale_x_y: '1/0' divides by zero"),
    ],
)
def test_a_malformed_cfg_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=said) as caught:
        read_config(written(tmp_path, text))
    assert str(caught.value).startswith("config 'tiny.cfg'")


@pytest.mark.parametrize(
    "text",
    [
        "10,13, 16,30, 33,23, 30,61",
        "10 13 16 30 33 23 30 61",
        "[[10,13, 16,30], [33,23, 30,61]]",
        "10,13,16,30\n33,23,30,61",
    ],
)
def test_flat_lists_and_a_group_per_grid_are_pairs(text: str) -> None:
    assert parse_anchors(text) == ((10, 13), (16, 30), (33, 23), (30, 61))
