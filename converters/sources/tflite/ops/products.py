"""Products of codes with weights or with one another: convolutions, plain and transposed, and matrix products.

CONV_2D and DEPTHWISE_CONV_2D: DequantizeLinear x 3 -> Conv -> QuantizeLinear, with the source's integers. Float
activations: the same operators without pairs; int8 weights stay codes behind a DequantizeLinear (dynamic range).
Numeric effect: none against LiteRT XNNPACK. ONNX Runtime's QLinearConv requantises exactly like it, with the float32
factor ``x_scale * w_scale / y_scale`` and rounding half to even.

FULLY_CONNECTED: DequantizeLinear x 3 -> Gemm -> QuantizeLinear, with the source's integers.

Sums of products as LiteRT's built-in kernels requantise them: 31-bit fixed point, rounded twice. Runtimes multiply a
sum by one float32 factor and round once. The built-in kernels multiply by 31 bits, round half up, divide by a power of
two and round again (``converters.integer.functions.rescaled``). Float64 holds every step: a sum of 24 bits times 31
bits needs 55, of which 53 are kept, which moves no sum that is not within 2^-26 of a half. Seven elementwise operators
on the product; ``--arithmetic fused`` keeps the fused operator instead, within 1 LSB.

TRANSPOSE_CONV as an ordinary convolution that gives every phase of the output as channels of its own. Along an axis
with stride ``s`` output ``s * m + phase`` reads inputs ``m + offset`` alone, each with one tap of the kernel. So one
convolution with stride 1 and ``s * s`` times the output channels, whose taps are the kernel's and zeros, gives all
outputs; Reshape and Transpose put the phases side by side. Runtimes run it in integers and requantise it as every other
convolution, which is what XNNPACK does, too: bit exact. ONNX's ConvTranspose would run in float32. Source of the
cropping: tensorflow/lite/kernels/padding.h, as for a convolution from the output to the input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters._ir import ir
from converters.errors import SourceFileError, UnsupportedModelError
from converters.graph import bias_params, constant_node
from converters.integer.convolution import same_padding
from converters.integer.functions import quantized_multiplier
from converters.quant import QuantParams
from converters.sources.tflite.context import CODE_DTYPES, ImportContext
from converters.sources.tflite.ops.activations import clipped_codes, close_with_activation
from converters.spec import TensorTwin

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.sources.tflite.reader import TfliteModel, TfliteOperator

Shape = tuple[int, ...]


def fits_convolution(image: Shape, weights: Shape) -> tuple[bool, int]:
    """Weights ``(out, h, w, in)``; grouped where the input has a multiple of ``in`` channels."""
    groups, rest = divmod(image[3], weights[3])
    return rest == 0 and weights[0] % groups == 0, weights[0]


def fits_depthwise(image: Shape, weights: Shape) -> tuple[bool, int]:
    """Weights ``(1, h, w, in * multiplier)``."""
    return weights[0] == 1 and weights[3] % image[3] == 0, weights[3]


def fits_product(source: Shape, weights: Shape) -> tuple[bool, int]:
    """Weights ``(units, length)``; the input is read as rows of ``length``."""
    return math.prod(source) % weights[1] == 0, weights[0]


def is_computed(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether weights of codes are computed at run time."""
    return model.tensors[op.inputs[1]].data is None


def is_multiplied_by_xnnpack(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether XNNPACK takes a BATCH_MATMUL: of int8 codes, the second operand's with zero-point 0."""
    tensor = model.tensors[op.inputs[1]]
    return tensor.dtype == "int8" and tensor.quant is not None and not tensor.quant.zero_point.any()


def convolution(context: ImportContext) -> None:
    """CONV_2D, in groups where the input has more channels than the weights, and DEPTHWISE_CONV_2D, a group a channel.

    Weights ``(out, h, w, in)`` become ``(out, in, h, w)``, those of a depthwise one, ``(1, h, w, in * multiplier)``,
    ``(in * multiplier, 1, h, w)``.
    """
    weights, (_, *sizes, groups) = context.constant_of(1), context.shape(context.source)
    if context.op.op == "CONV_2D":
        groups //= weights.shape[3]
        weights, layout = weights.transpose(0, 3, 1, 2), "OHWI->OIHW"
    else:
        weights, layout = weights.transpose(3, 0, 1, 2), "1HWO->O1HW"
    kernel = list(weights.shape[2:])
    strides, dilations = ([context.int_option(f"{what}_{side}") for side in "hw"] for what in ("stride", "dilation"))
    pads = [0, 0, 0, 0]
    if context.op.options["padding"] != "VALID":
        axes = zip(sizes, kernel, strides, dilations, strict=True)
        (top, bottom), (left, right) = (same_padding(*axis) for axis in axes)
        pads = [top, left, bottom, right]
    operands = [context.float_of(context.source), _weights(context, weights, layout), *_bias(context)]
    real = context.node(
        "Conv", operands, kernel_shape=kernel, strides=strides, dilations=dilations, group=groups, pads=pads
    )
    close_with_activation(context, real)


def _weights(context: ImportContext, weights: NDArray[Any], layout: str) -> ir.Value:
    """The weights' codes as the source has them, dequantised along their first axis; float weights as they are."""
    index = context.op.inputs[1]
    params = None if weights.dtype == np.float32 else context.own_quant(index)
    return _constant(context, index, weights, params, layout)


def _bias(context: ImportContext) -> list[ir.Value]:
    """The int32 bias, dequantised with exactly ``x_scale * w_scale``; none where the operator has none."""
    if not context.has_operand(2):
        return []
    source, place, index = context.op.inputs[:3]
    bias = context.constant_of(2).reshape(-1)
    is_float = bias.dtype == np.float32
    params = None if is_float else bias_params(context.params(source), context.own_quant(place))
    return [_constant(context, index, bias, params, "same")]


def _constant(
    context: ImportContext, index: int, array: NDArray[Any], params: QuantParams | None, layout: str
) -> ir.Value:
    """Weights or a bias of one operator: integers dequantised by ``params``, or float numbers."""
    name = context.names[index]
    if params is None:
        value = real = context.writer.constant(array, context.writer.unique(f"{name}/float"))
    else:
        value, real = constant_node(context.writer, array, params, name)
    _tell_twin(context, index, value, layout)
    return real


def _tell_twin(context: ImportContext, index: int, value: ir.Value, layout: str, shift: int = 0) -> None:
    context.twins[context.names[index]] = TensorTwin(str(value.name), layout, shift)


def batch_matmul(context: ImportContext) -> None:
    """BATCH_MATMUL: the last two axes of both operands in the source's layout; ``adj_x``, ``adj_y`` exchange them."""
    op, target = context.op, context.target
    rank = len(context.shape(target))
    codes = [_matrix(context, position, option) for position, option in enumerate(("adj_x", "adj_y"))]
    if not is_multiplied_by_xnnpack(context.model, op) and is_fixed_point(context):
        sums = integer_product(context, *codes)
        product = requantized(context, sums, context.name("nhwc"), halves_up=False)
        context.define(target, context.from_source_layout(product, rank, context.names[target]))
        return
    operands = [
        context.adjusted_float_of(index, context.params(index), value) if context.is_quantized(index) else value
        for index, value in zip(op.inputs, codes, strict=True)
    ]
    context.close(context.from_source_layout(context.node("MatMul", operands, "product"), rank, context.name()))


def _matrix(context: ImportContext, position: int, exchanged: str) -> ir.Value:
    """An operand's codes (or float32 numbers) in the source's layout, so that runtimes multiply them as they are."""
    index, name = context.op.inputs[position], context.name(f"operand{position}")
    rank = len(context.shape(index))
    value = context.to_source_layout(context.codes_of(index), rank, f"{name}/nhwc")
    if context.op.options[exchanged]:
        perm = [*range(rank - 2), rank - 1, rank - 2]
        value = context.writer.op("Transpose", [value], f"{name}/exchanged", perm=perm)
    return value


def fully_connected(context: ImportContext) -> None:
    """FULLY_CONNECTED: the input is flattened to rows of the weights' length, weights stay ``(out, in)``.

    Weights may be computed at run time (attention): then they are read as every other tensor.
    """
    place, shape = context.op.inputs[1], context.shape(context.source)
    units, length = context.shape(place)
    rows = (math.prod(shape) // length, length)
    if place in context.constants:
        weights = _weights(context, context.constant_of(1), "same")
    elif is_fixed_point(context):
        _multiply_computed(context, rows, units)
        return
    else:
        weights = context.float_of(place)
    pixels = context.reshape(context.float_of(context.source), shape, rows, context.name("rows"))
    real = context.node("Gemm", [pixels, weights, *_bias(context)], "product", transB=1)
    real = context.reshape(real, (rows[0], units), context.shape(context.target), context.name("shaped"))
    close_with_activation(context, real)


def _multiply_computed(context: ImportContext, rows: tuple[int, int], units: int) -> None:
    """A FULLY_CONNECTED with computed weights, in LiteRT's fixed point."""
    source, target = context.source, context.target
    codes = context.reshape(context.codes_of(source), context.shape(source), rows, context.name("rows"))
    columns = context.node("Transpose", [context.codes_of(context.op.inputs[1])], "columns", perm=[1, 0])
    sums = integer_product(context, codes, columns)
    if context.has_operand(2):
        bias = context.initializer(context.constant_of(2).reshape(-1), "bias")
        sums = context.node("Add", [sums, bias], "biased")
    shape, flat = context.shape(target), (rows[0], units)
    name = context.names[target]
    product = requantized(context, sums, name if shape == flat else context.name("flat"), halves_up=True)
    context.define(target, context.reshape(product, flat, shape, name))


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
    return context.as_codes(clipped_codes(context, codes, np.float64), name)


LARGEST_STRIDE = 64  # a phase, and so a channel of every output, for each


def is_sparse(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether XNNPACK does not take a transposed convolution."""
    kernel, strides = model.tensors[op.inputs[1]].shape[1:3], (op.options["stride_h"], op.options["stride_w"])
    sparse = any(isinstance(s, int) and s > size for size, s in zip(kernel, strides, strict=True))
    return sparse and op.options["padding"] == "SAME"


@dataclass(frozen=True, slots=True)
class PhaseAxis:
    """A transposed convolution along one axis."""

    taps: tuple[tuple[tuple[int, int], ...], ...]  # for each phase the pairs (offset of the input, tap of the kernel)
    rows: int  # how many outputs each phase has
    pads: tuple[int, int]  # input pixels of zero in front and behind

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
    (place, picture), target = context.op.inputs[1:3], context.target
    _require_fit(context)
    sizes, new_sizes, kernel = (context.shape(index)[1:3] for index in (picture, target, place))
    strides, same = [context.int_option(f"stride_{side}") for side in "hw"], context.op.options["padding"] == "SAME"
    axes = zip(sizes, new_sizes, kernel, strides, strict=True)
    rows, columns = (phase_axis(*axis, same=same) for axis in axes)
    window = {
        "kernel_shape": [rows.span, columns.span],
        "pads": [rows.pads[0], columns.pads[0], rows.pads[1], columns.pads[1]],
    }
    if is_sparse(context.model, context.op) and is_fixed_point(context):
        _close_sparse(context, (rows, columns), window)
        return
    operands = [context.float_of(picture), *_constants(context, (rows, columns))]
    real = context.node("Conv", operands, "phases", **window)
    if context.is_quantized(target):
        real = context.rounded(real, context.params(target), ("phases/codes", "phases/dequantized"))
    close_with_activation(context, _side_by_side(context, real, (rows, columns)))


def _close_sparse(context: ImportContext, axes: Axes, window: dict[str, list[int]]) -> None:
    """In LiteRT's fixed point: int32 sums, a 31-bit factor per channel; weights are the dialect's codes."""
    (place, picture), target = context.op.inputs[1:3], context.target
    quant, shift = context.own_quant(place), context.shift(place)
    zero = int(quant.zero_point.flat[0])
    kernel = phase_kernel(context.constant_of(1), *axes, zero).astype(np.int16) + shift
    codes = context.writer.constant(kernel.astype(context.code_dtype), context.names[place])
    _tell_twin(context, place, codes, "phases", shift)
    zeros = [
        context.initializer(context.code_dtype(number), f"{what}/zero")
        for what, number in (("image", context.params(picture).scalar_zero_point), ("weights", zero + shift))
    ]
    sums = context.node("ConvInteger", [context.codes_of(picture), codes, *zeros], "phases", **window)
    sums = _side_by_side(context, sums, axes)
    if context.has_operand(3):
        index = context.op.inputs[3]
        bias = context.writer.constant(context.constant_of(3).reshape(1, -1, 1, 1), context.names[index])
        _tell_twin(context, index, bias, "phases")
        sums = context.node("Add", [sums, bias], "biased")
    scales = float(context.params(picture).scalar_scale) * quant.scale.astype(np.float64)
    factors = (scales / float(context.params(target).scalar_scale)).reshape(1, -1, 1, 1)
    halves_up = context.tensor(target).dtype == "uint8"
    result = requantized(context, sums, context.names[target], halves_up=halves_up, factors=factors)
    context.define(target, result)


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
        _tell_twin(context, place, value, "phases")
        return [value, *([] if bias is None else [context.initializer(bias, "bias")])]
    quant = context.own_quant(place)
    repeats = 1 if quant.scale.size == 1 else phases
    params = QuantParams(np.tile(quant.scale, repeats), np.tile(quant.zero_point, repeats), quant.axis)
    kernel = phase_kernel(weights, *axes, int(quant.zero_point.flat[0]))
    constants = [_constant(context, place, kernel, params, "phases")]
    if bias is not None:
        numbers = bias_params(context.params(picture), params)
        constants.append(_constant(context, context.op.inputs[3], bias, numbers, "phases"))
    return constants


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
