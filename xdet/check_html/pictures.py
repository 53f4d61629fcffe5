"""Photographs on which detections differ: the source's boxes and the runtime's side by side, as JPEG inside the page."""

from __future__ import annotations

import base64
import io
import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from xdet.check_html.markup import shown
from xdet.check_report import CHANGE_CAUSES
from xdet.detections import Detections
from xdet.images import read_image
from xdet.render import draw_detections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdet.checking.result import CheckResult, DetectionChange
    from xdet.preparation import Photograph

MOST_PICTURES = 6
FAULTS = frozenset({"layer", "head", "iou-rule"})  # causes that are no rounding
LONGEST_SIDE = 420  # pixels
QUALITY = 80


def pictures_html(result: CheckResult, photographs: Sequence[Photograph]) -> str:
    """The photographs with the gravest and most changes, per runtime; only boxes that differ are drawn.

    Args:
        result: the check.
        photographs: what it ran on, in its order.
    """
    groups: dict[tuple[str, str], list[DetectionChange]] = defaultdict(list)
    for change in result.changes:
        groups[change.image, change.runtime].append(change)
    by_name = dict(zip(result.images, photographs, strict=True))
    worst = sorted(groups.items(), key=lambda group: _gravity(group[1]), reverse=True)  # of equals, the first
    figures = [
        _figure(by_name[image], image, runtime, changes)
        for (image, runtime), changes in worst[:MOST_PICTURES]
    ]
    if len(worst) > MOST_PICTURES:
        more = len(worst) - MOST_PICTURES
        figures.append(
            f"<p class=soft>These are the gravest. {more} more pairs of photograph and runtime have changes; the table lists "
            f"them.</p>"
        )
    return "".join(figures)


def _gravity(changes: Sequence[DetectionChange]) -> tuple[int, int, int]:
    """How bad a picture is: changes that a fault causes, detections lost or new, and changes in all."""
    faults = sum(change.cause in FAULTS for change in changes)
    return faults, sum(change.kind != "moved" for change in changes), len(changes)


def _figure(photograph: Photograph, image: str, runtime: str, changes: Sequence[DetectionChange]) -> str:
    small = _shrink(_read(photograph))
    sides = (("the source", "new", "source"), (runtime, "lost", "runtime"))
    pair = "".join(
        _side(small, shown(image), changes, title=shown(title), absent=absent, side=side)
        for title, absent, side in sides
    )
    told = "".join(
        f"<li>box {c.anchor} {c.kind}: {shown(CHANGE_CAUSES[c.cause])}: {shown(c.message)}</li>"
        for c in changes
    )
    return f"<h3>{shown(image)}, {shown(runtime)}</h3><div class=pair>{pair}</div><ul class=soft>{told}</ul>"


def _side(
    small: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]],
    image: str,
    changes: Sequence[DetectionChange],
    *,
    title: str,
    absent: str,
    side: str,
) -> str:
    """One picture, its names as HTML; a box has its colour on both sides, and is left out where the side does not keep it."""
    height, width = small.shape[:2]
    kept = [i for i, change in enumerate(changes) if change.kind != absent]
    boxes = [getattr(changes[i], f"{side}_box_xyxy") for i in kept]
    found = Detections(
        image=image,
        width=width,
        height=height,
        boxes_xyxy=np.clip(np.array(boxes, np.float32).reshape(-1, 4), 0, 1),
        scores=np.array([getattr(changes[i], f"{side}_score") for i in kept], np.float32),
        classes=np.array(kept, np.int32),
        anchors=np.array([changes[i].anchor for i in kept], np.int32),
        class_names=tuple(f"box {change.anchor}" for change in changes),
    )
    encoded = io.BytesIO()
    Image.fromarray(draw_detections(small, found)).save(encoded, "JPEG", quality=QUALITY)
    data = base64.b64encode(encoded.getvalue()).decode("ascii")
    count = f"{len(boxes)} of the boxes that differ" if boxes else "none of the boxes that differ"
    return (
        f'<figure><img alt="{image}: {count}, {title}" width={width} height={height} '
        f'src="data:image/jpeg;base64,{data}"><figcaption>{title}: {count}</figcaption></figure>'
    )


def _read(photograph: Photograph) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    if isinstance(photograph, str | os.PathLike):
        return read_image(Path(photograph), honour_exif=True)
    return photograph


def _shrink(
    picture: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]],
) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    small = Image.fromarray(picture)
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return np.array(small)
