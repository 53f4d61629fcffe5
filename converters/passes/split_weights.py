"""Weights beyond int8 as sums of int8 weights, which read the same pixels: what the kernels take that know no zero-point.

A convolution multiplies a column or a row of its kernel with a copy of the pixels for every summand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

INT8 = np.iinfo(np.int8)


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
    found = [
        (column, part[..., column])
        for column in range(numbers.shape[3])
        for part in parts
        if part is parts[0] or part[..., column].any()
    ]
    return np.stack([codes for _, codes in found], axis=3), tuple(column for column, _ in found)


@dataclass(frozen=True, slots=True)
class SplitRows:
    """A kernel that reads some rows of its picture several times.

    Attributes:
        weights: ``(O, I, rows, kw)``, int8.
        stride: rows of the repeated picture from one result to the next.
        picture: the picture's row for every row of the repeated one; None where none is repeated.
        padding: rows of padding above and below it.
    """

    weights: NDArray[np.int8]
    stride: int
    picture: NDArray[np.int64] | None
    padding: tuple[int, int]


def split_rows(numbers: NDArray[Any], stride: int, height: int, padding: tuple[int, int]) -> SplitRows:
    """A kernel ``(O, I, kh, kw)`` as int8, on a picture whose rows stand there once per summand.

    Args:
        numbers: the kernel.
        stride: rows of the picture from one result to the next.
        height: rows of the picture.
        padding: rows of padding above and below it.
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
