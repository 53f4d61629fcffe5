"""The picture that a network takes, and where a photograph stands in it.

``"letterbox"`` is Ultralytics' rule: the photograph is scaled by ``min(H / h, W / w)``, both sides rounded, and stands
in the middle of bars of grey ``PADDING``; of an odd number of bar pixels the right and the lower bar get one more.
Every other rule stretches it over the whole picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from converters.checks import require_choice, require_count, require_flag, require_instance, require_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

ResizeRule = Literal["nearest", "bilinear", "bilinear-antialias", "letterbox"]
Color = Literal["rgb", "bgr", "grey"]
PADDING = 114  # every channel of a letterbox's bars


@dataclass(frozen=True, slots=True)
class Rescaling:
    """What the network sees of a pixel p in 0..255: ``p * scale + offset``."""

    scale: float
    offset: float

    def __post_init__(self) -> None:
        require_number(self.offset, "rescaling offset")
        if require_number(self.scale, "rescaling scale") <= 0:
            raise ValueError(f"rescaling scale must be above 0, got {self.scale!r}")


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The picture a network takes: uint8 pixels, NHWC, at exactly this size.

    Attributes:
        height: rows in pixels.
        width: columns in pixels.
        rescaling: pixel to real number, done inside the graph.
        resize: how a photograph gets this size: stretched, or with bars beside it (``"letterbox"``).
        color: what the channels are: ``"rgb"``, ``"bgr"``, or one alone, ``"grey"``.
        any_size: the finished graph takes RGB photographs of any size and makes this picture itself; its boxes are
            fractions of the photograph.
    """

    height: int
    width: int
    rescaling: Rescaling
    resize: ResizeRule = "nearest"
    color: Color = "rgb"
    any_size: bool = False

    def __post_init__(self) -> None:
        require_count(self.height, "image height")
        require_count(self.width, "image width")
        require_instance(self.rescaling, Rescaling, "image rescaling")
        require_choice(self.resize, ResizeRule, "resize")
        require_choice(self.color, Color, "color")
        require_flag(self.any_size, "any_size")

    @property
    def channels(self) -> int:
        """Numbers of a pixel: 1 for grey, else 3."""
        return 1 if self.color == "grey" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels of the network's picture."""
        return self.height, self.width, self.channels

    def as_fed(self, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Pictures of the network as the finished graph takes them, with the same result.

        Args:
            pictures: uint8 ``(..., height, width, channels)``.

        Returns:
            The pictures themselves; for ``any_size`` RGB photographs of the network's size, of which every resize rule
            makes the picture.
        """
        if not self.any_size or self.color == "rgb":
            return pictures
        return pictures[..., ::-1] if self.color == "bgr" else pictures.repeat(3, axis=-1)

    def placement(self, size_wh: tuple[int, int]) -> Placement:
        """Where a photograph of this size stands in the picture whose fractions the finished graph's boxes are."""
        if self.resize != "letterbox" or self.any_size:
            return Placement(0, 0, self.width, self.height, (self.width, self.height))
        scale = min(self.height / size_wh[1], self.width / size_wh[0])
        width, height = (max(1, round(side * scale)) for side in size_wh)
        left, top = round((self.width - width) / 2 - 0.1), round((self.height - height) / 2 - 0.1)
        return Placement(left, top, width, height, (self.width, self.height))


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a photograph stands in the network's picture, in its pixels.

    Attributes:
        left: columns before the photograph.
        top: rows above it.
        width: columns of the photograph there.
        height: rows.
        network_wh: width and height of the whole picture.
    """

    left: int
    top: int
    width: int
    height: int
    network_wh: tuple[int, int]

    def to_photograph(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fractions of the network's picture as fractions of the photograph, the inverse of how pixels got there.

        Args:
            points: float32 ``(..., 2 n)``, x and y in turn: boxes, or key points.

        Returns:
            float32 of the same shape, cut to 0..1; ``points`` themselves where the photograph fills the picture.
        """
        if (self.width, self.height) == self.network_wh:
            return points
        turns = points.shape[-1] // 2
        whole, start, size = (
            np.tile(np.array(pair, np.float64), turns)
            for pair in (self.network_wh, (self.left, self.top), (self.width, self.height))
        )
        return np.clip((points * whole - start) / size, 0, 1).astype(np.float32)
