"""SOFTMAX of 8-bit codes as LiteRT's built-in kernel computes it on x86: XNNPACK has none for codes.

With ``d`` a code's distance from the row's largest one: a table holds ``exp(-scale * beta * d)`` in float32, a row's
entries are added up one by one in float32, and ``entry * (1 / (sum * scale_out))`` is rounded to nearest, of uint8
codes by adding 0.5 and cutting off, of int8 codes with halves away from zero.

Source of the recipe: tensorflow/lite/kernels/internal/optimized/optimized_ops.h (Softmax, PopulateSoftmaxLookupTable
and QuantizeSoftmaxOutput), as public copies have it; the codes of 150 random SOFTMAXs, 288,704 in all, are LiteRT's. On
64-bit Arm LiteRT has a kernel of its own, in 16-bit fixed point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

HALVES = {"uint8": np.float32(0.5), "int8": np.nextafter(np.float32(0.5), np.float32(0))}
"""Dtype of the source's codes -> what is added before a float32 number from 0 to 256 is rounded down.

The number below 0.5 takes 0.5 - 2^-25 to 0, and every other number where halves away from zero take it.
"""


def exponentials(scale: np.float32) -> NDArray[np.float32]:
    """float32 ``(256,)``: by distance from the largest code, as C's ``expf`` gives them; ``scale`` times ``beta``."""
    with np.errstate(over="ignore"):
        steps = np.float32(-scale) * np.arange(256).astype(np.float32)
    return np.exp(steps.astype(np.float64)).astype(np.float32)
