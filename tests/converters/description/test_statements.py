"""A detector's description from options, zoo yaml, sidecar and file, in this order."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converters.description.config import FAMILIES, ZooConfig, zoo_config
from converters.description.sidecar import Sidecar
from converters.description.statements import SourceOptions, describe_source
from converters.description.values import parse_rescaling
from converters.errors import OptionError, SourceFileError, UnsupportedModelError
from converters.facts import SourceFacts, SourceOutput
from converters.heads.yolo_v2 import YoloV2
from converters.quant import QuantParams
from converters.sources import describe, open_source
from converters.spec import Anchors, DetectorSpec, EvaluationSettings, RawOutput, Rescaling, Thresholds
from tests.converters.description.resolving import resolve_spec
from tests.heads import anchors_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converters.description.config import Layout

UINT8 = QuantParams.per_tensor(1 / 255, 0)


def facts_of(channels: int) -> SourceFacts:
    output = SourceOutput("grid", (6, 6, channels))
    return SourceFacts("door.tflite", 192, 192, (output,), "uint8", UINT8)


FACTS = facts_of(12)  # 2 anchors, 1 class
FLOAT = replace(FACTS, input_dtype="float32", input_quant=None)
CELLS = ((0.5, 1.5), (2.0, 3.0))
SMALL = ((0.25, 0.5), (0.5, 0.75))
OPTIONS = SourceOptions(anchors=CELLS)
SIDECAR = Sidecar("door.xdet.json", anchors=SMALL, anchor_unit="image", class_names=("dog",), resize="bilinear")
CONFIG = ZooConfig("z.yaml", "model", "yolov2t", (192, 192, 3), ("cat",), None, "nearest", "rgb", CELLS)


def test_what_nobody_states_has_documented_defaults() -> None:
    spec = resolve_spec(FACTS, OPTIONS)
    assert spec.gives_boxes
    assert spec.class_names == ("class_0",)
    assert anchors_of(spec) == Anchors(CELLS, "cell")
    assert spec.image.resize == "nearest"
    assert spec.thresholds == Thresholds(0.5, 0.5, 100)
    assert (spec.network_outputs, spec.image.width) == ((RawOutput("", (6, 6, 12)),), 192)


def test_the_sidecar_is_used_when_nothing_else_speaks() -> None:
    spec = resolve_spec(FACTS, SourceOptions(), SIDECAR)
    assert anchors_of(spec) == Anchors(SMALL, "image")
    assert (spec.class_names, spec.image.resize) == (("dog",), "bilinear")


def test_the_yaml_comes_before_the_sidecar() -> None:
    spec = resolve_spec(FACTS, SourceOptions(), SIDECAR, CONFIG)
    assert anchors_of(spec) == Anchors(CELLS, "cell")
    assert (spec.class_names, spec.image.resize) == (("cat",), "nearest")


@pytest.mark.parametrize("text", ["aspect_ratio: padding", "aspect_ratio: crop", "interpolation: bicubic"])
def test_a_way_to_resize_that_is_none_of_ours_wants_a_rule_and_is_told(text: str) -> None:
    config = replace(zoo_config(f"preprocessing: {{resizing: {{{text}}}}}", "z.yaml"), anchors=CELLS)
    word = text.split()[1]
    with pytest.raises(SourceFileError, match=f"config 'z.yaml': .*'{word}' .*; state with --resize"):
        resolve_spec(FACTS, SourceOptions(), None, config)
    said = SourceOptions(resize="letterbox")
    assert resolve_spec(FACTS, said, None, config).image.resize == "letterbox"


def test_options_come_first() -> None:
    options = SourceOptions(anchors=((0.1, 0.2), (0.3, 0.4)), anchor_unit="cell", class_names=("cow",))
    spec = resolve_spec(FACTS, options, SIDECAR, CONFIG)
    assert anchors_of(spec) == Anchors(((0.1, 0.2), (0.3, 0.4)), "cell")
    assert spec.class_names == ("cow",)


@pytest.mark.parametrize(
    ("options", "sidecar", "config", "assumed"),
    [
        (OPTIONS, None, None, ("class_names", "resize")),
        (replace(OPTIONS, class_names=("dog",)), None, None, ("resize",)),
        (OPTIONS, Sidecar("s", resize="nearest"), None, ("class_names",)),
        (OPTIONS, SIDECAR, None, ()),
        (OPTIONS, None, CONFIG, ()),
        (SourceOptions(head="none"), None, None, ("resize",)),
    ],
)
def test_what_nobody_states_is_named(
    options: SourceOptions, sidecar: Sidecar | None, config: ZooConfig | None, assumed: tuple[str, ...]
) -> None:
    spec = resolve_spec(FACTS, options, sidecar, config)
    assert spec.assumed == assumed
    assert DetectorSpec.from_dict(spec.to_dict()).assumed == assumed
    assert ("assumed" in spec.to_dict()) == bool(assumed)
    assert spec == replace(spec, assumed=())


def test_an_assumption_is_one_sentence() -> None:
    spec = resolve_spec(facts_of(16), OPTIONS)
    names, resize = spec.assumptions
    assert names.startswith("class names class_0, ..., class_2 are assumed, since nobody states them; ")
    assert resize.startswith("resize nearest is assumed, since nobody states ")
    assert "with --resize or --config" in resize


def test_a_unit_belongs_to_the_list_it_stands_beside() -> None:
    with pytest.raises(OptionError, match=r"unit of the anchors \(--anchors\) is not stated"):
        resolve_spec(FACTS, SourceOptions(anchors=SMALL), SIDECAR)


def test_a_sidecar_with_a_unit_alone_speaks_about_any_list() -> None:
    spec = resolve_spec(FACTS, SourceOptions(anchors=SMALL), Sidecar("s", anchor_unit="image"))
    assert anchors_of(spec) == Anchors(SMALL, "image")


def test_the_unit_option_speaks_about_any_list() -> None:
    spec = resolve_spec(FACTS, SourceOptions(anchor_unit="cell"), SIDECAR)
    assert anchors_of(spec) == Anchors(SMALL, "cell")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_in_the_4_layout_brings_default_anchors_in_cells(family: str) -> None:
    facts = facts_of(30)
    config = ZooConfig("z.yaml", "model", family)
    spec = resolve_spec(facts, SourceOptions(), None, config)
    assert anchors_of(spec) == Anchors(FAMILIES[family], "cell")


def test_a_family_in_the_older_layout_asks_for_the_unit() -> None:
    facts = facts_of(30)
    config = ZooConfig("z.yaml", "general", "tiny_yolo_v2")
    with pytest.raises(OptionError, match=r"the default of tiny_yolo_v2, named by 'z.yaml'") as caught:
        resolve_spec(facts, SourceOptions(), None, config)
    assert "2.4 x 8.3 px" in str(caught.value)
    assert "14.6 x 49.6 px" in str(caught.value)
    spec = resolve_spec(facts, SourceOptions(anchor_unit="image"), None, config)
    assert anchors_of(spec) == Anchors(FAMILIES["tiny_yolo_v2"], "image")


def test_default_anchors_give_way_to_a_list_in_the_sidecar() -> None:
    spec = resolve_spec(FACTS, SourceOptions(), SIDECAR, ZooConfig("z.yaml", "model", "yolov2t"))
    assert anchors_of(spec) == Anchors(SMALL, "image")


def test_without_anchors_the_message_tells_every_way_to_give_them() -> None:
    with pytest.raises(OptionError) as caught:
        resolve_spec(FACTS, SourceOptions())
    for part in (
        "--anchors",
        "--anchor-unit",
        "--config",
        "'door.xdet.json'",
        "--head none",
        "1 anchor with 7 classes",
    ):
        assert part in str(caught.value)


def test_a_raw_head_needs_no_anchors_and_makes_up_no_classes() -> None:
    spec = resolve_spec(FACTS, SourceOptions(head="none"), None, ZooConfig("z.yaml", "model", "yolov2t"))
    assert (spec.head, spec.class_names) == (None, ())
    assert spec.raw_outputs == (RawOutput("", (6, 6, 12)),)


def test_a_raw_head_keeps_the_anchors_it_was_given() -> None:
    spec = resolve_spec(FACTS, SourceOptions(head="none", anchors=CELLS, class_names=("a",)))
    assert (anchors_of(spec), spec.class_names) == (Anchors(CELLS, "cell"), ("a",))
    assert not spec.gives_boxes


def test_a_sidecar_can_ask_for_the_raw_head_and_an_option_against_it() -> None:
    sidecar = replace(SIDECAR, head="none")
    assert resolve_spec(FACTS, SourceOptions(), sidecar).raw_outputs
    assert resolve_spec(FACTS, SourceOptions(head="yolo_v2"), sidecar).gives_boxes


def test_another_family_is_refused_unless_the_head_is_stated() -> None:
    config = ZooConfig("z.yaml", "model", "ssd", anchors=CELLS)
    with pytest.raises(OptionError, match="model_type 'ssd' is not supported"):
        resolve_spec(FACTS, SourceOptions(), None, config)
    assert resolve_spec(FACTS, SourceOptions(head="none"), None, config).raw_outputs
    assert resolve_spec(FACTS, SourceOptions(head="yolo_v2"), None, config).gives_boxes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            SourceOptions(anchors=CELLS, class_names=("a", "b")),
            "2 anchors x (5 + 2 classes) = 14 channels, the head has 12; 12 channels fit 1 anchor "
            "with 7 classes or 2 anchors with 1 class",
        ),
        (SourceOptions(anchors=(*CELLS, (1, 1))), "3 anchors x (5 + classes) cannot make the head's 12 channels"),
        (SourceOptions(anchors=((1, 2),) * 5), "5 anchors x (5 + classes) cannot make the head's 12 channels"),
    ],
)
def test_what_does_not_fit_the_channels_is_told_with_the_arithmetic(options: SourceOptions, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        resolve_spec(FACTS, options)
    assert said in str(caught.value)


def test_a_head_that_fits_nothing_says_so() -> None:
    with pytest.raises(OptionError, match="no anchors and classes make 5 channels"):
        resolve_spec(facts_of(5), OPTIONS)


def test_a_yaml_for_another_size_is_refused() -> None:
    config = replace(CONFIG, input_shape=(224, 224, 3))
    with pytest.raises(SourceFileError, match=r"'z.yaml': input_shape is \(224, 224, 3\), but 'door.tflite'"):
        resolve_spec(FACTS, OPTIONS, None, config)


def test_evaluation_settings_of_a_yaml_are_no_defaults_but_options_are() -> None:
    config = replace(CONFIG, evaluation=EvaluationSettings(0.001, 0.3, 0.5, 10))
    assert resolve_spec(FACTS, OPTIONS, None, config).thresholds == Thresholds()
    options = replace(OPTIONS, score_threshold=0.0, iou_threshold=1.0, max_detections=7)
    assert resolve_spec(FACTS, options, None, config).thresholds == Thresholds(0.0, 1.0, 7)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score_threshold": 1.5}, "score threshold must lie in 0..1"),
        ({"iou_threshold": float("nan")}, "iou threshold must lie in 0..1"),
        ({"max_detections": 0}, "max_detections must be a whole number in 1..4096"),
        ({"head": "rcnn"}, "--head must be one of auto, yolo_v2, yolo_v3, st_yolo_x"),
        ({"anchor_unit": "px"}, "--anchor-unit must be 'cell', 'image' or 'pixel'"),
        ({"anchors": ((1, 0),)}, "--anchors"),
        ({"anchors": (1, 2)}, "--anchors"),
        ({"class_names": ("",)}, "--classes"),
    ],
)
def test_an_option_out_of_range_is_a_usage_error(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        resolve_spec(FACTS, replace(OPTIONS, **changes))


@pytest.mark.parametrize(
    ("dtype", "quant", "scale", "zero_point"),
    [
        ("uint8", UINT8, np.float32(1 / 255), 0),
        ("uint8", QuantParams.per_tensor(0.0078431, 127), np.float32(0.0078431), 127),
        ("int8", QuantParams.per_tensor(1 / 255, -128), np.float32(1 / 255), 0),
        ("int8", QuantParams.per_tensor(0.0078431, -1), np.float32(0.0078431), 127),
        ("uint8", None, np.float32(1), 0),
    ],
    ids=["uint8 0..1", "uint8 -1..1", "int8 0..1", "int8 -1..1", "uint8 without quantisation"],
)
def test_an_integer_input_fixes_its_rescaling(
    dtype: str, quant: QuantParams | None, scale: np.float32, zero_point: int
) -> None:
    spec = resolve_spec(replace(FACTS, input_dtype=dtype, input_quant=quant), OPTIONS)
    assert spec.image.rescaling == Rescaling(float(scale), -zero_point * float(scale))


@pytest.mark.parametrize("stated", [Rescaling(1 / 127.5, -1.0), Rescaling(0.00784, -0.995)])
def test_a_stated_rescaling_within_one_step_agrees_and_changes_nothing(stated: Rescaling) -> None:
    facts = replace(FACTS, input_quant=QuantParams.per_tensor(0.0078431, 127))
    sidecar = Sidecar("s", rescaling=stated)
    assert resolve_spec(facts, OPTIONS, sidecar) == resolve_spec(facts, OPTIONS)


@pytest.mark.parametrize("stated", [Rescaling(1 / 127.5, -1.0), Rescaling(1.0, 0.0), Rescaling(1 / 255, 1.01 / 255)])
def test_a_stated_rescaling_beyond_one_step_is_refused_with_both_ranges(stated: Rescaling) -> None:
    with pytest.raises(SourceFileError, match=r"sidecar 's': rescaling: .*'door.tflite' says .* become 0..1"):
        resolve_spec(FACTS, OPTIONS, Sidecar("s", rescaling=stated))
    with pytest.raises(SourceFileError, match=r"config 'z': preprocessing.rescaling: "):
        resolve_spec(FACTS, OPTIONS, None, ZooConfig("z", rescaling=stated))


def test_a_float_input_takes_the_rescaling_as_it_is_stated() -> None:
    config, sidecar = (ZooConfig("z", rescaling=Rescaling(1 / 255, 0.0)), Sidecar("s", rescaling=Rescaling(0.1, -1.0)))
    assert resolve_spec(FLOAT, OPTIONS, sidecar, config).image.rescaling == Rescaling(1 / 255, 0.0)
    assert resolve_spec(FLOAT, OPTIONS, sidecar).image.rescaling == Rescaling(0.1, -1.0)
    with pytest.raises(OptionError, match=r"are scaled; give --rescaling 1/255 .* --config .* sidecar"):
        resolve_spec(FLOAT, OPTIONS)


@pytest.mark.parametrize("dtype", ["int8", "int16", "float16"])
def test_an_input_that_cannot_take_pixels_is_refused(dtype: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"the image input is {dtype}"):
        resolve_spec(replace(FACTS, input_dtype=dtype, input_quant=None), OPTIONS)


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Path]:
    """The model that ships with xdet, under a name with a blank and an umlaut, without its sidecar."""
    with as_file(files("xdet") / "data" / "tiny_yolo_v2_person_224_int8.tflite") as source:
        yield Path(shutil.copy(source, tmp_path / "Tür 1.tflite"))


def spec_of(path: Path, options: SourceOptions) -> DetectorSpec:
    return describe(open_source(path), options).spec


def test_a_file_on_disk_is_described_with_the_sidecar_beside_it(embedded: Path) -> None:
    with pytest.raises(OptionError, match="needs anchors"):
        spec_of(embedded, SourceOptions())
    anchors = [[0.25, 0.5]] * 4 + [[4.5, 5.5]]
    embedded.with_name("Tür 1.xdet.json").write_text(json.dumps({"anchors": anchors}))
    spec = spec_of(embedded, SourceOptions())
    assert anchors_of(spec) == Anchors(((0.25, 0.5),) * 4 + ((4.5, 5.5),), "cell")
    assert (spec.image.height, spec.network_outputs) == (224, (RawOutput("", (7, 7, 30)),))
    assert spec.image.rescaling == Rescaling(float(np.float32(1 / 255)), 0.0)


@pytest.mark.parametrize("layout", ["general", "model"])
def test_a_file_on_disk_is_described_with_a_yaml(embedded: Path, layout: Layout) -> None:
    config = embedded.with_name("config.yaml")
    config.write_text(f"{layout}:\n  model_type: tiny_yolo_v2\ndataset:\n  class_names: [person]\n")
    spec = spec_of(embedded, SourceOptions(config=config, anchor_unit="cell"))
    assert anchors_of(spec) == Anchors(FAMILIES["tiny_yolo_v2"], "cell")
    assert spec.class_names == ("person",)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceFileError, match=r"no.tflite.* cannot be read: No such file"):
        open_source(tmp_path / "no.tflite")


def test_anchors_in_pixels_of_the_picture_become_cells() -> None:
    options = SourceOptions(anchors=((16.0, 48.0), (64.0, 96.0)), anchor_unit="pixel")
    assert anchors_of(resolve_spec(FACTS, options)) == Anchors(CELLS, "cell")
    lone = Sidecar("s", anchors=options.anchors, anchor_unit="pixel")
    assert anchors_of(resolve_spec(FACTS, SourceOptions(), lone)) == Anchors(CELLS, "cell")


@pytest.mark.parametrize(
    "sizes", [((0.25, 0.5), (0.5, 0.99)), ((0.2, 0.5), (0.6, 1.5), (4.5, 5.5))], ids=["largest", "most"]
)
def test_anchors_thinner_than_a_pixel_are_no_pixels(sizes: tuple[tuple[float, float], ...]) -> None:
    facts = facts_of(6 * len(sizes))
    with pytest.raises(OptionError, match=r"thinner than a pixel.* these look like cells or fractions"):
        resolve_spec(facts, SourceOptions(anchors=sizes, anchor_unit="pixel"))
    with pytest.raises(OptionError, match=r"sidecar 's' with unit 'pixel': . of . anchors are thinner"):
        resolve_spec(facts, SourceOptions(), Sidecar("s", anchors=sizes, anchor_unit="pixel"))


def test_a_unit_against_the_one_that_the_sidecar_states_is_followed_with_a_note(tmp_path: Path) -> None:
    sizes = [[1.5, 2.5], [4.5, 32.5]]
    (tmp_path / "m.xdet.json").write_text(json.dumps({"anchors": sizes, "anchor_unit": "pixel"}))
    pair = ((1.5, 2.5), (4.5, 5.5))
    for stated in (SourceOptions(), SourceOptions(anchor_unit="pixel"), OPTIONS):
        assert describe_source(tmp_path / "m.tflite", FACTS, stated).notes == ()
    (tmp_path / "m.xdet.json").write_text(json.dumps({"anchors": pair, "anchor_unit": "pixel"}))
    same = SourceOptions(anchors=pair, anchor_unit="cell")
    for options in (SourceOptions(anchor_unit="cell"), same, replace(same, head="none")):
        (note,) = describe_source(tmp_path / "m.tflite", FACTS, options).notes
        assert note.startswith("--anchor-unit cell is followed, though sidecar 'm.xdet.json' states these anchors")


def test_pixels_that_reach_nowhere_a_cell_of_the_grid_are_cells() -> None:
    options = SourceOptions(anchors=((0.98, 3.36), (9.7, 11.1)), anchor_unit="pixel")
    with pytest.raises(
        OptionError, match=r"smaller than a cell of the grid, which has 32 x 32 pixels; these look like cells"
    ):
        resolve_spec(FACTS, options)


def test_a_list_above_one_that_may_be_cells_or_pixels_needs_a_unit() -> None:
    facts = replace(FACTS, height=96, width=96, outputs=(SourceOutput("grid", (24, 24, 12)),))
    options = SourceOptions(anchors=((3.0, 5.0), (20.0, 30.0)))
    with pytest.raises(OptionError) as caught:
        resolve_spec(facts, options)
    assert caught.value.lines[-2:] == ("  --anchor-unit cell", "  --anchor-unit pixel")
    assert "as pixels" in caught.value.lines[1]
    raw = resolve_spec(facts, replace(options, head="none"))
    assert raw.head is None


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        (None, "--anchors, no unit stated and above 1, so taken as grid cells: "),
        ("cell", "--anchors with unit 'cell': "),
    ],
)
def test_anchors_beyond_twice_the_grid_look_like_pixels(unit: Any, said: str) -> None:
    def resolve(largest: float) -> DetectorSpec:
        return resolve_spec(FACTS, SourceOptions(anchors=((0.5, 1.5), (2.0, largest)), anchor_unit=unit))

    assert anchors_of(resolve(12.0)).unit == "cell"
    with pytest.raises(
        OptionError, match=f"^{said}.*2.02 times the picture.* these look like pixels: --anchor-unit pixel"
    ):
        resolve(12.1)


ACTIVATED = SourceOutput("boxes", (6, 6, 12), ("LOGISTIC",))


def test_numbers_that_the_network_activates_are_no_yolo_v2_head() -> None:
    facts = replace(FACTS, outputs=(ACTIVATED,))
    for sidecar in (None, replace(SIDECAR, head="yolo_v2")):
        with pytest.raises(OptionError, match=r"LOGISTIC in front of its output.* would be activated twice"):
            resolve_spec(facts, OPTIONS, sidecar)
    assert resolve_spec(facts, SourceOptions(head="none")).head is None
    assert resolve_spec(facts, replace(OPTIONS, head="yolo_v2")).gives_boxes


@pytest.mark.parametrize(
    "outputs",
    [(SourceOutput("a", (6, 6, 12)),) * 2, (SourceOutput("a", (10,)),), (SourceOutput("a", (36, 12)),)],
    ids=["two outputs", "flat", "rank 3"],
)
def test_what_is_no_grid_needs_no_head(outputs: tuple[SourceOutput, ...]) -> None:
    facts = replace(FACTS, outputs=outputs)
    with pytest.raises(OptionError, match=r"no head fits its output .* --head none converts it") as caught:
        resolve_spec(facts, OPTIONS)
    assert "  yolo_v2: a YOLO v2 head is one output [1, rows, columns" in str(caught.value)
    raw = resolve_spec(facts, SourceOptions(head="none", anchors=CELLS))
    assert raw.head is None
    assert [output.shape for output in raw.raw_outputs] == [output.shape for output in outputs]
    assert len({output.value_name for output in raw.raw_outputs}) == len(outputs)


def test_a_grid_whose_anchors_have_an_axis_of_their_own_is_the_same_head() -> None:
    facts = replace(FACTS, outputs=(SourceOutput("grid", (6, 6, 2, 6)),))
    assert resolve_spec(facts, OPTIONS) == resolve_spec(FACTS, OPTIONS)


@pytest.mark.parametrize("anchors", [((1.0, 2.0),), ((1.0, 2.0),) * 3], ids=["one", "three"])
def test_an_axis_of_anchors_states_their_number(anchors: tuple[tuple[float, float], ...]) -> None:
    facts = replace(FACTS, outputs=(SourceOutput("grid", (6, 6, 2, 9)),))
    assert resolve_spec(facts, OPTIONS).head == YoloV2(6, 6, Anchors(CELLS, "cell"), 4)
    counts = r"its last axes \[2, 9\] state 2 anchors, 4 classes"
    names = tuple(f"{i}" for i in range(18 // len(anchors) - 5))  # they make as many channels
    for options in (SourceOptions(anchors=anchors), SourceOptions(anchors=anchors, class_names=names)):
        with pytest.raises(OptionError, match=f"stated, but {counts}: check --anchors"):
            resolve_spec(facts, options)
    with pytest.raises(OptionError, match=f"no one states them.* {counts}$"):
        resolve_spec(facts, SourceOptions())
    with pytest.raises(OptionError, match=f"= 16 channels, the head has 18; {counts}"):
        resolve_spec(facts, replace(OPTIONS, class_names=("a", "b", "c")))
    options = SourceOptions(anchors=anchors, head="none")
    assert resolve_spec(facts, options).head is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1/255,0", Rescaling(1 / 255, 0.0)), ("1/127.5,-1", Rescaling(1 / 127.5, -1.0)), ("0.5", Rescaling(0.5, 0.0))],
)  # fmt: skip
def test_rescaling_reads_as_scale_and_offset(text: str, expected: Rescaling) -> None:
    assert parse_rescaling(text) == expected


@pytest.mark.parametrize("text", ["", "a,b", "1/0,0", "-1,0", "1,2,3"])
def test_a_rescaling_that_is_no_pair_of_numbers_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"--rescaling '.*': expected SCALE,OFFSET"):
        parse_rescaling(text)
