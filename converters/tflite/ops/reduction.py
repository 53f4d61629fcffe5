"""MEAN over constant axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.errors import SourceFileError
from converters.tflite.context import ImportContext, describe
from converters.tflite.ops.layout import reshape
from converters.tflite.ops.pivot import even_pivot

if TYPE_CHECKING:
    from converters.tflite.records import TfliteOperator


def mean(context: ImportContext, op: TfliteOperator) -> None:
    """MEAN."""
    source, target = op.inputs[0], op.outputs[0]
    shape = context.tensor(source).shape
    rank = len(shape)
    wanted = [int(axis) for axis in context.constant_of(op, 1).reshape(-1)]
    if not wanted or any(not -rank <= axis < rank for axis in wanted):
        msg = f"{context.model.file}: {describe(context, op)} reduces axes {wanted} of shape {list(shape)}"
        raise SourceFileError(msg)
    source_axes = sorted({axis % rank for axis in wanted})
    axes = [context.axis(source, axis) for axis in source_axes]
    pivot = even_pivot(context, source, target)
    operand = context.writer.constant(np.array(sorted(axes), np.int64), context.name(op, "axes"))
    real = context.writer.op(
        "ReduceMean",
        [context.adjusted_float_of(source, pivot.before, target), operand],
        context.name(op),
        keepdims=1,
    )
    kept = tuple(1 if axis in source_axes else size for axis, size in enumerate(shape))
    real = reshape(context, real, kept, context.tensor(target).shape, context.name(op, "reshaped"))
    context.define_quantized(target, real, pivot.after)
