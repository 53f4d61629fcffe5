"""The codes of LiteRT's HARD_SWISH: ``x * clip(x / 6 + 1/2, 0, 1)`` in 16-bit fixed point, for all 256 input codes.

XNNPACK does not take the operator on codes; the built-in kernel does. It holds the input with 7 more bits, scales one
copy to ``x / 3`` in units of 2^-15 and the other to the output's scale, and multiplies them, rounding at every step.

Source of the recipe: tensorflow/lite/kernels/internal/reference/hard_swish.h, its multipliers in
tensorflow/lite/kernels/activations.cc (HardSwishPrepare).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from converters.leaky import LeakyCase, Table

LOW, HIGH = -(1 << 15), (1 << 15) - 1
UNIT = 1 << 15
LAST_BIT = 15


def hard_swish_table(case: LeakyCase) -> Table:
    """int64 ``(256,)``: output code for input codes -128..127; the slope of ``case`` is not used.

    Raises:
        ValueError: the output's scale is so small that LiteRT refuses the operator.
    """
    fine_scale = np.float32(case.scale_in) * np.float32(1 / 128)
    to_output, output_shift = _multiplier(float(fine_scale / np.float32(case.scale_out)))
    to_thirds, thirds_shift = _multiplier(float(fine_scale / (np.float32(3) / np.float32(UNIT))))
    if output_shift > 0:
        raise ValueError(f"the output's scale {case.scale_out} is below a 128th of the input's {case.scale_in}")
    codes = []
    for code in range(-128, 128):
        fine = (code - case.zero_point_in) << 7
        thirds = _saturated(fine << (thirds_shift - 1)) if thirds_shift > 0 else fine
        thirds = _high_product(thirds, to_thirds, rounded=True)
        if thirds_shift > 0:
            thirds = _saturated(thirds << 1)
        elif thirds_shift < 0:
            thirds = _shifted(thirds, -thirds_shift)
        share = (thirds + UNIT) >> 1
        product = _high_product(share, _high_product(fine, to_output, rounded=True), rounded=False)
        codes.append(_shifted(product, -output_shift) + case.zero_point_out)
    table: Table = np.clip(np.array(codes, np.int64), -128, 127)
    return table


def _multiplier(real: float) -> tuple[int, int]:
    """``real`` as ``multiplier * 2^(shift - 15)``, the multiplier rounded to 31 bits first and then to 15."""
    fraction, shift = math.frexp(real)
    wide = math.floor(fraction * (1 << 31) + 0.5)
    if wide == 1 << 31:
        wide, shift = wide // 2, shift + 1
    if shift < -31:
        return 0, 0
    return (HIGH if wide >= (1 << 31) - 1 - UNIT else (wide + UNIT) >> 16), shift


def _saturated(value: int) -> int:
    return max(LOW, min(HIGH, value))


def _high_product(a: int, b: int, *, rounded: bool) -> int:
    """The upper half of ``2 * a * b``, towards zero, or to nearest first."""
    product = a * b
    if rounded:
        product += (UNIT >> 1) if product >= 0 else 1 - (UNIT >> 1)
    return _saturated(product // UNIT if product >= 0 else -(-product // UNIT))


def _shifted(value: int, bits: int) -> int:
    """``value / 2^bits``, halves away from zero; the kernel's 16-bit mask makes the sign of it beyond 15 bits, and 1 of 0."""
    if bits > LAST_BIT:
        return -1 if value < 0 else 1
    mask = (1 << bits) - 1
    return (value >> bits) + int((value & mask) > (mask >> 1) + (value < 0))
