"""Checks of dequantised models and of float TFLite sources: weights, layers, boxes, runtimes in float32."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from converters.sources.tflite.reader import read_tflite
from converters.spec import Rescaling
from tests.converters.sources.onnx.networks import yolo_v8
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.cases import build_case
from tests.converters.sources.tflite.networks import tiny_yolo_v2_relu
from tests.converters.sources.tflite.test_floats import SIDECAR, build_network
from tests.xdet.checking import keras_faults
from xdet.checking.check import check
from xdet.checking.heads.spread import why_not_exact
from xdet.checking.numbers import check_static
from xdet.checking.numbers.tflite_source import SourceGraph
from xdet.checking.pair import open_pair
from xdet.checking.report import check_text

if TYPE_CHECKING:
    from pathlib import Path

    from xdet.checking.result import CheckResult


pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
ANCHORS = tuple((0.3 + i / 5, 0.5 + i / 5) for i in range(5))
SAID = {
    "tflite": SourceOptions(anchors=ANCHORS, anchor_unit="cell", class_names=("a",), resize="bilinear"),
    "onnx": SourceOptions(class_names=("a", "b"), resize="bilinear", rescaling=Rescaling(1 / 255, 0.0)),
}
RUNTIMES = "onnxruntime:cpu,litert:xnnpack"


def dequantised(folder: Path, suffix: str) -> tuple[Path, Path]:
    source, model = folder / f"net.{suffix}", folder / "model.onnx"
    source.write_bytes(tiny_yolo_v2_relu(64, 32) if suffix == "tflite" else yolo_v8(quantised=True))
    options = ConvertOptions(source=SAID[suffix], dequantize=True)
    model.write_bytes(convert_to_bytes(source, options).model)
    return source, model


def checked(folder: Path, suffix: str, images: list[Path]) -> CheckResult:
    runtimes = RUNTIMES if suffix == "tflite" else "onnxruntime:cpu"
    return check(
        folder / "model.onnx",
        folder / f"net.{suffix}",
        images,
        runtimes=runtimes,
        source_options=SAID[suffix],
        layers=True,
    )


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_every_layer_is_within_a_step_of_its_sources_codes(
    suffix: str, tmp_path: Path, sample_pictures: list[Path]
) -> None:
    dequantised(tmp_path, suffix)
    result = checked(tmp_path, suffix, sample_pictures[:1])
    assert result.findings == ()
    assert [part.status for part in result.parts] == ["passed", "skipped", "passed", "passed"]
    assert "the model none (--dequantize)" in result.parts[1].summary
    assert "of a step of the source's codes; through all of them" in result.parts[2].summary
    assert result.layers is not None
    assert result.layers.unit == "LSB"
    assert 0.3 < max(layer.local.worst for layer in result.layers.layers) <= 1


def test_weights_that_are_computed_at_run_time_are_no_missing_constant(tmp_path: Path) -> None:
    source, model = tmp_path / "row.tflite", tmp_path / "row.onnx"
    source.write_bytes(build_case("FULLY_CONNECTED", "with weights computed at run time"))
    options = ConvertOptions(source=SourceOptions(head="none"), dequantize=True)
    model.write_bytes(convert_to_bytes(source, options).model)
    verdict, _ = check_static(open_pair(model, source))
    assert (verdict.status, verdict.findings) == ("passed", ())


def test_a_weight_that_was_scaled_fails_static_and_spread_at_its_layer(
    tmp_path: Path, sample_pictures: list[Path]
) -> None:
    _, model = dequantised(tmp_path, "tflite")
    proto = onnx.load(model)
    weights = [tensor for tensor in proto.graph.initializer if len(tensor.dims) == 4]
    fifth = weights[4]
    fifth.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(fifth) * np.float32(1.2), fifth.name))
    onnx.save(proto, model)
    result = checked(tmp_path, "tflite", sample_pictures[:1])
    assert {(finding.part, finding.cause) for finding in result.findings} >= {("static", "weight"), ("spread", "layer")}
    assert result.layers is not None
    fault = result.layers.first_fault
    assert fault is not None
    assert fault.tensor in {finding.layer for finding in result.findings if finding.part == "spread"}
    assert replace(result, layers=None).passed is False


def test_a_sum_that_saturates_in_the_source_is_no_fault_of_the_quantize_behind_it(
    tmp_path: Path, sample_pictures: list[Path]
) -> None:
    """The sum ends at 0.77 in the source; the QUANTIZE, which the float network leaves out, reaches 2.55."""
    source, model, b = tmp_path / "net.tflite", tmp_path / "net.onnx", TfliteBuilder()
    shape = (1, 16, 16, 3)
    pixels = b.input("image", shape, "uint8", 1 / 255, 0)
    codes = b.op("QUANTIZE", [pixels], shape, "int8", 1 / 255, -128, name="codes")
    doubled = b.op("ADD", [codes, codes], shape, "int8", 0.003, -128, name="doubled")
    wide = b.op("QUANTIZE", [doubled], shape, "int8", 0.01, -128, name="wide")
    again = b.op("ADD", [wide, codes], shape, "int8", 0.02, -128, name="again")
    source.write_bytes(b.build([b.op("DEQUANTIZE", [again], shape, "float32", name="y")]))
    said = SourceOptions(head="none", resize="bilinear")
    model.write_bytes(convert_to_bytes(source, ConvertOptions(source=said, dequantize=True)).model)
    result = check(model, source, sample_pictures[:1], runtimes=RUNTIMES, source_options=said, layers=True)
    assert result.findings == ()
    assert result.layers is not None
    layers = {layer.tensor: layer for layer in result.layers.layers}
    assert layers["wide"].onnx == layers["doubled"].onnx  # which the float network does not saturate
    assert layers["wide"].local.worst <= 1
    assert layers["wide"].accumulated.worst > 50


@pytest.mark.shared
@pytest.mark.parametrize("choices", [{}, {"float16": True}], ids=["float32", "float16"])
def test_the_trained_detectors_keep_their_layers(
    choices: dict[str, bool], shared_dir: Path, tmp_path: Path, sample_pictures: list[Path]
) -> None:
    source, model = shared_dir / "models" / "tiny_yolo_v2_person_192_int8.tflite", tmp_path / "d.onnx"
    model.write_bytes(convert_to_bytes(source, ConvertOptions(dequantize=True, float16=bool(choices))).model)
    result = check(model, source, sample_pictures, runtimes=RUNTIMES)
    assert result.findings == ()
    assert result.parts[2].status == "passed"


DESCRIBED = SourceOptions(anchors=((1.0, 1.5),), anchor_unit="cell", class_names=("a", "b", "c"))
FLOAT_RUNTIMES = "onnxruntime:cpu,litert:xnnpack,litert:builtin"


@pytest.mark.parametrize(("kind", "spread"), [("float32", "passed"), ("float16", "passed"), ("int8", "skipped")])
def test_a_float_source_is_compared_as_far_as_litert_computes_the_same(
    kind: str, spread: str, sample_pictures: list[Path], tmp_path: Path
) -> None:
    source, model = tmp_path / "net.tflite", tmp_path / "net.onnx"
    source.write_bytes(build_network(kind))
    source.with_suffix(".xdet.json").write_text(SIDECAR)
    model.write_bytes(convert_to_bytes(source, ConvertOptions(source=DESCRIBED)).model)
    result = check(model, source, sample_pictures[:1], runtimes=FLOAT_RUNTIMES, layers=True)
    assert result.findings == ()
    assert [part.status for part in result.parts] == ["passed", "skipped", spread, "passed"]
    text = check_text(result).splitlines()
    if spread == "skipped":
        assert "rounds this source's float activations" in result.parts[2].summary
        assert text[1].startswith("NOT COMPARED: the output of the two: LiteRT rounds this source's float")
        assert "not compared: the output, exact, spread" in text[-1]
        assert "the layers of such a TFLite file are not compared" in str(result.layers_problem)
    else:
        assert "NOT COMPARED: the output" not in "".join(text)
        assert result.layers is not None
        assert (result.layers.unit, len(result.layers.layers) > 3) == ("of the largest value", True)
        assert max(layer.local.worst for layer in result.layers.layers) < 2e-6


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
@pytest.mark.parametrize("halved", [False, True], ids=["float32", "float16"])
def test_rescaling_limits_and_what_each_of_two_products_with_one_bias_reads_are_compared(
    kind: str, halved: object, tmp_path: Path
) -> None:
    source, model = tmp_path / "net.tflite", tmp_path / "net.onnx"
    source.write_bytes(build_network(kind))
    source.with_suffix(".xdet.json").write_text(SIDECAR)
    model.write_bytes(convert_to_bytes(source, ConvertOptions(source=DESCRIBED, float16=bool(halved))).model)
    assert check_static(open_pair(model, source))[0].findings == ()
    proto = onnx.load(model)
    conv = next(node for node in proto.graph.node if node.op_type == "Conv")
    keras_faults.edit(proto, conv.input[2], lambda bias: bias * bias.dtype.type(1.01))
    keras_faults.edit(proto, "rescaling/scale", lambda scale: scale * 2)
    keras_faults.edit(proto, "conv/clamp/max", lambda limit: limit - 1)
    onnx.save(proto, model)
    findings = check_static(open_pair(model, source))[0].findings
    assert [(finding.cause, finding.layer) for finding in findings] == [
        ("image-input", None),
        ("bias", "conv"),
        ("attributes", "conv"),
    ]
    assert findings[-1].message == "limits of 'conv': expected 0.0 to 6.0, found 0.0 to 5.0"


def test_a_float_operator_behind_a_quantised_network_is_not_declared_exact(tmp_path: Path) -> None:
    shape = (1, 8, 8, 3)
    b = TfliteBuilder()
    pixels = b.input("image", shape, "uint8", 1 / 255, 0)
    real = b.op("DEQUANTIZE", [pixels], shape, "float32")
    data = b.build([b.op("ADD", [real, real], shape, "float32", name="twice")])
    source, model = tmp_path / "net.tflite", tmp_path / "net.onnx"
    source.write_bytes(data)
    model.write_bytes(convert_to_bytes(source, ConvertOptions(source=SourceOptions(head="none"))).model)
    told = why_not_exact(open_pair(model, source).document, SourceGraph(read_tflite(data, "net.tflite")))
    assert "ADD on float32" in str(told)
