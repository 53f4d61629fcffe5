"""The commands that make a model, or what carries it elsewhere: ``xdet convert``, ``page`` and ``triton``."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from xdet.cli import options  # noqa: TC001 - typer reads the annotations
from xdet.cli.console import print_line, print_report, progress_bar
from xdet.writing.text import format_duration, format_size

KERAS_SUFFIXES = frozenset({".h5", ".hdf5", ".keras"})


def _read_batch(text: str) -> int | Literal["dynamic"]:
    if text == "dynamic":
        return "dynamic"
    if text.isascii() and text.isdigit():
        return int(text)
    msg = f"expected a number or 'dynamic', got {text!r}"
    raise typer.BadParameter(msg)


@dataclass(frozen=True)
class Converting:
    """How a source is converted; the names are those of ``xdet.convert``.

    Options:
        score_threshold: Default score threshold of the model [default: 0.5].
        iou_threshold: Default NMS threshold of the model [default: 0.5].
        max_detections: Rows of the outputs [default: 100].
        batch N|dynamic: Images per call.
        target: portable: any compiler, ONNX Runtime from 1.15 on. cpu: the same bits, faster on ONNX Runtime's CPU
            kernels, from 1.24 on; xdet bench SOURCE --targets portable,cpu says how much.
        activations: dtype of activation codes; same results.
        leaky_relu: litert: bit-equal to LiteRT; float: the real functions. Also steers sums, products, average pools,
            means, bilinear resizes and requantisations.
        arithmetic: For operators without a fused form that equals LiteRT. litert: step by step; fused: faster, <= 1 LSB
            away.
        dequantize: The float network of a quantised file: its weights, and activations that nothing rounds.
        float16: Weights and activations of a float network in float16; the head stays float32.
        freeze_thresholds: Thresholds as constants, not optional inputs.
        any_size: Take photographs of any size: the resize rule is in the file.
        quantize: Quantise a float Keras or ONNX model to int8, by calibration; per-tensor runs faster on some NPUs.
        symmetric: With --quantize: all zero-points 0, as TensorRT and many NPUs demand.
        calibration DIR: Photographs that tell the ranges, for --quantize and --float16.
        percentile F: Share of values that ranges keep, such as 99.99 [default: all].
        opset N: ONNX opset of the file, 13 to 22 [default: the lowest that fits].
        importer: tf2onnx: fallback for TFLite operators that the native importer lacks.
    """

    score_threshold: float | None = None
    iou_threshold: float | None = None
    max_detections: int | None = None
    batch: Annotated[Any, typer.Option(parser=_read_batch)] = "1"
    target: Literal["portable", "cpu"] = "portable"
    activations: Literal["uint8", "int8"] = "uint8"
    leaky_relu: Literal["litert", "float"] = "litert"
    arithmetic: Literal["litert", "fused"] = "litert"
    dequantize: bool = False
    float16: bool = False
    freeze_thresholds: bool = False
    any_size: bool = False
    quantize: Literal["none", "per-channel", "per-tensor"] = "none"
    symmetric: bool = False
    calibration: Path | None = None
    percentile: float | None = None
    opset: int | None = None
    importer: Literal["native", "tf2onnx"] = "native"


def convert(
    source: Path,
    *,
    output: options.OptionalOutput = None,
    force: bool = False,
    converting: Converting,
    try_units: Path | None = None,
    describing: options.Describing,
) -> None:
    r"""Convert a detector to one ONNX file: pixels in, boxes out.

    Options:
        source: TFLite, Keras or ONNX detector; a sidecar <stem>.xdet.json beside it is read.
        output: ONNX file to write [default: <stem>.onnx here].
        force: Replace an existing output.
        try_units PHOTOS: Convert nothing: decode these photographs under every anchor unit that is possible; -o names a
            folder.

    Examples:
        xdet convert person_224_int8.tflite
        xdet convert person.tflite -o person.onnx --config user_config.yaml
        xdet convert net.tflite --anchors "0.9,3.3 2.1,5.3" --anchor-unit cell \
            --classes person --target cpu
        xdet convert net.tflite --anchors anchors.txt --try-units photos/
            shows which unit the anchors are in
        xdet convert person.h5            a Keras model stays float
        xdet convert person.h5 --quantize per-channel --calibration photos/
        xdet convert person.tflite -o any.onnx --any-size
            photographs go in as they are decoded
        xdet convert yolov8n.onnx -o m.onnx --rescaling 1/255 --classes coco.txt
    """
    from converters.spec.contract import ONNXRUNTIMES
    from xdet.conversion import convert as convert_model

    if sys.stderr.isatty() and (converting.importer == "tf2onnx" or source.suffix.lower() in KERAS_SUFFIXES):
        print_line(f"reading {source.name} with TensorFlow, which takes some seconds", err=True)
    if try_units is not None:
        _try_units(source, try_units, output, describing, converting, force=force)
        return
    started = time.perf_counter()
    destination = Path(f"{source.stem}.onnx") if output is None else output
    with progress_bar("calibrating") if converting.calibration is not None else nullcontext() as advance:
        conversion = convert_model(
            source, destination, force=force, **describing.keywords, **vars(converting), progress=advance
        )
    for note in (*conversion.document.spec.assumptions, *conversion.document.notes):
        print_line(f"note: {note}", err=True)
    seconds = time.perf_counter() - started
    oldest = conversion.document.oldest_runtimes
    print_line(
        f"{destination}  {format_size(len(conversion.model))}  {format_duration(seconds)}  "
        f"ONNX Runtime {oldest[ONNXRUNTIMES[0]]} or newer"
    )
    others = ", ".join(f"{name} {release}" for name, release in oldest.items() if name not in ONNXRUNTIMES)
    print_line(f"also known to run it, in these releases and newer ones: {others}")
    if converting.target == "portable" and conversion.document.activations == "uint8":
        import shlex

        same = " and the options that describe it" if describing.keywords else ""
        command = f"xdet bench {shlex.quote(str(source))} --targets portable,cpu"
        print_line(f"--target cpu may be faster on CPUs, with the same bits; measure it here: {command}{same}")


def _try_units(
    source: Path,
    photographs: Path,
    output: Path | None,
    describing: options.Describing,
    converting: Converting,
    *,
    force: bool,
) -> None:
    """Every reading of the anchors on photographs: a table, and pictures in a folder."""
    from converters.description.statements import SourceOptions
    from xdet.detection.units import MOST_PHOTOGRAPHS, trial_report, try_units
    from xdet.pictures.images import find_images

    source_options = replace(
        describing.options() or SourceOptions(),
        score_threshold=converting.score_threshold,
        iou_threshold=converting.iou_threshold,
    )
    folder = Path(f"{source.stem}_units") if output is None else output
    images = find_images([photographs])
    with progress_bar("trying", min(len(images), MOST_PHOTOGRAPHS)) as advance:
        trial = try_units(source, images, folder, source_options=source_options, force=force, progress=advance)
    print_report(trial_report(trial))


def page(
    model: Path | None = None,
    *,
    output: options.OutputPath,
    onnxruntime_web: Path | None = None,
    title: str | None = None,
    sample: list[Path] | None = None,
    force: options.Force = False,
) -> None:
    """Write a web page that runs a detector in the browser.

    The folder is self-contained: any web server hands it out, and no picture leaves the browser.

    Options:
        model [MODEL.onnx]: Made by xdet convert [default: the embedded detector].
        output DIR: Folder to write to.
        onnxruntime_web DIR: The npm package onnxruntime-web 1.30.0, or a folder that holds it [default:
            ./node_modules].
        title TEXT: Of the page [default: the model's name].
        sample PHOTO: A picture that the page offers; may be given several times, the first is shown.

    Examples:
        npm install onnxruntime-web@1.30.0
        xdet page -o site                 the embedded detector
        xdet page person.onnx -o site --sample street.jpg
        python -m http.server --directory site
            then open http://localhost:8000
    """
    from xdet.page import make_page
    from xdet.writing.text import format_size

    files = make_page(model, output, package=onnxruntime_web, title=title, samples=sample or (), force=force)
    size = sum(path.stat().st_size for path in files)
    print_line(f"wrote {output}: {len(files)} files, {format_size(size)}")
    print_line(f"look at it: python -m http.server --directory {output}, then open http://localhost:8000")


def triton(
    model: Path,
    *,
    output: options.OutputPath,
    name: str | None = None,
    max_batch: int = 8,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    force: options.Force = False,
) -> None:
    """Write a model repository for Triton Inference Server.

    A file converted with --batch dynamic gets dynamic batching.

    Options:
        model: An ONNX file made by xdet convert.
        output DIR: The model repository.
        name NAME: Of the model there [default: the file's name].
        max_batch N: Pictures of a batch at most, where the file's batch is dynamic.
        score_threshold X: Boxes need a score above it [default: the file's].
        iou_threshold X: Overlaps above it are suppressed [default: the file's].

    Examples:
        xdet convert person.tflite --batch dynamic
        xdet triton person.onnx -o repository --max-batch 16
        tritonserver --model-repository repository
    """
    from xdet.triton import write_repository

    files = write_repository(
        model,
        output,
        name=name,
        max_batch=max_batch,
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        force=force,
    )
    print_line(f"wrote {files.config} and {files.model}")
