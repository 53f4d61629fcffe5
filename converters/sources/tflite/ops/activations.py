"""Functions of one number: activations, alone or fused behind another operator, QUANTIZE, tables of codes, and CAST.

LEAKY_RELU, RELU, RELU6, RELU_N1_TO_1, LOGISTIC and SOFTMAX as operators of their own: LEAKY_RELU is bit exact with
LiteRT XNNPACK by default (``converters.leaky``); the others follow the real function.

Fused activations: RELU, RELU6 and RELU_N1_TO_1 behind another operator.

TFLite clamps codes: ``zero_point + round(bound / scale)``. Where the output's range ends there anyway, the
QuantizeLinear already clamps and nothing is written. Otherwise the clamp gets a QDQ pair of its own, so that the
operator in front keeps running in integers; its bounds are codes, dequantised, so it is bit exact.

QUANTIZE and DEQUANTIZE.

ABS, EXP, GELU, LOG, NEG, RSQRT, SQRT and TANH: on codes a table of LiteRT's; SQUARE on float32 alone, GELU on codes
alone.

CAST of 8-bit codes to float: the number that is stored, not the real value it stands for. Bit exact.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import UnsupportedModelError
from converters.graph import dequantize_node
from converters.integer.concatenated import fitted_scale
from converters.integer.functions import function_table, requantized_table, rescaled_table
from converters.integer.hard_swish import hard_swish_table
from converters.integer.logistic import logistic_table, settled_scale
from converters.leaky import FloatForm, LeakyCase, float_table, matched_leaky, plain_form, xnnpack_table
from converters.quant import QuantParams
from converters.sources.tflite.context import ImportContext, describe, float_option

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.leaky import Table
    from converters.sources.tflite.reader import TfliteOperator

BOUNDS: dict[str, tuple[float | None, float | None]] = {
    "NONE": (None, None),
    "RELU": (0.0, None),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
}


def close_with_activation(
    context: ImportContext, op: TfliteOperator, real: ir.Value, params: QuantParams | None = None
) -> None:
    """Quantise ``real`` to the operator's output, by ``params`` or its own, applying its fused activation."""
    activation = str(op.options.get("fused_activation", "NONE"))
    close_with_bounds(context, op, real, BOUNDS[activation], params)


def close_with_bounds(
    context: ImportContext,
    op: TfliteOperator,
    real: ir.Value,
    bounds: tuple[float | None, float | None],
    first: QuantParams | None = None,
) -> None:
    """Quantise ``real`` to the operator's output (by ``first``, if given), clamped to real ``bounds`` (None: unbounded)."""
    index, dtype, writer = op.outputs[0], context.code_dtype, context.writer
    if not context.is_quantized(index):
        context.define(index, clipped(context, op, real, bounds))
        return
    params, info = context.params(index), np.iinfo(context.code_dtype)
    scale, zero_point = params.scalar_scale, params.scalar_zero_point
    low, high = (None if bound is None else _code(bound, scale, zero_point) for bound in bounds)
    if (low is None or low <= info.min) and (high is None or high >= info.max):
        context.define_quantized(index, real, first)
        return
    codes = context.quantized(index, real, first or params, context.name(op, "unclamped"))
    real = dequantize_node(writer, codes, params, dtype, context.name(op, "clamp/dequantized"))
    limits = clip_limits(context, op, bounds)
    context.define_quantized(index, writer.op("Clip", [real, *limits], context.name(op, "clamp")))


def clipped(
    context: ImportContext, op: TfliteOperator, real: ir.Value, bounds: tuple[float | None, float | None]
) -> ir.Value:
    """Float32 numbers, clamped to ``bounds`` (None: unbounded)."""
    if bounds == (None, None):
        return real
    limits = [
        None if bound is None else context.writer.constant(np.float32(bound), context.name(op, f"clamp/{side}"))
        for bound, side in zip(bounds, ("min", "max"), strict=True)
    ]
    return context.writer.op("Clip", [real, *limits], context.name(op, "clamp"))


def code_bounds(context: ImportContext, op: TfliteOperator, activation: str = "") -> tuple[int, int]:
    """The lowest and the highest code of an operator's output, its fused activation included, or another one."""
    params, lowest = context.params(op.outputs[0]), int(np.iinfo(context.code_dtype).min)
    bounds = BOUNDS[activation or str(op.options.get("fused_activation", "NONE"))]
    return codes_between(bounds, params.scalar_scale, params.scalar_zero_point, lowest)


def codes_between(
    bounds: tuple[float | None, float | None], scale: np.float32, zero_point: int, lowest: int
) -> tuple[int, int]:
    """The lowest and the highest of 256 codes from ``lowest`` that lie inside real ``bounds`` (None: unbounded)."""
    low, high = (None if bound is None else _code(bound, scale, zero_point) for bound in bounds)
    highest = lowest + 255
    return max(lowest, lowest if low is None else low), min(highest, highest if high is None else high)


def clip_limits(
    context: ImportContext, op: TfliteOperator, bounds: tuple[float | None, float | None]
) -> list[ir.Value | None]:
    """Inputs 1 and 2 of a Clip to real ``bounds``, as the reals of the output's codes."""
    params = context.params(op.outputs[0])
    scale, zero_point = params.scalar_scale, params.scalar_zero_point
    return [
        None
        if bound is None
        else context.writer.constant(
            np.float32(_code(bound, scale, zero_point) - zero_point) * scale, context.name(op, f"clamp/{side}")
        )
        for bound, side in zip(bounds, ("min", "max"), strict=True)
    ]


def _code(bound: float, scale: np.float32, zero_point: int) -> int:
    """The code of a real bound, rounded half away from zero as TFLite does; codes beyond the dtype's range are fine."""
    with np.errstate(over="ignore"):  # a denormal scale: int() of the infinity is refused by the importer
        steps = np.float32(bound) / scale
    return zero_point + int(np.sign(steps) * np.floor(np.abs(steps) + np.float32(0.5)))


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
        unsigned=context.tensor(target).dtype == "uint8",
    )


def leaky_relu(context: ImportContext, op: TfliteOperator) -> None:
    """LEAKY_RELU: the float form whose table equals XNNPACK's; an explicit table where no float form does."""
    source, target = op.inputs[0], op.outputs[0]
    if not context.is_quantized(target):
        real, alpha = context.float_of(source), float_option(op, "alpha")
        context.define(target, context.writer.op("LeakyRelu", [real], context.names[target], alpha=alpha))
        return
    case = leaky_case(context, source, target, float_option(op, "alpha"))
    wanted = xnnpack_table(case) if context.match_litert else None
    form = plain_form(case) if wanted is None else matched_leaky(case)
    if context.match_litert and (wanted is None or form is None):
        close_by_table(context, op, rescaled_table(op.op, case) if wanted is None else wanted)
        return
    assert form is not None  # noqa: S101 - the line above leaves with None
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


def close_by_table(context: ImportContext, op: TfliteOperator, table: Table) -> None:
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


def look_up_rows(
    context: ImportContext, op: TfliteOperator, tables: NDArray[np.int64], rows: NDArray[np.int64]
) -> None:
    """``look_up`` in one of several tables.

    Args:
        context: the import.
        op: what is translated.
        tables: int64 ``(n, 256)``, for int8 codes.
        rows: which table serves each value; broadcast to the input's codes, in the graph's layout.
    """
    writer, target = context.writer, op.outputs[0]
    name, is_int8 = context.names[target], context.activations == "int8"
    index = writer.op("Cast", [context.codes_of(op.inputs[0])], f"{name}/index", to=6)  # INT32
    starts = (rows * 256 + (128 if is_int8 else 0)).astype(np.int32)
    index = writer.op("Add", [index, writer.constant(starts, f"{name}/rows")], f"{name}/row")
    written = tables if is_int8 else tables + 128
    values = writer.constant(written.reshape(-1).astype(context.code_dtype), f"{name}/table")
    context.define(target, writer.op("Gather", [values, index], name, axis=0))
    context.tell(target, target, "table")


def relu(context: ImportContext, op: TfliteOperator) -> None:
    """RELU, RELU6, RELU_N1_TO_1: requantised to the output's scale, then clamped.

    Bit exact where the scales are equal, as converters write them. Otherwise LiteRT's only kernel, a built-in one,
    rounds twice in 31-bit fixed point: a scale that gives the same codes is searched, and a table written where there
    is none.
    """
    source, target = op.inputs[0], op.outputs[0]
    if not context.is_quantized(target):
        context.define(target, clipped(context, op, context.float_of(source), BOUNDS[op.op]))
        return
    case, params = leaky_case(context, source, target, 1.0), context.params(source)
    if context.match_litert and case.scale_in != case.scale_out:
        wanted = rescaled_table(op.op, case)
        scale = fitted_scale(case, wanted)
        if scale is None:
            to_int8 = 0 if context.activations == "int8" else -128
            low, high = (bound + to_int8 for bound in code_bounds(context, op, op.op))
            close_by_table(context, op, np.clip(wanted, low, high))
            return
        params = QuantParams(np.array([scale], np.float32), params.zero_point)
    operands = [context.adjusted_float_of(source, params, target), *clip_limits(context, op, BOUNDS[op.op])]
    context.define_quantized(target, context.writer.op("Clip", operands, context.name(op)))


def logistic(context: ImportContext, op: TfliteOperator) -> None:
    """LOGISTIC: a Sigmoid whose results keep away from the edges of codes, else a table."""
    source, target = op.inputs[0], op.outputs[0]
    real = None
    if context.match_litert and context.is_quantized(target):
        case = leaky_case(context, source, target, 1.0)
        wanted = logistic_table(case)
        scale = settled_scale(case, wanted)
        if scale is None and not context.keeps_fused(op):
            close_by_table(context, op, wanted)
            return
        adjusted = context.params(source).scale if scale is None else np.array([scale], np.float32)
        real = context.adjusted_float_of(source, QuantParams(adjusted, context.params(source).zero_point), target)
    real = context.float_of(source) if real is None else real
    context.close(target, context.writer.op("Sigmoid", [real], context.name(op)))


def hard_swish(context: ImportContext, op: TfliteOperator) -> None:
    """HARD_SWISH: a table of LiteRT's codes; as the real function on float32, or where LiteRT is not matched."""
    source, target = op.inputs[0], op.outputs[0]
    if context.match_litert and context.is_quantized(target):
        close_by_table(context, op, hard_swish_table(leaky_case(context, source, target, 1.0)))
        return
    real = context.float_of(source)
    share = context.writer.op("HardSigmoid", [real], context.name(op, "share"), alpha=1 / 6, beta=0.5)
    context.close(target, context.writer.op("Mul", [real, share], context.name(op)))


def requantize(context: ImportContext, op: TfliteOperator) -> None:
    """8 bit to 8 bit with another scale: nothing where the codes are equal, else XNNPACK's integer recipe (slope 1).

    XNNPACK does not turn int8 into uint8, nor far scales into one another: the built-in kernel does.
    """
    source, target = op.inputs[0], op.outputs[0]
    before, after = context.params(source), context.params(target)
    if before.same_as(QuantParams(after.scale, after.zero_point, before.axis)):
        context.define(target, context.codes_of(source))
        return
    case = leaky_case(context, source, target, 1.0)
    form: FloatForm | None = plain_form(case)
    if context.match_litert:
        changes_type = context.tensor(source).dtype != context.tensor(target).dtype
        count = math.prod(context.tensor(source).shape)
        wanted = requantized_table(op.op, case, changes_type=changes_type, count=count)
        if not np.array_equal(float_table(case, plain_form(case)), wanted):
            form = matched_leaky(case)
            if form is None or not np.array_equal(float_table(case, form), wanted):
                scale = fitted_scale(case, wanted)
                form = None if scale is None else FloatForm(scale, np.float32(1))
        if form is None:
            close_by_table(context, op, wanted)
            return
    assert form is not None  # noqa: S101 - the line above leaves with None
    # a LeakyRelu even where its slope is 1: ONNX Runtime would merge Q -> DQ -> Q -> DQ into one pair and round once,
    # not twice
    _leaky_node(context, (source, target), form, case.slope)


def quantize(context: ImportContext, op: TfliteOperator) -> None:
    """QUANTIZE from float, or from 8 bit to 8 bit (nothing at all where the dialect makes both sides equal)."""
    source, target = op.inputs[0], op.outputs[0]
    if target in context.values:  # the image input found that the pixels are these codes
        return
    if context.is_quantized(source):
        requantize(context, op)
    else:
        context.define_quantized(target, context.float_of(source))


def dequantize(context: ImportContext, op: TfliteOperator) -> None:
    """DEQUANTIZE: the codes' own DequantizeLinear; float16 constants become float32 at conversion."""
    source = context.constants.get(op.inputs[0])
    if source is not None and source.dtype == np.float16:
        context.constants[op.outputs[0]] = source.astype(np.float32)
        return
    context.define(op.outputs[0], context.float_of(op.inputs[0]))


def cast(context: ImportContext, op: TfliteOperator) -> None:
    """CAST from int8 or uint8 to float32, as a DequantizeLinear with scale 1; integers are folded elsewhere."""
    source, target = op.inputs[0], op.outputs[0]
    if context.tensor(source).dtype in ("int32", "int64") and context.tensor(target).dtype == "float32":
        context.define(
            target, context.writer.op("Cast", [context.codes_of(source)], context.names[target], to=1)
        )  # FLOAT
        return
    if not context.is_quantized(source) or context.tensor(target).dtype != "float32":
        msg = (
            f"{context.model.file}: {describe(context, op)} turns {context.tensor(source).dtype} into "
            f"{context.tensor(target).dtype} at run time; only codes and integers to float32 are supported"
        )
        raise UnsupportedModelError(msg)
    params = QuantParams.per_tensor(1.0, context.shift(source))
    context.define(
        target,
        dequantize_node(context.writer, context.codes_of(source), params, context.code_dtype, context.names[target]),
    )


TABLES_ALONE = frozenset({"NEG", "GELU"})
"""Functions that are a table on codes whatever is asked: NEG does not look at scales, and GELU has no operator of its own."""
FUNCTION_NODES = {
    "ABS": ("Abs",),
    "EXP": ("Exp",),
    "TANH": ("Tanh",),
    "NEG": ("Neg",),
    "SQRT": ("Sqrt",),
    "RSQRT": ("Sqrt", "Reciprocal"),
    "LOG": ("Log",),
    "SQUARE": ("Mul",),
}


def function(context: ImportContext, op: TfliteOperator) -> None:
    """The table of LiteRT's codes; the real function on float32, or where LiteRT is not matched."""
    source, target = op.inputs[0], op.outputs[0]
    if context.is_quantized(target) and (context.match_litert or op.op in TABLES_ALONE):
        approximate = ", approximate" if op.options.get("approximate") else ""
        close_by_table(context, op, function_table(op.op + approximate, leaky_case(context, source, target, 1.0)))
        return
    real = context.float_of(source)
    for node in FUNCTION_NODES[op.op]:
        real = context.writer.op(node, [real] * (2 if node == "Mul" else 1), context.name(op, node.lower()))
    context.close(target, real)
