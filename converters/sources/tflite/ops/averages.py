"""Operators that average codes or choose among them: resizes, pools and reductions; where ties fall.

RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR. Nearest is bit exact: a whole factor becomes Resize, which every runtime
agrees on; other sizes become a Gather per axis over TFLite's own index table, because no two runtimes round the
coordinates alike. Bilinear is bit exact, too: as a Resize whose ties go up as in XNNPACK (``ops.pivot``) where all
weights are multiples of 1/8 (factors 2 and 4), else step by step with XNNPACK's 11-bit weights
(``ops.integer_resize``).

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

MAX_POOL_2D and AVERAGE_POOL_2D. MAX_POOL_2D is bit exact. AVERAGE_POOL_2D runs on LiteRT's built-in kernel, which adds
the codes and divides once, ties away from code 0; with the zero-point of the pair there (``ops.pivot``) it is bit
exact, too.

MEAN, SUM, REDUCE_MAX and REDUCE_MIN over constant axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters._ir import ir
from converters.errors import SourceFileError
from converters.quant import QuantParams
from converters.sources.tflite.conditions import is_mean_inexact, other_scale
from converters.sources.tflite.context import ImportContext, describe, int_option, same_padding
from converters.sources.tflite.ops.activations import close_with_activation
from converters.sources.tflite.ops.integer_resize import axis_weights, close_in_integers
from converters.sources.tflite.ops.moving import reshape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.sources.tflite.reader import TfliteOperator

NUDGE = np.float32(1 + 2.0**-15)


@dataclass(frozen=True, slots=True)
class Pivot:
    """The quantisation on both sides of an averaging operator.

    Attributes:
        before: for the DequantizeLinear.
        after: for the QuantizeLinear.
    """

    before: QuantParams
    after: QuantParams


def pivot_at(context: ImportContext, source: int, target: int, stored_code: int) -> Pivot:
    """Ties away from ``stored_code`` (in the source file's codes).

    The tensors' own quantisation where it differs between them, or where LiteRT is not matched.
    """
    plain = Pivot(context.params(source), context.params(target))
    if not context.match_litert or not plain.before.same_as(plain.after):
        return plain
    zero_point, scale = stored_code + context.shift(source), plain.before.scalar_scale
    return Pivot(
        QuantParams.per_tensor(float(scale * NUDGE), zero_point), QuantParams.per_tensor(float(scale), zero_point)
    )


def even_pivot(context: ImportContext, source: int, target: int) -> Pivot:
    """Ties to even stored codes, and exact sums; the tensors' own quantisation where their scales differ."""
    before, after = context.params(source), context.params(target)
    if not context.match_litert or before.scalar_scale != after.scalar_scale:
        return Pivot(before, after)
    lowest = min(before.scalar_zero_point, after.scalar_zero_point)
    step = 0 if after.scalar_zero_point % 2 == 0 else -1 if lowest > np.iinfo(context.code_dtype).min else 1
    if max(before.scalar_zero_point, after.scalar_zero_point) + step > np.iinfo(context.code_dtype).max:
        return Pivot(before, after)  # both zero-points lie at a rim, and none is even
    return Pivot(
        QuantParams.per_tensor(1.0, before.scalar_zero_point + step),
        QuantParams.per_tensor(1.0, after.scalar_zero_point + step),
    )


def lowest_code(context: ImportContext, index: int) -> int:
    """The lowest code of a tensor's dtype in the source."""
    return int(np.iinfo(context.tensor(index).dtype).min)


MAX_SIZE = 1 << 15  # pixels per side: nothing larger is a picture, and index tables stay small


def resize_nearest_neighbor(context: ImportContext, op: TfliteOperator) -> None:
    """RESIZE_NEAREST_NEIGHBOR."""
    source = op.inputs[0]
    _, height, width, _ = context.tensor(source).shape
    new_height, new_width = _sizes(context, op)
    rows, columns = _nearest_indices(op, height, new_height), _nearest_indices(op, width, new_width)
    real = context.moved_float_of(source, op.outputs[0])
    if _is_repetition(rows, height) and _is_repetition(columns, width):
        scales = np.array([1, 1, new_height // height, new_width // width], np.float32)
        real = context.writer.op(
            "Resize",
            [real, None, context.writer.constant(scales, context.name(op, "scales"))],
            context.name(op),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    else:
        for axis, table, what in ((2, rows, "rows"), (3, columns, "columns")):
            where = context.writer.constant(table, context.name(op, what))
            real = context.writer.op("Gather", [real, where], context.name(op, f"{what}/gathered"), axis=axis)
    context.close(op.outputs[0], real)


def resize_bilinear(context: ImportContext, op: TfliteOperator) -> None:
    """RESIZE_BILINEAR."""
    source, target = op.inputs[0], op.outputs[0]
    if not context.is_quantized(target):
        context.define(target, _linear(context, op, context.float_of(source)))
        return
    sizes = zip(context.tensor(source).shape[1:3], _sizes(context, op), strict=True)
    weights = [axis_weights(op, size, new_size) for size, new_size in sizes]
    same = context.is_quantized(source) and context.params(source).same_as(context.params(target))
    exact = all(axis.is_coarse for axis in weights) or not (context.match_litert and same)
    if not (exact or context.keeps_fused(op)):
        close_in_integers(context, op, *weights)
        return
    pivot = pivot_at(context, source, target, lowest_code(context, source))
    real = context.adjusted_float_of(source, pivot.before, target)
    context.define_quantized(target, _linear(context, op, real), pivot.after)


def _linear(context: ImportContext, op: TfliteOperator, real: ir.Value) -> ir.Value:
    """Resize by scales, not sizes: sizes would pin the batch."""
    _, height, width, _ = context.tensor(op.inputs[0]).shape
    new_height, new_width = _sizes(context, op)
    scales = np.array([1, 1, _scale(height, new_height), _scale(width, new_width)], np.float32)
    if op.options["align_corners"]:
        mode = "align_corners"
    else:
        mode = "half_pixel" if op.options["half_pixel_centers"] else "asymmetric"
    return context.writer.op(
        "Resize",
        [real, None, context.writer.constant(scales, context.name(op, "scales"))],
        context.name(op),
        mode="linear",
        coordinate_transformation_mode=mode,
    )


def _scale(size: int, new_size: int) -> np.float32:
    """The float32 ratio from which ONNX's ``floor(size * scale)`` gives ``new_size``."""
    scale = np.float32(new_size) / np.float32(size)
    while size * float(scale) < new_size:
        scale = np.nextafter(scale, np.float32(np.inf))
    return scale


def _sizes(context: ImportContext, op: TfliteOperator) -> tuple[int, int]:
    """New height and width in pixels."""
    sizes = context.constant_of(op, 1).reshape(-1).tolist()
    if len(sizes) != 2 or min(sizes) < 1 or max(sizes) > MAX_SIZE:
        msg = f"{context.model.file}: {describe(context, op)} resizes to {sizes}, expected height and width in 1..{MAX_SIZE}"
        raise SourceFileError(msg)
    if op.options["align_corners"] and op.options["half_pixel_centers"]:
        msg = f"{context.model.file}: {describe(context, op)} asks for align_corners and half_pixel_centers at once"
        raise SourceFileError(msg)
    return int(sizes[0]), int(sizes[1])


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


def max_pool_2d(context: ImportContext, op: TfliteOperator) -> None:
    """MAX_POOL_2D; padding never wins the maximum in either format."""
    close_with_activation(context, op, _pool(context, op, "MaxPool", context.float_of(op.inputs[0])))


def average_pool_2d(context: ImportContext, op: TfliteOperator) -> None:
    """AVERAGE_POOL_2D; padded pixels are not counted in either format."""
    if not context.is_quantized(op.outputs[0]):
        real = context.float_of(op.inputs[0])
        close_with_activation(context, op, _pool(context, op, "AveragePool", real, count_include_pad=0))
        return
    pivot = pivot_at(context, op.inputs[0], op.outputs[0], stored_code=0)
    source = context.adjusted_float_of(op.inputs[0], pivot.before, op.outputs[0])
    close_with_activation(context, op, _pool(context, op, "AveragePool", source, count_include_pad=0), pivot.after)


def _pool(context: ImportContext, op: TfliteOperator, op_type: str, source: ir.Value, **attributes: Any) -> ir.Value:
    return context.writer.op(
        op_type,
        [source],
        context.name(op),
        kernel_shape=[int_option(op, "filter_h"), int_option(op, "filter_w")],
        strides=[int_option(op, "stride_h"), int_option(op, "stride_w")],
        **_pool_padding(context, op),
        **attributes,
    )


def _pool_padding(context: ImportContext, op: TfliteOperator) -> dict[str, Any]:
    """auto_pad rather than pads: the ONNX reference evaluator pools wrongly with explicit one-sided pads.

    Where strides are longer than the window, runtimes would pad by a negative number for SAME_UPPER.
    """
    sizes = context.tensor(op.inputs[0]).shape[1:3]
    axes = [
        (size, int_option(op, f"filter_{side}"), int_option(op, f"stride_{side}"))
        for size, side in zip(sizes, "hw", strict=True)
    ]
    pads = [same_padding(*axis) for axis in axes]
    if op.options["padding"] != "SAME" or not any(map(any, pads)):
        return {"auto_pad": "VALID"}
    if any(stride > window for _, window, stride in axes):
        (top, bottom), (left, right) = pads
        return {"pads": [top, left, bottom, right]}
    return {"auto_pad": "SAME_UPPER"}


def mean(context: ImportContext, op: TfliteOperator) -> None:
    """MEAN."""
    source, target = op.inputs[0], op.outputs[0]
    if not context.is_quantized(target):
        context.define(target, _reduced(context, op, "ReduceMean", context.float_of(source)))
        return
    if context.match_litert and is_mean_inexact(context.model, op) and not context.keeps_fused(op):
        _close_sums(context, op, _count(context, op))
        return
    pivot = even_pivot(context, source, target)
    real = context.adjusted_float_of(source, pivot.before, target)
    context.define_quantized(target, _reduced(context, op, "ReduceMean", real), pivot.after)


def sum_operator(context: ImportContext, op: TfliteOperator) -> None:
    """SUM. Where both scales are equal a sum is a whole number of steps, which no float32 error moves to another."""
    quantized = context.match_litert and context.is_quantized(op.outputs[0])
    if quantized and other_scale(context.model, op) and not context.keeps_fused(op):
        _close_sums(context, op, 1)
        return
    real = _reduced(context, op, "ReduceSum", context.float_of(op.inputs[0]))
    context.close(op.outputs[0], real)


def _count(context: ImportContext, op: TfliteOperator) -> int:
    """How many values make one."""
    sizes = [math.prod(context.tensor(index).shape) for index in (op.inputs[0], op.outputs[0])]
    return sizes[0] // sizes[1]


def _close_sums(context: ImportContext, op: TfliteOperator, divisor: int) -> None:
    """Sums of stored codes as XNNPACK: ``sum * f + (zp_out - count * zp_in * f)``, every step in float32, half to even.

    The factor is ``f = s_in / s_out / divisor``. Found by measurement: of some forty orders of these steps the only one
    that equals LiteRT in 500 of 500 random means with ties; the generated models, drawn apart, bear it out.
    """
    source, target, writer = op.inputs[0], op.outputs[0], context.writer
    before, after = (context.tensor(index).quant for index in (source, target))
    assert before is not None, "require_supported refuses codes without a scale"  # noqa: S101 - checked before
    assert after is not None, "the same"  # noqa: S101
    count = np.float32(_count(context, op))
    with np.errstate(over="ignore", invalid="ignore"):
        factor = before.scalar_scale / after.scalar_scale / np.float32(divisor)
        bias = np.float32(after.scalar_zero_point) - count * np.float32(before.scalar_zero_point) * factor
    if not (np.isfinite(factor) and np.isfinite(bias)):
        raise OverflowError("the quotient of its scales leaves float32")  # told with the operator's name
    info = np.iinfo(context.tensor(target).dtype)

    def step(kind: str, value: ir.Value, name: str, *numbers: np.generic) -> ir.Value:
        constants = [writer.constant(number, context.name(op, f"{name}/{i}")) for i, number in enumerate(numbers)]
        return writer.op(kind, [value, *constants], context.name(op, name))

    wide = writer.op("Cast", [context.codes_of(source)], context.name(op, "wide"), to=6)  # INT32
    sums = _reduced(context, op, "ReduceSum", wide)
    sums = step("Sub", sums, "stored", np.int32(context.shift(source) * int(count)))
    real = writer.op("Cast", [sums], context.name(op, "real"), to=1)  # FLOAT
    steps = step("Round", step("Add", step("Mul", real, "scaled", factor), "biased", bias), "rounded")
    codes = step("Clip", steps, "clipped", np.float32(info.min), np.float32(info.max))
    codes = step("Add", codes, "codes", np.float32(context.shift(target)))
    to = ir.DataType.from_numpy(np.dtype(context.code_dtype))
    context.define(target, writer.op("Cast", [codes], context.names[target], to=int(to)))
    context.tell(target, target, "table")


def reduce_max(context: ImportContext, op: TfliteOperator) -> None:
    """REDUCE_MAX: of codes, whatever the output's scale; LiteRT's kernels do not look at it."""
    real = context.moved_float_of(op.inputs[0], op.outputs[0])
    context.close(op.outputs[0], _reduced(context, op, "ReduceMax", real))


def reduce_min(context: ImportContext, op: TfliteOperator) -> None:
    """REDUCE_MIN: of codes."""
    real = context.moved_float_of(op.inputs[0], op.outputs[0])
    context.close(op.outputs[0], _reduced(context, op, "ReduceMin", real))


def arg_max(context: ImportContext, op: TfliteOperator) -> None:
    """ARG_MAX over one constant axis: the first place of the largest code or number."""
    source, target = op.inputs[0], op.outputs[0]
    axis = context.source_axis(op, source, int(context.constant_of(op, 1).reshape(-1)[0]))
    shape = context.tensor(source).shape
    places = context.writer.op(
        "ArgMax", [context.codes_of(source)], context.name(op), axis=context.axis(source, axis), keepdims=1
    )
    kept = tuple(1 if i == axis else size for i, size in enumerate(shape))
    places = reshape(context, places, kept, context.tensor(target).shape, context.name(op, "reshaped"))
    context.define(target, context.writer.op("Cast", [places], context.names[target], to=6))  # INT32


def _reduced(context: ImportContext, op: TfliteOperator, node: str, real: ir.Value) -> ir.Value:
    """``real`` reduced over the operator's constant axes, in the output's shape."""
    source, target = op.inputs[0], op.outputs[0]
    shape = context.tensor(source).shape
    rank = len(shape)
    wanted = [int(axis) for axis in context.constant_of(op, 1).reshape(-1)]
    if not wanted or any(not -rank <= axis < rank for axis in wanted):
        msg = f"{context.model.file}: {describe(context, op)} reduces axes {wanted} of shape {list(shape)}"
        raise SourceFileError(msg)
    source_axes = sorted({axis % rank for axis in wanted})
    axes = np.array(sorted(context.axis(source, axis) for axis in source_axes), np.int64)
    real = context.writer.op(
        node, [real, context.writer.constant(axes, context.name(op, "axes"))], context.name(op), keepdims=1
    )
    kept = tuple(1 if axis in source_axes else size for axis, size in enumerate(shape))
    return reshape(context, real, kept, context.tensor(target).shape, context.name(op, "reshaped"))
