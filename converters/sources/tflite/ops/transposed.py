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
from converters.graph import bias_params, constant_node
from converters.quant import QuantParams
from converters.sources.tflite.context import CODE_DTYPES, ImportContext
from converters.sources.tflite.ops.activations import close_with_activation
from converters.sources.tflite.ops.integers import is_fixed_point, requantized
from converters.spec import TensorTwin

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.sources.tflite.reader import TfliteModel, TfliteOperator

LARGEST_STRIDE = 64  # a phase, and so a channel of every output, for each


def is_sparse(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether XNNPACK does not take a transposed convolution."""
    kernel, strides = model.tensors[op.inputs[1]].shape[1:3], (op.options["stride_h"], op.options["stride_w"])
    sparse = any(isinstance(s, int) and s > size for size, s in zip(kernel, strides, strict=True))
    return sparse and op.options["padding"] == "SAME"


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


Axes = tuple[PhaseAxis, PhaseAxis]


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


def transpose_conv(context: ImportContext) -> None:
    """TRANSPOSE_CONV: operands are the output's shape, weights ``(out, h, w, in)``, the image and perhaps a bias."""
    picture, target = context.op.inputs[2], context.target
    _require_fit(context)
    axes = _axes(context)
    rows, columns = axes
    window = {
        "kernel_shape": [rows.span, columns.span],
        "pads": [rows.pads[0], columns.pads[0], rows.pads[1], columns.pads[1]],
    }
    if is_sparse(context.model, context.op) and is_fixed_point(context):
        _close_sparse(context, axes, window)
        return
    operands = [context.float_of(picture), *_constants(context, axes)]
    real = context.node("Conv", operands, "phases", **window)
    if context.is_quantized(target):
        real = context.rounded(real, context.params(target), ("phases/codes", "phases/dequantized"))
    close_with_activation(context, _side_by_side(context, real, axes))


def _close_sparse(context: ImportContext, axes: Axes, window: dict[str, list[int]]) -> None:
    """In LiteRT's fixed point: int32 sums, a 31-bit factor per channel; weights are the dialect's codes."""
    (place, picture), target = context.op.inputs[1:3], context.target
    quant, shift = context.own_quant(place), context.shift(place)
    zero = int(quant.zero_point.flat[0])
    kernel = phase_kernel(context.constant_of(1), *axes, zero).astype(np.int16) + shift
    codes = context.writer.constant(kernel.astype(context.code_dtype), context.names[place])
    _tell_twin(context, place, codes, shift)
    zeros = [
        context.initializer(context.code_dtype(number), f"{what}/zero")
        for what, number in (("image", context.params(picture).scalar_zero_point), ("weights", zero + shift))
    ]
    sums = context.node("ConvInteger", [context.codes_of(picture), codes, *zeros], "phases", **window)
    sums = _side_by_side(context, sums, axes)
    if context.has_operand(3):
        index = context.op.inputs[3]
        bias = context.writer.constant(context.constant_of(3).reshape(1, -1, 1, 1), context.names[index])
        _tell_twin(context, index, bias)
        sums = context.node("Add", [sums, bias], "biased")
    scales = float(context.params(picture).scalar_scale) * quant.scale.astype(np.float64)
    factors = (scales / float(context.params(target).scalar_scale)).reshape(1, -1, 1, 1)
    halves_up = context.tensor(target).dtype == "uint8"
    result = requantized(context, sums, context.names[target], halves_up=halves_up, factors=factors)
    context.define(target, result)


def _tell_twin(context: ImportContext, index: int, value: ir.Value, shift: int = 0) -> None:
    context.twins[context.names[index]] = TensorTwin(str(value.name), "phases", shift)


def _axes(context: ImportContext) -> Axes:
    """Rows and columns, by the shapes of image, output and weights."""
    sizes, new_sizes, kernel = (
        context.shape(i)[1:3] for i in (context.op.inputs[2], context.target, context.op.inputs[1])
    )
    strides = [context.int_option(f"stride_{side}") for side in "hw"]
    same = context.op.options["padding"] == "SAME"
    down, across = (phase_axis(*axis, same=same) for axis in zip(sizes, new_sizes, kernel, strides, strict=True))
    return down, across


def _require_fit(context: ImportContext) -> None:
    weights, place, picture = context.constant_of(1), *context.op.inputs[1:3]
    source, target = context.shape(picture), context.shape(context.target)
    if weights.shape[3] != source[3] or weights.shape[0] != target[3]:
        raise SourceFileError(
            f"{context.where} has weights {list(weights.shape)} from {list(source)} to {list(target)}: the channels do "
            "not fit"
        )
    if context.has_operand(3) and context.constant_of(3).size != weights.shape[0]:
        raise SourceFileError(
            f"{context.where} has a bias of {context.constant_of(3).size} numbers, expected {weights.shape[0]}"
        )
    for axis, option in ((1, "stride_h"), (2, "stride_w")):
        stride = context.int_option(option)
        if not 1 <= stride <= LARGEST_STRIDE or target[axis] > (source[axis] + 1) * stride + weights.shape[axis]:
            raise UnsupportedModelError(
                f"{context.where} makes {target[axis]} of {source[axis]} by {option} {stride}, expected 1 to "
                f"{LARGEST_STRIDE}"
            )
    kind, quant = weights.dtype.name, context.tensor(place).quant
    codes = kind in CODE_DTYPES and quant is not None and quant.axis in (None, 0)
    if not (codes if context.is_quantized(picture) else kind == "float32"):
        raise UnsupportedModelError(
            f"{context.where} has weights of {kind}, expected those of its image, with scales along their first axis"
        )


def _constants(context: ImportContext, axes: Axes) -> list[ir.Value]:
    """Weights and, where there is one, the bias, once for each phase."""
    weights, place, picture = context.constant_of(1), *context.op.inputs[1:3]
    phases = len(axes[0].taps) * len(axes[1].taps)
    bias = np.tile(context.constant_of(3).reshape(-1), phases) if context.has_operand(3) else None
    if not context.is_quantized(picture):
        value = context.initializer(phase_kernel(weights, *axes, 0), "weights")
        _tell_twin(context, place, value)
        return [value, *([] if bias is None else [context.initializer(bias, "bias")])]
    quant = context.own_quant(place)
    repeats = 1 if quant.scale.size == 1 else phases
    params = QuantParams(np.tile(quant.scale, repeats), np.tile(quant.zero_point, repeats), quant.axis)
    kernel = phase_kernel(weights, *axes, int(quant.zero_point.flat[0]))
    codes, real = constant_node(context.writer, kernel, params, context.names[place])
    _tell_twin(context, place, codes)
    if bias is None:
        return [real]
    index = context.op.inputs[3]
    bias_quant = bias_params(context.params(picture), params)
    codes, real_bias = constant_node(context.writer, bias, bias_quant, context.names[index])
    _tell_twin(context, index, codes)
    return [real, real_bias]


def _side_by_side(context: ImportContext, real: ir.Value, axes: Axes) -> ir.Value:
    """Phases ``(N, phases * O, rows, columns)`` as one image, without what lies beyond the output."""
    _, height, width, channels = context.shape(context.target)
    sides, picture = [len(axis.taps) for axis in axes], context.shape(context.op.inputs[2])
    sizes = [size + sum(axis.pads) - axis.span + 1 for size, axis in zip(picture[1:3], axes, strict=True)]
    apart = context.initializer(np.array([0, *sides, channels, *sizes], np.int64), "apart/shape")
    real = context.node("Reshape", [real, apart], "apart")
    real = context.node("Transpose", [real], "interleaved", perm=[0, 3, 4, 1, 5, 2])
    whole = [rows * side for rows, side in zip(sizes, sides, strict=True)]
    shape = context.initializer(np.array([0, channels, *whole], np.int64), "whole/shape")
    real = context.node("Reshape", [real, shape], "whole")
    if whole == [height, width]:
        return real
    numbers = {"starts": [0, 0], "ends": [height, width], "axes": [2, 3], "steps": [1, 1]}
    limits = [context.initializer(np.array(n, np.int64), f"cut/{k}") for k, n in numbers.items()]
    return context.node("Slice", [real, *limits], "cut")
