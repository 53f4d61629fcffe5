"""Pictures as people hold them: a path, an address, a Pillow picture, an array in grey, RGB, RGBA or BGR."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from xdet.errors import ImageError
from xdet.pictures.addresses import Address, is_address
from xdet.pictures.images import Encoded, read_image, upright_rgb
from xdet.pictures.preparation import ARRAY

if TYPE_CHECKING:
    from numpy.typing import NDArray

Color = Literal["rgb", "bgr"]
EXPECTED = (
    "a path, an http address, a PIL picture, or a uint8 array (height, width), (height, width, 3) or (height, width, 4)"
)


class Picture(NamedTuple):
    """A picture that can be prepared.

    Attributes:
        name: for results and messages.
        photograph: a file, or uint8 ``(height, width, 3)``, RGB.
    """

    name: str
    photograph: Path | NDArray[np.uint8]


def read_picture(image: Any, *, color: Color = "rgb") -> Picture:
    """A picture of any kind that people hold.

    Grey becomes RGB of equal channels; transparency is dropped, not blended, as of files. A PIL picture is turned as
    its EXIF orientation says, as a file is.

    Args:
        image: see ``EXPECTED``; an address is fetched.
        color: order of an array's channels; OpenCV's is ``"bgr"``.

    Raises:
        ImageError: it is nothing of the kind, or cannot be read.
    """
    if color not in {"rgb", "bgr"}:
        raise ImageError(f"color must be 'rgb' or 'bgr', got {color!r}")
    if isinstance(image, str) and is_address(image):
        from xdet.pictures.download import fetch

        address = Address(image)
        return Picture(str(address), read_image(Encoded(str(address), fetch(address)), honour_exif=True))
    if isinstance(image, str | os.PathLike) and not isinstance(path := os.fspath(image), bytes):
        return Picture(path, Path(path))
    if isinstance(image, np.ndarray):
        return Picture(ARRAY, _to_rgb(image, color))
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(image, pillow.Image):
        return Picture(str(getattr(image, "filename", "") or "<picture>"), upright_rgb(image))
    raise ImageError(f"an image must be {EXPECTED}, got {type(image).__module__}.{type(image).__qualname__}")


def _to_rgb(image: NDArray[Any], color: Color) -> NDArray[np.uint8]:
    """An array as uint8 ``(height, width, 3)``, RGB."""
    shape = image.shape
    channels = 1 if image.ndim == 2 else shape[2] if image.ndim == 3 else 0
    if image.dtype != np.uint8 or channels not in {1, 3, 4} or not image.size:
        hint = ""
        if np.issubdtype(image.dtype, np.floating):
            hint = "; scale it to 0..255 and convert it: (image * 255).round().astype('uint8')"
        elif image.ndim == 3 and shape[0] in {1, 3, 4}:
            hint = "; channels come last: image.transpose(1, 2, 0)"
        elif image.ndim == 4:
            hint = "; give a batch as a list of images: detector(list(images))"
        raise ImageError(f"an image must be {EXPECTED}, got an array {image.dtype} {shape}{hint}")
    if channels == 1:
        return np.repeat(image.reshape(*shape[:2], 1), 3, axis=2)
    rgb: NDArray[np.uint8] = image[..., 2::-1] if color == "bgr" else image[..., :3]
    return rgb if channels == 3 and color == "rgb" else np.ascontiguousarray(rgb)
