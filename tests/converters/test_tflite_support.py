"""What cannot be translated is refused once, with all of it."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

from converters.errors import ConversionError, SourceFileError, UnsupportedModelError
from converters.tflite.handlers import HANDLERS
from converters.tflite.importer import require_supported
from converters.tflite.ops.shape_arithmetic import FOLDS
from converters.tflite.reader import read_tflite
from converters.tflite.signatures import SIGNATURES
from tests.converters.single_operator import translated
from tests.converters.tflite_builder import TfliteBuilder

SHAPE = (1, 4, 4, 8)


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
        chain(
            ("ELU", "int8"),
            ("RELU", "int8"),
            ("HARD_SWISH", "int8"),
            ("ELU", "int8"),
            ("CUSTOM:Boxes", "int8"),
        )
    )
    assert message.startswith(
        "odd.tflite: no translation for operators CUSTOM:Boxes x1, ELU x2, HARD_SWISH x1"
    )


def test_operators_and_tensor_types_are_listed_together() -> None:
    message = refusal(chain(("RELU", "int16"), ("RELU", "int16"), ("ABS", "int16")))
    assert "operators ABS x1" in message
    assert "tensor types RELU on int16 x2" in message


def test_a_float_model_is_told_what_to_do() -> None:
    message = refusal(chain(("RELU", "float32"), ("LOGISTIC", "float32")))
    assert "LOGISTIC on float32 x1, RELU on float32 x1" in message
    assert "quantise it to int8 first" in message


def test_the_tables_know_the_same_operators() -> None:
    assert HANDLERS.keys() == SIGNATURES.keys()
    assert FOLDS.keys() <= HANDLERS.keys()


@pytest.mark.parametrize("op", sorted(SIGNATURES))
def test_an_operator_without_operands_is_malformed(op: str) -> None:
    b = TfliteBuilder()
    y = b.op(op, [], SHAPE, "int8", 0.05, 0)
    with pytest.raises(SourceFileError, match=f"operator 0 {op} has 0 operands"):
        require_supported(read_tflite(b.build([y]), "odd.tflite"))


def test_everything_malformed_is_listed() -> None:
    b = TfliteBuilder()
    x = b.input("x", (4, 8), "int8", 0.05, 0)
    y = b.op("MAX_POOL_2D", [x], SHAPE, "int8", 0.05, 0, filter_h=2, filter_w=0)
    z = b.op("ADD", [y, None], SHAPE, "int8", 0.05, 0)
    with pytest.raises(SourceFileError) as caught:
        require_supported(read_tflite(b.build([z]), "odd.tflite"))
    for words in (
        "operand 0 of shape [4, 8], expected 4 axes",
        "filter_w 0",
        "operator 1 ADD lacks operand 1",
    ):
        assert words in str(caught.value)


def test_weights_that_are_computed_are_refused() -> None:
    b = TfliteBuilder()
    x = b.input("x", SHAPE, "int8", 0.05, 0)
    w = b.input("w", (8, 3, 3, 8), "int8", 0.05, 0)
    y = b.op("CONV_2D", [x, w], SHAPE, "int8", 0.05, 0)
    with pytest.raises(UnsupportedModelError, match="needs a constant as operand 1"):
        translated(read_tflite(b.build([y]), "odd.tflite"))


def test_an_unknown_fused_activation_is_refused() -> None:
    b = TfliteBuilder()
    x = b.input("x", SHAPE, "int8", 0.05, 0)
    y = b.op("ADD", [x, x], SHAPE, "int8", 0.05, 0, fused_activation="TANH")
    with pytest.raises(UnsupportedModelError, match="fused activation TANH"):
        translated(read_tflite(b.build([y]), "odd.tflite"))


@pytest.mark.parametrize(("scale", "words"), [(None, "with 0 scales"), (np.full(8, 0.05), "with 8 scales")])
def test_activations_need_one_scale(scale: float | None, words: str) -> None:
    b = TfliteBuilder()
    x = b.input("x", SHAPE, "int8", 0.05, 0)
    y = b.tensor("y", SHAPE, "int8", scale, 0, axis=3)
    b.operator("RELU", [x], [y])
    with pytest.raises(UnsupportedModelError, match=words):
        translated(read_tflite(b.build([y]), "odd.tflite"))


def test_integers_computed_at_run_time_are_refused() -> None:
    b = TfliteBuilder()
    x = b.input("x", SHAPE, "int8", 0.05, 0)
    i = b.op("CAST", [x], SHAPE, "int32", in_data_type="int8", out_data_type="int32")
    with pytest.raises(UnsupportedModelError, match="only 8-bit codes to float32"):
        translated(read_tflite(b.build([i]), "odd.tflite"))


@pytest.mark.parametrize(
    ("op", "operands", "shape", "words"),
    [
        ("TILE", [[1, 2], [1 << 30]], (2,), "cannot be computed"),
        ("GATHER", [[1, 2], [9]], (1,), "cannot be computed"),
        ("ADD", [[1, 2], [1, 2, 3]], (2,), "cannot be computed"),
        ("TRANSPOSE", [[1, 2], [3]], (2,), "cannot be computed"),
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
