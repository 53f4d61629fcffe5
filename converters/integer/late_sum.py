"""How XNNPACK rounds a function of one number to codes, and the square, which has no other rules.

XNNPACK computes LOGISTIC, TANH and the product of a tensor with itself for all 256 codes in float32: the real result
times ``1 / scale``, then plus the zero-point *of the file's own dtype*, then half to even. The sum is rounded to
float32, too, so a result within about 0.000004 of a tie becomes one. For uint8 codes the zero-point is another, and so
are such ties.

Source of the recipes: measured, not read. Of 150 LOGISTICs of int8 codes with a result near a tie, all 150 come out so,
and of 600 squares at round and irregular scales all 600; no other order of the steps that was tried gives more than 133
and 584.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.leaky import LeakyCase, Table


def late_codes(case: LeakyCase, reals: NDArray[np.float32]) -> Table:
    """int64 codes -128..127 of float32 results; the case's input and slope are not used."""
    shift = 128 if case.unsigned else 0
    with np.errstate(over="ignore"):
        steps = reals * (np.float32(1) / case.scale_out) + np.float32(case.zero_point_out + shift)
    codes: Table = np.clip(np.rint(steps), shift - 128, shift + 127).astype(np.int64) - shift
    return codes


def square_table(case: LeakyCase) -> Table:
    """int64 ``(256,)``: output code for input codes -128..127 of a MUL of a tensor with itself."""
    reals = case.scale_in * (np.arange(-128, 128) - case.zero_point_in).astype(np.float32)
    with np.errstate(over="ignore"):
        return late_codes(case, reals * reals)
