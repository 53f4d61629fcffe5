"""uint8 weights beyond int8: what convolutions hold that are the sum of int8 ones, derived here from its description.

A weight less its zero-point that is no int8 is the sum of the largest int8 numbers of its sign and of what is left. Every
further summand of a column (pass ``shifted rows``) or of a row (pass ``strided stem``) reads the same pixels once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from converters.sources.tflite.reader import TfliteOperator
    from xdet.checking.numbers.context import StaticContext
    from xdet.model.graph import Node

ROWS, COLUMNS = 2, 3  # axes of OIHW


def summands(numbers: NDArray[Any], axis: int) -> list[int]:
    """How many int8 numbers every row or column of a kernel needs."""
    others = tuple(a for a in range(numbers.ndim) if a != axis)
    high, low = numbers.max(axis=others), numbers.min(axis=others)
    return [max(1, int(n)) for n in np.maximum(np.ceil(high / 127), np.ceil(-low / 128))]


def taps(numbers: NDArray[Any], axis: int, stride: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Rows or columns of the split kernel: the old one and the summand; and how often each of ``stride`` neighbours is read."""
    needed = summands(numbers, axis)
    times = [max(needed[phase::stride], default=1) for phase in range(stride)]
    limits = [times[tap % stride] for tap in range(len(needed) - 1)] + needed[-1:]
    return [(tap, k) for tap, limit in enumerate(limits) for k in range(limit)], times


def split_kernel(numbers: NDArray[Any], axis: int, stride: int) -> NDArray[np.int8]:
    """The kernel ``(O, I, kh, kw)`` as the graph stores it."""
    parts = []
    for tap, k in taps(numbers, axis, stride)[0]:
        old = np.take(numbers, tap, axis=axis)
        parts.append(np.where(old > 0, np.clip(old - 127 * k, 0, 127), np.clip(old + 128 * k, -128, 0)))
    return np.stack(parts, axis=axis).astype(np.int8)


def numbers_beyond_int8(context: StaticContext, op: TfliteOperator) -> NDArray[Any] | None:
    """uint8 weights less their zero-point, OIHW, where some are no int8; else None."""
    tensor = context.source.model.tensors[op.inputs[1]]
    if tensor.data is None or tensor.quant is None or tensor.data.dtype != np.uint8:
        return None
    numbers = np.moveaxis(tensor.data.astype(np.int64) - int(tensor.quant.zero_point[0]), 3, 1)
    numbers = np.moveaxis(numbers, 1, 0) if op.op == "DEPTHWISE_CONV_2D" else numbers
    return numbers if max(summands(numbers, ROWS)) > 1 else None


def columns_of(context: StaticContext, op: TfliteOperator) -> list[int]:
    """The old column of every column of a split kernel."""
    width, numbers = context.source.model.tensors[op.inputs[1]].shape[2], numbers_beyond_int8(context, op)
    return list(range(width)) if numbers is None else [c for c, _ in taps(numbers, COLUMNS, width)[0]]


def wrong_repeats(
    context: StaticContext, node: Node, numbers: NDArray[Any], stride: int, pads: Sequence[int]
) -> str | None:
    """What is wrong with the rows that a strided stem of split weights reads; None where nothing is.

    Args:
        context: the comparison.
        node: the stem.
        numbers: the source's weights, OIHW.
        stride: the source's, from row to row.
        pads: the source's, top, left, bottom, right.
    """
    gather = context.graph.producers.get(node.inputs[0])
    while gather is not None and gather.op in ("DequantizeLinear", "Transpose", "Reshape"):
        gather = context.graph.producers.get(gather.inputs[0])
    index = context.graph.constant(gather.inputs[1]) if gather is not None and gather.op == "Gather" else None
    if gather is None or index is None or gather.attributes.get("axis") != 1:
        return "no repeated rows"
    read, times = taps(numbers, ROWS, stride)
    if node.attributes.get("strides") != (sum(times), 1):
        return f"rows {node.attributes.get('strides')} apart, expected {(sum(times), 1)}"
    above, below = node.attributes["pads"][0], node.attributes["pads"][2]
    rows = [-1] * above + index.tolist() + [-1] * below
    height = context.source.model.tensors[context.source.model.inputs[0]].shape[1]
    results = (height + pads[0] + pads[2] - numbers.shape[ROWS]) // stride + 1
    if (len(rows) - len(read)) // sum(times) + 1 != results:
        return f"{len(rows)} rows, which are not those of {results} results"
    for result in range(results):
        for place, (row, _) in enumerate(read):
            found, expected = rows[result * sum(times) + place], result * stride + row - pads[0]
            if found != (expected if 0 <= expected < height else -1):
                return f"row {found} where result {result} reads row {expected}"
    return None
