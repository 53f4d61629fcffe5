"""Boxes for runtimes that end at the raw head: the numpy oracle, given what it needs or told what is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from xdet.decode import detect_from_head
from xdet.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from converters.spec import DetectorSpec, Thresholds
    from xdet.detections import BatchDetections


def decoder_for(
    spec: DetectorSpec, *, file: str
) -> Callable[[NDArray[np.float32], Thresholds], BatchDetections]:
    """The function from a raw head, float32 ``(N, grid_h, grid_w, channels)``, and thresholds to boxes.

    Raises:
        ModelError: no anchors or no classes are known, or they do not fit the head.
    """
    if spec.anchors is None or not spec.class_names:
        missing = "anchors" if spec.anchors is None else "class names"
        raise ModelError(
            f"'{file}' ends at the raw head and no {missing} are known, so boxes cannot be decoded; "
            f"convert its source with --anchors and --classes, or write both into the source's sidecar"
        )
    try:
        decodable = replace(spec, head="yolo_v2")
    except ValueError as error:
        raise ModelError(
            f"'{file}' ends at a raw head that is not a YOLO v2 head: {error}; correct --anchors and --classes"
        ) from error
    return lambda head, thresholds: detect_from_head(head, decodable, thresholds)
