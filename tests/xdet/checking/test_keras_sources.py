"""Keras sources, read without TensorFlow: honest models pass, planted faults are named with layer and cause."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import numpy_helper

from converters.sources.keras.stored import read_keras, read_network
from tests.xdet.checking import faults, keras_faults
from xdet.checking.check import check
from xdet.checking.numbers import check_static
from xdet.checking.numbers.comparison import Other
from xdet.checking.numbers.keras import compare_keras
from xdet.checking.numbers.keras_layers import network_steps
from xdet.checking.pair import open_pair
from xdet.errors import ModelError

if TYPE_CHECKING:
    import onnx

    from xdet.checking.result import PartVerdict

ROOT = Path(__file__).resolve().parents[3]
HONEST = [
    *(("tf_keras.h5", way) for way in ("float", "dynamic", "per-channel", "per-tensor", "clipped", "int8", "cpu")),
    ("rows.h5", "cpu"),
    ("groups.keras", "float"),
    ("groups.keras", "per-channel"),
    ("tf_keras.keras", "float"),
    ("keras3.h5", "float"),
    ("keras3.keras", "float"),
    ("keras3.keras", "per-channel"),
]  # fmt: skip
NUMBERS = {"float": 2109, "dynamic": 2109, "per-channel": 2301, "per-tensor": 2171}
PROVEN = {("tf_keras.h5", "cpu"): ["conv1", "darknet", "leaky"], ("rows.h5", "cpu"): ["stem", "depthwise"]}
EVERY = ("float", "per-channel", "per-tensor", "int8", "cpu")
QUANTISED = EVERY[1:]
PLAIN_STEM = EVERY[:-1]  # the first convolution as in the source, for faults that are planted there


def judged(folder: Path, source: str, way: str) -> PartVerdict:
    verdict, proven = check_static(open_pair(folder / f"{source}-{way}.onnx", folder / source))
    assert [change.tensor for change in proven] == PROVEN.get((source, way), [])
    return verdict


@pytest.mark.parametrize(("source", "way"), HONEST, ids=lambda value: value)
def test_an_honest_model_holds_the_numbers_that_follow_from_its_source(
    source: str, way: str, keras_models: Path
) -> None:
    verdict = judged(keras_models, source, way)
    assert verdict.findings == ()
    assert verdict.status == "passed"
    assert "not compared" not in verdict.summary
    if way in NUMBERS and source != "groups.keras":
        assert verdict.summary.startswith(f"{NUMBERS[way]:,} numbers compared with the source's, as folded")
    assert "tensorflow" not in sys.modules


FAULTS: list[tuple[faults.Edit, tuple[str, ...], str, str | None]] = [
    (keras_faults.one_weight, EVERY, "weight", "conv2"),
    (keras_faults.one_bias, EVERY, "bias", "conv2"),
    (keras_faults.weight_scale, QUANTISED, "scale", "conv2"),
    (keras_faults.bias_scale, QUANTISED, "scale", "conv2"),
    (keras_faults.activation_scale, QUANTISED, "scale", "add"),
    (keras_faults.zero_point, QUANTISED, "zero-point", "add"),
    (keras_faults.pixel_scale, ("per-channel", "per-tensor"), "scale", "the picture"),
    (keras_faults.range_below_zero, ("per-channel", "per-tensor"), "zero-point", "pointwise"),
    (keras_faults.padding_before, EVERY, "padding", "conv2"),
    (keras_faults.pool_before, EVERY, "padding", "pool2"),
    (keras_faults.strides, EVERY, "attributes", "conv2"),
    (keras_faults.slope, EVERY, "slope", "leaky"),
    (keras_faults.limit, ("float",), "attributes", "relu6"),
    (keras_faults.colours_of_the_kernel, PLAIN_STEM, "colour-order", "conv1"),
    (faults.blue_and_red_exchanged, PLAIN_STEM, "colour-order", None),
    (keras_faults.rescaling, ("float",), "image-input", None),
    (keras_faults.float_convolution, QUANTISED, "float-convolution", "conv2"),
]


@pytest.mark.parametrize(
    ("edit", "way", "expected"),
    [
        pytest.param(edit, way, (cause, layer), id=f"{edit.__name__} {way}")
        for edit, ways, cause, layer in FAULTS
        for way in ways
    ],
)
def test_a_fault_is_named_with_its_layer_and_its_cause_alone(
    edit: faults.Edit, way: str, expected: tuple[str, str | None], keras_models: Path, tmp_path: Path
) -> None:
    model = tmp_path / "planted.onnx"
    sound = (keras_models / f"tf_keras.h5-{way}.onnx").read_bytes()
    model.write_bytes(faults.planted(sound, edit))
    verdict, _ = check_static(open_pair(model, keras_models / "tf_keras.h5"))
    assert verdict.status == "failed"
    assert [(finding.cause, finding.layer) for finding in verdict.findings] == [expected]


@pytest.mark.parametrize(
    ("edit", "way", "told"),
    [
        (keras_faults.one_weight, "float", "weights of 'conv2': 1 of 1,152 differ by more than rounding"),
        (keras_faults.weight_scale, "per-channel", "1 of 16 differ; expected"),
        (keras_faults.weight_scale, "per-channel", "of channel 15, found"),
        (keras_faults.weight_scale, "per-tensor", "(+1.00%)"),
        (keras_faults.activation_scale, "per-channel", "scale of 'add' in DequantizeLinear"),
        (keras_faults.padding_before, "float", "expected (0, 0, 1, 1), found (1, 1, 0, 0)"),
        (keras_faults.slope, "float", "slope of 'leaky': expected 0.2, found 0.1"),
        (keras_faults.slope, "cpu", "of 256 codes behind 'leaky' differ from the source's (slope 0.2)"),
    ],
)
def test_a_finding_tells_what_was_expected_and_found(
    edit: faults.Edit, way: str, told: str, keras_models: Path, tmp_path: Path
) -> None:
    model = tmp_path / "planted.onnx"
    model.write_bytes(faults.planted((keras_models / f"tf_keras.h5-{way}.onnx").read_bytes(), edit))
    verdict, _ = check_static(open_pair(model, keras_models / "tf_keras.h5"))
    assert told in verdict.findings[0].message


def test_a_graph_that_leaves_a_layer_out_is_not_the_one_that_was_converted(keras_models: Path, tmp_path: Path) -> None:
    model = tmp_path / "planted.onnx"
    sound = (keras_models / "tf_keras.h5-float.onnx").read_bytes()
    model.write_bytes(faults.planted(sound, keras_faults.left_out))
    verdict, _ = check_static(open_pair(model, keras_models / "tf_keras.h5"))
    (finding,) = verdict.findings
    assert (finding.cause, finding.layer) == ("missing-tensor", "pool2")
    assert "'pool2' is computed from 'conv2', expected 'leaky'" in finding.message


def one_copy(proto: onnx.ModelProto) -> None:
    """One code of one of the eight copies of the first kernel."""
    conv = next(node for node in proto.graph.node if node.op_type == "Conv")
    codes = keras_faults.writer(proto, conv.input[1]).input[0]
    keras_faults.edit(proto, codes, lambda w: np.where(np.arange(w.size).reshape(w.shape) == np.argmax(w), w - 1, w))


def test_a_wide_stem_holds_the_kernel_in_every_copy(keras_models: Path, tmp_path: Path) -> None:
    model = tmp_path / "wide.onnx"
    wide = (keras_models / "tf_keras.h5-cpu.onnx").read_bytes()
    assert b"wide stem" in wide
    for data, expected in ((wide, []), (faults.planted(wide, one_copy), [("weight", "conv1")])):
        model.write_bytes(data)
        verdict, _ = check_static(open_pair(model, keras_models / "tf_keras.h5"))
        assert [(finding.cause, finding.layer) for finding in verdict.findings] == expected


def moved_padding(proto: onnx.ModelProto) -> None:
    """Another code than that of 0 between the copies of a row."""
    concat = next(node for node in proto.graph.node if node.op_type == "Concat" and "copies" in node.name)
    edge = next(name for name in concat.input if name in {tensor.name for tensor in proto.graph.initializer})
    keras_faults.edit(proto, edge, lambda codes: codes + np.uint8(1))


def one_more_apart(proto: onnx.ModelProto) -> None:
    conv = next(node for node in proto.graph.node if node.op_type == "Conv" and "rows" in node.name)
    (dilations,) = (attribute for attribute in conv.attribute if attribute.name == "dilations")
    dilations.ints[1] += 1


@pytest.mark.parametrize(
    ("edit", "cause"), [(moved_padding, "padding"), (one_more_apart, "attributes")], ids=["padding", "distance"]
)
def test_a_depthwise_layer_on_groups_of_pixels_reads_copies_of_its_rows(
    edit: faults.Edit, cause: str, keras_models: Path, tmp_path: Path
) -> None:
    model = tmp_path / "rows.onnx"
    model.write_bytes(faults.planted((keras_models / "rows.h5-cpu.onnx").read_bytes(), edit))
    verdict, _ = check_static(open_pair(model, keras_models / "rows.h5"))
    assert [(finding.cause, finding.layer) for finding in verdict.findings] == [(cause, "depthwise")]


def test_a_layer_that_no_comparison_knows_is_named_and_the_others_are_compared(keras_models: Path) -> None:
    pair = open_pair(keras_models / "tf_keras.h5-float.onnx", keras_models / "tf_keras.h5")
    source = network_steps(read_network(read_keras((keras_models / "tf_keras.h5").read_bytes(), "tf_keras.h5")))
    steps = tuple(replace(step, act=Other("Dense")) if step.layer == "add" else step for step in source.steps)
    compare = partial(compare_keras, replace(source, steps=steps))
    verdict, _ = check_static(replace(pair, origin=replace(pair.origin, compare=compare)))
    assert (verdict.status, verdict.findings) == ("passed", ())
    assert verdict.summary.endswith("as folded; not compared: 'add' (Dense)")


def test_the_sidecar_beside_a_keras_source_is_compared_with_the_model(keras_models: Path, tmp_path: Path) -> None:
    source = tmp_path / "tf_keras.h5"
    shutil.copyfile(keras_models / "tf_keras.h5", source)
    settings = json.loads((keras_models / "tf_keras.xdet.json").read_text("utf-8"))
    for changed, cause in (
        ({"anchor_unit": "image"}, "anchor-unit"),
        ({"anchors": [[0.4, 0.25]] * 5}, "anchors"),
        ({"rescaling": {"scale": 1 / 255, "offset": 0.0}}, "image-input"),
        ({"class_names": ["dog"]}, "classes"),
    ):
        source.with_suffix(".xdet.json").write_text(json.dumps(settings | changed), "utf-8")
        verdict, _ = check_static(open_pair(keras_models / "tf_keras.h5-float.onnx", source))
        assert [finding.cause for finding in verdict.findings] == [cause]


def test_without_a_sidecar_the_numbers_are_compared_all_the_same(keras_models: Path, tmp_path: Path) -> None:
    source = tmp_path / "tf_keras.h5"
    shutil.copyfile(keras_models / "tf_keras.h5", source)
    verdict, _ = check_static(open_pair(keras_models / "tf_keras.h5-float.onnx", source))
    assert (verdict.status, verdict.findings) == ("passed", ())


def test_another_source_is_named_and_nothing_else_is(keras_models: Path) -> None:
    pair = open_pair(keras_models / "tf_keras.h5-float.onnx", keras_models / "keras3.h5")
    verdict, _ = check_static(pair)
    assert [finding.cause for finding in verdict.findings] == ["another-source"]


@pytest.mark.parametrize("position", [1, 2], ids=["weights", "bias"])
def test_arrays_of_another_size_than_the_source_s_are_told(position: int, keras_models: Path, tmp_path: Path) -> None:
    def doubled(proto: onnx.ModelProto) -> None:
        name = next(node for node in proto.graph.node if node.op_type == "Conv").input[position]
        tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.concatenate([array, array]), name))

    model = tmp_path / "planted.onnx"
    model.write_bytes(faults.planted((keras_models / "tf_keras.h5-float.onnx").read_bytes(), doubled))
    verdict, _ = check_static(open_pair(model, keras_models / "tf_keras.h5"))
    assert verdict.findings[0].cause == ("weight", "bias")[position - 1]
    assert re.search(r"expected float32 \[\d.*found float32 \[\d", verdict.findings[0].message)


def test_a_normalisation_of_other_channels_than_its_convolution_is_refused(keras_models: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason='needs pip install "xdet[keras]"')
    source = tmp_path / "short.h5"
    shutil.copy(keras_models / "tf_keras.h5", source)

    def shorten(name: str, member: Any) -> None:
        if isinstance(member, h5py.Dataset) and name.endswith(
            ("gamma:0", "beta:0", "moving_mean:0", "moving_variance:0")
        ):
            short.append((name, member[:-1]))

    short: list[tuple[str, Any]] = []
    with h5py.File(source, "r+") as file:
        file.visititems(shorten)
        for name, array in short:
            del file[name]
            file[name] = array
    pair = open_pair(keras_models / "tf_keras.h5-float.onnx", source)
    made_of = replace(pair.document.source, sha256=pair.source_sha256)
    document = replace(pair.document, source=made_of)
    with pytest.raises(ModelError, match=r"has 7 channels, expected 8 as in .*; save the source again"):
        check_static(replace(pair, document=document))


@pytest.mark.parametrize("source", ["tf_keras.h5", "tf_keras.keras"])
def test_without_h5py_only_the_description_is_compared_and_the_part_says_so(
    source: str, keras_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    verdict, _ = check_static(open_pair(keras_models / f"{source}-float.onnx", keras_models / source))
    assert verdict.status == "skipped"
    assert 'pip install "xdet[keras]"' in verdict.summary


def exchanged_and_misread(proto: onnx.ModelProto) -> None:
    faults.blue_and_red_exchanged(proto)
    keras_faults.anchors_in_another_unit(proto)


def test_on_keras_itself_exchanged_colours_fail_the_spread_and_misread_anchors_the_head(
    keras_models: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    model = tmp_path / "planted.onnx"
    sound = (keras_models / "tf_keras.h5-float.onnx").read_bytes()
    model.write_bytes(faults.planted(sound, exchanged_and_misread))
    result = check(model, keras_models / "tf_keras.h5", sample_pictures[:1], runtimes="onnxruntime:cpu")
    causes = {part.part: [finding.cause for finding in part.findings] for part in result.parts}
    assert causes["static"] == ["colour-order"]
    assert causes["spread"][-1] == "colour-order"
    assert causes["head"] == ["anchor-unit"]
    assert result.parts[1].status == "skipped"


@pytest.mark.parametrize("way", ["float", "raw"])
def test_a_source_without_a_sidecar_runs_as_its_model_describes_it(
    way: str, keras_models: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    source = shutil.copyfile(keras_models / "tf_keras.h5", tmp_path / "alone.h5")
    model = shutil.copyfile(keras_models / f"tf_keras.h5-{way}.onnx", tmp_path / "alone.onnx")
    result = check(model, source, sample_pictures[:1], runtimes="onnxruntime:cpu")
    assert result.source_runs == ("keras:cpu",)
    assert (result.passed, result.complete) == (True, True)
    assert {part.part: part.status for part in result.parts} == {
        "static": "passed",
        "exact": "skipped",
        "spread": "passed",
        "head": "passed" if way == "float" else "skipped",
    }


SHARED = """
import functools, json, sys
from pathlib import Path
import xdet
from converters import convert as pipeline
from converters.sources.keras.importer import LoadedKeras
from xdet.checking.pair import open_pair
from xdet.checking.numbers import check_static
source, folder, *photographs = map(Path, sys.argv[1:])
ways = {"float": {}, "per-channel": {}, "per-tensor": {}}
for way in ("per-channel", "per-tensor"):
    ways[way] = {"quantize": way, "calibration": folder / "photographs"}
pipeline.open_source = functools.cache(pipeline.open_source)  # TensorFlow loads and exports it once
LoadedKeras.to_onnx = functools.cache(LoadedKeras.to_onnx)
pipeline.attempt_golden_vector = lambda *_: (None, ())  # seconds, and of no matter here
seen = {}
for way, options in ways.items():
    xdet.convert(source, folder / f"{way}.onnx", **options)
    verdict, _ = check_static(open_pair(folder / f"{way}.onnx", source))
    seen[way] = [verdict.status, verdict.summary, [finding.message for finding in verdict.findings]]
print(json.dumps(seen))
"""


@pytest.mark.shared
def test_the_shared_h5_file_passes_float_per_channel_and_per_tensor(
    shared_dir: Path, keras_models: Path, tmp_path: Path
) -> None:
    assert keras_models.is_dir()  # TensorFlow is here
    (tmp_path / "photographs").mkdir()
    for picture in sorted((shared_dir / "data" / "calibration").rglob("*.jpg"))[:8]:
        shutil.copyfile(picture, tmp_path / "photographs" / picture.name)
    source = shared_dir / "models" / "tiny_yolo_v2_person_224.h5"
    done = subprocess.run(
        [sys.executable, "-c", SHARED, str(source), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert {way: (status, faults) for way, (status, _, faults) in seen.items()} == dict.fromkeys(
        ("float", "per-channel", "per-tensor"), ("passed", [])
    )
    assert seen["float"][1] == "11,026,987 numbers compared with the source's, as folded"
