"""RESHAPE, TRANSPOSE and what other families need of them.

Values are moved, never changed. A rank-4 value lives in NCHW, so a reshape goes through the source's layout; the pairs of
Transpose that this leaves between operators are removed by ``converters.passes.cancel_transposes``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import SourceFileError
from converters.qdq import NHWC_TO_NCHW
from converters.tflite.context import ImportContext, describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from converters.tflite.records import TfliteOperator


def reshape(
    context: ImportContext, value: ir.Value, before: Sequence[int], after: Sequence[int], name: str
) -> ir.Value:
    """Reshape a value between two source shapes, from and to the graph's layout.

    The leading size is left to the runtime, so that a batch survives: 0 (keep) where both shapes lead with 1, else -1.
    """
    if tuple(before) == tuple(after):
        return value
    value = context.to_source_layout(value, len(before), f"{name}/nhwc")
    lead = 0 if before and after and before[0] == after[0] == 1 else -1
    sizes = np.array([lead, *after[1:]] if after else [], np.int64)
    value = context.writer.op("Reshape", [value, context.writer.constant(sizes, f"{name}/shape")], name)
    return context.from_source_layout(value, len(after), f"{name}/nchw")


def reshape_operator(context: ImportContext, op: TfliteOperator) -> None:
    """RESHAPE: the output's shape is what the file says it is; the shape operand was folded, if there is one."""
    before, after = context.tensor(op.inputs[0]).shape, context.tensor(op.outputs[0]).shape
    if math.prod(before) != math.prod(after):
        where = f"{context.model.file}: {describe(context, op)}"
        msg = f"{where} turns shape {list(before)} into {list(after)}: another number of values"
        raise SourceFileError(msg)
    real = context.moved_float_of(op.inputs[0], op.outputs[0])
    context.close(op.outputs[0], reshape(context, real, before, after, context.name(op)))


def transpose(context: ImportContext, op: TfliteOperator) -> None:
    """TRANSPOSE: the source's permutation, seen between the layouts of the graph."""
    source = op.inputs[0]
    rank = len(context.tensor(source).shape)
    perm = [int(axis) for axis in context.constant_of(op, 1).reshape(-1)]
    if sorted(axis % rank for axis in perm if -rank <= axis < rank) != list(range(rank)):
        msg = f"{context.model.file}: {describe(context, op)} has permutation {perm}, expected each of {rank} axes once"
        raise SourceFileError(msg)
    moved = [axis % rank for axis in perm]
    if moved[0] != 0:
        context.axis(source, 0)  # refuses where the batch is more than one image
    if rank == 4:
        moved = [NHWC_TO_NCHW.index(moved[axis]) for axis in NHWC_TO_NCHW]
    real = context.moved_float_of(source, op.outputs[0])
    if moved != list(range(rank)):
        real = context.writer.op("Transpose", [real], context.name(op), perm=moved)
    context.close(op.outputs[0], real)
