"""The head seam: one row and one file per head. Whoever adds a head adds these two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.heads.blazeface import BlazeFace
from converters.heads.decoded import YoloV5, YoloV8
from converters.heads.fastestdet import FastestDet
from converters.heads.fomo import Fomo
from converters.heads.grids import StYoloX, YoloV3, YoloV5Raw
from converters.heads.ssd import Ssd
from converters.heads.yolo_v2 import YoloV2
from converters.heads.yolox import Yolox

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.heads.base import Head

HEADS: dict[str, type[Head]] = {
    "yolo_v2": YoloV2,
    "yolo_v3": YoloV3,
    "st_yolo_x": StYoloX,
    "yolo_v5_raw": YoloV5Raw,
    "yolo_v5": YoloV5,
    "yolo_v8": YoloV8,
    "yolox": Yolox,
    "fomo": Fomo,
    "fastestdet": FastestDet,
    "blazeface": BlazeFace,
    "ssd": Ssd,
}
"""What ``--head`` takes. A finished file names its head by ``Head.kind``: that of ``st_yolo_x`` is ``yolo_v3``."""


def head_from_dict(data: Mapping[str, Any]) -> Head:
    """Read what a head's ``to_dict`` wrote.

    Raises:
        ValueError: no head of the table, or malformed parameters.
    """
    kind, kinds = data["kind"], {head.kind: head for name, head in HEADS.items() if name == head.kind}
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"head must be one of {', '.join(kinds)}, got {kind!r}")
    return kinds[kind].from_dict(data)
