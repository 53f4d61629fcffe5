"""What cannot be translated is refused once, with all of it; docs/operators.md states the table's facts once."""

from __future__ import annotations

import contextlib
import tracemalloc
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converters.errors import ConversionError, SourceFileError, UnsupportedModelError
from converters.graph import GraphWriter
from converters.sources.tflite.context import ImportContext
from converters.sources.tflite.importer import FOLDS, fold
from converters.sources.tflite.operators import OPERATORS
from converters.sources.tflite.reader import read_tflite
from converters.sources.tflite.supported import read_convertible, require_sound, require_supported
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.single_operator import translated

if TYPE_CHECKING:
    from converters.sources.tflite.operators import Case
    from converters.sources.tflite.reader import TfliteModel

SHAPE = (1, 4, 4, 8)
DOCUMENT = Path(__file__).parents[4] / "docs" / "operators.md"
HEADER = "| TFLite | ONNX, between DequantizeLinear and QuantizeLinear | kernel | result |"


def chain(*operators: tuple[str, str]) -> bytes:
    """Operators of one input behind one another, each with the dtype of its output."""
    b = TfliteBuilder()
    value = b.input("x", SHAPE, operators[0][1], 0.05, 0)
    for op, dtype in operators:
        value = b.op(op, [value], SHAPE, dtype, 0.05, 0)
    return b.build([value])


def refusal(data: bytes) -> str:
    with pytest.raises(UnsupportedModelError) as caught:
        require_supported(read_tflite(data, "odd.tflite"))
    return str(caught.value)


def test_every_operator_without_a_translation_is_counted() -> None:
    message = refusal(
        chain(("ELU", "int8"), ("RELU", "int8"), ("FLOOR", "int8"), ("ELU", "int8"), ("CUSTOM:Boxes", "int8"))
    )
    assert message.startswith("odd.tflite: no translation for operators CUSTOM:Boxes x1, ELU x2, FLOOR x1")


def test_operators_and_tensor_types_are_listed_together() -> None:
    message = refusal(chain(("RELU", "int16"), ("RELU", "int16"), ("ELU", "int16")))
    assert "operators ELU x1" in message
    assert "tensor types RELU on int16 x2" in message


def test_networks_with_their_own_suppression_are_told_how_to_export_them() -> None:
    message = refusal(chain(("NON_MAX_SUPPRESSION_V4", "int8"), ("NON_MAX_SUPPRESSION_V5", "int8")))
    assert message.count("export the network without its suppression") == 1
    assert "--agnostic-nms" in message


def test_what_is_folded_has_a_row() -> None:
    assert FOLDS.keys() <= OPERATORS.keys()


@pytest.mark.parametrize("op", sorted(OPERATORS))
def test_an_operator_without_operands_is_malformed(op: str) -> None:
    b = TfliteBuilder()
    y = b.op(op, [], SHAPE, "int8", 0.05, 0)
    with pytest.raises(SourceFileError, match=f"operator 0 {op} has 0 operands"):
        require_supported(read_tflite(b.build([y]), "odd.tflite"))


def test_everything_malformed_and_without_a_translation_is_listed() -> None:
    b = TfliteBuilder()
    x = b.input("x", (4, 8), "int8", 0.05, 0)
    y = b.op("MAX_POOL_2D", [x], SHAPE, "int8", 0.05, 0, filter_h=2, filter_w=0)
    z = b.op("ADD", [y, None], SHAPE, "int8", 0.05, 0)
    with pytest.raises(SourceFileError) as caught:
        require_supported(read_tflite(b.build([b.op("ELU", [z], SHAPE, "int8", 0.05, 0)]), "odd.tflite"))
    for words in ("operand 0 of shape [4, 8], expected 4 axes", "filter_w 0", "operator 1 ADD lacks operand 1"):
        assert words in str(caught.value)
    assert "and there is no translation for operators ELU x1; export the model again" in str(caught.value)


def convolution(
    weights: tuple[int, ...], bias: Any = None, op: str = "CONV_2D", shape: tuple[int, ...] = SHAPE, **options: Any
) -> TfliteModel:
    b = TfliteBuilder()
    x = b.input("x", shape, "int8", 0.05, 0)
    operands = [x, b.constant(np.ones(weights, np.int8), 0.1), None if bias is None else b.constant(bias)]
    return read_tflite(b.build([b.op(op, operands, SHAPE, "int8", 0.05, 0, **options)]), "odd.tflite")


@pytest.mark.parametrize(
    ("op", "weights", "bias", "said"),
    [
        ("CONV_2D", (8, 1, 1, 8), 1, r"has a bias of shape \[1\], expected \[8\], one per output channel"),
        ("CONV_2D", (8, 1, 1, 8), 9, r"has a bias of shape \[9\], expected \[8\]"),
        (
            "CONV_2D",
            (8, 1, 1, 3),
            8,
            r"has weights \[8, 1, 1, 3\] for an input \[1, 4, 4, 8\]: the channels do not fit",
        ),
        ("CONV_2D", (9, 1, 1, 4), 9, "the channels do not fit"),
        ("CONV_2D", (8, 1, 1, 16), 8, "the channels do not fit"),
        ("DEPTHWISE_CONV_2D", (1, 3, 3, 8), 1, r"has a bias of shape \[1\], expected \[8\]"),
        ("DEPTHWISE_CONV_2D", (2, 3, 3, 8), 8, "the channels do not fit"),
        ("DEPTHWISE_CONV_2D", (1, 3, 3, 12), 12, "the channels do not fit"),
        ("FULLY_CONNECTED", (8, 128), 1, r"has a bias of shape \[1\], expected \[8\]"),
        ("FULLY_CONNECTED", (8, 3), 8, r"has weights \[8, 3\] for an input \[1, 4, 4, 8\]"),
    ],
)
def test_operands_that_do_not_fit_are_told_before_any_kernel_sees_them(
    op: str, weights: tuple[int, ...], bias: int, said: str
) -> None:
    model = convolution(weights, np.ones(bias, np.int32), op)
    for check in (require_sound, require_supported):
        with pytest.raises(SourceFileError, match=said):
            check(model)


@pytest.mark.parametrize(
    ("weights", "op"), [((8, 1, 1, 8), "CONV_2D"), ((4, 3, 3, 2), "CONV_2D"), ((1, 3, 3, 16), "DEPTHWISE_CONV_2D")]
)
def test_operands_that_fit_are_sound(weights: tuple[int, ...], op: str) -> None:
    channels = weights[3] if op == "DEPTHWISE_CONV_2D" else weights[0]
    require_sound(convolution(weights, np.ones(channels, np.int32), op))
    require_sound(convolution(weights, None, op))


def test_a_sound_model_may_hold_what_has_no_translation() -> None:
    require_sound(read_tflite(chain(("ELU", "int8"), ("RELU", "float32")), "odd.tflite"))


def test_everything_without_a_translation_is_listed_at_once() -> None:
    b = TfliteBuilder()
    x = b.input("x", SHAPE, "int8", 0.05, 0)
    w = b.input("w", (8, 1, 1, 8), "int8", 0.05, 0)
    bias = b.constant(np.zeros(8, np.int64))
    y = b.op("ADD", [x, x], SHAPE, "int8", 0.05, 0, fused_activation="TANH")
    y = b.op("CONV_2D", [y, w, bias], SHAPE, "int8", 0.05, 0)
    y = b.op("GATHER", [y, b.constant(np.array([0], np.int32))], SHAPE, "int8", 0.05, 0, batch_dims=1)
    y = b.op("FULLY_CONNECTED", [y, b.constant(np.ones((8, 8), np.int8), 0.1)], SHAPE, "int8", 0.05, 0,
             weights_format="SHUFFLED4x16INT8")  # fmt: skip
    y = b.op("ELU", [y], SHAPE, "int8", 0.05, 0)
    y = b.op("RELU", [y], SHAPE, "int16", 0.05, 0)
    message = refusal(b.build([y]))
    for words in (
        "operators ELU x1",
        "tensor types RELU on int16 x1",
        "operator 0 ADD, which has fused activation TANH; known are NONE, RELU, RELU6, RELU_N1_TO_1",
        "operator 1 CONV_2D, which needs a constant as operand 1, but tensor 'w' is computed at run time",
        "operator 1 CONV_2D, which has a bias of int64, expected int32",
        "operator 2 GATHER, which has batch_dims 1, only 0 is supported",
        "operator 3 FULLY_CONNECTED, which has shuffled weights",
    ):
        assert words in message


@pytest.mark.parametrize(("scale", "words"), [(None, "with 0 scales"), (np.full(8, 0.05), "with 8 scales")])
def test_activations_need_one_scale(scale: float | None, words: str) -> None:
    b = TfliteBuilder()
    x = b.input("x", SHAPE, "int8", 0.05, 0)
    y = b.tensor("y", SHAPE, "int8", scale, 0, axis=3)
    b.operator("RELU", [x], [y])
    assert f"operator 0 RELU, which has tensor 'y' of int8 {words}, expected 1" in refusal(b.build([y]))


def test_weights_need_scales_along_their_output_channels() -> None:
    b = TfliteBuilder()
    x = b.input("x", SHAPE, "int8", 0.05, 0)
    w = b.constant(np.ones((8, 1, 1, 8), np.int8), np.full(8, 0.1), axis=3)
    y = b.op("CONV_2D", [x, w], SHAPE, "int8", 0.05, 0)
    z = b.op("CONV_2D", [y, b.constant(np.ones((8, 1, 1, 8), np.int8))], SHAPE, "int8", 0.05, 0)
    message = refusal(b.build([z]))
    assert "operator 0 CONV_2D, which has weight scales along axis 3, expected 0, the output channels" in message
    assert "operator 1 CONV_2D, which has weights" in message
    assert "of int8 without a scale" in message


def test_integers_computed_at_run_time_are_refused() -> None:
    b = TfliteBuilder()
    x = b.input("x", SHAPE, "int8", 0.05, 0)
    i = b.op("CAST", [x], SHAPE, "int32", in_data_type="int8", out_data_type="int32")
    with pytest.raises(UnsupportedModelError, match="only codes and integers to float32"):
        translated(read_tflite(b.build([i]), "odd.tflite"))


@pytest.mark.parametrize(
    ("op", "operands", "shape", "words"),
    [
        ("TILE", [[1, 2], [1 << 30]], (2,), r"gives shape \[2147483648\], the file says \[2\]"),
        ("GATHER", [[1, 2], [9]], (1,), "cannot be computed"),
        ("ADD", [[1, 2], [1, 2, 3]], (2,), "cannot be computed"),
        ("TRANSPOSE", [[1, 2], [3]], (2,), r"cannot be computed from its constants: permutation \[3\] of 1 axes"),
        ("TRANSPOSE", [[1, 2], [-1]], (2,), r"permutation \[-1\] of 1 axes"),
        ("SPLIT", [[1], [1, 2]], (2,), r"cannot be computed .*: \[2\] has no 1 equal parts along axis 1"),
        ("CONCATENATION", [[1, 2], [3]], (4,), "the file says"),
    ],
)
def test_shape_arithmetic_that_does_not_add_up_is_refused(
    op: str, operands: list[list[int]], shape: tuple[int, ...], words: str
) -> None:
    b = TfliteBuilder()
    inputs = [b.constant(np.array(values, np.int32)) for values in operands]
    y = b.op(op, inputs, shape, "int32")
    with pytest.raises(SourceFileError, match=words):
        translated(read_tflite(b.build([y]), "odd.tflite"))


def test_shape_arithmetic_is_small() -> None:
    b = TfliteBuilder()
    large = b.constant(np.zeros((64, 64), np.int32))
    y = b.op("ADD", [large, large], (64, 64), "int32")
    with pytest.raises(UnsupportedModelError, match="computes 4096 integers from constants, expected at most 1024"):
        translated(read_tflite(b.build([y]), "odd.tflite"))


def test_a_result_is_not_computed_before_its_shape_is_known_to_be_the_declared_one() -> None:
    b = TfliteBuilder()
    column, row = b.constant(np.zeros((1 << 20, 1), np.int32)), b.constant(np.zeros((1, 1 << 20), np.int32))
    y = b.op("MUL", [column, row], (2, 2), "int32")
    tracemalloc.start()
    with pytest.raises(SourceFileError, match=r"gives shape \[1048576, 1048576\], the file says \[2, 2\]"):
        translated(read_tflite(b.build([y]), "odd.tflite"))
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_integers_wrap_around_as_in_tflite() -> None:
    b = TfliteBuilder()
    most = b.constant(np.array(2**31 - 1, np.int32))
    context = context_of(b.build([b.op("ADD", [most, b.constant(np.array(1, np.int32))], (), "int32")]))
    assert fold(context)
    assert context.constants[context.model.outputs[0]] == -(2**31)


def context_of(data: bytes) -> ImportContext:
    model = read_tflite(data, "odd.tflite")
    context = ImportContext(model, GraphWriter("fold"), "uint8", "litert")
    context.constants.update({t.index: t.data for t in model.tensors if t.data is not None})
    context.op = model.operators[0]
    return context


def test_scales_that_leave_float32_are_refused() -> None:
    b = TfliteBuilder()
    x = b.input("x", SHAPE, "int8", 1e-30, 0)
    w, bias = b.constant(np.ones((8, 3, 3, 8), np.int8), 1e-30), b.constant(np.ones(8, np.int32))
    y = b.op("CONV_2D", [x, w, bias], SHAPE, "int8", 1e-30, 0)
    with pytest.raises(SourceFileError, match="every scale must be finite and above zero"):
        translated(read_tflite(b.build([y]), "odd.tflite"))


@pytest.mark.parametrize("beta", [0.0, -1.0])
def test_a_softmax_without_a_positive_beta_is_refused(beta: float) -> None:
    b = TfliteBuilder()
    y = b.op("SOFTMAX", [b.input("x", SHAPE, "int8", 0.1, 0)], SHAPE, "int8", 1 / 256, -128, beta=beta)
    with pytest.raises(SourceFileError, match="every scale must be finite and above zero"):
        translated(read_tflite(b.build([y]), "odd.tflite"))


@pytest.mark.parametrize("op", ["RELU6", "LEAKY_RELU", "AVERAGE_POOL_2D", "MEAN", "QUANTIZE"])
@pytest.mark.parametrize("scales", [(1e-45, 1e-45), (3e38, 3e38), (3e38, 1e-45), (1e-45, 3e38)], ids=str)
def test_extreme_scales_raise_nothing_else(op: str, scales: tuple[float, float]) -> None:
    b = TfliteBuilder()
    operands = [b.input("x", SHAPE, "int8", scales[0], 0)]
    if op == "MEAN":
        operands.append(b.constant(np.array([3], np.int32)))
    options: dict[str, Any] = {"filter_h": 1, "filter_w": 1} if op == "AVERAGE_POOL_2D" else {}
    shape = SHAPE[:3] if op == "MEAN" else SHAPE
    y = b.op(op, operands, shape, "int8", scales[1], 0, **options)
    with contextlib.suppress(ConversionError):
        translated(read_tflite(b.build([y]), "odd.tflite"))


def test_a_resize_to_another_scale_is_refused_as_litert_refuses_it() -> None:
    b = TfliteBuilder()
    x = b.input("x", SHAPE, "int8", 0.05, 0)
    size = b.constant(np.array([8, 8], np.int32))
    y = b.op("RESIZE_BILINEAR", [x, size], (1, 8, 8, 8), "int8", 0.05, 3)
    assert "operator 0 RESIZE_BILINEAR, which has an output with another scale" in refusal(b.build([y]))


@pytest.mark.parametrize(
    ("op", "said"),
    [
        ("CUSTOM:edgetpu-custom-op", "compiled for Coral's Edge TPU .* no '_edgetpu' in its name"),
        ("CUSTOM:ethos-u", "compiled for Arm's Ethos-U .* no '_vela' in its name"),
    ],
)
def test_a_compiled_network_is_told_with_the_file_to_bring(op: str, said: str) -> None:
    data = chain((op, "int8"))
    with pytest.raises(UnsupportedModelError, match=said):
        read_convertible(data, "net.tflite")
    with pytest.raises(UnsupportedModelError, match=said):
        require_sound(read_tflite(data, "net.tflite"))


@pytest.mark.parametrize(
    ("op", "said"),
    [("CUSTOM:TFLite_Detection_PostProcess", "at the end of a file alone"), ("CUSTOM:FlexErf", "TFLITE_BUILTINS")],
)
def test_an_operator_that_an_export_can_avoid_is_told_so(op: str, said: str) -> None:
    message = refusal(chain((op, "int8"), ("ELU", "int8")))
    assert f"operators {op} x1, ELU x1" in message
    assert said in message


def test_a_bias_with_the_axis_of_its_weights_is_read() -> None:
    b = TfliteBuilder()
    x = b.input("x", SHAPE, "int8", 0.05, 0)
    w = b.constant(np.ones((1, 3, 3, 8), np.int8), np.full(8, 0.1, np.float32), axis=3)
    bias = b.constant(np.zeros(8, np.int32), np.full(8, 0.005, np.float32), axis=3)
    y = b.op("DEPTHWISE_CONV_2D", [x, w, bias], SHAPE, "int8", 0.05, 0)
    model = read_tflite(b.build([y]), "old.tflite")
    require_supported(model)
    quant = model.tensors[bias].quant
    assert quant is not None
    assert quant.axis == 0


def line(subject: str, case: Case) -> str:
    """A case as a line of the document's table."""
    result = f"<= {case.bound_lsb} LSB" if case.bound_lsb else "exact"
    remark = f"{':' if case.bound_lsb else ','} {case.remark}" if case.remark else ""
    return f"| {subject} | {case.onnx} | {case.kernel} | {result}{remark} |"


def table() -> list[str]:
    """The document's table: rows whose cases are the same share a line."""
    lines = [HEADER, "|---|---|---|---|"]
    for cases, names in groupby(OPERATORS, key=lambda name: OPERATORS[name].cases):
        lines.append(line(", ".join(names), cases[0]))
        lines += [line(f"... {case.when}", case) for case in cases[1:]]
    return lines


def test_the_document_has_the_table_of_the_rows() -> None:
    text = DOCUMENT.read_text("utf-8")
    start = text.index(HEADER)
    assert text[start : text.index("\n\n", start)].splitlines() == table()
