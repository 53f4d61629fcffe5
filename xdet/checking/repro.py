"""One layer as a model of its own: small enough to read, and to send to whoever has to mend it.

The model begins at the source tensors in front of the layer and ends at the layer's codes; ``layer.npz`` beside
``layer.onnx`` holds one photograph's codes by tensor name: LiteRT XNNPACK's for every input, and LiteRT's result to
compare the output with. With a Keras source these are Keras' values: float32, or the nearest codes where the model
holds codes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.spec import IMAGE
from xdet.checking.layers import run_layer, source_codes
from xdet.checking.pair import open_pair
from xdet.checking.runs import OpenRuntimes
from xdet.errors import UsageError
from xdet.pictures.preparation import Preparation, prepare
from xdet.writing.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from xdet.checking.layer_records import LayerResult
    from xdet.model.surgery import Codes
    from xdet.pictures.preparation import Photograph


@dataclass(frozen=True, slots=True)
class LayerRepro:
    """What was written, and how many values of the layer differ where ONNX Runtime is given the source's codes."""

    model: Path
    values: Path
    differing: int
    compared: int


def values_path(model: Path) -> Path:
    """Where the values of a repro model go.

    Raises:
        UsageError: the model's name does not end in ``.onnx``.
    """
    if model.suffix.lower() != ".onnx":
        raise UsageError(f"`repro` writes an ONNX file, got '{model}'; let its name end in .onnx")
    return model.with_suffix(".npz")


def write_layer_repro(
    target: Path, layer: LayerResult, *, model: Path, source: Path, photographs: Sequence[Photograph]
) -> LayerRepro:
    """Write a layer of ``compare_layers`` as a model, with the values of the photograph on which it differs most.

    Raises:
        OutputError: a file cannot be written.
        ModelError: one of the models cannot be read.
    """
    pair, beside = open_pair(model, source), values_path(target)
    how = Preparation(pair.document.spec.image)
    images = np.stack([prepare(photograph, how).pixels for photograph in photographs])
    with OpenRuntimes(pair) as runtimes:
        known = source_codes(pair, images, runtimes)
    tried: list[tuple[float, int, bytes, Codes]] = []
    for image, held in zip(images, known, strict=True):
        cut, values, result = run_layer(pair.graph.model, layer.onnx, {**held, IMAGE: image[None]})
        wanted = values[layer.onnx]
        differing = int((result != wanted).sum())
        worst = float(np.abs(result - wanted).max()) if wanted.dtype == np.float32 else differing
        tried.append((worst, differing, cut, values))
    _, differing, cut, values = max(tried, key=lambda entry: entry[0])
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **values)
    write_bytes(target, cut)
    write_bytes(beside, packed.getvalue())
    return LayerRepro(target, beside, differing, values[layer.onnx].size)
