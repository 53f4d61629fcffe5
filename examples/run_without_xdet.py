"""Run a finished model with nothing but onnxruntime, numpy and Pillow.

Usage: python run_without_xdet.py MODEL.onnx PHOTO [--no-vnni]

``--no-vnni`` is for x86 CPUs without AVX-512 VNNI or AVX-VNNI, whose fast uint8 kernels saturate: it asks ONNX Runtime for
the exact ones. It costs time where VNNI exists, and means nothing on ARM.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray


def resize(photo: Image.Image, width: int, height: int, rule: str) -> NDArray[np.uint8]:
    """Stretch a photograph as the model's metadata says (docs/contract.md, "Resizing"): uint8 ``(height, width, 3)``."""
    if rule == "bilinear-antialias":
        across = photo.resize((width, photo.height), Image.Resampling.BILINEAR)  # rows first in every Pillow
        return np.asarray(across.resize((width, height), Image.Resampling.BILINEAR))
    if rule == "nearest":
        pixels = np.asarray(photo)
        return pixels[nearest(photo.height, height)][:, nearest(photo.width, width)]
    sys.exit(
        f"resize rule {rule!r}: this program knows nearest and bilinear-antialias; docs/contract.md describes it"
    )


def nearest(source: int, target: int) -> NDArray[np.intp]:
    """The source row (or column) of every target row, in float32 throughout: no image library's "nearest" equals it."""
    centres = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * np.float32(source / target)
    rows: NDArray[np.intp] = np.floor(centres).astype(np.intp)
    return np.minimum(rows, source - 1, out=rows)


def main(model: str, photo: str, *, no_vnni: bool) -> None:
    """Print one line per box: class, score, corners in pixels of the photograph."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # the two warnings about optional thresholds are expected
    if no_vnni:
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    spec = json.loads(session.get_modelmeta().custom_metadata_map["xdet"])["spec"]
    with Image.open(photo) as picture:
        rgb = picture.convert("RGB")
    _, height, width, _ = session.get_inputs()[0].shape
    pixels = resize(rgb, width, height, spec["image"]["resize"])

    feeds = {"image": pixels[np.newaxis]}
    if any(value.name == "score_threshold" for value in session.get_overridable_initializers()):
        feeds["score_threshold"] = np.array(0.5, np.float32)  # optional; a 0-d array, not a numpy scalar
    count, boxes, scores, classes, _ = session.run(None, feeds)

    for i in range(count[0]):
        x1, y1, x2, y2 = boxes[0, i] * [rgb.width, rgb.height, rgb.width, rgb.height]
        name = spec["class_names"][classes[0, i]]
        print(f"{name} {scores[0, i]:.3f}  {x1:.1f} {y1:.1f} {x2:.1f} {y2:.1f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], no_vnni="--no-vnni" in sys.argv[3:])
