"""Small films for the identity detector of ``finished_models``: each frame's red value is the score of its boxes."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def write_film(
    path: Path,
    reds: Sequence[int],
    *,
    size_wh: tuple[int, int] = (64, 48),
    codec: str = "ffv1",
    pixel_format: str = "bgr0",
    times: Sequence[Fraction] | None = None,
    container: str | None = None,
) -> Path:
    """A film of flat frames, 25 a second where ``times`` are not given; FFV1 in RGB keeps every value."""
    import av

    with av.open(str(path), "w", format=container) as film:
        stream: Any = film.add_stream(codec, rate=25)
        stream.width, stream.height = size_wh
        stream.pix_fmt = pixel_format
        stream.gop_size = 1  # each frame stands for itself
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, red in enumerate(reds):
            pixels = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
            pixels[..., 0] = red
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pixel_format)
            frame.time_base = Fraction(1, 1000)
            time = Fraction(number, 25) if times is None else times[number]
            frame.pts = round(time * 1000)
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    return path


def turn_clockwise(path: Path) -> None:
    """Let an MP4 say that it is to be shown turned by 90 degrees, as telephones do."""
    data = bytearray(path.read_bytes())
    matrix = data.rfind(b"tkhd") + 4 + 40
    fixed = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[matrix : matrix + 36] = struct.pack(">9i", *fixed)
    path.write_bytes(data)
