"""Pieces of HTML: whatever comes from files goes through ``shown``, every number through ``number``."""

from __future__ import annotations

import html
import math
import re
from typing import TYPE_CHECKING

from xdet.writing.text import format_distance, printable

if TYPE_CHECKING:
    from collections.abc import Sequence


def shown(text: str) -> str:
    """A text as HTML: nothing in it is markup, and characters that nobody sees are escaped."""
    return html.escape(printable(text), quote=True)


def number(value: float | None) -> str:
    """A number for people, three digits of a distance and all of a count; ``<data>`` holds it as the JSON does."""
    if value is None:
        return ""
    exact = repr(value) if math.isfinite(value) else "null"
    told = f"{value:,}" if isinstance(value, int) else format_distance(value)
    return f'<data value="{exact}">{told}</data>'


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, faults: Sequence[bool] = ()) -> str:
    """A table in a box that scrolls; on a narrow screen every row is a list of titles and cells.

    Args:
        headers: titles, as text.
        rows: cells, as HTML, at least one row; one that is a number is set to the right, a long one may wrap.
        faults: which rows stand out; none where it is empty.
    """
    numeric = [any(cell.startswith("<data") for cell in column) for column in zip(*rows, strict=True)]
    head = "".join(
        f"<th scope=col{' class=number' if right else ''}>{shown(title)}</th>"
        for title, right in zip(headers, numeric, strict=True)
    )
    body = "".join(
        f"<tr{' class=fault' if wrong else ''}>{''.join(map(_cell, row, headers))}</tr>"
        for row, wrong in zip(rows, faults or [False] * len(rows), strict=True)
    )
    return (
        "<div class=scroll tabindex=0 role=region aria-label=table>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def definitions(entries: Sequence[tuple[str, str]]) -> str:
    """A list of terms, as text, and what they mean, as HTML."""
    return f"<dl>{''.join(f'<dt>{shown(term)}</dt><dd>{told}</dd>' for term, told in entries)}</dl>"


def _cell(content: str, title: str) -> str:
    told = f'data-title="{shown(title)}"'
    if content.startswith("<data"):
        return f"<td class=number {told}>{content}</td>"
    words = re.sub("<[^>]*>", "", content)  # what is seen decides, not its markup
    return f"<td{' class=wide' if len(words) > 60 else ''} {told}>{content}</td>"
