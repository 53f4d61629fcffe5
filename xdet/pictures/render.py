"""Pictures out: labelled boxes on a photograph, legible from thumbnails to camera originals; files and their names.

Lines and letters grow with the picture; every class has its own colour; a label stays inside the picture, and off the
labels of better boxes where its box leaves room. Among many boxes, one that is wider than its box gets smaller letters.
It loses its name before it gets illegible, and is left out of a picture that it hides.

File names are such that every system takes, and that no two images share even where case is ignored.
"""

from __future__ import annotations

import colorsys
import io
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from xdet.errors import ImageError, OutputError
from xdet.writing.files import SOFTWARE, write_bytes
from xdet.writing.text import format_score, image_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xdet.detections import Detection, Detections

Colour = tuple[int, int, int]

# File suffix -> Pillow format and its options; fixed, so the same picture gives the same bytes.
PICTURE_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"compress_level": 6}),
    ".jpg": ("JPEG", {"quality": 92, "subsampling": 0, "comment": SOFTWARE}),
    ".jpeg": ("JPEG", {"quality": 92, "subsampling": 0, "comment": SOFTWARE}),
    ".webp": ("WEBP", {"quality": 92}),
    ".bmp": ("BMP", {}),
}
LONGEST = 200  # bytes of UTF-8 before the suffix: file systems end at 255, and a counter may follow
# What Windows refuses in names, and what terminals do odd things with.
_UNFIT = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\ud800-\udfff]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)

_BLACK: Colour = (0, 0, 0)
_WHITE: Colour = (255, 255, 255)
_FIRST_HUE = 0.38  # green: skin, sky and earth are rare there
_GOLDEN_RATIO = 0.6180339887498949  # successive multiples, modulo 1, spread over the hues
_SMALLEST_FONT = 9
_FEW = 5  # detections whose labels may be wider than their boxes
_LABELS_PER_HEIGHT = 4  # a picture lower than this many labels gets boxes only


@dataclass(frozen=True, slots=True)
class _Style:
    """Sizes in pixels that suit one picture."""

    line: int
    font_size: int
    padding: int

    @classmethod
    def for_picture(cls, width: int, height: int) -> _Style:
        side = math.sqrt(width * height)
        font_size = max(_SMALLEST_FONT, round(side * 0.027))
        return cls(line=max(1, round(side * 0.0045)), font_size=font_size, padding=max(1, round(font_size * 0.22)))


def draw_detections(image: NDArray[np.uint8], detections: Detections) -> NDArray[np.uint8]:
    """Draw labelled boxes on a copy of a photograph, uint8 ``(height, width, 3)``, RGB; the best one lies on top.

    Raises:
        ImageError: the picture is not the one the detections belong to.
    """
    expected = (detections.height, detections.width, 3)
    if image.shape != expected or image.dtype != np.uint8:
        raise ImageError(
            f"the detections of '{detections.image}' belong to uint8 {expected}, got {image.dtype} {image.shape}"
        )
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    style = _Style.for_picture(picture.width, picture.height)
    best_first = list(detections)
    for detection in reversed(best_first):
        _draw_box(draw, detection, style)
    for label in reversed(_place_labels(draw, best_first, style, picture.size)):
        _draw_label(draw, label)
    return np.array(picture)


def save_picture(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a picture, uint8 ``(height, width, 3)``, RGB, whole or not at all; the suffix names the format.

    Raises:
        OutputError: an unknown suffix, a picture too large for it, or a target that cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in PICTURE_FORMATS:
        raise OutputError(
            f"cannot write '{path}': unknown picture suffix '{suffix}'; use one of {' '.join(PICTURE_FORMATS)}"
        )
    name, options = PICTURE_FORMATS[suffix]
    encoded, software = io.BytesIO(), PngInfo()
    software.add_text("Software", SOFTWARE)
    try:
        Image.fromarray(image).save(encoded, name, pnginfo=software, **options)
    except (OSError, ValueError) as error:
        height, width = image.shape[:2]
        raise OutputError(f"cannot write '{path}': {name} refuses {width} x {height} pixels ({error})") from error
    write_bytes(path, encoded.getvalue())


def class_colour(class_id: int) -> Colour:
    """The colour of a class: R, G, B in 0..255, the same in every picture."""
    hue = (_FIRST_HUE + class_id * _GOLDEN_RATIO) % 1.0
    bright = class_id // 8 % 2 == 0  # after eight hues, a darker round
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 0.95 if bright else 0.65)
    return round(red * 255), round(green * 255), round(blue * 255)


def _draw_box(draw: ImageDraw.ImageDraw, detection: Detection, style: _Style) -> None:
    """The box with a thin dark rim outside, so that it stands out on its own colour, too."""
    x1, y1, x2, y2 = (round(value) for value in detection.box_xyxy_px)
    right, bottom = max(x2 - 1, x1), max(y2 - 1, y1)
    rim = max(1, style.line // 3)
    draw.rectangle((x1 - rim, y1 - rim, right + rim, bottom + rim), outline=_BLACK, width=rim)
    draw.rectangle((x1, y1, right, bottom), outline=class_colour(detection.class_id), width=style.line)


Rectangle = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True, slots=True)
class _Label:
    text: str
    font_size: int
    colour: Colour
    place: Rectangle


def _place_labels(
    draw: ImageDraw.ImageDraw, detections: list[Detection], style: _Style, size_wh: tuple[int, int]
) -> list[_Label]:
    """A label for each detection, the best first: on no earlier label where its box has room for that."""
    labels: list[_Label] = []
    taken: list[Rectangle] = []
    for detection in detections:
        form = _label_form(draw, detection, style, size_wh, narrow=len(detections) > _FEW)
        if form is None:
            continue
        text, font_size, width, height = form
        places = _places(detection, width, height, size_wh)
        place = min(places, key=lambda place: sum(_shared(place, other) for other in taken))
        taken.append(place)
        labels.append(_Label(text, font_size, class_colour(detection.class_id), place))
    return labels


def _label_form(
    draw: ImageDraw.ImageDraw, detection: Detection, style: _Style, size_wh: tuple[int, int], *, narrow: bool
) -> tuple[str, int, int, int] | None:
    """Text, font size, width and height of the largest label that fits into the picture; None where none fits.

    ``narrow``: the large letters only where their box is as wide, so that a label covers less of its neighbours.
    """
    box_width = detection.box_xyxy_px[2] - detection.box_xyxy_px[0]
    score = format_score(detection.score)
    smaller = max(_SMALLEST_FONT, round(style.font_size * 0.75))
    for text, font_size in (
        (f"{detection.class_name} {score}", style.font_size),
        (f"{detection.class_name} {score}", smaller),
        (score, smaller),
    ):
        width = math.ceil(draw.textlength(text, font=ImageFont.load_default(font_size))) + 2 * style.padding
        height = math.ceil(font_size * 1.15) + style.padding
        spread = narrow and font_size > smaller and width > box_width
        if width <= size_wh[0] and height * _LABELS_PER_HEIGHT <= size_wh[1] and not spread:
            return text, font_size, width, height
    return None


def _places(detection: Detection, width: int, height: int, size_wh: tuple[int, int]) -> list[Rectangle]:
    """Where a label may stand, best first: above the box, else inside its top, then along its sides and below it."""
    x1, y1, x2, y2 = (round(value) for value in detection.box_xyxy_px)
    top = y1 - height if y1 >= height else max(y1, 0)
    rows = [top, max(y1, 0), *range(max(y1, 0) + height, y2 - height + 1, height), y2 - height, y2]
    columns = [x1, x2 - width, (x1 + x2 - width) // 2, x1 - width, x2]
    places = []
    for wanted_y in rows:
        for wanted_x in columns:
            x = min(max(wanted_x, 0), size_wh[0] - width)
            y = min(max(wanted_y, 0), size_wh[1] - height)
            places.append((x, y, x + width, y + height))
    return places


def _shared(first: Rectangle, second: Rectangle) -> int:
    """Pixels that two rectangles share."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0) * max(height, 0)


def _draw_label(draw: ImageDraw.ImageDraw, label: _Label) -> None:
    left, top, right, bottom = label.place
    draw.rectangle((left, top, right - 1, bottom - 1), fill=label.colour)
    red, green, blue = label.colour
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601
    ink = _BLACK if luminance > 130 else _WHITE
    middle = (left + (right - left) / 2, top + (bottom - top) / 2)
    draw.text(middle, label.text, fill=ink, font=ImageFont.load_default(label.font_size), anchor="mm")


def picture_paths(images: Sequence[Path], folder: Path) -> list[Path]:
    """One picture per image in ``folder``: its own name and format, behind the folders that tell it apart.

    Formats in which no boxes are saved become PNG.

    >>> from pathlib import Path
    >>> [path.name for path in picture_paths([Path("a/1.jpg"), Path("b/1.jpg"), Path("B/1.JPG")], Path("out"))]
    ['a_1.jpg', 'b_1.jpg', '1.JPG']
    >>> [path.name for path in picture_paths([Path("1.jpg"), Path("1.JPG"), Path("2.gif")], Path("out"))]
    ['1.jpg', '1-2.JPG', '2.gif.png']
    """
    parts = []
    for image, name in zip(images, image_names([str(image) for image in images]), strict=True):
        kept = image.suffix.lower() in PICTURE_FORMATS
        parts.append((name.removesuffix(image.suffix), image.suffix) if kept else (name, ".png"))
    return unique_paths(parts, folder)


def unique_paths(parts: Iterable[tuple[str, str]], folder: Path) -> list[Path]:
    """A path in ``folder`` for each (stem, suffix); a stem whose file has its place already is counted."""
    taken: set[str] = set()
    paths = []
    for name, suffix in parts:
        stem, count = fit_name(name), 1
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
