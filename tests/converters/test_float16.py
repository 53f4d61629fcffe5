"""float16 between picture and head: types, what stays float32, and how near the head stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from converters.convert import Conversion, convert_to_bytes
from converters.description.statements import SourceOptions
from converters.errors import OptionError
from converters.float16 import probe_pictures
from converters.options import ConvertOptions
from converters.spec import ImageInput, Rescaling
from tests.converters.sessions import session_of
from tests.converters.sources.onnx.networks import tiny_yolo_v2, yolo_v8
from tests.converters.sources.tflite.networks import two_raw_outputs
from tests.converters.sources.tflite.test_floats import build_network

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SAID = SourceOptions(head="none", rescaling=Rescaling(1 / 255, 0.0))


def converted(folder: Path, data: bytes, suffix: str = "onnx", **choices: bool) -> Conversion:
    source = folder / f"net.{suffix}"
    source.write_bytes(data)
    return convert_to_bytes(source, ConvertOptions(source=SAID, **choices))  # type: ignore[arg-type]  # flags


def heads(model: bytes, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    return [np.asarray(head) for head in session_of(model).run(None, {"image": pixels})]


NETWORKS = {
    "float onnx": (tiny_yolo_v2, "onnx", False),
    "decoded boxes": (yolo_v8, "onnx", False),
    "dequantised onnx": (lambda: yolo_v8(quantised=True), "onnx", True),
    "float tflite": (lambda: build_network("float32"), "tflite", False),
    "dequantised tflite": (two_raw_outputs, "tflite", True),
}


@pytest.mark.parametrize(("build", "suffix", "dequantize"), NETWORKS.values(), ids=NETWORKS)
def test_products_are_float16_and_the_head_stays_near(
    build: object, suffix: str, *, dequantize: bool, tmp_path: Path
) -> None:
    assert callable(build)
    whole = converted(tmp_path, build(), suffix, dequantize=dequantize)
    half = converted(tmp_path, build(), suffix, dequantize=dequantize, float16=True)
    assert half.document.float16
    assert half.document.from_json(half.document.to_json()) == half.document
    assert not any("stay float32" in note for note in half.document.notes)
    graph = onnx.load_model_from_string(half.model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    products = [node.output[0] for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert {types[name] for name in products} == {onnx.TensorProto.FLOAT16}
    assert {value.type.tensor_type.elem_type for value in graph.output} == {onnx.TensorProto.FLOAT}
    size = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    pixels = np.random.default_rng(1).integers(0, 256, (1, size, size, 3), np.uint8)
    for one, other in zip(heads(whole.model, pixels), heads(half.model, pixels), strict=True):
        assert np.abs(one - other).max() <= 2e-3 * np.abs(one).max()  # measured 1e-3


def test_what_would_overflow_stays_float32_and_is_named(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(tiny_yolo_v2())
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    second = [node for node in model.graph.node if node.op_type == "Conv"][1]
    third = [node for node in model.graph.node if node.op_type == "Conv"][2]
    for node, factor in ((second, 1e5), (third, 1e-5)):
        tensor = weights[node.input[1]]
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(factor), tensor.name)
        )
    data = model.SerializeToString()
    half = converted(tmp_path, data, float16=True)
    note = next(note for note in half.document.notes if "stay float32" in note)
    assert f"Conv {second.output[0]!r} meets numbers of" in note
    pixels = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), np.uint8)
    (one,), (other,) = heads(converted(tmp_path, data).model, pixels), heads(half.model, pixels)
    assert np.isfinite(other).all()
    np.testing.assert_allclose(one, other, atol=2e-3 * np.abs(one).max())


def test_codes_have_no_float16(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"computes on uint8 codes; add `dequantize`"):
        converted(tmp_path, two_raw_outputs(), "tflite", float16=True)


def test_probe_pictures_are_pictures() -> None:
    image = ImageInput(20, 30, Rescaling(1.0, 0.0))
    assert {(picture.shape, picture.dtype.name) for picture in probe_pictures(image)} == {((20, 30, 3), "uint8")}
