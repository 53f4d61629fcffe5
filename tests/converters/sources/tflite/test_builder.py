"""The builder makes files that LiteRT itself loads and runs; per-operator equality tests stand on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converters.sources.tflite.reader import read_tflite
from tests.converters.sources.tflite.builder import OPTION_CLASSES, TfliteBuilder
from tests.converters.sources.tflite.cases import BUILDERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason='needs pip install "xdet[litert]"')

RNG = np.random.default_rng(7)
S, Z = 0.05, -3
FILE = "built.tflite"


def run_litert(data: bytes) -> list[NDArray[Any]]:
    """Every output of the model on random codes."""
    litert = interpreter.Interpreter(model_content=data)
    litert.allocate_tensors()
    for detail in litert.get_input_details():
        codes = RNG.integers(0, 100, detail["shape"]).astype(detail["dtype"])
        litert.set_tensor(detail["index"], codes)
    litert.invoke()
    return [litert.get_tensor(detail["index"]) for detail in litert.get_output_details()]


def int8(*shape: int) -> NDArray[np.int8]:
    return RNG.integers(-127, 128, shape).astype(np.int8)


def int32(*values: int) -> NDArray[np.int32]:
    return np.array(values, np.int32)


def picture(b: TfliteBuilder) -> int:
    return b.input("x", (1, 5, 6, 4), "int8", S, Z)


def conv(b: TfliteBuilder) -> list[int]:
    w = b.constant(int8(8, 3, 3, 4), [0.01] * 8)
    bias = b.constant(np.arange(8, dtype=np.int32), [0.01 * S] * 8)
    options: dict[str, Any] = {"stride_h": 2, "stride_w": 2, "fused_activation": "RELU6"}
    return [b.op("CONV_2D", [picture(b), w, bias], (1, 3, 3, 8), "int8", S, Z, version=3, **options)]


def depthwise(b: TfliteBuilder) -> list[int]:
    w = b.constant(int8(1, 3, 3, 8), [0.01] * 8, axis=3)
    options: dict[str, Any] = {"depth_multiplier": 2, "padding": "VALID", "dilation_h": 2, "dilation_w": 2}
    bias = b.constant(np.zeros(8, np.int32), [0.01 * S] * 8)
    shape = (1, 1, 2, 8)
    return [b.op("DEPTHWISE_CONV_2D", [picture(b), w, bias], shape, "int8", S, Z, version=3, **options)]


def fully_connected(b: TfliteBuilder) -> list[int]:
    w = b.constant(int8(3, 120), 0.01)
    inputs = [b.input("x", (1, 120), "int8", S, Z), w, None]
    return [b.op("FULLY_CONNECTED", inputs, (1, 3), "int8", S, Z, version=4, weights_format="DEFAULT")]


def pool(op: str) -> Callable[[TfliteBuilder], list[int]]:
    options: dict[str, Any] = {"filter_h": 2, "filter_w": 2, "padding": "VALID", "stride_h": 2, "stride_w": 2}
    return lambda b: [b.op(op, [picture(b)], (1, 2, 3, 4), "int8", S, Z, **options)]


def unary(op: str, scale: float = S, zero_point: int = Z, **options: Any) -> Callable[[TfliteBuilder], list[int]]:
    return lambda b: [b.op(op, [picture(b)], (1, 5, 6, 4), "int8", scale, zero_point, **options)]


def binary(op: str) -> Callable[[TfliteBuilder], list[int]]:
    def build(b: TfliteBuilder) -> list[int]:
        y = b.input("y", (1, 5, 6, 4), "int8", 0.07, 9)
        return [b.op(op, [picture(b), y], (1, 5, 6, 4), "int8", S, Z, fused_activation="RELU")]

    return build


def with_constants(
    op: str, shape: Sequence[int], *constants: NDArray[Any], **options: Any
) -> Callable[[TfliteBuilder], list[int]]:
    """An operator over the picture and integer constants, the quantisation unchanged."""

    def build(b: TfliteBuilder) -> list[int]:
        return [b.op(op, [picture(b), *map(b.constant, constants)], shape, "int8", S, Z, **options)]

    return build


def concatenation(b: TfliteBuilder) -> list[int]:
    inputs = [picture(b), b.input("y", (1, 5, 6, 2), "int8", S, Z)]
    return [b.op("CONCATENATION", inputs, (1, 5, 6, 6), "int8", S, Z, axis=-1)]


def split(b: TfliteBuilder) -> list[int]:
    halves = [b.tensor(name, (1, 5, 6, 2), "int8", S, Z) for name in ("left", "right")]
    b.operator("SPLIT", [b.constant(int32(3)[0]), picture(b)], halves, num_splits=2)
    return halves


def pack(b: TfliteBuilder) -> list[int]:
    inputs = [picture(b), b.input("y", (1, 5, 6, 4), "int8", S, Z)]
    return [b.op("PACK", inputs, (1, 2, 5, 6, 4), "int8", S, Z, values_count=2, axis=1)]


def unpack(b: TfliteBuilder) -> list[int]:
    rows = [b.tensor(f"row{number}", (1, 6, 4), "int8", S, Z) for number in range(5)]
    b.operator("UNPACK", [picture(b)], rows, num=5, axis=1)
    return rows


def blocks(b: TfliteBuilder) -> list[int]:
    x = b.input("x", (1, 4, 6, 4), "int8", S, Z)
    deep = b.op("SPACE_TO_DEPTH", [x], (1, 2, 3, 16), "int8", S, Z, block_size=2)
    return [b.op("DEPTH_TO_SPACE", [deep], (1, 4, 6, 4), "int8", S, Z, block_size=2)]


def shape_arithmetic(b: TfliteBuilder) -> list[int]:
    shape = b.op("SHAPE", [picture(b)], (4,), "int32", out_type="int32")
    begin, end, stride = (b.constant(int32(n)) for n in (0, 1, 1))
    return [b.op("STRIDED_SLICE", [shape, begin, end, stride], (), "int32", shrink_axis_mask=1)]


def quantise_and_back(b: TfliteBuilder) -> list[int]:
    x = b.input("x", (1, 5, 6, 4), "uint8", S, 125)
    codes = b.op("QUANTIZE", [x], (1, 5, 6, 4), "int8", S, -3)
    real = b.op("DEQUANTIZE", [codes], (1, 5, 6, 4), "float32", version=2)
    return [b.op("CAST", [real], (1, 5, 6, 4), "int32", in_data_type="float32", out_data_type="int32")]


MODELS: dict[str, Callable[[TfliteBuilder], list[int]]] = {
    "ADD": binary("ADD"),
    "AVERAGE_POOL_2D": pool("AVERAGE_POOL_2D"),
    "CAST": quantise_and_back,
    "CONCATENATION": concatenation,
    "CONV_2D": conv,
    "DEPTHWISE_CONV_2D": depthwise,
    "DEPTH_TO_SPACE": blocks,
    "DEQUANTIZE": quantise_and_back,
    "FULLY_CONNECTED": fully_connected,
    "GATHER": with_constants("GATHER", (1, 5, 6, 2), int32(3, 0), axis=3, batch_dims=0),
    "LEAKY_RELU": unary("LEAKY_RELU", 0.04, alpha=0.2),
    "LOGISTIC": unary("LOGISTIC", 1 / 256, -128),
    "MAX_POOL_2D": pool("MAX_POOL_2D"),
    "MEAN": with_constants("MEAN", (1, 1, 1, 4), int32(1, 2), keep_dims=True),
    "MUL": binary("MUL"),
    "PACK": pack,
    "PAD": with_constants("PAD", (1, 7, 9, 4), int32(0, 0, 1, 1, 1, 2, 0, 0).reshape(4, 2)),
    "QUANTIZE": quantise_and_back,
    "RELU": unary("RELU"),
    "RELU6": unary("RELU6"),
    "RESHAPE": with_constants("RESHAPE", (1, 30, 4), int32(1, 30, 4), new_shape=[1, 30, 4]),
    "RESIZE_BILINEAR": with_constants("RESIZE_BILINEAR", (1, 10, 12, 4), int32(10, 12), half_pixel_centers=True),
    "RESIZE_NEAREST_NEIGHBOR": with_constants(
        "RESIZE_NEAREST_NEIGHBOR", (1, 10, 12, 4), int32(10, 12), align_corners=False
    ),
    "SHAPE": shape_arithmetic,
    "SOFTMAX": unary("SOFTMAX", 1 / 256, -128, beta=1.0),
    "SPACE_TO_DEPTH": blocks,
    "SPLIT": split,
    "SQUEEZE": with_constants("SQUEEZE", (5, 6, 4), squeeze_dims=(0,)),
    "STRIDED_SLICE": shape_arithmetic,
    "SUB": binary("SUB"),
    "TILE": with_constants("TILE", (1, 10, 6, 4), int32(1, 2, 1, 1)),
    "UNPACK": unpack,
    "TRANSPOSE": with_constants("TRANSPOSE", (1, 4, 5, 6), int32(0, 3, 1, 2)),
}


@pytest.mark.parametrize("op", MODELS)
def test_litert_runs_a_built_model_of_every_operator(op: str) -> None:
    b = TfliteBuilder()
    data = b.build(MODELS[op](b))
    outputs = run_litert(data)
    model = read_tflite(data, FILE)
    assert [output.shape for output in outputs] == [model.tensors[i].shape for i in model.outputs]
    assert [output.dtype.name for output in outputs] == [model.tensors[i].dtype for i in model.outputs]
    assert op in [operator.op for operator in model.operators]


def test_every_operator_with_options_has_a_built_model() -> None:
    assert set(OPTION_CLASSES) <= set(MODELS) | {op for op, _ in BUILDERS}


def test_litert_computes_with_the_constants_that_were_given() -> None:
    b = TfliteBuilder()
    x = b.input("x", (1, 2, 2, 1), "int8", 1.0)
    w = b.constant(np.array([2, 3], np.int8).reshape(2, 1, 1, 1), [1.0, 1.0])
    bias = b.constant(int32(10, 20), [1.0, 1.0])
    data = b.build([b.op("CONV_2D", [x, w, bias], (1, 2, 2, 2), "int8", 1.0)])
    litert = interpreter.Interpreter(model_content=data)
    litert.allocate_tensors()
    litert.set_tensor(litert.get_input_details()[0]["index"], np.array([1, 2, 3, 4], np.int8).reshape(1, 2, 2, 1))
    litert.invoke()
    codes = litert.get_tensor(litert.get_output_details()[0]["index"])
    assert codes.reshape(4, 2).tolist() == [[12, 23], [14, 26], [16, 29], [18, 32]]


def test_the_same_calls_give_the_same_bytes() -> None:
    def build() -> bytes:
        b = TfliteBuilder()
        return b.build([b.op("RELU", [picture(b)], (1, 5, 6, 4), "int8", S, Z)])

    assert build() == build()
