"""The page's charts, as inline SVG: how many head values differ by how much, and every layer's worst difference."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from xdet.check_html.markup import shown
from xdet.report import format_distance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdet.checking.result import HistogramBar
    from xdet.layer_records import Layer, RealLayer, Unit

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
