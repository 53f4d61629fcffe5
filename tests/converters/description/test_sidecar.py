"""The sidecar's schema, key by key."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.description.sidecar import Sidecar, find_sidecar, read_sidecar, sidecar_data, sidecar_path, sidecar_text
from converters.description.statements import SourceOptions, describe_source
from converters.errors import OptionError, SourceFileError
from converters.facts import SourceFacts, SourceOutput
from converters.heads import HEADS
from converters.spec import Rescaling
from tests.converters.description.resolving import resolve_spec

if TYPE_CHECKING:
    from pathlib import Path

FULL: dict[str, object] = {
    "head": "yolo_v2",
    "class_names": ["person", "dog"],
    "anchors": [[0.5, 1], [2.5, 3.25]],
    "anchor_unit": "cell",
    "rescaling": {"scale": 0.5, "offset": -1},
    "resize": "bilinear-antialias",
    "color": "rgb",
    "licence": "CC0-1.0",
    "source": "made up",
}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "m.xdet.json"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_key_is_read(tmp_path: Path) -> None:
    assert read_sidecar(written(tmp_path, json.dumps(FULL))) == Sidecar(
        file="m.xdet.json",
        head="yolo_v2",
        class_names=("person", "dog"),
        anchors=((0.5, 1.0), (2.5, 3.25)),
        anchor_unit="cell",
        rescaling=Rescaling(0.5, -1.0),
        resize="bilinear-antialias",
        color="rgb",
        licence="CC0-1.0",
        source="made up",
    )


@pytest.mark.parametrize("missing", FULL)
def test_every_key_may_be_missing(missing: str, tmp_path: Path) -> None:
    read_sidecar(written(tmp_path, json.dumps({key: FULL[key] for key in FULL if key != missing})))


def test_the_sidecar_stands_beside_the_model_under_its_stem(tmp_path: Path) -> None:
    model = tmp_path / "a.b ü.tflite"
    assert find_sidecar(model) is None
    sidecar_path(model).write_text("{}")
    assert (tmp_path / "a.b ü.xdet.json").exists()
    assert find_sidecar(model) == Sidecar(file="a.b ü.xdet.json")


@pytest.mark.parametrize(
    ("options", "written_keys"),
    [
        (SourceOptions(head="st_yolo_x", anchors=((0.5, 1.5), (2.0, 1.0), (1.0, 1.0))), {"head": "st_yolo_x"}),
        (SourceOptions(head="yolo_v3", anchors=tuple((8.0 * i, 9.0 * i) for i in range(1, 7))), {"head": "yolo_v3"}),
    ],
    ids=["st_yolo_x", "yolo_v4"],
)
def test_what_is_written_describes_the_same_head(
    options: SourceOptions, written_keys: dict[str, object], tmp_path: Path
) -> None:
    outputs = tuple(SourceOutput(str(rows), (rows, 3 * rows // 2, 21)) for rows in (2, 4))
    facts, model = SourceFacts("m.tflite", 64, 96, outputs, "uint8", None), tmp_path / "m.tflite"
    if options.head == "yolo_v3":
        written(tmp_path, json.dumps({"scale_x_y": [1.1, 1.05]}))
        written_keys |= {"scale_x_y": [1.1, 1.05]}
        with pytest.raises(OptionError, match="3 numbers of scale_x_y are stated, expected one of each of 2 grids"):
            resolve_spec(facts, options, Sidecar("s", xy_scales=(1.1, 1.05, 1.05)))
    description = describe_source(model, facts, options)
    data = sidecar_data(description, tmp_path)
    assert written_keys.items() <= data.items()
    written(tmp_path, sidecar_text(data))
    assert describe_source(model, facts, SourceOptions()).spec.head == description.spec.head


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"class_name": []}, "unknown keys 'class_name' (did you mean 'class_names'?); known are head"),
        ({"zzz": 1, "Head": 1}, "unknown keys 'zzz', 'Head' (did you mean 'head'?)"),
        ({"head": "rcnn"}, f"head: expected one of {', '.join(HEADS)}, none, found 'rcnn'"),
        ({"head": None}, f"head: expected one of {', '.join(HEADS)}, none, found None"),
        ({"class_names": "person"}, "class_names: expected a list of names, found 'person'"),
        ({"class_names": ["a", ""]}, "class_names: the name of class 1 is empty"),
        ({"anchors": [1, 2]}, "anchors: expected [[width, height], ...], found [1, 2]"),
        ({"anchors": []}, "anchors: expected"),
        ({"anchors": [[1, "2"]]}, "anchors: '2' is not a number"),
        ({"anchors": [[0, 1]]}, "anchors: anchors must be finite and above 0"),
        ({"anchor_unit": "px"}, "anchor_unit: expected one of cell, image, pixel, found 'px'"),
        ({"anchor_unit": "image"}, "anchor_unit: an anchor above 1 cannot be a fraction"),
        ({"rescaling": [1, 0]}, 'rescaling: expected {"scale": ..., "offset": ...}, found [1, 0]'),
        ({"rescaling": {"scale": 1}}, "rescaling.offset: expected a number, found nothing"),
        ({"rescaling": {"scale": True, "offset": 0}}, "rescaling.scale: expected a number, found True"),
        ({"rescaling": {"scale": 10**400, "offset": 0}}, "rescaling.scale: the number is too large"),
        ({"rescaling": {"scale": 0, "offset": 0}}, "rescaling: rescaling scale must be above 0"),
        ({"rescaling": {"scales": 1, "offset": 0}}, "rescaling: unknown keys 'scales' (did you mean 'scale'?)"),
        ({"resize": "area"}, "resize: expected one of nearest, bilinear, bilinear-antialias, letterbox, found 'area'"),
        ({"color": "hsv"}, "color: expected one of rgb, bgr, grey, found 'hsv'"),
        ({"licence": 1}, "licence: expected text, found 1"),
        ({"scale_x_y": [1.05, 3]}, "scale_x_y: expected a list of numbers in 1..2, one of each grid, found [1.05, 3]"),
        ({"scale_x_y": []}, "scale_x_y: expected a list of numbers"),
    ],
)
def test_a_wrong_value_is_named_with_file_and_key(change: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceFileError) as caught:
        read_sidecar(written(tmp_path, json.dumps({**FULL, **change})))
    assert str(caught.value).startswith("sidecar 'm.xdet.json': " + said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n "head": }', "'m.xdet.json', line 2, column 10: not JSON"),
        ("", "line 1, column 1: not JSON"),
        ("[]", "expected a JSON object, found list"),
        ('{"head": "none", "head": "none"}', "repeated keys: 'head'"),
        ('{"rescaling": {"scale": NaN, "offset": 0}}', "NaN is not a JSON number"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_text_that_is_no_sound_json_object_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceFileError, match=said):
        read_sidecar(written(tmp_path, text))


def test_a_sidecar_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceFileError, match="cannot be read: No such file"):
        read_sidecar(tmp_path / "m.xdet.json")
    (tmp_path / "d.xdet.json").mkdir()
    with pytest.raises(SourceFileError, match="cannot be read"):
        find_sidecar(tmp_path / "d.tflite")
    with pytest.raises(SourceFileError, match="more than 1,048,576, the most"):
        read_sidecar(written(tmp_path, " " * ((1 << 20) + 1)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(key=st.sampled_from(sorted(FULL)), value=JSON)
def test_no_json_value_raises_anything_but_a_source_file_error(
    key: str, value: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path_factory.getbasetemp(), json.dumps({key: value}))
    with contextlib.suppress(SourceFileError):
        assert read_sidecar(path).file == "m.xdet.json"


def test_many_repeated_or_unknown_keys_are_told_at_once_and_not_all(tmp_path: Path) -> None:
    path = tmp_path / "m.xdet.json"
    path.write_text("{" + ", ".join(f'"k{i}": 1, "k{i}": 2' for i in range(30_000)) + "}")
    started = time.process_time()
    with pytest.raises(SourceFileError, match=r"repeated keys: 'k0', 'k1', .* and 29990 more$"):
        read_sidecar(path)
    path.write_text("{" + ", ".join(f'"anchor{i}": 1' for i in range(40_000)) + "}")
    with pytest.raises(
        SourceFileError, match=r"unknown keys 'anchor0' \(did you mean 'anchors'\?\), .* and 39990 more;"
    ):
        read_sidecar(path)
    path.write_text(json.dumps({"anchors" * 100_000: 1}))
    with pytest.raises(SourceFileError, match="unknown keys 'anchorsanchors"):
        read_sidecar(path)
    assert time.process_time() - started < 5
