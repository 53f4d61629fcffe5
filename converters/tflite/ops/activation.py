"""LEAKY_RELU, RELU, RELU6, RELU_N1_TO_1, LOGISTIC and SOFTMAX as operators of their own.

LEAKY_RELU is bit exact with LiteRT XNNPACK by default (``converters.leaky``); the others follow the real function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.leaky import FloatForm, LeakyCase, float_table, matched_leaky, plain_form, xnnpack_table
from converters.quant import QuantParams
from converters.tflite.context import ImportContext, float_option
from converters.tflite.ops.clamp import BOUNDS, clip_limits

if TYPE_CHECKING:
    import onnx_ir as ir

    from converters.leaky import Table
    from converters.tflite.records import TfliteOperator


def leaky_case(context: ImportContext, source: int, target: int, slope: float) -> LeakyCase:
    """The arithmetic of ``target = leaky(source)`` on int8 codes, whatever dialect the graph has."""
    to_int8 = 0 if context.activations == "int8" else -128
    before, after = context.params(source), context.params(target)
    return LeakyCase(
        scale_in=before.scalar_scale,
        zero_point_in=before.scalar_zero_point + to_int8,
        scale_out=after.scalar_scale,
        zero_point_out=after.scalar_zero_point + to_int8,
        slope=np.float32(slope),
    )


def leaky_relu(context: ImportContext, op: TfliteOperator) -> None:
    """LEAKY_RELU: the float form whose table equals XNNPACK's; an explicit table where no float form does."""
    source, target = op.inputs[0], op.outputs[0]
    case = leaky_case(context, source, target, float_option(op, "alpha"))
    wanted = xnnpack_table(case) if context.match_litert else None
    form = plain_form(case) if wanted is None else matched_leaky(case)
    if wanted is not None and form is None:
        _table(context, op, wanted)
        return
    assert form is not None  # noqa: S101 - the line above leaves with None
    if wanted is None and context.match_litert:
        context.notes.append(
            f"LEAKY_RELU {context.names[target]!r} lies outside XNNPACK's range: the real function is written (<= 1 LSB)"
        )
    if wanted is not None and np.array_equal(float_table(case, plain_form(case)), wanted):
        form = plain_form(case)
    _leaky_node(context, (source, target), form, case.slope)


def _leaky_node(context: ImportContext, tensors: tuple[int, int], form: FloatForm, slope: np.float32) -> None:
    """A LeakyRelu between a source and a target tensor; ``slope`` is the source's own."""
    source, target = tensors
    context.tell(target, target, "slope", (float(slope), float(form.slope)))
    params = QuantParams(np.array([form.scale], np.float32), context.params(source).zero_point)
    real = context.writer.op(
        "LeakyRelu",
        [context.adjusted_float_of(source, params, target)],
        f"{context.names[target]}/float",
        alpha=float(form.slope),
    )
    context.define_quantized(target, real)


def _table(context: ImportContext, op: TfliteOperator, table: Table) -> None:
    """All output codes looked up: always exact, slower than a fused activation."""
    target = op.outputs[0]
    context.define(target, look_up(context, op, context.codes_of(op.inputs[0]), table, context.names[target]))


def look_up(context: ImportContext, op: TfliteOperator, codes: ir.Value, table: Table, name: str) -> ir.Value:
    """256 output codes (int64, for int8 codes -128..127) looked up with Gather, and told as a deviation."""
    writer, target = context.writer, op.outputs[0]
    written = table if context.activations == "int8" else table + 128
    index = writer.op("Cast", [codes], f"{name}/index", to=6)  # INT32
    if context.activations == "int8":
        index = writer.op("Add", [index, writer.constant(np.int32(128), f"{name}/128")], f"{name}/row")
    values = writer.constant(written.astype(context.code_dtype), f"{name}/table")
    context.tell(target, target, "table")
    context.notes.append(
        f"{op.op} {context.names[target]!r} is written as a 256-entry table: no float form reproduces it"
    )
    return writer.op("Gather", [values, index], name, axis=0)


def relu(context: ImportContext, op: TfliteOperator) -> None:
    """RELU, RELU6, RELU_N1_TO_1: requantised to the output's scale, then clamped.

    Bit exact where the scales are equal, as converters write them. Otherwise at most 1 LSB: LiteRT's only kernel, a
    built-in one, rounds twice in 31-bit fixed point, which no scale reproduces.
    """
    limits = clip_limits(context, op, BOUNDS[op.op])
    clipped = context.writer.op("Clip", [context.float_of(op.inputs[0]), *limits], context.name(op))
    context.define_quantized(op.outputs[0], clipped)


def logistic(context: ImportContext, op: TfliteOperator) -> None:
    """LOGISTIC."""
    context.define_quantized(
        op.outputs[0], context.writer.op("Sigmoid", [context.float_of(op.inputs[0])], context.name(op))
    )


def softmax(context: ImportContext, op: TfliteOperator) -> None:
    """SOFTMAX over the last source axis; ``beta`` scales the input's DequantizeLinear."""
    source = op.inputs[0]
    beta = np.float32(float_option(op, "beta"))
    params = context.params(source)
    if beta != 1:
        params = QuantParams(params.scale * beta, params.zero_point)
    real = context.writer.op(
        "Softmax",
        [context.adjusted_float_of(source, params, op.outputs[0])],
        context.name(op),
        axis=context.axis(source, len(context.tensor(source).shape) - 1),
    )
    context.define_quantized(op.outputs[0], real)


def requantize(context: ImportContext, source: int, target: int) -> None:
    """8 bit to 8 bit with another scale: nothing where the codes are equal, else XNNPACK's integer recipe (slope 1)."""
    before, after = context.params(source), context.params(target)
    if before.same_as(QuantParams(after.scale, after.zero_point, before.axis)):
        context.define(target, context.codes_of(source))
        return
    case = leaky_case(context, source, target, 1.0)
    wanted = xnnpack_table(case) if context.match_litert else None
    form = plain_form(case) if wanted is None else matched_leaky(case)
    if form is None:
        form = plain_form(case)
        context.notes.append(
            f"QUANTIZE {context.names[target]!r} follows the real function (<= 1 LSB): no float form reproduces LiteRT"
        )
    if wanted is not None and np.array_equal(float_table(case, plain_form(case)), wanted):
        form = plain_form(case)
    # a LeakyRelu even where its slope is 1: ONNX Runtime would merge Q -> DQ -> Q -> DQ into one pair and round once, not twice
    _leaky_node(context, (source, target), form, case.slope)
