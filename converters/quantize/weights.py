"""Weights and biases of a float convolution as integers.

Weights: int8 in -127..127, symmetric, one scale per output channel or one for all. Bias: int32 with exactly the scale
``x_scale * w_scale``. Where a channel's weights are so small that its bias would not fit into int32, that scale grows
until it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.qdq import bias_params
from converters.quant import QuantParams

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.options import Quantize

LARGEST_CODE = 127
LARGEST_BIAS_CODE = 2**30  # half of int32: the sum of products needs the rest


@dataclass(frozen=True, eq=False)
class IntegerWeights:
    """One convolution's constants.

    Attributes:
        weights: int8 ``(O, I / groups, H, W)``.
        weight_params: their scales, zero-points 0.
        bias: int32 ``(O,)``.
        bias_params: exactly ``x_scale * w_scale``, zero-points 0.
    """

    weights: NDArray[np.int8]
    weight_params: QuantParams
    bias: NDArray[np.int32]
    bias_params: QuantParams


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
    return IntegerWeights(
        codes, params, np.clip(bias_codes, limits.min, limits.max).astype(np.int32), of_bias
    )
