"""A program for the tests: makes Keras sources and their finished models, and what Keras gives in every layer.

Usage: ``make_keras_models.py FOLDER``. It runs in a process of its own because TensorFlow stays in it. It writes the
sources ``tf_keras.h5``, ``keras3.h5``, ``tf_keras.keras``, ``keras3.keras``, ``rows.h5`` and ``groups.keras``,
sidecars, ``<source>-<way>.onnx``, and ``layers.npz``: two pictures, ``images``, and what every layer of ``tf_keras.h5``
gives for them.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow")

import numpy as np

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from converters.sources import open_source
from tests.converters.quantize.float_networks import calibration, photographs
from tests.converters.sources.keras.convert_small_models import SIZE, build

SIDECAR = {
    "head": "yolo_v2",
    "class_names": ["person"],
    "anchors": [[0.5, 0.25]] * 5,
    "anchor_unit": "cell",
    "rescaling": {"scale": 1 / 127.5, "offset": -1.0},
}
WAYS = {
    "float": ConvertOptions(),
    "raw": ConvertOptions(source=SourceOptions(head="none")),
    "dynamic": ConvertOptions(batch="dynamic"),
    "per-channel": ConvertOptions(quantize="per-channel", calibration=calibration(size=SIZE)),
    "per-tensor": ConvertOptions(quantize="per-tensor", calibration=calibration(size=SIZE)),
    "clipped": ConvertOptions(quantize="per-channel", calibration=calibration(99.0, size=SIZE)),
    "int8": ConvertOptions(quantize="per-channel", activations="int8", calibration=calibration(size=SIZE)),
    "cpu": ConvertOptions(quantize="per-channel", target="cpu", calibration=calibration(size=SIZE)),
}
ROWS_SIZE = 64
MADE = {
    "tf_keras.h5": tuple(WAYS),
    "tf_keras.keras": ("float",),
    "keras3.h5": ("float",),
    "keras3.keras": ("float", "per-channel"),
}


def build_rows(keras: Any) -> Any:
    """A depthwise layer that ``--target cpu`` writes on groups of pixels."""
    layers = keras.layers
    image = keras.Input((ROWS_SIZE, ROWS_SIZE, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="stem")(image)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.BatchNormalization(name="bn")(x)
    model = keras.Model(image, layers.Conv2D(30, 3, strides=2, padding="same", name="predictions")(x))
    rng = np.random.default_rng(3)
    model.set_weights([rng.uniform(0.1, 0.5, weights.shape) for weights in model.get_weights()])
    return model


def build_groups(keras: Any) -> Any:
    """A convolution in groups, which Keras computes in a compiled function."""
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="stem")(image)
    x = layers.Conv2D(12, 3, padding="same", groups=2, activation="relu", name="groups")(x)
    return keras.Model(image, layers.Conv2D(30, 3, strides=2, padding="same", name="predictions")(x))


def main(folder: Path) -> None:
    """Make everything."""
    for library, stem, slope in (("tf_keras", "tf_keras", "alpha"), ("keras", "keras3", "negative_slope")):
        model = build(__import__(library), slope)
        for suffix in ("h5", "keras"):
            path = folder / f"{stem}.{suffix}"
            model.save(path)
            path.with_suffix(".xdet.json").write_text(json.dumps(SIDECAR), "utf-8")
            for way in MADE[path.name]:
                made = convert_to_bytes(path, WAYS[way])
                (folder / f"{path.name}-{way}.onnx").write_bytes(made.model)
    path = folder / "rows.h5"
    build_rows(__import__("tf_keras")).save(path)
    path.with_suffix(".xdet.json").write_text(json.dumps(SIDECAR), "utf-8")
    options = replace(WAYS["cpu"], calibration=calibration(size=ROWS_SIZE))
    (folder / "rows.h5-cpu.onnx").write_bytes(convert_to_bytes(path, options).model)
    path = folder / "groups.keras"
    build_groups(__import__("keras")).save(path)
    path.with_suffix(".xdet.json").write_text(json.dumps(SIDECAR), "utf-8")
    for way in ("float", "per-channel"):
        (folder / f"groups.keras-{way}.onnx").write_bytes(convert_to_bytes(path, WAYS[way]).model)
    loaded = open_source(folder / "tf_keras.h5").model
    images = np.stack(photographs(2, SIZE))
    rescaled = images.astype(np.float32) * np.float32(1 / 127.5) + np.float32(-1)
    names = loaded.layer_names()
    values = dict(zip(names, loaded.layer_outputs(rescaled, names), strict=True))
    np.savez(folder / "layers.npz", images=images, **values)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
