"""LeakyReLU on int8 codes: LiteRT XNNPACK's integer table, and the QDQ form whose float table equals it.

XNNPACK computes, on codes relative to the input zero-point, ``(x * m + (zp_out << 8) + 128) >> 8`` with one
8-bit multiplier per branch, ``m_pos = round(256 * s_in / s_out)`` and ``m_neg = round(256 * slope * s_in / s_out)``.
A runtime that sees ``DequantizeLinear -> LeakyRelu -> QuantizeLinear`` computes the real function in float32
and rounds half to even, as much as one code away. Giving that DequantizeLinear the scale ``s_out * m_pos / 256``
and the LeakyRelu the slope ``m_neg / m_pos`` makes the real function equal XNNPACK's, apart from exact ties,
which the arithmetic shift rounds up; a relative nudge of a few 2^-20 on both decides the ties alike. Nothing is
assumed: ``matched_leaky`` compares all 256 entries and returns None where none fits. A requantisation (TFLite
QUANTIZE from 8 bit to 8 bit) is the same integer recipe with slope 1.

Source of the recipe: google/XNNPACK, ``src/microparams-init.c`` (qs8_lrelu) and
``src/operators/unary-elementwise-nc.c``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.int64]

# Relative nudges in units of 2^-20, smallest first: the scale up, then the slope down, unless the tables ask otherwise.
_SCALE_NUDGES = (0, 4, 1, 2, 8, 16, -4, -1, -2, -8, -16)
_SLOPE_NUDGES = (0, -10, -5, -20, -40, 10, 5, 20, 40, -2, 2)
_NUDGE = 2.0**-20


@dataclass(frozen=True, slots=True)
class LeakyCase:
    """One quantised LeakyReLU on int8 codes.

    Attributes:
        scale_in: float32 scale of the input.
        zero_point_in: int8 zero-point of the input.
        scale_out: float32 scale of the output.
        zero_point_out: int8 zero-point of the output.
        slope: factor of negative inputs (TFLite's alpha).
    """

    scale_in: np.float32
    zero_point_in: int
    scale_out: np.float32
    zero_point_out: int
    slope: np.float32


@dataclass(frozen=True, slots=True)
class FloatForm:
    """The numbers of a ``DequantizeLinear(scale) -> LeakyRelu(slope)`` pair."""

    scale: np.float32
    slope: np.float32


def plain_form(case: LeakyCase) -> FloatForm:
    """The real function: the input's own scale and the file's slope."""
    return FloatForm(case.scale_in, case.slope)


def xnnpack_multipliers(case: LeakyCase) -> tuple[int, int] | None:
    """The multipliers of the positive and the negative branch; None where XNNPACK leaves the operator to LiteRT."""
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # absurd scales overflow, and lie outside the range below
        ratio = case.scale_in / case.scale_out
        negative = np.float32(ratio * case.slope)
    if not (2.0**-8 <= ratio <= 2.0**7):
        return None
    if not (-127.9375 <= negative <= 2.0**7) or abs(negative) < 2.0**-8:
        return None
    return round(float(np.rint(np.float32(256) * ratio))), round(float(np.rint(np.float32(256) * negative)))


def xnnpack_table(case: LeakyCase) -> Table | None:
    """int64 ``(256,)``: output code for input codes -128..127 in XNNPACK's arithmetic; None where it does not apply."""
    multipliers = xnnpack_multipliers(case)
    if multipliers is None:
        return None
    x = np.arange(-128, 128, dtype=np.int64) - case.zero_point_in
    m = np.where(x >= 0, multipliers[0], multipliers[1])
    table: Table = np.clip((x * m + (case.zero_point_out << 8) + 128) >> 8, -128, 127)
    return table


def float_table(case: LeakyCase, form: FloatForm) -> Table:
    """int64 ``(256,)``: output code for input codes -128..127 of the QDQ form in float32, rounding half to even."""
    x = (np.arange(-128, 128, dtype=np.int32) - case.zero_point_in).astype(np.float32) * form.scale
    y = np.where(x >= 0, x, x * form.slope)
    codes = np.rint(y / case.scale_out).astype(np.int64) + case.zero_point_out
    return np.clip(codes, -128, 127)


def matched_leaky(case: LeakyCase) -> FloatForm | None:
    """The QDQ form whose 256 codes equal XNNPACK's, or None if XNNPACK does not take the case or no nudge fits."""
    multipliers = xnnpack_multipliers(case)
    wanted = xnnpack_table(case)
    if multipliers is None or wanted is None or multipliers[0] == 0:
        return None
    positive, negative = multipliers
    scale = float(case.scale_out) * positive / 256
    slope = negative / positive
    for up, down in product(_SCALE_NUDGES, _SLOPE_NUDGES):
        form = FloatForm(np.float32(scale * (1 + up * _NUDGE)), np.float32(slope * (1 + down * _NUDGE)))
        if np.array_equal(float_table(case, form), wanted):
            return form
    return None


def is_monotone(table: Table) -> bool:
    """Whether a larger input code never gives a smaller output code."""
    return bool((np.diff(table) >= 0).all())
