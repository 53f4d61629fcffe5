"""LeakyReLU as a sum: ``whole * x + excess * max(x, 0)``, with the scales that give the codes of a table.

A table of 256 entries is looked up byte by byte; a maximum and a sum of codes are vector instructions. Negative codes take
the factor ``whole``, positive ones ``whole + excess``. Every code of the table bounds the factor of its side from both sides;
``fitted_sum`` takes from the interval that is left the factor that stays furthest from every edge where a code would change.
Runtimes add and round in float32, in an order of their own, so a form whose edges are nearer than ``ROUNDINGS`` float32
roundings is refused: what is returned gives the same codes on any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.leaky import LeakyCase, Table

ROUNDINGS = (
    16  # of half a unit in the last place of the largest number that a kernel handles; a sum takes 5 to 7
)
TRIED = 255  # factors inside the interval


@dataclass(frozen=True, slots=True)
class SumForm:
    """The numbers of a LeakyReLU that is written as a sum.

    Attributes:
        whole: scale at which all codes are read.
        excess: scale at which the codes above the zero-point are read once more.
    """

    whole: np.float32
    excess: np.float32


def fitted_sum(case: LeakyCase, wanted: Table) -> SumForm | None:
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
    x = np.arange(-128, 128, dtype=np.float64) - case.zero_point_in
    factors = [safest_factor(x[side], *edges(case, wanted[side])) for side in (x < 0, x > 0)]
    if factors[0] is None or factors[1] is None:
        return None
    with np.errstate(over="ignore", under="ignore"):  # absurd scales, which the next line refuses
        whole, excess = (
            np.float32(factor * float(case.scale_out)) for factor in (factors[0], factors[1] - factors[0])
        )
    if not all(np.isfinite(s) and s >= np.finfo(np.float32).tiny for s in (whole, excess)):
        return None
    form = SumForm(whole, excess)
    return form if _is_safe(case, form, wanted) else None


def sum_table(case: LeakyCase, form: SumForm) -> Table:
    """int64 ``(256,)``: output code for input codes -128..127, in float64, rounding half to even."""
    codes = np.rint(_steps(case, form)).astype(np.int64) + case.zero_point_out
    return np.clip(codes, -128, 127)


def _steps(case: LeakyCase, form: SumForm) -> NDArray[np.float64]:
    """float64 ``(256,)``: results in units of the output's scale, relative to its zero-point."""
    x = np.arange(-128, 128, dtype=np.float64) - case.zero_point_in
    return (x * float(form.whole) + np.maximum(x, 0) * float(form.excess)) / float(case.scale_out)


def edges(case: LeakyCase, codes: Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Between which results, relative to the zero-point, each code comes out; infinite where codes saturate."""
    relative = codes.astype(np.float64) - case.zero_point_out
    low = np.where(codes == -128, -np.inf, relative - 0.5)
    return low, np.where(codes == 127, np.inf, relative + 0.5)


def safest_factor(
    x: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> float | None:
    """The factor that keeps every ``factor * x`` furthest inside its edges; None where none does, or nothing bounds it."""
    if x.size == 0:
        return None
    bounds = np.sort([low / x, high / x], axis=0)  # dividing by a negative x exchanges them
    least, most = bounds[0].max(), bounds[1].min()
    if not (np.isfinite(least) and np.isfinite(most) and least < most):
        return None
    tried = np.linspace(least, most, TRIED + 2)[1:-1, None]
    room = np.minimum(tried * x - low, high - tried * x).min(axis=1)
    return float(tried[room.argmax(), 0])


def _is_safe(case: LeakyCase, form: SumForm, wanted: Table) -> bool:
    """Whether every result is further from its edges than float32 arithmetic can move it."""
    steps, (low, high) = _steps(case, form), edges(case, wanted)
    largest = 256 + 255 * (float(form.whole) + float(form.excess)) / float(case.scale_out)
    return bool(np.minimum(steps - low, high - steps).min() > ROUNDINGS * 2.0**-24 * largest)
