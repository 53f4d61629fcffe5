"""The scan of a stored configuration: every name in it must be one of Keras' own.

The configuration is looked at as JSON, before anything is loaded. Everything that does not pass is listed in one
message, with the layer's name. Training settings are left out: they are never loaded.

What a stored Keras model may be made of: literal lists of layers, activations and parts, all of them Keras' own.

Loading a model builds every object that its configuration names; Lambda layers and registered objects then run code
from the file or from whatever module it names (tf_keras even in safe mode). So names that are not here are never built.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from converters.errors import UnsupportedModelError

MODELS = frozenset({"Functional", "Model", "Sequential"})
LAYERS = frozenset({
    *("InputLayer", "Rescaling"),
    *("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense", "BatchNormalization"),
    *("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax"),
    *("MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D"),
    *("ZeroPadding2D", "Cropping2D", "UpSampling2D", "Reshape", "Permute", "Flatten"),
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"),
    *("Dropout", "SpatialDropout2D"),
})  # fmt: skip
ACTIVATIONS = frozenset({
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "swish", "mish"),
    *("sigmoid", "hard_sigmoid", "tanh", "softmax", "softplus", "softsign", "exponential"),
})  # fmt: skip
ACTIVATION_LAYERS = frozenset({"ReLU", "LeakyReLU", "ELU", "Softmax"})
PARTS = frozenset({
    *("Zeros", "Ones", "Constant", "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling"),
    *("GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform", "Orthogonal"),
    *("L1", "L2", "L1L2", "MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"),
    *("DTypePolicy", "Policy", "__keras_tensor__", "__tuple__"),
})  # fmt: skip
RUNS_CODE = frozenset({"Lambda", "TFOpLambda", "SlicingOpLambda", "function", "__lambda__"})
KERAS_MODULE = re.compile(r"(tf_)?keras(\.[A-Za-z_0-9]+)*")


MAX_DEPTH = 100  # a layer in a model adds 4, its connections 6 more


@dataclass(frozen=True, slots=True)
class KerasLayer:
    """A layer of a stored model: its name, as tensors carry it, and Keras' class, such as ``"Conv2D"``."""

    name: str
    kind: str


def require_harmless(config: Mapping[str, object], where: str) -> tuple[KerasLayer, ...]:
    """Check a stored model configuration and list its layers, those of nested models included.

    Raises:
        UnsupportedModelError: anything that is not on the lists of this module, all of it in one message.
    """
    waiting: list[tuple[object, int]] = [(config, 0)]
    while waiting:  # refused before anything walks down it by calls
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise UnsupportedModelError(
                f"{where}: its configuration is nested deeper than {MAX_DEPTH} levels, which no network is; save it "
                "again"
            )
        waiting += [(part, depth + 1) for part in parts_of(value)]
    layers: list[KerasLayer] = []
    without_training = {key: value for key, value in config.items() if key != "compile_config"}
    problems = list(dict.fromkeys(_model_problems(without_training, "the model", layers)))
    if problems:
        raise UnsupportedModelError(
            f"{where}: refused before loading: {'; '.join(problems)}. Code from a model file is never run: rebuild "
            "such layers from Keras' own, save again, and convert that"
        )
    return tuple(layers)


def parts_of(value: object) -> Iterable[object]:
    """What a JSON value holds."""
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list) else ()


def _model_problems(model: Mapping[str, object], title: str, layers: list[KerasLayer]) -> Iterator[str]:
    yield from _name_problems(model, title, MODELS)
    inner = model.get("config")
    stored = inner.get("layers") if isinstance(inner, Mapping) else inner  # a list: Sequential by old Keras
    if not isinstance(stored, list):
        yield f"{title} has no list of layers"
        return
    for number, layer in enumerate(stored):
        yield from _layer_problems(layer, f"layer {number} of {title}", layers)
    rest = {k: v for k, v in inner.items() if k != "layers"} if isinstance(inner, Mapping) else {}
    yield from _part_problems([rest, {k: v for k, v in model.items() if k not in _WRAPPING}], title)


def _layer_problems(layer: object, position: str, layers: list[KerasLayer]) -> Iterator[str]:
    if not isinstance(layer, Mapping):
        yield f"{position} is no JSON object"
        return
    config = layer.get("config")
    own_name = config.get("name") if isinstance(config, Mapping) else None
    name = layer.get("name", own_name) or own_name
    title = f"layer {name!r}" if isinstance(name, str) else position
    if str(layer.get("class_name")) in MODELS:
        yield from _model_problems(layer, title, layers)
        return
    yield from _name_problems(layer, title, LAYERS)
    layers.append(KerasLayer(str(name), str(layer.get("class_name"))))
    yield from _part_problems([config, {k: v for k, v in layer.items() if k not in _WRAPPING}], title)


_WRAPPING = frozenset({"class_name", "module", "registered_name", "config"})


def _name_problems(entry: Mapping[str, object], title: str, allowed: frozenset[str]) -> Iterator[str]:
    """Class, module and registered name of one entry."""
    kind, module, registered = entry.get("class_name"), entry.get("module"), entry.get("registered_name")
    if not isinstance(kind, str) or kind not in allowed:
        runs = " (code of its own)" if str(kind) in RUNS_CODE else ""
        yield f"{title} is of class {kind!r}{runs}"
    elif module is not None and not (isinstance(module, str) and KERAS_MODULE.fullmatch(module)):
        yield f"{title} comes from module {module!r}"
    elif registered not in (None, kind):
        yield f"{title} is the custom object {registered!r}"


def _part_problems(value: object, title: str, key: str = "") -> Iterator[str]:
    """Everything below a layer: initialisers, activations, connections, and data types, which a policy may wrap."""
    if key == "activation" and isinstance(value, Mapping):
        yield from _name_problems(value, f"the activation of {title}", ACTIVATION_LAYERS)
        yield from _part_problems(value.get("config"), title)
    elif key == "activation":
        if value is not None and not (isinstance(value, str) and value in ACTIVATIONS):
            yield f"{title} has the activation {value!r}"
    elif key == "dtype":
        if isinstance(value, Mapping):
            yield from _name_problems(value, f"the dtype of {title}", PARTS)
            config = value.get("config")
            value = config.get("name") if isinstance(config, Mapping) else config
        if value not in (None, "float32"):
            yield f"{title} computes in {value!r}, expected float32"
    elif isinstance(value, Mapping):
        if "class_name" in value:
            yield from _name_problems(value, f"a part of {title}", PARTS)
        for name, part in value.items():
            yield from _part_problems(part, title, str(name))
    elif isinstance(value, list):
        for part in value:
            yield from _part_problems(part, title)
