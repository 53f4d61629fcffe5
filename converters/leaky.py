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

LeakyReLU as a sum: ``whole * x + excess * max(x, 0)``, with the scales that give the codes of a table.

A table of 256 entries is looked up byte by byte; a maximum and a sum of codes are vector instructions. Negative codes
take the factor ``whole``, positive ones ``whole + excess``. Every code of the table bounds the factor of its side from
both sides; ``fitted_sum`` takes from the interval that is left the factor that stays furthest from every edge where a
code would change. Runtimes add and round in float32, in an order of their own, so a form whose edges are nearer than
``ROUNDINGS`` float32 roundings is refused: what is returned gives the same codes on any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

CodeTable = NDArray[np.int64]

# Relative nudges in units of 2^-20, smallest first: the scale up, then the slope down, unless the tables ask otherwise.
_SCALE_NUDGES = (0, 4, 1, 2, 8, 16, -4, -1, -2, -8, -16)
_SLOPE_NUDGES = (0, -10, -5, -20, -40, 10, 5, 20, 40, -2, 2)
_NUDGE = 2.0**-20


@dataclass(frozen=True, slots=True)
class LeakyCase:
    """One quantised LeakyReLU on int8 codes."""

    scale_in: np.float32  # float32 scale of the input
    zero_point_in: int  # int8 zero-point of the input
    scale_out: np.float32  # float32 scale of the output
    zero_point_out: int  # int8 zero-point of the output
    slope: np.float32  # factor of negative inputs (TFLite's alpha)
    # whether the file's own output codes are uint8, which float32 sums with the zero-point depend on
    unsigned: bool = False

    @property
    def relative_inputs(self) -> CodeTable:
        """int64 ``(256,)``: input codes -128..127, less their zero-point."""
        return np.arange(-128, 128, dtype=np.int64) - self.zero_point_in

    def outputs(self, steps: CodeTable) -> CodeTable:
        """int64 codes of results in units of the output's scale."""
        codes: CodeTable = np.clip(steps + self.zero_point_out, -128, 127)
        return codes


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
    with np.errstate(over="ignore", invalid="ignore"):  # absurd scales overflow, and lie outside the range below
        ratio = case.scale_in / case.scale_out
        negative = np.float32(ratio * case.slope)
    if not (2.0**-8 <= ratio <= 2.0**7):
        return None
    if not (-127.9375 <= negative <= 2.0**7) or abs(negative) < 2.0**-8:
        return None
    return round(float(np.rint(np.float32(256) * ratio))), round(float(np.rint(np.float32(256) * negative)))


def xnnpack_table(case: LeakyCase) -> CodeTable | None:
    """int64 ``(256,)``: output code for input codes -128..127 in XNNPACK's arithmetic; None where it does not apply."""
    multipliers = xnnpack_multipliers(case)
    if multipliers is None:
        return None
    x = case.relative_inputs
    return case.outputs((x * np.where(x >= 0, *multipliers) + 128) >> 8)


def float_table(case: LeakyCase, form: FloatForm) -> CodeTable:
    """int64 ``(256,)``: output code for input codes -128..127 of the QDQ form in float32, rounding half to even."""
    with np.errstate(over="ignore"):  # absurd scales: infinity saturates like any large number
        x = case.relative_inputs.astype(np.float32) * form.scale
        y = np.where(x >= 0, x, x * form.slope)
        steps = np.clip(np.rint(y / case.scale_out), -512, 512)
    return case.outputs(steps.astype(np.int64))


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


def is_monotone(table: CodeTable) -> bool:
    """Whether a larger input code never gives a smaller output code."""
    return bool((np.diff(table) >= 0).all())


ROUNDINGS = 16  # of half a unit in the last place of the largest number that a kernel handles; a sum takes 5 to 7
TRIED = 255  # factors inside the interval


@dataclass(frozen=True, slots=True)
class SumForm:
    """The numbers of a LeakyReLU that is written as a sum."""

    whole: np.float32  # scale at which all codes are read
    excess: np.float32  # scale at which the codes above the zero-point are read once more


def fitted_sum(case: LeakyCase, wanted: CodeTable) -> SumForm | None:
    """The form whose codes are ``wanted`` on every runtime, or None if there is none.

    Args:
        case: zero-points and the scale of the output; its input scale and slope are not used.
        wanted: int64 ``(256,)``, output code for input codes -128..127.

    Example:
        >>> from converters.leaky import LeakyCase, xnnpack_table
        >>> case = LeakyCase(np.float32(0.02), 10, np.float32(0.018), -60, np.float32(0.1))
        >>> fitted_sum(case, xnnpack_table(case))
        SumForm(whole=np.float32(0.0019663884), excess=np.float32(0.018004412))
    """
    x = case.relative_inputs.astype(np.float64)
    factors = [safest_factor(x[side], *edges(case, wanted[side])) for side in (x < 0, x > 0)]
    if factors[0] is None or factors[1] is None:
        return None
    with np.errstate(over="ignore", under="ignore"):  # absurd scales, which the next line refuses
        whole, excess = (np.float32(factor * float(case.scale_out)) for factor in (factors[0], factors[1] - factors[0]))
    if not all(np.isfinite(s) and s >= np.finfo(np.float32).tiny for s in (whole, excess)):
        return None
    form = SumForm(whole, excess)
    steps, (low, high) = _steps(case, form), edges(case, wanted)
    largest = 256 + 255 * (float(whole) + float(excess)) / float(case.scale_out)
    # further from the edges than float32 arithmetic can move any result
    is_safe = np.minimum(steps - low, high - steps).min() > ROUNDINGS * 2.0**-24 * largest
    return form if is_safe else None


def sum_table(case: LeakyCase, form: SumForm) -> CodeTable:
    """int64 ``(256,)``: output code for input codes -128..127, in float64, rounding half to even."""
    return case.outputs(np.rint(_steps(case, form)).astype(np.int64))


def _steps(case: LeakyCase, form: SumForm) -> NDArray[np.float64]:
    """float64 ``(256,)``: results in units of the output's scale, relative to its zero-point."""
    x = case.relative_inputs.astype(np.float64)
    return (x * float(form.whole) + np.maximum(x, 0) * float(form.excess)) / float(case.scale_out)


def edges(case: LeakyCase, codes: CodeTable) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Between which results, relative to the zero-point, each code comes out; infinite where codes saturate."""
    relative = codes.astype(np.float64) - case.zero_point_out
    low = np.where(codes == -128, -np.inf, relative - 0.5)
    return low, np.where(codes == 127, np.inf, relative + 0.5)


def factor_bounds(
    x: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[float, float] | None:
    """Between which factors every ``factor * x`` lies inside its edges; None where none does, or nothing bounds it."""
    if x.size == 0:
        return None
    bounds = np.sort([low / x, high / x], axis=0)  # dividing by a negative x exchanges them
    least, most = float(bounds[0].max()), float(bounds[1].min())
    return (least, most) if np.isfinite(least) and np.isfinite(most) and least < most else None


def safest_factor(x: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> float | None:
    """The factor that keeps every ``factor * x`` furthest inside its edges; None where ``factor_bounds`` has none."""
    bounds = factor_bounds(x, low, high)
    if bounds is None:
        return None
    factors = np.linspace(*bounds, TRIED + 2)[1:-1, None]
    room = np.minimum(factors * x - low, high - factors * x).min(axis=1)
    return float(factors[room.argmax(), 0])
