"""Photographs in: finding them, reading them as RGB pixels, stretching them to a network's size.

Reading follows what detectors are trained with (TensorFlow's and OpenCV's decoders): transparency is dropped, not
blended; 16-bit channels keep their high byte; the first frame of an animation counts; ICC profiles are ignored.

A picture costs memory by its pixels, not by its file: up to 8 bytes each. All pictures that are being decoded in this
process have ``LARGEST_PIXELS`` together at most. One that has more is refused; one that would be too much now waits.
"""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, get_args

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from converters.files import open_regular
from converters.spec import PADDING, ImageInput, Rescaling, ResizeRule
from xdet.errors import DataError, ImageError
from xdet.writing.text import reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

# Pillow format -> file suffixes. A literal list: Pillow knows more, some of which start other programs (EPS).
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
JPEG_START = b"\xff\xd8\xff"
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset(turn for orientation, turn in _UPRIGHT.items() if orientation >= 5)
# What Pillow's decoders raise on damaged files besides OSError.
_DAMAGED = (
    SyntaxError, ValueError, TypeError, AttributeError, AssertionError, NotImplementedError,
    EOFError, LookupError, ArithmeticError, struct.error, zlib.error,
)  # fmt: skip
LARGEST_PICTURE = 1 << 30  # bytes of the file
LARGEST_PIXELS = 100_000_000
_ROWS_CONVERTED = 256  # rows that become an array at once, in two or three copies
_ROWS_PER_BLOCK = 32  # output rows interpolated at once: the float32 block stays in the processor's cache
_warning_filters = threading.Lock()


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture's file in memory, with a name for messages."""

    name: str
    data: bytes

    def __str__(self) -> str:
        return self.name


def find_images(paths: Sequence[Path]) -> list[Path]:
    """List the image files that ``paths`` name, each once, in order.

    Files stay as given, readable or not, so that one bad file does not hide the others. A folder gives its own image
    files by suffix (any case), sorted by name; its subfolders and hidden files are not searched.

    Raises:
        DataError: a folder holds no image, or cannot be read.
    """
    images: dict[Path, None] = {}
    for path in paths:
        is_folder = os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises where a name is too long
        named = [image for image in walk_images(path) if image.is_file()] if is_folder else [path]
        if not named:
            raise DataError(
                f"no image in the folder '{path}'; looked for {' '.join(sorted(SUFFIXES))}, not in subfolders"
            )
        images.update(dict.fromkeys(named))
    return list(images)


def walk_images(folder: Path, *, recursive: bool = False, without: Path | None = None) -> Iterator[Path]:
    """Image files of a folder by suffix, by name, and those of its subfolders, but for ``without``; no hidden ones."""

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read the folder '{error.filename}': {error.strerror}") from error

    excluded = None if without is None else os.path.realpath(without)
    for place, folders, names in os.walk(folder, onerror=refuse):
        shown = sorted(name for name in folders if recursive and not name.startswith("."))
        folders[:] = [name for name in shown if os.path.realpath(Path(place, name)) != excluded]
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(place, name)


def hash_file(path: Path, largest: int = LARGEST_PICTURE) -> str:
    """The SHA-256 of a photograph's file, hex digits; nothing where it is gone or unreadable: reading it tells why."""
    import hashlib  # not for every start: it loads OpenSSL

    try:
        with open_regular(path, largest) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return ""


def read_image(path: Path | Encoded, *, honour_exif: bool) -> NDArray[np.uint8]:
    """Read one picture, of whatever suffix, as RGB pixels, uint8 ``(height, width, 3)``.

    ``honour_exif`` turns it as its EXIF orientation says. Pillow always turns TIFF files.

    Raises:
        ImageError: the file is missing, a folder, empty, damaged, truncated, of another kind, or too large.
    """
    with decoded_picture(path, honour_exif=honour_exif) as (picture, _):
        return _to_array(picture)


@contextmanager
def decoded_picture(
    path: Path | Encoded, *, honour_exif: bool, reduced_for: ImageInput | None = None
) -> Iterator[tuple[Image.Image, tuple[int, int]]]:
    """As ``read_image``, left as Pillow holds it: mode RGB, decoded, its file closed; with the photograph's size.

    Until the block ends, the picture counts among those that are being decoded. With ``reduced_for`` a JPEG may come in
    a half, a quarter or an eighth of its width and height, which its decoder gives in less time, as long as it is no
    smaller than it stands in this network's picture.
    """
    with ExitStack() as stack:
        opened = io.BytesIO(path.data) if isinstance(path, Encoded) else open_regular(path, LARGEST_PICTURE)
        with _image_errors(path), opened as file:
            if not file.seek(0, os.SEEK_END):
                raise ImageError(f"'{path}' is empty (0 bytes)")
            file.seek(0)
            image = _open(file)
            if image.width * image.height > LARGEST_PIXELS:
                raise Image.DecompressionBombError
            stack.enter_context(_decoding.of(image.width * image.height))
            upright = _upright(image) if honour_exif else None
            size_wh = image.size if upright not in _SIDEWAYS else image.size[::-1]
            if reduced_for is not None and image.format == "JPEG" and not reduced_for.any_size:
                place = reduced_for.placement(size_wh)
                least = (place.width, place.height)
                image.draft(None, least if upright not in _SIDEWAYS else least[::-1])
            picture = _to_rgb(image, path)
            del image  # its pixels are in the way of turning
            picture = picture if upright is None else picture.transpose(upright)
        yield picture, size_wh


def upright_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """A picture that Pillow has opened or made, as ``read_image`` gives its file.

    Raises:
        ImageError: it is damaged, or its pixels do not tell which value is white.
    """
    name = getattr(image, "filename", "") or "<picture>"
    with _image_errors(name):
        upright = _upright(image)
        picture = _to_rgb(image, name)
        return _to_array(picture if upright is None else picture.transpose(upright))


class _PixelBudget:
    """Counts the pixels of pictures that are being decoded; whoever would exceed the most waits for the others."""

    def __init__(self, most: int) -> None:
        self._most, self._used = most, 0
        self._changed = threading.Condition()

    @contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Count a picture of ``pixels``, at most the whole budget, until the block ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._used + pixels <= self._most)
            self._used += pixels
        try:
            yield
        finally:
            with self._changed:
                self._used -= pixels
                self._changed.notify_all()


_decoding = _PixelBudget(LARGEST_PIXELS)


def network_pixels(picture: NDArray[np.uint8] | Image.Image, target: ImageInput) -> NDArray[np.uint8]:
    """A picture, uint8 ``(h, w, 3)``, RGB, or decoded, as a network takes it: uint8 ``(height, width, channels)``.

    Grey is ITU-R BT.601's luma in 16 bit fixed point, as Pillow's mode L: ``(19595 R + 38470 G + 7471 B + 32768) >>
    16``, of the pixels at the network's size. A model that takes any size gets the photograph itself, RGB.
    """
    if target.any_size:
        return picture if isinstance(picture, np.ndarray) else _to_array(picture)
    pixels = resize_image(picture, target.height, target.width, target.resize)
    if target.color == "bgr":
        return np.ascontiguousarray(pixels[..., ::-1])
    if target.color == "grey":
        return np.array(Image.fromarray(pixels).convert("L"))[..., None]
    return pixels


def resize_image(
    image: NDArray[np.uint8] | Image.Image, height: int, width: int, rule: ResizeRule
) -> NDArray[np.uint8]:
    """Bring a picture, uint8 ``(h, w, 3)``, RGB, or decoded, to ``height`` x ``width``: a new array.

    The rule ``"nearest"``: source index ``floor((i + 0.5) * ratio)``, clamped, in float32, ``ratio`` being source size
    / result size rounded to float32. ``"bilinear"``: half-pixel centres, no antialias, in float32, first along the
    rows, rounded half to even. ``"bilinear-antialias"``: Pillow 13's BILINEAR, in two passes: first along the columns
    where the height shrinks, and by more than twice as many pixels as the width, else along the rows. These stretch.
    ``"letterbox"``: ``"bilinear"`` with bars beside it (``ImageInput.placement``).

    Raises:
        ImageError: ``image`` is no such array, or has no pixels.
        ValueError: the size or the rule is none.
    """
    if isinstance(image, Image.Image):
        if rule == "bilinear-antialias":  # Pillow's own, without a copy
            return _resize_antialias(image, height, width)
        image = _to_array(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ImageError(f"an image must be uint8 (height, width, 3) with pixels, got {image.dtype} {image.shape}")
    if height < 1 or width < 1:
        raise ValueError(f"the size must be at least 1 x 1, got {height} x {width}")
    if rule == "letterbox":
        return _letterbox(image, height, width)
    if image.shape[:2] == (height, width):
        return image.copy()
    if rule == "nearest":
        rows = _clipped(np.floor(_centres(image.shape[0], height)), image.shape[0])
        columns = _clipped(np.floor(_centres(image.shape[1], width)), image.shape[1])
        return image.take(rows, axis=0).take(columns, axis=1)
    if rule == "bilinear":
        return _resize_bilinear(image, height, width)
    if rule == "bilinear-antialias":
        return _resize_antialias(Image.fromarray(image), height, width)
    raise ValueError(f"the resize rule must be one of {', '.join(get_args(ResizeRule))}, got {rule!r}")


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """No warnings about odd headers: what cannot be read raises. One thread at a time: filters are the process's."""
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(file: IO[bytes]) -> Image.Image:
    """As Pillow tells a file's format, which loads its common decoders first: of a JPEG file that one alone."""
    start = file.read(len(JPEG_START))
    file.seek(0)
    with _quiet_pillow():
        if start != JPEG_START:
            return Image.open(file, formats=list(FORMATS))
        from PIL.JpegImagePlugin import jpeg_factory

        try:
            return jpeg_factory(file)
        except (SyntaxError, IndexError, TypeError, struct.error) as error:  # as Image.open
            raise UnidentifiedImageError from error


def _upright(image: Image.Image) -> Image.Transpose | None:
    """How the picture is to be turned; Pillow turns TIFF files itself."""
    with _quiet_pillow():
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) and image.format != "TIFF" else None


def _to_array(picture: Image.Image) -> NDArray[np.uint8]:
    """A picture in mode RGB as uint8 ``(height, width, 3)``, some rows at a time: Pillow hands out copies of copies."""
    result = np.empty((picture.height, picture.width, 3), np.uint8)
    for top in range(0, picture.height, _ROWS_CONVERTED):
        bottom = min(top + _ROWS_CONVERTED, picture.height)
        result[top:bottom] = np.asarray(picture.crop((0, top, picture.width, bottom)))
    return result


def _to_rgb(image: Image.Image, path: Path | Encoded | str) -> Image.Image:
    """Decode the first frame as 8-bit RGB."""
    image.load()
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in {"PNG", "PPM"}):
        result = Image.new("L", image.size)
        for top in range(0, image.height, _ROWS_CONVERTED):
            block = np.asarray(image.crop((0, top, image.width, min(top + _ROWS_CONVERTED, image.height))))
            high_byte = np.clip(block.astype(np.int64) >> 8, 0, 255).astype(np.uint8)
            result.paste(Image.fromarray(high_byte), (0, top))
        return result.convert("RGB")
    if image.mode in {"I", "F"}:
        raise ImageError(
            f"'{path}' holds 32-bit pixels that do not tell which value is white; save it with 8 or 16 bits"
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


@contextmanager
def _image_errors(path: Path | Encoded | str) -> Iterator[None]:
    """Turn what Pillow and the system raise into an ``ImageError`` that names the file."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"'{path}' has more than {LARGEST_PIXELS // 10**6} million pixels: too large; scale it down first"
        ) from error
    except MemoryError as error:
        raise ImageError(f"'{path}' does not fit into memory; scale it down first") from error
    except UnidentifiedImageError as error:
        expected = ", ".join(FORMATS)
        raise ImageError(f"'{path}' is no readable image, or has no pixels; expected one of {expected}") from error
    except OSError as error:
        if error.errno is not None:
            raise ImageError(f"cannot read '{path}': {reason(error)}") from error
        raise ImageError(f"'{path}' is damaged or truncated: {reason(error)}") from error
    except _DAMAGED as error:
        raise ImageError(f"'{path}' is damaged: {reason(error)}") from error


def _centres(source: int, target: int) -> NDArray[np.float32]:
    """Where the centre of every result pixel lies along one axis of the source, in pixels: float32 ``(target,)``."""
    centres: NDArray[np.float32] = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * np.float32(source / target)
    return centres


def _clipped(places: NDArray[np.float32], source: int) -> NDArray[np.intp]:
    return np.clip(places.astype(np.intp), 0, source - 1)


def _bilinear_indices(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """The two source pixels of every result pixel along one axis, and the weight 0..1 of the second."""
    places = _centres(source, target) - np.float32(0.5)
    floors = np.floor(places)
    return _clipped(floors, source), _clipped(np.ceil(places), source), places - floors


def _letterbox(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    place = ImageInput(height, width, Rescaling(1.0, 0.0), "letterbox").placement((image.shape[1], image.shape[0]))
    result = np.full((height, width, 3), PADDING, np.uint8)
    inner = resize_image(image, place.height, place.width, "bilinear")
    result[place.top : place.top + place.height, place.left : place.left + place.width] = inner
    return result


def _resize_antialias(picture: Image.Image, height: int, width: int) -> NDArray[np.uint8]:
    """In two calls, since each pass rounds, and the order of the two is another in Pillow before 13."""
    shrink = picture.height - height
    columns_first = shrink > 0 and shrink > 2 * (picture.width - width)
    between = (picture.width, height) if columns_first else (width, picture.height)
    passed = picture.resize(between, Image.Resampling.BILINEAR)
    return np.array(passed.resize((width, height), Image.Resampling.BILINEAR))


def _resize_bilinear(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    tops, bottoms, row_weights = _bilinear_indices(image.shape[0], height)
    lefts, rights, column_weights = _bilinear_indices(image.shape[1], width)
    channels = np.arange(3)
    lefts, rights = ((columns[:, None] * 3 + channels).ravel() for columns in (lefts, rights))
    column_weights = np.repeat(column_weights, 3)
    source = image.reshape(image.shape[0], -1)
    result = np.empty((height, width * 3), np.uint8)
    for start in range(0, height, _ROWS_PER_BLOCK):
        block = slice(start, start + _ROWS_PER_BLOCK)
        rows, twins = np.unique(np.concatenate([tops[block], bottoms[block]]), return_inverse=True)
        lines = _lerp_columns(source.take(rows, axis=0), lefts, rights, column_weights)
        top, bottom = lines.take(twins.reshape(2, -1), axis=0)
        mixed = top + (bottom - top) * row_weights[block, None]
        result[block] = np.rint(mixed, out=mixed)
    return result.reshape(height, width, 3)


def _lerp_columns(
    lines: NDArray[np.uint8], lefts: NDArray[np.intp], rights: NDArray[np.intp], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Every line interpolated between its columns: float32 ``(rows, columns)``."""
    left = lines.take(lefts, axis=1, mode="clip").astype(np.float32)
    right = lines.take(rights, axis=1, mode="clip").astype(np.float32)
    right -= left
    right *= weights
    right += left
    return right
