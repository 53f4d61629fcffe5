"""float32 networks, with float32, float16 or 8-bit weights: the same numbers as LiteRT's, but for its rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.errors import OptionError, UnsupportedModelError
from converters.options import ConvertOptions
from converters.sources.tflite.reader import read_tflite
from converters.sources.tflite.supported import require_supported
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.single_operator import run_litert, translated

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (1, 8, 8, 3)
SIDECAR = '{"rescaling": {"scale": 0.00392156862745098, "offset": 0.0}, "resize": "bilinear"}'


def run_both(data: bytes, pixels: Any) -> tuple[Any, Any]:
    """LiteRT's output and that of the translated graph, on float32 NHWC."""
    model = ir.to_proto(translated(read_tflite(data, "float.tflite"))).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (theirs,), _ = run_litert(data, [pixels])
    return theirs, session.run(None, {"in0": pixels})[0]


def weights_of(b: TfliteBuilder, kind: str, array: Any, axis: int = 0) -> int:
    """Weights as float32, as float16 behind a DEQUANTIZE, or as int8 with a scale per channel."""
    if kind == "float16":
        half = b.constant(array.astype(np.float16))
        return b.op("DEQUANTIZE", [half], array.shape, "float32", name="widened")
    if kind == "int8":
        scales = np.abs(array).max(axis=tuple(i for i in range(array.ndim) if i != axis)) / np.float32(127)
        shape = [1] * array.ndim
        shape[axis] = -1
        return b.constant(np.rint(array / scales.reshape(shape)).astype(np.int8), scales, axis=axis)
    return b.constant(array.astype(np.float32))


def build_network(kind: str) -> bytes:
    """Two products, a sum, pools and activations."""
    rng = np.random.default_rng(7)
    b = TfliteBuilder()
    x = b.input("image", SHAPE, "float32")
    kernel = weights_of(b, kind, rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32))
    bias = b.constant(rng.normal(0, 0.1, 8).astype(np.float32))
    y = b.op("CONV_2D", [x, kernel, bias], (1, 8, 8, 8), "float32", name="conv", fused_activation="RELU6")
    y = b.op("LEAKY_RELU", [y], (1, 8, 8, 8), "float32", alpha=0.1)
    y = b.op("MAX_POOL_2D", [y], (1, 4, 4, 8), "float32", stride_h=2, stride_w=2, filter_h=2, filter_w=2)
    depth = weights_of(b, kind, rng.normal(0, 0.3, (1, 3, 3, 8)).astype(np.float32), axis=3)
    z = b.op("DEPTHWISE_CONV_2D", [y, depth, bias], (1, 4, 4, 8), "float32", depth_multiplier=1)
    y = b.op("ADD", [y, z], (1, 4, 4, 8), "float32", fused_activation="RELU")
    factors = b.constant(np.full(8, 0.25, np.float32))
    return b.build([b.op("MUL", [y, factors], (1, 4, 4, 8), "float32", name="product")])


@pytest.mark.parametrize(("kind", "room"), [("float32", 1e-6), ("float16", 1e-6), ("int8", 0.02)])
def test_a_float_network_gives_litert_s_numbers(kind: str, room: float) -> None:
    theirs, ours = run_both(build_network(kind), np.random.default_rng(1).random(SHAPE, np.float32))
    assert np.abs(theirs - ours).max() <= room
    assert np.ptp(theirs) > 0.1


@pytest.mark.parametrize(
    ("op", "after", "options", "constants"),
    [
        ("AVERAGE_POOL_2D", (1, 4, 4, 3), {"stride_h": 2, "stride_w": 2, "filter_h": 3, "filter_w": 3}, ()),
        ("MEAN", (1, 1, 1, 3), {"keep_dims": True}, (np.array([1, 2], np.int32),)),
        ("SOFTMAX", SHAPE, {"beta": 2.0}, ()),
        ("RELU_N1_TO_1", SHAPE, {}, ()),
        ("LOGISTIC", SHAPE, {}, ()),
        ("PRELU", SHAPE, {}, (np.array([[[0.1, -0.2, 0.3]]], np.float32),)),
        ("HARD_SWISH", SHAPE, {}, ()),
        ("SUB", SHAPE, {}, (np.array([0.1, 0.2, 0.3], np.float32),)),
        ("RESIZE_BILINEAR", (1, 12, 12, 3), {"half_pixel_centers": True}, (np.array([12, 12], np.int32),)),
        ("RESIZE_NEAREST_NEIGHBOR", (1, 16, 16, 3), {}, (np.array([16, 16], np.int32),)),
        ("FULLY_CONNECTED", (64, 2), {"fused_activation": "RELU"}, (np.ones((2, 3), np.float32),)),
    ],
)
def test_a_float_operator_gives_litert_s_numbers(
    op: str, after: tuple[int, ...], options: dict[str, Any], constants: tuple[Any, ...]
) -> None:
    b = TfliteBuilder()
    x = b.input("x", SHAPE, "float32")
    y = b.op(op, [x, *map(b.constant, constants)], after, "float32", name="y", **options)
    theirs, ours = run_both(b.build([y]), np.random.default_rng(1).normal(0, 2, SHAPE).astype(np.float32))
    assert np.abs(theirs - ours).max() <= 1e-5  # a resize rounds its coordinates


def convert(tmp_path: Path, kind: str, **options: Any) -> Any:
    path = tmp_path / "net.tflite"
    path.write_bytes(build_network(kind))
    path.with_suffix(".xdet.json").write_text(SIDECAR)
    return convert_to_bytes(path, ConvertOptions(source=SourceOptions(head="none"), **options))


def test_eight_bit_weights_stay_so_and_the_document_tells_the_difference(tmp_path: Path) -> None:
    found = convert(tmp_path, "int8")
    assert found.document.activations == "float32"
    assert any("rounds to 8 bits at run time" in note for note in found.document.notes)
    graph = onnx.ModelProto.FromString(found.model).graph
    assert sum(tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4 for tensor in graph.initializer) == 2
    assert not any("rounds to 8 bits" in note for note in convert(tmp_path, "float32").document.notes)


def test_integer_activations_of_a_float_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="computes on float32 numbers"):
        convert(tmp_path, "float32", activations="int8")


def test_codes_and_floats_do_not_mix() -> None:
    b = TfliteBuilder()
    x = b.input("x", SHAPE, "int8", 0.05, 0)
    real = b.op("DEQUANTIZE", [x], SHAPE, "float32")
    y = b.op("CONV_2D", [real, b.constant(np.ones((3, 1, 1, 3), np.float32))], SHAPE, "float32")
    codes = b.op("QUANTIZE", [y], SHAPE, "int8", 0.05, 0)
    z = b.op("ADD", [codes, real], SHAPE, "int8", 0.05, 0)
    with pytest.raises(UnsupportedModelError) as caught:
        require_supported(read_tflite(b.build([z]), "odd.tflite"))
    assert "operator 1 CONV_2D, which multiplies float32 numbers in a network of 8-bit codes" in str(caught.value)
    assert "operator 3 ADD, which works on float32 and int8 at once" in str(caught.value)
