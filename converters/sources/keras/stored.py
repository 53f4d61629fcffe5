"""A Keras file as data: layers with configuration, weights and connections; nothing that it names is loaded.

Arrays by layer and role: H5 keeps them under ``model_weights/<layer>/.../<role>:0``. A ``.keras`` archive numbers them
instead: ``layers/conv2d_1/vars/0`` is the first array of the second Conv2D, in the order of the configuration
(``keras.src.saving.saving_lib``).

Connections: Keras 2 and Keras 3 write them in different forms; both become layer names. The container is checked
(``containers``) and the configuration scanned (``scan``) before.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from converters.errors import SourceFileError, UnsupportedModelError
from converters.sources.keras.containers import CONFIG, METADATA, WEIGHTS, open_hdf5, read_members, text_attribute
from converters.sources.keras.scan import MODELS, KerasLayer, parts_of, require_harmless

if TYPE_CHECKING:
    from numpy.typing import NDArray

Arrays = dict[str, "NDArray[Any]"]
Entry = tuple[str, str, Mapping[str, Any]]  # name, class and configuration of a layer
Container = Literal["h5", "keras"]
MAX_RANK = 4
MAX_GROUPS = 100  # below one layer: a group may contain itself
ZIP_SIGNATURE = b"PK"


@dataclass(frozen=True, eq=False)
class KerasFile:
    """A whole file that passed every check."""

    file: str  # the file's name, for messages
    data: bytes  # its bytes
    container: Container  # ``"h5"`` or ``"keras"`` (zip)
    version: str  # the Keras that wrote it, such as ``"2.8.0"``
    layers: tuple[KerasLayer, ...]  # its layers in stored order
    input_shape: tuple[int | None, ...]  # sizes of the first input layer, None where free
    config: Mapping[str, object]  # the whole configuration, as stored

    @property
    def is_legacy(self) -> bool:
        """Whether Keras 2 wrote it, which tf_keras reads and Keras 3 often refuses."""
        return not self.version.startswith("3")


@dataclass(frozen=True, eq=False, slots=True)
class StoredLayer:
    """One layer of a stored network."""

    name: str  # its name
    kind: str  # Keras' class, such as ``"Conv2D"``
    config: Mapping[str, Any]  # its configuration, as stored
    inputs: tuple[str, ...]  # names of the layers that it reads
    # role (``"kernel"``, ``"gamma"``, ...) -> array, as Keras lays it out; ``(h, w, in, out)`` for a convolution's
    weights: Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False, slots=True)
class KerasNetwork:
    """A whole network."""

    file: str  # the file's name, for messages
    layers: tuple[StoredLayer, ...]  # in stored order, each behind what it reads
    output: str  # the layer whose result is the head
    input_shape: tuple[int | None, ...]  # sizes of the picture, batch first, None where free


def read_keras(data: bytes, file: str) -> KerasFile:
    """Check a Keras file and read what it holds.

    Raises:
        MissingExtraError: h5py is not installed.
        SourceFileError: damaged, weights only, or not what Keras writes.
        UnsupportedModelError: it would run code when loaded, or has layers outside the list.
    """
    container: Container = "keras" if data.startswith(ZIP_SIGNATURE) else "h5"
    text, version = _read_h5(data, file) if container == "h5" else _read_zip(data, file)
    config = _json_object(text, f"{file}: model configuration")
    layers = require_harmless(config, file)
    return KerasFile(file, data, container, version, layers, _input_shape(config, file), config)


def _read_h5(data: bytes, file: str) -> tuple[str, str]:
    """Configuration text and Keras version of an H5 file; version 2 where it says none, as old files do."""
    with open_hdf5(data, file) as opened:
        text = text_attribute(opened, "model_config", file)
        version = text_attribute(opened, "keras_version", file)
        if version is None and "model_weights" in opened:
            version = opened["model_weights"].attrs.get("keras_version")
    if text is None:
        raise SourceFileError(
            f"{file}: holds weights only (no 'model_config' attribute), expected a whole model; build the network, "
            "load these weights, and write it with model.save('model.h5')"
        )
    return text, version if isinstance(version, str) else "2"


def _read_zip(data: bytes, file: str) -> tuple[str, str]:
    members = read_members(data, file)
    with open_hdf5(members[WEIGHTS], f"{file}: {WEIGHTS}"):
        pass  # every object in it is checked while it opens
    version = _json_object(_utf8(members[METADATA], file), f"{file}: {METADATA}").get("keras_version")
    if not isinstance(version, str):
        raise SourceFileError(f"{file}: {METADATA}: expected a keras_version, found {version!r}")
    return _utf8(members[CONFIG], file), version


def _utf8(content: bytes, file: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceFileError(f"{file}: a JSON member is not UTF-8 text (byte {error.start})") from error


def _json_object(text: str, where: str) -> Mapping[str, object]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceFileError(f"{where}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise SourceFileError(f"{where}: expected a JSON object, found {type(data).__name__}")
    return data


def _input_shape(config: Mapping[str, object], file: str) -> tuple[int | None, ...]:
    """The shape of the first layer that states one; Keras 2 and 3 spell the key differently."""
    for key in ("batch_input_shape", "batch_shape"):
        for shape in _values_of(config, key):
            if isinstance(shape, list) and all(n is None or isinstance(n, int) for n in shape):
                return tuple(shape)
    raise SourceFileError(
        f"{file}: no layer states the shape of the input; build the model on images of one size, and save it again"
    )


def _values_of(value: object, key: str) -> Iterator[object]:
    """All values under ``key``, in stored order."""
    if isinstance(value, Mapping) and key in value:
        yield value[key]
    for part in parts_of(value):
        yield from _values_of(part, key)


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
    weights = _read_weights(source, entries)
    sequential = source.config.get("class_name") == "Sequential"
    layers: list[StoredLayer] = []
    for layer, (name, kind, config) in zip(stored, entries, strict=True):
        inputs = [one.name for one in layers[-1:]] if sequential else _inputs(layer, name, source.file)
        _require_before(inputs, layers, name, source.file)
        layers.append(StoredLayer(name, kind, config, tuple(inputs), weights[name]))
    ends = inner.get("output_layers") if isinstance(inner, Mapping) else None  # ["name", 0, 0] or [["name", 0, 0]]
    outputs = [layers[-1].name] if sequential else list(_histories(ends))
    if len(outputs) != 1:
        raise UnsupportedModelError(f"{source.file}: {len(outputs)} outputs, expected one")
    _require_before(outputs, layers, "the output", source.file)
    return KerasNetwork(source.file, tuple(layers), outputs[0], source.input_shape)


def _entry(layer: Mapping[str, Any], file: str) -> Entry:
    config, kind = layer.get("config"), str(layer["class_name"])
    if not isinstance(config, Mapping):
        raise UnsupportedModelError(f"{file}: a layer of class {kind} has no configuration; save the model again")
    name = str(layer.get("name") or config.get("name"))
    if kind in MODELS:
        raise UnsupportedModelError(f"{file}: {name!r} is a model inside the model, which is not taken apart")
    return name, kind, config


def _inputs(layer: Mapping[str, Any], name: str, file: str) -> list[str]:
    nodes = layer.get("inbound_nodes") or []
    if not isinstance(nodes, list):
        raise SourceFileError(f"{file}: layer {name!r}: expected a list of inbound_nodes, found {nodes!r:.60}")
    if len(nodes) > 1:
        raise UnsupportedModelError(f"{file}: layer {name!r} is used {len(nodes)} times, expected once")
    return list(_histories(nodes))


def _histories(value: object) -> Iterator[str]:
    """Layer names in ``[name, node, tensor, ...]`` (Keras 2) or under ``keras_history`` (Keras 3), in stored order."""
    if isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str):
        yield value[0]
        return
    history = value.get("keras_history") if isinstance(value, Mapping) else None
    if isinstance(history, list) and history:
        yield str(history[0])
        return
    for part in parts_of(value):
        yield from _histories(part)


def _require_before(names: Sequence[str], layers: Sequence[StoredLayer], reader: str, file: str) -> None:
    computed = {layer.name for layer in layers}
    missing = [repr(name) for name in names if name not in computed]
    if missing:
        raise UnsupportedModelError(f"{file}: {reader!r} reads {', '.join(missing)}, which no layer before it computes")


def _read_weights(source: KerasFile, layers: Sequence[Entry]) -> dict[str, Arrays]:
    """Layer -> role -> array, of every array of a checked file."""
    if source.container == "h5":
        with open_hdf5(source.data, source.file) as file:
            groups = _group(file, "model_weights", source.file)
            return {name: _by_name(_group(groups, name, source.file), name, source.file) for name, _, _ in layers}
    members = read_members(source.data, source.file)
    with open_hdf5(members[WEIGHTS], f"{source.file}: {WEIGHTS}") as file:
        return _by_number(_group(file, "layers", source.file), layers, source.file)


def _group(parent: Any, name: str, file: str) -> Any:
    """A group below another; an empty one where there is none."""
    group = parent.get(name, {})
    if not hasattr(group, "items"):
        raise SourceFileError(f"{file}: {name!r} is an array, expected a group of arrays; save the model again")
    return group


def _by_name(group: Any, layer: str, file: str) -> Arrays:
    """The datasets of one layer, by the last part of their names."""
    arrays: Arrays = {}
    waiting, groups = [group], 0
    while waiting:
        groups += 1
        if groups > MAX_GROUPS:
            raise SourceFileError(f"{file}: layer {layer!r} holds more than {MAX_GROUPS} groups; save the model again")
        for name, member in waiting.pop().items():
            if hasattr(member, "items"):
                waiting.append(member)
                continue
            role = name.removesuffix(":0")
            if role in arrays:
                raise SourceFileError(f"{file}: layer {layer!r} holds two arrays {role!r}; save the model again")
            arrays[role] = _array(member, f"{role!r} of layer {layer!r}", file)
    return arrays


def _by_number(groups: Any, layers: Sequence[Entry], file: str) -> dict[str, Arrays]:
    """The numbered arrays, named by what a layer of that class and configuration stores, in that order."""
    count: Counter[str] = Counter()
    arrays: dict[str, Arrays] = {}
    for layer, kind, config in layers:
        title = snake_case(kind)
        group = _group(groups, f"{title}_{count[title]}" if count[title] else title, file)
        count[title] += 1
        stored = _group(group, "vars", file)
        owner = stored.attrs.get("name", layer) if hasattr(stored, "attrs") else layer
        roles = stored_roles(kind, config)
        if owner != layer or (roles and len(stored) != len(roles)):
            raise SourceFileError(
                f"{file}: layer {layer!r} ({kind}): expected its {len(roles)} arrays, found {len(stored)} of {owner!r};"
                " save the model again"
            )
        arrays[layer] = {
            role: _array(stored[str(number)], f"{role!r} of layer {layer!r}", file) for number, role in enumerate(roles)
        }
    return arrays


def stored_roles(kind: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a layer's numbered arrays are, in order; empty for a layer without weights.

    Example:
        >>> stored_roles("Conv2D", {"use_bias": False})
        ('kernel',)
    """
    bias = ("bias",) if config.get("use_bias", True) else ()
    if kind == "BatchNormalization":
        scale = ("gamma",) if config.get("scale", True) else ()
        center = ("beta",) if config.get("center", True) else ()
        return (*scale, *center, "moving_mean", "moving_variance")
    if kind == "SeparableConv2D":
        return ("depthwise_kernel", "pointwise_kernel", *bias)
    return ("kernel", *bias) if kind in ("Conv2D", "DepthwiseConv2D", "Conv2DTranspose", "Dense") else ()


def snake_case(name: str) -> str:
    """A class name as Keras writes it into archives.

    Example:
        >>> snake_case("DepthwiseConv2D"), snake_case("BatchNormalization")
        ('depthwise_conv2d', 'batch_normalization')
    """
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()


def _array(dataset: Any, what: str, file: str) -> NDArray[Any]:
    if not hasattr(dataset, "shape") or len(dataset.shape) > MAX_RANK:
        raise SourceFileError(f"{file}: {what}: expected an array of at most {MAX_RANK} axes; save the model again")
    array = np.asarray(dataset[()])
    if not np.isfinite(array).all():
        raise SourceFileError(f"{file}: {what}: holds numbers that are not finite; train or save it again")
    return array
