"""Codes that a uint8 CONCATENATION rescales: LiteRT's built-in table, and the scale of a DequantizeLinear that makes the same.

int8 files give all operands one scale. uint8 files may not, and XNNPACK does not take them then: the built-in kernel
computes ``round(x * f - zp_in * f) + zp_out`` with ``f = s_in * (1 / s_out)``, every step in float32, halves away from
zero. A result of 2^31 codes or more gets the lowest code. Runtimes compute ``(x - zp_in) * s / s_out``, half to even.
``fitted_scale`` gives the ``s`` that keeps all 256 results furthest from every edge.

Source of the recipe: ``tensorflow/lite/kernels/internal/reference/concatenation.h`` (ConcatenationWithScaling).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.leaky import FloatForm, LeakyCase, Table, edges, float_table, safest_factor

if TYPE_CHECKING:
    from numpy.typing import NDArray

BEYOND = 2.0**31  # x86 makes the lowest int32 number of every float32 number that has none
UINT8 = 128  # what turns int8 codes into the uint8 codes on which the kernel computes


def concatenated_table(case: LeakyCase) -> Table:
    """int64 ``(256,)``: output code for input codes -128..127 of an operand; its slope is not used."""
    factor = case.scale_in * (np.float32(1) / case.scale_out)
    codes: NDArray[np.float32] = np.arange(256, dtype=np.float32)
    steps = codes * factor + np.float32(-(case.zero_point_in + UINT8)) * factor
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.trunc(steps + np.copysign(np.float64(0.5), steps))
        rounded = np.where(np.abs(rounded) < BEYOND, rounded, -BEYOND).astype(np.int64)
    table: Table = np.clip(rounded + case.zero_point_out, -128, 127)
    return table


def fitted_scale(case: LeakyCase, wanted: Table) -> np.float32 | None:
    """The scale with which float32 arithmetic gives ``wanted``: the tensor's own where that does; None where none does."""
    if np.array_equal(float_table(case, FloatForm(case.scale_in, np.float32(1))), wanted):
        return case.scale_in
    x = np.arange(-128, 128, dtype=np.float64) - case.zero_point_in
    low, high = edges(case, wanted)
    factor = safest_factor(x[x != 0], low[x != 0], high[x != 0])
    if factor is None:
        return None
    scale = np.float32(factor * float(case.scale_out))
    return scale if np.array_equal(float_table(case, FloatForm(scale, np.float32(1))), wanted) else None
