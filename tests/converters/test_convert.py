"""The conversion from end to end on the embedded detector: contract, determinism, integers, dialects, refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from converters.convert import Conversion, convert, convert_to_bytes
from converters.description.statements import SourceOptions
from converters.errors import ConversionError, OptionError, OutputError, SourceFileError
from converters.options import ConvertOptions
from converters.spec import METADATA_KEY, ModelDocument, Target, TensorTwin
from converters.spec.contract import ONNXRUNTIMES, OTHER_RUNTIMES, UINT8_MAX_ONNXRUNTIME
from tests.converters.sessions import session_of
from tests.converters.sources.tflite.builder import TfliteBuilder

Run = Callable[..., list[NDArray[np.generic]]]


@pytest.fixture(scope="module")
def converted(embedded_tflite: Path) -> Conversion:
    return convert_to_bytes(embedded_tflite, ConvertOptions())


def noise(n: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, 224, 224, 3), dtype=np.uint8)


def convolutions(optimized: Path) -> set[str]:
    """Operators of an optimised graph that multiply weights."""
    weighted = {"Conv", "FusedConv", "QLinearConv", "ConvInteger", "MatMul", "Gemm"}
    return {node.op_type for node in onnx.load(optimized).graph.node} & weighted


def test_the_model_is_opset_13_ir_7_with_standard_operators_only(converted: Conversion) -> None:
    model = onnx.load_model_from_string(converted.model)
    assert model.ir_version == 7
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 13)]
    assert {node.domain for node in model.graph.node} == {""}
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize(("target", "oldest"), [("portable", "1.15"), ("cpu", UINT8_MAX_ONNXRUNTIME)])
def test_the_document_names_the_oldest_release_of_each_runtime_that_loads_the_file(
    embedded_tflite: Path, target: Target, oldest: str
) -> None:
    document = convert_to_bytes(embedded_tflite, ConvertOptions(target=target)).document
    assert document.oldest_runtimes == {**dict.fromkeys(ONNXRUNTIMES, oldest), **OTHER_RUNTIMES}


@pytest.mark.parametrize(("opset", "ir_version", "oldest"), [(18, 8, "1.15"), (22, 10, "1.21")])
def test_an_opset_can_be_asked_for_and_gives_the_same_results(
    converted: Conversion, embedded_tflite: Path, opset: int, ir_version: int, oldest: str
) -> None:
    asked = convert_to_bytes(embedded_tflite, ConvertOptions(opset=opset))
    model = onnx.load_model_from_string(asked.model)
    assert (model.opset_import[0].version, model.ir_version) == (opset, ir_version)
    assert asked.document.oldest_runtimes["onnxruntime"] == oldest
    feeds = {"image": noise(), "score_threshold": np.array(0.01, np.float32)}
    expected, found = (session_of(c.model).run(None, feeds) for c in (converted, asked))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_inputs_and_outputs_are_those_of_the_contract(converted: Conversion) -> None:
    session = session_of(converted.model)
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [("image", "tensor(uint8)", [1, 224, 224, 3])]
    assert [(i.name, i.type, i.shape) for i in session.get_overridable_initializers()] == [
        ("score_threshold", "tensor(float)", []),
        ("iou_threshold", "tensor(float)", []),
    ]
    assert [(o.name, o.type, o.shape) for o in session.get_outputs()] == [
        ("num_detections", "tensor(int32)", [1]),
        ("detection_boxes", "tensor(float)", [1, 100, 4]),
        ("detection_scores", "tensor(float)", [1, 100]),
        ("detection_classes", "tensor(int32)", [1, 100]),
        ("detection_anchors", "tensor(int32)", [1, 100]),
    ]


def test_every_value_has_a_static_shape(converted: Conversion) -> None:
    model = onnx.load_model_from_string(converted.model)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.value_info}
    network = [name for name in shapes if not name.startswith("head/")]
    assert network
    assert all(all(size > 0 for size in shapes[name]) for name in network)


def test_the_document_in_the_model_is_the_one_returned_and_names_no_path(
    converted: Conversion, embedded_tflite: Path
) -> None:
    model = onnx.load_model_from_string(converted.model)
    text = {entry.key: entry.value for entry in model.metadata_props}[METADATA_KEY]
    assert ModelDocument.from_json(text) == converted.document
    assert str(embedded_tflite.parent) not in text
    assert converted.document.passes == ("pool before activation",)
    assert converted.document.source.name == embedded_tflite.name


def test_tensor_twins_name_values_that_exist(converted: Conversion) -> None:
    model = onnx.load_model_from_string(converted.model)
    values = {name for node in model.graph.node for name in node.output}
    values |= {tensor.name for tensor in model.graph.initializer}
    twins = converted.document.tensors.values()
    assert {twin.onnx for twin in twins if twin.onnx is not None} <= values
    assert Counter(twin.fate for twin in twins) == {"kept": 20 + 2 * 9, "removed": 6}
    assert {twin.by for twin in twins} == {None, "pool before activation"}


def test_the_cpu_targets_twins_tell_what_was_replicated_and_what_was_permuted(embedded_tflite: Path) -> None:
    twins = convert_to_bytes(embedded_tflite, ConvertOptions(target="cpu")).document.tensors
    replicated = {twin.onnx: twin.by for twin in twins.values() if twin.fate == "replicated"}
    assert set(replicated.values()) == {"wide stem"}
    assert [str(name).rpartition("/wide/")[2] for name in replicated] == ["weights/codes", "bias/codes"]
    assert twins["serving_default_image:0"] == TensorTwin("image", "same", 0)
    assert not [name for name, twin in twins.items() if twin.onnx is None and twin.by is None]


def test_every_number_that_is_not_the_sources_is_a_deviation(converted: Conversion) -> None:
    deviations = converted.document.deviations
    assert Counter(deviation.kind for deviation in deviations) == {"scale": 8, "slope": 8}
    model = onnx.load_model_from_string(converted.model)
    slopes = {a.f for n in model.graph.node if n.op_type == "LeakyRelu" for a in n.attribute if a.name == "alpha"}
    assert {d.written for d in deviations if d.kind == "slope"} == slopes
    assert {d.source for d in deviations if d.kind == "slope"} == {float(np.float32(0.2))}
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    scales = {float(c) for name, c in constants.items() if name.endswith("/scale") and c.ndim == 0}
    assert {d.written for d in deviations if d.kind == "scale"} <= scales


def test_the_real_functions_deviate_in_nothing(embedded_tflite: Path) -> None:
    assert convert_to_bytes(embedded_tflite, ConvertOptions(leaky_relu="float")).document.deviations == ()


def test_every_mac_of_every_convolution_runs_in_integers(converted: Conversion, tmp_path: Path) -> None:
    session_of(converted.model, optimised=tmp_path / "optimised.onnx")
    assert convolutions(tmp_path / "optimised.onnx") == {"QLinearConv"}


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("target", ["portable", "cpu"])
def test_dialects_and_targets_give_the_same_head(
    embedded_tflite: Path, activations: str, target: str, tmp_path: Path
) -> None:
    raw = SourceOptions(head="none")
    reference = convert_to_bytes(embedded_tflite, ConvertOptions(source=raw)).model
    options = ConvertOptions(source=raw, activations=activations, target=target)  # type: ignore[arg-type]  # parametrised
    other = convert_to_bytes(embedded_tflite, options).model
    image = noise()
    expected = session_of(reference).run(None, {"image": image})[0]
    found = session_of(other, optimised=tmp_path / "optimised.onnx").run(None, {"image": image})[0]
    np.testing.assert_array_equal(found, expected)
    assert found.shape == (1, 7, 7, 30)
    assert convolutions(tmp_path / "optimised.onnx") == {"QLinearConv"}


def test_the_float_leaky_relu_stays_within_one_code_of_the_exact_one_in_the_first_layer(embedded_tflite: Path) -> None:
    images = noise(2)
    pooled = "tiny_yolo_v2/pool1/MaxPool"
    codes = []
    for leaky in ("litert", "float"):
        options = ConvertOptions(source=SourceOptions(head="none"), leaky_relu=leaky)
        model = onnx.load_model_from_string(convert_to_bytes(embedded_tflite, options).model)
        model.graph.output.append(onnx.helper.make_tensor_value_info(pooled, onnx.TensorProto.UINT8, None))
        session = session_of(model.SerializeToString())
        codes.append(np.concatenate([session.run([pooled], {"image": image[None]})[0] for image in images]))
    difference = np.abs(codes[0].astype(int) - codes[1].astype(int))
    assert difference.max() == 1


@pytest.mark.parametrize("batch", [3, "dynamic"])
def test_a_batch_gives_what_single_images_give(embedded_tflite: Path, converted: Conversion, batch: int | str) -> None:
    model = convert_to_bytes(embedded_tflite, ConvertOptions(batch=batch)).model  # type: ignore[arg-type]  # parametrised
    images = noise(3)
    feeds = {"score_threshold": np.array(0.001, np.float32)}
    together = session_of(model).run(None, {"image": images, **feeds})
    single = session_of(converted.model)
    for index in range(3):
        alone = single.run(None, {"image": images[index : index + 1], **feeds})
        for all_rows, rows in zip(together, alone, strict=True):
            np.testing.assert_array_equal(all_rows[index], rows[0])


def test_frozen_thresholds_are_no_inputs(embedded_tflite: Path) -> None:
    options = ConvertOptions(source=SourceOptions(score_threshold=0.25), freeze_thresholds=True)
    session = session_of(convert_to_bytes(embedded_tflite, options).model)
    assert not session.get_overridable_initializers()
    assert [i.name for i in session.get_inputs()] == ["image"]


def test_two_processes_in_two_folders_give_equal_bytes(
    embedded_tflite: Path, converted: Conversion, tmp_path: Path
) -> None:
    program = "import sys, xdet; xdet.convert(sys.argv[1], 'out.onnx')"
    for name, hash_seed in (("a", "1"), ("b ü", "2")):
        folder = tmp_path / name
        folder.mkdir()
        subprocess.run(
            [sys.executable, "-c", program, str(embedded_tflite)],
            cwd=folder,
            check=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONHASHSEED": hash_seed},
        )
        assert (folder / "out.onnx").read_bytes() == converted.model


def test_an_existing_output_is_kept_unless_forced(embedded_tflite: Path, tmp_path: Path) -> None:
    output = tmp_path / "there.onnx"
    output.write_bytes(b"precious")
    with pytest.raises(OptionError, match="exists already; give `force`"):
        convert(embedded_tflite, output, ConvertOptions())
    assert output.read_bytes() == b"precious"
    convert(embedded_tflite, output, ConvertOptions(), force=True)
    assert output.stat().st_size > 1_000_000


def test_a_missing_output_folder_is_named(embedded_tflite: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        convert(embedded_tflite, tmp_path / "no" / "out.onnx", ConvertOptions())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "expected a TFLite, Keras H5, Keras or ONNX file", id="empty"),
        pytest.param(b"\x1c\x00\x00\x00TFL3", "truncated|outside|too short|beyond", id="only a header"),
        pytest.param(
            b"\x89PNG\r\n\x1a\n" + b"0" * 64, "expected a TFLite, Keras H5, Keras or ONNX file", id="a picture"
        ),
        pytest.param(b"PK\x03\x04" + b"0" * 64, "expected a TFLite, Keras H5, Keras or ONNX file", id="a zip"),
    ],
)
def test_what_is_no_model_is_refused_and_nothing_is_written(tmp_path: Path, data: bytes, message: str) -> None:
    source = tmp_path / "bad model ü.tflite"
    source.write_bytes(data)
    with pytest.raises(SourceFileError, match=message):
        convert(source, tmp_path / "out.onnx", ConvertOptions())
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_model_is_refused(embedded_tflite: Path, tmp_path: Path, part: float) -> None:
    data = embedded_tflite.read_bytes()
    source = tmp_path / "short.tflite"
    source.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ConversionError, match=r"short\.tflite"):
        convert(source, tmp_path / "out.onnx", ConvertOptions())


def test_without_sidecar_the_error_asks_for_anchors(embedded_tflite: Path, tmp_path: Path) -> None:
    source = tmp_path / "alone.tflite"
    source.write_bytes(embedded_tflite.read_bytes())
    with pytest.raises(OptionError, match="--anchors"):
        convert_to_bytes(source, ConvertOptions())


def test_anchors_of_another_number_are_refused_with_the_arithmetic(embedded_tflite: Path) -> None:
    options = ConvertOptions(source=SourceOptions(anchors=((1.0, 2.0),) * 4, anchor_unit="cell"))
    with pytest.raises(OptionError, match="30"):
        convert_to_bytes(embedded_tflite, options)


def test_a_sidecar_with_an_unknown_key_is_refused(embedded_tflite: Path, tmp_path: Path) -> None:
    source = tmp_path / "net.tflite"
    source.write_bytes(embedded_tflite.read_bytes())
    sidecar = json.loads(embedded_tflite.with_suffix(".xdet.json").read_text())
    source.with_suffix(".xdet.json").write_text(json.dumps({**sidecar, "anchor_units": "cell"}))
    with pytest.raises(SourceFileError, match="anchor_units"):
        convert_to_bytes(source, ConvertOptions())


def test_everything_that_is_in_the_way_is_told_at_once(tmp_path: Path) -> None:
    b = TfliteBuilder()
    pixels = b.input("image", (1, 8, 8, 3), "float32")
    elu = b.op("ELU", [pixels], (1, 8, 8, 3), "float32")
    source = tmp_path / "net.tflite"
    source.write_bytes(b.build([b.op("CUSTOM:mine", [elu], (1, 7), "float32")]))
    with pytest.raises(OptionError) as caught:
        convert(source, tmp_path / "net.onnx", ConvertOptions())
    lines = str(caught.value).splitlines()
    assert "takes float pixels and does not say how they are scaled" in lines[0]
    assert "also: 'net.tflite': no head fits its output" in lines[1]
    assert "also: net.tflite: no translation for operators CUSTOM:mine x1, ELU x1" in lines[-1]
    assert not (tmp_path / "net.onnx").exists()


def test_what_few_conversions_need_is_not_loaded(embedded_tflite: Path, tmp_path: Path) -> None:
    program = (
        "import sys, xdet; xdet.convert(sys.argv[1], 'person.onnx'); "
        "assert not {'sympy.core', 'yaml'} & set(sys.modules); "
        "import onnx_ir, sympy; assert str(onnx_ir.SymbolicDim('N') + 1) == 'N + 1' and str(sympy.Integer(2)) == '2'"
    )
    command = [sys.executable, "-c", program, str(embedded_tflite)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
