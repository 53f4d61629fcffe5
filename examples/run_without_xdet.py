"""Run a finished model with nothing but onnxruntime, numpy and Pillow.

Usage: python run_without_xdet.py MODEL.onnx PHOTO [--no-vnni]

``--no-vnni`` is for x86 CPUs without AVX-512 VNNI or AVX-VNNI, whose fast uint8 kernels saturate: it asks ONNX Runtime
for the exact ones. It costs time where VNNI exists, and means nothing on ARM.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray


def network_pixels(photo: Image.Image, image: dict[str, Any]) -> NDArray[np.uint8]:
    """A photograph as the model's metadata says (docs/contract.md, "Pictures"): uint8 ``(height, width, channels)``."""
    if image.get("any_size"):  # the rule is in the file
        return np.asarray(photo)
    left, top, width, height = place(photo, image)
    rule = image["resize"]
    if rule == "bilinear-antialias":
        shrink = photo.height - height  # Pillow 13's order of the two passes, in every Pillow
        columns_first = shrink > 0 and shrink > 2 * (photo.width - width)
        between = (photo.width, height) if columns_first else (width, photo.height)
        passed = photo.resize(between, Image.Resampling.BILINEAR)
        pixels = np.asarray(passed.resize((width, height), Image.Resampling.BILINEAR))
    elif rule == "nearest":
        pixels = np.asarray(photo)[nearest(photo.height, height)][:, nearest(photo.width, width)]
    elif rule in ("bilinear", "letterbox"):
        pixels = bilinear(np.asarray(photo), height, width)
    else:
        sys.exit(f"resize rule {rule!r}: this program does not know it; docs/contract.md describes it")
    picture = np.full((image["height"], image["width"], 3), 114, np.uint8)
    picture[top : top + height, left : left + width] = pixels
    color = image.get("color", "rgb")
    if color == "grey":
        return np.asarray(Image.fromarray(picture).convert("L"))[..., np.newaxis]
    return picture[..., ::-1] if color == "bgr" else picture


def place(photo: Image.Image, image: dict[str, Any]) -> tuple[int, int, int, int]:
    """Left, top, width, height of the photograph in the network's picture, which a letterbox does not fill."""
    width, height = image["width"], image["height"]
    if image["resize"] != "letterbox" or image.get("any_size"):
        return 0, 0, width, height
    scale = min(height / photo.height, width / photo.width)
    inner_width, inner_height = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    left, top = round((width - inner_width) / 2 - 0.1), round((height - inner_height) / 2 - 0.1)
    return left, top, inner_width, inner_height


def bilinear(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Half-pixel centres, no antialias, in float32, along the rows first, rounded half to even."""
    (top, bottom, down), (left, right, along) = (
        neighbours(*pair) for pair in ((pixels.shape[0], height), (pixels.shape[1], width))
    )
    real = pixels.astype(np.float32)
    lines = real[:, left] + (real[:, right] - real[:, left]) * along[:, np.newaxis]
    mixed = lines[top] + (lines[bottom] - lines[top]) * down[:, np.newaxis, np.newaxis]
    return np.rint(mixed).astype(np.uint8)


def neighbours(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """The two source rows (or columns) of every target row, and the weight of the second."""
    half = np.float32(0.5)
    centres = (np.arange(target, dtype=np.float32) + half) * np.float32(source / target) - half
    low = np.floor(centres)
    ends = [np.clip(edge.astype(np.intp), 0, source - 1) for edge in (low, np.ceil(centres))]
    return ends[0], ends[1], centres - low


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
    image = spec["image"]
    pixels = network_pixels(rgb, image)
    left, top, width, height = place(rgb, image)

    feeds = {"image": pixels[np.newaxis]}
    if any(value.name == "score_threshold" for value in session.get_overridable_initializers()):
        feeds["score_threshold"] = np.array(0.5, np.float32)  # optional; a 0-d array, not a numpy scalar
    count, boxes, scores, classes, _ = session.run(None, feeds)

    for i in range(count[0]):
        inside = (boxes[0, i] * ([image["width"], image["height"]] * 2) - [left, top] * 2) / ([width, height] * 2)
        x1, y1, x2, y2 = np.clip(inside, 0, 1) * ([rgb.width, rgb.height] * 2)
        name = spec["class_names"][classes[0, i]]
        print(f"{name} {scores[0, i]:.3f}  {x1:.1f} {y1:.1f} {x2:.1f} {y2:.1f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], no_vnni="--no-vnni" in sys.argv[3:])
