"""What every operator's records must look like before a handler reads them: counts of operands, ranks, sane options.

One literal table; a file that breaks it is refused with everything that is wrong in it, so that handlers need no
checks of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.errors import SourceFileError
from converters.tflite.operands import misfits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from converters.tflite.records import TfliteModel, TfliteOperator

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
