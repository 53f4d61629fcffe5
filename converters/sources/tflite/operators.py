"""What every operator's records must look like before a handler reads them: counts of operands, ranks, sane options.

One literal table; a file that breaks it is refused with everything that is wrong in it, so that handlers need no
checks of their own.

Whether weights, bias and channels of an operator fit each other.

LiteRT trusts them: a bias of one element in front of a thousand channels is read beyond its end. So the file is asked
here, before any kernel or handler sees it. Rules: tensorflow/lite/kernels/{conv,depthwise_conv,fully_connected}.cc.

The table of operators: which function translates which TFLite operator.

What the importer translates of a sound model: one question before any work, answered with everything that is in the way.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.errors import SourceFileError, UnsupportedModelError
from converters.sources.tflite.context import ImportContext
from converters.sources.tflite.ops import activations as activation
from converters.sources.tflite.ops import activations as casting
from converters.sources.tflite.ops import activations as quantization
from converters.sources.tflite.ops import arithmetic, shape_arithmetic
from converters.sources.tflite.ops import averages as pooling
from converters.sources.tflite.ops import averages as reduction
from converters.sources.tflite.ops import averages as resize
from converters.sources.tflite.ops import moving as joining
from converters.sources.tflite.ops import moving as layout
from converters.sources.tflite.ops import moving as slicing
from converters.sources.tflite.ops import products as convolution
from converters.sources.tflite.ops import products as fully_connected
from converters.sources.tflite.ops.activations import BOUNDS
from converters.sources.tflite.reader import TfliteOperator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converters.sources.tflite.reader import TfliteModel

Shape = tuple[int, ...]
WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})


def misfits(model: TfliteModel, op: TfliteOperator) -> Iterator[str]:
    """One clause per pair of operands that does not fit; for operators whose signature holds."""
    if op.op not in FITS:
        return
    shapes = [model.tensors[index].shape for index in op.inputs if index >= 0]
    fits, channels = FITS[op.op](shapes[0], shapes[1])
    if not fits:
        yield f"has weights {list(shapes[1])} for an input {list(shapes[0])}: the channels do not fit"
    bias = model.tensors[op.inputs[2]] if len(op.inputs) > 2 and op.inputs[2] >= 0 else None
    if bias is not None and math.prod(bias.shape) != channels:
        yield f"has a bias of shape {list(bias.shape)}, expected [{channels}], one per output channel"


def _convolution(image: Shape, weights: Shape) -> tuple[bool, int]:
    """Weights ``(out, h, w, in)``; grouped where the input has a multiple of ``in`` channels."""
    groups, rest = divmod(image[3], weights[3])
    return rest == 0 and weights[0] % groups == 0, weights[0]


def _depthwise(image: Shape, weights: Shape) -> tuple[bool, int]:
    """Weights ``(1, h, w, in * multiplier)``."""
    return weights[0] == 1 and weights[3] % image[3] == 0, weights[3]


def _product(source: Shape, weights: Shape) -> tuple[bool, int]:
    """Weights ``(units, length)``; the input is read as rows of ``length``."""
    return math.prod(source) % weights[1] == 0, weights[0]


FITS: Mapping[str, Callable[[Shape, Shape], tuple[bool, int]]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _product,
}
"""Operator -> function of input and weight shapes: whether they fit, and the number of output channels."""


MANY = 1 << 16


@dataclass(frozen=True, slots=True)
class Signature:
    """The frame of an operator.

    Attributes:
        inputs: smallest and largest number of operands.
        outputs: smallest and largest number of results.
        optional: positions of operands that may be absent.
        ranks: rank by operand position, where it matters.
        positive: options that must be above 0.
    """

    inputs: tuple[int, int]
    outputs: tuple[int, int] = (1, 1)
    optional: tuple[int, ...] = ()
    ranks: tuple[tuple[int, int], ...] = ()
    positive: tuple[str, ...] = ()


_UNARY = Signature((1, 1))
_BINARY = Signature((2, 2))
_STRIDES = ("stride_h", "stride_w")
_CONVOLUTION = Signature(
    (2, 3), optional=(2,), ranks=((0, 4), (1, 4)), positive=(*_STRIDES, "dilation_h", "dilation_w")
)
_POOL = Signature((1, 1), ranks=((0, 4),), positive=(*_STRIDES, "filter_h", "filter_w"))
_RESIZE = Signature((2, 2), ranks=((0, 4), (1, 1)))

SIGNATURES: Mapping[str, Signature] = {
    "ADD": _BINARY,
    "AVERAGE_POOL_2D": _POOL,
    "CAST": _UNARY,
    "CONCATENATION": Signature((1, MANY)),
    "CONV_2D": _CONVOLUTION,
    "DEPTHWISE_CONV_2D": _CONVOLUTION,
    "DEQUANTIZE": _UNARY,
    "FULLY_CONNECTED": Signature((2, 3), optional=(2,), ranks=((1, 2),)),
    "GATHER": _BINARY,
    "LEAKY_RELU": _UNARY,
    "LOGISTIC": _UNARY,
    "MAX_POOL_2D": _POOL,
    "MEAN": _BINARY,
    "MUL": _BINARY,
    "PACK": Signature((1, MANY)),
    "PAD": Signature((2, 2), ranks=((1, 2),)),
    "QUANTIZE": _UNARY,
    "RELU": _UNARY,
    "RELU6": _UNARY,
    "RELU_N1_TO_1": _UNARY,
    "RESHAPE": Signature((1, 2)),
    "RESIZE_BILINEAR": _RESIZE,
    "RESIZE_NEAREST_NEIGHBOR": _RESIZE,
    "SHAPE": _UNARY,
    "SOFTMAX": _UNARY,
    "SPLIT": Signature((2, 2), outputs=(1, MANY)),
    "STRIDED_SLICE": Signature((4, 4), ranks=((1, 1), (2, 1), (3, 1))),
    "SUB": _BINARY,
    "TILE": Signature((2, 2), ranks=((1, 1),)),
    "TRANSPOSE": Signature((2, 2), ranks=((1, 1),)),
}


def require_sound(model: TfliteModel) -> None:
    """Check every operator that the table knows: whoever runs the file may trust its operands then.

    Raises:
        SourceFileError: operators without the operands, ranks or options they need, or with weights or biases that do
            not fit; all of them listed.
    """
    problems = malformed(model)
    if problems:
        msg = f"{model.file}: operators are malformed: {'; '.join(problems)}; export the model again"
        raise SourceFileError(msg)


def malformed(model: TfliteModel) -> list[str]:
    """Everything in which the operators that the table knows break it, one clause each."""
    clauses: list[str] = []
    for op in model.operators:
        if op.op in SIGNATURES:
            problems = list(_problems(model, op, SIGNATURES[op.op])) or list(misfits(model, op))
            clauses.extend(f"operator {op.index} {op.op} {problem}" for problem in problems)
    return clauses


def _problems(model: TfliteModel, op: TfliteOperator, signature: Signature) -> Iterator[str]:
    for what, found, (low, high) in (
        ("operands", len(op.inputs), signature.inputs),
        ("results", len(op.outputs), signature.outputs),
    ):
        if not low <= found <= high:
            yield f"has {found} {what}, expected {low if low == high else f'{low} or more'}"
            return
    absent = [i for i, index in enumerate(op.inputs) if index < 0 and i not in signature.optional]
    if absent:
        yield f"lacks operand {absent[0]}"
        return
    shapes = [model.tensors[index].shape for index in (*op.inputs, *op.outputs) if index >= 0]
    if any(0 in shape for shape in shapes):
        yield f"works on an empty tensor among {[list(shape) for shape in shapes]}"
    for position, rank in signature.ranks:
        shape = model.tensors[op.inputs[position]].shape
        if len(shape) != rank:
            yield f"has operand {position} of shape {list(shape)}, expected {rank} axes"
    for name in signature.positive:
        value = op.options[name]
        if not isinstance(value, int) or value < 1:
            yield f"has {name} {value}, expected 1 or more"


Handler = Callable[[ImportContext, TfliteOperator], None]

HANDLERS: Mapping[str, Handler] = {
    "ADD": arithmetic.add,
    "AVERAGE_POOL_2D": pooling.average_pool_2d,
    "CAST": casting.cast,
    "CONCATENATION": joining.concatenation,
    "CONV_2D": convolution.conv_2d,
    "DEPTHWISE_CONV_2D": convolution.depthwise_conv_2d,
    "DEQUANTIZE": quantization.dequantize,
    "FULLY_CONNECTED": fully_connected.fully_connected,
    "GATHER": slicing.gather,
    "LEAKY_RELU": activation.leaky_relu,
    "LOGISTIC": activation.logistic,
    "MAX_POOL_2D": pooling.max_pool_2d,
    "MEAN": reduction.mean,
    "MUL": arithmetic.mul,
    "PACK": joining.pack,
    "PAD": slicing.pad,
    "QUANTIZE": quantization.quantize,
    "RELU": activation.relu,
    "RELU6": activation.relu,
    "RELU_N1_TO_1": activation.relu,
    "RESHAPE": layout.reshape_operator,
    "RESIZE_BILINEAR": resize.resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resize.resize_nearest_neighbor,
    "SHAPE": shape_arithmetic.shape,
    "SOFTMAX": activation.softmax,
    "SPLIT": joining.split,
    "STRIDED_SLICE": slicing.strided_slice,
    "SUB": arithmetic.sub,
    "TILE": joining.tile,
    "TRANSPOSE": layout.transpose,
}


# Operators that may touch float tensors: the borders of the quantised network, and what only moves values.
FLOAT_BORDER = frozenset({"QUANTIZE", "DEQUANTIZE", "CAST"})
MOVERS = frozenset({"GATHER", "PACK", "PAD", "RESHAPE", "SPLIT", "STRIDED_SLICE", "TILE", "TRANSPOSE"})
CODE_DTYPES = frozenset({"int8", "uint8"})
INDEX_DTYPES = frozenset({"int32", "int64", "bool"})
SCALE_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}


def require_supported(model: TfliteModel) -> None:
    """Refuse a model with anything malformed or untranslatable, naming all of it at once.

    Raises:
        SourceFileError: some of it is malformed.
        UnsupportedModelError: all of it is sound, some of it has no translation.
    """
    broken, foreign = malformed(model), _untranslatable(model)
    if broken:
        also = [f"and there is no translation for {'; '.join(foreign)}"] if foreign else []
        listed = "; ".join([*broken, *also])
        raise SourceFileError(f"{model.file}: operators are malformed: {listed}; export the model again")
    if foreign:
        advice = ""
        if any(" on float32 x" in problem for problem in foreign):
            advice = "; this looks like a float model: quantise it to int8 first, or convert its Keras file"
        msg = f"{model.file}: no translation for {'; '.join(foreign)}; xdet reads int8 and uint8 detectors{advice}"
        raise UnsupportedModelError(msg)


def _untranslatable(model: TfliteModel) -> list[str]:
    """Kinds of operators and tensor types with counts, then single operators."""
    operators = Counter(op.op for op in model.operators if op.op not in HANDLERS)
    known = [op for op in model.operators if op.op in HANDLERS]
    types = Counter(f"{op.op} on {dtype}" for op in known for dtype in sorted(_foreign_dtypes(model, op)))
    problems = []
    if operators:
        problems.append("operators " + ", ".join(f"{name} x{n}" for name, n in sorted(operators.items())))
    if types:
        problems.append("tensor types " + ", ".join(f"{name} x{n}" for name, n in sorted(types.items())))
    for op in known:
        if not _foreign_dtypes(model, op):
            reasons = (*_refused_options(op), *_refused_weights(model, op), *_refused_scales(model, op))
            problems.extend(f"operator {op.index} {op.op}, which {reason}" for reason in reasons)
    return problems


def _foreign_dtypes(model: TfliteModel, op: TfliteOperator) -> set[str]:
    """Tensor types of ``op`` that its handler does not take."""
    allowed = CODE_DTYPES | INDEX_DTYPES | ({"float32"} if op.op in FLOAT_BORDER | MOVERS else set())
    indices = [i for i in (*op.inputs, *op.outputs) if i >= 0]
    return {model.tensors[i].dtype for i in indices} - allowed


def _refused_options(op: TfliteOperator) -> Iterator[str]:
    activation = str(op.options.get("fused_activation", "NONE"))
    if activation not in BOUNDS:
        yield f"has fused activation {activation}; known are {', '.join(BOUNDS)}"
    if op.options.get("batch_dims", 0) != 0:
        yield f"has batch_dims {op.options['batch_dims']}, only 0 is supported"
    if op.options.get("weights_format", "DEFAULT") != "DEFAULT":
        yield "has shuffled weights; export the model without them"


def _refused_weights(model: TfliteModel, op: TfliteOperator) -> Iterator[str]:
    """Weights and bias must be constants of the right types; weights need scales along their output channels."""
    if op.op not in WEIGHTED or len(op.inputs) < 2:
        return
    operands = [(position, model.tensors[index]) for position, index in enumerate(op.inputs) if index >= 0]
    for position, tensor in operands[1:]:
        if tensor.data is None:
            yield f"needs a constant as operand {position}, but tensor {tensor.name!r} is computed at run time"
        elif position == 2 and tensor.dtype != "int32":
            yield f"has a bias of {tensor.dtype}, expected int32"
        elif position == 1 and (tensor.dtype not in CODE_DTYPES or tensor.quant is None):
            yield f"has weights {tensor.name!r} of {tensor.dtype} without a scale"
        elif (
            position == 1 and tensor.quant is not None and tensor.quant.axis not in (None, SCALE_AXIS[op.op])
        ):
            yield f"has weight scales along axis {tensor.quant.axis}, expected {SCALE_AXIS[op.op]}, the output channels"


def _refused_scales(model: TfliteModel, op: TfliteOperator) -> Iterator[str]:
    """Activations need one scale, except where codes are taken as numbers, or not at all."""
    ignored = {"SHAPE": (0,), "CAST": (0,)}.get(op.op, (1,) if op.op in WEIGHTED else ())
    indices = [index for position, index in enumerate(op.inputs) if position not in ignored]
    for index in dict.fromkeys((*indices, *op.outputs)):
        tensor = model.tensors[index]
        scales = 0 if tensor.quant is None else tensor.quant.scale.size
        if index >= 0 and tensor.dtype in CODE_DTYPES and scales != 1:
            yield f"has tensor {tensor.name!r} of {tensor.dtype} with {scales} scales, expected 1 per activation"
