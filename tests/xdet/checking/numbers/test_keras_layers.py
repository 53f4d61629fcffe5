"""What a Keras layer's configuration asks for, as steps: slopes, limits, padding, sizes; what has no step is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converters.sources.keras.stored import KerasNetwork, StoredLayer
from xdet.checking.numbers.comparison import Act, ChannelAffine, Clamp, Leaky, Other, Padding, Pool, Product
from xdet.checking.numbers.keras_layers import KerasSteps, network_steps
from xdet.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

RNG = np.random.default_rng(4)


def steps_of(*layers: tuple[str, dict[str, Any], dict[str, NDArray[Any]]], size: int = 9) -> KerasSteps:
    """A chain behind a picture of ``size`` x ``size`` x 3; layers are called by their class."""
    stored = [StoredLayer("image", "InputLayer", {}, (), {})]
    for kind, config, weights in layers:
        stored.append(StoredLayer(kind, kind, config, (stored[-1].name,), weights))
    return network_steps(KerasNetwork("m.h5", tuple(stored), stored[-1].name, (None, size, size, 3)))


def acts_of(kind: str, config: dict[str, Any], **weights: NDArray[Any]) -> list[Act | None]:
    return [step.act for step in steps_of((kind, config, weights)).steps[1:]]


def pool(op: str, window: int, stride: int, pads: tuple[int, int, int, int]) -> Pool:
    return Pool(op, (window, window), (stride, stride), pads)


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        ("Activation", {"activation": "leaky_relu"}, [Leaky(0.2)]),
        ("Activation", {"activation": "relu6"}, [Clamp(6.0)]),
        ("Activation", {"activation": "linear"}, []),
        ("Activation", {"activation": "sigmoid"}, [Other("sigmoid")]),
        ("LeakyReLU", {"alpha": 0.1}, [Leaky(0.1)]),
        ("LeakyReLU", {"negative_slope": 0.25}, [Leaky(0.25)]),
        ("LeakyReLU", {}, [Leaky(0.3)]),
        ("ReLU", {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}, [Clamp(None)]),
        ("ReLU", {"max_value": 6.0}, [Clamp(6.0)]),
        ("ReLU", {"negative_slope": 0.05}, [Leaky(0.05)]),
        ("ReLU", {"threshold": 1.0}, [Other("ReLU")]),
        ("ZeroPadding2D", {"padding": [[0, 1], [2, 3]]}, [Padding((0, 2, 1, 3))]),
        ("Dropout", {}, []),
        ("Dense", {}, [Other("Dense")]),
        ("MaxPooling2D", {"pool_size": 2, "strides": None, "padding": "valid"}, [pool("MaxPool", 2, 2, (0, 0, 0, 0))]),
        ("MaxPooling2D", {"pool_size": [2, 2], "strides": 2, "padding": "same"}, [pool("MaxPool", 2, 2, (0, 0, 1, 1))]),
        ("AveragePooling2D", {"pool_size": 3, "strides": 1, "padding": "same"}, [pool("AveragePool", 3, 1, (1,) * 4)]),
        ("MaxPooling2D", {"data_format": "channels_first"}, [Other("MaxPooling2D with channels first")]),
    ],
)  # fmt: skip
def test_a_configuration_becomes_its_steps(kind: str, config: dict[str, Any], expected: list[Act]) -> None:
    assert acts_of(kind, config) == expected


def test_a_convolution_is_turned_to_oihw_and_padded_behind() -> None:
    kernel = RNG.normal(size=(3, 3, 3, 4)).astype(np.float32)
    config = {"strides": [2, 2], "padding": "same", "use_bias": False, "activation": "relu", "dilation_rate": [1, 1]}
    steps = steps_of(("Conv2D", config, {"kernel": kernel}), size=8).steps
    product, clamp = (step.act for step in steps[1:])
    assert isinstance(product, Product)
    assert product.kernel[2, 1, 0, 2] == kernel[0, 2, 1, 2]
    assert product.bias.tolist() == [0.0] * 4
    assert (product.pads, product.groups, product.strides) == ((0, 0, 1, 1), 1, (2, 2))
    assert clamp == Clamp(None)
    assert steps[-1].size == (4, 4, 4)


@pytest.mark.parametrize("role", ["kernel", "depthwise_kernel"])
def test_a_depthwise_kernel_has_one_output_channel_per_input_and_multiplier(role: str) -> None:
    kernel = RNG.normal(size=(3, 3, 3, 2)).astype(np.float32)
    config = {"strides": [1, 1], "padding": "valid", "use_bias": True}
    (product,) = acts_of("DepthwiseConv2D", config, **{role: kernel, "bias": np.arange(6, dtype=np.float32)})
    assert isinstance(product, Product)
    assert product.kernel.shape == (6, 1, 3, 3)
    assert product.kernel[2 * 2 + 1, 0, 0, 2] == kernel[0, 2, 2, 1]
    assert product.groups == 3


def test_a_normalisation_is_a_factor_and_an_offset_per_channel() -> None:
    gamma, beta, mean, variance = RNG.uniform(0.5, 2, (4, 3)).astype(np.float32)
    (affine,) = acts_of(
        "BatchNormalization",
        {"axis": [3], "epsilon": 0.001, "scale": True, "center": True},
        gamma=gamma,
        beta=beta,
        moving_mean=mean,
        moving_variance=variance,
    )
    assert isinstance(affine, ChannelAffine)
    x = 1.7
    normalised = gamma * (x - mean.astype(np.float64)) / np.sqrt(variance + 0.001) + beta
    np.testing.assert_allclose(affine.factor * x + affine.offset, normalised, rtol=1e-6)
    weights = {"gamma": gamma, "beta": beta, "moving_mean": mean, "moving_variance": variance}
    (other,) = acts_of("BatchNormalization", {"axis": 1, "epsilon": 0.001}, **weights)
    assert other == Other("BatchNormalization over axis 1")


def test_behind_what_is_not_known_sizes_and_padding_are_not_known_either() -> None:
    steps = steps_of(("Reshape", {}, {}), ("MaxPooling2D", {"pool_size": 2, "padding": "same"}, {})).steps
    assert [step.size for step in steps] == [(9, 9, 3), None, None]
    assert steps[-1].act == Pool("MaxPool", (2, 2), (2, 2), None)


def test_a_configuration_that_keras_could_not_have_written_is_told_by_layer() -> None:
    with pytest.raises(ModelError, match=r"'m\.h5': layer 'MaxPooling2D' \(MaxPooling2D\) cannot be read: KeyError"):
        acts_of("MaxPooling2D", {"padding": "same"})


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"strides": [0, 0]}, "ZeroDivisionError"),
        ({"strides": [float("inf"), 1]}, "OverflowError"),
        ({"activation": {"class_name": "ReLU", "config": [1]}}, "AttributeError"),
        ({"use_bias": True}, "ValueError: bias of 3 numbers for 4 channels"),
    ],
)
def test_numbers_that_mean_nothing_are_told_by_layer(changed: dict[str, Any], told: str) -> None:
    config = {"strides": [1, 1], "padding": "same", "use_bias": False, **changed}
    weights = {"kernel": np.ones((3, 3, 3, 4), np.float32), "bias": np.ones(3, np.float32)}
    with pytest.raises(ModelError, match=rf"layer 'Conv2D' \(Conv2D\) cannot be read: {told}"):
        acts_of("Conv2D", config, **weights)
