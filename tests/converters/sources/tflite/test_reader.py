"""The reader says what is in a TFLite file: the same as LiteRT's own schema bindings find there."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converters.quant import QuantParams
from converters.sources.tflite import schema
from converters.sources.tflite.reader import read_tflite
from tests.converters.sources.tflite.builder import TfliteBuilder, build_small_model

if TYPE_CHECKING:
    from pathlib import Path

    from converters.sources.tflite.reader import TfliteModel

bindings: Any = pytest.importorskip("ai_edge_litert.schema_py_generated", reason='needs pip install "xdet[litert]"')

FILE = "model.tflite"


@pytest.fixture(scope="module")
def embedded_bytes(embedded_tflite: Path) -> bytes:
    return embedded_tflite.read_bytes()


def read(data: bytes) -> TfliteModel:
    return read_tflite(data, FILE)


def small_bytes() -> bytes:
    b, output = build_small_model()
    return b.build([output])


def test_the_embedded_model_reads_as_the_schema_bindings_read_it(embedded_bytes: bytes) -> None:
    model = read(embedded_bytes)
    truth = bindings.ModelT.InitFromPackedBuf(embedded_bytes, 0)
    subgraph = truth.subgraphs[0]
    assert len(model.tensors) == len(subgraph.tensors) == 44
    assert len(model.operators) == len(subgraph.operators) == 25
    assert model.inputs == tuple(subgraph.inputs)
    assert model.outputs == tuple(subgraph.outputs)
    assert model.description == truth.description.decode()
    for operator, expected in zip(model.operators, subgraph.operators, strict=True):
        code = truth.operatorCodes[expected.opcodeIndex]
        assert operator.op == schema.OPERATORS[code.builtinCode]
        assert operator.inputs == tuple(expected.inputs)
        assert operator.outputs == tuple(expected.outputs)


def test_the_embedded_tensors_hold_what_the_schema_bindings_find(embedded_bytes: bytes) -> None:
    model = read(embedded_bytes)
    truth = bindings.ModelT.InitFromPackedBuf(embedded_bytes, 0)
    for tensor, expected in zip(model.tensors, truth.subgraphs[0].tensors, strict=True):
        assert tensor.name == expected.name.decode()
        assert tensor.shape == tuple(expected.shape)
        assert schema.WORDS["dtype"].index(tensor.dtype) == expected.type
        stored = truth.buffers[expected.buffer].data
        assert (tensor.data is None) == (stored is None)
        if tensor.data is not None:
            assert tensor.data.dtype.name == tensor.dtype
            assert tensor.data.tobytes() == stored.tobytes()
        quantization = expected.quantization
        if tensor.quant is None:
            assert quantization is None or quantization.scale is None
            continue
        np.testing.assert_array_equal(tensor.quant.scale, quantization.scale)
        np.testing.assert_array_equal(tensor.quant.zero_point, quantization.zeroPoint)
        per_channel = len(quantization.scale) > 1
        assert tensor.quant.axis == (quantization.quantizedDimension if per_channel else None)


def test_constants_are_read_only_views_and_reading_copies_nothing_large(embedded_bytes: bytes) -> None:
    tracemalloc.start()
    model = read(embedded_bytes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    whole = np.frombuffer(embedded_bytes, np.uint8)
    for tensor in model.tensors:
        if tensor.data is not None:
            assert np.shares_memory(whole, tensor.data)
            assert not tensor.data.flags.writeable


def test_a_small_model_reads_field_by_field() -> None:
    model = read(small_bytes())
    conv, leaky = model.operators
    assert (conv.op, conv.inputs, conv.outputs) == ("CONV_2D", (0, 1, 2), (3,))
    assert conv.options == {
        "padding": "SAME",
        "stride_w": 1,
        "stride_h": 1,
        "fused_activation": "NONE",
        "dilation_w": 1,
        "dilation_h": 1,
    }
    assert leaky.options == {"alpha": pytest.approx(0.1)}
    weights = model.tensors[1]
    assert (weights.name, weights.dtype, weights.shape) == ("weights", "int8", (2, 2, 2, 3))
    assert weights.data is not None
    assert weights.data.ravel().tolist() == list(range(24))
    assert weights.quant is not None
    assert (weights.quant.scale.tolist(), weights.quant.zero_point.tolist()) == ([0.25, 0.5], [0, 0])
    assert weights.quant.axis == 0
    image = model.tensors[0]
    assert image.quant is not None
    assert image.quant.same_as(QuantParams.per_tensor(0.5, -1))
    assert image.data is None


OPTION_CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "depthwise": (
        "DEPTHWISE_CONV_2D",
        {
            "padding": "VALID",
            "stride_w": 3,
            "stride_h": 2,
            "fused_activation": "RELU6",
            "dilation_w": 5,
            "dilation_h": 6,
        },
    ),
    "convolution": (
        "CONV_2D",
        {
            "padding": "VALID",
            "stride_w": 3,
            "stride_h": 2,
            "fused_activation": "RELU_N1_TO_1",
            "dilation_w": 5,
            "dilation_h": 6,
        },
    ),
    "pool": (
        "MAX_POOL_2D",
        {"padding": "VALID", "stride_w": 3, "stride_h": 2, "filter_w": 4, "filter_h": 5, "fused_activation": "RELU"},
    ),
    "fully connected": ("FULLY_CONNECTED", {"fused_activation": "RELU", "weights_format": "SHUFFLED4x16INT8"}),
    "strided slice": (
        "STRIDED_SLICE",
        {
            "begin_mask": 1,
            "end_mask": 2,
            "ellipsis_mask": 4,
            "new_axis_mask": 8,
            "shrink_axis_mask": 16,
            "offset": True,
        },
    ),
    "add": ("ADD", {"fused_activation": "TANH"}),
    "sub": ("SUB", {"fused_activation": "RELU"}),
    "mul": ("MUL", {"fused_activation": "RELU"}),
    "average pool": (
        "AVERAGE_POOL_2D",
        {"padding": "SAME", "stride_w": 1, "stride_h": 1, "filter_w": 2, "filter_h": 3, "fused_activation": "NONE"},
    ),
    "concatenation": ("CONCATENATION", {"axis": -1, "fused_activation": "RELU"}),
    "gather": ("GATHER", {"axis": 2, "batch_dims": 1}),
    "pack": ("PACK", {"axis": -1}),
    "resize bilinear": ("RESIZE_BILINEAR", {"align_corners": True, "half_pixel_centers": True}),
    "resize nearest": ("RESIZE_NEAREST_NEIGHBOR", {"align_corners": True, "half_pixel_centers": True}),
    "softmax": ("SOFTMAX", {"beta": 0.5}),
    "leaky relu": ("LEAKY_RELU", {"alpha": 0.25}),
}


@pytest.mark.parametrize(("op", "options"), OPTION_CASES.values(), ids=OPTION_CASES.keys())
def test_every_option_of_every_operator_is_read(op: str, options: dict[str, Any]) -> None:
    b = TfliteBuilder()
    x = b.input("x", (1, 2), "float32")
    data = b.build([b.op(op, [x, None], (1, 2), "float32", **options)])
    assert read(data).operators[0].options == options
    assert set(options) == set(schema.OPTIONS[op].fields)


@pytest.mark.parametrize("op", schema.OPTIONS)
def test_a_missing_options_table_gives_the_defaults_of_an_empty_one(op: str) -> None:
    def build(*, with_table: bool) -> bytes:
        b = TfliteBuilder()
        y = b.op(op, [b.input("x", (2,), "float32")], (2,), "float32")
        operator = b.subgraph.operators[0]
        operator.builtinOptions = type(operator.builtinOptions)()
        if not with_table:
            operator.builtinOptionsType, operator.builtinOptions = 0, None
        return b.build([y])

    assert set(schema.OPTIONS[op].fields) == set(read(build(with_table=True)).operators[0].options)
    assert read(build(with_table=False)).operators == read(build(with_table=True)).operators


def numbers_of(enumeration: type) -> dict[str, int]:
    """Members of a class of constants, without ``__firstlineno__``, which classes have since Python 3.13."""
    return {name: n for name, n in vars(enumeration).items() if isinstance(n, int) and not name.startswith("_")}


def test_options_have_the_numbers_of_the_schema() -> None:
    for op, options in schema.OPTIONS.items():
        assert options.union in vars(bindings.BuiltinOptions).values(), op
    assert {name: i for i, name in enumerate(schema.OPERATORS)} == numbers_of(bindings.BuiltinOperator)
    types = {name.lower(): number for name, number in numbers_of(bindings.TensorType).items()}
    assert {name: i for i, name in enumerate(schema.WORDS["dtype"])} == types


def test_new_and_custom_operators_keep_a_name() -> None:
    b = TfliteBuilder()
    x = b.input("x", (2,), "float32")
    y = b.op("CUSTOM:TFLite_Detection_PostProcess", [x], (2,), "float32")
    z = b.op("HARD_SWISH", [y], (2,), "float32")
    newest = b.model.operatorCodes[-1]
    newest.builtinCode, newest.deprecatedBuiltinCode = 999, 127
    names = [operator.op for operator in read(b.build([z])).operators]
    assert names == ["CUSTOM:TFLite_Detection_PostProcess", "BUILTIN_999"]


def test_files_from_before_the_wide_operator_number_are_read() -> None:
    b, y = build_small_model()
    for code in b.model.operatorCodes:
        code.builtinCode = 0
    assert [operator.op for operator in read(b.build([y])).operators] == ["CONV_2D", "LEAKY_RELU"]


def test_a_dynamic_batch_stored_as_one_is_fine() -> None:
    b, y = build_small_model()
    for index in (0, 3, 4):
        b.subgraph.tensors[index].shapeSignature = [-1, *b.subgraph.tensors[index].shape[1:]]
    assert read(b.build([y])).tensors[0].shape == (1, 4, 4, 3)


def test_a_quantisation_table_without_a_scale_means_no_quantisation() -> None:
    b, y = build_small_model()
    empty = bindings.QuantizationParametersT()
    empty.min, empty.max = [0.0], [1.0]
    b.subgraph.tensors[0].quantization = empty
    assert read(b.build([y])).tensors[0].quant is None


def test_a_scale_on_a_float_tensor_is_ignored() -> None:
    b = TfliteBuilder()
    x = b.input("x", (2,), "float32", 0.5)
    assert read(b.build([b.op("RELU", [x], (2,), "float32")])).tensors[0].quant is None


def test_one_zero_point_serves_all_channels() -> None:
    b, y = build_small_model()
    b.subgraph.tensors[1].quantization.zeroPoint = [4]
    quant = read(b.build([y])).tensors[1].quant
    assert quant is not None
    assert quant.zero_point.tolist() == [4, 4]


def test_constants_of_types_without_a_numpy_form_are_marked_and_not_decoded() -> None:
    b = TfliteBuilder()
    w = b.tensor("w", (3,), "int4", 0.5)
    b.set_data(w, b"\x21\x03")
    x = b.input("x", (3,), "int8", 0.5)
    tensor = read(b.build([b.op("ADD", [x, w], (3,), "int8", 0.5)])).tensors[w]
    assert (tensor.dtype, tensor.data, tensor.is_constant) == ("int4", None, True)


def test_scalar_bool_and_empty_constants_have_their_shape() -> None:
    b = TfliteBuilder()
    scalar = b.constant(np.array(5, np.int32))
    empty = b.constant(np.empty((0,), np.int32))
    flags = b.tensor("flags", (3,), "bool")
    b.set_data(flags, b"\x00\x01\x02")
    y = b.op("CUSTOM:Any", [scalar, empty, flags], (), "int32")
    data = [read(b.build([y])).tensors[index].data for index in (scalar, empty, flags)]
    assert [None if array is None else array.tolist() for array in data] == [5, [], [False, True, True]]


def test_a_buffer_behind_the_flatbuffer_is_read() -> None:
    b, y = build_small_model()
    number = b.subgraph.tensors[1].buffer
    b.model.buffers[number] = bindings.BufferT()
    b.model.buffers[number].offset, b.model.buffers[number].size = 1, 24
    start = len(b.build([y]))
    b.model.buffers[number].offset = start
    weights = read(b.build([y]) + bytes(range(24))).tensors[1]
    assert weights.data is not None
    assert weights.data.ravel().tolist() == list(range(24))


def test_names_that_are_not_utf_8_are_escaped() -> None:
    data = small_bytes().replace(b"weights", b"w\xff\xfeghts")
    assert read(data).tensors[1].name == r"w\xff\xfeghts"
