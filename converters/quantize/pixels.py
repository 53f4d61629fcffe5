"""How pixels become codes: they are codes already, where one of them means 0.

Scale = the rescaling's, zero-point = the pixel that means 0, rounded to a whole one. What rounding it moves (half a step for
1/127.5, -1) is a constant, which the first convolutions take into their bias; only at the picture's border, where padding
is 0 anyway, is it too much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.quant import QuantParams
from converters.quantize.activations import params_of_range

if TYPE_CHECKING:
    from converters.spec import Rescaling


@dataclass(frozen=True, eq=False)
class PixelQuantization:
    """How the rescaled pixels become codes.

    Attributes:
        params: as uint8 codes.
        are_codes: whether the pixels themselves are the codes; otherwise they are rescaled and quantised.
        shift: what a rounded zero-point takes away from every real number; 0 where it is whole.
    """

    params: QuantParams
    are_codes: bool
    shift: float


def pixel_quantization(rescaling: Rescaling) -> PixelQuantization:
    """The quantisation under which pixels are their own codes; where no pixel means 0, that of their range.

    Example:
        >>> from converters.spec import Rescaling
        >>> pixels = pixel_quantization(Rescaling(1 / 127.5, -1.0))
        >>> pixels.params.scalar_zero_point, round(pixels.shift, 6)
        (128, 0.003922)
    """
    scale, offset = rescaling.scale, rescaling.offset
    exact = -offset / scale
    if not -0.5 <= exact <= 255.5:
        return PixelQuantization(
            params_of_range(min(0.0, offset), max(0.0, 255 * scale + offset)), are_codes=False, shift=0.0
        )
    zero_point = min(max(round(exact), 0), 255)
    return PixelQuantization(
        QuantParams.per_tensor(scale, zero_point), are_codes=True, shift=offset + zero_point * scale
    )
