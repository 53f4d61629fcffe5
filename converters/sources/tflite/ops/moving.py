"""Operators that move values: RESHAPE, TRANSPOSE, slices, GATHER, PAD, CONCATENATION, PACK, SPLIT and TILE.

Bit exact: codes are moved, whatever the output's scale. Only a uint8 CONCATENATION rescales operands of another scale
(``converters.integer.concatenated``). A rank-4 value lives in NCHW, so a reshape goes through the source's layout; the
pairs of Transpose that this leaves between operators are removed by ``converters.passes.cancel_transposes``.

Indices of STRIDED_SLICE and GATHER are constant, and PAD fills with the zero-point. What STRIDED_SLICE takes is said as
numpy says it, whose basic indexing has the same ellipsis, new axes, dropped axes and clamping as TFLite's five masks.
Source: tensorflow/lite/kernels/strided_slice.cc.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import SourceFileError, UnsupportedModelError
from converters.graph import NHWC_TO_NCHW
from converters.integer.concatenated import concatenated_table, fitted_scale
from converters.quant import QuantParams
from converters.sources.tflite.context import ImportContext, describe, int_option
from converters.sources.tflite.ops.activations import leaky_case, look_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from converters.sources.tflite.reader import TfliteOperator

AxisIndex = slice | int | None


def strided_index(context: ImportContext, op: TfliteOperator) -> tuple[AxisIndex, ...]:
    """The operator's index with its ellipsis written out: a slice or int per source axis, None for each new axis.

    Raises:
        SourceFileError: operands of different lengths, a zero stride, too many axes, or an index out of range.
    """
    shape = context.tensor(op.inputs[0]).shape
    begin, end, strides = ([int(v) for v in context.constant_of(op, position).reshape(-1)] for position in (1, 2, 3))
    if not len(begin) == len(end) == len(strides) or 0 in strides:
        msg = f"{context.model.file}: {describe(context, op)} has begin {begin}, end {end}, strides {strides}"
        raise SourceFileError(f"{msg}; expected equally many, and no stride of 0")
    if op.options["offset"]:
        end = [b + e for b, e in zip(begin, end, strict=True)]
    index: list[AxisIndex] = []
    for i, limits in enumerate(zip(begin, end, strides, strict=True)):
        if _bit(op, "ellipsis_mask", i):
            later = sum(not _bit(op, "new_axis_mask", j) for j in range(i + 1, len(begin)))
            index.extend([slice(None)] * (len(shape) - later - _axes(index)))
        elif _bit(op, "new_axis_mask", i):
            index.append(None)
        else:
            index.append(_entry(op, i, limits))
    index.extend([slice(None)] * (len(shape) - _axes(index)))
    _require_in_range(context, op, index, shape)
    return tuple(index)


def axis_ranges(index: Sequence[AxisIndex], shape: Sequence[int]) -> list[range]:
    """The source positions that are taken along each source axis."""
    entries = [entry for entry in index if entry is not None]
    return [
        range(*entry.indices(size)) if isinstance(entry, slice) else range(entry % size, entry % size + 1)
        for entry, size in zip(entries, shape, strict=True)
    ]


def _entry(op: TfliteOperator, i: int, limits: tuple[int, int, int]) -> slice | int:
    begin, end, stride = limits
    if _bit(op, "shrink_axis_mask", i):
        return 0 if _bit(op, "begin_mask", i) else begin
    return slice(None if _bit(op, "begin_mask", i) else begin, None if _bit(op, "end_mask", i) else end, stride)


def _bit(op: TfliteOperator, mask: str, i: int) -> bool:
    return bool(int_option(op, mask) >> i & 1)


def _axes(index: Sequence[AxisIndex]) -> int:
    return sum(entry is not None for entry in index)


def _require_in_range(
    context: ImportContext, op: TfliteOperator, index: Sequence[AxisIndex], shape: Sequence[int]
) -> None:
    entries = [entry for entry in index if entry is not None]
    sound = len(entries) == len(shape) and all(
        isinstance(entry, slice) or -size <= entry < size for entry, size in zip(entries, shape, strict=True)
    )
    if not sound:
        msg = (
            f"{context.model.file}: {describe(context, op)} takes {list(index)} from shape {list(shape)}: out of range"
        )
        raise SourceFileError(msg)


def reshape(
    context: ImportContext, value: ir.Value, before: Sequence[int], after: Sequence[int], name: str
) -> ir.Value:
    """Reshape a value between two source shapes, from and to the graph's layout.

    The leading size is left to the runtime, so that a batch survives: 0 (keep) where both shapes lead with 1, else -1.

    Raises:
        SourceFileError: the shapes do not hold as many values.
    """
    if math.prod(before) != math.prod(after):
        raise SourceFileError(
            f"{context.model.file}: {name!r} turns shape {list(before)} into {list(after)}: another number of values"
        )
    if tuple(before) == tuple(after):
        return value
    value = context.to_source_layout(value, len(before), f"{name}/nhwc")
    lead = 0 if before and after and before[0] == after[0] == 1 else -1
    sizes = np.array([lead, *after[1:]] if after else [], np.int64)
    value = context.writer.op("Reshape", [value, context.writer.constant(sizes, f"{name}/shape")], name)
    return context.from_source_layout(value, len(after), f"{name}/nchw")


def depth_to_space(context: ImportContext, op: TfliteOperator) -> None:
    """DEPTH_TO_SPACE: every channel group becomes a pixel of a block. Reshapes and a Transpose: all runtimes agree on them."""
    (_, height, width, channels), block = _block(context, op)
    if channels % block**2:
        raise SourceFileError(
            f"{context.model.file}: {describe(context, op)} has {channels} channels for blocks of {block}"
        )
    kept = channels // block**2
    sizes = (block, block, kept, height, width), (kept, height * block, width * block)
    _regroup(context, op, sizes, [0, 3, 4, 1, 5, 2])


def space_to_depth(context: ImportContext, op: TfliteOperator) -> None:
    """SPACE_TO_DEPTH: the pixels of every block become channels."""
    (_, height, width, channels), block = _block(context, op)
    if height % block or width % block:
        raise SourceFileError(
            f"{context.model.file}: {describe(context, op)} cuts {height} x {width} into blocks of {block}"
        )
    rows, columns = height // block, width // block
    sizes = (channels, rows, block, columns, block), (channels * block**2, rows, columns)
    _regroup(context, op, sizes, [0, 3, 5, 1, 2, 4])


def _block(context: ImportContext, op: TfliteOperator) -> tuple[tuple[int, ...], int]:
    return context.tensor(op.inputs[0]).shape, int_option(op, "block_size")


def _regroup(
    context: ImportContext, op: TfliteOperator, sizes: tuple[tuple[int, ...], tuple[int, ...]], perm: list[int]
) -> None:
    """An NCHW value as one of six axes, permuted, and as four again; the batch is left to the runtime."""
    real = context.moved_float_of(op.inputs[0], op.outputs[0])
    for position, behind_batch in enumerate(sizes):
        shape = context.writer.constant(np.array([0, *behind_batch], np.int64), context.name(op, f"shape{position}"))
        real = context.writer.op("Reshape", [real, shape], context.name(op, ("blocks", "float")[position]))
        if position == 0:
            real = context.writer.op("Transpose", [real], context.name(op, "permuted"), perm=perm)
    context.close(op.outputs[0], real)


def reshape_operator(context: ImportContext, op: TfliteOperator) -> None:
    """RESHAPE, SQUEEZE and EXPAND_DIMS: the output has the shape that the file states; an operand with it was folded."""
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


def strided_slice(context: ImportContext, op: TfliteOperator) -> None:
    """STRIDED_SLICE: an ONNX Slice over the axes that lose values, then a reshape for axes that come or go."""
    _take(context, op, axis_ranges(strided_index(context, op), context.tensor(op.inputs[0]).shape))


def _take(context: ImportContext, op: TfliteOperator, ranges: Sequence[range]) -> None:
    """The source positions ``ranges`` of every axis, in the output's shape."""
    source, target = op.inputs[0], op.outputs[0]
    shape = context.tensor(source).shape
    real, sliced = context.moved_float_of(source, target), tuple(len(r) for r in ranges)
    touched = [axis for axis, r in enumerate(ranges) if r != range(shape[axis])]
    if 0 in sliced:
        msg = f"{context.model.file}: {describe(context, op)} takes nothing from shape {list(shape)}"
        raise UnsupportedModelError(msg)
    if touched:
        limits = zip(*((ranges[axis].start, _end(ranges[axis]), ranges[axis].step) for axis in touched), strict=True)
        starts, ends, steps = (np.array(values, np.int64) for values in limits)
        axes = np.array([context.axis(source, axis) for axis in touched], np.int64)
        operands = [
            context.writer.constant(array, context.name(op, what))
            for what, array in (("starts", starts), ("ends", ends), ("axes", axes), ("steps", steps))
        ]
        real = context.writer.op("Slice", [real, *operands], context.name(op))
    context.close(target, reshape(context, real, sliced, context.tensor(target).shape, context.name(op, "reshaped")))


def slice_operator(context: ImportContext, op: TfliteOperator) -> None:
    """SLICE: ``size`` values from ``begin`` along every axis; a size of -1 takes the rest."""
    shape = context.tensor(op.inputs[0]).shape
    begin, size = ([int(v) for v in context.constant_of(op, position).reshape(-1)] for position in (1, 2))
    ends = [b + (n if n != -1 else whole - b) for b, n, whole in zip(begin, size, shape, strict=False)]
    sound = len(begin) == len(size) == len(shape) and all(
        0 <= b < e <= whole for b, e, whole in zip(begin, ends, shape, strict=True)
    )
    if not sound:
        where = f"{context.model.file}: {describe(context, op)}"
        raise SourceFileError(
            f"{where} takes begin {begin}, size {size} from shape {list(shape)}: out of range, or nothing"
        )
    _take(context, op, [range(b, e) for b, e in zip(begin, ends, strict=True)])


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
    real = context.writer.op("Gather", [context.moved_float_of(source, target), where], context.name(op), axis=axis)
    flat = (*shape[:source_axis], indices.size, *shape[source_axis + 1 :])
    context.close(target, reshape(context, real, flat, context.tensor(target).shape, context.name(op, "reshaped")))


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
    operands = [context.float_of(source), context.writer.constant(pads.T.reshape(-1), context.name(op, "pads"))]
    context.close(op.outputs[0], context.writer.op("Pad", operands, context.name(op), mode="constant"))


def mirror_pad(context: ImportContext, op: TfliteOperator) -> None:
    """MIRROR_PAD: a Gather along every axis that grows; ONNX's Pad has no mode that repeats the rim."""
    source = op.inputs[0]
    shape, pads = context.tensor(source).shape, context.constant_of(op, 1).reshape(-1, 2)
    inner = op.options["mode"] == "REFLECT"  # which leaves out the rim; SYMMETRIC repeats it
    if len(pads) != len(shape) or any(
        not 0 <= pad <= size - inner for size, around in zip(shape, pads, strict=False) for pad in around
    ):
        msg = f"{context.model.file}: {describe(context, op)} mirrors {pads.tolist()} pixels of shape {list(shape)}"
        raise SourceFileError(msg)
    real = context.moved_float_of(source, op.outputs[0])
    for axis, (size, around) in enumerate(zip(shape, pads, strict=True)):
        if around.any():
            positions = np.pad(np.arange(size), tuple(around), mode="reflect" if inner else "symmetric")
            where = context.writer.constant(positions.astype(np.int64), context.name(op, f"mirrored{axis}"))
            real = context.writer.op(
                "Gather", [real, where], context.name(op, f"axis{axis}"), axis=context.axis(source, axis)
            )
    context.close(op.outputs[0], real)


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
    reals = context.writer.ops("Split", [context.moved_float_of(source, op.outputs[0]), sizes], names, axis=axis)
    for index, real in zip(op.outputs, reals, strict=True):
        context.close(index, real)


def unpack(context: ImportContext, op: TfliteOperator) -> None:
    """UNPACK: one result per position of an axis, which goes."""
    source = op.inputs[0]
    shape = context.tensor(source).shape
    source_axis = context.source_axis(op, source, int_option(op, "axis"))
    axis = context.axis(source, source_axis)
    if shape[source_axis] != len(op.outputs):
        msg = (
            f"{context.model.file}: {describe(context, op)} unpacks {shape[source_axis]} values into {len(op.outputs)}"
        )
        raise SourceFileError(msg)
    sizes = context.writer.constant(np.ones(len(op.outputs), np.int64), context.name(op, "sizes"))
    names = [f"{context.names[index]}/slice" for index in op.outputs]
    reals = context.writer.ops("Split", [context.moved_float_of(source, op.outputs[0]), sizes], names, axis=axis)
    with_axis = (*shape[:source_axis], 1, *shape[source_axis + 1 :])
    for index, real in zip(op.outputs, reals, strict=True):
        name = f"{context.names[index]}/float"
        context.close(index, reshape(context, real, with_axis, context.tensor(index).shape, name))


def tile(context: ImportContext, op: TfliteOperator) -> None:
    """TILE."""
    source = op.inputs[0]
    rank = len(context.tensor(source).shape)
    repeats = context.constant_of(op, 1).reshape(-1).astype(np.int64)
    if repeats.size != rank or (repeats < 1).any():
        msg = (
            f"{context.model.file}: {describe(context, op)} repeats {repeats.tolist()}, expected {rank} numbers above 0"
        )
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
