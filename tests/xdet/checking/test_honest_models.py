"""No false alarm: honest conversions pass, in every dialect, for every family, and each deliberate change is proven."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from converters.sources.tflite.reader import read_tflite
from converters.spec import RawOutput
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.networks import ANCHORS, st_yolo_lc, tiny_yolo_v2_relu, two_raw_outputs
from xdet.checking.check import check
from xdet.checking.numbers import check_static
from xdet.checking.numbers.tflite_source import SourceGraph
from xdet.checking.pair import open_pair
from xdet.checking.report import check_text
from xdet.conversion import describing_options

if TYPE_CHECKING:
    from pathlib import Path

    from converters.options import Activations

pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
DIALECTS = {
    "default": {},
    "int8": {"activations": "int8"},
    "leaky float": {"leaky_relu": "float"},
    "cpu": {"target": "cpu"},
    "frozen": {"freeze_thresholds": True},
}
RUNTIMES = "onnxruntime:cpu,litert:xnnpack,litert:builtin"
PROVEN = {"default": 16, "int8": 16, "leaky float": 0, "cpu": 10, "frozen": 16}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_honest_conversion_of_the_embedded_detector_passes(
    dialect: str, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(convert_to_bytes(embedded_tflite, ConvertOptions(**DIALECTS[dialect])).model)  # type: ignore[arg-type]  # parametrised
    result = check(model, embedded_tflite, sample_pictures, runtimes=RUNTIMES)
    assert result.findings == ()
    assert len(result.proven) == PROVEN[dialect]
    promised = dialect != "leaky float"
    statuses = {part.part: part.status for part in result.parts}
    assert statuses == {
        "static": "passed",
        "exact": "passed" if promised else "skipped",
        "spread": "skipped" if promised else "passed",
        "head": "passed",
    }


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("target", ["portable", "cpu"])
@pytest.mark.parametrize(
    ("family", "size"), [(st_yolo_lc, 96), (st_yolo_lc, 64), (tiny_yolo_v2_relu, 96)], ids=["lc 96", "lc 64", "relu 96"]
)
def test_padded_strided_depthwise_and_clamped_layers_pass(
    family: object, size: int, target: str, activations: str, tmp_path: Path
) -> None:
    source, model = tmp_path / "built.tflite", tmp_path / "built.onnx"
    source.write_bytes(family(size))  # type: ignore[operator]  # parametrised
    described = SourceOptions(anchors=ANCHORS, anchor_unit="cell", class_names=("person",))
    options = ConvertOptions(source=described, target=target, activations=activations)  # type: ignore[arg-type]  # parametrised
    model.write_bytes(convert_to_bytes(source, options).model)
    verdict, _ = check_static(open_pair(model, source))
    assert verdict.findings == ()
    assert verdict.status == "passed"
    assert "belong to no source tensor" not in verdict.summary


def test_the_zoo_like_network_is_exact_with_options_instead_of_a_sidecar(
    sample_pictures: list[Path], tmp_path: Path
) -> None:
    source, model = tmp_path / "built.tflite", tmp_path / "built.onnx"
    source.write_bytes(st_yolo_lc(96))
    described = SourceOptions(anchors=ANCHORS, anchor_unit="cell", class_names=("person",))
    model.write_bytes(convert_to_bytes(source, ConvertOptions(source=described)).model)
    result = check(model, source, sample_pictures, runtimes=RUNTIMES)
    assert result.findings == ()
    assert result.passed


def test_what_nobody_states_of_the_source_is_said_at_the_top_and_options_state_it(
    sample_pictures: list[Path], tmp_path: Path
) -> None:
    source, model = tmp_path / "built.tflite", tmp_path / "built.onnx"
    source.write_bytes(st_yolo_lc(96))
    small = tuple((w / 6, h / 6) for w, h in ANCHORS)
    described = SourceOptions(anchors=small, anchor_unit="image", class_names=("person",))
    model.write_bytes(convert_to_bytes(source, ConvertOptions(source=described)).model)
    pictures = sample_pictures[:1]
    silent = check(model, source, pictures, runtimes="onnxruntime:cpu")
    assert silent.uncompared == ("anchors", "classes", "resize")
    assert check_text(silent).splitlines()[1] == (
        "NOT COMPARED: anchors, classes, resize: the source states none; "
        "give --anchors with --anchor-unit, --classes, --resize, or a sidecar"
    )
    only = check_text(replace(silent, uncompared=("resize",))).splitlines()[1]
    assert only == "NOT COMPARED: resize: the source states none; give --resize, or a sidecar"
    assert check_text(silent).splitlines()[-1] == "PASSED (not compared: spread, anchors, classes, resize)"
    source_options = describing_options(anchors=small, anchor_unit="cell", classes="car", resize="bilinear")
    told = check(model, source, pictures, runtimes="onnxruntime:cpu", source_options=source_options)
    assert told.uncompared == ()
    assert [finding.cause for finding in told.findings] == ["anchor-unit", "classes", "image-input"]


def test_a_model_that_ends_at_the_head_is_compared_and_its_boxes_are_not(
    embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    model = tmp_path / "head.onnx"
    options = ConvertOptions(source=SourceOptions(head="none"))
    model.write_bytes(convert_to_bytes(embedded_tflite, options).model)
    result = check(model, embedded_tflite, sample_pictures[:1], runtimes=RUNTIMES)
    assert [part.status for part in result.parts] == ["passed", "passed", "skipped", "skipped"]
    assert "gives no boxes" in result.parts[3].summary


@pytest.mark.parametrize("dequantised", [True, False])
def test_several_raw_outputs_of_a_network_without_a_head_are_compared(
    sample_pictures: list[Path], tmp_path: Path, *, dequantised: bool
) -> None:
    source, model = tmp_path / "two.tflite", tmp_path / "two.onnx"
    source.write_bytes(two_raw_outputs(dequantised=dequantised))
    options = ConvertOptions(source=SourceOptions(head="none"))
    model.write_bytes(convert_to_bytes(source, options).model)
    result = check(model, source, sample_pictures, runtimes="onnxruntime:cpu,onnxruntime-unfused:cpu")
    assert [part.status for part in result.parts] == ["passed", "passed", "passed", "skipped"]
    assert "gives no boxes" in result.parts[3].summary
    assert (result.passed, result.complete, result.unit) == (True, True, "LSB")
    cpu = result.runs[0].nearest
    assert cpu is not None
    assert (cpu.differing, cpu.values) == (0, len(sample_pictures) * (8 * 8 * 4 + 7))


def test_the_steps_of_several_outputs_stand_in_the_order_of_the_joined_head() -> None:
    graph = SourceGraph(read_tflite(two_raw_outputs(), "two.tflite"))
    vector, grid = RawOutput("vector", (7,)), RawOutput("grid", (8, 8, 4))
    steps = graph.head_step((vector, grid))
    np.testing.assert_array_equal(steps, np.array([0.25] * 7 + [0.004] * 256, np.float32))
    assert graph.head_step((vector,)) is None


def test_a_check_in_which_nothing_ran_says_so(
    person_onnx: Path, embedded_tflite: Path, sample_pictures: list[Path]
) -> None:
    result = check(person_onnx, embedded_tflite, sample_pictures[:1], runtimes="litert:xnnpack")
    assert result.parts[2].summary == "no runtime of the finished model ran"


@pytest.mark.shared
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "name", ["tiny_yolo_v2_person_192_int8", "tiny_yolo_v2_person_224_int8", "tiny_yolo_v2_person_224_per_tensor_int8"]
)
def test_every_shared_detector_passes_on_the_default_runtimes(
    name: str, dialect: str, shared_dir: Path, photographs: list[Path], tmp_path: Path
) -> None:
    source, model = shared_dir / "models" / f"{name}.tflite", tmp_path / "model.onnx"
    model.write_bytes(convert_to_bytes(source, ConvertOptions(**DIALECTS[dialect])).model)  # type: ignore[arg-type]  # parametrised
    result = check(model, source, photographs[:3])
    assert result.findings == ()
    assert result.complete


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("moved", [False, True], ids=["at once", "behind a reshape"])
def test_a_dequantize_and_a_quantize_round_twice(
    activations: Activations, *, moved: bool, sample_pictures: list[Path], tmp_path: Path
) -> None:
    """ONNX Runtime would merge the pairs in front and behind, and round once."""
    source, model, b = tmp_path / "net.tflite", tmp_path / "net.onnx", TfliteBuilder()
    shape = (1, 16, 16, 3)
    codes = b.op("QUANTIZE", [b.input("image", shape, "uint8", 1 / 255, 0)], shape, "int8", 1 / 255, -128)
    doubled = b.op("ADD", [codes, codes], shape, "int8", 0.007, -128, name="doubled")
    real = b.op("DEQUANTIZE", [doubled], shape, "float32", name="real")
    if moved:
        real = b.op("RESHAPE", [real, b.constant(np.array(shape, np.int32))], shape, "float32", name="moved")
    again = b.op("QUANTIZE", [real], shape, "int8", 0.0113, -20, name="again")
    source.write_bytes(b.build([b.op("DEQUANTIZE", [again], shape, "float32", name="y")]))
    said = SourceOptions(head="none", resize="bilinear")
    model.write_bytes(convert_to_bytes(source, ConvertOptions(source=said, activations=activations)).model)
    result = check(model, source, sample_pictures[:1], runtimes=RUNTIMES, source_options=said)
    assert result.findings == ()
    near = [run.nearest.differing for run in result.runs if run.nearest is not None and run.must_be_exact]
    assert near == [0]
