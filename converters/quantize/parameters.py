"""Scales and zero-points of a float network: of activations, of weights and biases, of the pixels.

Activations: a range is widened to hold 0, which padding needs. Operators of ``keeps_values`` (pools, reshapes,
concatenations, ...) give out what they take in: the values on both sides share the union of their ranges, so that no
code changes on the way.

Weights: int8 in -127..127, symmetric, one scale per output channel or one for all. Bias: int32 with exactly the scale
``x_scale * w_scale``. Where a channel's weights are so small that its bias would not fit into int32, that scale grows
until it does.

Pixels are codes already, where one of them means 0: scale = the rescaling's, zero-point = the pixel that means 0,
rounded to a whole one. What rounding it moves (half a step for 1/127.5, -1) is a constant, which the first convolutions
take into their bias; only at the picture's border, where padding is 0 anyway, is it too much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters._ir import ir
from converters.errors import ContractError
from converters.graph import bias_params, constant_at
from converters.quant import QuantParams

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from converters.calibration import Ranges
    from converters.options import Quantize
    from converters.spec import Rescaling

MOVERS = frozenset({
    *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "MaxPool", "Pad", "Reshape", "Slice", "SpaceToDepth"),
    *("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
})  # fmt: skip
SMALLEST_SCALE = 1e-30
LARGEST_CODE = 127  # of weights, and of symmetric activations
LARGEST_BIAS_CODE = 2**30  # half of int32: the sum of products needs the rest


def keeps_values(node: ir.Node) -> bool:
    """Whether the node's results are some of its inputs' values, and zeros."""
    if node.op_type == "Pad":
        if node.attributes.get_string("mode", "constant") != "constant":
            return True  # reflections and edges are the input's own values
        value = constant_at(node, 2)
        return not value.any() if value is not None else len(node.inputs) < 3 or node.inputs[2] is None
    if node.op_type == "Resize":
        return node.attributes.get_string("mode", "nearest") == "nearest"
    return node.op_type in MOVERS


def is_activation(value: ir.Value | None) -> bool:
    """Whether a value is computed, float32, and so has to be quantised."""
    return (
        value is not None
        and value.dtype == ir.DataType.FLOAT
        and value.producer() is not None
        and ir.convenience.get_const_tensor(value) is None
    )


def activation_params(
    graph: ir.Graph, ranges: Ranges, fixed: Mapping[ir.Value, QuantParams], *, symmetric: bool = False
) -> dict[ir.Value, QuantParams]:
    """Quantisation of every activation as uint8 codes.

    Args:
        graph: the float network.
        ranges: value name -> (smallest, largest).
        fixed: quantisations that are given, such as the pixels'; values moved from them share theirs.
        symmetric: zero-points in the middle, which are 0 as int8 codes.

    Raises:
        ContractError: a value has no range.
    """
    activations = [value for node in graph for value in node.outputs if is_activation(value)]
    groups = {value: {value} for value in activations}  # values that share a quantisation
    for node in graph:
        if keeps_values(node):
            members = [value for value in (*node.inputs, *node.outputs) if value is not None and is_activation(value)]
            joined = set[ir.Value]().union(*(groups[value] for value in members))
            groups |= dict.fromkeys(joined, joined)
    params: dict[ir.Value, QuantParams] = {}
    for value in activations:
        if value.name not in ranges:
            raise ContractError(f"calibration gave no range for {value.name!r}: please report this")
    for value in activations:
        if value not in params:
            low = min(0.0, *(ranges[str(member.name)][0] for member in groups[value]))
            high = max(0.0, *(ranges[str(member.name)][1] for member in groups[value]))
            shared = symmetric_params(low, high) if symmetric else params_of_range(low, high)
            stated = [fixed[member] for member in groups[value] if member in fixed]
            params |= dict.fromkeys(groups[value], stated[0] if stated else shared)
    return params


def params_of_range(low: float, high: float) -> QuantParams:
    """uint8 quantisation of a range that holds 0.

    Example:
        >>> params = params_of_range(-1.0, 2.0)
        >>> float(params.scalar_scale), params.scalar_zero_point
        (0.0117647061124444, 85)
    """
    scale = np.float32(max((high - low) / 255, SMALLEST_SCALE))
    zero_point = round(float(np.clip(np.rint(-low / float(scale)), 0, 255)))
    return QuantParams.per_tensor(float(scale), zero_point)


def symmetric_params(low: float, high: float) -> QuantParams:
    """uint8 quantisation with zero-point 128: of -127..127 as int8, which leaves out -128.

    Example:
        >>> params = symmetric_params(-1.0, 2.0)
        >>> float(params.scalar_scale), params.scalar_zero_point
        (0.015748031437397003, 128)
    """
    return QuantParams.per_tensor(max(-low, high, SMALLEST_SCALE * LARGEST_CODE) / LARGEST_CODE, 128)


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
        params = params_of_range(min(0.0, offset), max(0.0, 255 * scale + offset))
        return PixelQuantization(params, are_codes=False, shift=0.0)
    zero_point = min(max(round(exact), 0), 255)
    params = QuantParams.per_tensor(scale, zero_point)
    return PixelQuantization(params, are_codes=True, shift=offset + zero_point * scale)
