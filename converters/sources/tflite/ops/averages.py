"""Operators that average codes or choose among them: resizes, pools and reductions; where ties fall.

RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR. Nearest is bit exact: a whole factor becomes Resize, which every runtime
agrees on; other sizes become a Gather per axis over TFLite's own index table, because no two runtimes round the
coordinates alike. Bilinear is bit exact, too: as a Resize whose ties go up as in XNNPACK where all weights are
multiples of 1/8 (factors 2 and 4), else step by step. XNNPACK's weights are whole multiples of 2^-11: per
axis ``2048 - w`` of the lower neighbour and ``w`` of the upper one. The sum over both axes is an int32 number of 22
fractional bits, rounded half up: codes as int32, per axis two Gather and a weighted sum, a division by 2^22. Bit exact
on every runtime; about fifteen elementwise operators instead of one (``--arithmetic fused`` keeps it, within 1 LSB).
Source of the recipe: google/XNNPACK, ``src/indirection.c`` (xnn_indirection_init_resize_bilinear2d_hwc_q11) and
``src/s8-ibilinear``.

Where exact ties fall, for operators that average codes.

A mean or an interpolation commutes with a shift and a scaling of all codes, so the DequantizeLinear in front of it
and the QuantizeLinear behind it may take any zero-point and scale, as long as both take the same. Runtimes round
the real result half to even around that zero-point. LiteRT's kernels round ties another way; with the zero-point at
their *pivot* and the first scale nudged up by 2^-15, every tie moves away from the pivot, as theirs do:

* AVERAGE_POOL_2D (built-in kernel): half away from the stored code 0.
* RESIZE_BILINEAR (XNNPACK): half up, which is half away from the lowest code.
* MEAN (XNNPACK): half to even of the *stored* code: no nudge, an even zero-point, and scale 1, in which sums are exact.

The nudge is large enough to survive float32 next to a zero-point of 128 (some runtimes add it before they round),
and too small to carry a mean of fewer than 128 codes over a tie. No runtime pays for it. ``--leaky-relu float``
leaves it out: then every tensor keeps one scale and zero-point, and results stay within 1 LSB.

MAX_POOL_2D is bit exact. AVERAGE_POOL_2D runs on LiteRT's built-in kernel, which adds the codes and divides once, ties
away from code 0; with the zero-point of the pair there it is bit exact, too.

MEAN, SUM, REDUCE_MAX and REDUCE_MIN over constant axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from converters._ir import ir
from converters.errors import SourceFileError
from converters.integer.convolution import same_padding
from converters.quant import QuantParams
from converters.sources.tflite.context import ImportContext, other_scale, per_tensor
from converters.sources.tflite.ops.activations import INT32, close_with_activation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.sources.tflite.reader import TfliteModel, TfliteOperator

NUDGE = np.float32(1 + 2.0**-15)
LARGEST_WINDOW = 127  # pixels that AVERAGE_POOL_2D averages exactly
MAX_SIZE = 1 << 15  # pixels per side: nothing larger is a picture, and index tables stay small
ONE = 2048  # XNNPACK's weight of a whole pixel
COARSE = ONE // 8  # Resize is exact for multiples of this weight: ties and the nudge are far apart
LIFT = 128  # turns int8 codes into such that are never below zero, so that a division rounds down
Pivot = tuple[QuantParams, QuantParams]
"""What an averaging operator's DequantizeLinear and QuantizeLinear take."""


def is_wide(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether a pool is not averaged exactly."""
    window = math.prod(int(cast("int", op.options[name])) for name in ("filter_h", "filter_w"))
    return window > LARGEST_WINDOW or other_scale(model, op)


def is_mean_inexact(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether a MEAN cannot have an even zero-point and scale 1, or has ties and no exact float32 factor."""
    count = _count(model, op)
    if count % 2 == 0 and count & (count - 1):
        return True
    quants = per_tensor(model, op.inputs[0], op.outputs[0])
    if quants is None or other_scale(model, op):
        return quants is not None
    low, high = sorted(q.scalar_zero_point for q in quants)
    return high - low == 255 and quants[1].scalar_zero_point == high


def is_fine(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether a bilinear resize has weights that ONNX's Resize has not."""
    sizes, new_sizes = model.tensors[op.inputs[0]].shape[1:3], model.tensors[op.outputs[0]].shape[1:3]
    return not all(axis_weights(op, *pair).is_coarse for pair in zip(sizes, new_sizes, strict=True))


def _pivot_at(context: ImportContext, stored_code: int) -> Pivot:
    """Ties away from ``stored_code`` (in the source file's codes).

    The tensors' own quantisation where it differs between them, or where LiteRT is not matched.
    """
    before, after = context.params(context.source), context.params(context.target)
    if not context.match_litert or not before.same_as(after):
        return before, after
    zero_point, scale = stored_code + context.shift(context.source), before.scalar_scale
    return QuantParams.per_tensor(float(scale * NUDGE), zero_point), QuantParams.per_tensor(float(scale), zero_point)


def _even_pivot(context: ImportContext) -> Pivot:
    """Ties to even stored codes, and exact sums; the tensors' own quantisation where their scales differ."""
    before, after = context.params(context.source), context.params(context.target)
    if not context.match_litert or before.scalar_scale != after.scalar_scale:
        return before, after
    low, high = sorted((before.scalar_zero_point, after.scalar_zero_point))
    step = 0 if after.scalar_zero_point % 2 == 0 else -1 if low > context.lowest_code else 1
    if high + step > context.lowest_code + 255:
        return before, after  # both zero-points lie at a rim, and none is even
    first, second = (QuantParams.per_tensor(1.0, params.scalar_zero_point + step) for params in (before, after))
    return first, second


def resize_nearest_neighbor(context: ImportContext) -> None:
    """RESIZE_NEAREST_NEIGHBOR."""
    _, height, width, _ = context.shape(context.source)
    new_height, new_width = _sizes(context)
    rows, columns = _nearest_indices(context.op, height, new_height), _nearest_indices(context.op, width, new_width)
    real = context.moved_float_of(context.source)
    if _is_repetition(rows, height) and _is_repetition(columns, width):
        scales = np.float32(new_height // height), np.float32(new_width // width)
        real = _resized(context, real, scales, "nearest", "asymmetric", nearest_mode="floor")
    else:
        for axis, table, what in ((2, rows, "rows"), (3, columns, "columns")):
            positions = context.initializer(table, what)
            real = context.node("Gather", [real, positions], f"{what}/gathered", axis=axis)
    context.close(real)


def resize_bilinear(context: ImportContext) -> None:
    """RESIZE_BILINEAR."""
    source, target = context.source, context.target
    if not context.is_quantized(target):
        context.define(target, _linear(context, context.float_of(source)))
        return
    sizes = zip(context.shape(source)[1:3], _sizes(context), strict=True)
    weights = [axis_weights(context.op, size, new_size) for size, new_size in sizes]
    same = context.is_quantized(source) and context.params(source).same_as(context.params(target))
    exact = all(axis.is_coarse for axis in weights) or not (context.match_litert and same)
    if not (exact or context.keeps_fused()):
        _close_in_integers(context, *weights)
        return
    before, after = _pivot_at(context, int(np.iinfo(context.tensor(source).dtype).min))
    context.define_quantized(_linear(context, context.adjusted_float_of(source, before)), after)


def _linear(context: ImportContext, real: ir.Value) -> ir.Value:
    _, height, width, _ = context.shape(context.source)
    new_height, new_width = _sizes(context)
    mode = "half_pixel" if context.op.options["half_pixel_centers"] else "asymmetric"
    mode = "align_corners" if context.op.options["align_corners"] else mode
    return _resized(context, real, (_scale(height, new_height), _scale(width, new_width)), "linear", mode)


def _resized(
    context: ImportContext, real: ir.Value, scales: tuple[np.float32, np.float32], mode: str, rule: str, **more: Any
) -> ir.Value:
    """Resize by scales, not sizes: sizes would pin the batch."""
    constant = context.initializer(np.array([1, 1, *scales], np.float32), "scales")
    return context.node("Resize", [real, None, constant], mode=mode, coordinate_transformation_mode=rule, **more)


def _scale(size: int, new_size: int) -> np.float32:
    """The float32 ratio from which ONNX's ``floor(size * scale)`` gives ``new_size``."""
    scale = np.float32(new_size) / np.float32(size)
    while size * float(scale) < new_size:
        scale = np.nextafter(scale, np.float32(np.inf))
    return scale


def _sizes(context: ImportContext) -> tuple[int, int]:
    """New height and width in pixels."""
    sizes = context.integers_of(1)
    if len(sizes) != 2 or min(sizes) < 1 or max(sizes) > MAX_SIZE:
        raise SourceFileError(f"{context.where} resizes to {sizes}, expected height and width in 1..{MAX_SIZE}")
    if context.op.options["align_corners"] and context.op.options["half_pixel_centers"]:
        raise SourceFileError(f"{context.where} asks for align_corners and half_pixel_centers at once")
    return sizes[0], sizes[1]


def _nearest_indices(op: TfliteOperator, size: int, new_size: int) -> NDArray[np.int64]:
    """int64 ``(new_size,)``: the source position of every new one, in TFLite's float32 arithmetic.

    Source: tensorflow/lite/kernels/internal/reference/resize_nearest_neighbor.h.
    """
    aligned = bool(op.options["align_corners"]) and new_size > 1
    ratio = np.float32(size - 1) / np.float32(new_size - 1) if aligned else np.float32(size) / np.float32(new_size)
    offset = np.float32(0.5 if op.options["half_pixel_centers"] else 0.0)
    position = (np.arange(new_size, dtype=np.float32) + offset) * ratio
    rounded = np.floor(position + np.float32(0.5)) if op.options["align_corners"] else np.floor(position)
    return np.asarray(np.clip(rounded.astype(np.int64), 0, size - 1))


def _is_repetition(table: NDArray[np.int64], size: int) -> bool:
    """Whether every source position is simply repeated a whole number of times."""
    factor, rest = divmod(len(table), size)
    return rest == 0 and bool(np.array_equal(table, np.arange(len(table)) // factor))


@dataclass(frozen=True, slots=True)
class AxisWeights:
    """How new positions of one axis are made of old ones."""

    lower: NDArray[np.int64]  # int64 ``(new size,)``, the old position below
    upper: NDArray[np.int64]  # the one above, with ``weight``
    weight: NDArray[np.int32]  # int32, 0..2048

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


def _close_in_integers(context: ImportContext, rows: AxisWeights, columns: AxisWeights) -> None:
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


def pool(context: ImportContext) -> None:
    """MAX_POOL_2D, in which padding never wins, and AVERAGE_POOL_2D, which does not count it: in either format."""
    is_average, after = context.op.op == "AVERAGE_POOL_2D", None
    if is_average and context.is_quantized(context.target):
        before, after = _pivot_at(context, stored_code=0)
        real = context.adjusted_float_of(context.source, before)
    else:
        real = context.float_of(context.source)
    windows, strides = ([context.int_option(f"{what}_{side}") for side in "hw"] for what in ("filter", "stride"))
    axes = list(zip(context.shape(context.source)[1:3], windows, strides, strict=True))
    pads = [same_padding(*axis) for axis in axes]
    # auto_pad, not pads: the ONNX reference evaluator pools wrongly with explicit one-sided pads
    padding: dict[str, Any] = {"auto_pad": "SAME_UPPER"}
    if context.op.options["padding"] != "SAME" or not any(map(any, pads)):
        padding = {"auto_pad": "VALID"}
    elif any(stride > window for _, window, stride in axes):  # runtimes would pad by a negative number for SAME_UPPER
        (top, bottom), (left, right) = pads
        padding = {"pads": [top, left, bottom, right]}
    if is_average:
        padding["count_include_pad"] = 0
    kind = "AveragePool" if is_average else "MaxPool"
    real = context.node(kind, [real], kernel_shape=windows, strides=strides, **padding)
    close_with_activation(context, real, after)


def mean(context: ImportContext) -> None:
    """MEAN."""
    if not context.is_quantized(context.target):
        context.define(context.target, _reduced(context, "ReduceMean", context.float_of(context.source)))
    elif context.match_litert and is_mean_inexact(context.model, context.op) and not context.keeps_fused():
        _close_sums(context, _count(context.model, context.op))
    else:
        before, after = _even_pivot(context)
        real = context.adjusted_float_of(context.source, before)
        context.define_quantized(_reduced(context, "ReduceMean", real), after)


def sum_operator(context: ImportContext) -> None:
    """SUM. Where both scales are equal a sum is a whole number of steps, which no float32 error moves to another."""
    quantized = context.match_litert and context.is_quantized(context.target)
    if quantized and other_scale(context.model, context.op) and not context.keeps_fused():
        _close_sums(context, 1)
    else:
        context.close(_reduced(context, "ReduceSum", context.float_of(context.source)))


def _count(model: TfliteModel, op: TfliteOperator) -> int:
    """How many values make one."""
    before, after = (math.prod(model.tensors[index].shape) for index in (op.inputs[0], op.outputs[0]))
    return before // after


def _close_sums(context: ImportContext, divisor: int) -> None:
    """Sums of stored codes as XNNPACK: ``sum * f + (zp_out - count * zp_in * f)``, every step in float32, half to even.

    The factor is ``f = s_in / s_out / divisor``. Found by measurement: of some forty orders of these steps the only one
    that equals LiteRT in 500 of 500 random means with ties; the generated models, drawn apart, bear it out.
    """
    before, after = context.own_quant(context.source), context.own_quant(context.target)
    count = _count(context.model, context.op)
    with np.errstate(over="ignore", invalid="ignore"):
        factor = before.scalar_scale / after.scalar_scale / np.float32(divisor)
        bias = np.float32(after.scalar_zero_point) - np.float32(count) * np.float32(before.scalar_zero_point) * factor
    if not (np.isfinite(factor) and np.isfinite(bias)):
        raise OverflowError("the quotient of its scales leaves float32")  # told with the operator's name
    info = np.iinfo(context.tensor(context.target).dtype)

    def step(kind: str, value: ir.Value, suffix: str, *numbers: np.generic) -> ir.Value:
        constants = [context.initializer(number, f"{suffix}/{i}") for i, number in enumerate(numbers)]
        return context.node(kind, [value, *constants], suffix)

    sums = _reduced(context, "ReduceSum", context.wide(context.codes_of(context.source), "wide"))
    sums = step("Sub", sums, "stored", np.int32(context.shift(context.source) * count))
    real = context.node("Cast", [sums], "real", to=int(ir.DataType.FLOAT))
    steps = step("Round", step("Add", step("Mul", real, "scaled", factor), "biased", bias), "rounded")
    codes = step("Clip", steps, "clipped", np.float32(info.min), np.float32(info.max))
    context.define_computed(step("Add", codes, "codes", np.float32(context.shift(context.target))))


def reduce_extreme(context: ImportContext) -> None:
    """REDUCE_MAX and REDUCE_MIN: of codes, whatever the output's scale; LiteRT's kernels do not look at it."""
    kind = "ReduceMax" if context.op.op == "REDUCE_MAX" else "ReduceMin"
    context.close(_reduced(context, kind, context.moved_float_of(context.source)))


def arg_max(context: ImportContext) -> None:
    """ARG_MAX over one constant axis: the first place of the largest code or number."""
    source, target = context.source, context.target
    axis = context.source_axis(source, context.integers_of(1)[0])
    places = context.node("ArgMax", [context.codes_of(source)], axis=context.axis(source, axis), keepdims=1)
    places = _without_axes(context, places, [axis])
    context.define(target, context.writer.op("Cast", [places], context.names[target], to=INT32))


def _reduced(context: ImportContext, kind: str, value: ir.Value) -> ir.Value:
    """``value`` reduced over the operator's constant axes, in the output's shape."""
    source = context.source
    rank, stated = len(context.shape(source)), context.integers_of(1)
    if not stated or any(not -rank <= axis < rank for axis in stated):
        raise SourceFileError(f"{context.where} reduces axes {stated} of shape {list(context.shape(source))}")
    source_axes = sorted({axis % rank for axis in stated})
    axes = np.array(sorted(context.axis(source, axis) for axis in source_axes), np.int64)
    value = context.node(kind, [value, context.initializer(axes, "axes")], keepdims=1)
    return _without_axes(context, value, source_axes)


def _without_axes(context: ImportContext, value: ir.Value, axes: list[int]) -> ir.Value:
    """Reduced axes of size 1 dropped, where the output's shape lacks them."""
    kept = [1 if axis in axes else size for axis, size in enumerate(context.shape(context.source))]
    return context.reshape(value, kept, context.shape(context.target), context.name("reshaped"))
