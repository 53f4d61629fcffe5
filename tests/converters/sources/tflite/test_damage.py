"""Of a TFLite file that cannot be, or cannot be converted, the reader says what is wrong and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from converters.errors import SourceFileError, UnsupportedModelError
from converters.sources.tflite.reader import read_tflite
from tests.converters.sources.tflite.builder import TfliteBuilder, build_small_model

if TYPE_CHECKING:
    from collections.abc import Callable

bindings: Any = pytest.importorskip("ai_edge_litert.schema_py_generated", reason='needs pip install "xdet[litert]"')

FILE = "model.tflite"


def set_tensor(index: int, **values: Any) -> Callable[[TfliteBuilder], None]:
    def bend(b: TfliteBuilder) -> None:
        for name, value in values.items():
            setattr(b.subgraph.tensors[index], name, value)

    return bend


def set_quant(index: int, **values: Any) -> Callable[[TfliteBuilder], None]:
    def bend(b: TfliteBuilder) -> None:
        for name, value in values.items():
            setattr(b.subgraph.tensors[index].quantization, name, value)

    return bend


def set_operator(index: int, **values: Any) -> Callable[[TfliteBuilder], None]:
    def bend(b: TfliteBuilder) -> None:
        for name, value in values.items():
            setattr(b.subgraph.operators[index], name, value)

    return bend


def set_subgraph(**values: Any) -> Callable[[TfliteBuilder], None]:
    def bend(b: TfliteBuilder) -> None:
        for name, value in values.items():
            setattr(b.subgraph, name, value)

    return bend


def place_buffer(offset: int, size: int) -> Callable[[TfliteBuilder], None]:
    def bend(b: TfliteBuilder) -> None:
        buffer = bindings.BufferT()
        buffer.offset, buffer.size = offset, size
        b.model.buffers[b.subgraph.tensors[1].buffer] = buffer

    return bend


def set_padding(number: int) -> Callable[[TfliteBuilder], None]:
    return lambda b: setattr(b.subgraph.operators[0].builtinOptions, "padding", number)


def set_alpha(alpha: float) -> Callable[[TfliteBuilder], None]:
    return lambda b: setattr(b.subgraph.operators[1].builtinOptions, "alpha", alpha)


def set_first_code(number: int) -> Callable[[TfliteBuilder], None]:
    def bend(b: TfliteBuilder) -> None:
        b.model.operatorCodes[0].builtinCode = b.model.operatorCodes[0].deprecatedBuiltinCode = number

    return bend


def duplicate_subgraph(b: TfliteBuilder) -> None:
    b.model.subgraphs = [b.subgraph, b.subgraph]


DAMAGED: dict[str, tuple[Callable[[TfliteBuilder], Any], str]] = {
    "negative size": (set_tensor(0, shape=[1, -4, 4, 3]), r"tensor 'image' has shape \[1, -4, 4, 3\]"),
    "overflowing shape of nothing": (set_tensor(3, shape=[2**31 - 1, 2**31 - 1, 9, 0]), "tensor 'sums' has shape"),
    "overflowing shape": (set_tensor(3, shape=[2**31 - 1] * 4), "tensor 'sums' has shape"),
    "rank 9": (set_tensor(3, shape=[1] * 9), "at most 8 sizes"),
    "signature of another rank": (set_tensor(0, shapeSignature=[-1, 4]), "contradicts shape"),
    "signature of another size": (set_tensor(0, shapeSignature=[-1, 5, 4, 3]), "contradicts shape"),
    "too few bytes": (set_tensor(1, shape=[2, 2, 2, 4]), "constant 'weights' has 24 bytes, expected 32 bytes"),
    "too many bytes": (set_tensor(1, shape=[2, 2, 2, 2]), "constant 'weights' has 24 bytes, expected 16 bytes"),
    "another type": (set_tensor(2, type=4), "constant 'bias' has 8 bytes, expected 16 bytes for int64"),
    "buffer number": (set_tensor(1, buffer=99), "number 99 does not exist, the file has 3 buffers"),
    "buffer behind the end": (place_buffer(2**40, 24), "24 bytes at byte 1099511627776"),
    "buffer over the end": (place_buffer(16, 2**63), "9223372036854775808 bytes at byte 16"),
    "scale of zero": (set_quant(0, scale=[0.0]), "every scale of tensor 'image' must be finite and above 0"),
    "negative scale": (set_quant(0, scale=[-1.0]), "finite and above 0"),
    "scale not a number": (set_quant(0, scale=[float("nan")]), "finite and above 0"),
    "infinite scale": (set_quant(1, scale=[0.5, float("inf")]), "finite and above 0"),
    "three scales for two channels": (
        set_quant(1, scale=[0.5] * 3, zeroPoint=[0] * 3),
        r"'weights' has 3 scales along axis 0 of shape \[2, 2, 2, 3\]",
    ),
    "axis out of range": (set_quant(1, quantizedDimension=4), "2 scales along axis 4"),
    "negative axis": (set_quant(1, quantizedDimension=-4), "2 scales along axis -4"),
    "no zero-point": (set_quant(0, zeroPoint=None), "1 scales and 0 zero-points"),
    "two zero-points": (set_quant(0, zeroPoint=[1, 2]), "1 scales and 2 zero-points"),
    "int8 zero-point 128": (set_quant(0, zeroPoint=[128]), r"int8 needs -128\.\.127, found 128\.\.128"),
    "zero-point of 64 bits": (set_quant(2, zeroPoint=[-(2**63), 0]), "int32 needs"),
    "operator reads a missing tensor": (set_operator(0, inputs=[0, 1, 5]), "tensor 5 does not exist"),
    "operator reads tensor -2": (set_operator(0, inputs=[0, 1, -2]), "tensor -2 does not exist"),
    "operator writes tensor -1": (set_operator(0, outputs=[-1]), "tensor -1 does not exist"),
    "operator code": (set_operator(0, opcodeIndex=7), "number 7 does not exist, the file has 2 codes"),
    "options of another operator": (set_operator(0, builtinOptionsType=5), "CONV_2D needs options of type 1, found 5"),
    "unknown padding": (set_padding(7), "padding number 7 does not exist; known are SAME, VALID"),
    "slope not a number": (set_alpha(float("nan")), "a finite number is expected, found nan"),
    "input -1": (set_subgraph(inputs=[-1]), r"subgraphs\[0\].inputs: tensor -1 does not exist"),
    "input twice": (set_subgraph(inputs=[0, 0]), "a tensor is fed twice, among 'image'"),
    "input that is a constant": (set_subgraph(inputs=[0, 1]), "model inputs hold a value already: 'weights'"),
    "no input": (set_subgraph(inputs=[]), "CONV_2D reads tensors that nothing before it computes: 'image'"),
    "a cycle": (set_operator(0, inputs=[4, 1, 2]), "CONV_2D reads tensors that nothing before it computes"),
    "two writers": (set_operator(1, outputs=[3]), "LEAKY_RELU writes a tensor that has its value already"),
    "written twice at once": (set_operator(1, outputs=[4, 4]), "has its value already, among 'out'"),
    "constant overwritten": (set_operator(1, outputs=[1]), "has its value already, among 'weights'"),
    "output nobody computes": (set_operator(1, outputs=[]), "nothing computes the model outputs 'out'"),
    "operator number": (set_first_code(-5), "operator number -5 does not exist"),
    "no subgraph": (lambda b: setattr(b.model, "subgraphs", []), "the model holds none, expected 1"),
    "a name without end": (set_tensor(0, name="x" * 70000), "a text of 70000 bytes, expected at most 65536"),
}


@pytest.mark.parametrize(("bend", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_an_impossible_model_is_damaged_and_the_message_says_where(
    bend: Callable[[TfliteBuilder], Any], message: str
) -> None:
    b, y = build_small_model()
    bend(b)
    with pytest.raises(SourceFileError, match=message) as caught:
        read_tflite(b.build([y]), FILE)
    assert str(caught.value).startswith("model.tflite: damaged TFLite file at root")


UNSUPPORTED: dict[str, tuple[Callable[[TfliteBuilder], Any], str]] = {
    "two subgraphs": (duplicate_subgraph, "2 subgraphs, expected 1"),
    "schema version": (lambda b: setattr(b.model, "version", 4), "schema version 4, expected 3"),
    "variable": (set_tensor(3, isVariable=True), "'sums' is a variable"),
    "sparse int4": (
        set_tensor(1, sparsity=bindings.SparsityParametersT(), type=bindings.TensorType.INT4),
        "'weights' is stored sparse, in int4",
    ),
    "external": (set_tensor(1, externalBuffer=3), "'weights' keeps its value in another file"),
    "blockwise": (set_quant(1, detailsType=2), "'weights' has blockwise quantisation"),
    "dynamic height": (set_tensor(0, shapeSignature=[1, -1, 4, 3]), r"'image' has a dynamic shape \[1, -1, 4, 3\]"),
    "dynamic batch of two": (
        set_tensor(0, shape=[2, 4, 4, 3], shapeSignature=[-1, 4, 4, 3]),
        "'image' has a dynamic shape",
    ),
}


@pytest.mark.parametrize(("bend", "message"), UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_a_sound_model_that_cannot_be_represented_is_refused_by_name(
    bend: Callable[[TfliteBuilder], Any], message: str
) -> None:
    b, y = build_small_model()
    bend(b)
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        read_tflite(b.build([y]), FILE)
    assert str(caught.value).startswith("model.tflite: ")


def test_all_refused_tensors_are_listed_at_once() -> None:
    b, y = build_small_model()
    set_tensor(1, externalBuffer=3)(b)
    set_tensor(3, isVariable=True)(b)
    with pytest.raises(UnsupportedModelError, match=r"'weights' keeps its value.*'sums' is a variable"):
        read_tflite(b.build([y]), FILE)


@pytest.mark.parametrize("data", [b"", b"TFL3", bytes(7), bytes(100), b"\x89PNG\r\n\x1a\n" + bytes(64)])
def test_other_bytes_are_not_a_tflite_file(data: bytes) -> None:
    with pytest.raises(SourceFileError, match=r"model\.tflite: not a TFLite file: expected b'TFL3' at byte 4"):
        read_tflite(data, FILE)
