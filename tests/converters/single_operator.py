"""Runs a small TFLite model of quantised inputs and outputs on LiteRT and, translated, on ONNX Runtime, on the same codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from converters.graph import IR_VERSION, GraphWriter
from converters.options import Activations, LeakyRelu
from converters.passes.pipelines import run_pipeline
from converters.quant import QuantParams
from converters.tflite.context import ImportContext, dequantize_node, quantize_node
from converters.tflite.importer import require_supported, translate
from converters.tflite.reader import read_tflite
from converters.tflite.records import TfliteModel
from converters.tflite.shapes import require_source_shapes

Codes = NDArray[Any]


@dataclass(frozen=True)
class Runs:
    """What the runtimes computed, each output as int64 source codes (or float32).

    Attributes:
        litert: LiteRT with its default delegate.
        uint8: the graph with uint8 activations.
        int8: the graph with int8 activations.
        delegated: whether XNNPACK took the operator, or one of LiteRT's built-in kernels ran.
        operators: operator types of ONNX Runtime's optimised uint8 graph.
    """

    litert: list[Codes]
    uint8: list[Codes]
    int8: list[Codes]
    delegated: bool

    @property
    def differing(self) -> int:
        """Values in which the uint8 graph and LiteRT differ."""
        return sum(int((a != b).sum()) for a, b in zip(self.litert, self.uint8, strict=True))

    @property
    def worst(self) -> float:
        """The largest difference between the uint8 graph and LiteRT, in codes."""
        return max(float(np.abs(a - b).max(initial=0)) for a, b in zip(self.litert, self.uint8, strict=True))

    @property
    def dialects_agree(self) -> bool:
        return all(np.array_equal(a, b) for a, b in zip(self.uint8, self.int8, strict=True))


def run_everywhere(data: bytes, feeds: Sequence[Codes], *, leaky_relu: LeakyRelu = "litert") -> Runs:
    """Run the model on ``feeds``: one array of source codes per input, in the source's dtype and layout."""
    litert, delegated = run_litert(data, feeds)
    uint8, int8 = (run_onnx(data, feeds, dialect, leaky_relu=leaky_relu) for dialect in ("uint8", "int8"))
    return Runs(litert, uint8, int8, delegated)


def run_litert(data: bytes, feeds: Sequence[Codes]) -> tuple[list[Codes], bool]:
    """The outputs of LiteRT, and whether XNNPACK took everything."""
    interpreter = pytest.importorskip(
        "ai_edge_litert.interpreter", reason='needs pip install "xdet[litert]"'
    ).Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    for detail, codes in zip(interpreter.get_input_details(), feeds, strict=True):
        interpreter.set_tensor(detail["index"], codes)
    interpreter.invoke()
    outputs = [_wide(interpreter.get_tensor(detail["index"])) for detail in interpreter.get_output_details()]
    names = {detail["op_name"] for detail in interpreter._get_ops_details()}
    return outputs, "DELEGATE" in names


def run_onnx(
    data: bytes, feeds: Sequence[Codes], activations: Activations, *, leaky_relu: LeakyRelu = "litert"
) -> list[Codes]:
    """The outputs of the translated model on ONNX Runtime, as the source's codes."""
    source = read_tflite(data, "built.tflite")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    model = ir.to_proto(translated(source, activations, leaky_relu=leaky_relu)).SerializeToString()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    named = {
        f"in{i}": (codes.astype(np.int16) + 128).astype(np.uint8) if codes.dtype == np.int8 else codes
        for i, codes in enumerate(feeds)
    }
    shifts = [_shift(source, index, activations) for index in source.outputs]
    results = session.run(None, named)
    return [
        _wide(result) - shift if shift else _wide(result)
        for result, shift in zip(results, shifts, strict=True)
    ]


def translated(
    source: TfliteModel,
    activations: Activations = "uint8",
    *,
    leaky_relu: LeakyRelu = "litert",
    batch: int | str = 1,
) -> ir.Model:
    """The model with every source input as uint8 codes (``in0``, ...) and every output as codes, all in the source's layout."""
    require_supported(source)
    context = ImportContext(source, GraphWriter("single"), activations, leaky_relu, batch)
    for position, index in enumerate(source.inputs):
        _define_input(context, position, index)
    translate(context)
    model = ir.Model(context.writer.graph, ir_version=IR_VERSION)
    for index in source.outputs:
        value = context.to_source_layout(context.codes_of(index), len(context.tensor(index).shape), "out")
        quantized = context.is_quantized(index)
        kind = ir.DataType[activations.upper()] if quantized else ir.DataType.FLOAT
        value.type = ir.TensorType(kind)
        model.graph.outputs.append(value)
    require_source_shapes(context)
    run_pipeline(model, "portable")
    return model


def _define_input(context: ImportContext, position: int, index: int) -> None:
    """Codes as uint8 in the source's layout, turned into the dialect the way the image input is."""
    tensor, writer = context.tensor(index), context.writer
    shape: list[int | str] = [context.batch, *tensor.shape[1:]]
    value = writer.input(f"in{position}", ir.DataType.UINT8, shape)
    value = context.from_source_layout(value, len(shape), f"in{position}/nchw")
    if context.activations == "int8":
        params = context.params(index)
        as_uint8 = QuantParams(params.scale, params.zero_point + 128)
        real = dequantize_node(writer, value, as_uint8, np.uint8, f"in{position}/real")
        value = quantize_node(writer, real, params, np.int8, f"in{position}/codes")
    context.define(index, value)


def _shift(source: TfliteModel, index: int, activations: Activations) -> int:
    dtype = source.tensors[index].dtype
    return 0 if dtype in (activations, "float32") else (128 if activations == "uint8" else -128)


def _wide(codes: Codes) -> Codes:
    return codes if codes.dtype == np.float32 else cast("Codes", codes.astype(np.int64))
