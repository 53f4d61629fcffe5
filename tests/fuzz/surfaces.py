"""The surfaces: what is mutated, and what the program does with it. One literal table.

A surface's ``run`` does what a command does with such a file, up to where a model would be executed, and raises what
the command would raise. Corpora come from the builders of the other tests.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from converters.convert import convert_to_bytes
from converters.description.config import read_config
from converters.description.sidecar import read_sidecar
from converters.description.statements import SourceOptions
from converters.description.values import parse_anchors, parse_class_names
from converters.errors import ConversionError
from converters.options import ConvertOptions
from converters.sources.keras.stored import read_keras, read_network
from converters.spec import ImageInput, Rescaling
from tests.fuzz import records, sizes, words
from tests.fuzz.mutations import bend_bytes, bend_onnx, bend_png, bend_tflite, bend_tree, to_json
from xdet.errors import DataError, ModelError, XdetError
from xdet.evaluation.coco import evaluate_coco, summarize_coco
from xdet.evaluation.dataset import read_coco
from xdet.evaluation.predictions import HEADER, KeptPredictions
from xdet.evaluation.scoring import ScoredImage
from xdet.inspection import inspect
from xdet.inspection.report import inspection_report, inspection_to_json
from xdet.model.graph import FinishedGraph, load_onnx
from xdet.pictures.preparation import Preparation, prepare
from xdet.writing.terminal import report_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random


@dataclass(frozen=True, slots=True)
class Surface:
    """One kind of input."""

    make: Callable[[Random], bytes]  # a mutant from a source of randomness
    run: Callable[[Path], object]  # what is done with the file; the folder is the case's own
    suffix: str  # of the file's name


@cache
def tflite_corpus() -> tuple[bytes, ...]:
    """Small networks with every kind of operator that detectors of this family have."""
    from tests.converters.sources.tflite.builder import TfliteBuilder, build_small_model
    from tests.converters.sources.tflite.networks import NetworkBuilder, st_yolo_lc, tiny_yolo_v2_relu

    builder, output = build_small_model()
    small = builder.build([output])
    b = TfliteBuilder()
    x = b.input("image", (1, 4, 4, 3), "uint8", 1 / 255, 0)
    moved = b.op("TRANSPOSE", [x, b.constant(np.array([0, 2, 1, 3], np.int32))], (1, 4, 4, 3), "uint8", 1 / 255, 0)
    shape = b.constant(np.array([1, 4, 4, 3], np.int32))
    reshaped = b.op("RESHAPE", [moved, shape], (1, 4, 4, 3), "uint8", 1 / 255, 0, new_shape=[1, 4, 4, 3])
    sized = b.constant(np.array([2, 2], np.int32))
    resized = b.op("RESIZE_NEAREST_NEIGHBOR", [reshaped, sized], (1, 2, 2, 3), "uint8", 1 / 255, 0)
    joined = b.op("CONCATENATION", [resized, resized], (1, 2, 2, 6), "uint8", 1 / 255, 0, axis=3)
    summed = b.op("ADD", [joined, joined], (1, 2, 2, 6), "uint8", 2 / 255, 0)
    mixed = b.build([summed])
    net = NetworkBuilder(16).conv(4, activation="RELU").max_pool(2).conv(30, 1).build()
    return small, mixed, net, tiny_yolo_v2_relu(32, widest=4), st_yolo_lc(32)


def make_tflite(random: Random) -> bytes:
    """Mostly fields of the object tree, sometimes bytes."""
    data = random.choice(tflite_corpus()[: random.choice((3, 3, 3, 5))])
    return bend_bytes(random, data) if random.random() < 0.2 else bend_tflite(random, data)


def run_tflite(path: Path) -> None:
    """As ``xdet inspect`` and ``xdet convert``, with and without a head."""
    inspection = inspect(path, layers=path.stat().st_size % 2 == 0)
    report_text(inspection_report(inspection))
    inspection_to_json(inspection)
    try:
        convert_to_bytes(path, ConvertOptions(source=SourceOptions(head="none")))
    except ModelError as error:
        raise AssertionError from error


@cache
def keras_corpus() -> tuple[dict[str, Any], ...]:
    from tests.converters.sources.keras.stored_models import functional, layer

    conv = layer("Conv2D", "conv", filters=6, kernel_size=[1, 1], strides=[1, 1], padding="same", activation="linear")
    conv["inbound_nodes"] = [[["image", 0, 0, {}]]]
    whole = functional(conv)
    whole["config"]["output_layers"] = [["conv", 0, 0]]
    return whole, functional(layer("BatchNormalization", "bn"), layer("LeakyReLU", "leaky", alpha=0.1))


def make_keras(random: Random) -> bytes:
    """A bent configuration, or bent bytes, in either container."""
    from tests.converters.sources.keras.stored_models import h5_bytes, keras_zip

    config = random.choice(keras_corpus())
    kind = random.randrange(4)
    bent = bend_tree(random, config) if kind < 2 else config
    container = h5_bytes if random.random() < 0.5 else keras_zip
    try:
        data = container(bent)
    except (ValueError, TypeError, UnicodeEncodeError):  # such as a lone surrogate, which HDF5 does not store
        data, kind = container(config), 3
    if kind == 3 and container is keras_zip:
        data = keras_zip(config, {"model.weights.h5": bend_bytes(random, h5_bytes(None))})
    return data if kind < 2 else bend_bytes(random, data)


def run_keras(path: Path) -> None:
    """As ``xdet inspect``, and the reading that ``xdet check`` does; nothing is loaded."""
    report_text(inspection_report(inspect(path)))
    read_network(read_keras(path.read_bytes(), path.name))


SIDECAR = {
    "head": "yolo_v2",
    "class_names": ["person", "dog"],
    "anchors": [[0.5, 1], [2.5, 3.25]],
    "anchor_unit": "cell",
    "rescaling": {"scale": 0.5, "offset": -1},
    "resize": "nearest",
    "color": "rgb",
    "licence": "MIT",
    "source": "here",
    "priors": "coco-ssd",
    "prior_format": "yxhw",
    "variances": [0.1, 0.1, 0.2, 0.2],
    "score_activation": "sigmoid",
}


def make_sidecar(random: Random) -> bytes:
    """A bent sidecar."""
    return to_json(bend_tree(random, SIDECAR)) if random.random() < 0.7 else bend_bytes(random, to_json(SIDECAR))


def run_sidecar(path: Path) -> None:
    """As every command that opens a source."""
    read_sidecar(path)


YAML = """general: {model_type: tiny_yolo_v2}
dataset:
  class_names: [person, car]
preprocessing:
  rescaling: {scale: 1/255, offset: 0}
  resizing:
    aspect_ratio: fit
    interpolation: nearest
  color_mode: rgb
postprocessing:
  confidence_thresh: 0.5
  NMS_thresh: 0.5
  max_detection_boxes: 100
  yolo_anchors: [0.5, 1.0, 2.0, 3.0]
model: {input_shape: (192, 192, 3)}
"""
# fmt: off
YAML_WORDS = (
    "!!int ''", "!!float ''", "!!timestamp x", "&a [1]", "*a", "[" * 50, "59:" * 3000 + "1", "0x" + "f" * 3000,
    "2020-13-45", "1/0", ".nan", ".inf", "-1", "0b2", "~", "yes", "? [a]", "{a: 1, a: 2}", "|", ">", "%YAML 9.9",
    "--- 1", "'", '"\\x', "\t", "1_000", "0o9", "<<: 1", "=", "1e999", "(0, 0, 0)", "(999999, 999999, 3)", "[]", "{}",
)
# fmt: on


def make_yaml(random: Random) -> bytes:
    """Words in place of values, lines doubled, bytes bent."""
    lines = YAML.splitlines()
    for _ in range(random.choice((1, 1, 2, 3))):
        place = random.randrange(len(lines))
        kind = random.randrange(4)
        if kind == 0:
            lines[place] = lines[place].partition(":")[0] + ": " + random.choice(YAML_WORDS)
        elif kind == 1:
            words = lines[place].split(" ")
            words[random.randrange(len(words))] = random.choice(YAML_WORDS)
            lines[place] = " ".join(words)
        elif kind == 2:
            lines.insert(place, random.choice(lines))
        else:
            return bend_bytes(random, "\n".join(lines).encode())
    return "\n".join(lines).encode()


def run_yaml(path: Path) -> None:
    """As ``--config``, ``--anchors`` and ``--classes``."""
    for read in (parse_anchors, parse_class_names):
        try:
            read(str(path))
        except ConversionError:
            continue
    read_config(path)


COCO: dict[str, Any] = {
    "images": [{"id": i, "file_name": f"{i}.png", "width": 8, "height": 8} for i in (1, 2)],
    "annotations": [
        {"id": i, "image_id": 1 + i % 2, "category_id": 1, "bbox": [1, 2, 3.5, 4], "area": 14.0, "iscrowd": 0}
        for i in range(4)
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
}


def make_coco(random: Random) -> bytes:
    """Bent annotations."""
    return to_json(bend_tree(random, COCO)) if random.random() < 0.8 else bend_bytes(random, to_json(COCO))


def run_coco(path: Path) -> None:
    """As ``xdet eval`` reads and scores, with detections equal to the truth."""
    for name in ("1.png", "2.png"):
        (path.parent / name).touch()
    scored = []
    for image in read_coco(path, path.parent).images:
        boxes, count = image.boxes_xywh_px, len(image.areas)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) / (image.size_wh * 2)
        classes, scores = np.zeros(count, np.int64), np.linspace(0, 1, count)
        scored.append(ScoredImage(image.size_wh, boxes, image.areas, classes, image.crowd, corners, scores, classes))
    summarize_coco(evaluate_coco(scored, 1))


KEPT = {
    "run": "r",
    "image": 1,
    "sha256": "0" * 64,
    "boxes_xyxy": [[0.0, 0.1, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0]],
    "scores": [0.9, 0.5],
    "classes": [0, 1],
}


def make_resume(random: Random) -> bytes:
    """A header, sound lines, a bent one; or bent bytes."""
    bent = bend_tree(random, KEPT)
    data = HEADER + to_json(KEPT) + b"\n" + to_json(bent) + b"\n" + to_json(KEPT) + b"\n"
    return bend_bytes(random, data) if random.random() < 0.3 else data


def run_resume(path: Path) -> None:
    """As ``xdet eval --resume``; a file that is refused keeps every byte."""
    before = path.read_bytes()
    try:
        KeptPredictions(path)
    except DataError:
        assert path.read_bytes() == before
        raise


@cache
def picture_corpus() -> tuple[bytes, ...]:
    """One small picture of every format and some modes."""
    codes = np.random.default_rng(0).integers(0, 256, (11, 13, 4), np.uint8)
    rgb, found = Image.fromarray(codes[..., :3]), []
    for picture, kind in (
        *((rgb, kind) for kind in ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")),
        (Image.fromarray(codes), "PNG"),
        (rgb.convert("P"), "PNG"),
        (Image.fromarray(codes[..., 0].astype(np.uint16) << 8), "PNG"),
        (Image.frombytes("CMYK", (13, 11), codes.tobytes()), "TIFF"),
    ):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        found.append(buffer.getvalue())
    return tuple(found)


def make_picture(random: Random) -> bytes:
    """PNG by its chunks, the others by their bytes."""
    data = random.choice(picture_corpus())
    return bend_png(random, data) if data.startswith(b"\x89PNG") and random.random() < 0.8 else bend_bytes(random, data)


def run_picture(path: Path) -> None:
    """As ``xdet detect`` reads and resizes it."""
    prepare(path, Preparation(ImageInput(16, 16, Rescaling(1.0, 0.0)), keep_original=path.stat().st_size % 2 == 0))


@cache
def onnx_corpus() -> tuple[bytes, ...]:
    """Finished models, by hand and converted."""
    from tests.xdet.finished_models import finished_model, head_model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.tflite"
        path.write_bytes(tflite_corpus()[2])
        converted = convert_to_bytes(path, ConvertOptions(source=SourceOptions(head="none"))).model
    return finished_model(), head_model(), finished_model(metadata=None), converted


def make_onnx(random: Random) -> bytes:
    """Mostly parts of the message, sometimes bytes."""
    data = random.choice(onnx_corpus())
    return bend_bytes(random, data) if random.random() < 0.2 else bend_onnx(random, data)


def run_onnx(path: Path) -> None:
    """As ``xdet inspect``, and what ``xdet check`` reads."""
    data = path.read_bytes()
    with suppress(ModelError):
        FinishedGraph(load_onnx(data, path.name), file=path.name)
    inspect(path)


@cache
def onnx_source_corpus() -> tuple[bytes, ...]:
    """Networks without a head, float and QDQ, of several opsets, with open sizes and with sizes that are computed."""
    from tests.converters.sources.onnx.networks import tiny_yolo_v2, yolo_v8, yolox

    words = {"names": "{0: 'a', 1: 'b'}", "stride": "32", "imgsz": "[64, 64]", "task": "detect"}
    open_size = yolo_v8(shape=("batch", 3, "height", "width"), metadata=words)
    return (yolo_v8(quantised=True), open_size, yolox(), tiny_yolo_v2(), tiny_yolo_v2(opset=8), yolo_v8(opset=21))


def make_onnx_source(random: Random) -> bytes:
    """A source with a few fields bent, or with random bytes."""
    data = random.choice(onnx_source_corpus())
    return bend_bytes(random, data) if random.random() < 0.2 else bend_onnx(random, data)


def run_onnx_source(path: Path) -> None:
    """Convert it without a head and with one, and inspect it."""
    with suppress(XdetError, ConversionError):
        inspect(path)
    source_options = SourceOptions(rescaling=Rescaling(1 / 255, 0.0))
    with suppress(ConversionError):
        convert_to_bytes(path, ConvertOptions(source=source_options))
    convert_to_bytes(path, ConvertOptions(source=replace(source_options, head="none")))


SURFACES: dict[str, Surface] = {
    "tflite": Surface(make_tflite, run_tflite, ".tflite"),
    "keras": Surface(make_keras, run_keras, ".keras"),
    "sidecar": Surface(make_sidecar, run_sidecar, ".xdet.json"),
    "yaml": Surface(make_yaml, run_yaml, ".yaml"),
    "coco": Surface(make_coco, run_coco, ".json"),
    "resume": Surface(make_resume, run_resume, ".jsonl"),
    "picture": Surface(make_picture, run_picture, ".png"),
    "onnx": Surface(make_onnx, run_onnx, ".onnx"),
    "onnx-source": Surface(make_onnx_source, run_onnx_source, ".onnx"),
    "sizes": Surface(sizes.make_sizes, sizes.run_sizes, ".model"),
    "ssd": Surface(words.make_ssd, words.run_ssd, ".tflite"),
    "metadata": Surface(words.make_metadata, words.run_metadata, ".model"),
    "priors": Surface(words.make_priors, words.run_priors, ".priors"),
    "cfg": Surface(words.make_cfg, words.run_cfg, ".cfg"),
    "results": Surface(records.make_results, records.run_results, ".results"),
    "detected": Surface(records.make_results, records.run_detected, ".results"),
    "video": Surface(records.make_video, records.run_video, ".mp4"),
}


def end_badly(path: Path) -> None:
    """What the pool is tested with: the file's only byte says how the case ends."""
    number = path.read_bytes()[0]
    if number == 1:
        os.abort()
    elif number == 2:
        raise DataError("refused")
    elif number == 3:
        raise ZeroDivisionError
    elif number == 5:
        time.sleep(60)
    elif number == 6:
        raise MemoryError


OUTCOMES = Surface(lambda _: b"", end_badly, ".bin")
