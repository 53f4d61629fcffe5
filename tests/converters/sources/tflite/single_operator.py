"""Runs a small quantised TFLite model on LiteRT and, translated, on ONNX Runtime, on the same codes.

What ONNX Runtime gives is compared with the integer kernels of ``converters.integer`` on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from converters.graph import IR_VERSION, GraphWriter, dequantize_node, infer_shapes, quantize_node
from converters.integer.evaluate import evaluate
from converters.integer.values import Quantized, Reals, to_reals
from converters.opset import stamp_opset
from converters.passes import run_pipeline
from converters.quant import QuantParams
from converters.sources.tflite.context import ImportContext
from converters.sources.tflite.importer import require_source_shapes, translate
from converters.sources.tflite.reader import read_tflite
from converters.sources.tflite.supported import require_supported
from tests.converters.sessions import session_of
from tests.converters.sources.tflite.builder import TfliteBuilder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.options import Activations, Rounding
    from converters.sources.tflite.reader import TfliteModel
    from converters.spec import LeakyRelu

Codes = NDArray[Any]


@dataclass(frozen=True)
class Runs:
    """What the runtimes computed, each output as int64 source codes (or float32).

    Attributes:
        litert: LiteRT with its default delegate.
        uint8: the graph with uint8 activations.
        int8: the graph with int8 activations.
        delegated: whether XNNPACK took the operator, or one of LiteRT's built-in kernels ran.
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


@dataclass(frozen=True)
class Quant:
    """Scale and zero-point of a built tensor."""

    scale: float
    zero_point: int = 0


def codes(shape: Sequence[int], dtype: str = "int8", seed: int = 0) -> Codes:
    """Random codes of ``dtype``; all 256 are present where they find room, the lowest and highest always."""
    info = np.iinfo(dtype)
    values = np.random.default_rng(seed).integers(info.min, info.max + 1, tuple(shape)).astype(dtype)
    flat = values.reshape(-1)
    room = min(256, flat.size)
    flat[:room] = np.linspace(info.min, info.max, room).astype(dtype)
    return values


def run_single(
    op: str,
    shapes: tuple[Sequence[int], Sequence[int]],
    quants: tuple[Quant, Quant],
    *constants: Codes | tuple[Codes, Quant],
    dtype: str = "int8",
    **options: Any,
) -> Runs:
    """Build ``op`` with one input, constants behind it, and one output; run it everywhere on ``codes``.

    Args:
        op: the schema's name.
        shapes: of input and output.
        quants: of input and output.
        constants: further operands.
        dtype: of input and output.
        options: the operator's options.
    """
    b = TfliteBuilder()
    x = b.input("x", shapes[0], dtype, quants[0].scale, quants[0].zero_point)
    operands = [
        b.constant(c[0], c[1].scale, c[1].zero_point) if isinstance(c, tuple) else b.constant(c) for c in constants
    ]
    y = b.op(op, [x, *operands], shapes[1], dtype, quants[1].scale, quants[1].zero_point, name="y", **options)
    return run_everywhere(b.build([y]), [codes(shapes[0], dtype)])


def assert_exact(runs: Runs) -> None:
    """LiteRT and both dialects give the same codes."""
    assert runs.differing == 0, f"{runs.differing} codes differ, by up to {runs.worst}"
    assert runs.dialects_agree


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


def assert_integers_agree(graph: ir.Graph, feeds: Mapping[str, Codes], results: Sequence[Codes]) -> None:
    """ONNX Runtime's outputs are those of ``converters.integer``: bit for bit, or close behind float32 arithmetic."""
    names = [str(value.name) for value in graph.outputs]
    evaluation = evaluate(graph, feeds, names)
    for name, result in zip(names, results, strict=True):
        found = evaluation.values[name]
        difference = np.abs(to_reals(found).array.astype(np.float64) - result)
        code = float(found.scale) if isinstance(found, Quantized) and evaluation.inexact else 0.0
        if isinstance(found, Reals) and not found.exact:
            code = 1e-6 * float(np.abs(result).max(initial=1))  # the last bit is each runtime's own
        assert difference.max(initial=0) <= code * 1.001, f"{name}: {difference.max()} with a code of {code}"


def run_onnx(
    data: bytes, feeds: Sequence[Codes], activations: Activations, *, leaky_relu: LeakyRelu = "litert"
) -> list[Codes]:
    """The outputs of the translated model on ONNX Runtime, as the source's codes."""
    source = read_tflite(data, "built.tflite")
    model = translated(source, activations, leaky_relu=leaky_relu)
    session = session_of(ir.to_proto(model).SerializeToString())
    named = {
        f"in{i}": (codes.astype(np.int16) + 128).astype(np.uint8) if codes.dtype == np.int8 else codes
        for i, codes in enumerate(feeds)
    }
    results = session.run(None, named)
    assert_integers_agree(model.graph, named, results)
    return [_source_codes(source, index, real) for index, real in zip(source.outputs, results, strict=True)]


def translated(
    source: TfliteModel, activations: Activations = "uint8", *, leaky_relu: LeakyRelu = "litert", batch: int | str = 1
) -> ir.Model:
    """The model with every input as uint8 codes (``in0``, ...), every output as reals, all in the source's layout."""
    require_supported(source)
    rounding: Rounding = "litert" if leaky_relu == "litert" else "real"
    context = ImportContext(source, GraphWriter("single"), activations, rounding, batch)
    for position, index in enumerate(source.inputs):
        _define_input(context, position, index)
    translate(context)
    model = ir.Model(context.writer.graph, ir_version=IR_VERSION)
    for index in source.outputs:
        # real numbers, as a detector's head: ONNX Runtime runs int8 in integers only between Q and DQ
        value = context.to_source_layout(context.float_of(index), len(context.tensor(index).shape), "out")
        value.type = ir.TensorType(ir.DataType.FLOAT)
        model.graph.outputs.append(value)
    require_source_shapes(context)
    run_pipeline(model, "portable")
    infer_shapes(model)
    stamp_opset(model, None)
    return model


def _define_input(context: ImportContext, position: int, index: int) -> None:
    """Codes as uint8 in the source's layout, turned into the dialect the way the image input is."""
    tensor, writer = context.tensor(index), context.writer
    shape: list[int | str] = [context.batch if tensor.shape[0] == 1 else tensor.shape[0], *tensor.shape[1:]]
    dtype = ir.DataType.UINT8 if context.is_quantized(index) else ir.DataType.FLOAT
    value = writer.input(f"in{position}", dtype, shape)
    value = context.from_source_layout(value, len(shape), f"in{position}/nchw")
    if context.activations == "int8" and context.is_quantized(index):
        params = context.params(index)
        as_uint8 = QuantParams(params.scale, params.zero_point + 128)
        real = dequantize_node(writer, value, as_uint8, np.uint8, f"in{position}/real")
        value = quantize_node(writer, real, params, np.int8, f"in{position}/codes")
    context.define(index, value)


def _source_codes(source: TfliteModel, index: int, real: Codes) -> Codes:
    """The codes behind dequantised reals; float tensors stay."""
    tensor = source.tensors[index]
    if tensor.dtype == "float32" or tensor.quant is None:
        return real
    steps = np.rint(real / tensor.quant.scalar_scale).astype(np.int64)
    return np.asarray(steps + tensor.quant.scalar_zero_point)


def _wide(codes: Codes) -> Codes:
    return codes if codes.dtype == np.float32 else codes.astype(np.int64)
