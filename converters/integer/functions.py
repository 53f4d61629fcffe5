"""The codes of LiteRT's ABS, EXP, TANH and PRELU for all 256 input codes.

EXP (built-in kernel) and TANH (XNNPACK) hold a table, too: the real function in float32, divided by the output's scale,
rounded to nearest with halves away from zero. ABS (built-in) rescales in 31-bit fixed point, or not at all.

XNNPACK does not take PRELU on codes; the built-in kernel does. Codes at or above the zero-point are rescaled by
``s_in / s_out``, those below are multiplied with the slope's code and rescaled by ``s_in * s_slope / s_out``, each with a
31-bit multiplier and a shift, rounded twice.

Source of the recipes: tensorflow/lite/kernels/{exp,elementwise}.cc, kernels/internal/reference/prelu.h, LUTPopulate in
kernels/internal/common.h and MultiplyByQuantizedMultiplier in kernels/internal/common.cc.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.leaky import LeakyCase, Table

Integers = NDArray[np.int64]
REALS: Mapping[str, np.ufunc] = {"EXP": np.exp, "TANH": np.tanh}


def function_table(op: str, case: LeakyCase) -> Table:
    """int64 ``(256,)``: output code for input codes -128..127.

    Args:
        op: ABS, EXP or TANH.
        case: scales and zero-points of input and output; its slope is not used.
    """
    x = np.arange(-128, 128, dtype=np.int64) - case.zero_point_in
    if op == "ABS":
        same, ratio = case.scale_in == case.scale_out, np.float32(case.scale_in) / np.float32(case.scale_out)
        steps = np.abs(x) if same else rescaled(np.abs(x), float(ratio))
    else:
        reals = np.float32(case.scale_in) * x.astype(np.float32)
        with np.errstate(over="ignore"):
            found = REALS[op](reals.astype(np.float64)).astype(np.float32)
            found = found * (np.float32(1) / np.float32(case.scale_out))
        steps = np.clip(np.sign(found) * np.floor(np.abs(found) + np.float32(0.5)), -512, 512).astype(
            np.int64
        )
    table: Table = np.clip(steps + case.zero_point_out, -128, 127)
    return table


def prelu_tables(case: LeakyCase, slopes: Integers, slope_scale: np.float32) -> Integers:
    """int64 ``(slopes, 256)``: output code for input codes -128..127.

    Args:
        case: scales and zero-points of input and output; its slope is not used.
        slopes: int64 ``(n,)``, codes of the slopes, less their zero-point.
        slope_scale: what one of them stands for.
    """
    x = np.arange(-128, 128, dtype=np.int64) - case.zero_point_in
    scale_in, scale_out = float(case.scale_in), float(case.scale_out)
    above = rescaled(x, scale_in / scale_out)
    below = rescaled(x * slopes[:, None], scale_in * float(slope_scale) / scale_out)
    codes: Integers = np.clip(np.where(x >= 0, above, below) + case.zero_point_out, -128, 127)
    return codes


def rescaled(values: Integers, factor: float) -> Integers:
    """``values * factor`` by a 31-bit multiplier: to nearest, then divided by a power of two, halves away from zero."""
    fraction, shift = math.frexp(factor)
    multiplier = math.floor(fraction * (1 << 31) + 0.5)
    if multiplier == 1 << 31:
        multiplier, shift = multiplier // 2, shift + 1
    products = (values << max(shift, 0)) * multiplier
    high = np.where(products >= 0, products + (1 << 30), products + 1 - (1 << 30))
    high = np.sign(high) * (np.abs(high) >> 31)
    bits = max(-shift, 0)
    mask = (1 << bits) - 1
    found: Integers = (high >> bits) + ((high & mask) > (mask >> 1) + (high < 0))
    return found
