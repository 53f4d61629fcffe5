"""Pieces of Markdown: whatever comes from files goes through ``escaped`` or ``code``, and is text to every renderer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xdet.writing.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

# What starts HTML, code, emphasis, a link, an image, a bare address or a formula inside a line, and what ends a cell.
_MARKS = re.compile(r"[\\`*<&|~$]|\](?=[(\[:])|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.|@")
_ENTITIES = {"<": "&lt;", "&": "&amp;", ":": "&#58;", ".": "&#46;", "@": "&#64;"}


class Markup(str):
    """A text that is Markdown already."""

    __slots__ = ()


def escaped(text: str) -> str:
    r"""A text as Markdown: nothing in it is markup, HTML, a link or a line of its own.

    >>> print(escaped("<b>a_b</b> [x](javascript:y) *z*"))
    &lt;b>a_b&lt;/b> [x\](javascript:y) \*z\*
    """
    if isinstance(text, Markup):
        return text
    line = " ".join(printable(text.replace("\n", " ")).split())
    return Markup(_MARKS.sub(lambda mark: _ENTITIES.get(mark[0], f"\\{mark[0]}"), line))


def code(name: str) -> str:
    """A name as code, in backticks; as plain text where it has characters that end code or a cell."""
    shown = " ".join(printable(name).split())
    return escaped(shown) if not shown or set(shown) & set("`|") else Markup(f"`{shown}`")


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(map(escaped, line))} |" for line in lines)
