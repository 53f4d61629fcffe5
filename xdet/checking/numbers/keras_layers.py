"""A Keras source as layers: one step per product, affine map, activation, pool and padding.

A layer is one step or two (a convolution with its activation), or none (Dropout). Kernels are OIHW and float64; sizes
are inferred from the picture's, because SAME padding depends on them. What has no step of its own becomes ``Other`` and
is told, never guessed.

A source and its finished graph are cut at the same places: between layers that both still have as values. The
document's tensor map says which value carries a layer's result. What lies between two such values (a convolution, the
batch normalisation that went into it, an activation that changed places with a pool) is one segment, and must do the
same on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.spec import HEAD
from xdet.checking.numbers.comparison import (
    NO_PADS,
    ChannelAffine,
    Clamp,
    Leaky,
    Other,
    Padding,
    Pool,
    Product,
    StaticComparison,
    same_pads,
)
from xdet.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from converters.sources.keras.stored import KerasNetwork, StoredLayer
    from xdet.checking.numbers.comparison import Act, Pads, Size
    from xdet.model.graph import Node

PICTURE = "the picture"


@dataclass(frozen=True, eq=False, slots=True)
class KerasStep:
    """One step of a layer; ``act`` is None for the picture, ``size`` None where it is not known."""

    layer: str
    act: Act | None
    inputs: tuple[int, ...]
    size: Size | None


@dataclass(frozen=True, eq=False, slots=True)
class KerasSteps:
    """A whole network: steps behind what they read, the index of each layer's last one, the layer that is the head."""

    steps: tuple[KerasStep, ...]
    last: Mapping[str, int]
    output: str


def network_steps(network: KerasNetwork) -> KerasSteps:
    """Take a network apart.

    Raises:
        ModelError: a configuration or array that Keras itself could not have written.
    """
    steps: list[KerasStep] = []
    last: dict[str, int] = {}
    for layer in network.layers:
        inputs = tuple(last[name] for name in layer.inputs)
        try:
            sizes = [steps[i].size for i in inputs] or [_picture(network.input_shape)]
            acts = list(_acts(layer, sizes[0])) if inputs or layer.kind != "InputLayer" else [None]
            if not inputs and layer.kind != "InputLayer":  # an old Sequential: the first layer reads the picture
                steps.append(KerasStep("", None, (), sizes[0]))
                inputs = (len(steps) - 1,)
            for act in acts:
                size = sizes[0] if act is None else _size_behind(act, layer, sizes)
                steps.append(KerasStep(layer.name, act, inputs, size))
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


def _normalisation(layer: StoredLayer) -> ChannelAffine | Other:
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
    return ChannelAffine(factor, beta - mean * factor, np.abs(beta) + np.abs(mean * factor))


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
    if size is None or isinstance(act, ChannelAffine | Leaky | Clamp):
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
    complete = [size for size in sizes if size is not None]
    if len(complete) != len(sizes):
        return None
    if kind == "Concatenate" and layer.config.get("axis", -1) in (-1, 3):
        return (complete[0][0], complete[0][1], sum(size[2] for size in complete))
    if kind == "UpSampling2D":
        down, right = _pair(layer.config["size"])
        return (complete[0][0] * down, complete[0][1] * right, complete[0][2])
    same = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"}
    return complete[0] if kind in same or kind == layer.config.get("activation") else None


@dataclass(frozen=True, eq=False, slots=True)
class Segment:
    """What computes one value from the values before it, on both sides, and the layers in front of it by each.

    Values that carry no layer stand in ``graph_reads`` by their own names.
    """

    layer: str
    steps: tuple[tuple[int, KerasStep], ...]
    nodes: tuple[Node, ...]
    source_reads: frozenset[str]
    graph_reads: frozenset[str]


@dataclass(eq=False)
class KerasComparison(StaticComparison):
    """A comparison with a Keras source."""

    source: KerasSteps  # the source, step by step

    @cached_property
    def values(self) -> Mapping[str, str]:
        """Layer -> the value that carries its result, where the graph still computes it."""
        return {
            layer: twin.onnx
            for layer, twin in self.document.tensors.items()
            if twin.onnx is not None
            and layer in self.source.last
            and twin.onnx in self.graph.producers
            and twin.onnx != HEAD
        }

    @cached_property
    def layers(self) -> Mapping[str, str]:
        """Value -> the layer whose result it carries."""
        return {value: layer for layer, value in self.values.items()} | {self.picture: PICTURE}

    @cached_property
    def readers(self) -> Mapping[int, int]:
        """Step -> how many steps read it."""
        counts = dict.fromkeys(range(len(self.source.steps)), 0)
        for step in self.source.steps:
            for index in step.inputs:
                counts[index] += 1
        return counts

    def segments(self) -> Iterator[Segment]:
        """All segments, in the source's order; the last one ends at the raw head."""
        ends = {self.source.last[layer]: layer for layer in self.values}
        cuts = [(layer, index, self.values[layer]) for layer, index in self.source.last.items() if layer in self.values]
        for layer, start, value in (*cuts, (self.source.output, None, HEAD)):
            steps, source_reads = self._steps_before(start, ends)
            nodes, graph_reads = self._nodes_before(value)
            yield Segment(layer, steps, nodes, source_reads, graph_reads)

    def _steps_before(
        self, start: int | None, ends: Mapping[int, str]
    ) -> tuple[tuple[tuple[int, KerasStep], ...], frozenset[str]]:
        """The source's steps back to the next results; for the head (None) only what lies behind the last one."""
        steps: dict[int, KerasStep] = {}
        reads: set[str] = set()
        waiting = [self.source.last[self.source.output] if start is None else start]
        while waiting:
            index = waiting.pop()
            step = self.source.steps[index]
            if step.act is None:
                reads.add(PICTURE)
            elif index in ends and index != start:
                reads.add(ends[index])
            elif index not in steps:
                steps[index] = step
                waiting += step.inputs
        return tuple(sorted(steps.items())), frozenset(reads)

    def _nodes_before(self, value: str) -> tuple[tuple[Node, ...], frozenset[str]]:
        """The graph's nodes back to the next results."""
        results: set[str] = set()
        reads: set[str] = set()
        waiting = [value]
        while waiting:
            name = waiting.pop()
            node = self.graph.producers.get(name)
            if name != value and name in self.layers:
                reads.add(self.layers[name])
            elif node is None:
                if name and self.graph.constant(name) is None:
                    reads.add(name)
            elif node.outputs[0] not in results:
                results.add(node.outputs[0])
                waiting += node.inputs
        nodes = tuple(node for node in self.graph.nodes if node.outputs and node.outputs[0] in results)
        return nodes, frozenset(reads)
