"""A report as Markdown: whatever comes from files goes through ``escaped`` or ``code``, and is text to every renderer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from xdet.writing.blocks import (
    Bars,
    Blanks,
    Code,
    Commands,
    Facts,
    Folded,
    Items,
    Pictures,
    Strips,
    Table,
    Text,
    Verdict,
    Written,
    pieces,
    plain,
)
from xdet.writing.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdet.writing.blocks import Block, Inline, Picture, Report

# What starts HTML, code, emphasis, a link, an image, a bare address or a formula inside a line, and what ends a cell.
_MARKS = re.compile(r"[\\`*<&|~$]|\](?=[(\[:])|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.|@")
_ENTITIES = {"<": "&lt;", "&": "&amp;", ":": "&#58;", ".": "&#46;", "@": "&#64;"}


def report_markdown(report: Report) -> str:
    """The whole document, with a final newline."""
    parts = [f"# {escaped(report.title)}", *map(inline, report.lead), escaped(report.verdict)]
    for section in report.shown_in("page"):
        parts += [f"## {escaped(section.title)}"] if section.title else []
        parts += map(block_markdown, section.blocks)
    return "\n\n".join(part for part in parts if part) + "\n"


def block_markdown(block: Block) -> str:  # noqa: PLR0911 - one for each kind of block
    """A block, without a final newline."""
    match block:
        case Text():
            return inline(block.content)
        case Facts():
            return _list([f"{escaped(term)}: {inline(told)}" for term, told in block.entries])
        case Items():
            title = [escaped(block.title)] if block.title else []
            return "\n\n".join([*title, _list([inline(entry) for entry in block.entries])])
        case Table():
            return _table([block.headers, *block.rows])
        case Verdict():
            found = [f"{escaped(one.cause)}: {escaped(one.message)}" for one in block.findings]
            lines = [f"**{block.status}** {escaped(block.title)}", *map(inline, block.lines)]
            return "\n\n".join([*lines, _list(found)]).rstrip()
        case Bars():
            return _table([(block.title, "values"), *block.bars])
        case Strips():
            return _table([(name, *(None if c is None else c.value for c in row)) for name, row in block.rows])
        case Pictures():
            return "\n\n".join(map(_picture, block.pictures))
        case Commands():
            return "\n".join(["```sh", *map(printable, block.lines), "```"])
        case Written():
            return block.markdown
        case Blanks():
            return _list([f"{escaped(title)}:" for title in block.titles])
        case Folded():
            return "\n\n".join([f"### {escaped(block.title)}", *map(block_markdown, block.blocks)])


def escaped(text: str) -> str:
    r"""A text as Markdown: nothing in it is markup, HTML, a link or a line of its own.

    >>> print(escaped("<b>a_b</b> [x](javascript:y) *z*"))
    &lt;b>a_b&lt;/b> [x\](javascript:y) \*z\*
    """
    line = " ".join(printable(text.replace("\n", " ")).split())
    return _MARKS.sub(lambda mark: _ENTITIES.get(mark[0], f"\\{mark[0]}"), line)


def code(name: str) -> str:
    """A name as code, in backticks; as plain text where it has characters that end code or a cell."""
    shown = " ".join(printable(name).split())
    return escaped(shown) if not shown or set(shown) & set("`|") else f"`{shown}`"


def inline(content: Inline) -> str:
    """A text with its numbers and names."""
    found = pieces(content)
    if not any(isinstance(piece, Code) for piece in found):
        return escaped(plain(content))
    told = [code(piece.text) if isinstance(piece, Code) else _kept(plain(piece)) for piece in found]
    return "".join(told).strip()


def _kept(text: str) -> str:
    """Escaped with the spaces at its ends, which part it from its neighbours."""
    return f"{' ' * text.startswith(' ')}{escaped(text)}{' ' * text.endswith(' ')}" if text.strip() else text


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(rows: Sequence[Sequence[Inline]]) -> str:
    lines = [f"| {' | '.join(map(inline, row))} |" for row in rows]
    return "\n".join([lines[0], f"| {' | '.join(['---'] * len(rows[0]))} |", *lines[1:]])


def _picture(picture: Picture) -> str:
    link = "" if picture.link is None else f"![{escaped(picture.alt)}]({quote(picture.link.as_posix())})\n\n"
    return f"{link}{escaped(picture.caption)}"
