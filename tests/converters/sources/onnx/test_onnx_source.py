"""Head-only ONNX files become finished models whose raw outputs are the source's, or are refused with what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.errors import ConversionError, OptionError, SourceFileError, UnsupportedModelError
from converters.files import FINISHED
from converters.options import ConvertOptions
from converters.sources import sniff_format
from converters.sources.onnx.importer import summarise_quantization
from converters.sources.onnx.network import facts_from_onnx, fixed_graph
from converters.sources.onnx.reader import read_onnx
from converters.spec import Rescaling
from tests.converters.sources.onnx.networks import OnnxBuilder, tiny_yolo_v2, yolo_v8, yolox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

UNIT, WHOLE = Rescaling(1 / 255, 0.0), Rescaling(1.0, 0.0)
GRID = {"anchors": ((1.0, 1.0), (2.0, 2.0)), "anchor_unit": "cell"}


def converted(folder: Path, data: bytes, *, batch: Any = 1, target: Any = "portable", **said: Any) -> Any:
    path = folder / "net.onnx"
    path.write_bytes(data)
    options = SourceOptions(**{"rescaling": UNIT, **said})
    return convert_to_bytes(path, ConvertOptions(source=options, batch=batch, target=target))


def outputs_of(model: bytes, feeds: dict[str, NDArray[Any]], names: list[str] | None = None) -> list[Any]:
    return list(onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(names, feeds))


def photographs(count: int = 2, size: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, size, size, 3), np.uint8)


FILES: dict[str, tuple[Callable[[], bytes], str, dict[str, Any]]] = {
    "v8": (yolo_v8, "yolo_v8", {}),
    "v8, int8": (lambda: yolo_v8(quantised=True), "yolo_v8", {}),
    "v8, opset 13": (lambda: yolo_v8(opset=13), "yolo_v8", {}),
    "v8, opset 21": (lambda: yolo_v8(opset=21), "yolo_v8", {}),
    "yolox": (yolox, "yolox", {"rescaling": WHOLE}),
    "yolox, decoded": (lambda: yolox(decoded=True), "yolo_v5", {"rescaling": WHOLE, "head": "yolo_v5"}),
    "tiny": (tiny_yolo_v2, "yolo_v2", GRID),
    "tiny, opset 11": (lambda: tiny_yolo_v2(opset=11), "yolo_v2", GRID),
    "tiny, opset 8": (lambda: tiny_yolo_v2(opset=8), "yolo_v2", GRID),
}


@pytest.mark.parametrize(("make", "head", "said"), FILES.values(), ids=FILES.keys())
@pytest.mark.parametrize("target", ["portable", "cpu"])
def test_raw_outputs_are_the_sources_bit_for_bit(
    make: Callable[[], bytes], head: str, said: dict[str, Any], target: str, tmp_path: Path
) -> None:
    data = make()
    made = converted(tmp_path, data, target=target, **{**said, "head": said.get("head", "auto")})
    assert made.document.spec.head.kind == head
    raw = converted(tmp_path, data, target=target, **{**said, "head": "none"})
    rescaling = said.get("rescaling", UNIT)
    for photograph in photographs():
        real = photograph[None].astype(np.float32) * np.float32(rescaling.scale) + np.float32(0)
        (theirs,) = outputs_of(data, {"images": real.transpose(0, 3, 1, 2)})
        (ours,) = outputs_of(raw.model, {"image": photograph[None]})
        wanted = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
        assert np.array_equal(ours, wanted)


def test_boxes_in_pixels_are_known_by_their_strides(tmp_path: Path) -> None:
    assert converted(tmp_path, yolo_v8()).document.spec.head.extent_wh == (64.0, 64.0)
    b = OnnxBuilder((1, 3, 64, 64))
    rows = b.op(
        "Reshape", b.op("Sigmoid", b.conv("images", 3, 6, stride=8)), b.constant(np.array([1, 6, -1], np.int64))
    )
    padded = b.op("Concat", rows, b.op("Slice", rows, *map(b.constant, np.array([[0], [20], [2]]))), axis=2)
    assert converted(tmp_path, b.build({padded: 3})).document.spec.head.extent_wh == (1.0, 1.0)


def test_decoded_yolox_rows_are_not_decoded_again(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no head fits") as caught:
        converted(tmp_path, yolox(decoded=True), rescaling=WHOLE)
    assert any("decoded already (a constant multiplies them): --head yolo_v5" in line for line in caught.value.lines)


def test_what_a_file_tells_of_itself() -> None:
    facts = facts_from_onnx(read_onnx(yolo_v8(quantised=True), "n.onnx"))
    (output,) = facts.outputs
    assert (facts.height, facts.width, facts.channels, facts.input_dtype) == (64, 64, 3, "float32")
    assert (output.shape, output.activations, output.reach) == ((6, 84), ("Sigmoid",), 16.0)
    assert summarise_quantization(fixed_graph(read_onnx(yolo_v8(quantised=True), "n.onnx"))) == "int8 per-channel"
    assert facts_from_onnx(read_onnx(tiny_yolo_v2(), "n.onnx")).outputs[0].shape == (2, 2, 12), "channels last"


def test_an_open_size_is_stated(tmp_path: Path) -> None:
    open_size = tiny_yolo_v2(shape=("N", 3, "height", "width"))
    with pytest.raises(OptionError, match=r"leaves the size of its picture open \(height x width\).*--input-size"):
        converted(tmp_path, open_size, **GRID)
    made = converted(tmp_path, open_size, input_size=(64, 96), **GRID)
    assert (made.document.spec.image.height, made.document.spec.image.width) == (64, 96)
    assert made.document.spec.network_outputs[0].shape == (2, 3, 12)
    with pytest.raises(OptionError, match=r"takes pictures of 64 x 64 .* --input-size says 32 x 64"):
        converted(tmp_path, yolo_v8(), input_size=(32, 64))


def test_sizes_that_are_computed_become_constants() -> None:
    b = OnnxBuilder((1, 3, 64, 64))
    value = b.conv("images", 3, 6, stride=8)
    shape = b.op("Shape", value)
    zero, one, four = (b.constant(np.array([n], np.int64)) for n in (0, 1, 4))
    target = b.op("Concat", b.op("Gather", shape, zero), b.op("Slice", shape, one, b.constant(np.array([2], np.int64))),
                  b.op("Mul", four, b.constant(np.array([16], np.int64))), axis=0)  # fmt: skip
    graph = fixed_graph(read_onnx(b.build({b.op("Reshape", value, target): 3}), "n.onnx"))
    assert [node.op_type for node in graph] == ["Conv", "Reshape"]
    assert graph.outputs[0].shape is not None
    assert list(graph.outputs[0].shape) == [1, 6, 64]


@pytest.mark.parametrize("opset", [13, 17])
def test_operators_that_newer_opsets_write_otherwise_are_taken(opset: int, tmp_path: Path) -> None:
    """Before 18, Split needs no sizes and ReduceMean has its axes as an attribute."""
    b = OnnxBuilder((1, 3, 64, 64))
    half = b.op("Split", b.conv("images", 3, 12, stride=8), axis=1, outputs=2)
    mean = b.op("ReduceMean", f"{half}:1", axes=[2, 3], keepdims=1)
    data = b.build({b.op("Mul", half, mean): 4}, opset=opset)
    image = photographs(1)
    (ours,) = outputs_of(converted(tmp_path, data, head="none").model, {"image": image})
    real = image.astype(np.float32) * np.float32(UNIT.scale)
    (theirs,) = outputs_of(data, {"images": real.transpose(0, 3, 1, 2)})
    assert np.array_equal(ours, theirs.transpose(0, 2, 3, 1))


def test_an_operator_of_a_newer_opset_keeps_it(tmp_path: Path) -> None:
    b = OnnxBuilder((1, 3, 64, 64))
    data = b.build({b.op("Gelu", b.conv("images", 3, 12, stride=8)): 4}, opset=21)
    made = onnx.load_model_from_string(converted(tmp_path, data, head="none").model)
    assert made.opset_import[0].version == 20


def test_what_contradicts_itself_is_one_refusal_without_a_word_on_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for op, shape in (("Conv", (4, 5, 3, 3)), ("Add", (1, 3, 5, 5))):
        b = OnnxBuilder((1, 3, 64, 64))
        value = b.op(op, "images", b.constant(np.zeros(shape, np.float32)))
        with pytest.raises(SourceFileError, match=rf"no valid ONNX model.*{op}"):
            converted(tmp_path, b.build({value: 4}))
    assert capfd.readouterr() == ("", "")


def test_constants_of_types_that_nobody_computes_with_are_refused(tmp_path: Path) -> None:
    data = bent(lambda m: m.graph.initializer.append(onnx.helper.make_tensor("x", TensorProto.INT4, [2], [1, 2])))
    with pytest.raises(UnsupportedModelError, match="constants of int4"):
        converted(tmp_path, data, **GRID)


def test_what_ultralytics_writes_into_the_file_is_used(tmp_path: Path) -> None:
    words = {"names": "{0: 'cup', 1: 'jug'}", "stride": "32", "imgsz": "[64, 64]", "task": "detect"}
    data = yolo_v8(shape=("batch", 3, "height", "width"), metadata=words)
    spec = converted(tmp_path, data, rescaling=None).document.spec
    assert (spec.class_names, spec.image.height, spec.image.resize) == (("cup", "jug"), 64, "letterbox")
    assert spec.image.rescaling == UNIT


def test_a_batch_needs_a_file_that_takes_one(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"takes one image, and --batch 2 .*dynamic=True"):
        converted(tmp_path, yolo_v8(), batch=2)
    one, two = (converted(tmp_path, tiny_yolo_v2(), batch=n, head="none").model for n in (1, "dynamic"))
    images = photographs(3)
    (together,) = outputs_of(two, {"image": images})
    apart = [outputs_of(one, {"image": image[None]})[0][0] for image in images]
    assert np.array_equal(together, np.stack(apart))


def test_only_a_file_with_our_document_is_finished(tmp_path: Path) -> None:
    data = yolo_v8()
    assert sniff_format(data) == "onnx-source"
    assert sniff_format(converted(tmp_path, data).model) == FINISHED
    assert sniff_format(data[:-5]) == FINISHED, "a damaged file is told by the reader of finished ones"


def bent(change: Callable[[onnx.ModelProto], None], data: bytes | None = None) -> bytes:
    model = onnx.load_model_from_string(data or tiny_yolo_v2())
    change(model)
    serialized: bytes = model.SerializeToString()
    return serialized


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def looping(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("If", ["grid"], ["z"], then_branch=body, else_branch=body))


def suppressed() -> bytes:
    b = OnnxBuilder((1, 3, 64, 64))
    value = b.conv("images", 3, 6)
    return b.build({b.op("NonMaxSuppression", value, value): 2})


def misfitting() -> bytes:
    """A constant that fills no shape of that size, which inference takes."""
    b = OnnxBuilder((1, 3, 64, 64))
    shaped = b.op("Reshape", b.constant(np.ones(4, np.float32)), b.constant(np.array([4, 4], np.int64)))
    return b.build({b.op("Add", b.conv("images", 3, 6), b.op("ReduceMax", shaped, keepdims=0)): 4})


def padded(model: onnx.ModelProto) -> None:
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    pads = next(attribute.ints for attribute in conv.attribute if attribute.name == "pads")
    pads[:] = [2**40] * 4


REFUSED: dict[str, tuple[bytes, type[ConversionError], str]] = {
    "external data": (bent(external), SourceFileError, "another file, which is not opened; save the model as one file"),
    "control flow": (bent(looping), UnsupportedModelError, "operator 'If', which runs a graph of its own"),
    "foreign domain": (
        bent(lambda m: setattr(m.graph.node[0], "domain", "com.microsoft")),
        UnsupportedModelError,
        "of the domain 'com.microsoft'",
    ),
    "function": (bent(lambda m: m.functions.add(name="f").ClearField("node")), UnsupportedModelError, "functions"),
    "own suppression": (suppressed(), UnsupportedModelError, r"NonMaxSuppression.*nms=False"),
    "too new": (
        bent(lambda m: setattr(m.opset_import[0], "version", 99)), UnsupportedModelError, "operators of opset 99"),
    "damaged": (bent(lambda m: m.graph.initializer[0].dims.append(7)), SourceFileError, "cannot be read"),
    "invalid": (
        bent(lambda m: m.graph.node[0].ClearField("input")), SourceFileError, "no valid ONNX model"),
    "misfitting constant": (misfitting(), SourceFileError, r"Reshape '.*' cannot be computed: cannot reshape array"),
    "half": (
        bent(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.FLOAT16)),
        UnsupportedModelError,
        "picture of float16, expected float32 or uint8",
    ),
    "no picture": (tiny_yolo_v2(shape=(1, 7, 64, 64)), UnsupportedModelError, "expected one picture"),
    "unknown shapes": (tiny_yolo_v2(shape=(2, 3, 64, 64)), UnsupportedModelError, "expected one picture"),
    "huge padding": (bent(padded), UnsupportedModelError, r"at most 2147483647 numbers are read"),
    "too large": (tiny_yolo_v2(shape=(1, 3, 1 << 20, 64)), UnsupportedModelError, "at most 8192 pixels a side"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "kind", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_head_only_network_is_refused_with_what_to_do(
    data: bytes, kind: type[ConversionError], said: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=said):
        converted(tmp_path, data, **GRID)
    assert list(tmp_path.iterdir()) == [tmp_path / "net.onnx"]


def test_obstacles_are_told_at_once(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        looping(model)
        model.graph.node[0].domain = "com.example"

    with pytest.raises(UnsupportedModelError, match=r"'com\.example', operator 'If'"):
        converted(tmp_path, bent(change))


@pytest.mark.parametrize("size", [1 << 28, 1 << 20])
def test_a_constant_that_would_be_huge_is_not_computed(size: int) -> None:
    """A file of some bytes that asks for gigabytes: shapes are inferred, nothing is made."""
    b = OnnxBuilder((1, 3, 64, 64))
    huge = b.op("ConstantOfShape", b.constant(np.array([size, 4], np.int64)))
    total = b.op("Add", b.conv("images", 3, 6), b.op("ReduceMax", huge, keepdims=0))
    graph = fixed_graph(read_onnx(b.build({total: 4}), "n.onnx"))
    assert "ConstantOfShape" in [node.op_type for node in graph]


def test_options_that_mean_nothing_here_are_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(yolo_v8(quantised=True))
    said = SourceOptions(rescaling=UNIT)
    with pytest.raises(OptionError, match="keeps the codes that it has, int8"):
        convert_to_bytes(tmp_path / "net.onnx", ConvertOptions(source=said, activations="int8"))


def test_names_of_the_contract_in_a_source_stand_aside(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(yolo_v8())
    old = model.graph.node[2].output[0]
    for node in model.graph.node:
        node.input[:] = ["head" if name == old else name for name in node.input]
        node.output[:] = ["head" if name == old else name for name in node.output]
    made = converted(tmp_path, model.SerializeToString())
    assert made.document.tensors["head"].onnx == "head#source"


def test_a_uint8_picture_needs_no_rescaling(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(tiny_yolo_v2())
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    scale = numpy_helper.from_array(np.array(1 / 255, np.float32), "unit")
    model.graph.initializer.append(scale)
    model.graph.node[0].input[0] = "scaled"
    for node in (
        helper.make_node("Mul", ["real", "unit"], ["scaled"]),
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
    ):
        model.graph.node.insert(0, node)
    made = converted(tmp_path, model.SerializeToString(), rescaling=None, head="none")
    image = photographs(1)
    (ours,) = outputs_of(made.model, {"image": image})
    (theirs,) = outputs_of(model.SerializeToString(), {"images": image.transpose(0, 3, 1, 2)})
    assert np.array_equal(ours, theirs.transpose(0, 2, 3, 1))
