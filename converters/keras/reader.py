"""A Keras file as data: container checked, configuration scanned, nothing loaded. Needs h5py, but no TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from converters.errors import SourceFileError
from converters.keras.hdf5 import open_hdf5, text_attribute
from converters.keras.scan import KerasLayer, require_harmless
from converters.keras.zip_archive import CONFIG, METADATA, WEIGHTS, read_members

Container = Literal["h5", "keras"]


@dataclass(frozen=True, eq=False)
class KerasFile:
    """A whole file that passed every check.

    Attributes:
        file: the file's name, for messages.
        data: its bytes.
        container: ``"h5"`` or ``"keras"`` (zip).
        version: the Keras that wrote it, such as ``"2.8.0"``.
        layers: its layers in stored order.
        input_shape: sizes of the first input layer, None where free.
        config: the whole configuration, as stored.
    """

    file: str
    data: bytes
    container: Container
    version: str
    layers: tuple[KerasLayer, ...]
    input_shape: tuple[int | None, ...]
    config: Mapping[str, object]

    @property
    def is_legacy(self) -> bool:
        """Whether Keras 2 wrote it, which tf_keras reads and Keras 3 often refuses."""
        return not self.version.startswith("3")


def read_keras(data: bytes, file: str, container: Container) -> KerasFile:
    """Check a Keras file and read what it holds.

    Args:
        data: the file's bytes.
        file: its name, for messages.
        container: which of the two formats the bytes are.

    Raises:
        MissingExtraError: h5py is not installed.
        SourceFileError: damaged, weights only, or not what Keras writes.
        UnsupportedModelError: it would run code when loaded, or has layers outside the list.
    """
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
        msg = (
            f"{file}: holds weights only (no 'model_config' attribute), expected a whole model; build the network, "
            "load these weights, and write it with model.save('model.h5')"
        )
        raise SourceFileError(msg)
    return text, version if isinstance(version, str) else "2"


def _read_zip(data: bytes, file: str) -> tuple[str, str]:
    members = read_members(data, file)
    with open_hdf5(members[WEIGHTS], f"{file}: {WEIGHTS}"):
        pass  # every object in it is checked while it opens
    metadata = _json_object(_utf8(members[METADATA], file), f"{file}: {METADATA}")
    version = metadata.get("keras_version")
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
    msg = f"{file}: no layer states the shape of the input; build the model on images of one size, and save it again"
    raise SourceFileError(msg)


def _values_of(value: object, key: str) -> list[object]:
    """All values under ``key``, in stored order."""
    if isinstance(value, Mapping):
        own = [value[key]] if key in value else []
        return own + [found for part in value.values() for found in _values_of(part, key)]
    if isinstance(value, list):
        return [found for part in value for found in _values_of(part, key)]
    return []
