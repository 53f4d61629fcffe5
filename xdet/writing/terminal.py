"""A report as text for a terminal: lines that fit a width, whole words, and nothing that a terminal would obey.

A table that is too wide is tried in turn with cells that wrap between words; with its first column as lines above the
rows; cut into several tables that repeat the columns which name a row; and as one paragraph per row. No cell is ever
cut.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import groupby, pairwise, zip_longest
from typing import TYPE_CHECKING

from xdet.writing import blocks
from xdet.writing.blocks import plain
from xdet.writing.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xdet.writing.blocks import Block, Report

ENDLESS = 10**6
NARROWEST = 12  # columns of a cell that wraps
MOST_FINDINGS = 12  # of a verdict; the JSON has all
GAP = "  "
_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?( ?(%|x|[kMG]?B|ns|us|ms|s|px))?", re.ASCII)
Column = tuple[str, ...]  # its title, then its cells


def report_text(report: Report, width: int | None = None) -> str:
    """The report, without a final newline, in ``width`` columns; None never wraps."""
    room = width or ENDLESS
    parts = ["\n".join(line for lead in report.lead for line in wrapped(plain(lead), room))]
    for section in report.shown_in("terminal"):
        title = [f"{printable(section.title)}:"] if section.title else []
        body = [text for block in section.blocks if (text := block_text(block, room))]
        if body:
            parts.append("\n".join([*title, *body]))
    parts.append("\n".join(wrapped(report.verdict, room)))
    return "\n\n".join(part for part in parts if part)


def block_text(block: Block, width: int = ENDLESS) -> str:
    """A block, without a final newline; empty where a terminal does not show it."""
    return "\n".join(_lines(block, width))


def wrapped(text: str, width: int, *, first: str = "", rest: str | None = None) -> list[str]:
    r"""A text, escaped, in lines of whole words.

    >>> wrapped("one two three", 11, first="- ", rest="  ")
    ['- one two', '  three']
    """
    further = f"{first}{GAP}" if rest is None and not first.strip() else rest or ""
    lines, line, empty = [], first, True
    for word in printable(text).split(" "):
        longer = f"{line}{word}" if empty else f"{line} {word}"
        size = display_width(word)
        if display_width(longer) <= width or (empty and len(GAP) + size > width):
            line = longer
        else:
            lines.append(line.rstrip())
            line = (further if display_width(further) + size <= width else GAP) + word
        empty = False
    return [*lines, line.rstrip()]


def display_width(text: str) -> int:
    """Columns a terminal gives a text: two for wide East Asian characters, none for combining marks."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _lines(block: Block, width: int) -> Iterator[str]:
    match block:
        case blocks.Text():
            yield from wrapped(plain(block.content), width)
        case blocks.Facts():
            margin = max((display_width(printable(term)) for term, _ in block.entries), default=0)
            for term, value in block.entries:
                first = _padded(printable(term), margin) + GAP
                yield from wrapped(plain(value), width, first=first, rest=" " * margin + GAP)
        case blocks.Items():
            yield from wrapped(block.title, width) if block.title else ()
            shown = block.entries[: block.most]
            for entry in shown:
                yield from wrapped(plain(entry), width, first=GAP if block.title else "")
            if len(shown) < len(block.entries):
                yield f"{GAP}... and {len(block.entries) - len(shown)} more (--json has them all)"
        case blocks.Table():
            yield from _table(block, width)
        case blocks.Verdict():
            yield from _verdict(block, width)
        case _:  # pictures, charts, folded numbers: a page shows them
            return


def _verdict(block: blocks.Verdict, width: int) -> Iterator[str]:
    margin = " " * 11
    yield from wrapped(block.title, width, first=f"{block.status.upper():10} ", rest=margin)
    for line in block.lines:
        yield from wrapped(plain(line), width, first=margin)
    for finding in block.findings[:MOST_FINDINGS]:
        cause = f"{finding.cause}: " if finding.cause else ""
        yield from wrapped(f"{cause}{finding.message}", width, first=margin)
        if finding.advice:
            yield from wrapped(f"-> {finding.advice}", width, first=f"{margin}{GAP}")
    if len(block.findings) > MOST_FINDINGS:
        yield f"{margin}... and {len(block.findings) - MOST_FINDINGS} more (--json has them all)"


def _table(table: blocks.Table, width: int) -> list[str]:
    cells = [[printable(plain(cell)) for cell in row] for row in (table.headers, *table.rows)]
    columns = [tuple(column) for column in zip(*cells, strict=True)]
    whole = _chunks(columns, table.keys, width)
    below = _chunks(columns[1:], max(table.keys - 1, 0), width - len(GAP))
    if whole and (not below or len(whole) <= len(below)):
        tables = [_grid(*chunk) for chunk in whole]
    elif below:
        tables = [_grouped(columns[0], *chunk) for chunk in below]
    else:
        return [line for name, *row in cells[1:] for line in (name, *_paragraph(cells[0][1:], row, width))]
    return [line for lines in tables for line in ("", *lines)][1:]


def _paragraph(titles: Sequence[str], row: Sequence[str], width: int) -> list[str]:
    parts = (f"{title} {cell}" for title, cell in zip(titles, row, strict=True) if cell)
    return wrapped("; ".join(parts), width, first=GAP)


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None


def _fitted(columns: Sequence[Column], width: int) -> list[int] | None:
    """A width per column, the widest ones wrapped; None where not even the longest words fit."""
    widths = [max(map(display_width, column)) for column in columns]
    least = [_least(column) for column in columns]
    room = width - len(GAP) * (len(columns) - 1)
    if sum(least) > room:
        return None
    while sum(widths) > room:
        spare = [have - need for have, need in zip(widths, least, strict=True)]
        widest = max(range(len(widths)), key=lambda i: (spare[i] > 0, widths[i]))
        widths[widest] -= 1
    return widths


def _least(column: Column) -> int:
    """The narrowest that a column gets: numbers and words stay whole, and no cell becomes a tower of words."""
    words = [word for cell in column for word in ([cell] if _is_number(cell) else cell.split(" "))]
    body = max(map(display_width, column[1:]), default=0)
    return max(*map(display_width, words), min(body, NARROWEST))


def _chunks(columns: Sequence[Column], keys: int, width: int) -> list[tuple[Sequence[Column], list[int]]]:
    """Few tables of about as many columns each, with the columns that name a row; none where one does not fit."""
    names, rest = columns[:keys], columns[keys:]
    for count in range(1, max(len(rest), 1) + 1) if columns else ():
        ends = [round(len(rest) * i / count) for i in range(count + 1)]
        parts = [(*names, *rest[start:end]) for start, end in pairwise(ends)]
        widths = [fitted for part in parts if (fitted := _fitted(part, width)) is not None]
        if len(widths) == count:
            return list(zip(parts, widths, strict=True))
    return []


def _grouped(names: Column, columns: Sequence[Column], widths: Sequence[int]) -> list[str]:
    """The first column as lines above the rows that share it."""
    head, *blocks_of_rows = _row_blocks(columns, widths)
    lines = [names[0], *(f"{GAP}{line}" for line in (*head, _rule(widths)))]
    for name, group in groupby(zip(names[1:], blocks_of_rows, strict=True), key=lambda row: row[0]):
        lines += [name, *(f"{GAP}{line}" for _, block in group for line in block)]
    return lines


def _grid(columns: Sequence[Column], widths: Sequence[int]) -> list[str]:
    head, *blocks_of_rows = _row_blocks(columns, widths)
    return [*head, _rule(widths), *(line for block in blocks_of_rows for line in block)]


def _rule(widths: Sequence[int]) -> str:
    return GAP.join("-" * width for width in widths)


def _row_blocks(columns: Sequence[Column], widths: Sequence[int]) -> list[list[str]]:
    """The lines of the titles and of each row; a column of numbers only is set to the right."""
    right = [any(c[1:]) and all(not cell or _is_number(cell) for cell in c[1:]) for c in columns]
    row_blocks = []
    for row in zip(*columns, strict=True):
        cells = [
            [cell] if _is_number(cell) else wrapped(cell, width, rest="")
            for cell, width in zip(row, widths, strict=True)
        ]
        lines = zip_longest(*cells, fillvalue="")
        row_blocks.append([GAP.join(map(_padded, line, widths, right)).rstrip() for line in lines])
    return row_blocks


def _padded(text: str, width: int, right: bool = False) -> str:  # noqa: FBT001, FBT002 - mapped over columns
    padding = " " * (width - display_width(text))
    return padding + text if right else text + padding
