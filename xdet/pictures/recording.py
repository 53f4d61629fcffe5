"""Frames out: a video with boxes, H.264, each frame at its own time.

The file is written in fragments that can be played whatever ends the program, and becomes an ordinary one when it is
closed.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from xdet.errors import OutputError, RuntimeUnavailableError
from xdet.pictures.render import unique_paths
from xdet.pictures.video import import_av
from xdet.writing.text import reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RECORDED = frozenset((".mp4", ".m4v", ".mov", ".mkv"))  # containers that are kept; others become MP4
_ENCODER = "libx264"
_CLOCK = Fraction(1, 90_000)
# No B-frames: they would begin a fragmented file with a gap.
_QUALITY = {"crf": "20", "preset": "veryfast", "bf": "0"}
_FRAGMENTS = {"movflags": "+hybrid_fragmented", "frag_duration": "1000000"}  # of a second


def recording_paths(names: Sequence[str], folder: Path) -> list[Path]:
    """One video per name in ``folder``: its own name and container, MP4 where none is written.

    >>> from pathlib import Path
    >>> [path.name for path in recording_paths(["a/1.mov", "b/1.mov", "camera 0", "2.avi"], Path("out"))]
    ['1.mov', '1-2.mov', 'camera 0.mp4', '2.avi.mp4']
    """
    parts = []
    for name in names:
        last = PurePosixPath(name).name or name
        suffix = PurePosixPath(last).suffix
        kept = suffix.lower() in RECORDED
        parts.append((last.removesuffix(suffix), suffix) if kept else (last, ".mp4"))
    return unique_paths(parts, folder)


def require_encoder() -> None:
    """Refuse to record where FFmpeg cannot.

    Raises:
        MissingExtraError: PyAV is not installed.
        RuntimeUnavailableError: its FFmpeg has no encoder for H.264.
    """
    if _ENCODER not in import_av().codecs_available:
        raise RuntimeUnavailableError(
            "this PyAV has no encoder for H.264 (libx264); install its wheel from PyPI, or leave out `save`"
        )


class Recording:
    """A video that is being written; a context manager that finishes it.

    Args:
        path: the file; made at the first frame, which decides the size.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._av = path, import_av()
        self._container: Any = None
        self._stream: Any = None
        self._last = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, pixels: NDArray[np.uint8], time_s: float) -> None:
        """Append a frame, uint8 ``(height, width, 3)``, RGB; one of another size than the first is stretched to that.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            if self._container is None:
                self._open(pixels.shape[1], pixels.shape[0])
            frame = self._av.VideoFrame.from_ndarray(_even(pixels), format="rgb24")
            frame = frame.reformat(self._stream.width, self._stream.height, "yuv420p")
            self._last = max(self._last + 1, round(time_s / _CLOCK))
            frame.pts, frame.time_base = self._last, _CLOCK
            self._container.mux(self._stream.encode(frame))
        except (self._av.FFmpegError, OSError) as error:
            raise self._problem(error) from error

    def close(self) -> None:
        """Finish the file.

        Raises:
            OutputError: it cannot be written.
        """
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            container.mux(self._stream.encode(None))
            container.close()
        except (self._av.FFmpegError, OSError) as error:
            raise self._problem(error) from error

    def _open(self, width: int, height: int) -> None:
        options = {"flush_packets": "1"} | ({} if self._path.suffix.lower() == ".mkv" else _FRAGMENTS)
        container = {".mkv": "matroska", ".mov": "mov"}.get(self._path.suffix.lower(), "mp4")
        self._container = self._av.open(f"file:{self._path}", "w", options=options, format=container)
        self._stream = self._container.add_stream(_ENCODER, rate=30, options=_QUALITY)
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = _CLOCK

    def _problem(self, error: Exception) -> OutputError:
        return OutputError(f"cannot write '{self._path}': {reason(error)}")


def _even(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The last row and column twice where their number is odd: H.264 halves the resolution of colours."""
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), "edge") if height % 2 or width % 2 else pixels
