"""What STRIDED_SLICE takes, as numpy says it: TFLite's five masks follow numpy's indexing rules.

Source: tensorflow/lite/kernels/strided_slice.cc; numpy's basic indexing has the same ellipsis, new axes, dropped
axes and clamping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.errors import SourceFileError
from converters.tflite.context import ImportContext, describe, int_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.tflite.records import TfliteOperator

AxisIndex = slice | int | None


def strided_index(context: ImportContext, op: TfliteOperator) -> tuple[AxisIndex, ...]:
    """The operator's index with its ellipsis written out: a slice or int per source axis, None for each new axis.

    Raises:
        SourceFileError: operands of different lengths, a zero stride, too many axes, or an index out of range.
    """
    shape = context.tensor(op.inputs[0]).shape
    begin, end, strides = (
        [int(v) for v in context.constant_of(op, position).reshape(-1)] for position in (1, 2, 3)
    )
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
    return slice(
        None if _bit(op, "begin_mask", i) else begin, None if _bit(op, "end_mask", i) else end, stride
    )


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
        msg = f"{context.model.file}: {describe(context, op)} takes {list(index)} from shape {list(shape)}: out of range"
        raise SourceFileError(msg)
