"""STRIDED_SLICE and GATHER with constant indices, and PAD with the zero-point. Bit exact: values are only moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.errors import SourceFileError, UnsupportedModelError
from converters.tflite.context import ImportContext, describe, int_option
from converters.tflite.ops.layout import reshape
from converters.tflite.ops.strided_index import axis_ranges, strided_index

if TYPE_CHECKING:
    from converters.tflite.records import TfliteOperator


def strided_slice(context: ImportContext, op: TfliteOperator) -> None:
    """STRIDED_SLICE: an ONNX Slice over the axes that lose values, then a reshape for axes that come or go."""
    source, target = op.inputs[0], op.outputs[0]
    shape = context.tensor(source).shape
    ranges = axis_ranges(strided_index(context, op), shape)
    real, sliced = context.moved_float_of(source, target), tuple(len(r) for r in ranges)
    touched = [axis for axis, r in enumerate(ranges) if r != range(shape[axis])]
    if 0 in sliced:
        msg = f"{context.model.file}: {describe(context, op)} takes nothing from shape {list(shape)}"
        raise UnsupportedModelError(msg)
    if touched:
        limits = zip(
            *((ranges[axis].start, _end(ranges[axis]), ranges[axis].step) for axis in touched), strict=True
        )
        starts, ends, steps = (np.array(values, np.int64) for values in limits)
        axes = np.array([context.axis(source, axis) for axis in touched], np.int64)
        operands = [
            context.writer.constant(array, context.name(op, what))
            for what, array in (("starts", starts), ("ends", ends), ("axes", axes), ("steps", steps))
        ]
        real = context.writer.op("Slice", [real, *operands], context.name(op))
    context.close(
        target, reshape(context, real, sliced, context.tensor(target).shape, context.name(op, "reshaped"))
    )


def _end(taken: range) -> int:
    """Where an ONNX Slice ends; "before the first value" needs a number that is not read as "the last value"."""
    return taken.stop if taken.stop >= 0 else np.iinfo(np.int64).min


def gather(context: ImportContext, op: TfliteOperator) -> None:
    """GATHER with constant indices along one axis."""
    source, target = op.inputs[0], op.outputs[0]
    shape, indices = context.tensor(source).shape, context.constant_of(op, 1).astype(np.int64)
    source_axis = context.source_axis(op, source, int_option(op, "axis"))
    axis = context.axis(source, source_axis)
    size = shape[source_axis]
    if indices.size == 0 or indices.min() < 0 or indices.max() >= size:
        msg = f"{context.model.file}: {describe(context, op)} reads outside the {size} entries of its axis, or nothing"
        raise SourceFileError(msg)
    where = context.writer.constant(indices.reshape(-1), context.name(op, "indices"))
    real = context.writer.op(
        "Gather", [context.moved_float_of(source, target), where], context.name(op), axis=axis
    )
    flat = (*shape[:source_axis], indices.size, *shape[source_axis + 1 :])
    context.close(
        target, reshape(context, real, flat, context.tensor(target).shape, context.name(op, "reshaped"))
    )


def pad(context: ImportContext, op: TfliteOperator) -> None:
    """PAD with real 0, which is the zero-point."""
    source = op.inputs[0]
    rank = len(context.tensor(source).shape)
    pads = context.constant_of(op, 1).astype(np.int64)
    if pads.shape != (rank, 2) or (pads < 0).any():
        where = f"{context.model.file}: {describe(context, op)}"
        msg = f"{where} has paddings of shape {list(pads.shape)}, expected {[rank, 2]} of numbers >= 0"
        raise SourceFileError(msg)
    if pads[0].any():
        context.axis(source, 0)
    if rank == 4:
        pads = pads[[0, 3, 1, 2]]
    operands = [
        context.float_of(source),
        context.writer.constant(pads.T.reshape(-1), context.name(op, "pads")),
    ]
    context.close(op.outputs[0], context.writer.op("Pad", operands, context.name(op), mode="constant"))
