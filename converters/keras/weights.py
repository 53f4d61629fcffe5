"""The arrays of a Keras file by layer and role, read as data: no library that builds the network is loaded.

H5 keeps them under ``model_weights/<layer>/.../<role>:0``. A ``.keras`` archive numbers them instead:
``layers/conv2d_1/vars/0`` is the first array of the second Conv2D, in the order of the configuration
(``keras.src.saving.saving_lib``).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import SourceFileError
from converters.keras.hdf5 import open_hdf5
from converters.keras.zip_archive import WEIGHTS, read_members

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from converters.keras.reader import KerasFile

Arrays = dict[str, "NDArray[Any]"]
MAX_RANK = 4
MAX_GROUPS = 100  # below one layer: a group may contain itself


def read_weights(
    source: KerasFile, layers: Sequence[tuple[str, str, Mapping[str, Any]]]
) -> dict[str, Arrays]:
    """Read every array of a checked file.

    Args:
        source: the file.
        layers: name, class and configuration of every layer, in stored order.

    Returns:
        Layer -> role (``"kernel"``, ``"gamma"``, ...) -> array, as Keras lays it out; ``(h, w, in, out)`` for a convolution's.

    Raises:
        MissingExtraError: h5py is not installed.
        SourceFileError: damaged, or arrays that are no weights.
    """
    if source.container == "h5":
        with open_hdf5(source.data, source.file) as file:
            groups = _group(file, "model_weights", source.file)
            return {
                name: _by_name(_group(groups, name, source.file), name, source.file) for name, _, _ in layers
            }
    members = read_members(source.data, source.file)
    with open_hdf5(members[WEIGHTS], f"{source.file}: {WEIGHTS}") as file:
        return _by_number(_group(file, "layers", source.file), layers, source.file)


def _group(parent: Any, name: str, file: str) -> Any:
    """A group below another; an empty one where there is none."""
    found = parent.get(name, {})
    if not hasattr(found, "items"):
        raise SourceFileError(
            f"{file}: {name!r} is an array, expected a group of arrays; save the model again"
        )
    return found


def _by_name(group: Any, layer: str, file: str) -> Arrays:
    """The datasets of one layer, by the last part of their names."""
    found: Arrays = {}
    waiting, groups = [group], 0
    while waiting:
        groups += 1
        if groups > MAX_GROUPS:
            raise SourceFileError(
                f"{file}: layer {layer!r} holds more than {MAX_GROUPS} groups; save the model again"
            )
        for name, member in waiting.pop().items():
            if hasattr(member, "items"):
                waiting.append(member)
                continue
            role = name.removesuffix(":0")
            if role in found:
                raise SourceFileError(
                    f"{file}: layer {layer!r} holds two arrays {role!r}; save the model again"
                )
            found[role] = _array(member, f"{role!r} of layer {layer!r}", file)
    return found


def _by_number(
    groups: Any, layers: Sequence[tuple[str, str, Mapping[str, Any]]], file: str
) -> dict[str, Arrays]:
    """The numbered arrays, named by what a layer of that class and configuration stores, in that order."""
    seen: Counter[str] = Counter()
    found: dict[str, Arrays] = {}
    for layer, kind, config in layers:
        title = snake_case(kind)
        group = _group(groups, title if not seen[title] else f"{title}_{seen[title]}", file)
        seen[title] += 1
        stored = _group(group, "vars", file)
        told = stored.attrs.get("name", layer) if hasattr(stored, "attrs") else layer
        roles = stored_roles(kind, config)
        if told != layer or (roles and len(stored) != len(roles)):
            raise SourceFileError(
                f"{file}: layer {layer!r} ({kind}): expected its {len(roles)} arrays, found {len(stored)} of {told!r}; "
                f"save the model again"
            )
        found[layer] = {
            role: _array(stored[str(number)], f"{role!r} of layer {layer!r}", file)
            for number, role in enumerate(roles)
        }
    return found


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
        raise SourceFileError(
            f"{file}: {what}: expected an array of at most {MAX_RANK} axes; save the model again"
        )
    array = np.asarray(dataset[()])
    if not np.isfinite(array).all():
        raise SourceFileError(f"{file}: {what}: holds numbers that are not finite; train or save it again")
    return array
