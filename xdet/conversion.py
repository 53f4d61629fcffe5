"""``convert``: the library call behind ``xdet convert``, with one keyword per option."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from converters.calibration import Calibration
    from converters.convert import Conversion
    from converters.description.priors import Four, PriorFormat, ScoreActivation
    from converters.description.statements import SourceDescription, SourceOptions
    from converters.spec import Color, ImageInput, ResizeRule

PathLike = str | os.PathLike[str]
T = TypeVar("T")


def convert(
    source: PathLike,
    output: PathLike | None = None,
    *,
    force: bool = False,
    config: PathLike | None = None,
    anchors: str | Sequence[tuple[float, float]] | None = None,
    anchor_unit: Literal["cell", "image", "pixel"] | None = None,
    classes: str | Sequence[str] | None = None,
    resize: ResizeRule | None = None,
    color: Color | None = None,
    rescaling: str | tuple[float, float] | None = None,
    input_size: str | tuple[int, int] | None = None,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    max_detections: int | None = None,
    head: str = "auto",
    class_agnostic: bool = False,
    priors: PathLike | None = None,
    prior_format: PriorFormat | None = None,
    variances: str | Sequence[float] | None = None,
    score_activation: ScoreActivation | None = None,
    batch: int | Literal["dynamic"] = 1,
    target: Literal["portable", "cpu"] = "portable",
    activations: Literal["uint8", "int8"] = "uint8",
    leaky_relu: Literal["litert", "float"] = "litert",
    arithmetic: Literal["litert", "fused"] = "litert",
    dequantize: bool = False,
    float16: bool = False,
    freeze_thresholds: bool = False,
    any_size: bool = False,
    quantize: Literal["none", "per-channel", "per-tensor"] = "none",
    symmetric: bool = False,
    calibration: PathLike | Sequence[PathLike] | None = None,
    percentile: float | None = None,
    opset: int | None = None,
    importer: Literal["native", "tf2onnx"] = "native",
    progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Convert a detector to one end-to-end ONNX file.

    Args:
        source: a detector without a head: TFLite, Keras (H5, .keras) or ONNX.
        output: the ONNX file; ``<stem>.onnx`` in the working directory if None.
        force: replace an existing ``output``; a file that the conversion reads is never replaced.
        config: a yaml of the ST model zoo (2.x to 4.x) that describes the source.
        anchors: (width, height) pairs, or text or a file with them ("w,h w,h ...").
        anchor_unit: unit of the anchors: grid cells, fractions of the image, or its pixels.
        classes: class names, or text ("person,car") or a file with one name per line.
        resize: how photographs got the network's size in training: stretched, or ``"letterbox"``.
        color: what the channels of the picture are: ``"rgb"``, ``"bgr"``, or one alone, ``"grey"``.
        rescaling: (scale, offset) of a pixel, or text ("1/127.5,-1").
        input_size: (height, width) of the picture, or text ("480x640"), for ONNX sources that leave it open.
        score_threshold: default of the finished model, 0..1; 0.5 if None.
        iou_threshold: default of the finished model, 0..1; 0.5 if None.
        max_detections: rows of the finished model's outputs; 100 if None.
        head: ``"auto"`` looks at the outputs; ``"none"`` ends the graph at the raw outputs, of any number and rank.
        priors: of an SSD head without any: a .npy, .csv or .json file, ``"coco-ssd"`` or ``"coco-ssd-fpn"``
            (docs/heads.md).
        prior_format: how the four numbers of a prior are read: centre y and x, height, width; and so on.
        variances: four factors of the offsets, in the order of the format, or text ("0.1,0.1,0.2,0.2").
        score_activation: what the scores of an SSD head still need.
        class_agnostic: boxes suppress each other across classes, and each counts with its best class alone.
        batch: images per call, or ``"dynamic"``.
        target: ``"portable"``, or ``"cpu"`` for rewrites that suit ONNX Runtime's CPU kernels.
        activations: dtype of the activation codes; results are the same.
        leaky_relu: ``"litert"`` equals LiteRT XNNPACK bit for bit, ``"float"`` is the real function (at most 1 LSB
            away); the same choice for sums, products, average pools, means, bilinear resizes and requantisations.
        arithmetic: for operators without a fused form that equals LiteRT: ``"litert"`` computes them step by step,
            ``"fused"`` keeps the faster operator (at most 1 LSB away).
        dequantize: write the float network of a quantised TFLite or QDQ ONNX source: the same weights, and activations
            that nothing rounds, for compilers without Q/DQ.
        float16: write weights and activations of a float network as float16; the head stays float32, and so does what
            meets numbers that float16 cannot hold on probe pictures, and on ``calibration`` where that is given.
        freeze_thresholds: write the thresholds as constants instead of optional inputs.
        any_size: take photographs of any size: the resize rule is in the file ([any size](docs/any-size.md)).
        quantize: quantise a float Keras or ONNX source to int8, with one weight scale per output channel or per tensor.
        symmetric: with ``quantize``: int8 activations, every zero-point 0, biases in float32, as TensorRT and many NPUs
            demand.
        calibration: photographs for that: a folder, or files; at least 8, better 50 to 500 of what it will see.
        percentile: share of each activation's values that its range keeps, such as 99.99; None keeps all of them.
        opset: of the file, 13 to 22; None is the lowest that the graph needs, which the oldest runtimes load.
        importer: ``"tf2onnx"`` is the fallback for TFLite files with operators that the native importer does not know.
        progress: called with 1 and the number of photographs after each of them.

    Returns:
        The finished model's bytes and its document.

    Raises:
        ConversionError: the options are incomplete, the source cannot be converted, or the output cannot be written.
        DataError: the calibration folder holds no image.
        ImageError: one of its images cannot be read.
    """
    from converters.convert import convert as convert_file
    from converters.errors import OptionError
    from converters.options import ConvertOptions

    source = Path(source)
    if percentile is not None and calibration is None:
        raise OptionError("`percentile` is about calibration: add `calibration` DIR, or leave it out")
    described = replace(
        describing_options(
            config=config,
            anchors=anchors,
            anchor_unit=anchor_unit,
            classes=classes,
            resize=resize,
            color=color,
            rescaling=rescaling,
            input_size=input_size,
            head=head,
            class_agnostic=class_agnostic,
            priors=priors,
            prior_format=prior_format,
            variances=variances,
            score_activation=score_activation,
        ),
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        max_detections=max_detections,
    )
    options = ConvertOptions(
        source=described,
        batch=batch,
        target=target,
        activations=activations,
        leaky_relu=leaky_relu,
        arithmetic=arithmetic,
        dequantize=dequantize,
        float16=float16,
        freeze_thresholds=freeze_thresholds,
        any_size=any_size,
        quantize=quantize,
        symmetric=symmetric,
        calibration=None if calibration is None else _calibration(calibration, percentile, progress),
        opset=opset,
        importer=importer,
    )
    destination = Path(f"{source.stem}.onnx") if output is None else Path(output)
    lists = [Path(text) for text in (anchors, classes, priors) if isinstance(text, str | os.PathLike)]
    inputs = chain(lists, () if calibration is None else _photographs(calibration))
    return convert_file(source, destination, options, force=force, inputs=inputs)


def describe(
    source: PathLike,
    *,
    source_options: SourceOptions | None = None,
    output: PathLike | None = None,
    force: bool = False,
    inputs: Sequence[PathLike] = (),
) -> SourceDescription:
    """Tell what is known of a source model, and write it as its sidecar.

    Args:
        source: a detector as its training left it.
        source_options: what its file and sidecar do not say (``describing_options``).
        output: the sidecar to write, ``<stem>.xdet.json`` beside the source for all commands to find it; None writes
            nothing.
        force: replace an existing ``output``.
        inputs: files that ``source_options`` names, which are never replaced.

    Raises:
        IncompleteError: facts are missing or contradict each other; it holds those that are known.
        ConversionError: the source cannot be read, or the output cannot be written.
    """
    from converters.description.precedence import known_facts
    from converters.description.sidecar import sidecar_data, sidecar_text
    from converters.description.statements import SourceOptions
    from converters.errors import ConversionError, IncompleteError
    from converters.files import require_writable, write_output
    from converters.sources import describe as describe_source
    from converters.sources import open_source

    path = Path(source)
    source_options = source_options or SourceOptions()
    source_model = open_source(path, size_hw=source_options.input_size)
    facts = known_facts(path, source_model.importer.facts(source_model.model), source_options)
    try:
        description = describe_source(source_model, source_options)
    except ConversionError as error:
        raise IncompleteError(error, facts) from error
    names = list(description.spec.class_names)  # those that are assumed, too
    facts = tuple((name, names if name == "class_names" else value, who) for name, value, who in facts)
    description = replace(description, facts=facts)
    if output is not None:
        target = Path(output)
        require_writable(target, inputs=[path, *map(Path, inputs)], force=force)
        write_output(target, sidecar_text(sidecar_data(description, target.parent)).encode("utf-8"))
    return description


def describing_options(
    *,
    config: PathLike | None = None,
    anchors: str | Sequence[tuple[float, float]] | None = None,
    anchor_unit: Literal["cell", "image", "pixel"] | None = None,
    classes: str | Sequence[str] | None = None,
    resize: ResizeRule | None = None,
    color: Color | None = None,
    rescaling: str | tuple[float, float] | None = None,
    input_size: str | tuple[int, int] | None = None,
    head: str = "auto",
    class_agnostic: bool = False,
    priors: PathLike | None = None,
    prior_format: PriorFormat | None = None,
    variances: str | Sequence[float] | None = None,
    score_activation: ScoreActivation | None = None,
) -> SourceOptions:
    """What a caller says of a source, as every command that takes a source reads it; see ``convert``.

    Raises:
        ConversionError: a value that cannot be meant, or a file that cannot be read.
    """
    from converters.description.priors import PriorStatement, parse_variances
    from converters.description.statements import SourceOptions
    from converters.description.values import located, parse_anchors, parse_class_names, parse_rescaling, parse_size
    from converters.errors import OptionError
    from converters.spec import Rescaling

    with located("`rescaling`", OptionError):
        pair = parse_rescaling(rescaling) if isinstance(rescaling, str) else rescaling and Rescaling(*rescaling)
    return SourceOptions(
        config=None if config is None else Path(config),
        anchors=_read(anchors, parse_anchors),
        anchor_unit=anchor_unit,
        class_names=_read(classes, parse_class_names),
        resize=resize,
        color=color,
        rescaling=pair,
        input_size=None if input_size is None else parse_size(input_size),
        head=head,
        class_agnostic=class_agnostic,
        priors=PriorStatement(
            None if priors is None else os.fspath(priors),
            prior_format,
            cast("Four | None", _read(variances, parse_variances)),  # their number is checked
            score_activation,
        ),
    )


def _calibration(
    photographs: PathLike | Sequence[PathLike], percentile: float | None, progress: Callable[[int, int], None] | None
) -> Calibration:
    """The photographs as ``detect`` would feed them to the finished model, in the order of their names."""
    from converters.calibration import Calibration
    from xdet.pictures.preparation import Preparation, prepare_many

    images = _photographs(photographs)

    def pixels(image: ImageInput) -> Iterator[NDArray[np.uint8]]:
        return (prepared.pixels for prepared in prepare_many(images, Preparation(image)))

    def advance(count: int) -> None:
        if progress is not None:
            progress(count, len(images))

    return Calibration(pixels, len(images), percentile, advance)


def _photographs(calibration: PathLike | Sequence[PathLike]) -> list[Path]:
    from xdet.pictures.images import find_images

    paths = [calibration] if isinstance(calibration, str | os.PathLike) else calibration
    return find_images([Path(path) for path in paths])


def _read(value: str | Sequence[T] | None, parse: Callable[[str], tuple[T, ...]]) -> tuple[T, ...] | None:
    """A list as the caller gave it, or as its text or file reads."""
    if value is None:
        return None
    return parse(value) if isinstance(value, str) else tuple(value)
