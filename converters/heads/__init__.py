"""The head seam: kind -> head. Whoever adds a head adds its file and its row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.heads.blazeface import BlazeFace
from converters.heads.decoded import YoloV5, YoloV8
from converters.heads.fastestdet import FastestDet
from converters.heads.fomo import Fomo
from converters.heads.grids import YoloV3, YoloV5Raw
from converters.heads.ssd import Ssd
from converters.heads.yolo_v2 import YoloV2
from converters.heads.yolox import Yolox

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.heads.base import Head

HEADS: dict[str, type[Head]] = {
    "yolo_v2": YoloV2,
    "yolo_v3": YoloV3,
    "yolo_v5": YoloV5,
    "yolo_v5_raw": YoloV5Raw,
    "yolo_v8": YoloV8,
    "yolox": Yolox,
    "ssd": Ssd,
    "fomo": Fomo,
    "blazeface": BlazeFace,
    "fastestdet": FastestDet,
}


def head_from_dict(data: Mapping[str, Any]) -> Head:
    """Read what a head's ``to_dict`` wrote.

    Raises:
        ValueError: no head of the table, or malformed parameters.
    """
    kind = data["kind"]
    if not isinstance(kind, str) or kind not in HEADS:
        raise ValueError(f"head must be one of {', '.join(HEADS)}, got {kind!r}")
    return HEADS[kind].from_dict(data)
