"""A report as one page of HTML that loads nothing: style, charts and pictures are inside, and no program runs in it.

``shown`` is the escaping of HTML: whatever comes from files goes through it.
"""

from __future__ import annotations

import base64
import html
import math
import re
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from converters.errors import counted
from xdet.writing import blocks
from xdet.writing.blocks import pieces, plain_value
from xdet.writing.files import PAGE_START
from xdet.writing.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xdet.writing.blocks import Block, Cell, Inline, Picture, Report, Section, Value

STYLE = Path(__file__).with_name("page.css")
LOOKS = {"incomplete": "skipped", "tolerated": "skipped"}  # statuses that share the colours of another
ROW, LABEL, WIDTH, COUNT = 18, 66, 320, 92  # pixels of bars: a row, its label, everything, its count
CELL, WIDE_CELL, NAME = 26, 40, 92  # pixels of strips: a cell of whole codes, of fractions; a strip's name
LONG = 60  # characters of a cell that may wrap


def report_page(report: Report) -> str:
    """The whole page; equal reports give equal bytes."""
    title, look = shown(report.title), LOOKS.get(report.status or "", report.status)
    lead = "".join(f"<p>{inline(line)}</p>" for line in report.lead)
    verdict = f"<p class='verdict {look}'>{shown(report.verdict)}</p>" if report.verdict else ""
    body = "".join(map(_section, report.shown_in("page")))
    return (
        f'{PAGE_START}<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE.read_text('utf-8')}</style></head><body>"
        f"<header><h1>{title}</h1>{lead}{verdict}</header><main>{body}</main></body></html>\n"
    )


def block_html(block: Block) -> str:  # noqa: PLR0911 - one for each kind of block
    """A block."""
    match block:
        case blocks.Text():
            return f"<p{' class=soft' if block.soft else ''}>{inline(block.content)}</p>"
        case blocks.Facts():
            entries = (f"<dt>{shown(term)}</dt><dd>{inline(value)}</dd>" for term, value in block.entries)
            return f"<dl>{''.join(entries)}</dl>"
        case blocks.Items():
            title = f"<p>{shown(block.title)}</p>" if block.title else ""
            return f"{title}{_list(map(inline, block.entries))}" if block.entries else title
        case blocks.Table():
            return _table(block)
        case blocks.Verdict():
            return _verdict(block)
        case blocks.Bars():
            return f"<figure>{_bars(block)}<figcaption>{shown(block.title)}</figcaption></figure>"
        case blocks.Strips():
            return _strips(block)
        case blocks.Pictures():
            title = f"<h3>{shown(block.title)}</h3>" if block.title else ""
            figures = "".join(map(_figure, block.pictures))
            return f"{title}<div class=pair>{figures}</div>{_list(map(shown, block.notes))}"
        case blocks.Commands():
            return f"<pre>{shown(chr(10).join(block.lines), lines=True)}</pre>"
        case blocks.Blanks():
            lines = (f"<div><dt>{shown(title)}</dt><dd></dd></div>" for title in block.titles)
            return f"<dl class=blanks>{''.join(lines)}</dl>"
        case blocks.Folded():
            return f"<details><summary>{shown(block.title)}</summary>{_blocks(block.blocks)}</details>"
        case blocks.Written():
            raise TypeError("a page shows no Markdown")


def shown(text: str, *, lines: bool = False) -> str:
    """A text as HTML: nothing in it is markup, unseen characters are escaped, line ends only on request."""
    if lines:
        return "\n".join(map(shown, text.split("\n")))
    return html.escape(printable(text), quote=True)


def inline(content: Inline) -> str:
    """A text with its numbers and names."""
    return "".join(map(_value, pieces(content)))


def _value(value: Value) -> str:
    """Of a number the digits for people; ``<data>`` holds it as the JSON does."""
    if isinstance(value, blocks.Code):
        return f"<code>{shown(value.text)}</code>"
    if isinstance(value, int | float):
        exact = repr(value) if math.isfinite(value) else "null"
        return f'<data value="{exact}">{plain_value(value)}</data>'
    return shown(value or "")


def _section(section: Section) -> str:
    title = f"<h2>{shown(section.title)}</h2>" if section.title else ""
    look = " class=alone" if section.alone else ""
    return f"<section{look}>{title}{_blocks(section.blocks)}</section>"


def _blocks(content: Iterable[Block]) -> str:
    """Verdicts and bars that follow each other stand side by side."""
    boxes: dict[type, str] = {blocks.Verdict: "parts", blocks.Bars: "charts"}
    parts = []
    for kind, group in groupby(content, type):
        part = "".join(map(block_html, group))
        parts.append(f"<div class={boxes[kind]}>{part}</div>" if kind in boxes else part)
    return "".join(parts)


def _list(items: Iterable[str]) -> str:
    entries = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul class=soft>{entries}</ul>" if entries else ""


def _table(table: blocks.Table) -> str:
    """A table in a box that scrolls; on a narrow screen every row is a list of titles and cells."""
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.headers)
    numeric = [any(isinstance(cell, int | float) for cell in column) for column in columns]
    head = "".join(
        f"<th scope=col{' class=number' if right else ''}>{shown(title)}</th>"
        for title, right in zip(table.headers, numeric, strict=True)
    )
    body = "".join(
        f"<tr{' class=fault' if i in table.faults else ''}>{''.join(map(_cell, row, table.headers))}</tr>"
        for i, row in enumerate(table.rows)
    )
    return (
        "<div class=scroll tabindex=0 role=region aria-label=table>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(content: Inline, title: str) -> str:
    text = inline(content)
    if isinstance(content, int | float):
        look = " class=number"
    else:
        look = " class=wide" if len(re.sub("<[^>]*>", "", text)) > LONG else ""  # what is seen, without markup
    return f'<td{look} data-title="{shown(title)}">{text}</td>'


def _verdict(block: blocks.Verdict) -> str:
    lines = "".join(f"<p class=soft>{inline(line)}</p>" for line in block.lines)
    findings = "".join(
        f"<li>{f'<b>{shown(wrong.cause)}</b>: ' if wrong.cause else ''}{shown(wrong.message)}"
        f"{f'<br>→ {shown(wrong.advice)}' if wrong.advice else ''}</li>"
        for wrong in block.findings
    )
    listed = f"<ul>{findings}</ul>" if findings else ""
    return (
        f"<div class='part {LOOKS.get(block.status, block.status)}'><h3><b>{block.status}</b> {shown(block.title)}</h3>"
        f"{lines}{listed}</div>"
    )


def _figure(picture: Picture) -> str:
    width, height = picture.size_wh
    data = base64.b64encode(picture.data).decode("ascii")
    return (
        f'<figure><img alt="{shown(picture.alt)}" width={width} height={height} '
        f'src="data:image/jpeg;base64,{data}"><figcaption>{shown(picture.caption)}</figcaption></figure>'
    )


def _bars(block: blocks.Bars) -> str:
    """One value is as visible as a million; bars behind the last one with a value are left out."""
    last = max((i for i, (_, count) in enumerate(block.bars) if count), default=0)
    bars = block.bars[: max(last, 1) + 1]
    most = max(math.log10(1 + count) for _, count in bars)
    rows = "".join(_bar(label, count, ROW * i, most) for i, (label, count) in enumerate(bars))
    counts = ", ".join(f"{label}: {count:,}" for label, count in bars)
    foot = ROW * len(bars)
    scale = f'<text class=scale x="{LABEL}" y="{foot + 13}">bars: logarithmic scale; counts: exact</text>'
    return (
        f'<svg viewBox="0 0 {WIDTH} {foot + 20}" role=img aria-label="{shown(block.title)}: {shown(counts)}">'
        f"{rows}{scale}</svg>"
    )


def _bar(label: str, count: int, y: int, most: float) -> str:
    length = (WIDTH - LABEL - COUNT) * math.log10(1 + count) / most if most else 0.0
    return (
        f'<text x="{LABEL - 6}" y="{y + 13}" text-anchor=end>{shown(label)}</text>'
        f'<rect class=bar x="{LABEL}" y="{y + 2}" width="{length:.1f}" height="{ROW - 4}" />'
        f'<text x="{LABEL + length + 5:.1f}" y="{y + 13}">{count:,}</text>'
    )


def _strips(block: blocks.Strips) -> str:
    """A fault has its own colour and a frame."""
    cells = [cell for _, row in block.rows for cell in row if cell is not None]
    count = max((len(row) for _, row in block.rows), default=0)
    width = CELL if all(isinstance(cell.value, int) for cell in cells) else WIDE_CELL
    foot = CELL * len(block.rows)
    rows = "".join(
        f'<text x=0 y="{CELL * i + 17}">{shown(name)}</text>'
        + "".join(_strip_cell(c, NAME + width * j, CELL * i, width) for j, c in enumerate(row) if c is not None)
        for i, (name, row) in enumerate(block.rows)
    )
    numbers = "".join(
        f'<text x="{NAME + width * i + width / 2}" y="{foot + 14}" text-anchor=middle>{i + 1}</text>'
        for i in range(count)
    )
    return (
        f'<div class=scroll tabindex=0 role=region aria-label=chart><svg width="{NAME + width * count + 2}" '
        f'height="{foot + 20}" role=img aria-label="{shown(block.title)}; the table below has the numbers">'
        f"{rows}<text x=0 y={foot + 14}>layer</text>{numbers}</svg></div>"
        f"<p class='soft narrow'>{counted(count, 'layer', 'layers')}; the chart scrolls sideways.</p>"
    )


def _strip_cell(cell: Cell, x: int, y: int, width: int) -> str:
    kind = "none" if not cell.value else "cell fault" if cell.fault else "cell"
    ink = " class=on" if cell.value else ""
    return (
        f'<g><title>{shown(cell.title)}</title><rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{CELL}" />'
        f'<text{ink} x="{x + width / 2}" y="{y + 17}" text-anchor=middle>{_short(cell.value)}</text></g>'
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
