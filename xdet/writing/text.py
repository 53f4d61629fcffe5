"""Text for the terminal: tables, sizes, durations; with ``xdet.detection.report`` all that formats numbers."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePath
from textwrap import wrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xdet.detections import Detections

MOST_CHARACTERS = 2000  # of a message on the terminal
_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?( ?(%|x|[kMG]?B|ns|us|ms|s|px))?", re.ASCII)


def detections_table(images: Sequence[Detections]) -> str:
    """A table with one line per detection; an image without any has one line that says so."""
    rows: list[tuple[str, ...]] = []
    for name, found in zip(image_names([found.image for found in images]), images, strict=True):
        for detection in found:
            corners = (format_pixels(value) for value in detection.box_xyxy_px)
            rows.append((name, detection.class_name, format_score(detection.score), *corners))
        if not len(found):
            rows.append((name, "nothing found", "", "", "", "", ""))
    return format_table(("image", "class", "score", "x1", "y1", "x2", "y2"), rows)


def format_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, never truncated; a column of numbers only is set to the right.

    Args:
        headers: one title per column.
        rows: one text per column; control characters are shown escaped.

    Returns:
        Lines without trailing spaces, joined by newlines, without a final one.
    """
    table = [[printable(cell) for cell in row] for row in (headers, *rows)]
    columns = list(zip(*table, strict=True))
    widths = [max(map(_display_width, column)) for column in columns]
    to_the_right = [
        any(column[1:]) and all(not cell or _NUMBER.fullmatch(cell) for cell in column[1:])
        for column in columns
    ]
    lines = []
    for row in table:
        cells = []
        for cell, width, right in zip(row, widths, to_the_right, strict=True):
            padding = " " * (width - _display_width(cell))
            cells.append(padding + cell if right else cell + padding)
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def wrap_sentences(text: str, width: int) -> str:
    r"""A text whose sentences are broken between words, with their indent; rows of tables stay whole.

    >>> print(wrap_sentences("  one two three\na  b  c d e f g", 11))
      one two
        three
    a  b  c d e f g
    """
    lines = []
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip()))
        if len(line) <= width or "  " in line.strip():
            lines.append(line)
        else:
            lines += wrap(
                line.strip(),
                width,
                initial_indent=indent,
                subsequent_indent=f"{indent}  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def format_score(score: float) -> str:
    """A confidence for people: two decimals."""
    return f"{score:.2f}"


def format_distance(value: float) -> str:
    """A distance for people: three significant digits.

    >>> format_distance(0.054166), format_distance(12), format_distance(float("inf"))
    ('0.0542', '12', 'inf')
    """
    return "inf" if math.isinf(value) else f"{value:.3g}"


def format_pixels(value: float) -> str:
    """A pixel coordinate for people: one decimal."""
    return f"{round(value, 1) + 0.0:.1f}"


def format_size(size_bytes: int) -> str:
    """A file size in decimal units, as file managers show it.

    >>> format_size(812), format_size(11_034_600)
    ('812 B', '11.0 MB')
    """
    if size_bytes < 1000:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.95 or unit == "GB":
            break
    return f"{value:.1f} {unit}"


def format_kib(size_bytes: int) -> str:
    """Memory as the zoo's tables give it: KiB of 1024 bytes, two decimals.

    >>> format_kib(11_034_600)
    '10775.98 KiB'
    """
    return f"{size_bytes / 1024:.2f} KiB"


def format_count(count: int) -> str:
    """A large count with three significant digits.

    >>> format_count(2_669_042_688), format_count(568_553_472), format_count(999)
    ('2.67 G', '569 M', '999')
    """
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * factor:
            return f"{_three_digits(count / factor)} {unit}"
    return str(count)


def format_share(part: int, whole: int) -> str:
    """A share in per cent; only the whole is 100.0 % and only nothing 0.0 %.

    >>> format_share(3, 3), format_share(999_999, 1_000_000), format_share(1, 1_000_000), format_share(0, 5)
    ('100.0 %', '99.9 %', '0.1 %', '0.0 %')
    """
    if part in (0, whole):
        return "100.0 %" if part and whole else "0.0 %"
    return f"{min(max(100 * part / whole, 0.1), 99.9):.1f} %"


def format_duration(seconds: float) -> str:
    """A duration with three significant digits.

    >>> format_duration(0.0000123), format_duration(0.0044), format_duration(1.5), format_duration(125)
    ('12.3 us', '4.40 ms', '1.50 s', '2 min 5 s')
    """
    if seconds >= 59.95:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s"
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 0.9995:
            return f"{_three_digits(seconds * factor)} {unit}"
    return f"{_three_digits(seconds * 1e6)} us"


def _three_digits(value: float) -> str:
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f}"


def join_lines(lines: Iterable[str]) -> str:
    """A report for the terminal: nothing in a line is a command to the terminal, or a line of its own."""
    return "\n".join(map(printable, lines))


def message_line(message: str) -> str:
    r"""An error or note for the terminal: one line, escaped; of a very long one the middle is left out.

    >>> print(message_line("no 'a\x1b[2J'"), len(message_line("x" * 10**6)))
    no 'a\x1b[2J' 2027
    """
    if len(message) > MOST_CHARACTERS:
        half = MOST_CHARACTERS // 2
        message = f"{message[:half]} ... {len(message) - 2 * half} characters ... {message[-half:]}"
    return printable(message)


def printable(text: str) -> str:
    """The escaping of the terminal: control characters, and others that nobody sees, are shown, not obeyed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _display_width(text: str) -> int:
    """Columns a terminal gives a text: two for wide East Asian characters, none for combining marks."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def image_names(images: Sequence[str]) -> list[str]:
    """Names without folders; images of equal names keep as many parent folders as tell them apart.

    Args:
        images: names or paths as the caller gave them.

    Returns:
        One name per image, with ``/`` between folders on every system.
    """
    parts = [PurePath(image).parts or (image,) for image in images]
    kept = [1] * len(parts)
    while True:
        names = [PurePath(*path[-count:]).as_posix() for path, count in zip(parts, kept, strict=True)]
        owners: defaultdict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(names):
            owners[name].append(index)
        longer = [i for group in owners.values() if len(group) > 1 for i in group if kept[i] < len(parts[i])]
        if not longer:
            return names
        for index in longer:
            kept[index] += 1
