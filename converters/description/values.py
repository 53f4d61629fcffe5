"""Values of a description as people write them: anchors and their unit, class names, rescaling, and small text files.

Anchors: an option's text, a file, a yaml or JSON list -> (width, height) pairs. Accepted, with any blanks and line
breaks: ``w,h w,h``; ``w,h,w,h``; ``w h w h``; ``[w,h],[w,h]`` with square or round brackets; ``[[w, h], [w, h]]``
(JSON). Where the text shows groups, each group must be one pair: ``1,2,3 4`` is a slip of the pen, not two anchors.

Small text files: sidecars, zoo yaml, anchor lists, class lists. They are UTF-8 (a byte order mark is allowed) and at
most one mebibyte; what is larger was named by mistake.

In which unit anchors are meant: said by somebody, or implied by an anchor above 1, never guessed.

The same list is meant in grid cells by one release of the zoo and as fractions of the image by another, and
no model file says which; the wrong reading gives boxes of a wrong size that look almost plausible. So a list
without a unit is refused with a message that shows both readings in pixels.

Class names: as an option or a file gives them, and what classes are called when nobody names them.

Unnamed classes are ``class_0``, ``class_1``, ...: also when there is only one, because a file does not say
what its one class is. Names may repeat (label maps do), may hold any printable characters, and are never
empty.

Which real number a network sees of a pixel, and whether everybody agrees about it.

- uint8 input: the codes are the pixels, so the file itself fixes ``real = scale * (p - zero_point)``.
- int8 input: the codes are ``p - 128``, so ``real = scale * (p - 128 - zero_point)``.
- uint8 input without a quantisation: the network takes the pixels as numbers, ``real = p``.
- float32 input: the file says nothing; a zoo yaml or the sidecar must.

What is recorded for a quantised input is always the file's own mapping: its float32 scale, widened exactly,
and ``-zero_point * scale`` in double precision, so a sidecar that rounds differently changes no byte of the
result. A rescaling that somebody states is only compared: it may differ by one quantisation step anywhere in
0..255 (the zoo's ``1/127.5, -1`` became ``(0.0078431, 127)``, half a step off); beyond that it belongs to
another file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from converters.errors import ConversionError, OptionError, SourceFileError, UnsupportedModelError
from converters.files import read_regular
from converters.heads.yolo_v2 import MOST_GRIDS, Anchors
from converters.spec import Rescaling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converters.facts import SourceFacts

MAX_BYTES = 1 << 20
ASSUMED = "assumed"  # who states what nobody does
INPUT = "the input's quantisation"


def read_small_text(path: Path, what: str) -> str:
    """Read a text file of at most ``MAX_BYTES``; ``what`` it is meant to be stands in messages."""
    data = read_bytes(path, MAX_BYTES, f"{what} '{path}'")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{what} '{path}' is not UTF-8 text (byte {error.start}): save it as UTF-8, or name another file"
        raise SourceFileError(msg) from error


def read_bytes(path: Path, most: int, where: str) -> bytes:
    """The bytes of a file of at most so many, which messages call ``where``."""
    try:
        return read_regular(path, most)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceFileError(f"{where} cannot be read: {reason}; is it the right file?") from error


def names_a_file(text: str) -> bool:
    """Whether ``text`` is the path of an existing file; text that cannot be a path is none."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def finite_float(value: float) -> float:
    """A JSON or yaml number as a float."""
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError("the number is too large") from error
    if not math.isfinite(number):
        raise ValueError(f"{value} is not a finite number")
    return number


@contextmanager
def located(where: str, kind: type[ConversionError] = SourceFileError, hint: str = "") -> Iterator[None]:
    """Turn a ValueError about some value into an error that says where the value stands, and what to write."""
    try:
        yield
    except ValueError as error:
        raise kind(f"{where}: {error}{hint}") from error


SizesWh = tuple[tuple[float, float], ...]

EXAMPLE = '--anchors "0.57,0.68 1.87,2.06"'
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_ONLY_NUMBERS = re.compile(r"[-+0-9.eE,\[\]()\s]*[0-9][-+0-9.eE,\[\]()\s]*")
_INNER_GROUP = re.compile(r"\[([^\[\]]*)\]")


def parse_anchors(text_or_path: str) -> SizesWh:
    """Read what ``--anchors`` was given: a list, or the name of a file that holds one.

    Text made only of digits, separators and brackets is a list; anything else is a file name, or a family of the ST
    zoo, whose default list has no unit: its releases differ.
    """
    if _ONLY_NUMBERS.fullmatch(text_or_path):
        with located(f"--anchors '{text_or_path}'", OptionError, f"; write them like {EXAMPLE}"):
            return sizes_from_text(text_or_path)
    from converters.description.config import FAMILIES  # which reads its yaml with this module

    if not names_a_file(text_or_path):
        if text_or_path in FAMILIES:
            return FAMILIES[text_or_path]
        raise OptionError(
            f"--anchors '{text_or_path}' is neither a list of numbers, nor a file, nor a family of the ST zoo "
            f"({', '.join(FAMILIES)}); write {EXAMPLE}"
        )
    with located(f"anchor file '{text_or_path}'", hint="; write pairs like 0.57,0.68 1.87,2.06"):
        return sizes_from_text(read_small_text(Path(text_or_path), "anchor file"))


def sizes_from_text(text: str) -> SizesWh:
    """Read pairs from text (see the module's docstring)."""
    square = text.replace("(", "[").replace(")", "]")
    groups = _bracketed_groups(square) if "[" in square or "]" in square else _plain_groups(square)
    return sizes_from_values([[_number(token) for token in group] for group in groups])


def sizes_from_values(value: object) -> SizesWh:
    """Check pairs that a JSON or yaml reader already took apart: ``[[w, h], ...]`` or ``[w, h, w, h, ...]``."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"expected a list of width, height pairs, found {value!r}")
    rows = value if all(isinstance(row, list) for row in value) else [value]
    numbers = [[_as_float(entry) for entry in row] for row in rows]
    first = len(numbers[0])
    if len(numbers) == 1 and first % 2:
        raise ValueError(f"{first} numbers do not pair up as width, height")
    each = 2 if first % 2 else first  # a group of pairs per grid, as YOLO v5's yaml has them
    for number, row in enumerate(numbers, 1):
        if len(row) != each:
            raise ValueError(f"group {number} has {len(row)} numbers, expected a width and a height")
    pairs = tuple(pair for row in numbers for pair in zip(row[::2], row[1::2], strict=True))
    return Anchors(pairs, "cell").sizes_wh  # "cell" allows every size: only finiteness and sign are checked here


def _bracketed_groups(square: str) -> list[list[str]]:
    """The innermost brackets' contents, each split into tokens."""
    rest = _INNER_GROUP.sub("", square).strip().strip(",")
    if rest.replace(",", "").split() not in ([], ["[", "]"], ["[]"]):
        raise ValueError("brackets do not match, or something stands outside them")
    return [re.sub(r"[,\s]+", " ", group).split() for group in _INNER_GROUP.findall(square)]


def _plain_groups(text: str) -> list[list[str]]:
    """Blank-separated groups of comma-separated tokens; one group when every token stands alone."""
    groups = [group.strip(",").split(",") for group in re.sub(r"\s*,\s*", ",", text).split()]
    if all(len(group) == 1 for group in groups):
        return [[group[0] for group in groups]]
    return groups


def _number(token: str) -> float:
    if not _NUMBER.fullmatch(token):
        raise ValueError(f"'{token}' is not a number")
    return float(token)


def _as_float(entry: object) -> float:
    if isinstance(entry, bool) or not isinstance(entry, int | float):
        raise ValueError(f"{entry!r} is not a number")  # noqa: TRY004 - one error type for one malformed list
    return finite_float(entry)


StatedUnit = Literal["cell", "image", "pixel"]


@dataclass(frozen=True, slots=True)
class StatedAnchors:
    """A list of anchors, the unit stated beside it, None where none was, and who stated it, as messages name it."""

    sizes_wh: SizesWh
    unit: StatedUnit | None
    where: str

    def require_pixels(self, said: str) -> None:
        """Refuse a list most of whose anchors are thinner than a pixel; one with none as large as one is among them."""
        thin = sum(min(size_wh) < 1 for size_wh in self.sizes_wh)
        if 2 * thin > len(self.sizes_wh):
            raise OptionError(
                f"{said}: {thin} of {len(self.sizes_wh)} anchors are thinner than a pixel, the largest side is "
                f"{max(map(max, self.sizes_wh)):.3g} pixels; these look like cells or fractions: "
                "--anchor-unit cell or image"
            )


def settle_unit(
    anchors: StatedAnchors, unit: StatedUnit | None, facts: SourceFacts, grid_hw: tuple[int, int]
) -> Anchors:
    """Join a list with its unit; pixels of the network's picture become grid cells."""
    said = f"{anchors.where} with unit '{unit}'"
    if unit is None and can_only_be_cells(anchors.sizes_wh, facts, grid_hw):
        unit, said = "cell", f"{anchors.where}, no unit stated and above 1, so taken as grid cells"
    if unit is None:
        raise OptionError(*_ask_for_unit(anchors, facts, grid_hw))
    sizes = anchors.sizes_wh
    if unit == "pixel":
        anchors.require_pixels(said)
        _require_a_cell(sizes, facts, grid_hw, said)
        sizes = tuple((w * grid_hw[1] / facts.width, h * grid_hw[0] / facts.height) for w, h in sizes)
    with located(said, OptionError):
        settled = Anchors(sizes, "image" if unit == "image" else "cell")
    largest = max(max(wh) for wh in settled.in_image_fractions(*grid_hw))
    if largest > MOST_GRIDS:
        looks = "" if unit == "pixel" else "; these look like pixels: --anchor-unit pixel"
        raise OptionError(
            f"{said}: the largest anchor is {largest:.3g} times the picture, expected at most {MOST_GRIDS}{looks}"
        )
    return settled


def can_only_be_cells(sizes_wh: SizesWh, facts: SourceFacts, grid_hw: tuple[int, int]) -> bool:
    """Above 1 they are no fractions of the image; all below a cell, they are no pixels."""
    return max(map(max, sizes_wh)) > 1 and not _reaches_a_cell(sizes_wh, facts, grid_hw)


def _reaches_a_cell(sizes_px: SizesWh, facts: SourceFacts, grid_hw: tuple[int, int]) -> bool:
    return any(w * grid_hw[1] >= facts.width or h * grid_hw[0] >= facts.height for w, h in sizes_px)


def _require_a_cell(sizes_px: SizesWh, facts: SourceFacts, grid_hw: tuple[int, int], said: str) -> None:
    """Refuse pixels that reach nowhere a cell of the grid: no training chooses so fine anchors for so coarse a grid."""
    if not _reaches_a_cell(sizes_px, facts, grid_hw):
        cell = f"{facts.width / grid_hw[1]:.3g} x {facts.height / grid_hw[0]:.3g}"
        raise OptionError(
            f"{said}: all anchors are smaller than a cell of the grid, which has {cell} pixels; these look like cells: "
            "--anchor-unit cell. If they are pixels all the same, divide them by the cell and say cell"
        )


def _ask_for_unit(anchors: StatedAnchors, facts: SourceFacts, grid_hw: tuple[int, int]) -> list[str]:
    """The message's lines: each anchor in pixels under every possible reading, and the lines to paste."""
    cell_wh = facts.width / grid_hw[1], facts.height / grid_hw[0]
    other, title, unit_wh = "image", "as fractions of the image", (float(facts.width), float(facts.height))
    if max(map(max, anchors.sizes_wh)) > 1:
        other, title, unit_wh = "pixel", "as pixels", (1.0, 1.0)
    rows = [
        f"  {f'{w:g} x {h:g}':<22}{_pixels((w, h), cell_wh):<24}{_pixels((w, h), unit_wh)}" for w, h in anchors.sizes_wh
    ]
    return [
        f"'{facts.file}': the unit of the anchors ({anchors.where}) is not stated; two readings are "
        f"possible in the {facts.width} x {facts.height} image:",
        f"  {'width x height':<22}{'in grid cells':<24}{title}",
        *rows,
        "These sizes do not decide: training makes up for any unit. A look at photographs does: add --try-units PHOTOS "
        "to xdet convert, which shows all readings side by side. Then give one:",
        *(f"  --anchor-unit {unit}" for unit in ("cell", other)),
    ]


def _pixels(size_wh: tuple[float, float], unit_wh_px: tuple[float, float]) -> str:
    return f"{size_wh[0] * unit_wh_px[0]:.1f} x {size_wh[1] * unit_wh_px[1]:.1f} px"


_FILE_ENDINGS = (".txt", ".names", ".csv", ".json", ".yaml", ".yml")


def parse_class_names(text_or_path: str) -> tuple[str, ...]:
    """Read what ``--classes`` was given: names with commas between them, or a file with one name per line.

    An existing file wins; text that looks like a path (a slash, a file ending, no comma) must be one.
    """
    if names_a_file(text_or_path):
        return _names_from_file(Path(text_or_path))
    looks_like_path = "/" in text_or_path or "\\" in text_or_path or text_or_path.lower().endswith(_FILE_ENDINGS)
    if looks_like_path and "," not in text_or_path:
        raise OptionError(f"--classes '{text_or_path}': no such file; give one, or names like --classes person,car")
    with located(f"--classes '{text_or_path}'", OptionError, "; write them like --classes person,car"):
        return check_class_names([name.strip() for name in text_or_path.split(",")])


def check_class_names(value: object) -> tuple[str, ...]:
    """Check a list of names that came from an option, JSON or yaml."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        raise ValueError(f"expected a list of names, found {value!r}")
    for index, name in enumerate(value):
        if not isinstance(name, str):
            raise ValueError(f"class {index} is {name!r}, expected text (quote it)")  # noqa: TRY004 - malformed data
        if not name.strip() or not name.isprintable():
            raise ValueError(f"the name of class {index} is empty or unprintable: {name!r}")
    return tuple(value)


def _names_from_file(path: Path) -> tuple[str, ...]:
    """One name per line; blank lines at the end do not count, any other blank line is refused."""
    lines = [line.strip() for line in read_small_text(path, "class list").rstrip().splitlines()]
    if not lines:
        raise SourceFileError(f"class list '{path}' is empty: write one name per line")
    for number, line in enumerate(lines, 1):
        if not line or not line.isprintable():
            raise SourceFileError(f"class list '{path}', line {number}: empty or unprintable name: {line!r}")
    return tuple(lines)


_PIXEL_MINUS_CODE = {"uint8": 0, "int8": 128}


def parse_rescaling(text: str) -> Rescaling:
    """Read what ``--rescaling`` was given: ``SCALE,OFFSET``; the scale may be a fraction such as ``1/127.5``."""
    scale, _, offset = text.partition(",")
    above, _, below = scale.partition("/")
    try:
        return Rescaling(float(above) / float(below or 1), float(offset or 0))
    except (ValueError, ZeroDivisionError) as error:
        raise OptionError(
            f"--rescaling '{text}': expected SCALE,OFFSET, such as 1/255,0 or 1/127.5,-1: {error}"
        ) from error


def parse_size(size: str | tuple[int, int]) -> tuple[int, int]:
    """Read what ``--input-size`` was given: ``HEIGHTxWIDTH``, or the two numbers."""
    words = size.lower().split("x") if isinstance(size, str) else [str(side) for side in size]
    if len(words) != 2 or not all(word.strip().isdecimal() and int(word) for word in words if len(word) < 9):
        raise OptionError(f"--input-size '{size!s:.40}': expected HEIGHTxWIDTH in pixels, such as 480x640")
    return int(words[0]), int(words[1])


def resolve_rescaling(facts: SourceFacts, stated: Rescaling | None, where: str) -> Rescaling | None:
    """The pixel encoding of a source model (see the module's docstring); None where nobody states it."""
    if facts.input_dtype == "float32":
        return stated
    of_codes = _rescaling_of_codes(facts)
    if stated is not None and not are_alike(stated, of_codes):
        raise SourceFileError(
            f"{where}: {_describe(stated)}, but the quantised input of '{facts.file}' says "
            f"{_describe(of_codes)}; remove that key, or use the settings that belong to this file"
        )
    return of_codes


def _rescaling_of_codes(facts: SourceFacts) -> Rescaling:
    """The mapping that an integer input fixes: uint8, or per-tensor int8."""
    shift, quant = _PIXEL_MINUS_CODE.get(facts.input_dtype), facts.input_quant
    if shift == 0 and quant is None:
        return Rescaling(1.0, 0.0)
    if shift is None or quant is None or quant.scale.size != 1:
        dtype = facts.input_dtype + ("" if shift is None else " without one scale and zero-point")
        raise UnsupportedModelError(f"'{facts.file}': the image input is {dtype}; expected uint8, int8 or float32")
    scale = float(quant.scalar_scale)
    return Rescaling(scale, -(quant.scalar_zero_point + shift) * scale)


def are_alike(stated: Rescaling, of_codes: Rescaling) -> bool:
    """Within one step of the codes everywhere: both are straight lines, so the ends of 0..255 decide."""
    return all(abs(_real(stated, pixel) - _real(of_codes, pixel)) <= of_codes.scale for pixel in (0, 255))


def _real(rescaling: Rescaling, pixel: int) -> float:
    return pixel * rescaling.scale + rescaling.offset


def _describe(rescaling: Rescaling) -> str:
    return (
        f"p * {rescaling.scale:.8g} + {rescaling.offset:.8g} "
        f"(pixels 0..255 become {_real(rescaling, 0):.4g}..{_real(rescaling, 255):.4g})"
    )
