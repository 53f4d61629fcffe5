"""Operators written step by step in integers, where no fused operator has LiteRT's codes.

``--arithmetic fused`` keeps the fused operator instead, within 1 LSB.

Sums of products as LiteRT's built-in kernels requantise them: 31-bit fixed point, rounded twice. Runtimes multiply a
sum by one float32 factor and round once. The built-in kernels multiply by 31 bits, round half up, divide by a power of
two and round again (``converters.integer.functions.rescaled``). Float64 holds every step: a sum of 24 bits times 31
bits needs 55, of which 53 are kept, which moves no sum that is not within 2^-26 of a half. Seven elementwise operators
on the product.

ADD, SUB and MUL, for the few whose fused form cannot be exact (``converters.integer.pair_search``). A sum is XNNPACK's
own: int32 codes times integer multipliers, a constant that keeps the total above zero, a division by a power of two
that therefore rounds down: about ten elementwise operators instead of one. A product is that of centred codes in
float32, which holds it, times one float32 factor, rounded half to even: six operators. Bit exact on every runtime with
IEEE arithmetic. What XNNPACK does not take is looked up in a table of all pairs.

RESIZE_BILINEAR, where ONNX's Resize cannot be exact. XNNPACK's weights are whole multiples of 2^-11: per axis
``2048 - w`` of the lower neighbour and ``w`` of the upper one. The sum over both axes is an int32 number of 22
fractional bits, rounded half up: codes as int32, per axis two Gather and a weighted sum, a division by 2^22. Bit exact
on every runtime; about fifteen elementwise operators instead of one. Source of the recipe: google/XNNPACK,
``src/indirection.c`` (xnn_indirection_init_resize_bilinear2d_hwc_q11) and ``src/s8-ibilinear``.

SOFTMAX, of codes as LiteRT's built-in kernel computes it (``converters.integer.functions``), in standard operators.

The exponentials are looked up with Gather, and added up by one Sum of all classes, which adds them in their order, or
by CumSum where there are many (a Sum of 1,001 operands has no shape for onnx's inference). On ONNX Runtime this takes
0.6 (bins of boxes, not on the last axis) to 6 times (91 classes, on the last axis) the time of one Softmax.
GatherElements would be four times as fast as Gather, and fails on onnx's reference evaluator for tables beyond 64
entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters._ir import ir
from converters.graph import dequantize_node, quantize_node
from converters.integer.functions import HALVES, exponentials, quantized_multiplier
from converters.integer.pairs import builtin_codes, product_factor, sum_multipliers
from converters.quant import QuantParams
from converters.sources.tflite.ops.activations import code_bounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from converters.integer.pairs import PairCase
    from converters.sources.tflite.context import ImportContext
    from converters.sources.tflite.reader import TfliteOperator

ONE = 2048
LIFT = 128  # turns int8 codes into such that are never below zero, so that a division rounds down
LEVELS = np.float32(256)
MOST_PARTS = 128  # of a Sum
COARSE = ONE // 8  # Resize is exact for multiples of this weight: ties and the nudge of ``ops.averages`` are far apart


def is_fixed_point(context: ImportContext) -> bool:
    """Whether a product of codes is written step by step."""
    quantized = all(context.is_quantized(index) for index in (context.op.inputs[1], context.target))
    return context.match_litert and quantized and not context.keeps_fused()


def integer_product(context: ImportContext, a: ir.Value, b: ir.Value) -> ir.Value:
    """The int32 sums of products of two matrices of codes, less their zero-points."""
    zero_points = [
        context.initializer(context.code_dtype(context.params(index).scalar_zero_point), f"zero{position}")
        for position, index in enumerate(context.op.inputs[:2])
    ]
    return context.node("MatMulInteger", [a, b, *zero_points], "sums")


def requantized(
    context: ImportContext, sums: ir.Value, name: str, *, halves_up: bool, factors: NDArray[np.float64] | None = None
) -> ir.Value:
    """The operator's output codes, by int32 sums of products in any layout.

    The second rounding takes halves up, or away from zero. ``factors`` (in a shape that broadcasts) multiply the sums;
    None: by the first two operands' scales.
    """

    def step(kind: str, value: ir.Value, number: NDArray[np.float64] | float, suffix: str) -> ir.Value:
        return context.step(kind, value, np.asarray(number, np.float64), suffix)

    if factors is None:
        a, b, out = (context.params(index).scalar_scale for index in (*context.op.inputs[:2], context.target))
        with np.errstate(over="ignore", under="ignore"):
            factors = np.array(float(a * b) / float(out))
    pairs = np.array([quantized_multiplier(float(factor)) for factor in factors.flat])
    multiplier, shift = (pairs[:, i].reshape(factors.shape) for i in (0, 1))
    scale = np.ldexp(multiplier.astype(np.float64), np.maximum(shift, 0) - 31)
    real = context.node("Cast", [sums], "real", to=int(ir.DataType.DOUBLE))
    fine = context.node("Floor", [step("Add", step("Mul", real, scale, "scaled"), 0.5, "half")], "fine")
    size = fine if halves_up else context.node("Abs", [fine], "size")
    divided = step("Mul", size, np.ldexp(1.0, np.minimum(shift, 0)), "divided")
    steps = context.node("Floor", [step("Add", divided, 0.5, "half a code")], "steps")
    if not halves_up:
        steps = context.node("Mul", [steps, context.node("Sign", [fine], "sign")], "signed")
    codes = step("Add", steps, context.params(context.target).scalar_zero_point, "codes")
    context.tell(context.target, "table")
    return context.as_codes(_clipped(context, codes, np.float64), name)


def _clipped(context: ImportContext, codes: ir.Value, dtype: type[np.int32 | np.float64]) -> ir.Value:
    """Numbers of codes inside the output's, its fused activation included."""
    limits = [
        context.initializer(dtype(bound), f"{side} code")
        for side, bound in zip(("lowest", "highest"), code_bounds(context), strict=True)
    ]
    return context.node("Clip", [codes, *limits], "clipped")


def close_pair(context: ImportContext, case: PairCase, operands: Sequence[ir.Value]) -> None:
    """Compute an operator that XNNPACK takes from the codes of its operands, its fused activation included."""
    context.notes.append(
        f"{context.op.op} {context.names[context.target]!r} is computed step by step: no fused form equals LiteRT in "
        "every pair"
    )
    if case.op == "MUL":
        context.tell(context.target, "table")
        _close_product(context, case, operands)
    else:
        context.define_computed(_clipped(context, _sum(context, case, operands), np.int32))


def look_up_pair(context: ImportContext, case: PairCase, operands: Sequence[ir.Value]) -> None:
    """Look up an operator that LiteRT's built-in kernel computes: a code for each of 65,536 pairs."""
    name = context.names[context.target]
    rows, columns = (context.wide(codes, f"wide{position}") for position, codes in enumerate(operands))
    index = context.node("Add", [context.step("Mul", rows, np.int32(256), "row"), columns], "pair")
    if case.lowest:
        index = context.step("Add", index, np.int32(-257 * case.lowest), "index")
    table = np.clip(builtin_codes(case), *code_bounds(context)).reshape(-1).astype(context.code_dtype)
    values = context.initializer(table, "table")
    context.define(context.target, context.writer.op("Gather", [values, index], name, axis=0))
    context.tell(context.target, "table")
    context.notes.append(
        f"{context.op.op} {name!r} is looked up in a table of 65,536 pairs: XNNPACK does not take it, and LiteRT's "
        "built-in kernel has integers of its own"
    )


def _sum(context: ImportContext, case: PairCase, operands: Sequence[ir.Value]) -> ir.Value:
    m = sum_multipliers(case)
    codes = np.array([case.lowest, case.lowest + 255], np.int64)
    totals = (codes - case.a.zero_point)[:, None] * m.m_a + (codes - case.b.zero_point)[None] * m.m_b
    lift = max(0, -(int(totals.min()) >> m.shift))  # steps that keep the total above zero
    start = (lift << m.shift) + (1 << (m.shift - 1)) - case.a.zero_point * m.m_a - case.b.zero_point * m.m_b
    wide = [context.wide(codes, f"wide{position}") for position, codes in enumerate(operands)]
    if int(totals.max()) + (lift << m.shift) + (1 << (m.shift - 1)) >= 2**31:
        raise OverflowError("its sums do not fit 32 bits")  # told with the operator's name
    terms = [
        context.step("Mul", value, np.int32(factor), f"term{position}")
        for position, (value, factor) in enumerate(zip(wide, (m.m_a, m.m_b), strict=True))
    ]
    total = context.step("Add", context.node("Add", terms, "total"), np.int32(start), "lifted")
    steps = context.step("Div", total, np.int32(1 << m.shift), "steps")
    return context.step("Add", steps, np.int32(case.out.zero_point - lift), "codes")


def _close_product(context: ImportContext, case: PairCase, operands: Sequence[ir.Value]) -> None:
    """Centred codes as DequantizeLinear with scale 1 gives them, their product, one float32 factor, Round."""
    writer, dtype = context.writer, context.code_dtype
    a, b, out = (QuantParams.per_tensor(1.0, affine.zero_point) for affine in (case.a, case.b, case.out))
    centred = [
        dequantize_node(writer, codes, params, dtype, context.name(f"centred{position}"))
        for position, (params, codes) in enumerate(zip((a, b), operands, strict=True))
    ]
    steps = context.step("Mul", context.node("Mul", centred, "product"), product_factor(case), "scaled")
    rounded = context.node("Round", [steps], "rounded")
    low, high = code_bounds(context)
    if (low, high) != (case.lowest, case.lowest + 255):
        limits = [
            context.initializer(np.float32(bound - case.out.zero_point), f"{side} step")
            for side, bound in (("lowest", low), ("highest", high))
        ]
        rounded = context.node("Clip", [rounded, *limits], "clipped")
    context.define(context.target, quantize_node(writer, rounded, out, dtype, context.names[context.target]))


@dataclass(frozen=True, slots=True)
class AxisWeights:
    """How new positions of one axis are made of old ones.

    Attributes:
        lower: int64 ``(new size,)``, the old position below.
        upper: the one above, with ``weight``.
        weight: int32, 0..2048.
    """

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    weight: NDArray[np.int32]

    @property
    def is_coarse(self) -> bool:
        """Whether ONNX's Resize gives the same codes."""
        return not bool((self.weight % COARSE).any())


def axis_weights(op: TfliteOperator, size: int, new_size: int) -> AxisWeights:
    """XNNPACK's weights along one axis, in its float32 arithmetic."""
    aligned = bool(op.options["align_corners"]) and new_size > 1
    ratio = np.float32(size - aligned) / np.float32(new_size - aligned)
    half = np.float32(0.5 if op.options["half_pixel_centers"] else 0.0)
    position = np.clip((np.arange(new_size, dtype=np.float32) + half) * ratio - half, 0, np.float32(size - 1))
    lower = position.astype(np.int64)
    weight = np.rint((position - lower.astype(np.float32)) * np.float32(ONE)).astype(np.int32)
    return AxisWeights(lower, np.minimum(lower + 1, size - 1), weight)


def close_resize(context: ImportContext, rows: AxisWeights, columns: AxisWeights) -> None:
    """Resize the codes of an operator's input along height and width."""
    lift = LIFT if context.activations == "int8" else 0

    def step(kind: str, value: ir.Value, number: int, constant: str, suffix: str) -> ir.Value:
        return context.node(kind, [value, context.initializer(np.int32(number), f"{constant}/number")], suffix)

    value = context.wide(context.codes_of(context.source), "wide")
    if lift:
        value = step("Add", value, lift, "lift", "lifted")
    value = _interpolated(context, value, 3, columns)
    value = _interpolated(context, value, 2, rows)
    value = step("Add", value, ONE * ONE // 2, "half", "half up")
    value = step("Div", value, ONE * ONE, "one", "steps")
    if lift:
        value = step("Sub", value, lift, "lift", "codes")
    context.define_computed(value)
    context.notes.append(
        f"{context.op.op} {context.names[context.target]!r} is computed step by step in integers: ONNX's Resize has "
        "other weights than LiteRT"
    )


def _interpolated(context: ImportContext, value: ir.Value, axis: int, weights: AxisWeights) -> ir.Value:
    """Both neighbours along an axis of an int32 image ``(N, C, H, W)``, weighted and added."""
    what, shape = ("rows", (-1, 1)) if axis == 2 else ("columns", (-1,))
    terms = []
    sides = (("lower", weights.lower, ONE - weights.weight), ("upper", weights.upper, weights.weight))
    for side, positions, factors in sides:
        places = context.initializer(positions, f"{what}/{side} positions")
        neighbour = context.node("Gather", [value, places], f"{what}/{side}", axis=axis)
        factor = context.initializer(factors.astype(np.int32).reshape(shape), f"{what}/{side} weights")
        terms.append(context.node("Mul", [neighbour, factor], f"{what}/{side} weighted"))
    return context.node("Add", terms, what)


def softmax(context: ImportContext) -> None:
    """SOFTMAX over the last source axis."""
    quantized = context.is_quantized(context.source) and context.is_quantized(context.target)
    if quantized and context.match_litert and not context.keeps_fused():
        _step_by_step(context)
    else:
        _close_plainly(context)


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


def _close_plainly(context: ImportContext) -> None:
    """One Softmax; ``beta`` scales the input's DequantizeLinear.

    Between codes a Min with 1, which changes nothing, keeps it in float32. Integer kernels are no nearer to LiteRT and
    slower (ONNX Runtime), give the lowest code for one class, which is 1 everywhere (the same, 1.15 to 1.30), or are
    wrong (tract).
    """
    source, beta = context.source, np.float32(context.float_option("beta"))
    if context.is_quantized(source):
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


def _times_beta(context: ImportContext) -> QuantParams:
    """The input's quantisation with ``beta`` in its scale."""
    params = context.params(context.source)
    return QuantParams(params.scale * np.float32(context.float_option("beta")), params.zero_point, params.axis)
