"""What ``--config`` names: zoo yaml in both layouts, and Darknet's cfg: its anchors in the order of the heads."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from converters.description.config import FAMILIES, read_config
from converters.description.statements import SourceOptions, describe_source
from converters.description.values import parse_anchors
from converters.errors import ConversionError, OptionError, SourceFileError
from converters.facts import SourceFacts, SourceOutput
from converters.heads.grids import YoloV3
from converters.spec import EvaluationSettings, Rescaling

if TYPE_CHECKING:
    from pathlib import Path

OLD = """
general:
  project_name: people_at_the_door
  model_type: tiny_yolo_v2
  model_path: ../door.tflite
operation_mode: evaluation
dataset:
  class_names: [person]
  test_path: /somewhere
preprocessing:
  rescaling: {scale: 1/255, offset: 0}
  resizing:
    aspect_ratio: fit
    interpolation: nearest
  color_mode: rgb
training:
  model:
    input_shape: (224, 224, 3)
postprocessing:
  confidence_thresh: 0.001
  NMS_thresh: 0.5
  IoU_eval_thresh: 0.4
  max_detection_boxes: 100
  yolo_anchors: [0.5, 1.5, 1.25, 2.5, 2, 4.75]
"""
NEW = """
model:
  model_type: YOLOv2t
  input_shape: (192, 192, 3)
dataset:
  class_names: [cat, 'no']
preprocessing:
  rescaling:
    scale: 1/127.5
    offset: -1
  resizing:
    interpolation: bilinear
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "user config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_layout_of_zoo_2_and_3_is_read(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, OLD))
    assert (config.file, config.layout, config.model_type) == ("user config.yaml", "general", "tiny_yolo_v2")
    assert config.input_shape == (224, 224, 3)
    assert config.class_names == ("person",)
    assert config.rescaling == Rescaling(1 / 255, 0.0)
    assert config.resize == "nearest"
    assert config.anchors == ((0.5, 1.5), (1.25, 2.5), (2.0, 4.75))
    assert config.evaluation == EvaluationSettings(0.001, 0.5, 0.4, 100)


def test_the_layout_of_zoo_4_is_read(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, NEW))
    assert (config.layout, config.model_type, config.head_of_family()) == ("model", "yolov2t", "yolo_v2")
    assert config.input_shape == (192, 192, 3)
    assert config.class_names == ("cat", "no")
    assert config.rescaling == Rescaling(1 / 127.5, -1.0)
    assert config.resize == "bilinear"
    assert config.anchors is None
    assert config.evaluation == EvaluationSettings()


@pytest.mark.parametrize(
    ("layout", "unit"), [("general", None), ("model", "cell")], ids=["2.x/3.x: unit open", "4.x: cells"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_brings_its_default_anchors_with_the_unit_the_layout_settles(
    family: str, layout: str, unit: str | None, tmp_path: Path
) -> None:
    config = read_config(written(tmp_path, f"{layout}: {{model_type: {family}}}"))
    assert config.default_anchors() == (FAMILIES[family], unit)


def test_keys_that_are_missing_or_empty_state_nothing(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, "general:\npreprocessing: {rescaling: , resizing: }\nother: 1"))
    assert (config.layout, config.model_type, config.rescaling, config.resize) == (None,) * 4
    assert config.head_of_family() is None
    assert config.default_anchors() is None


@pytest.mark.parametrize("model_type", ["ssd_mobilenet_v2_fpnlite", "yolov8", "yolov11", "yolo_x"])
def test_another_model_type_is_named_with_what_is_supported(model_type: str, tmp_path: Path) -> None:
    config = read_config(written(tmp_path, f"general: {{model_type: {model_type}}}"))
    with pytest.raises(OptionError) as caught:
        config.head_of_family()
    assert f"model_type '{model_type}' is not supported" in str(caught.value)
    assert "tiny_yolo_v2, yolov2t, st_yolo_lc_v1, st_yololcv1" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[[0.5, 1.5], [2, 3]]", "'(0.5, 1.5), (2, 3)'", "[0.5, 1.5, 2, 3]", "'[0.5, 1.5, 2, 3]'"]
)
def test_yaml_anchors_may_be_pairs_or_flat(text: str, tmp_path: Path) -> None:
    config = read_config(written(tmp_path, f"postprocessing: {{yolo_anchors: {text}}}"))
    assert config.anchors == ((0.5, 1.5), (2.0, 3.0))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "preprocessing: {resizing: {aspect_ratio: stretch}}",
            "resizing.aspect_ratio: 'stretch' is not supported, expected fit or crop or padding",
        ),
        (
            "preprocessing: {color_mode: yuv}",
            "preprocessing.color_mode: 'yuv' is not supported, expected rgb or bgr or grayscale",
        ),
        ("preprocessing: {color_mode: [rgb]}", "preprocessing.color_mode: expected a word"),
        ("preprocessing: {rescaling: {scale: 1/255}}", "rescaling.offset: expected a number or a fraction"),
        ("preprocessing: {rescaling: {scale: 1/0, offset: 0}}", "rescaling.scale: '1/0' divides by zero"),
        ("preprocessing: {rescaling: {scale: .nan, offset: 0}}", "rescaling.scale: nan is not a finite number"),
        ("preprocessing: {rescaling: {scale: 2**-8, offset: 0}}", r"found '2\*\*-8'"),
        ("preprocessing: {rescaling: {scale: 0, offset: 0}}", "rescaling scale must be above 0"),
        ("preprocessing: [1]", r"preprocessing: expected keys below it, found \[1\]"),
        ("model: {input_shape: 192}", r"model.input_shape: expected \(height, width, channels\), found 192"),
        ("model: {input_shape: (a, b, 3)}", r"model.input_shape: expected \(height"),
        ("model: {input_shape: [0, 192, 3]}", "expected a whole number above 0, found 0"),
        ("dataset: {class_names: person}", "dataset.class_names: expected a list of names"),
        ("dataset: {class_names: [yes]}", "dataset.class_names: class 0 is True, expected text"),
        ("postprocessing: {yolo_anchors: [1, 2, 3]}", "yolo_anchors: 3 numbers do not pair up"),
        ("postprocessing: {NMS_thresh: 50}", r"NMS_thresh: expected 0..1, found 50"),
        ("postprocessing: {max_detection_boxes: 1.5}", "max_detection_boxes: expected a whole number"),
        ("{general: {model_type: a}, model: {model_type: b}}", "keep one layout"),
        ("general: {model_type: 3}", "general.model_type: expected a word, found 3"),
        ("", "expected a yaml mapping, found NoneType"),
        ("- a", "expected a yaml mapping, found list"),
        ("a: [\nb: 1", "line 2: not yaml"),
        ("a: b: c", "line 1: not yaml"),
        ("a: !!python/object:os.system x", "line 1: yaml tag"),
        ("a: 2020-13-45", "not yaml: month must be in 1..12"),
        ("a: &x [1]\nb: [*x, *x]", r"line 2: yaml alias \*x"),
        ("a: \x00", "not yaml"),
        ("[" * 20_000, "line 1: nested more than 32 levels deep"),
        ("{a: 1}\n---\n{b: 1}", "line 2: not yaml"),
        ("? [a]\n: 1", "not yaml"),
    ],
)
def test_a_malformed_yaml_is_named_with_file_and_key_or_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceFileError, match=said) as caught:
        read_config(written(tmp_path, text))
    assert str(caught.value).startswith("config 'user config.yaml'")


def test_a_missing_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceFileError, match=r"config '.*none.yaml' cannot be read"):
        read_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x: !!int ''", "line 1: yaml tag 'tag:yaml.org,2002:int': leave it out"),
        ("\nx: !!float ''", "line 2: yaml tag"),
        ("x: !!timestamp ''", "yaml tag"),
        ("x: !own 1", "yaml tag '!own'"),
        ("x: " + ":".join(["59"] * 100_000), "a number of 299999 characters"),
        ("x: 0x" + "f" * 100_000, "a number of 100002 characters"),
        ("x: [" + "1, " * 100_000 + "1]", "more than 20000 values"),
        ("".join(f"k{i}: 1\n" for i in range(40_000)), "more than 20000 values"),
    ],
    ids=["int", "float", "timestamp", "own", "base 60", "hexadecimal", "list", "keys"],
)
def test_what_the_parser_cannot_take_or_takes_long_for_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    started = time.process_time()
    with pytest.raises(SourceFileError, match=re.escape(said)):
        read_config(tmp_path / "c.yaml")
    assert time.process_time() - started < 10


def test_a_long_text_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(OLD + "notes: " + "1 and 2 " * 100 + "\n")
    assert read_config(tmp_path / "c.yaml").class_names == ("person",)


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


def written_cfg(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tiny.cfg"
    path.write_text(text, "utf-8")
    return path


def facts(*shapes: tuple[int, int, int]) -> SourceFacts:
    outputs = tuple(SourceOutput(str(i), shape) for i, shape in enumerate(shapes))
    return SourceFacts("m.tflite", 64, 64, outputs, "uint8", None)


def test_masks_choose_the_anchors_of_each_grid_the_finest_first(tmp_path: Path) -> None:
    text = V3.replace("mask = 1,2,3", "mask = 1,2,3\nscale_x_y = 1.05")
    config = written_cfg(tmp_path, text)
    found = read_config(config)
    assert (found.anchor_unit, found.num_classes, found.size_hw, found.color) == ("pixel", 1, (64, 64), "rgb")
    small = text.replace("344,319", "120,110").replace("135,169", "100,90")
    described = describe_source(
        tmp_path / "m.tflite", facts((2, 2, 18), (4, 4, 18)), SourceOptions(config=written_cfg(tmp_path, small))
    )
    head = described.spec.head
    assert isinstance(head, YoloV3)
    coarse, fine = head.grids
    assert (fine.anchors_px, fine.xy_scale) == (((23, 27), (37, 58), (81, 82)), 1.05)
    assert (coarse.anchors_px, coarse.xy_scale) == (((81, 82), (100, 90), (120, 110)), 1.0)


def test_a_region_is_in_cells_and_another_size_is_told(tmp_path: Path) -> None:
    config = written_cfg(tmp_path, V2.replace("16.62,10.52", "2.6,1.5").replace("classes=20", "classes=1"))
    described = describe_source(tmp_path / "m.tflite", facts((2, 2, 12)), SourceOptions(config=config))
    assert described.spec.head is not None
    assert described.spec.head.to_dict()["anchors"] == {"sizes_wh": ((1.08, 1.19), (2.6, 1.5)), "unit": "cell"}
    assert described.notes == ("config 'tiny.cfg' was trained at (416, 416), 'm.tflite' takes (64, 64)",)


def test_a_cfg_of_another_model_is_refused(tmp_path: Path) -> None:
    config = written_cfg(tmp_path, V2.replace("16.62,10.52", "2.6,1.5"))
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
        read_config(written_cfg(tmp_path, text))
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
