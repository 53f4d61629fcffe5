"""Weights and biases of a float convolution as integers.

Weights: int8 in -127..127, symmetric, one scale per output channel or one for all. Bias: int32 with exactly the scale
``x_scale * w_scale``. Where a channel's weights are so small that its bias would not fit into int32, that scale grows
until it does.

How pixels become codes: they are codes already, where one of them means 0.

Scale = the rescaling's, zero-point = the pixel that means 0, rounded to a whole one. What rounding it moves (half a
step for 1/127.5, -1) is a constant, which the first convolutions take into their bias; only at the picture's border,
where padding is 0 anyway, is it too much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.graph import bias_params
from converters.quant import QuantParams
from converters.quantize.activations import LARGEST_CODE, params_of_range

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.options import Quantize
    from converters.spec import Rescaling

LARGEST_BIAS_CODE = 2**30  # half of int32: the sum of products needs the rest


@dataclass(frozen=True, eq=False)
class IntegerWeights:
    """One convolution's constants."""

    weights: NDArray[np.int8]  # int8 ``(O, I / groups, H, W)``
    weight_params: QuantParams  # their scales, zero-points 0
    bias: NDArray[np.int32]  # int32 ``(O,)``
    bias_params: QuantParams  # exactly ``x_scale * w_scale``, zero-points 0


def quantize_convolution(
    weights: NDArray[np.float32], bias: NDArray[np.float64], source: QuantParams, granularity: Quantize
) -> IntegerWeights:
    """Quantise weights and bias.

    Args:
        weights: float32 ``(O, I / groups, H, W)``.
        bias: float64 ``(O,)``.
        source: quantisation of the convolution's input.
        granularity: ``"per-channel"`` or ``"per-tensor"``.
    """
    per_channel = granularity == "per-channel"
    largest = np.abs(weights).reshape(len(weights), -1).max(axis=1).astype(np.float64) / LARGEST_CODE
    for_bias = np.abs(bias) / (float(source.scalar_scale) * LARGEST_BIAS_CODE)
    needed = np.maximum(np.maximum(largest, for_bias), np.finfo(np.float32).tiny / float(source.scalar_scale))
    scale = (needed if per_channel else needed.max(keepdims=True)).astype(np.float32)
    params = QuantParams(scale, np.zeros(scale.shape, np.int64), 0 if per_channel else None)
    steps = scale.reshape(-1, 1, 1, 1)
    codes = np.clip(np.rint(weights / steps), -LARGEST_CODE, LARGEST_CODE).astype(np.int8)
    of_bias = bias_params(source, params)
    bias_codes = np.rint(bias / of_bias.scale.astype(np.float64))
    limits = np.iinfo(np.int32)
    return IntegerWeights(codes, params, np.clip(bias_codes, limits.min, limits.max).astype(np.int32), of_bias)


@dataclass(frozen=True, eq=False)
class PixelQuantization:
    """How the rescaled pixels become codes."""

    params: QuantParams  # as uint8 codes
    are_codes: bool  # whether the pixels themselves are the codes; otherwise they are rescaled and quantised
    shift: float  # what a rounded zero-point takes away from every real number; 0 where it is whole


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
