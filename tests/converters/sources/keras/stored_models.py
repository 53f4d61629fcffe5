"""Keras files made without TensorFlow as Keras writes them: configurations, H5 files, ``.keras`` archives."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

h5py = pytest.importorskip("h5py", reason='needs pip install "xdet[keras]"')


def layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
    """A layer as Keras 2 stores it."""
    return {
        "class_name": kind,
        "config": {"name": name, "dtype": "float32", **config},
        "name": name,
        "inbound_nodes": [],
    }


def functional(*layers: Mapping[str, Any], **extra: Any) -> dict[str, Any]:
    """A functional model with an image input in front of ``layers``."""
    image = layer("InputLayer", "image", batch_input_shape=[None, 8, 8, 3])
    return {"class_name": "Functional", "config": {"name": "net", "layers": [image, *layers]}, **extra}


def h5_bytes(
    config: Mapping[str, Any] | None, write: Callable[[Any], None] | None = None, version: str = "2.8.0"
) -> bytes:
    """An H5 file with this configuration (None: weights only) and whatever ``write`` adds to the open file."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["keras_version"] = version
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
        file.create_group("model_weights").create_dataset("kernel:0", data=np.ones((1, 1, 3, 6), np.float32))
        if write is not None:
            write(file)
    return buffer.getvalue()


def keras_zip(config: Mapping[str, Any], members: Mapping[str, bytes] | None = None) -> bytes:
    """A ``.keras`` archive of Keras 3; ``members`` replace or join those that Keras writes."""
    contents = {
        "metadata.json": json.dumps({"keras_version": "3.9.0"}).encode(),
        "config.json": json.dumps(config).encode(),
        "model.weights.h5": h5_bytes(None),
        **(members or {}),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # without the time
    return buffer.getvalue()
