"""The codes of LiteRT's ABS, EXP and TANH for all 256 input codes.

EXP (built-in kernel) and TANH (XNNPACK) hold a table, too: the real function in float32, divided by the output's scale,
rounded to nearest with halves away from zero. ABS (built-in) rescales in 31-bit fixed point, or not at all.

Source of the recipes: tensorflow/lite/kernels/{exp,elementwise}.cc, and LUTPopulate in
tensorflow/lite/kernels/internal/common.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.integer.prelu import rescaled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.leaky import LeakyCase, Table


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
