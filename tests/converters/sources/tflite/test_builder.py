"""The builder makes files that LiteRT itself loads and runs; per-operator equality tests stand on it."""

from __future__ import annotations

import numpy as np
import pytest

from converters.sources.tflite.reader import read_tflite
from tests.converters.sources.tflite.builder import OPTION_CLASSES, TfliteBuilder
from tests.converters.sources.tflite.cases import BUILDERS, build_case

interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason='needs pip install "xdet[litert]"')


@pytest.mark.parametrize(("op", "when"), BUILDERS)
def test_litert_runs_a_built_model_of_every_operator(op: str, when: str) -> None:
    data = build_case(op, when)
    litert = interpreter.Interpreter(model_content=data)
    litert.allocate_tensors()
    for detail in litert.get_input_details():
        codes = np.random.default_rng(7).integers(0, 256, detail["shape"]).astype(detail["dtype"])
        litert.set_tensor(detail["index"], codes)
    litert.invoke()
    outputs = [litert.get_tensor(detail["index"]) for detail in litert.get_output_details()]
    model = read_tflite(data, "built.tflite")
    assert [output.shape for output in outputs] == [model.tensors[i].shape for i in model.outputs]
    assert [output.dtype.name for output in outputs] == [model.tensors[i].dtype for i in model.outputs]
    assert op in [operator.op for operator in model.operators]


def test_every_operator_with_options_has_a_built_model() -> None:
    assert OPTION_CLASSES.keys() <= {op for op, _ in BUILDERS}


def test_litert_computes_with_the_constants_that_were_given() -> None:
    b = TfliteBuilder()
    x = b.input("x", (1, 2, 2, 1), "int8", 1.0)
    w = b.constant(np.array([2, 3], np.int8).reshape(2, 1, 1, 1), [1.0, 1.0])
    bias = b.constant(np.array([10, 20], np.int32), [1.0, 1.0])
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
        x = b.input("x", (1, 5, 6, 4), "int8", 0.05, -3)
        return b.build([b.op("RELU", [x], (1, 5, 6, 4), "int8", 0.05, -3)])

    assert build() == build()
