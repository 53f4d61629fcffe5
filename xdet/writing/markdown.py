"""A report as Markdown: whatever comes from files goes through ``escaped`` or ``code``: text to every renderer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from xdet.writing import blocks
from xdet.writing.blocks import Code, pieces, plain
from xdet.writing.text import printable

if TYPE_CHECKING:
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


def block_markdown(block: Block) -> str:
    """A block, without a final newline; blocks that pages alone show are refused."""
    match block:
        case blocks.Text():
            return inline(block.content)
        case blocks.Items():
            title = f"{escaped(block.title)}\n\n" if block.title else ""
            return title + "\n".join(f"- {inline(entry)}" for entry in block.entries)
        case blocks.Table():
            head, *lines = (f"| {' | '.join(map(inline, row))} |" for row in (block.headers, *block.rows))
            return "\n".join([head, f"| {' | '.join(['---'] * len(block.headers))} |", *lines])
        case blocks.Pictures():
            return "\n\n".join(map(_picture, block.pictures))
        case blocks.Commands():
            return "\n".join(["```sh", *map(printable, block.lines), "```"])
        case blocks.Written():
            return block.markdown
        case _:
            msg = f"a Markdown document has no {type(block).__name__}"
            raise TypeError(msg)


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
    parts = pieces(content)
    if not any(isinstance(part, Code) for part in parts):
        return escaped(plain(content))
    return "".join(code(part.text) if isinstance(part, Code) else _kept(plain(part)) for part in parts).strip()


def _kept(text: str) -> str:
    """Escaped with the spaces at its ends, which part it from its neighbours."""
    return f"{' ' * text.startswith(' ')}{escaped(text)}{' ' * text.endswith(' ')}" if text.strip() else text


def _picture(picture: Picture) -> str:
    link = "" if picture.link is None else f"![{escaped(picture.alt)}]({quote(picture.link.as_posix())})\n\n"
    return f"{link}{escaped(picture.caption)}"
