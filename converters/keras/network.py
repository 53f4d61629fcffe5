"""A stored Keras network as data: layers with configuration, weights and connections. Nothing is loaded, no TensorFlow.

It reads what ``converters.keras.reader`` checked. Keras 2 and Keras 3 write connections in different forms; both become layer
names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.errors import UnsupportedModelError
from converters.keras.layers import MODELS
from converters.keras.weights import read_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.keras.reader import KerasFile


@dataclass(frozen=True, eq=False, slots=True)
class StoredLayer:
    """One layer of a stored network.

    Attributes:
        name: its name.
        kind: Keras' class, such as ``"Conv2D"``.
        config: its configuration, as stored.
        inputs: names of the layers that it reads; empty for an input.
        weights: role -> array, as Keras lays it out.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    inputs: tuple[str, ...]
    weights: Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False, slots=True)
class KerasNetwork:
    """A whole network.

    Attributes:
        file: the file's name, for messages.
        layers: in stored order, each behind what it reads.
        output: the layer whose result is the head.
        input_shape: sizes of the picture, batch first, None where free.
    """

    file: str
    layers: tuple[StoredLayer, ...]
    output: str
    input_shape: tuple[int | None, ...]


def read_network(source: KerasFile) -> KerasNetwork:
    """Read layers, connections and weights of a checked file.

    Raises:
        MissingExtraError: h5py is not installed.
        SourceFileError: the weights are damaged.
        UnsupportedModelError: models inside the model, layers that are used twice, or more than one output.
    """
    inner = source.config.get("config")
    stored = inner.get("layers") if isinstance(inner, Mapping) else inner
    assert isinstance(stored, list)  # noqa: S101 - the scan looked
    entries = [_entry(layer, source.file) for layer in stored]
    weights = read_weights(source, entries)
    sequential = source.config.get("class_name") == "Sequential"
    layers: list[StoredLayer] = []
    for layer, (name, kind, config) in zip(stored, entries, strict=True):
        before = (layers[-1].name,) if layers else ()
        inputs = before if sequential else _inputs(layer, name, source.file)
        _require_before(inputs, layers, name, source.file)
        layers.append(StoredLayer(name, kind, config, inputs, weights[name]))
    output = layers[-1].name if sequential else _output(inner, source.file)
    _require_before((output,), layers, "the output", source.file)
    return KerasNetwork(source.file, tuple(layers), output, source.input_shape)


def _entry(layer: Mapping[str, Any], file: str) -> tuple[str, str, Mapping[str, Any]]:
    config, kind = layer.get("config"), str(layer["class_name"])
    if not isinstance(config, Mapping):
        raise UnsupportedModelError(
            f"{file}: a layer of class {kind} has no configuration; save the model again"
        )
    name = str(layer.get("name") or config.get("name"))
    if kind in MODELS:
        raise UnsupportedModelError(f"{file}: {name!r} is a model inside the model, which is not taken apart")
    return name, kind, config


def _inputs(layer: Mapping[str, Any], name: str, file: str) -> tuple[str, ...]:
    """Names of the layers that one reads."""
    nodes = layer.get("inbound_nodes") or []
    if len(nodes) > 1:
        raise UnsupportedModelError(f"{file}: layer {name!r} is used {len(nodes)} times, expected once")
    return tuple(_histories(nodes))


def _histories(value: object) -> Iterator[str]:
    """Layer names in ``[name, node, tensor, ...]`` (Keras 2) or under ``keras_history`` (Keras 3), in stored order."""
    if isinstance(value, Mapping):
        history = value.get("keras_history")
        if isinstance(history, list) and history:
            yield str(history[0])
            return
        for part in value.values():
            yield from _histories(part)
    elif isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str):
            yield value[0]
            return
        for part in value:
            yield from _histories(part)


def _output(config: object, file: str) -> str:
    """The one output layer: ``["name", 0, 0]`` or ``[["name", 0, 0]]``."""
    outputs = config.get("output_layers") if isinstance(config, Mapping) else None
    names = list(_histories(outputs))
    if len(names) != 1:
        raise UnsupportedModelError(f"{file}: {len(names)} outputs, expected one")
    return names[0]


def _require_before(names: Sequence[str], layers: Sequence[StoredLayer], reader: str, file: str) -> None:
    known = {layer.name for layer in layers}
    strange = [name for name in names if name not in known]
    if strange:
        raise UnsupportedModelError(
            f"{file}: {reader!r} reads {', '.join(map(repr, strange))}, which no layer before it computes"
        )
