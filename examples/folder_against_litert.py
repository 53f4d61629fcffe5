"""A folder of photographs to JSON: ``xdet detect`` next to a plain loop of Pillow and LiteRT. One line per model.

    python folder_against_litert.py MODEL.tflite ... --images DIR [--blocks 6]

The loop runs with one thread of LiteRT and with two; the ratio is to the better one. xdet works on one photograph per
processor. Sessions are opened on the way, the three take turns, and numbers are medians. Networks alone, and boxes of
single pictures: xdet bench MODEL.tflite --targets cpu. Needs: pip install "xdet[litert]"
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert.interpreter import Interpreter  # noqa: TID253 - a program, not the library
from PIL import Image

import xdet
from converters.heads.nms import detect_from_head
from converters.spec import DetectorSpec, Thresholds
from xdet.detection.batch import detect_files
from xdet.detection.report import report_to_json
from xdet.pictures.images import find_images
from xdet.runtimes.base import choose_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def plain_loop(source: Path, spec: DetectorSpec, images: Sequence[Path], threads: int) -> None:
    """Files to JSON text, as one writes it with Pillow and LiteRT."""
    interpreter = Interpreter(model_path=str(source), num_threads=threads)
    interpreter.allocate_tensors()
    pixels, head = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    size, found = (spec.image.width, spec.image.height), []
    for path in images:
        with Image.open(path) as picture:
            small = picture.convert("RGB").resize(size, Image.Resampling.BILINEAR)
        interpreter.set_tensor(pixels, np.asarray(small)[None])
        interpreter.invoke()
        boxes = detect_from_head(np.asarray(interpreter.get_tensor(head)), spec, Thresholds())
        count = int(boxes.num_detections[0])
        found.append({"image": path.name, "boxes": boxes.boxes_xyxy[0, :count].tolist()})
    json.dumps(found)


def xdet_folder(model: Path, images: Sequence[Path]) -> None:
    """Files to JSON text, as ``xdet detect`` does it."""
    with xdet.Detector(model, workers=choose_workers()) as detector:
        report_to_json(detect_files(detector, images))


def rates(sides: Sequence[Callable[[], None]], images: int, blocks: int) -> list[float]:
    """Images per second of each side, in alternating blocks."""
    found: list[list[float]] = [[] for _ in sides]
    for _ in range(blocks + 1):  # the first round only warms the files and the processors
        for side, collected in zip(sides, found, strict=True):
            started = time.perf_counter()
            side()
            collected.append(images / (time.perf_counter() - started))
            gc.collect()
    return [statistics.median(collected[1:]) for collected in found]


def main() -> None:
    """Measure every model named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="TFLite detectors of one raw output, with their sidecars")
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs, better 100 than two")
    parser.add_argument("--blocks", type=int, default=6)
    arguments = parser.parse_args()
    images = find_images([arguments.images])
    with tempfile.TemporaryDirectory() as folder:
        for source in arguments.models:
            model = Path(folder) / f"{source.stem}.onnx"
            spec = xdet.convert(source, model, target="cpu", force=True).document.spec
            loops = [partial(plain_loop, source, spec, images, threads) for threads in (1, 2)]
            one, two, ours = rates([*loops, partial(xdet_folder, model, images)], len(images), arguments.blocks)
            print(
                f"{source.name}: {len(images)} files to JSON, plain loop {one:.0f} (two threads {two:.0f}), "
                f"xdet {ours:.0f} images/s, ratio {ours / max(one, two):.2f}"
            )


if __name__ == "__main__":
    main()
