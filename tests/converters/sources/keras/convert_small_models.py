"""A program for the tests: makes Keras files with tf_keras or Keras 3, converts them, and prints what it saw as JSON.

Usage: ``convert_small_models.py tf_keras|keras FOLDER``. It runs in a process of its own because TensorFlow stays in
it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow")

import h5py  # noqa: TID253 - this program is about these packages
import numpy as np
import onnx
import onnxruntime as ort

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from converters.sources import open_source
from tests.converters.quantize.float_networks import calibration

SIZE = 32
SIDECAR = {
    "head": "yolo_v2",
    "anchors": [[1.0, 2.0]] * 5,
    "anchor_unit": "cell",
    "rescaling": {"scale": 1 / 127.5, "offset": -1.0},
}


def build(keras: Any, slope_name: str) -> Any:
    """Every kind of layer of this family, with weights that no initialiser gives."""
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv1")(image)
    x = layers.BatchNormalization(name="bn1")(x)
    x = layers.LeakyReLU(**{slope_name: 0.1}, name="darknet")(x)
    x = layers.MaxPooling2D(2, padding="same", name="pool1")(x)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    y = layers.BatchNormalization(name="bn2")(y)
    y = layers.ReLU(max_value=6.0, name="relu6")(y)
    y = layers.Conv2D(8, 1, activation="relu", name="pointwise")(y)
    x = layers.Add(name="add")([x, y])
    x = layers.ZeroPadding2D(((0, 1), (0, 1)), name="padding")(x)
    x = layers.Conv2D(16, 3, strides=2, padding="valid", name="conv2")(x)
    x = layers.Activation("leaky_relu", name="leaky")(x)
    x = layers.MaxPooling2D(2, strides=1, padding="same", name="pool2")(x)
    model = keras.Model(image, layers.Conv2D(30, 1, name="predictions")(x), name="net")
    rng = np.random.default_rng(3)
    model.set_weights([_random(rng, w) for w in model.get_weights()])
    model.compile("adam", "mse")
    return model


def _random(rng: np.random.Generator, weights: Any) -> Any:
    """Positive for vectors (a batch normalisation's variance must be), of unit gain for kernels."""
    if weights.ndim == 1:
        return rng.uniform(0.5, 1.5, weights.shape).astype(np.float32)
    return (rng.normal(size=weights.shape) / np.sqrt(np.prod(weights.shape[:-1]))).astype(np.float32)


def as_keras_2_8(path: Path) -> None:
    """What Keras 2.8 wrote, and Keras 3 refuses: a depthwise convolution with ``groups``, and its version."""
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "DepthwiseConv2D":
                layer["config"]["groups"] = 1
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.8.0"


def observe(path: Path) -> dict[str, Any]:
    """Convert one file in every way, and compare with Keras."""
    path.with_suffix(".xdet.json").write_text(json.dumps(SIDECAR))
    source = open_source(path).model
    images = np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    (expected,) = source.outputs(images.astype(np.float32) * np.float32(1 / 127.5) + np.float32(-1))
    raw = SourceOptions(head="none")
    plain = convert_to_bytes(path, ConvertOptions(source=raw))
    again = convert_to_bytes(path, ConvertOptions(source=raw))
    batched = convert_to_bytes(path, ConvertOptions(source=raw, batch="dynamic"))
    found = run(batched.model, images)
    boxes = convert_to_bytes(path, ConvertOptions())
    quantised = convert_to_bytes(
        path, ConvertOptions(source=raw, quantize="per-channel", calibration=calibration(size=SIZE))
    )
    model = onnx.load_model_from_string(plain.model)
    graph = model.graph
    document = plain.document
    error = np.abs(run(quantised.model, images[:1]) - expected[:1]).mean()
    return {
        "library": source.keras.__name__,
        "difference": float(np.abs(found - expected).max()),
        "single difference": float(np.abs(run(plain.model, images[:1]) - expected[:1]).max()),
        "deterministic": plain.model == again.model,
        "operators": sorted(node.op_type for node in graph.node),
        "slopes": [round(a.f, 6) for n in graph.node if n.op_type == "LeakyRelu" for a in n.attribute],
        "padding of the last pool": [_padding(node) for node in graph.node if node.op_type == "MaxPool"][-1],
        "opset": [(entry.domain, entry.version) for entry in model.opset_import],
        "document": [document.source.format, document.quantization, document.activations, document.leaky_relu],
        "twins": {name: twin.onnx for name, twin in document.tensors.items()},
        "outputs": [o.name for o in onnx.load_model_from_string(boxes.model).graph.output],
        "quantised": [quantised.document.quantization, quantised.document.activations],
        "quantised difference": float(error / np.ptp(expected)),
        "integer convolutions": count_integer_convolutions(quantised.model, path.with_suffix(".optimised")),
    }  # fmt: skip


def _padding(pool: onnx.NodeProto) -> str:
    return str(next(a.s.decode() for a in pool.attribute if a.name == "auto_pad"))


def run(model: bytes, images: Any) -> Any:
    """The head of a ``--head none`` model."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(model, options).run(["head"], {"image": images})[0]


def count_integer_convolutions(model: bytes, optimised: Path) -> list[int]:
    """[QLinearConv, all convolutions] of the graph that ONNX Runtime makes of it."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(optimised)
    ort.InferenceSession(model, options)
    kinds = [node.op_type for node in onnx.load(optimised).graph.node]
    return [kinds.count("QLinearConv"), kinds.count("QLinearConv") + kinds.count("Conv") + kinds.count("FusedConv")]


def main(library: str, folder: Path) -> None:
    """Make the files of one library and print what became of them."""
    keras = __import__(library)
    model = build(keras, "alpha" if library == "tf_keras" else "negative_slope")
    files = [folder / "model.h5", folder / "model.keras"]
    for path in files:
        model.save(path)
    if library == "tf_keras":
        files.append(folder / "keras_2_8.h5")
        model.save(files[-1])
        as_keras_2_8(files[-1])
    print(json.dumps({path.name: observe(path) for path in files}))  # noqa: T201 - its result


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
