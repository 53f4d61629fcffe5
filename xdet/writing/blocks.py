"""What a report is made of: sections of blocks, pure data, which ``terminal``, ``html`` and ``markdown`` render.

Texts are plain: each renderer escapes them in its own way. A number in a text stands by itself, in a tuple: a page
keeps its exact value beside the digits that people read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from xdet.writing.text import format_distance

if TYPE_CHECKING:
    from pathlib import Path

Status = Literal["passed", "tolerated", "failed", "skipped", "incomplete"]
Medium = Literal["terminal", "page"]


@dataclass(frozen=True, slots=True)
class Code:
    """A name that is shown as code where a medium can."""

    text: str


Value = str | int | float | Code | None
Inline = Value | tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; ``soft`` ones stand back."""

    content: Inline
    soft: bool = False
    only: Medium | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Terms and what is told of them."""

    entries: tuple[tuple[str, Inline], ...]


@dataclass(frozen=True, slots=True)
class Items:
    """A list; a terminal shows the first ``most`` and counts the others."""

    entries: tuple[Inline, ...]
    title: str = ""
    most: int | None = None
    only: Medium | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under titles; ``keys`` columns in front name a row, and the rows ``faults`` stand out."""

    headers: tuple[str, ...]
    rows: tuple[tuple[Inline, ...], ...]
    keys: int = 1
    faults: frozenset[int] = frozenset()
    only: Medium | None = None


@dataclass(frozen=True, slots=True)
class Wrong:
    """Something that is wrong: its cause in a word, what was found, what to do."""

    cause: str
    message: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a part of the work came to."""

    status: Status
    title: str
    lines: tuple[Inline, ...] = ()
    findings: tuple[Wrong, ...] = ()


@dataclass(frozen=True, slots=True)
class Bars:
    """How many values stand behind each label; a page draws them, on a logarithmic scale, and says so."""

    title: str
    bars: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """A distance in a strip: its value, what it belongs to, whether it is a fault."""

    value: float
    title: str
    fault: bool = False


@dataclass(frozen=True, slots=True)
class Strips:
    """Named rows of cells, one per layer; None where a layer has no such distance."""

    title: str
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG, or a file that the report links to; its size in pixels is that of the JPEG."""

    caption: str
    alt: str
    data: bytes = b""
    size_wh: tuple[int, int] = (0, 0)
    link: Path | None = None


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures side by side, with a title and notes."""

    pictures: tuple[Picture, ...]
    title: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Commands:
    """Lines for a shell."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """Markdown by hand."""

    markdown: str


@dataclass(frozen=True, slots=True)
class Blanks:
    """Titles of lines to fill in by hand, on a printed page."""

    titles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Folded:
    """Blocks that a page shows on request; a terminal leaves them out."""

    title: str
    blocks: tuple[Block, ...]


Block = Text | Facts | Items | Table | Verdict | Bars | Strips | Pictures | Commands | Written | Blanks | Folded


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, empty for none, and its blocks; left out without any. A printed page ends behind an ``alone`` one."""

    title: str
    blocks: tuple[Block, ...]
    only: Medium | None = None
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """Everything: ``lead`` says what it is about, ``verdict`` how it ended: first on a page, last on a terminal."""

    title: str
    sections: tuple[Section, ...]
    lead: tuple[Inline, ...] = ()
    status: Status | None = None
    verdict: str = ""

    def shown_in(self, medium: Medium) -> list[Section]:
        """The sections that this medium shows, with the blocks that it shows."""
        sections = []
        for section in self.sections:
            blocks = tuple(block for block in section.blocks if getattr(block, "only", None) in (None, medium))
            if blocks and section.only in (None, medium):
                sections.append(replace(section, blocks=blocks))
        return sections


def pieces(content: Inline) -> tuple[Value, ...]:
    """The parts of a text."""
    return content if isinstance(content, tuple) else (content,)


def counted_value(number: int, one: str, many: str) -> tuple[int, str]:
    """A number with what it counts, as parts of a text; ``converters.errors.counted`` gives them as one string."""
    return number, f" {one if number == 1 else many}"


def plain(content: Inline) -> str:
    """A text without markup."""
    return "".join(piece.text if isinstance(piece, Code) else plain_value(piece) for piece in pieces(content))


def plain_value(value: str | int | float | None) -> str:
    """A value for people: three digits of a distance, all of a count."""
    if isinstance(value, float):
        return format_distance(value)
    return f"{value:,}" if isinstance(value, int) else value or ""
