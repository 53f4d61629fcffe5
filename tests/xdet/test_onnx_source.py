"""An ONNX source in every command: checked bit for bit, inspected, run, measured and timed as it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

import xdet
from tests.converters.sources.onnx.networks import OnnxBuilder, tiny_yolo_v2, yolo_v8, yolox
from xdet.bench.run import case_coverage, plan_cases
from xdet.checking.pair import open_pair
from xdet.errors import UsageError
from xdet.model.file import read_model_file
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.table import open_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SIDECAR: dict[str, Any] = {"class_names": ["cup", "jug"], "resize": "bilinear"}
SCALES = {"unit": {"scale": 1 / 255, "offset": 0.0}, "whole": {"scale": 1.0, "offset": 0.0}}


@pytest.fixture
def photographs() -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), np.uint8))


def written(folder: Path, data: bytes, scale: str = "unit", **said: Any) -> Path:
    path = folder / "source.onnx"
    path.write_bytes(data)
    path.with_suffix(".xdet.json").write_text(json.dumps({**SIDECAR, "rescaling": SCALES[scale], **said}))
    return path


SOURCES: dict[str, tuple[Callable[[], bytes], str, dict[str, Any]]] = {
    "v8": (yolo_v8, "unit", {}),
    "v8, int8": (lambda: yolo_v8(quantised=True), "unit", {}),
    "yolox": (yolox, "whole", {}),
    "tiny": (
        tiny_yolo_v2,
        "unit",
        {"anchors": [[1.0, 1.5], [2.0, 1.0]], "anchor_unit": "cell", "class_names": ["cup"]},
    ),
}


@pytest.mark.parametrize(("make", "scale", "said"), SOURCES.values(), ids=SOURCES.keys())
def test_a_check_finds_the_source_in_its_result_bit_for_bit(
    make: Callable[[], bytes], scale: str, said: dict[str, Any], photographs: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    source = written(tmp_path, make(), scale, **said)
    xdet.convert(source, tmp_path / "m.onnx")
    result = xdet.check(tmp_path / "m.onnx", source, photographs, runtimes="onnxruntime")
    verdicts = {part.part: part.status for part in result.parts}
    assert result.source_runs == ("onnxruntime-source:cpu",)
    assert (verdicts["static"], verdicts["exact"], verdicts["head"]) == ("passed", "passed", "passed")
    assert result.passed
    (line,) = result.runs
    assert line.must_be_exact
    assert line.nearest is not None
    assert (line.nearest.differing, result.changes) == (0, ())


def means() -> bytes:
    """A mean of everything, whose axes are an attribute up to opset 17, beside two outputs of other ranks."""
    b = OnnxBuilder((1, 3, 16, 16))
    grid = b.conv(b.op("Relu", b.conv("images", 3, 8, stride=2)), 8, 12, 1)
    b.op("ReduceMean", grid, axes=[1, 2, 3], keepdims=0, name="mean")
    b.op("Reshape", grid, b.constant(np.array([1, 2, 6, 8, 8], np.int64)), name="anchors")
    b.op("Softmax", b.op("Flatten", b.op("GlobalAveragePool", grid)), axis=1, name="classes")
    return b.build({"mean": 1, "anchors": 5, "classes": 2})


def test_outputs_of_any_rank_pass_a_check_of_layers_and_an_edited_mean_does_not(
    photographs: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    source, model = written(tmp_path, means()), tmp_path / "m.onnx"
    done = xdet.convert(source, model, head="none")
    assert [output.shape for output in done.document.spec.raw_outputs] == [(), (2, 6, 8, 8), (12,)]
    result = xdet.check(model, source, photographs, runtimes="onnxruntime", layers=True)
    assert (result.findings, [part.status for part in result.parts][:2]) == ((), ["passed", "passed"])
    assert result.layers is not None
    proto = onnx.load(model)
    (node,) = (node for node in proto.graph.node if node.op_type == "ReduceMean")
    (axes,) = (attribute for attribute in node.attribute if attribute.name == "axes")
    axes.ints[:] = [3, 2, 1]
    onnx.save(proto, model)
    verdict = xdet.check(model, source, photographs, runtimes="onnxruntime")
    (finding,) = verdict.findings
    assert (finding.cause, finding.layer) == ("attributes", "mean")


def test_layers_of_a_float_source_are_compared(photographs: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    source = written(tmp_path, yolo_v8())
    xdet.convert(source, tmp_path / "m.onnx")
    result = xdet.check(tmp_path / "m.onnx", source, photographs[:1], runtimes="onnxruntime", layers=True)
    assert result.layers is not None
    assert len(result.layers.layers) > 50
    assert not any(layer.accumulated.differing for layer in result.layers.layers)
    assert result.passed


def test_a_float_source_is_quantised_as_keras_models_are(photographs: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    source = written(tmp_path, tiny_yolo_v2(), **SOURCES["tiny"][2])
    files = []
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(files[-1])
    made = xdet.convert(source, tmp_path / "m.onnx", quantize="per-channel", calibration=files)
    assert (made.document.quantization, made.document.activations) == ("int8 per-channel", "uint8")
    result = xdet.check(tmp_path / "m.onnx", source, photographs, runtimes="onnxruntime", layers=True)
    verdicts = {part.part: part.status for part in result.parts}
    assert (verdicts["static"], verdicts["exact"], verdicts["spread"]) == ("skipped", "skipped", "skipped")
    assert verdicts["head"] == "passed"
    assert result.layers is not None
    assert not any(part.findings for part in result.parts)


def weights(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if len(t.dims) == 4)
    array = numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[0] += 0.25
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def slope(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "LeakyRelu")
    node.attribute[0].f = 0.25


@pytest.mark.parametrize(("bend", "cause"), [(weights, "weight"), (slope, "attributes")])
def test_a_planted_fault_is_found_by_its_cause(
    bend: Callable[[onnx.ModelProto], None], cause: str, photographs: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    source = written(tmp_path, tiny_yolo_v2(), **SOURCES["tiny"][2])
    xdet.convert(source, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    bend(model)
    onnx.save(model, tmp_path / "m.onnx")
    result = xdet.check(tmp_path / "m.onnx", source, photographs, runtimes="onnxruntime")
    static, exact = result.parts[:2]
    assert [finding.cause for finding in static.findings] == [cause]
    assert exact.status == "failed"
    assert "of the largest value" in exact.findings[0].message


def test_it_is_inspected_with_its_detector_and_costs(tmp_path: Path) -> None:
    found = xdet.inspect(written(tmp_path, yolo_v8(quantised=True)), layers=True)
    assert (found.format, found.quantization, found.refused) == ("onnx-source", "int8 per-channel", None)
    assert found.spec is not None
    assert found.spec.class_names == ("cup", "jug")
    assert found.totals is not None
    assert len(found.layers) > 20
    (tmp_path / "bare.onnx").write_bytes(yolo_v8())
    assert "does not say how they are scaled" in str(xdet.inspect(tmp_path / "bare.onnx").problem)


def test_a_refused_file_is_shown_with_the_reason(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(yolo_v8())
    model.graph.node[0].domain = "com.example"
    found = xdet.inspect(written(tmp_path, model.SerializeToString()))
    assert "of the domain 'com.example'" in str(found.refused)
    assert found.operators["Conv"] > 10


def test_it_runs_as_it_is_and_finds_what_its_result_finds(photographs: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    source = written(tmp_path, yolo_v8())
    xdet.convert(source, tmp_path / "m.onnx")
    for image in photographs:
        theirs, ours = (xdet.Detector(path)(image) for path in (source, tmp_path / "m.onnx"))
        assert len(ours)
        assert [(d.class_name, d.score) for d in ours] == [(d.class_name, d.score) for d in theirs]
        np.testing.assert_allclose([d.box_xyxy_px for d in ours], [d.box_xyxy_px for d in theirs], rtol=0, atol=1e-4)


def test_it_is_timed(tmp_path: Path) -> None:
    source = written(tmp_path, yolo_v8(quantised=True))
    (case,) = plan_cases([source], None, [1])
    assert case.choices.runtime == "onnxruntime-source"
    coverage = case_coverage(case)
    assert coverage is not None
    assert coverage.macs_total > 0


def test_inner_values_are_shown_and_any_number_of_pictures_taken(
    photographs: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    source = written(tmp_path, tiny_yolo_v2(), **SOURCES["tiny"][2])
    with open_model(read_model_file(source), RuntimeChoices()) as runtime:
        images = np.stack(photographs)
        assert runtime.head(images).shape == (3, 2, 2, 12)
        shown = runtime.tensors(images, ["/LeakyRelu_1_output_0"])
        assert shown["/LeakyRelu_1_output_0"].shape == (3, 8, 64, 64)
        with pytest.raises(UsageError, match="computes no value named 'none'"):
            runtime.tensors(images, ["none"])


def test_a_file_that_says_too_little_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "bare.onnx").write_bytes(yolo_v8())
    with pytest.raises(UsageError, match=r"--rescaling 1/255 \(0..1\), 1/127.5,-1 \(-1..1\) or 1 \(0..255\)"):
        xdet.Detector(tmp_path / "bare.onnx")


def test_a_check_of_two_finished_files_is_a_wrong_use(tmp_path: Path) -> None:
    source = written(tmp_path, yolo_v8())
    xdet.convert(source, tmp_path / "m.onnx")
    with pytest.raises(UsageError, match=r"expected the source that .* \(TFLite, Keras H5, Keras, ONNX\)"):
        open_pair(tmp_path / "m.onnx", tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="is onnx-source, expected an ONNX file made by xdet convert"):
        open_pair(source, source)


def test_another_file_of_the_same_network_is_another_source(
    photographs: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    source = written(tmp_path, yolo_v8())
    xdet.convert(source, tmp_path / "m.onnx")
    source.write_bytes(yolo_v8(classes=2, opset=16))
    result = xdet.check(tmp_path / "m.onnx", source, photographs, runtimes="onnxruntime")
    assert [finding.cause for finding in result.parts[0].findings] == ["another-source"]


def test_a_network_that_left_the_house_as_onnx_comes_back_with_its_boxes(embedded_tflite: Path, tmp_path: Path) -> None:
    """TFLite -> ONNX without a head, its document taken out -> ONNX source -> the boxes of the direct conversion."""
    xdet.convert(embedded_tflite, tmp_path / "direct.onnx")
    xdet.convert(embedded_tflite, tmp_path / "raw.onnx", head="none")
    model = onnx.load(tmp_path / "raw.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "source.onnx")
    told = json.loads(embedded_tflite.with_suffix(".xdet.json").read_text("utf-8"))
    del told["rescaling"]  # uint8 pixels go in: it is inside
    (tmp_path / "source.xdet.json").write_text(json.dumps(told))
    xdet.convert(tmp_path / "source.onnx", tmp_path / "again.onnx")
    photograph = embedded_tflite.with_name("camera.jpg")
    direct, again = (xdet.Detector(tmp_path / name)(photograph) for name in ("direct.onnx", "again.onnx"))
    assert len(direct)
    assert [(d.score, d.box_xyxy_px) for d in again] == [(d.score, d.box_xyxy_px) for d in direct]
