"""A Keras source as layers: one step per product, affine map, activation, pool and padding.

A layer is one step or two (a convolution with its activation), or none (Dropout). Kernels are OIHW and float64; sizes
are inferred from the picture's, because SAME padding depends on them. What has no step of its own becomes ``Other`` and
is told, never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xdet.checking.numbers.layers import NO_PADS, Affine, Clamp, Leaky, Other, Padding, Pool, Product, same_pads
from xdet.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from converters.sources.keras.stored import KerasNetwork, StoredLayer
    from xdet.checking.numbers.layers import Act, Pads, Size


@dataclass(frozen=True, eq=False, slots=True)
class Step:
    """One step of a layer; ``act`` is None for the picture, ``size`` None where it is not known."""

    layer: str
    act: Act | None
    inputs: tuple[int, ...]
    size: Size | None


@dataclass(frozen=True, eq=False, slots=True)
class KerasSteps:
    """A whole network: steps behind what they read, the index of each layer's last one, the layer that is the head."""

    steps: tuple[Step, ...]
    last: Mapping[str, int]
    output: str


def network_steps(network: KerasNetwork) -> KerasSteps:
    """Take a network apart.

    Raises:
        ModelError: a configuration or array that Keras itself could not have written.
    """
    steps: list[Step] = []
    last: dict[str, int] = {}
    for layer in network.layers:
        inputs = tuple(last[name] for name in layer.inputs)
        try:
            sizes = [steps[i].size for i in inputs] or [_picture(network.input_shape)]
            acts = list(_acts(layer, sizes[0])) if inputs or layer.kind != "InputLayer" else [None]
            if not inputs and layer.kind != "InputLayer":  # an old Sequential: the first layer reads the picture
                steps.append(Step("", None, (), sizes[0]))
                inputs = (len(steps) - 1,)
            for act in acts:
                size = sizes[0] if act is None else _size_behind(act, layer, sizes)
                steps.append(Step(layer.name, act, inputs, size))
                inputs, sizes = (len(steps) - 1,), [size]
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise ModelError(
                f"'{network.file}': layer {layer.name!r} ({layer.kind}) cannot be read: {type(error).__name__}: "
                f"{error}; save the model again"
            ) from error
        last[layer.name] = inputs[0]
    return KerasSteps(tuple(steps), last, network.output)


def _picture(shape: tuple[int | None, ...]) -> Size | None:
    sizes = tuple(n for n in shape[1:] if n is not None)
    return (sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 else None


def _acts(layer: StoredLayer, size: Size | None) -> Iterator[Act]:
    kind, config = layer.kind, layer.config
    if config.get("data_format", "channels_last") != "channels_last":
        yield Other(f"{kind} with channels first")
    elif kind in ("Conv2D", "DepthwiseConv2D"):
        yield _product(layer, size)
        yield from _activation(config.get("activation"))
    elif kind == "BatchNormalization":
        yield _normalisation(layer)
    elif kind in ("LeakyReLU", "ReLU"):
        yield _rectifier(kind, config)
    elif kind == "Activation":
        yield from _activation(config.get("activation"))
    elif kind in ("MaxPooling2D", "AveragePooling2D"):
        window = _pair(config["pool_size"])
        strides = window if config.get("strides") is None else _pair(config["strides"])
        pads = _pads(config["padding"], size, window, strides, (1, 1))
        yield Pool("MaxPool" if kind == "MaxPooling2D" else "AveragePool", window, strides, pads)
    elif kind == "ZeroPadding2D":
        (top, bottom), (left, right) = config["padding"]
        yield Padding((int(top), int(left), int(bottom), int(right)))
    elif kind not in ("Dropout", "SpatialDropout2D", "InputLayer"):
        yield Other(kind)


def _product(layer: StoredLayer, size: Size | None) -> Product:
    config, weights = layer.config, layer.weights
    depthwise = layer.kind == "DepthwiseConv2D"
    stored = weights["kernel" if "kernel" in weights else "depthwise_kernel"].astype(np.float64)
    height, width, *channels = stored.shape
    groups = channels[0] if depthwise else int(config.get("groups") or 1)
    kernel = stored.transpose(3, 2, 0, 1)
    if depthwise:  # (h, w, in, multiplier): Keras' output channel is in * multiplier + m
        kernel = stored.transpose(2, 3, 0, 1).reshape(-1, 1, height, width)
    bias = weights["bias"].astype(np.float64) if config.get("use_bias", True) else np.zeros(len(kernel))
    strides, dilations = _pair(config["strides"]), _pair(config.get("dilation_rate", 1))
    if bias.shape != (len(kernel),):
        raise ValueError(f"bias of {len(bias)} numbers for {len(kernel)} channels")
    return Product(
        kernel,
        bias,
        strides,
        dilations,
        groups,
        _pads(config["padding"], size, (height, width), strides, dilations),
        None if size is None else size[:2],
        np.abs(bias),
        layers=(layer.name,),
    )


def _normalisation(layer: StoredLayer) -> Affine | Other:
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta``, in float64."""
    weights, config = layer.weights, layer.config
    mean, variance = (weights[name].astype(np.float64) for name in ("moving_mean", "moving_variance"))
    axis = config.get("axis", -1)
    if (axis[0] if isinstance(axis, list) and len(axis) == 1 else axis) not in (-1, 3):
        return Other(f"{layer.kind} over axis {axis}")
    factor = 1 / np.sqrt(variance + float(config["epsilon"]))
    if config.get("scale", True):
        factor = factor * weights["gamma"]
    beta = weights["beta"].astype(np.float64) if config.get("center", True) else np.zeros(len(mean))
    return Affine(factor, beta - mean * factor, np.abs(beta) + np.abs(mean * factor))


def _activation(value: Any) -> Iterator[Act]:
    """``"relu"``, ``"leaky_relu"`` (Keras' slope: 0.2), or a layer that is written as a part."""
    if isinstance(value, dict):
        yield _rectifier(str(value["class_name"]), value["config"])
    elif value == "leaky_relu":
        yield Leaky(0.2)
    elif value in ("relu", "relu6"):
        yield Clamp(6.0 if value == "relu6" else None)
    elif value not in (None, "linear"):
        yield Other(str(value))


def _rectifier(kind: str, config: Mapping[str, Any]) -> Leaky | Clamp | Other:
    if kind == "LeakyReLU":
        return Leaky(float(config.get("negative_slope", config.get("alpha", 0.3))))
    slope, highest = float(config.get("negative_slope") or 0.0), config.get("max_value")
    if kind != "ReLU" or float(config.get("threshold") or 0.0) or (slope and highest is not None):
        return Other(kind)
    return Leaky(slope) if slope else Clamp(None if highest is None else float(highest))


def _pair(value: Any) -> tuple[int, int]:
    down, right = (value, value) if isinstance(value, int) else value
    return int(down), int(right)


def _pads(
    rule: str, size: Size | None, window: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int]
) -> Pads | None:
    if rule != "same":
        return NO_PADS
    return None if size is None else same_pads(size, window, strides, dilations)


def _size_behind(act: Act, layer: StoredLayer, sizes: Sequence[Size | None]) -> Size | None:
    """The size of a step's result; None where it is not known."""
    size = sizes[0]
    if isinstance(act, Other):
        return _size_of_other(act.kind, layer, sizes)
    if size is None or isinstance(act, Affine | Leaky | Clamp):
        return size
    if isinstance(act, Padding):
        top, left, bottom, right = act.pads
        return (size[0] + top + bottom, size[1] + left + right, size[2])
    if act.pads is None:
        return None
    window = act.kernel.shape[2:] if isinstance(act, Product) else act.window
    dilations = act.dilations if isinstance(act, Product) else (1, 1)
    high, wide = (
        (size[i] + act.pads[i] + act.pads[i + 2] - (window[i] - 1) * dilations[i] - 1) // act.strides[i] + 1
        for i in (0, 1)
    )
    return (high, wide, len(act.kernel) if isinstance(act, Product) else size[2])


def _size_of_other(kind: str, layer: StoredLayer, sizes: Sequence[Size | None]) -> Size | None:
    known = [size for size in sizes if size is not None]
    if len(known) != len(sizes):
        return None
    if kind == "Concatenate" and layer.config.get("axis", -1) in (-1, 3):
        return (known[0][0], known[0][1], sum(size[2] for size in known))
    if kind == "UpSampling2D":
        down, right = _pair(layer.config["size"])
        return (known[0][0] * down, known[0][1] * right, known[0][2])
    same = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"}
    return known[0] if kind in same or kind == layer.config.get("activation") else None
