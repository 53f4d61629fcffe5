"""File names for annotated pictures that every system takes, and that no two images share even where case is ignored."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xdet.pictures.render import PICTURE_FORMATS
from xdet.writing.text import image_names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LONGEST = 200  # bytes of UTF-8 before the suffix: file systems end at 255, and a counter may follow
# What Windows refuses in names, and what terminals do odd things with.
_UNFIT = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\ud800-\udfff]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def picture_paths(images: Sequence[Path], folder: Path) -> list[Path]:
    """One picture per image in ``folder``: its own name and format, with the folders that tell it apart joined by underscores.

    Formats in which no boxes are saved become PNG.

    >>> from pathlib import Path
    >>> [path.name for path in picture_paths([Path("a/1.jpg"), Path("b/1.jpg"), Path("B/1.JPG")], Path("out"))]
    ['a_1.jpg', 'b_1.jpg', '1.JPG']
    >>> [path.name for path in picture_paths([Path("1.jpg"), Path("1.JPG"), Path("2.gif")], Path("out"))]
    ['1.jpg', '1-2.JPG', '2.gif.png']
    """
    taken: set[str] = set()
    paths = []
    for image, name in zip(images, image_names([str(image) for image in images]), strict=True):
        kept = image.suffix.lower() in PICTURE_FORMATS
        suffix = image.suffix if kept else ".png"
        stem, count = fit_name(name.removesuffix(suffix) if kept else name), 1
        unique = f"{stem}{suffix}"
        while unique.casefold() in taken:
            count += 1
            unique = f"{stem}-{count}{suffix}"
        taken.add(unique.casefold())
        paths.append(folder / unique)
    return paths


def fit_name(name: str) -> str:
    """The name with an underscore for whatever does not fit into a file's name, cut to length."""
    safe = _UNFIT.sub("_", name).encode("utf-8")[:LONGEST].decode("utf-8", "ignore")
    safe = f"_{safe}" if _DEVICES.fullmatch(safe) else safe
    return safe if safe.strip(". ") else "picture"
