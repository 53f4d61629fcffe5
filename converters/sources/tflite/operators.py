"""The table of TFLite operators: one row says all that xdet knows of one, and every part of xdet reads it.

A row holds the frame that a file's records must keep (``supported``), the function that translates it (``importer``),
what constants it has (``xdet.inspection``), and in which cases how exactly the result equals LiteRT's
(docs/operators.md, ``xdet check``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from converters.sources.tflite.context import other_scale
from converters.sources.tflite.ops import activations, arithmetic, averages, moving, products

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.sources.tflite.context import ImportContext
    from converters.sources.tflite.reader import TfliteModel, TfliteOperator

Handler = Callable[["ImportContext"], None]
Kernel = Literal["XNNPACK", "built-in", "either", "-"]
StepKind = Literal["convolution", "pool", "elementwise", "other"]
MANY = 1 << 16


@dataclass(frozen=True, slots=True)
class Signature:
    """The frame of an operator."""

    inputs: tuple[int, int]  # smallest and largest number of operands
    outputs: tuple[int, int] = (1, 1)  # smallest and largest number of results
    optional: tuple[int, ...] = ()  # positions of operands that may be absent
    ranks: tuple[tuple[int, int], ...] = ()  # rank by operand position, where it matters
    positive: tuple[str, ...] = ()  # options that must be above 0


@dataclass(frozen=True, slots=True)
class Case:
    """One way in which an operator is translated: a line of docs/operators.md."""

    onnx: str  # what is written
    kernel: Kernel  # which of LiteRT's kernels runs
    bound_lsb: int = 0  # the largest distance of a code from LiteRT's; 0 is exact
    remark: str = ""  # why it is not exact, or what else is worth knowing
    when: str = ""  # the case in words; empty for the usual one
    # whether an operator is a case of this kind
    applies: Callable[[TfliteModel, TfliteOperator], bool] = lambda _model, _op: False


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a product."""

    scale_axis: int  # the axis of the output channels, along which there may be a scale each
    # input and weight shapes -> whether they fit, and the number of output channels
    fit: Callable[[tuple[int, ...], tuple[int, ...]], tuple[bool, int]]


@dataclass(frozen=True, slots=True)
class Row:
    """All about one operator."""

    handler: Handler  # translates it
    signature: Signature  # what its records must look like before a handler reads them
    # the usual translation first, then the special ones; the first special one that applies holds
    cases: tuple[Case, ...]
    step: StepKind = "other"  # what kind of step it is for memory
    constants: tuple[int, ...] = ()  # operands that are held as weights where they are constant; others are parameters
    weights: Weights | None = None  # of a product; None for other operators
    # it moves codes unchanged, whatever the scale of its output: LiteRT's kernel does not look at it
    moves: bool = False
    moves_floats: bool = False  # it only moves float32 numbers
    # operands whose codes are taken as numbers, or not at all, so that they need no scale
    codes_as_numbers: tuple[int, ...] = ()
    keeps_scale: bool = False  # its output must have the scale and zero-point of its input: LiteRT refuses any other
    floats_only: bool = False  # it is translated on float32 alone
    ties: bool = False  # ``--leaky-relu float`` leaves out what makes ties fall as LiteRT's, and gives 1 LSB away


ON_FLOATS = Case("the same operator, without pairs", "either", 1, "float32 sums have an order", "on float32")
"""The case of every operator that only computes on float32 numbers."""


def case_of(model: TfliteModel, op: TfliteOperator) -> Case | None:
    """How an operator of a model whose operators are sound is translated; None for operators without a row."""
    row = OPERATORS.get(op.op)
    if row is None:
        return None
    first = next((i for i in op.inputs if model.tensors[i].dtype not in ("int32", "int64")), op.inputs[0])
    ends = {model.tensors[index].dtype for index in (first, *op.outputs)}
    if ends == {"float32"} and not (row.moves or row.moves_floats or row.floats_only):
        return ON_FLOATS
    return next((case for case in row.cases[1:] if case.applies(model, op)), row.cases[0])


_UNARY = Signature((1, 1))
_BINARY = Signature((2, 2))
_STRIDES = ("stride_h", "stride_w")
_CONVOLUTION = Signature(
    (2, 3), optional=(2,), ranks=((0, 4), (1, 4)), positive=(*_STRIDES, "dilation_h", "dilation_w")
)
_POOL = Signature((1, 1), ranks=((0, 4),), positive=(*_STRIDES, "filter_h", "filter_w"))
_BLOCKS = Signature((1, 1), ranks=((0, 4),), positive=("block_size",))
_RESIZE = Signature((2, 2), ranks=((0, 4), (1, 1)))

_TABLE = "a table of 256 codes, looked up with Gather"
_PAIRS = "a table of 65,536 pairs, looked up with Gather"
_CODE_SUMS = "ReduceSum of int32 codes and six elementwise operators"
_SUMS = "MatMulInteger and about seven elementwise operators in float64 (`ops/products.py`)"
_OUTSIDE = "outside XNNPACK's range"
_OTHER_TYPE = f"{_OUTSIDE}, or to another type of codes"
_REQUANTIZED = "LeakyRelu; a table of 256 codes where no scale fits"
_PAIR_OUTSIDE = Case(_PAIRS, "built-in", when=_OUTSIDE, applies=arithmetic.is_outside_xnnpack)
_PAIR_BEYOND = Case(
    _PAIRS,
    "built-in",
    255,
    "that kernel's vector code wraps results around at 16 bits, the table clamps them",
    "outside XNNPACK's range, where results pass 32,767 codes",
    arithmetic.wraps,
)
_NUDGED_SUM = "Add, Sub, scales nudged by about a millionth, sometimes zero-points moved (3)"
_SUM = (Case(_NUDGED_SUM, "XNNPACK", remark="all 65,536 pairs of codes"), _PAIR_BEYOND, _PAIR_OUTSIDE)
_EXTREME = (Case("Max, Min", "built-in", remark="codes are compared, whatever their scales"),)
_REDUCED = (Case("ReduceMax, ReduceMin", "XNNPACK", remark="codes are compared, whatever the scale of the output"),)
_MOVES = "Reshape, Transpose, Slice, Gather, Tile, Split, Concat"
_MOVED = (Case(_MOVES, "either", remark="codes are moved, whatever the scale of the output"),)
_FITTED_CLIP = "Clip, its scale adjusted; a table of 256 codes where none fits"
_RELU = Row(
    activations.relu,
    _UNARY,
    (Case("Clip", "built-in"), Case(_FITTED_CLIP, "built-in", when="with other scales", applies=other_scale)),
    "elementwise",
)


def _row(handler: Handler, signature: Signature, *cases: Case, **more: Any) -> Row:
    return Row(handler, signature, cases, **more)


def _moved(handler: Handler, signature: Signature, step: StepKind = "other") -> Row:
    """An operator that moves codes, or float32 numbers."""
    return Row(handler, signature, _MOVED, step, moves=True)


def _function(kernel: Kernel, remark: str = "", handler: Handler = activations.function, onnx: str = _TABLE) -> Row:
    """A function of one number."""
    return Row(handler, _UNARY, (Case(onnx, kernel, remark=remark),), "elementwise", ties=True)


def _on_floats(handler: Handler, signature: Signature) -> Row:
    """An operator that is translated on float32 alone."""
    case = Case("Mul, Pow", "either", 1, "on float32 alone, whose last bit is each runtime's")
    return Row(handler, signature, (case,), "elementwise", floats_only=True)


def _pair(*cases: Case) -> Row:
    """A sum, difference, product or quotient."""
    return Row(arithmetic.combine, _BINARY, cases, "elementwise", (0, 1), ties=True)


def _convolution(onnx: str, weights: Weights) -> Row:
    return Row(products.convolution, _CONVOLUTION, (Case(onnx, "XNNPACK"),), "convolution", (1, 2), weights)


OPERATORS: Mapping[str, Row] = {
    "CONV_2D": _convolution("Conv", Weights(0, products.fits_convolution)),
    "DEPTHWISE_CONV_2D": _convolution("Conv, one group per channel", Weights(3, products.fits_depthwise)),
    "FULLY_CONNECTED": _row(
        products.fully_connected,
        Signature((2, 3), optional=(2,), ranks=((1, 2),)),
        Case("Gemm", "XNNPACK"),
        Case(_SUMS, "built-in", when="with weights computed at run time", applies=products.is_computed),
        constants=(1, 2),
        weights=Weights(0, products.fits_product),
    ),
    "BATCH_MATMUL": _row(
        products.batch_matmul,
        _BINARY,
        Case(_SUMS, "built-in"),
        Case(
            "MatMul",
            "XNNPACK",
            when="of int8 codes with zero-point 0 in the second operand",
            applies=products.is_multiplied_by_xnnpack,
        ),
    ),
    "TRANSPOSE_CONV": _row(
        products.transpose_conv,
        Signature((3, 4), optional=(3,), ranks=((1, 4), (2, 4)), positive=_STRIDES),
        Case(
            "Conv with a channel per phase, then Reshape, Transpose, Reshape",
            "XNNPACK",
            remark="at as many products as the kernel padded to whole strides has",
        ),
        Case(
            "ConvInteger with a channel per phase, then about ten elementwise operators in float64",
            "built-in",
            remark="that kernel's 31-bit fixed point; OpenCV and TVM have no ConvInteger: `--arithmetic fused` "
            "(<= 1 LSB)",
            when="with SAME padding and strides longer than the kernel",
            applies=products.is_sparse,
        ),
        step="convolution",
        constants=(1, 3),
        codes_as_numbers=(1,),
    ),
    "MAX_POOL_2D": _row(
        averages.pool,
        _POOL,
        Case("MaxPool", "XNNPACK", remark="built-in where strides are longer than the window, with the same codes"),
        step="pool",
    ),
    "AVERAGE_POOL_2D": _row(
        averages.pool,
        _POOL,
        Case("AveragePool, zero-point at stored code 0 (1)", "built-in"),
        Case(
            "AveragePool",
            "built-in",
            1,
            "that kernel rounds halves away from zero; beside a zero-point, float32 cannot tell such halves from the "
            "sums next to them",
            "of 128 pixels or more, or with other scales",
            averages.is_wide,
        ),
        step="pool",
        ties=True,
    ),
    "MEAN": _row(
        averages.mean,
        _BINARY,
        Case("ReduceMean, even zero-point, scale 1 (1)", "XNNPACK"),
        Case(
            _CODE_SUMS,
            "XNNPACK",
            when="of an even number of values that is no power of 2, with other scales, or zero-points at both rims",
            applies=averages.is_mean_inexact,
        ),
        ties=True,
    ),
    "LEAKY_RELU": _row(
        activations.leaky_relu,
        _UNARY,
        Case("LeakyRelu, scale and slope adjusted (1)", "XNNPACK"),
        Case(_TABLE, "built-in", when=_OUTSIDE, applies=activations.is_outside_xnnpack),
        step="elementwise",
        ties=True,
    ),
    "RELU": _RELU,
    "RELU6": _RELU,
    "RELU_N1_TO_1": _RELU,
    "LOGISTIC": _function(
        "XNNPACK",
        handler=activations.logistic,
        onnx="Sigmoid, its scale adjusted where a result lies near a tie, or a table of 256 codes",
    ),
    "ABS": _function("built-in", "31-bit fixed point where scales differ"),
    "EXP": _function("built-in"),
    "GELU": _function("built-in", "exact or by tanh, as the file says"),
    "LOG": _function("built-in", "the lowest code for numbers that have none"),
    "NEG": _function("built-in", "that kernel negates the code, whatever its scale and zero-point"),
    "RSQRT": _function("built-in", "LiteRT stops at numbers below 0"),
    "SQRT": _function("built-in", "towards zero; LiteRT stops at numbers below 0"),
    "TANH": _function("XNNPACK", "but within 0.00001 of a tie, where the C library's own tanh decides"),
    "SQUARE": _on_floats(activations.function, _UNARY),
    "POW": _on_floats(arithmetic.combine, _BINARY),
    "DIV": _pair(Case(_PAIRS, "built-in", remark="but for a divisor of 0, whose result is not defined")),
    "ARG_MAX": _row(
        averages.arg_max, _BINARY, Case("ArgMax", "built-in", remark="the first of equal codes"), codes_as_numbers=(0,)
    ),
    "SUM": _row(
        averages.sum_operator,
        _BINARY,
        Case("ReduceSum", "XNNPACK"),
        Case(_CODE_SUMS, "XNNPACK", when="with other scales", applies=other_scale),
    ),
    "REDUCE_MAX": Row(averages.reduce_extreme, _BINARY, _REDUCED, moves=True),
    "REDUCE_MIN": Row(averages.reduce_extreme, _BINARY, _REDUCED, moves=True),
    "PRELU": _row(
        arithmetic.prelu,
        _BINARY,
        Case("a table of 256 codes per slope, looked up with Gather", "built-in"),
        step="elementwise",
        constants=(1,),
        ties=True,
    ),
    "HARD_SWISH": _function("built-in", "that kernel's 16-bit fixed point"),
    "SOFTMAX": _row(
        activations.softmax,
        _UNARY,
        Case(
            "a table of 256 exponentials, Sum (CumSum beyond 128 classes), Div and about ten elementwise operators "
            "(`ops/activations.py`)",
            "built-in",
            remark="as on x86: on 64-bit Arm LiteRT has another kernel",
        ),
    ),
    "QUANTIZE": _row(
        activations.quantize,
        _UNARY,
        Case("8 bit to 8 bit: LeakyRelu with a slope of (nearly) 1 (1)(2)", "XNNPACK"),
        Case(
            "nothing where pixels are the codes, else QuantizeLinear; of codes, a LeakyRelu of slope 1 in front",
            "-",
            when="from float",
            applies=activations.reads_float,
        ),
        Case(
            _REQUANTIZED,
            "built-in",
            1,
            "that kernel rounds halves up in blocks of 16, away from zero behind the last one",
            f"{_OTHER_TYPE}, of a number of values that 16 does not divide",
            activations.rounds_both_ways,
        ),
        Case(_REQUANTIZED, "built-in", when=_OTHER_TYPE, applies=activations.is_outside_xnnpack),
        step="elementwise",
        ties=True,
    ),
    "DEQUANTIZE": Row(activations.dequantize, _UNARY, (Case("DequantizeLinear", "-"),), "elementwise"),
    "CAST": _row(
        activations.cast_operator,
        _UNARY,
        Case("8 bit to float: DequantizeLinear with scale 1; integers: Cast", "-"),
        step="elementwise",
        codes_as_numbers=(0,),
    ),
    "ADD": _pair(*_SUM),
    "SUB": _pair(*_SUM),
    "MUL": _pair(
        Case("Mul, one scale nudged (3)", "XNNPACK", remark="all pairs"),
        _PAIR_BEYOND,
        _PAIR_OUTSIDE,
        Case(
            "Mul, its scales nudged (3)",
            "XNNPACK",
            remark="all of the 256 pairs that can occur",
            when="of a tensor and its LOGISTIC (SiLU)",
            applies=lambda model, op: arithmetic.gate_of(model, op) is not None,
        ),
        Case(
            "Mul, its scales nudged (3); a table of 256 codes where none fits",
            "XNNPACK",
            remark="that of a square, which it rounds another way than a product",
            when="of a tensor with itself",
            applies=lambda _model, op: arithmetic.is_square(op),
        ),
    ),
    "MAXIMUM": Row(arithmetic.extreme, _BINARY, _EXTREME, "elementwise", (0, 1), moves=True),
    "MINIMUM": Row(arithmetic.extreme, _BINARY, _EXTREME, "elementwise", (0, 1), moves=True),
    "CONCATENATION": _row(
        moving.concatenation,
        Signature((1, MANY)),
        Case("Concat; a fused activation does nothing, in LiteRT as here", "XNNPACK"),
        Case(
            "Concat, their scales adjusted (4)",
            "built-in",
            remark="2^31 codes and more become code 0, as on x86",
            when="of uint8 operands with other scales",
            applies=moving.rescales,
        ),
        moves_floats=True,
        ties=True,
    ),
    "RESIZE_NEAREST_NEIGHBOR": _row(
        averages.resize_nearest_neighbor,
        _RESIZE,
        Case("Resize for whole factors, else two Gather with TFLite's own indices", "built-in"),
        moves=True,
    ),
    "RESIZE_BILINEAR": _row(
        averages.resize_bilinear,
        _RESIZE,
        Case("by 2 and 4: Resize, zero-point at the lowest code (1)", "XNNPACK", remark="plain and half-pixel"),
        Case(
            "int32 Gather and weighted sums (`ops/averages.py`)",
            "XNNPACK",
            remark="at about fifteen elementwise operators: ONNX's Resize has no 11-bit weights",
            when="by other factors",
            applies=averages.is_fine,
        ),
        keeps_scale=True,
        ties=True,
    ),
    "PAD": _row(
        moving.pad,
        Signature((2, 2), ranks=((1, 2),)),
        Case("Pad; gone where a convolution follows", "XNNPACK"),
        moves_floats=True,
    ),
    "MIRROR_PAD": _moved(moving.mirror_pad, Signature((2, 2), ranks=((1, 2),))),
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
    "UNPACK": _moved(moving.split, Signature((1, 1), outputs=(1, MANY))),
    "DEPTH_TO_SPACE": replace(_moved(moving.regroup, _BLOCKS), keeps_scale=True),
    "SPACE_TO_DEPTH": replace(_moved(moving.regroup, _BLOCKS), keeps_scale=True),
    "SHAPE": _row(
        moving.shape_operator,
        _UNARY,
        Case("nothing, nor for integer arithmetic behind it: computed at conversion", "-"),
        codes_as_numbers=(0,),
    ),
}
WEIGHTED = frozenset(name for name, row in OPERATORS.items() if row.weights is not None)
MOVING = frozenset(name for name, row in OPERATORS.items() if row.moves)
