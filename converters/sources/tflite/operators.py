"""The table of TFLite operators: one row says all that xdet knows of one, and every part of xdet reads it.

A row holds the frame that a file's records must keep (``supported``), the function that translates it (``importer``), what
constants it has (``xdet.inspection``), and in which cases how exactly the result equals LiteRT's (docs/operators.md, ``xdet
check``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from converters.integer.pairs import Affine, PairCase, PairOp, xnnpack_takes
from converters.leaky import LeakyCase, xnnpack_multipliers
from converters.sources.tflite.context import ImportContext
from converters.sources.tflite.ops import (
    activations,
    arithmetic,
    averages,
    moving,
    products,
    shape_arithmetic,
)
from converters.sources.tflite.ops.integer_resize import axis_weights
from converters.sources.tflite.reader import TfliteModel, TfliteOperator

if TYPE_CHECKING:
    from converters.quant import QuantParams

Shape = tuple[int, ...]
Handler = Callable[[ImportContext, TfliteOperator], None]
Kernel = Literal["XNNPACK", "built-in", "either", "-"]
StepKind = Literal["convolution", "pool", "elementwise", "other"]

MANY = 1 << 16
LARGEST_WINDOW = 127  # pixels that AVERAGE_POOL_2D averages exactly


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


@dataclass(frozen=True, slots=True)
class Case:
    """One way in which an operator is translated: a line of docs/operators.md.

    Attributes:
        onnx: what is written.
        kernel: which of LiteRT's kernels runs.
        bound_lsb: the largest distance of a code from LiteRT's; 0 is exact.
        remark: why it is not exact, or what else is worth knowing.
        when: the case in words; empty for the usual one.
        applies: whether an operator is a case of this kind.
    """

    onnx: str
    kernel: Kernel
    bound_lsb: int = 0
    remark: str = ""
    when: str = ""
    applies: Callable[[TfliteModel, TfliteOperator], bool] = lambda _model, _op: False


ON_FLOATS = Case("the same operator, without pairs", "either", 1, "float32 sums have an order", "on float32")
"""The case of every operator that only computes on float32 numbers."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a product.

    Attributes:
        scale_axis: the axis of the output channels, along which there may be a scale each.
        fit: input and weight shapes -> whether they fit, and the number of output channels.
    """

    scale_axis: int
    fit: Callable[[Shape, Shape], tuple[bool, int]]


@dataclass(frozen=True, slots=True)
class Row:
    """All about one operator.

    Attributes:
        handler: translates it.
        signature: what its records must look like before a handler reads them.
        cases: the usual translation first, then the special ones; the first special one that applies holds.
        step: what kind of step it is for memory.
        constants: operands that are held as weights where they are constant; others are parameters.
        weights: of a product; None for other operators.
        moves: it moves codes unchanged, whatever the scale of its output: LiteRT's kernel does not look at it.
        codes_as_numbers: operands whose codes are taken as numbers, or not at all, so that they need no scale.
        keeps_scale: its output must have the scale and zero-point of its input: LiteRT refuses any other.
        ties: ``--leaky-relu float`` leaves out what makes ties fall as LiteRT's, and gives 1 LSB away.
    """

    handler: Handler
    signature: Signature
    cases: tuple[Case, ...]
    step: StepKind = "other"
    constants: tuple[int, ...] = ()
    weights: Weights | None = None
    moves: bool = False
    codes_as_numbers: tuple[int, ...] = ()
    keeps_scale: bool = False
    ties: bool = False

    def case_of(self, model: TfliteModel, op: TfliteOperator) -> Case:
        """The case that holds for an operator of a model whose operators are sound."""
        ends = {model.tensors[index].dtype for index in (*op.inputs[:1], *op.outputs)}
        if ends == {"float32"} and not self.moves:
            return ON_FLOATS
        return next((case for case in self.cases[1:] if case.applies(model, op)), self.cases[0])


def case_of(model: TfliteModel, op: TfliteOperator) -> Case | None:
    """How an operator is translated, by its row; None for operators without one."""
    return OPERATORS[op.op].case_of(model, op) if op.op in OPERATORS else None


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


def _per_tensor(model: TfliteModel, *indices: int) -> list[QuantParams] | None:
    """The tensors' quantisation; None where one has no scale, or several."""
    found = [model.tensors[index].quant for index in indices]
    return [q for q in found if q is not None and q.scale.size == 1] if all(
        q is not None and q.scale.size == 1 for q in found
    ) else None  # fmt: skip


def _has_uint8_weights(model: TfliteModel, op: TfliteOperator) -> bool:
    return model.tensors[op.inputs[1]].dtype == "uint8"


def _other_scale(model: TfliteModel, op: TfliteOperator) -> bool:
    quants = _per_tensor(model, op.inputs[0], op.outputs[0])
    return quants is not None and quants[0].scalar_scale != quants[1].scalar_scale


def _is_wide(model: TfliteModel, op: TfliteOperator) -> bool:
    window = math.prod(int(cast("int", op.options[name])) for name in ("filter_h", "filter_w"))
    return window > LARGEST_WINDOW or _other_scale(model, op)


def _reads_float(model: TfliteModel, op: TfliteOperator) -> bool:
    return model.tensors[op.inputs[0]].dtype == "float32"


def _is_outside_xnnpack(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether XNNPACK's LeakyReLU does not take the operator, by its scales and slope."""
    quants = _per_tensor(model, op.inputs[0], op.outputs[0])
    if quants is None or quants[0].same_as(quants[1]):
        return False
    slope = np.float32(cast("float", op.options.get("alpha", 1.0)))
    case = LeakyCase(quants[0].scalar_scale, 0, quants[1].scalar_scale, 0, slope)
    return xnnpack_multipliers(case) is None


def _is_pair_outside_xnnpack(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether XNNPACK does not take a sum or product of two tensors."""
    quants = _per_tensor(model, *op.inputs[:2], op.outputs[0])
    if quants is None:
        return False
    a, b, out = (Affine(q.scalar_scale, q.scalar_zero_point) for q in quants)
    return not xnnpack_takes(PairCase(cast("PairOp", op.op), a, b, out, lowest=0))


def _rescales(model: TfliteModel, op: TfliteOperator) -> bool:
    quants = _per_tensor(model, *op.inputs, op.outputs[0])
    return quants is not None and any(not q.same_as(quants[-1]) for q in quants)


def _is_fine(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether a bilinear resize has weights that ONNX's Resize has not."""
    sizes, new_sizes = model.tensors[op.inputs[0]].shape[1:3], model.tensors[op.outputs[0]].shape[1:3]
    return not all(axis_weights(op, *pair).is_coarse for pair in zip(sizes, new_sizes, strict=True))


_UNARY = Signature((1, 1))
_BINARY = Signature((2, 2))
_STRIDES = ("stride_h", "stride_w")
_CONVOLUTION = Signature(
    (2, 3), optional=(2,), ranks=((0, 4), (1, 4)), positive=(*_STRIDES, "dilation_h", "dilation_w")
)
_POOL = Signature((1, 1), ranks=((0, 4),), positive=(*_STRIDES, "filter_h", "filter_w"))
_BLOCKS = Signature((1, 1), ranks=((0, 4),), positive=("block_size",))
_RESIZE = Signature((2, 2), ranks=((0, 4), (1, 1)))

_UINT8_WEIGHTS = Case(
    "the same", "built-in", 1, "that kernel multiplies in 31-bit fixed point", "with uint8 weights", _has_uint8_weights
)  # fmt: skip
_OUTSIDE = "outside XNNPACK's range"
_RELU = Row(
    activations.relu,
    _UNARY,
    (
        Case("Clip", "built-in"),
        Case("Clip", "built-in", 1, "that kernel rounds twice (0.25 becomes 1)", "with other scales", _other_scale),
    ),
    "elementwise",
)  # fmt: skip
_PAIR_OUTSIDE = Case(
    "Add, Sub, Mul", "built-in", 1, "noted in the model's document", _OUTSIDE, _is_pair_outside_xnnpack
)
_SUM = (
    Case(
        "Add, Sub, scales nudged by about a millionth, sometimes zero-points moved (3)",
        "XNNPACK",
        remark="all 65,536 pairs of codes",
    ),
    _PAIR_OUTSIDE,
)


_EXTREME = (Case("Max, Min", "built-in", remark="codes are compared, whatever their scales"),)
_MOVED = (
    Case(
        "Reshape, Transpose, Slice, Gather, Tile, Split, Concat",
        "either",
        remark="codes are moved, whatever the scale of the output",
    ),
)


def _moved(handler: Handler, signature: Signature, step: StepKind = "other") -> Row:
    """An operator that moves codes, or float32 numbers."""
    return Row(handler, signature, _MOVED, step, moves=True)


OPERATORS: Mapping[str, Row] = {
    "CONV_2D": Row(
        products.conv_2d,
        _CONVOLUTION,
        (Case("Conv", "XNNPACK"), _UINT8_WEIGHTS),
        "convolution",
        constants=(1, 2),
        weights=Weights(0, _convolution),
    ),
    "DEPTHWISE_CONV_2D": Row(
        products.depthwise_conv_2d,
        _CONVOLUTION,
        (Case("Conv, one group per channel", "XNNPACK"), _UINT8_WEIGHTS),
        "convolution",
        constants=(1, 2),
        weights=Weights(3, _depthwise),
    ),
    "FULLY_CONNECTED": Row(
        products.fully_connected,
        Signature((2, 3), optional=(2,), ranks=((1, 2),)),
        (Case("Gemm", "XNNPACK"), _UINT8_WEIGHTS),
        constants=(1, 2),
        weights=Weights(0, _product),
    ),
    "MAX_POOL_2D": Row(averages.max_pool_2d, _POOL, (Case("MaxPool", "XNNPACK"),), "pool"),
    "AVERAGE_POOL_2D": Row(
        averages.average_pool_2d,
        _POOL,
        (
            Case("AveragePool, zero-point at stored code 0 (1)", "built-in"),
            Case(
                "AveragePool",
                "built-in",
                1,
                when="of 128 pixels or more, or with other scales",
                applies=_is_wide,
            ),
        ),
        "pool",
        ties=True,
    ),
    "MEAN": Row(
        averages.mean,
        _BINARY,
        (
            Case("ReduceMean, even zero-point, scale 1 (1)", "XNNPACK"),
            Case(
                "ReduceMean",
                "XNNPACK",
                1,
                "XNNPACK's float32 factor decides near-ties",
                "with other scales",
                _other_scale,
            ),
        ),
        ties=True,
    ),
    "LEAKY_RELU": Row(
        activations.leaky_relu,
        _UNARY,
        (
            Case("LeakyRelu, scale and slope adjusted (1)", "XNNPACK"),
            Case("LeakyRelu", "built-in", 1, "noted in the model's document", _OUTSIDE, _is_outside_xnnpack),
        ),
        "elementwise",
        ties=True,
    ),
    "RELU": _RELU,
    "RELU6": _RELU,
    "RELU_N1_TO_1": _RELU,
    "LOGISTIC": Row(
        activations.logistic,
        _UNARY,
        (Case("Sigmoid", "XNNPACK", 1, "equal at the scales tested, but a near-tie could differ"),),
        "elementwise",
    ),
    "PRELU": Row(
        arithmetic.prelu,
        _BINARY,
        (Case("a table of 256 codes per slope, looked up with Gather", "built-in"),),
        "elementwise",
        constants=(1,),
        ties=True,
    ),
    "HARD_SWISH": Row(
        activations.hard_swish,
        _UNARY,
        (
            Case(
                "a table of 256 codes, looked up with Gather",
                "built-in",
                remark="that kernel's 16-bit fixed point",
            ),
        ),
        "elementwise",
        ties=True,
    ),
    "SOFTMAX": Row(
        activations.softmax,
        _UNARY,
        (Case("Softmax", "built-in", 1, "at most 1 % of values: that kernel has a table of exponentials"),),
    ),
    "QUANTIZE": Row(
        activations.quantize,
        _UNARY,
        (
            Case("8 bit to 8 bit: LeakyRelu with a slope of (nearly) 1 (1)(2)", "XNNPACK"),
            Case(
                "nothing where pixels are the codes, else QuantizeLinear",
                "-",
                when="from float",
                applies=_reads_float,
            ),
            Case("LeakyRelu", "built-in", 1, "noted in the model's document", _OUTSIDE, _is_outside_xnnpack),
        ),
        "elementwise",
        ties=True,
    ),
    "DEQUANTIZE": Row(activations.dequantize, _UNARY, (Case("DequantizeLinear", "-"),), "elementwise"),
    "CAST": Row(
        activations.cast,
        _UNARY,
        (Case("8 bit to float: DequantizeLinear with scale 1", "-"),),
        "elementwise",
        codes_as_numbers=(0,),
    ),
    "ADD": Row(arithmetic.add, _BINARY, _SUM, "elementwise", (0, 1), ties=True),
    "SUB": Row(arithmetic.sub, _BINARY, _SUM, "elementwise", (0, 1), ties=True),
    "MUL": Row(
        arithmetic.mul,
        _BINARY,
        (
            Case("Mul, one scale nudged (3)", "XNNPACK", remark="all pairs"),
            _PAIR_OUTSIDE,
            Case(
                "Mul, its scales nudged (3)",
                "XNNPACK",
                remark="all of the 256 pairs that can occur",
                when="of a tensor and its LOGISTIC (SiLU)",
                applies=lambda model, op: arithmetic.gate_of(model, op) is not None,
            ),
        ),
        "elementwise",
        (0, 1),
        ties=True,
    ),
    "MAXIMUM": Row(arithmetic.maximum, _BINARY, _EXTREME, "elementwise", (0, 1), moves=True),
    "MINIMUM": Row(arithmetic.minimum, _BINARY, _EXTREME, "elementwise", (0, 1), moves=True),
    "CONCATENATION": Row(
        moving.concatenation,
        Signature((1, MANY)),
        (
            Case("Concat; a fused activation does nothing, in LiteRT as here", "XNNPACK"),
            Case(
                "Concat, their scales adjusted (4)",
                "built-in",
                when="of uint8 operands with other scales",
                applies=_rescales,
            ),
        ),
        ties=True,
    ),
    "RESIZE_NEAREST_NEIGHBOR": Row(
        averages.resize_nearest_neighbor,
        _RESIZE,
        (Case("Resize for whole factors, else two Gather with TFLite's own indices", "built-in"),),
        moves=True,
    ),
    "RESIZE_BILINEAR": Row(
        averages.resize_bilinear,
        _RESIZE,
        (
            Case(
                "by 2 and 4: Resize, zero-point at the lowest code (1)",
                "XNNPACK",
                remark="plain and half-pixel",
            ),
            Case(
                "int32 Gather and weighted sums (`ops/integer_resize.py`)",
                "XNNPACK",
                remark="at about fifteen elementwise operators: ONNX's Resize has no 11-bit weights",
                when="by other factors",
                applies=_is_fine,
            ),
        ),
        keeps_scale=True,
        ties=True,
    ),
    "PAD": Row(
        moving.pad,
        Signature((2, 2), ranks=((1, 2),)),
        (Case("Pad; gone where a convolution follows", "XNNPACK"),),
    ),
    "RESHAPE": _moved(moving.reshape_operator, Signature((1, 2)), "elementwise"),
    "SQUEEZE": _moved(moving.reshape_operator, _UNARY, "elementwise"),
    "EXPAND_DIMS": _moved(moving.reshape_operator, _BINARY, "elementwise"),
    "TRANSPOSE": _moved(moving.transpose, Signature((2, 2), ranks=((1, 1),))),
    "STRIDED_SLICE": _moved(moving.strided_slice, Signature((4, 4), ranks=((1, 1), (2, 1), (3, 1)))),
    "SLICE": _moved(moving.slice_operator, Signature((3, 3), ranks=((1, 1), (2, 1)))),
    "GATHER": _moved(moving.gather, _BINARY),
    "TILE": _moved(moving.tile, Signature((2, 2), ranks=((1, 1),))),
    "SPLIT": _moved(moving.split, Signature((2, 2), outputs=(1, MANY))),
    "PACK": _moved(moving.pack, Signature((1, MANY))),
    "UNPACK": _moved(moving.unpack, Signature((1, 1), outputs=(1, MANY))),
    "DEPTH_TO_SPACE": replace(_moved(moving.depth_to_space, _BLOCKS), keeps_scale=True),
    "SPACE_TO_DEPTH": replace(_moved(moving.space_to_depth, _BLOCKS), keeps_scale=True),
    "SHAPE": Row(
        shape_arithmetic.shape,
        _UNARY,
        (Case("nothing, nor for integer arithmetic behind it: computed at conversion", "-"),),
        codes_as_numbers=(0,),
    ),
}
WEIGHTED = frozenset(name for name, row in OPERATORS.items() if row.weights is not None)
MOVING = frozenset(name for name, row in OPERATORS.items() if row.moves)
