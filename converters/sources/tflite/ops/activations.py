"""Functions of one number: activations, alone or fused behind another operator, QUANTIZE, tables of codes, and CAST.

LEAKY_RELU, RELU, RELU6, RELU_N1_TO_1 and LOGISTIC as operators of their own: LEAKY_RELU is bit exact with LiteRT
XNNPACK by default (``converters.leaky``); the others follow the real function.

Fused activations: RELU, RELU6 and RELU_N1_TO_1 behind another operator.

TFLite clamps codes: ``zero_point + round(bound / scale)``. Where the output's range ends there anyway, the
QuantizeLinear already clamps and nothing is written. Otherwise the clamp gets a QDQ pair of its own, so that the
operator in front keeps running in integers; its bounds are codes, dequantised, so it is bit exact.

ABS, EXP, GELU, LOG, NEG, RSQRT, SQRT and TANH: on codes a table of LiteRT's; SQUARE on float32 alone, GELU on codes
alone.

CAST of 8-bit codes to float: the number that is stored, not the real value it stands for. Bit exact.

SOFTMAX of codes as LiteRT's built-in kernel computes it (``converters.integer.functions``), in standard operators. The
exponentials are looked up with Gather, and added up by one Sum of all classes, which adds them in their order, or by
CumSum where there are many (a Sum of 1,001 operands has no shape for onnx's inference). On ONNX Runtime this takes 0.6
(bins of boxes, not on the last axis) to 6 times (91 classes, on the last axis) the time of one Softmax. GatherElements
would be four times as fast as Gather, and fails on onnx's reference evaluator for tables beyond 64 entries.
``--arithmetic fused`` keeps the one Softmax, within 1 LSB.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np

from converters._ir import ir
from converters.errors import UnsupportedModelError
from converters.graph import dequantize_node
from converters.integer.functions import (
    BLOCK,
    HALVES,
    exponentials,
    fitted_scale,
    function_table,
    hard_swish_table,
    logistic_table,
    requantized_table,
    rescaled_table,
    settled_scale,
)
from converters.integer.kernels import MOVERS
from converters.leaky import (
    FloatForm,
    LeakyCase,
    float_table,
    matched_leaky,
    plain_form,
    xnnpack_multipliers,
    xnnpack_table,
)
from converters.quant import QuantParams
from converters.sources.tflite.context import ImportContext, per_tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.leaky import CodeTable
    from converters.sources.tflite.reader import TfliteModel, TfliteOperator

Bounds = tuple[float | None, float | None]
BOUNDS: dict[str, Bounds] = {
    "NONE": (None, None),
    "RELU": (0.0, None),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
}
INT32 = int(ir.DataType.INT32)


def reads_float(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether the first operand is float32."""
    return model.tensors[op.inputs[0]].dtype == "float32"


def is_outside_xnnpack(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether XNNPACK's LeakyReLU does not take the operator, by its scales and slope."""
    quants = per_tensor(model, op.inputs[0], op.outputs[0])
    if quants is None:
        return False
    before, after = (model.tensors[index].dtype for index in (op.inputs[0], op.outputs[0]))
    if quants[0].shifted(128 * ((before == "int8") - (after == "int8"))).same_as(quants[1]):
        return False
    slope = np.float32(cast("float", op.options.get("alpha", 1.0)))
    case = LeakyCase(quants[0].scalar_scale, 0, quants[1].scalar_scale, 0, slope)
    return before != after or xnnpack_multipliers(case) is None


def rounds_both_ways(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether the built-in QUANTIZE has values behind its last block, which it rounds another way."""
    count = math.prod(model.tensors[op.inputs[0]].shape)
    return is_outside_xnnpack(model, op) and count > BLOCK and count % BLOCK != 0


def fused_bounds(op: TfliteOperator) -> Bounds:
    """The real bounds of an operator's fused activation."""
    return BOUNDS[str(op.options.get("fused_activation", "NONE"))]


def close_with_activation(context: ImportContext, real: ir.Value, params: QuantParams | None = None) -> None:
    """Quantise ``real`` to the operator's output, by ``params`` or its own, applying its fused activation."""
    bounds = fused_bounds(context.op)
    if not context.is_quantized(context.target):
        context.define(context.target, _clipped(context, real, bounds))
    elif code_bounds(context) == (context.lowest_code, context.lowest_code + 255):
        context.define_quantized(real, params)
    else:
        real = context.rounded(real, params or context.params(context.target), ("unclamped", "clamp/dequantized"))
        context.define_quantized(_clipped(context, real, bounds))


def _clipped(context: ImportContext, real: ir.Value, bounds: Bounds) -> ir.Value:
    if bounds == (None, None):
        return real
    return context.node("Clip", [real, *_clip_limits(context, bounds)], "clamp")


def code_bounds(context: ImportContext, bounds: Bounds | None = None) -> tuple[int, int]:
    """The lowest and the highest code of the operator's output inside ``bounds``, or those of its fused activation."""
    params = context.params(context.target)
    bounds = fused_bounds(context.op) if bounds is None else bounds
    return codes_between(bounds, params.scalar_scale, params.scalar_zero_point, context.lowest_code)


def codes_between(bounds: Bounds, scale: np.float32, zero_point: int, lowest: int) -> tuple[int, int]:
    """The lowest and the highest of 256 codes from ``lowest`` that lie inside real ``bounds`` (None: unbounded)."""
    low, high = (None if bound is None else _code(bound, scale, zero_point) for bound in bounds)
    highest = lowest + 255
    return max(lowest, lowest if low is None else low), min(highest, highest if high is None else high)


def clipped_codes(context: ImportContext, codes: ir.Value, dtype: type[np.int32 | np.float64]) -> ir.Value:
    """Numbers of codes inside the output's, its fused activation included."""
    limits = [
        context.initializer(dtype(bound), f"{side} code")
        for side, bound in zip(("lowest", "highest"), code_bounds(context), strict=True)
    ]
    return context.node("Clip", [codes, *limits], "clipped")


def _clip_limits(context: ImportContext, bounds: Bounds) -> list[ir.Value | None]:
    """Inputs 1 and 2 of a Clip to real ``bounds``; of a quantised output as the reals of its codes."""
    limits: list[ir.Value | None] = []
    for bound, side in zip(bounds, ("min", "max"), strict=True):
        number = None if bound is None else np.float32(bound)
        if bound is not None and context.is_quantized(context.target):
            params = context.params(context.target)
            scale, zero_point = params.scalar_scale, params.scalar_zero_point
            number = np.float32(_code(bound, scale, zero_point) - zero_point) * scale
        limits.append(None if number is None else context.initializer(number, f"clamp/{side}"))
    return limits


def _code(bound: float, scale: np.float32, zero_point: int) -> int:
    """The code of a real bound, rounded half away from zero as TFLite does; codes beyond the dtype's range are fine."""
    with np.errstate(over="ignore"):  # a denormal scale: int() of the infinity is refused by the importer
        steps = np.float32(bound) / scale
    return zero_point + int(np.sign(steps) * np.floor(np.abs(steps) + np.float32(0.5)))


def leaky_case(context: ImportContext, source: int, slope: float = 1.0) -> LeakyCase:
    """The arithmetic of ``target = leaky(source)`` on int8 codes, whatever dialect the graph has."""
    before, after = context.params(source), context.params(context.target)
    return LeakyCase(
        scale_in=before.scalar_scale,
        zero_point_in=before.scalar_zero_point + context.to_int8,
        scale_out=after.scalar_scale,
        zero_point_out=after.scalar_zero_point + context.to_int8,
        slope=np.float32(slope),
        unsigned=context.tensor(context.target).dtype == "uint8",
    )


def leaky_relu(context: ImportContext) -> None:
    """LEAKY_RELU: the float form whose table equals XNNPACK's; an explicit table where no float form does."""
    alpha, target = context.float_option("alpha"), context.target
    if not context.is_quantized(target):
        real = context.float_of(context.source)
        context.define(target, context.writer.op("LeakyRelu", [real], context.names[target], alpha=alpha))
        return
    case = leaky_case(context, context.source, alpha)
    form = plain_form(case)
    if context.match_litert:
        table = xnnpack_table(case)
        matched = None if table is None else matched_leaky(case)
        if table is None or matched is None:
            close_by_table(context, rescaled_table("LEAKY_RELU", case) if table is None else table)
            return
        if not np.array_equal(float_table(case, form), table):
            form = matched
    _close_leaky(context, form, case.slope)


def _close_leaky(context: ImportContext, form: FloatForm, slope: np.float32) -> None:
    """A LeakyRelu from the operator's input to its output; ``slope`` is the source's own."""
    context.tell(context.target, "slope", (float(slope), float(form.slope)))
    real = context.node("LeakyRelu", [rescaled_float_of(context, form.scale)], alpha=float(form.slope))
    context.define_quantized(real)


def rescaled_float_of(context: ImportContext, scale: np.float32, source: int | None = None) -> ir.Value:
    """An operand (None: the first) by another scale than its own."""
    index = context.source if source is None else source
    params = QuantParams.per_tensor(float(scale), context.params(index).scalar_zero_point)
    return context.adjusted_float_of(index, params)


def close_by_table(context: ImportContext, table: CodeTable) -> None:
    """All output codes looked up: always exact, slower than a fused activation."""
    codes = context.codes_of(context.source)
    context.define(context.target, look_up(context, codes, table, context.names[context.target]))


def look_up(context: ImportContext, codes: ir.Value, table: CodeTable, name: str) -> ir.Value:
    """256 output codes (int64, for int8 codes -128..127) looked up with Gather, and told as a deviation."""
    writer = context.writer
    index = writer.op("Cast", [codes], f"{name}/index", to=INT32)
    if context.activations == "int8":
        index = writer.op("Add", [index, writer.constant(np.int32(128), f"{name}/128")], f"{name}/row")
    context.notes.append(
        f"{context.op.op} {context.names[context.target]!r} is written as a 256-entry table: no float form reproduces "
        "it"
    )
    return _gathered(context, table, index, name)


def look_up_rows(context: ImportContext, tables: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
    """``look_up`` in one of several tables, int64 ``(n, 256)`` for int8 codes.

    ``rows`` say which table serves each value; they broadcast to the input's codes, in the graph's layout.
    """
    writer, name = context.writer, context.names[context.target]
    index = writer.op("Cast", [context.codes_of(context.source)], f"{name}/index", to=INT32)
    starts = (rows * 256 - context.lowest_code).astype(np.int32)
    index = writer.op("Add", [index, writer.constant(starts, f"{name}/rows")], f"{name}/row")
    context.define(context.target, _gathered(context, tables.reshape(-1), index, name))


def _gathered(context: ImportContext, table: CodeTable, index: ir.Value, name: str) -> ir.Value:
    """Entries of a table for int8 codes, in the dialect's."""
    values = context.writer.constant((table - context.to_int8).astype(context.code_dtype), f"{name}/table")
    context.tell(context.target, "table")
    return context.writer.op("Gather", [values, index], name, axis=0)


def relu(context: ImportContext) -> None:
    """RELU, RELU6, RELU_N1_TO_1: requantised to the output's scale, then clamped.

    Bit exact where the scales are equal, as converters write them. Otherwise LiteRT's only kernel, a built-in one,
    rounds twice in 31-bit fixed point: a scale that gives the same codes is searched, and a table written where there
    is none.
    """
    source, kind = context.source, context.op.op
    if not context.is_quantized(context.target):
        context.define(context.target, _clipped(context, context.float_of(source), BOUNDS[kind]))
        return
    case = leaky_case(context, source)
    scale = case.scale_in
    if context.match_litert and case.scale_in != case.scale_out:
        table = rescaled_table(kind, case)
        fitted = fitted_scale(case, table)
        if fitted is None:
            low, high = (bound + context.to_int8 for bound in code_bounds(context, BOUNDS[kind]))
            close_by_table(context, np.clip(table, low, high))
            return
        scale = fitted
    operands = [rescaled_float_of(context, scale), *_clip_limits(context, BOUNDS[kind])]
    context.define_quantized(context.node("Clip", operands))


def logistic(context: ImportContext) -> None:
    """LOGISTIC: a Sigmoid whose results keep away from the edges of codes, else a table."""
    source = context.source
    if context.match_litert and context.is_quantized(context.target):
        case = leaky_case(context, source)
        table = logistic_table(case)
        scale = settled_scale(case, table)
        if scale is None and not context.keeps_fused():
            close_by_table(context, table)
            return
        real = rescaled_float_of(context, case.scale_in if scale is None else scale)
    else:
        real = context.float_of(source)
    context.close(context.node("Sigmoid", [real]))


def quantize(context: ImportContext) -> None:
    """QUANTIZE from float, or from 8 bit to 8 bit: nothing where the codes are equal, else XNNPACK's recipe (slope 1).

    XNNPACK does not turn int8 into uint8, nor far scales into one another: the built-in kernel does.
    """
    source, target = context.source, context.target
    if target in context.values:  # the image input found that the pixels are these codes
        return
    if not context.is_quantized(source):
        real = context.float_of(source)
        if _moves_codes(real):  # as below, so that ONNX Runtime rounds twice
            real = context.node("LeakyRelu", [real], alpha=1.0)
        context.define_quantized(real)
        return
    before, after = context.params(source), context.params(target)
    if before.same_as(QuantParams(after.scale, after.zero_point, before.axis)):
        context.define(target, context.codes_of(source))
        return
    case = leaky_case(context, source)
    form: FloatForm | None = plain_form(case)
    if context.match_litert:
        changes_type = context.tensor(source).dtype != context.tensor(target).dtype
        count = math.prod(context.shape(source))
        table = requantized_table("QUANTIZE", case, changes_type=changes_type, count=count)
        form = _form_of(case, table)
        if form is None:
            close_by_table(context, table)
            return
    assert form is not None  # noqa: S101 - the lines above leave with None
    # a LeakyRelu even where its slope is 1: ONNX Runtime would merge Q -> DQ -> Q -> DQ into one pair and round once,
    # not twice
    _close_leaky(context, form, case.slope)


def _form_of(case: LeakyCase, table: CodeTable) -> FloatForm | None:
    """The plainest float form with these codes: the file's own numbers, those of a LeakyReLU, or a fitted scale."""
    plain = plain_form(case)
    if np.array_equal(float_table(case, plain), table):
        return plain
    matched = matched_leaky(case)
    if matched is not None and np.array_equal(float_table(case, matched), table):
        return matched
    scale = fitted_scale(case, table)
    return None if scale is None else FloatForm(scale, np.float32(1))


def _moves_codes(real: ir.Value) -> bool:
    """Whether numbers are those of a QuantizeLinear -> DequantizeLinear pair, moved at most."""
    value: ir.Value | None = real
    for kind in ("DequantizeLinear", "QuantizeLinear"):
        node = None if value is None else value.producer()
        while node is not None and node.op_type in MOVERS and node.inputs[0] is not None:
            node = node.inputs[0].producer()
        if node is None or node.op_type != kind:
            return False
        value = node.inputs[0]
    return True


def dequantize(context: ImportContext) -> None:
    """DEQUANTIZE: the codes' own DequantizeLinear; float16 constants become float32 at conversion."""
    constant = context.constants.get(context.source)
    if constant is not None and constant.dtype == np.float16:
        context.constants[context.target] = constant.astype(np.float32)
        return
    context.define(context.target, context.float_of(context.source))


def cast_operator(context: ImportContext) -> None:
    """CAST from int8 or uint8 to float32, as a DequantizeLinear with scale 1; integers are folded elsewhere."""
    source, target, name = context.source, context.target, context.names[context.target]
    before, after = (context.tensor(index).dtype for index in (source, target))
    if before in ("int32", "int64") and after == "float32":
        real = context.writer.op("Cast", [context.codes_of(source)], name, to=int(ir.DataType.FLOAT))
    elif context.is_quantized(source) and after == "float32":
        params = QuantParams.per_tensor(1.0, context.shift(source))
        real = dequantize_node(context.writer, context.codes_of(source), params, context.code_dtype, name)
    else:
        raise UnsupportedModelError(
            f"{context.where} turns {before} into {after} at run time; only codes and integers to float32 are supported"
        )
    context.define(target, real)


TABLES_ALONE = frozenset({"NEG", "GELU"})
"""Always a table on codes: NEG does not look at scales, and GELU has no operator of its own."""
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


def function(context: ImportContext) -> None:
    """The table of LiteRT's codes; the real function on float32, or where LiteRT is not matched."""
    kind = context.op.op
    if context.is_quantized(context.target) and (context.match_litert or kind in TABLES_ALONE):
        approximate = ", approximate" if context.op.options.get("approximate") else ""
        case = leaky_case(context, context.source)
        close_by_table(
            context, hard_swish_table(case) if kind == "HARD_SWISH" else function_table(kind + approximate, case)
        )
        return
    real = context.float_of(context.source)
    if kind == "HARD_SWISH":
        share = context.node("HardSigmoid", [real], "share", alpha=1 / 6, beta=0.5)
        real = context.node("Mul", [real, share])
    else:
        for node in FUNCTION_NODES[kind]:
            real = context.node(node, [real] * (2 if node == "Mul" else 1), node.lower())
    context.close(real)


LEVELS = np.float32(256)
MOST_PARTS = 128  # of a Sum


def softmax(context: ImportContext) -> None:
    """SOFTMAX over the last source axis: LiteRT's integers, or one Softmax, where ``beta`` scales the input.

    Between codes a Min with 1, which changes nothing, keeps it in float32. Integer kernels are no nearer to LiteRT and
    slower (ONNX Runtime), give the lowest code for one class, which is 1 everywhere (the same, 1.15 to 1.30), or are
    wrong (tract).
    """
    source, beta = context.source, np.float32(context.float_option("beta"))
    if context.is_quantized(source):
        if context.is_quantized(context.target) and context.match_litert and not context.keeps_fused():
            _step_by_step(context)
            return
        real = context.adjusted_float_of(source, _times_beta(context))
    else:
        real = context.float_of(source)
        if beta != 1:
            real = context.node("Mul", [real, context.initializer(beta, "beta")], "times beta")
    axis = context.axis(source, len(context.shape(source)) - 1)
    probabilities = context.node("Softmax", [real], axis=axis)
    if context.is_quantized(source):
        one = context.initializer(np.float32(1), "one")
        probabilities = context.node("Min", [probabilities, one], "at most one")
    context.close(probabilities)


def _step_by_step(context: ImportContext) -> None:
    source, target = context.source, context.target
    classes = context.shape(source)[-1]
    axis = context.axis(source, len(context.shape(source)) - 1)

    def step(kind: str, suffix: str, *operands: ir.Value | np.generic | np.ndarray, **attributes: int) -> ir.Value:
        values = [
            operand if isinstance(operand, ir.Value) else context.initializer(operand, f"{suffix}/number{i}")
            for i, operand in enumerate(operands)
        ]
        return context.node(kind, values, suffix, **attributes)

    codes = context.codes_of(source)
    largest = step("ReduceMax", "largest", codes, np.array([axis], np.int64), keepdims=1)
    ends = [context.wide(value, f"wide{i}") for i, value in enumerate((largest, codes))]
    table = exponentials(_times_beta(context).scalar_scale)
    raised = step("Gather", "raised", table, step("Sub", "below", *ends), axis=0)
    if classes > MOST_PARTS:
        sums = step("CumSum", "sums", raised, np.int64(axis))
        total = step("Gather", "total", sums, np.array([classes - 1], np.int64), axis=axis)
    else:
        sizes, names = np.ones(classes, np.int64), [context.name(f"class{i}") for i in range(classes)]
        parts = context.writer.ops("Split", [raised, context.initializer(sizes, "sizes")], names, axis=axis)
        total = context.node("Sum", parts, "total")
    scale, zero_point = context.params(target).scalar_scale, context.params(target).scalar_zero_point
    if scale * LEVELS != 1:
        total = step("Mul", "sum", total, scale * LEVELS)
    # a Div of 1 ONNX Runtime would join with the Mul behind it
    inverse = step("Div", "inverse", LEVELS, total)
    half = HALVES[context.tensor(target).dtype]
    steps = step("Floor", "steps", step("Add", "half a code", step("Mul", "shares", raised, inverse), half))
    if zero_point:
        steps = step("Add", "codes", steps, np.float32(zero_point))
    low, high = np.float32(context.lowest_code), np.float32(context.lowest_code + 255)
    context.define_computed(step("Clip", "clipped", steps, low, high))


def _times_beta(context: ImportContext) -> QuantParams:
    """The input's quantisation with ``beta`` in its scale."""
    params = context.params(context.source)
    return QuantParams(params.scale * np.float32(context.float_option("beta")), params.zero_point, params.axis)
