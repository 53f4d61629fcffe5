"""TRANSPOSE_CONV as an ordinary convolution that gives every phase of the output as channels of its own.

Along an axis with stride ``s`` output ``s * m + phase`` reads inputs ``m + offset`` alone, each with one tap of the
kernel. So one convolution with stride 1 and ``s * s`` times the output channels, whose taps are the kernel's and zeros,
gives all outputs; Reshape and Transpose put the phases side by side. Runtimes run it in integers and requantise it as
every other convolution, which is what XNNPACK does, too: bit exact. ONNX's ConvTranspose would run in float32.

Source of the cropping: tensorflow/lite/kernels/padding.h, as for a convolution from the output to the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import SourceFileError, UnsupportedModelError
from converters.graph import bias_node, bias_params, dequantize_node, weight_node
from converters.quant import QuantParams
from converters.sources.tflite.conditions import is_sparse
from converters.sources.tflite.context import ImportContext, describe, int_option
from converters.sources.tflite.ops.activations import close_with_activation
from converters.sources.tflite.ops.fixed_point import is_fixed_point, requantized
from converters.spec import TensorTwin

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.sources.tflite.reader import TfliteOperator

LARGEST_STRIDE = 64  # a phase, and so a channel of every output, for each


@dataclass(frozen=True, slots=True)
class PhaseAxis:
    """A transposed convolution along one axis.

    Attributes:
        taps: for each phase the pairs (offset of the input, tap of the kernel).
        rows: how many outputs each phase has.
        pads: input pixels of zero in front and behind.
    """

    taps: tuple[tuple[tuple[int, int], ...], ...]
    rows: int
    pads: tuple[int, int]

    @property
    def span(self) -> int:
        """Taps of the convolution."""
        offsets = [offset for phase in self.taps for offset, _ in phase]
        return max(0, *offsets) + self.pads[0] + 1


def phase_axis(size: int, new_size: int, kernel: int, stride: int, *, same: bool) -> PhaseAxis:
    """How one axis of ``size`` pixels becomes ``new_size``."""
    cropped = max((size - 1) * stride + kernel - new_size, 0) // 2 if same else 0
    taps = []
    for phase in range(stride):
        ahead, first = divmod(phase + cropped, stride)
        taps.append(tuple((ahead - i, tap) for i, tap in enumerate(range(first, kernel, stride))))
    offsets = [0, *(offset for phase_taps in taps for offset, _ in phase_taps)]
    rows = -(-new_size // stride)
    return PhaseAxis(tuple(taps), rows, (-min(offsets), max(0, rows - size + max(offsets))))


def phase_kernel(weights: NDArray[Any], rows: PhaseAxis, columns: PhaseAxis, zero: int) -> NDArray[Any]:
    """Weights ``(O, h, w, I)`` as ``(phases * O, I, span, span)``; ``zero`` where no tap falls."""
    channels, _, _, depth = weights.shape
    phases = len(rows.taps), len(columns.taps)
    kernel = np.full((*phases, channels, depth, rows.span, columns.span), zero, weights.dtype)
    for y, down in enumerate(rows.taps):
        for x, across in enumerate(columns.taps):
            for dy, ty in down:
                for dx, tx in across:
                    kernel[y, x, :, :, dy + rows.pads[0], dx + columns.pads[0]] = weights[:, ty, tx]
    return kernel.reshape(-1, depth, rows.span, columns.span)


def transpose_conv(context: ImportContext, op: TfliteOperator) -> None:
    """TRANSPOSE_CONV: operands are the output's shape, weights ``(out, h, w, in)``, the image and perhaps a bias."""
    source, target = op.inputs[2], op.outputs[0]
    weights = context.constant_of(op, 1)
    _require_fit(context, op, weights)
    rows, columns = axes_of(context.tensor(source).shape, context.tensor(target).shape, weights.shape, op)
    window: dict[str, Any] = {
        "kernel_shape": [rows.span, columns.span],
        "pads": [rows.pads[0], columns.pads[0], rows.pads[1], columns.pads[1]],
    }
    if is_sparse(context.model, op) and is_fixed_point(context, op):
        _sparse(context, op, (rows, columns), window)
        return
    operands = [context.float_of(source), *_constants(context, op, weights, (rows, columns))]
    real = context.writer.op("Conv", operands, context.name(op, "phases"), **window)
    if context.is_quantized(target):
        params, dtype = context.params(target), context.code_dtype
        codes = context.quantized(target, real, params, context.name(op, "phases/codes"))
        real = dequantize_node(context.writer, codes, params, dtype, context.name(op, "phases/dequantized"))
    close_with_activation(context, op, _side_by_side(context, op, real, (rows, columns)))


def _sparse(
    context: ImportContext, op: TfliteOperator, axes: tuple[PhaseAxis, PhaseAxis], window: dict[str, Any]
) -> None:
    """In LiteRT's fixed point: int32 sums, one 31-bit factor per channel; weights as the dialect's codes (``ConvInteger``)."""
    writer, (place, source), target = context.writer, op.inputs[1:3], op.outputs[0]
    quant, name = context.tensor(place).quant, context.names[place]
    assert quant is not None, "_require_fit refuses weights without a scale"  # noqa: S101 - checked before
    shift, zero = context.shift(place), int(quant.zero_point.flat[0])
    kernel = phase_kernel(context.constant_of(op, 1), *axes, zero).astype(np.int16) + shift
    codes = writer.constant(kernel.astype(context.code_dtype), name)
    context.twins[name] = TensorTwin(str(codes.name), "phases", shift)
    zeros = [
        writer.constant(context.code_dtype(number), context.name(op, f"{what}/zero"))
        for what, number in (("image", context.params(source).scalar_zero_point), ("weights", zero + shift))
    ]
    operands = [context.codes_of(source), codes, *zeros]
    sums = _side_by_side(context, op, writer.op("ConvInteger", operands, context.name(op, "phases"), **window), axes)
    if _has_bias(op):
        bias = writer.constant(context.constant_of(op, 3).reshape(1, -1, 1, 1), context.names[op.inputs[3]])
        context.twins[context.names[op.inputs[3]]] = TensorTwin(str(bias.name), "phases", 0)
        sums = writer.op("Add", [sums, bias], context.name(op, "biased"))
    scales = float(context.params(source).scalar_scale) * quant.scale.astype(np.float64)
    factors = (scales / float(context.params(target).scalar_scale)).reshape(1, -1, 1, 1)
    halves_up = context.tensor(target).dtype == "uint8"
    found = requantized(context, op, sums, context.names[target], halves_up=halves_up, factors=factors)
    context.define(target, found)


def axes_of(
    shape: tuple[int, ...], new_shape: tuple[int, ...], weights: tuple[int, ...], op: TfliteOperator
) -> tuple[PhaseAxis, PhaseAxis]:
    """Both axes, by the shapes of image, output and weights."""
    same = op.options["padding"] == "SAME"
    down, across = (
        phase_axis(shape[axis], new_shape[axis], weights[axis], int_option(op, stride), same=same)
        for axis, stride in ((1, "stride_h"), (2, "stride_w"))
    )
    return down, across


def _require_fit(context: ImportContext, op: TfliteOperator, weights: NDArray[Any]) -> None:
    where = f"{context.model.file}: {describe(context, op)}"
    source, target = context.tensor(op.inputs[2]).shape, context.tensor(op.outputs[0]).shape
    quant, kind = context.tensor(op.inputs[1]).quant, weights.dtype.name
    if weights.shape[3] != source[3] or weights.shape[0] != target[3]:
        msg = (
            f"{where} has weights {list(weights.shape)} from {list(source)} to {list(target)}: the channels do not fit"
        )
        raise SourceFileError(msg)
    if len(op.inputs) > 3 and op.inputs[3] >= 0 and context.constant_of(op, 3).size != weights.shape[0]:
        msg = f"{where} has a bias of {context.constant_of(op, 3).size} numbers, expected {weights.shape[0]}"
        raise SourceFileError(msg)
    for axis, option in ((1, "stride_h"), (2, "stride_w")):
        stride = int_option(op, option)
        if not 1 <= stride <= LARGEST_STRIDE or target[axis] > (source[axis] + 1) * stride + weights.shape[axis]:
            msg = f"{where} makes {target[axis]} of {source[axis]} by {option} {stride}, expected 1 to {LARGEST_STRIDE}"
            raise UnsupportedModelError(msg)
    codes = kind in ("int8", "uint8") and quant is not None and quant.axis in (None, 0)
    if not (codes if context.is_quantized(op.inputs[2]) else kind == "float32"):
        msg = f"{where} has weights of {kind}, expected those of its image, with scales along their first axis"
        raise UnsupportedModelError(msg)


def _constants(
    context: ImportContext, op: TfliteOperator, weights: NDArray[Any], axes: tuple[PhaseAxis, PhaseAxis]
) -> list[ir.Value]:
    """Weights and, where there is one, the bias, once for each phase."""
    phases = len(axes[0].taps) * len(axes[1].taps)
    bias = np.tile(context.constant_of(op, 3).reshape(-1), phases) if _has_bias(op) else None
    name = context.names[op.inputs[1]]
    if not context.is_quantized(op.inputs[2]):
        value = context.writer.constant(phase_kernel(weights, *axes, 0), context.name(op, "weights"))
        context.twins[name] = TensorTwin(str(value.name), "phases", 0)
        return [value, *([] if bias is None else [context.writer.constant(bias, context.name(op, "bias"))])]
    quant = context.tensor(op.inputs[1]).quant
    assert quant is not None, "_require_fit refuses weights without a scale"  # noqa: S101 - checked before
    repeats = 1 if quant.scale.size == 1 else phases
    params = QuantParams(np.tile(quant.scale, repeats), np.tile(quant.zero_point, repeats), quant.axis)
    zero = int(quant.zero_point.flat[0])
    codes, real = weight_node(context.writer, phase_kernel(weights, *axes, zero), params, name)
    context.twins[name] = TensorTwin(str(codes.name), "phases", 0)
    if bias is None:
        return [real]
    named = context.names[op.inputs[3]]
    codes, real_bias = bias_node(context.writer, bias, bias_params(context.params(op.inputs[2]), params), named)
    context.twins[named] = TensorTwin(str(codes.name), "phases", 0)
    return [real, real_bias]


def _has_bias(op: TfliteOperator) -> bool:
    return len(op.inputs) > 3 and op.inputs[3] >= 0


def _side_by_side(
    context: ImportContext, op: TfliteOperator, real: ir.Value, axes: tuple[PhaseAxis, PhaseAxis]
) -> ir.Value:
    """Phases ``(N, phases * O, rows, columns)`` as one image, without what lies beyond the output."""
    _, height, width, channels = context.tensor(op.outputs[0]).shape
    writer, sides = context.writer, [len(axis.taps) for axis in axes]
    found = [context.tensor(op.inputs[2]).shape[1 + i] + sum(axis.pads) - axis.span + 1 for i, axis in enumerate(axes)]
    apart = writer.constant(np.array([0, *sides, channels, *found], np.int64), context.name(op, "apart/shape"))
    real = writer.op("Reshape", [real, apart], context.name(op, "apart"))
    real = writer.op("Transpose", [real], context.name(op, "interleaved"), perm=[0, 3, 4, 1, 5, 2])
    whole = [rows * side for rows, side in zip(found, sides, strict=True)]
    shape = writer.constant(np.array([0, channels, *whole], np.int64), context.name(op, "whole/shape"))
    real = writer.op("Reshape", [real, shape], context.name(op, "whole"))
    if whole == [height, width]:
        return real
    numbers = {"starts": [0, 0], "ends": [height, width], "axes": [2, 3], "steps": [1, 1]}
    limits = [writer.constant(np.array(n, np.int64), context.name(op, f"cut/{k}")) for k, n in numbers.items()]
    return writer.op("Slice", [real, *limits], context.name(op, "cut"))
