"""``convert``: the library call behind ``xdet convert``, with one keyword per option."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.pipeline import Conversion

PathLike = str | os.PathLike[str]


def convert(
    source: PathLike,
    output: PathLike | None = None,
    *,
    force: bool = False,
    config: PathLike | None = None,
    anchors: str | Sequence[tuple[float, float]] | None = None,
    anchor_unit: Literal["cell", "image"] | None = None,
    classes: str | Sequence[str] | None = None,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    max_detections: int | None = None,
    head: Literal["auto", "yolo_v2", "none"] = "auto",
    batch: int | Literal["dynamic"] = 1,
    target: Literal["portable", "cpu"] = "portable",
    activations: Literal["uint8", "int8"] = "uint8",
    leaky_relu: Literal["litert", "float"] = "litert",
    freeze_thresholds: bool = False,
) -> Conversion:
    """Convert a detector to one end-to-end ONNX file.

    Args:
        source: an int8 or uint8 TFLite detector of the Tiny YOLO v2 family.
        output: the ONNX file; ``<stem>.onnx`` in the working directory if None.
        force: replace an existing ``output``.
        config: a yaml of the ST model zoo (2.x to 4.x) that describes the source.
        anchors: (width, height) pairs, or text or a file with them ("w,h w,h ...").
        anchor_unit: unit of the anchors: grid cells, or fractions of the image.
        classes: class names, or text ("person,car") or a file with one name per line.
        score_threshold: default of the finished model, 0..1; 0.5 if None.
        iou_threshold: default of the finished model, 0..1; 0.5 if None.
        max_detections: rows of the finished model's outputs; 100 if None.
        head: ``"none"`` ends the graph at the raw head.
        batch: images per call, or ``"dynamic"``.
        target: ``"portable"``, or ``"cpu"`` for rewrites that suit ONNX Runtime's CPU kernels.
        activations: dtype of the activation codes; results are the same.
        leaky_relu: ``"litert"`` equals LiteRT XNNPACK bit for bit, ``"float"`` is the real function (at most 1 LSB away).
        freeze_thresholds: write the thresholds as constants instead of optional inputs.

    Returns:
        The finished model's bytes and its document.

    Raises:
        ConversionError: the options are incomplete, the source cannot be converted, or the output cannot be written.
    """
    from converters.description.anchors import parse_anchors
    from converters.description.classes import parse_class_names
    from converters.description.settings import SourceOptions
    from converters.options import ConvertOptions
    from converters.pipeline import convert as convert_file

    source = Path(source)
    described = SourceOptions(
        config=None if config is None else Path(config),
        anchors=parse_anchors(anchors) if isinstance(anchors, str) else _pairs(anchors),
        anchor_unit=anchor_unit,
        class_names=parse_class_names(classes) if isinstance(classes, str) else _names(classes),
        head=head,
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
        freeze_thresholds=freeze_thresholds,
    )
    destination = Path(f"{source.stem}.onnx") if output is None else Path(output)
    return convert_file(source, destination, options, force=force)


def _pairs(anchors: Sequence[tuple[float, float]] | None) -> tuple[tuple[float, float], ...] | None:
    return None if anchors is None else tuple(anchors)


def _names(classes: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if classes is None else tuple(classes)
