"""Signed weights: uint8 weights of convolutions, as int8 ones; and weights beyond int8 as sums of them.

Before::

    w (uint8) -> DQ(scale, z) -> Conv

After::

    w - z (int8) -> DQ(scale, 0) -> Conv               where all of w - z fit
    w - 128 (int8) -> DQ(scale, z - 128) -> Conv       else

Why: ONNX Runtime's fast kernels take int8 weights without zero-point: half to a third of the time. With a zero-point
int8 weights are still faster than uint8 ones, but for depthwise convolutions, which then stay as they are.

Preconditions: constant weights with one zero-point. Numeric effect: bit exact: ``w - z`` is the same number.

``shifted rows`` and ``strided stem`` take weights that are no int8 less their zero-point as sums of int8 weights, which
read the same pixels: they multiply a column or a row of the kernel with a copy of the pixels for every summand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.graph import GraphWriter, constant_of
from converters.passes.base import Changed, DeclinedError, Rewrite
from converters.passes.weights import codes_behind, codes_moved, constants_behind, dequantized, node_of

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

INT8 = np.iinfo(np.int8)


class SignedWeights(Rewrite):
    """Writes uint8 weights as int8."""

    title = "signed weights"
    op_type = "Conv"

    def rewrite_at(self, graph: ir.Graph, node: ir.Node) -> Changed | None:
        """Rewrite the weights of a convolution."""
        old, codes = node.inputs[1], codes_behind(node.inputs[1])
        if codes is None or codes.dtype != np.uint8:
            return None
        shift = zero_point_of(node)
        fits = codes.min() >= shift + INT8.min and codes.max() <= shift + INT8.max
        if not fits and node.attributes.get_int("group", 1) > 1:
            raise DeclinedError(f"its weights, less their zero-point {shift}, are no int8")
        shift = shift if fits else -INT8.min
        _, scale, zero_point = constants_behind(old)
        less, zero = ((array.astype(np.int16) - shift).astype(np.int8) for array in (codes, zero_point))
        new = dequantized(GraphWriter.inserting(graph, node), (less, scale, zero), f"{node.name}/signed")
        node.replace_input_with(1, new)
        return Changed(f"{node.name}: weights less {shift}", (codes_moved(old, new, replicated=False, shift=-shift),))


def zero_point_of(conv: ir.Node) -> int:
    """The one zero-point of a convolution's weights."""
    scale, zero_point = (constant_of(value) for value in node_of(conv.inputs[1]).inputs[1:])
    if scale is None or zero_point is None or len(set(zero_point.flat)) != 1:
        raise DeclinedError("its weights have more than one zero-point, or computed ones")
    return int(zero_point.flat[0])


def int8_parts(numbers: NDArray[Any]) -> list[NDArray[np.int8]]:
    """The fewest arrays of int8 whose sum is ``numbers``; the first one is as close to them as int8 reaches."""
    parts: list[NDArray[np.int8]] = []
    rest = numbers.astype(np.int32)
    while not parts or rest.any():
        part = np.clip(rest, INT8.min, INT8.max)
        parts.append(part.astype(np.int8))
        rest = rest - part
    return parts


def split_columns(numbers: NDArray[Any]) -> tuple[NDArray[np.int8], tuple[int, ...]]:
    """A kernel ``(O, I, kh, kw)`` as int8, with one column more for every column that needs another summand.

    Returns:
        The kernel ``(O, I, kh, columns)``, and the old column of every new one, in ascending order.

    Example:
        >>> kernel, columns = split_columns(np.array([[[[5, -200]]]]))
        >>> kernel.tolist(), columns
        ([[[[5, -128, -72]]]], (0, 1, 1))
    """
    parts = int8_parts(numbers)
    new = [
        (column, part[..., column])
        for column in range(numbers.shape[3])
        for part in parts
        if part is parts[0] or part[..., column].any()
    ]
    return np.stack([codes for _, codes in new], axis=3), tuple(column for column, _ in new)


@dataclass(frozen=True, slots=True)
class SplitRows:
    """A kernel that reads some rows of its picture several times."""

    weights: NDArray[np.int8]  # ``(O, I, rows, kw)``, int8
    stride: int  # rows of the repeated picture from one result to the next
    # the picture's row for every row of the repeated one; None where none is repeated
    picture: NDArray[np.int64] | None
    padding: tuple[int, int]  # rows of padding above and below it


def split_rows(numbers: NDArray[Any], stride: int, height: int, padding: tuple[int, int]) -> SplitRows:
    """A kernel ``(O, I, kh, kw)`` as int8, on a picture whose rows stand there once per summand.

    Stride, height and padding above and below are in rows of the picture.
    """
    parts, rows = int8_parts(numbers), numbers.shape[2]
    if len(parts) == 1:
        return SplitRows(parts[0], stride, None, padding)
    needed = [max(k + 1 for k, part in enumerate(parts) if k == 0 or part[:, :, row].any()) for row in range(rows)]
    times = [max(needed[phase::stride], default=1) for phase in range(stride)]  # of every row in a stride
    taps = [(row, k) for row in range(rows) for k in range(times[row % stride] if row + 1 < rows else needed[row])]
    results = (height + sum(padding) - rows) // stride + 1
    read = (results - 1) * sum(times) + len(taps)
    padded = range(-padding[0], height + padding[1])
    repeated = [row for n, row in enumerate(padded) for _ in range(times[n % stride])][:read]
    picture = np.array([row for row in repeated if 0 <= row < height], np.int64)
    outside = sum(row < 0 for row in repeated), sum(row >= height for row in repeated)
    weights = np.stack([parts[k][:, :, row] for row, k in taps], axis=2)
    return SplitRows(weights, sum(times), picture, outside)
