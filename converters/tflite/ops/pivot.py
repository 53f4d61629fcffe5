"""Where exact ties fall, for operators that average codes.

A mean or an interpolation commutes with a shift and a scaling of all codes, so the DequantizeLinear in front of it
and the QuantizeLinear behind it may take any zero-point and scale, as long as both take the same. Runtimes round
the real result half to even around that zero-point. LiteRT's kernels round ties another way; with the zero-point at
their *pivot* and the first scale nudged up by 2^-15, every tie moves away from the pivot, as theirs do:

* AVERAGE_POOL_2D (built-in kernel): half away from the stored code 0.
* RESIZE_BILINEAR (XNNPACK): half up, which is half away from the lowest code.
* MEAN (XNNPACK): half to even of the *stored* code: no nudge, an even zero-point, and scale 1, in which sums are exact.

The nudge is large enough to survive float32 next to a zero-point of 128 (some runtimes add it before they round),
and too small to carry a mean of fewer than 128 codes over a tie. No runtime pays for it. ``--leaky-relu float``
leaves it out: then every tensor keeps one scale and zero-point, and results stay within 1 LSB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.quant import QuantParams

if TYPE_CHECKING:
    from converters.tflite.context import ImportContext

NUDGE = np.float32(1 + 2.0**-15)


@dataclass(frozen=True, slots=True)
class Pivot:
    """The quantisation on both sides of an averaging operator.

    Attributes:
        before: for the DequantizeLinear.
        after: for the QuantizeLinear.
    """

    before: QuantParams
    after: QuantParams


def pivot_at(context: ImportContext, source: int, target: int, stored_code: int) -> Pivot:
    """Ties away from ``stored_code`` (in the source file's codes).

    The tensors' own quantisation where it differs between them, or where LiteRT is not matched.
    """
    plain = Pivot(context.params(source), context.params(target))
    if not context.match_litert or not plain.before.same_as(plain.after):
        return plain
    zero_point, scale = stored_code + context.shift(source), plain.before.scalar_scale
    return Pivot(
        QuantParams.per_tensor(float(scale * NUDGE), zero_point),
        QuantParams.per_tensor(float(scale), zero_point),
    )


def even_pivot(context: ImportContext, source: int, target: int) -> Pivot:
    """Ties to even stored codes, and exact sums; the tensors' own quantisation where their scales differ."""
    before, after = context.params(source), context.params(target)
    if not context.match_litert or before.scalar_scale != after.scalar_scale:
        return Pivot(before, after)
    lowest = min(before.scalar_zero_point, after.scalar_zero_point)
    step = 0 if after.scalar_zero_point % 2 == 0 else -1 if lowest > np.iinfo(context.code_dtype).min else 1
    return Pivot(
        QuantParams.per_tensor(1.0, before.scalar_zero_point + step),
        QuantParams.per_tensor(1.0, after.scalar_zero_point + step),
    )


def lowest_code(context: ImportContext, index: int) -> int:
    """The lowest code of a tensor's dtype in the source."""
    return int(np.iinfo(context.tensor(index).dtype).min)
