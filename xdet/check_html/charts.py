"""The page's charts, as inline SVG: how many head values differ by how much, and every layer's worst difference."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from xdet.check_html.markup import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdet.checking.result import HistogramBar
    from xdet.layers import Layer

ROW, LABEL, WIDTH, COUNT = (
    18,
    66,
    320,
    92,
)  # pixels of a histogram: a bar's row, its label, everything, its count
CELL, NAME = 26, 92  # pixels of the strip chart: a layer's cell, the name of a strip
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


def layers_svg(layers: Sequence[Layer]) -> str:
    """Three strips with a cell per layer: the largest difference in codes; a fault has its own colour and a frame."""
    rows = "".join(_strip(layers, name, CELL * i) for i, name in enumerate(STRIPS))
    numbers = "".join(
        f'<text x="{NAME + CELL * i + CELL / 2}" y="{CELL * 3 + 14}" text-anchor=middle>{i + 1}</text>'
        for i in range(len(layers))
    )
    width, height = NAME + CELL * len(layers) + 2, CELL * 3 + 20
    return (
        f'<div class=scroll tabindex=0 role=region aria-label=chart><svg width="{width}" height="{height}" role=img '
        f'aria-label="worst difference of every layer in LSB; the table below has the numbers">'
        f"{rows}<text x=0 y={CELL * 3 + 14}>layer</text>{numbers}</svg></div>"
    )


def _strip(layers: Sequence[Layer], name: str, y: int) -> str:
    worst = [getattr(layer, name).worst_lsb for layer in layers]
    faults = {
        "local": [layer.is_mistranslated for layer in layers],
        "kernel": [layer.is_misrun for layer in layers],
    }.get(name, [False] * len(layers))
    cells = (
        _cell(layer, value, (NAME + CELL * i, y), wrong=wrong)
        for i, (layer, value, wrong) in enumerate(zip(layers, worst, faults, strict=True))
    )
    return f'<text x=0 y="{y + 17}">{name}</text>{"".join(cells)}'


def _cell(layer: Layer, worst: int, at_xy: tuple[int, int], *, wrong: bool) -> str:
    x, y = at_xy
    look = "none" if not worst else "cell fault" if wrong else "cell"
    ink = " class=on" if worst else ""
    return (
        f"<g><title>{shown(layer.tensor)} ({shown(layer.operator)}): {worst} LSB</title>"
        f'<rect class="{look}" x="{x}" y="{y}" width="{CELL}" height="{CELL}" />'
        f'<text{ink} x="{x + CELL / 2}" y="{y + 17}" text-anchor=middle>{worst}</text></g>'
    )
