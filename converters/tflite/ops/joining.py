"""CONCATENATION, PACK, SPLIT and TILE: values are put together, taken apart and repeated.

Bit exact: codes are moved, whatever the output's scale. Only a uint8 CONCATENATION rescales operands of another scale
(``converters.concatenated``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.concatenated import concatenated_table, fitted_scale
from converters.errors import SourceFileError
from converters.quant import QuantParams
from converters.tflite.context import ImportContext, describe, int_option
from converters.tflite.ops.activation import leaky_case, look_up
from converters.tflite.ops.layout import reshape

if TYPE_CHECKING:
    import onnx_ir as ir

    from converters.tflite.records import TfliteOperator


def concatenation(context: ImportContext, op: TfliteOperator) -> None:
    """CONCATENATION along one axis. A fused activation does nothing: XNNPACK ignores it, and no other kernel takes one."""
    target = op.outputs[0]
    axis = context.axis(target, context.source_axis(op, target, int_option(op, "axis")))
    operands = [_operand(context, op, position) for position in range(len(op.inputs))]
    context.close(target, context.writer.op("Concat", operands, context.name(op), axis=axis))


def _operand(context: ImportContext, op: TfliteOperator, position: int) -> ir.Value:
    """An operand's reals, with the scale that gives LiteRT's codes behind the output's QuantizeLinear."""
    source, target = op.inputs[position], op.outputs[0]
    if not (context.match_litert and context.is_quantized(source) and context.is_quantized(target)):
        return context.float_of(source)
    if context.params(source).same_as(context.params(target)):
        return context.float_of(source)
    case = leaky_case(context, source, target, 1.0)
    wanted = concatenated_table(case)
    scale = fitted_scale(case, wanted)
    if scale is not None:
        params = QuantParams(np.array([scale], np.float32), context.params(source).zero_point)
        return context.adjusted_float_of(source, params, target)
    codes = look_up(context, op, context.codes_of(source), wanted, context.name(op, f"operand{position}"))
    return context.adjusted_float_of(source, context.params(target), target, codes=codes)


def pack(context: ImportContext, op: TfliteOperator) -> None:
    """PACK: a new axis in every operand, then a concatenation along it."""
    shape = context.tensor(op.outputs[0]).shape
    source_axis = context.source_axis(op, op.outputs[0], int_option(op, "axis"))
    axis = context.axis(op.outputs[0], source_axis)
    with_axis = (*shape[:source_axis], 1, *shape[source_axis + 1 :])
    operands = [
        reshape(
            context,
            context.moved_float_of(i, op.outputs[0]),
            context.tensor(i).shape,
            with_axis,
            context.name(op, f"operand{position}"),
        )
        for position, i in enumerate(op.inputs)
    ]
    context.close(op.outputs[0], context.writer.op("Concat", operands, context.name(op), axis=axis))


def split(context: ImportContext, op: TfliteOperator) -> None:
    """SPLIT into equal parts."""
    source = op.inputs[1]
    source_axis = context.source_axis(op, source, int(context.constant_of(op, 0).reshape(-1)[0]))
    axis = context.axis(source, source_axis)
    size = context.tensor(source).shape[source_axis]
    parts = len(op.outputs)
    if size % parts:
        msg = f"{context.model.file}: {describe(context, op)} splits {size} values into {parts} equal parts"
        raise SourceFileError(msg)
    sizes = context.writer.constant(np.full(parts, size // parts, np.int64), context.name(op, "sizes"))
    names = [f"{context.names[index]}/float" for index in op.outputs]
    reals = context.writer.ops(
        "Split", [context.moved_float_of(source, op.outputs[0]), sizes], names, axis=axis
    )
    for index, real in zip(op.outputs, reals, strict=True):
        context.close(index, real)


def tile(context: ImportContext, op: TfliteOperator) -> None:
    """TILE."""
    source = op.inputs[0]
    rank = len(context.tensor(source).shape)
    repeats = context.constant_of(op, 1).reshape(-1).astype(np.int64)
    if repeats.size != rank or (repeats < 1).any():
        msg = f"{context.model.file}: {describe(context, op)} repeats {repeats.tolist()}, expected {rank} numbers above 0"
        raise SourceFileError(msg)
    if repeats[0] != 1:
        context.axis(source, 0)
    if rank == 4:
        repeats = repeats[[0, 3, 1, 2]]
    operands = [
        context.moved_float_of(source, op.outputs[0]),
        context.writer.constant(repeats, context.name(op, "repeats")),
    ]
    context.close(op.outputs[0], context.writer.op("Tile", operands, context.name(op)))
