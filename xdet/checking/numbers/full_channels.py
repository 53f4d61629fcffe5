"""Channels that the pass ``full channels`` wrote beside the source's: they must be real zeros, and are taken away again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FULL_CHANNELS = "full channels"
BLOCK = 16  # channels are filled up to a multiple of it


def full(channels: int) -> int:
    """As many channels as a number of them is filled up to."""
    return -(-channels // BLOCK) * BLOCK


def is_filled(found: Sequence[int], expected: Sequence[int], copies: int = 1) -> bool:
    """Whether weights or a bias have more channels than expected, and as many as the pass writes."""
    if len(found) != len(expected) or tuple(found) == tuple(expected):
        return False
    wanted = ((expected[0], copies * full(expected[0] // copies)), *((n, full(n)) for n in expected[1:2]))
    return all(n in choices for n, choices in zip(found, wanted, strict=False)) and tuple(found[2:]) == tuple(
        expected[2:]
    )


def without_filling(
    found: NDArray[Any], expected: Sequence[int], copies: int, zero_point: int
) -> NDArray[Any] | None:
    """The source's part of weights or a bias in ``copies``; None where anything beside it is not zero."""
    parts = found.reshape(copies, -1, *found.shape[1:])
    kept = parts[(slice(None), slice(expected[0] // copies), *(slice(n) for n in expected[1:]))]
    filling = np.count_nonzero(parts != zero_point) - np.count_nonzero(kept != zero_point)
    return None if filling else kept.reshape(expected)


def first_channels(numbers: NDArray[Any], size: int, copies: int) -> NDArray[Any]:
    """The source's part of one number per output channel; a single number stays."""
    return (
        numbers
        if numbers.size <= size or size == 1
        else numbers.reshape(copies, -1)[:, : size // copies].reshape(-1)
    )
