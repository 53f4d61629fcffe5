"""A folder of photographs, or a video, to JSON: ``xdet detect`` next to a plain loop of LiteRT. One line per model.

    python folder_against_litert.py MODEL.tflite ... --images DIR [--video] [--blocks 6]

The loop reads files with Pillow and frames with PyAV, one after the other; it runs with one thread of LiteRT and with
two, and the ratio is to the better one. xdet works on one picture per processor. Sessions are opened on the way, the
three take turns, and numbers are medians. With --video the photographs become an H.264 video first: ten frames of each,
one pixel further down in every one. Networks alone, and boxes of single pictures: xdet bench MODEL.tflite --targets
cpu. Needs: pip install "xdet[litert]", with --video "xdet[litert,video]"
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
from xdet.detection.results import results_header
from xdet.pictures.images import find_images
from xdet.pictures.video import Recording, import_av
from xdet.runtimes.base import choose_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

FRAMES = 10  # of each photograph


def film_of(images: Sequence[Path], path: Path) -> int:
    """Write a video that pans over photographs; returns its number of frames."""
    with Recording(path) as recording:
        for n, image in enumerate(images):
            with Image.open(image) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            for shift in range(FRAMES):
                recording.add(pixels[shift : shift - FRAMES], (n * FRAMES + shift) / 30)
    return len(images) * FRAMES


def photographs(images: Sequence[Path]) -> Iterator[tuple[str, Image.Image]]:
    """Name and picture of each file."""
    for path in images:
        with Image.open(path) as picture:
            yield path.name, picture.convert("RGB")


def frames(film: Path) -> Iterator[tuple[str, Image.Image]]:
    """Number and picture of each frame, decoded on as many threads as FFmpeg likes."""
    with import_av().open(str(film)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, frame in enumerate(container.decode(video=0)):
            yield str(number), frame.to_image()


def plain_loop(
    source: Path, spec: DetectorSpec, pictures: Callable[[], Iterable[tuple[str, Image.Image]]], threads: int
) -> None:
    """Pictures to JSON text, as one writes it with LiteRT."""
    interpreter = Interpreter(model_path=str(source), num_threads=threads)
    interpreter.allocate_tensors()
    pixels, head = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    size, found = (spec.image.width, spec.image.height), []
    for name, picture in pictures():
        small = picture.resize(size, Image.Resampling.BILINEAR)
        interpreter.set_tensor(pixels, np.asarray(small)[None])
        interpreter.invoke()
        boxes = detect_from_head(np.asarray(interpreter.get_tensor(head)), spec, Thresholds())
        count = int(boxes.num_detections[0])
        found.append({"image": name, "boxes": boxes.boxes_xyxy[0, :count].tolist()})
    json.dumps(found)


def xdet_folder(model: Path, images: Sequence[Path]) -> None:
    """Files to JSON text, as ``xdet detect`` does it."""
    with xdet.Detector(model, workers=choose_workers()) as detector:
        report_to_json(detect_files(detector, images))


def xdet_video(model: Path, film: Path) -> None:
    """A video to JSON Lines, as ``xdet detect`` does it."""
    with xdet.Detector(model, workers=choose_workers()) as detector:
        header = results_header(detector, None)
        with xdet.open_results(film.with_suffix(".jsonl"), header, anew=True) as results:
            xdet.detect_film_to_file(detector, xdet.Film.of_file(film), results)


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
    parser.add_argument("--video", action="store_true", help="measure them as a video, too")
    parser.add_argument("--blocks", type=int, default=6)
    arguments = parser.parse_args()
    images = find_images([arguments.images])
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        kinds = [("files", len(images), partial(photographs, images), partial(xdet_folder, images=images))]
        if arguments.video:
            kinds.append(("frames", film_of(images, film), partial(frames, film), partial(xdet_video, film=film)))
        for source in arguments.models:
            model = Path(folder) / f"{source.stem}.onnx"
            spec = xdet.convert(source, model, target="cpu", force=True).document.spec
            for kind, count, pictures, detect in kinds:
                loops = [partial(plain_loop, source, spec, pictures, threads) for threads in (1, 2)]
                one, two, ours = rates([*loops, partial(detect, model)], count, arguments.blocks)
                print(
                    f"{source.name}: {count} {kind} to JSON, plain loop {one:.0f} (two threads {two:.0f}), "
                    f"xdet {ours:.0f} images/s, ratio {ours / max(one, two):.2f}"
                )


if __name__ == "__main__":
    main()
