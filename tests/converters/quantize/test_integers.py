"""Weights, biases and activations as integers: within half a step of the real numbers, whatever these are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from converters.quant import QuantParams, dequantize, quantize
from converters.quantize.parameters import LARGEST_BIAS_CODE, params_of_range, quantize_convolution

if TYPE_CHECKING:
    from numpy.typing import NDArray

SOURCE = QuantParams.per_tensor(1 / 255, 0)
finite = st.floats(-1e3, 1e3, width=32)


@given(
    arrays(np.float32, (3, 2, 2, 1), elements=finite),
    arrays(np.float64, 3, elements=st.floats(-1e6, 1e6)),
    st.booleans(),
)
def test_weights_and_bias_are_within_half_a_step_of_the_real_numbers(
    weights: NDArray[np.float32],
    bias: NDArray[np.float64],
    per_channel: bool,  # noqa: FBT001 - a parameter
) -> None:
    found = quantize_convolution(weights, bias, SOURCE, "per-channel" if per_channel else "per-tensor")
    steps = np.broadcast_to(found.weight_params.scale, 3).astype(np.float64)
    real = found.weights * steps.reshape(3, 1, 1, 1)
    assert (np.abs(real - weights) <= 0.5001 * steps.reshape(3, 1, 1, 1)).all()
    bias_steps = np.broadcast_to(found.bias_params.scale, 3).astype(np.float64)
    assert (np.abs(found.bias * bias_steps - bias) <= 0.5001 * bias_steps).all()
    assert np.abs(found.bias.astype(np.int64)).max() <= LARGEST_BIAS_CODE * 1.000001  # float32 scales
    np.testing.assert_array_equal(found.bias_params.scale, SOURCE.scalar_scale * found.weight_params.scale)


def test_one_scale_per_channel_or_one_for_all() -> None:
    weights = np.array([1.27, -0.0127], np.float32).reshape(2, 1, 1, 1)
    channel = quantize_convolution(weights, np.zeros(2), SOURCE, "per-channel")
    tensor = quantize_convolution(weights, np.zeros(2), SOURCE, "per-tensor")
    np.testing.assert_allclose(channel.weight_params.scale, [0.01, 0.0001], rtol=1e-6)
    assert (channel.weights.ravel().tolist(), tensor.weights.ravel().tolist()) == ([127, -127], [127, -1])
    assert (tensor.weight_params.scale.shape, tensor.weight_params.axis) == ((1,), None)


def test_a_dead_channel_keeps_its_bias() -> None:
    found = quantize_convolution(np.zeros((1, 3, 3, 3), np.float32), np.array([2.5]), SOURCE, "per-channel")
    assert not found.weights.any()
    assert float(found.bias[0]) * float(found.bias_params.scale[0]) == pytest.approx(2.5, rel=1e-6)


@given(st.floats(-1e4, 0, width=32), st.floats(0, 1e4, width=32), st.floats(0, 1))
def test_every_number_of_a_range_is_within_one_step_of_its_code_and_zero_is_exact(
    low: float, high: float, part: float
) -> None:
    params = params_of_range(low, high)
    scale, zero_point = params.scalar_scale, params.scalar_zero_point
    number = np.array([low + part * (high - low), 0.0], np.float32)
    back = dequantize(quantize(number, scale, zero_point, np.uint8), scale, zero_point)
    assert abs(float(back[0] - number[0])) <= float(scale) * 1.001
    assert back[1] == 0
    assert 0 <= zero_point <= 255


def test_a_value_that_is_always_zero_has_a_scale_too() -> None:
    assert (float(params_of_range(0.0, 0.0).scalar_scale) > 0, params_of_range(0.0, 0.0).scalar_zero_point) == (True, 0)
