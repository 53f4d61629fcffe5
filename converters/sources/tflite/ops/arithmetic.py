"""ADD, SUB and MUL with broadcasting: DequantizeLinear x 2 -> Add, Sub or Mul -> QuantizeLinear.

Scales are nudged, and zero-points moved, so that every pair of codes comes out as LiteRT's XNNPACK kernels compute it
(``converters.integer.pair_search``); runtimes that fuse the operator pay nothing for it. Where no such numbers exist
the same integers
are computed step by step (``ops.integer_pairs``). ``--leaky-relu float`` keeps the file's own numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from converters.graph import NHWC_TO_NCHW
from converters.integer.functions import prelu_tables
from converters.integer.late_sum import square_table
from converters.integer.pair_search import gated_pairs, pairs_of, search_form, squared_pairs
from converters.integer.pairs import Affine, PairCase, PairOp, all_codes, xnnpack_takes
from converters.quant import QuantParams
from converters.sources.tflite.ops.activations import (
    close_by_table,
    close_with_activation,
    code_bounds,
    leaky_case,
    look_up_rows,
)
from converters.sources.tflite.ops.integer_pairs import close_by_pairs, close_in_integers
from converters.sources.tflite.ops.moving import reshape

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.integer.pair_search import PairForm, Pairs
    from converters.integer.pairs import Integers
    from converters.leaky import LeakyCase
    from converters.sources.tflite.context import ImportContext
    from converters.sources.tflite.reader import TfliteModel, TfliteOperator

NODES = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div", "POW": "Pow"}


def add(context: ImportContext, op: TfliteOperator) -> None:
    """ADD."""
    _binary(context, op)


def sub(context: ImportContext, op: TfliteOperator) -> None:
    """SUB."""
    _binary(context, op)


def mul(context: ImportContext, op: TfliteOperator) -> None:
    """MUL."""
    _binary(context, op)


def div(context: ImportContext, op: TfliteOperator) -> None:
    """DIV."""
    _binary(context, op)


def power(context: ImportContext, op: TfliteOperator) -> None:
    """POW of float32 numbers."""
    _close_plainly(context, op, *op.inputs[:2])


def maximum(context: ImportContext, op: TfliteOperator) -> None:
    """MAXIMUM: of codes, whatever their scales; LiteRT's kernel does not look at them."""
    _extreme(context, op, "Max")


def minimum(context: ImportContext, op: TfliteOperator) -> None:
    """MINIMUM: of codes, whatever their scales."""
    _extreme(context, op, "Min")


def _extreme(context: ImportContext, op: TfliteOperator, node: str) -> None:
    target = op.outputs[0]
    operands = [
        context.adjusted_float_of(i, context.params(target), target, codes=_aligned_codes(context, op, i))
        if context.is_quantized(i)
        else _aligned(context, op, i, context.float_of(i))
        for i in op.inputs
    ]
    context.close(target, context.writer.op(node, operands, context.name(op)))


def prelu(context: ImportContext, op: TfliteOperator) -> None:
    """PRELU with constant slopes: a table of LiteRT's codes for each, on float32 the real function."""
    source, slopes, target = *op.inputs, op.outputs[0]
    codes = context.constant_of(op, 1)
    if context.match_litert and context.is_quantized(target):
        quant = context.tensor(slopes).quant
        assert quant is not None, "require_supported refuses codes without a scale"  # noqa: S101 - checked before
        distinct, places = np.unique(codes, return_inverse=True)
        case = leaky_case(context, source, target, 1.0)
        tables = prelu_tables(case, distinct.astype(np.int64) - quant.scalar_zero_point, quant.scalar_scale)
        rows = _laid_out(places.reshape(codes.shape), _full_shape(context, op, slopes) or codes.shape)
        look_up_rows(context, op, tables, rows)
        return
    if context.is_quantized(slopes):
        slope = context.adjusted_float_of(
            slopes, context.params(slopes), target, codes=_aligned_codes(context, op, slopes)
        )
    else:
        slope = _aligned(context, op, slopes, context.float_of(slopes))
    context.close(target, context.writer.op("PRelu", [context.float_of(source), slope], context.name(op)))


def _laid_out(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """An array of the source in the graph's layout."""
    array = array.reshape(shape)
    return array.transpose(NHWC_TO_NCHW) if len(shape) == 4 else array


def _binary(context: ImportContext, op: TfliteOperator) -> None:
    a, b = _in_order(context, op)
    quantized = all(context.is_quantized(index) for index in (a, b, op.outputs[0]))
    if not (context.match_litert and quantized):
        _close_plainly(context, op, a, b)
        return
    case = pair_case(context, op, a, b)
    if not xnnpack_takes(case):
        if context.keeps_fused(op):
            _close_plainly(context, op, a, b)
        else:
            close_by_pairs(context, op, case, [_aligned_codes(context, op, index) for index in (a, b)])
        return
    codes = [_codes(context, case, index) for index in (a, b)]
    square = leaky_case(context, a, op.outputs[0], 1.0)
    pairs = pairs_that_occur(context.model, op, case, codes, square)
    form = search_form(case, pairs, may_swap=_size(context, a) == _size(context, b))
    if form is None and context.keeps_fused(op):
        _close_plainly(context, op, a, b)
    elif form is None and is_square(op):
        to_int8 = 0 if context.activations == "int8" else -128
        low, high = (bound + to_int8 for bound in code_bounds(context, op))
        close_by_table(context, op, np.clip(square_table(square), low, high))
    elif form is None:
        operands = [_aligned_codes(context, op, index) for index in (a, b)]
        close_in_integers(context, op, case, operands)
    else:
        _close_fused(context, op, (a, b), form)


def pairs_that_occur(
    model: TfliteModel, op: TfliteOperator, case: PairCase, codes: Sequence[Integers], square: LeakyCase
) -> Pairs:
    """The pairs of codes of an operator that XNNPACK takes, and its results.

    Args:
        model: the source.
        op: an ADD, SUB or MUL.
        case: its arithmetic on the graph's codes.
        codes: those that its first and its second operand may have.
        square: the arithmetic from its first operand to its output, on int8 codes.
    """
    if is_square(op):
        return squared_pairs(case, square_table(square) + case.lowest + 128)
    gate = gate_of(model, op)
    return pairs_of(case, *codes) if gate is None else gated_pairs(case, gate)


def is_square(op: TfliteOperator) -> bool:
    """Whether an operator is a MUL of a tensor with itself, of which XNNPACK makes a table of 256 codes."""
    return op.op == "MUL" and op.inputs[0] == op.inputs[1]


def gate_of(model: TfliteModel, op: TfliteOperator) -> int | None:
    """Which operand of a MUL is the LOGISTIC of the other (SiLU), so that each code meets one other only; None: neither."""
    if op.op != "MUL":
        return None
    read = {other.outputs[0]: other.inputs[0] for other in model.operators if other.op == "LOGISTIC"}
    return next((gate for gate in (0, 1) if read.get(op.inputs[gate]) == op.inputs[1 - gate]), None)


def _in_order(context: ImportContext, op: TfliteOperator) -> tuple[int, int]:
    """The operands, the larger one of an ADD first: ONNX Runtime adds a broadcast operand first wherever it stands."""
    a, b = op.inputs[:2]
    return (b, a) if op.op == "ADD" and _size(context, a) < _size(context, b) else (a, b)


def _size(context: ImportContext, index: int) -> int:
    return math.prod(context.tensor(index).shape)


def pair_case(context: ImportContext, op: TfliteOperator, a: int, b: int) -> PairCase:
    """The arithmetic of an operator on the graph's codes."""
    params = [context.params(index) for index in (a, b, op.outputs[0])]
    first, second, out = (Affine(p.scalar_scale, p.scalar_zero_point) for p in params)
    return PairCase(cast("PairOp", op.op), first, second, out, int(np.iinfo(context.code_dtype).min))


def _codes(context: ImportContext, case: PairCase, index: int) -> Integers:
    """The codes that an operand may have: those of a constant, or all."""
    if index not in context.constants:
        return all_codes(case)
    return np.unique(context.constants[index]).astype(np.int64) + context.shift(index)


def _close_plainly(context: ImportContext, op: TfliteOperator, a: int, b: int) -> None:
    target = op.outputs[0]
    operands = [
        context.adjusted_float_of(i, context.params(i), target, codes=_aligned_codes(context, op, i))
        if context.is_quantized(i)
        else _aligned(context, op, i, context.float_of(i))
        for i in (a, b)
    ]
    close_with_activation(context, op, context.writer.op(NODES[op.op], operands, context.name(op)))


def _close_fused(context: ImportContext, op: TfliteOperator, operands: tuple[int, int], form: PairForm) -> None:
    target = op.outputs[0]
    read = [
        context.adjusted_float_of(index, _params(affine), target, codes=_aligned_codes(context, op, index))
        for index, affine in zip(operands, (form.a, form.b), strict=True)
    ]
    real = context.writer.op(NODES[op.op], read[::-1] if form.swapped else read, context.name(op))
    close_with_activation(context, op, real, _params(form.out))
    if form.failing:
        context.notes.append(
            f"{op.op} {context.names[target]!r} gives LiteRT's code for every pair on x86 with AVX2; single pairs may "
            f"differ by 1 in the arithmetic of: {', '.join(form.failing)}"
        )


def _params(affine: Affine) -> QuantParams:
    return QuantParams(np.array([affine.scale], np.float32), np.array([affine.zero_point], np.int64))


def _aligned_codes(context: ImportContext, op: TfliteOperator, index: int) -> ir.Value:
    """The codes of an operand, in the shape of ``_aligned``; a constant is stored in it, so that runtimes fuse the operator."""
    full = _full_shape(context, op, index)
    if full is None or index not in context.constants:
        return _aligned(context, op, index, context.codes_of(index))
    array = context.constants[index].reshape(full)
    array = array.transpose(NHWC_TO_NCHW) if len(full) == 4 else array
    codes = (array.astype(np.int16) + context.shift(index)).astype(context.code_dtype)
    return context.writer.constant(codes, context.name(op, f"operand{op.inputs.index(index)}"))


def _aligned(context: ImportContext, op: TfliteOperator, index: int, value: ir.Value) -> ir.Value:
    """An operand whose axes stand where the output's are, so that broadcasting meets the right ones."""
    full = _full_shape(context, op, index)
    if full is None:
        return value
    shape = context.tensor(index).shape
    return reshape(context, value, shape, full, context.name(op, f"operand{op.inputs.index(index)}"))


def _full_shape(context: ImportContext, op: TfliteOperator, index: int) -> tuple[int, ...] | None:
    """The operand's shape with leading ones; None where broadcasting needs none."""
    shape, rank = context.tensor(index).shape, len(context.tensor(op.outputs[0]).shape)
    if len(shape) == rank or (len(shape) != 4 and rank != 4):
        return None
    return (1,) * (rank - len(shape)) + tuple(shape)
