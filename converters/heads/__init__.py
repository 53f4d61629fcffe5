"""The head seam: kind -> head. Whoever adds a head adds its file and its row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.heads.yolo_v2 import YoloV2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.heads.base import Head

HEADS: dict[str, type[Head]] = {"yolo_v2": YoloV2}


def head_from_dict(data: Mapping[str, Any]) -> Head:
    """Read what a head's ``to_dict`` wrote.

    Raises:
        ValueError: no head of the table, or malformed parameters.
    """
    kind = data["kind"]
    if not isinstance(kind, str) or kind not in HEADS:
        raise ValueError(f"head must be one of {', '.join(HEADS)}, got {kind!r}")
    return HEADS[kind].from_dict(data)
