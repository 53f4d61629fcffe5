"""Numbers, names and messages as text for people."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_CHARACTERS = 2000  # of a message on the terminal


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


def format_share(part: float, whole: float) -> str:
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


def message_line(message: str) -> str:
    r"""An error or note for the terminal: one line, escaped; of a very long one the middle is left out.

    >>> print(message_line("no 'a\x1b[2J'"), len(message_line("x" * 10**6)))
    no 'a\x1b[2J' 2027
    """
    if len(message) > MOST_CHARACTERS:
        half = MOST_CHARACTERS // 2
        message = f"{message[:half]} ... {len(message) - 2 * half} characters ... {message[-half:]}"
    return printable(message)


def one_line(text: str) -> str:
    """A text with a space for every run of spaces and line ends."""
    return " ".join(text.split())


def reason(error: BaseException) -> str:
    """Why something failed, in one line: the system's words, else the error's own, else its kind."""
    return getattr(error, "strerror", None) or one_line(str(error)) or type(error).__name__


def printable(text: str) -> str:
    """The escaping of the terminal: control characters, and others that nobody sees, are shown, not obeyed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def image_names(images: Sequence[str]) -> list[str]:
    """Names without folders; of different files they have as many parents as tell them apart, ``/`` between folders."""
    parts = {image: PurePath(image).parts or (image,) for image in images}
    kept = dict.fromkeys(images, 1)
    while True:
        names = {image: PurePath(*parts[image][-count:]).as_posix() for image, count in kept.items()}
        owners = Counter(names.values())
        longer = [image for image, name in names.items() if owners[name] > 1 and kept[image] < len(parts[image])]
        if not longer:
            return [names[image] for image in images]
        for image in longer:
            kept[image] += 1
