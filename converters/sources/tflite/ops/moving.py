"""Operators that move values: RESHAPE, TRANSPOSE, slices, GATHER, PAD, CONCATENATION, PACK, SPLIT and TILE.

Bit exact: codes are moved, whatever the output's scale. Only a uint8 CONCATENATION rescales operands of another scale
(``converters.integer.functions``). A rank-4 value lives in NCHW, so a reshape goes through the source's layout; the
pairs of Transpose that this leaves between operators are removed by ``converters.passes.movements``.

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
from converters.integer.functions import concatenated_table, fitted_scale
from converters.sources.tflite.context import ImportContext, per_tensor
from converters.sources.tflite.ops.activations import leaky_case, look_up, rescaled_float_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.sources.tflite.reader import TfliteModel, TfliteOperator

AxisIndex = slice | int | None


def rescales(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether an operand has another scale or zero-point than the output."""
    quants = per_tensor(model, *op.inputs, op.outputs[0])
    return quants is not None and any(not q.same_as(quants[-1]) for q in quants)


def strided_index(context: ImportContext) -> tuple[AxisIndex, ...]:
    """The operator's index with its ellipsis written out: a slice or int per source axis, None for each new axis.

    Raises:
        SourceFileError: operands of different lengths, a zero stride, too many axes, or an index out of range.
    """
    shape = context.shape(context.source)
    begin, end, strides = (context.integers_of(position) for position in (1, 2, 3))
    if not len(begin) == len(end) == len(strides) or 0 in strides:
        raise SourceFileError(
            f"{context.where} has begin {begin}, end {end}, strides {strides}; expected equally many, and no stride of "
            "0"
        )
    if context.op.options["offset"]:
        end = [b + e for b, e in zip(begin, end, strict=True)]

    def masked(mask: str, i: int) -> bool:
        return bool(context.int_option(mask) >> i & 1)

    index: list[AxisIndex] = []
    for i, (first, last, stride) in enumerate(zip(begin, end, strides, strict=True)):
        if masked("ellipsis_mask", i):
            later = sum(not masked("new_axis_mask", j) for j in range(i + 1, len(begin)))
            index.extend([slice(None)] * (len(shape) - later - _axes(index)))
        elif masked("new_axis_mask", i):
            index.append(None)
        elif masked("shrink_axis_mask", i):
            index.append(0 if masked("begin_mask", i) else first)
        else:
            start, stop = None if masked("begin_mask", i) else first, None if masked("end_mask", i) else last
            index.append(slice(start, stop, stride))
    index.extend([slice(None)] * (len(shape) - _axes(index)))
    entries = [entry for entry in index if entry is not None]
    if len(entries) != len(shape) or any(
        isinstance(entry, int) and not -size <= entry < size for entry, size in zip(entries, shape, strict=True)
    ):
        raise SourceFileError(f"{context.where} takes {index} from shape {list(shape)}: out of range")
    return tuple(index)


def _axes(index: Sequence[AxisIndex]) -> int:
    return sum(entry is not None for entry in index)


def regroup(context: ImportContext) -> None:
    """DEPTH_TO_SPACE, where every channel group becomes a pixel of a block, and SPACE_TO_DEPTH, the reverse.

    An NCHW value as one of six axes, permuted, and as four again, nodes on which all runtimes agree; the batch is left
    to the runtime.
    """
    (_, height, width, channels), block = context.shape(context.source), context.int_option("block_size")
    if context.op.op == "DEPTH_TO_SPACE":
        if channels % block**2:
            raise SourceFileError(f"{context.where} has {channels} channels for blocks of {block}")
        deep = channels // block**2
        six, perm = [block, block, deep, height, width], [0, 3, 4, 1, 5, 2]
        four = [deep, height * block, width * block]
    else:
        if height % block or width % block:
            raise SourceFileError(f"{context.where} cuts {height} x {width} into blocks of {block}")
        rows, columns = height // block, width // block
        six, perm = [channels, rows, block, columns, block], [0, 3, 5, 1, 2, 4]
        four = [channels * block**2, rows, columns]
    real = context.moved_float_of(context.source)
    shape = context.initializer(np.array([0, *six], np.int64), "shape0")
    real = context.node("Reshape", [real, shape], "blocks")
    real = context.node("Transpose", [real], "permuted", perm=perm)
    shape = context.initializer(np.array([0, *four], np.int64), "shape1")
    context.close(context.node("Reshape", [real, shape]))


def reshape_operator(context: ImportContext) -> None:
    """RESHAPE, SQUEEZE and EXPAND_DIMS, to the output's shape in the file; an operand with it was folded."""
    before, after = context.shape(context.source), context.shape(context.target)
    if math.prod(before) != math.prod(after):
        raise SourceFileError(
            f"{context.where} turns shape {list(before)} into {list(after)}: another number of values"
        )
    context.close(context.reshape(context.moved_float_of(context.source), before, after, context.name()))


def transpose(context: ImportContext) -> None:
    """TRANSPOSE: the source's permutation, seen between the layouts of the graph."""
    source, perm = context.source, context.integers_of(1)
    rank = len(context.shape(source))
    if sorted(axis % rank for axis in perm if -rank <= axis < rank) != list(range(rank)):
        raise SourceFileError(f"{context.where} has permutation {perm}, expected each of {rank} axes once")
    moved = [axis % rank for axis in perm]
    if moved[0] != 0:
        context.axis(source, 0)  # refuses where the batch is more than one image
    if rank == 4:
        moved = [NHWC_TO_NCHW.index(moved[axis]) for axis in NHWC_TO_NCHW]
    real = context.moved_float_of(source)
    if moved != list(range(rank)):
        real = context.node("Transpose", [real], perm=moved)
    context.close(real)


def strided_slice(context: ImportContext) -> None:
    """STRIDED_SLICE: an ONNX Slice over the axes that lose values, then a reshape for axes that come or go."""
    entries = [entry for entry in strided_index(context) if entry is not None]
    ranges = [
        range(*entry.indices(size)) if isinstance(entry, slice) else range(entry % size, entry % size + 1)
        for entry, size in zip(entries, context.shape(context.source), strict=True)
    ]
    _take(context, ranges)


def slice_operator(context: ImportContext) -> None:
    """SLICE: ``size`` values from ``begin`` along every axis; a size of -1 takes the rest."""
    shape, begin, size = context.shape(context.source), context.integers_of(1), context.integers_of(2)
    ends = [b + (n if n != -1 else whole - b) for b, n, whole in zip(begin, size, shape, strict=False)]
    sound = len(begin) == len(size) == len(shape) and all(
        0 <= b < e <= whole for b, e, whole in zip(begin, ends, shape, strict=True)
    )
    if not sound:
        raise SourceFileError(
            f"{context.where} takes begin {begin}, size {size} from shape {list(shape)}: out of range, or nothing"
        )
    _take(context, [range(b, e) for b, e in zip(begin, ends, strict=True)])


def _take(context: ImportContext, ranges: Sequence[range]) -> None:
    """The source positions ``ranges`` of every axis, in the output's shape."""
    source, shape = context.source, context.shape(context.source)
    real = context.moved_float_of(source)
    touched = [axis for axis, positions in enumerate(ranges) if positions != range(shape[axis])]
    if not all(ranges):
        raise UnsupportedModelError(f"{context.where} takes nothing from shape {list(shape)}")
    if touched:
        limits = {
            "starts": [ranges[axis].start for axis in touched],
            # "before the first value" needs a number that is not read as "the last value"
            "ends": [ranges[axis].stop if ranges[axis].stop >= 0 else np.iinfo(np.int64).min for axis in touched],
            "axes": [context.axis(source, axis) for axis in touched],
            "steps": [ranges[axis].step for axis in touched],
        }
        operands = [context.initializer(np.array(numbers, np.int64), what) for what, numbers in limits.items()]
        real = context.node("Slice", [real, *operands])
    _close_reshaped(context, real, [len(positions) for positions in ranges])


def _close_reshaped(context: ImportContext, real: ir.Value, shape: Sequence[int]) -> None:
    """Close with a value of a source shape that may lack, or have, axes of the output's."""
    context.close(context.reshape(real, shape, context.shape(context.target), context.name("reshaped")))


def gather(context: ImportContext) -> None:
    """GATHER with constant indices along one axis."""
    source, indices = context.source, context.constant_of(1).astype(np.int64)
    shape, source_axis = context.shape(source), context.source_axis(source, context.int_option("axis"))
    axis = context.axis(source, source_axis)
    size = shape[source_axis]
    if indices.size == 0 or indices.min() < 0 or indices.max() >= size:
        raise SourceFileError(f"{context.where} reads outside the {size} entries of its axis, or nothing")
    positions = context.initializer(indices.reshape(-1), "indices")
    real = context.node("Gather", [context.moved_float_of(source), positions], axis=axis)
    _close_reshaped(context, real, (*shape[:source_axis], indices.size, *shape[source_axis + 1 :]))


def pad(context: ImportContext) -> None:
    """PAD with real 0, which is the zero-point."""
    source, pads = context.source, context.constant_of(1).astype(np.int64)
    rank = len(context.shape(source))
    if pads.shape != (rank, 2) or (pads < 0).any():
        raise SourceFileError(
            f"{context.where} has paddings of shape {list(pads.shape)}, expected {[rank, 2]} of numbers >= 0"
        )
    pads = _by_graph_axis(context, pads, still=0)
    operands = [context.float_of(source), context.initializer(pads.T.reshape(-1), "pads")]
    context.close(context.node("Pad", operands, mode="constant"))


def _by_graph_axis(context: ImportContext, numbers: NDArray[np.int64], *, still: int) -> NDArray[np.int64]:
    """Numbers for each axis of the source's first operand, in the order of the graph's; ``still`` changes nothing."""
    if (numbers[0] != still).any():
        context.axis(context.source, 0)  # refuses where the batch is more than one image
    return numbers[list(NHWC_TO_NCHW)] if len(numbers) == 4 else numbers


def mirror_pad(context: ImportContext) -> None:
    """MIRROR_PAD: a Gather along every axis that grows; ONNX's Pad has no mode that repeats the rim."""
    source, pads = context.source, context.constant_of(1).reshape(-1, 2)
    shape = context.shape(source)
    inner = context.op.options["mode"] == "REFLECT"  # which leaves out the rim; SYMMETRIC repeats it
    if len(pads) != len(shape) or any(
        not 0 <= pad <= size - inner for size, around in zip(shape, pads, strict=False) for pad in around
    ):
        raise SourceFileError(f"{context.where} mirrors {pads.tolist()} pixels of shape {list(shape)}")
    real = context.moved_float_of(source)
    for axis, (size, around) in enumerate(zip(shape, pads, strict=True)):
        if around.any():
            positions = np.pad(np.arange(size), tuple(around), mode="reflect" if inner else "symmetric")
            constant = context.initializer(positions.astype(np.int64), f"mirrored{axis}")
            real = context.node("Gather", [real, constant], f"axis{axis}", axis=context.axis(source, axis))
    context.close(real)


def concatenation(context: ImportContext) -> None:
    """CONCATENATION along one axis. XNNPACK ignores a fused activation, and no other kernel takes one."""
    target = context.target
    axis = context.axis(target, context.source_axis(target, context.int_option("axis")))
    operands = [_operand(context, position) for position in range(len(context.op.inputs))]
    context.close(context.node("Concat", operands, axis=axis))


def _operand(context: ImportContext, position: int) -> ir.Value:
    """An operand's reals, with the scale that gives LiteRT's codes behind the output's QuantizeLinear."""
    source, target = context.op.inputs[position], context.target
    if not (context.match_litert and context.is_quantized(source) and context.is_quantized(target)):
        return context.float_of(source)
    if context.params(source).same_as(context.params(target)):
        return context.float_of(source)
    case = leaky_case(context, source)
    table = concatenated_table(case)
    scale = fitted_scale(case, table)
    if scale is not None:
        return rescaled_float_of(context, scale, source)
    codes = look_up(context, context.codes_of(source), table, context.name(f"operand{position}"))
    return context.adjusted_float_of(source, context.params(target), codes)


def pack(context: ImportContext) -> None:
    """PACK: a new axis in every operand, then a concatenation along it."""
    target, shape = context.target, context.shape(context.target)
    source_axis = context.source_axis(target, context.int_option("axis"))
    axis = context.axis(target, source_axis)
    single = (*shape[:source_axis], 1, *shape[source_axis + 1 :])
    operands = [
        context.reshape(context.moved_float_of(index), context.shape(index), single, context.name(f"operand{position}"))
        for position, index in enumerate(context.op.inputs)
    ]
    context.close(context.node("Concat", operands, axis=axis))


def split(context: ImportContext) -> None:
    """SPLIT into equal parts, and UNPACK into one result per position of an axis, which goes."""
    op, parts, unpacks = context.op, len(context.op.outputs), context.op.op == "UNPACK"
    source = op.inputs[0 if unpacks else 1]
    stated = context.int_option("axis") if unpacks else context.integers_of(0)[0]
    shape, source_axis = context.shape(source), context.source_axis(source, stated)
    axis, (size, rest) = context.axis(source, source_axis), divmod(shape[source_axis], parts)
    if unpacks and shape[source_axis] != parts:
        raise SourceFileError(f"{context.where} unpacks {shape[source_axis]} values into {parts}")
    if rest:
        raise SourceFileError(f"{context.where} splits {shape[source_axis]} values into {parts} equal parts")
    sizes = context.initializer(np.full(parts, size, np.int64), "sizes")
    names = [f"{context.names[index]}/{'slice' if unpacks else 'float'}" for index in op.outputs]
    results = context.writer.ops("Split", [context.moved_float_of(source), sizes], names, axis=axis)
    for index, part in zip(op.outputs, results, strict=True):
        real = part
        if unpacks:
            single = (*shape[:source_axis], 1, *shape[source_axis + 1 :])
            real = context.reshape(part, single, context.shape(index), f"{context.names[index]}/float")
        context.close(real, index)


def tile(context: ImportContext) -> None:
    """TILE."""
    source, repeats = context.source, context.constant_of(1).reshape(-1).astype(np.int64)
    rank = len(context.shape(source))
    if repeats.size != rank or (repeats < 1).any():
        raise SourceFileError(f"{context.where} repeats {repeats.tolist()}, expected {rank} numbers above 0")
    repeats = _by_graph_axis(context, repeats, still=1)
    operands = [context.moved_float_of(source), context.initializer(repeats, "repeats")]
    context.close(context.node("Tile", operands))


def shape_operator(context: ImportContext) -> None:
    """SHAPE is always folded (``tflite.importer``); nothing reaches this place."""
    raise UnsupportedModelError(f"{context.where} could not be folded")
