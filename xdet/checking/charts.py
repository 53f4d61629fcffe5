"""The page's charts, as inline SVG: how many head values differ by how much, and every layer's worst difference.

Photographs on which detections differ: the source's boxes and the runtime's side by side, as JPEG inside the page.
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from xdet.checking.report import CHANGE_CAUSES
from xdet.detections import Detections
from xdet.pictures.images import read_image
from xdet.pictures.render import draw_detections
from xdet.writing.html import shown
from xdet.writing.text import format_distance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdet.checking.layer_records import Layer, RealLayer, Unit
    from xdet.checking.result import CheckResult, DetectionChange, HistogramBar
    from xdet.pictures.preparation import Photograph

ROW, LABEL, WIDTH, COUNT = (
    18,
    66,
    320,
    92,
)  # pixels of a histogram: a bar's row, its label, everything, its count
CELL, WIDE_CELL, NAME = (
    26,
    40,
    92,
)  # pixels of the strip chart: a cell of whole codes, of fractions; the name of a strip
STRIPS = ("accumulated", "local", "kernel")


def histogram_svg(bars: Sequence[HistogramBar], title: str) -> str:
    """Head values by their difference, on a logarithmic scale: one value is as visible as a million.

    Bars behind the last value that differs are left out.
    """
    last = max((i for i, bar in enumerate(bars) if bar.values), default=0)
    most = max(math.log10(1 + bar.values) for bar in bars)
    rows = [_histogram_row(bars, i, most) for i in range(max(last, 1) + 1)]
    height = ROW * len(rows) + 2
    told = ", ".join(f"{_range(bars, i)}: {bars[i].values:,}" for i in range(len(rows)))
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role=img aria-label="{shown(title)}: {shown(told)}">'
        f"{''.join(rows)}</svg>"
    )


def _histogram_row(bars: Sequence[HistogramBar], index: int, most: float) -> str:
    values, y = bars[index].values, ROW * index
    length = (WIDTH - LABEL - COUNT) * math.log10(1 + values) / most if most else 0.0
    return (
        f'<text x="{LABEL - 6}" y="{y + 13}" text-anchor=end>{shown(_range(bars, index))}</text>'
        f'<rect class=bar x="{LABEL}" y="{y + 2}" width="{length:.1f}" height="{ROW - 4}" />'
        f'<text x="{LABEL + length + 5:.1f}" y="{y + 13}">{values:,}</text>'
    )


def _range(bars: Sequence[HistogramBar], index: int) -> str:
    end = bars[index].up_to
    if math.isinf(end):
        return f"> {bars[index - 1].up_to:g}"
    return "equal" if end == 0 else f"≤ {end:g}"  # one sign says both ends: the bar before ends where it does


def layers_svg(layers: Sequence[Layer | RealLayer], unit: Unit) -> str:
    """A strip per distance with a cell per layer: the largest difference; a fault has its own colour and a frame."""
    strips = [name for name in STRIPS if any(getattr(layer, name) is not None for layer in layers)]
    whole = all(isinstance(getattr(layer, name).worst, int) for layer in layers for name in strips)
    cell, foot = CELL if whole else WIDE_CELL, CELL * len(strips)
    rows = "".join(_strip(layers, name, CELL * i, (cell, unit)) for i, name in enumerate(strips))
    numbers = "".join(
        f'<text x="{NAME + cell * i + cell / 2}" y="{foot + 14}" text-anchor=middle>{i + 1}</text>'
        for i in range(len(layers))
    )
    width, height = NAME + cell * len(layers) + 2, foot + 20
    told = "in LSB" if unit == "LSB" else f"as a share {unit}"
    return (
        f'<div class=scroll tabindex=0 role=region aria-label=chart><svg width="{width}" height="{height}" role=img '
        f'aria-label="worst difference of every layer {told}; the table below has the numbers">'
        f"{rows}<text x=0 y={foot + 14}>layer</text>{numbers}</svg></div>"
        f"<p class='soft narrow'>{len(layers)} layers; the chart scrolls sideways.</p>"
    )


def _strip(layers: Sequence[Layer | RealLayer], name: str, y: int, look: tuple[int, Unit]) -> str:
    """One distance of every layer; ``look`` is the width of a cell and the unit."""
    width, unit = look
    faults = {
        "local": [layer.is_mistranslated for layer in layers],
        "kernel": [layer.is_misrun for layer in layers],
    }.get(name, [False] * len(layers))
    distances = [getattr(layer, name) for layer in layers]
    cells = (
        _cell(layer, distance.worst, (NAME + width * i, y), (width, unit), wrong=wrong)
        for i, (layer, distance, wrong) in enumerate(zip(layers, distances, faults, strict=True))
        if distance is not None
    )
    return f'<text x=0 y="{y + 17}">{name}</text>{"".join(cells)}'


def _cell(
    layer: Layer | RealLayer, worst: float, at_xy: tuple[int, int], look: tuple[int, Unit], *, wrong: bool
) -> str:
    (x, y), (width, unit) = at_xy, look
    kind = "none" if not worst else "cell fault" if wrong else "cell"
    ink = " class=on" if worst else ""
    return (
        f"<g><title>{shown(layer.tensor)} ({shown(layer.operator)}): {format_distance(worst)} {unit}</title>"
        f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{CELL}" />'
        f'<text{ink} x="{x + width / 2}" y="{y + 17}" text-anchor=middle>{_short(worst)}</text></g>'
    )


def _short(worst: float) -> str:
    """A distance in at most five signs.

    Example:
        >>> _short(3), _short(0.8734), _short(2.3e-07), _short(12.34)
        ('3', '0.87', '2e-7', '12')
    """
    if isinstance(worst, int) or worst == 0 or not math.isfinite(worst):
        return f"{worst:g}"
    if worst < 0.01:
        return f"{worst:.0e}".replace("e-0", "e-")
    return f"{worst:.2f}" if worst < 10 else f"{worst:.0f}"


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
