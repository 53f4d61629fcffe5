"""CONCATENATION, PACK, SPLIT and TILE: values are put together, taken apart and repeated.

Bit exact where the scales are equal, which int8 files guarantee; uint8 files may mix scales in a CONCATENATION, which is
then within 1 LSB at ties (LiteRT's built-in kernel rounds half away from zero).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.errors import SourceFileError
from converters.tflite.context import ImportContext, describe, int_option
from converters.tflite.ops.clamp import close_with_activation
from converters.tflite.ops.layout import reshape

if TYPE_CHECKING:
    from converters.tflite.records import TfliteOperator


def concatenation(context: ImportContext, op: TfliteOperator) -> None:
    """CONCATENATION along one axis; operands of another scale are rescaled by the QuantizeLinear."""
    target = op.outputs[0]
    axis = context.axis(target, context.source_axis(op, target, int_option(op, "axis")))
    operands = [context.float_of(index) for index in op.inputs]
    close_with_activation(context, op, context.writer.op("Concat", operands, context.name(op), axis=axis))


def pack(context: ImportContext, op: TfliteOperator) -> None:
    """PACK: a new axis in every operand, then a concatenation along it."""
    shape = context.tensor(op.outputs[0]).shape
    source_axis = context.source_axis(op, op.outputs[0], int_option(op, "axis"))
    axis = context.axis(op.outputs[0], source_axis)
    with_axis = (*shape[:source_axis], 1, *shape[source_axis + 1 :])
    operands = [
        reshape(
            context,
            context.float_of(i),
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
    reals = context.writer.ops("Split", [context.float_of(source), sizes], names, axis=axis)
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
    operands = [context.float_of(source), context.writer.constant(repeats, context.name(op, "repeats"))]
    context.close(op.outputs[0], context.writer.op("Tile", operands, context.name(op)))
