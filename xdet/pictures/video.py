"""Frames in: video files, cameras and streams; frames out: a video. FFmpeg does both, through PyAV (extra ``video``).

PyAV, not OpenCV: it gives every frame with its own time stamp and turning, says why a file cannot be read, and honours
the colour matrix that a video names; ``cv2.VideoCapture`` takes a damaged packet for the end, and estimates the number
of frames.

Of a file every frame is given, in the order of presentation. Of a camera or a live stream the newest: a thread reads
all the time, keeps one frame, and what nobody took is dropped; frame numbers count what was read, so a gap in them is
what was dropped.

FFmpeg opens what it is told to and no more: of files the container formats below, never playlists that name other
files, and of addresses no files.

A video with boxes is H.264, each frame at its own time. It is written in fragments that can be played whatever ends
the program, and becomes an ordinary one when it is closed.
"""

from __future__ import annotations

import queue
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from converters.files import open_regular
from xdet.errors import ImageError, OutputError, RuntimeUnavailableError, UsageError, import_extra
from xdet.writing.text import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xdet.pictures.addresses import Address

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".flv", ".wmv", ".3gp", ".ogv")
)
STREAM_SUFFIXES = frozenset((".m3u8", ".mjpg", ".mjpeg"))  # of addresses
LARGEST_VIDEO = 1 << 44  # bytes of the file: read piece by piece
LARGEST_FRAME = 36_000_000  # pixels, 8192 x 4320: FFmpeg holds several frames, and a damaged one may claim any size
OPENING_S = READING_S = 10.0  # without a word from a server or camera
# Containers as libavformat calls them. A literal list: some of its readers open what the file names (concat, hls,
# dash).
_CONTAINERS = "mov,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,h264,hevc,ivf,yuv4mpegpipe,m4v"
_FILES = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
_STREAMS = {
    "protocol_whitelist": "http,https,tcp,tls,crypto,udp,rtp,srtp",
    "format_whitelist": f"{_CONTAINERS},mpjpeg,mjpeg,hls,rtsp,sdp,rtp",
    "rtsp_transport": "tcp",  # nothing is lost on the way
}
# sys.platform -> libavdevice's format, and how it calls the device.
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
RECORDED = frozenset((".mp4", ".m4v", ".mov", ".mkv"))  # containers that are kept; others become MP4
_ENCODER = "libx264"
_TICKS = 90_000  # of a second
# No B-frames: they would begin a fragmented file with a gap.
_QUALITY = {"crf": "20", "preset": "veryfast", "bf": "0"}
_FRAGMENTS = {"movflags": "+hybrid_fragmented", "frag_duration": "1000000"}  # of a second


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """A frame of a video."""

    number: int  # from 0, in the order of presentation
    time_s: float  # since the first frame, by the video's time stamps
    pixels: NDArray[np.uint8]  # ``(height, width, 3)``, RGB, upright


@dataclass(frozen=True, slots=True)
class Film:
    """Where frames come from.

    Attributes:
        name: as results and messages call it.
        place: what FFmpeg opens.
        format: FFmpeg's reader; None where it is to find out.
        options: handed to FFmpeg.
        path: of a file; None for cameras and addresses.
    """

    name: str
    place: str
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict, compare=False)
    path: Path | None = None

    @classmethod
    def of_file(cls, path: Path) -> Film:
        """A video file."""
        return cls(path.as_posix(), f"file:{path}", options=_FILES, path=path)

    @classmethod
    def of_address(cls, address: Address) -> Film:
        """A stream, or a video on a server."""
        return cls(str(address), address.url, options=_STREAMS)

    @classmethod
    def of_camera(cls, camera: str) -> Film:
        """A camera by its number, or by the name that its system gives it.

        Raises:
            UsageError: this system's cameras are not known.
        """
        if sys.platform not in _CAMERAS:
            raise UsageError(
                f"xdet opens no cameras on {sys.platform}; name a video, or an address that shows the camera"
            )
        reader, place = _CAMERAS[sys.platform]
        number = camera.isascii() and camera.isdecimal()
        return cls(f"camera {camera}", place.format(camera) if number or sys.platform != "linux" else camera, reader)


def import_av() -> Any:
    """The package ``av``; a ``MissingExtraError`` where it is not installed."""
    return import_extra("av", "PyAV, which videos, cameras and streams need,", "video")


def read_frames(film: Film) -> Generator[Frame]:
    """Every frame of a film.

    What is damaged is passed over, and told when all that can be read was given.

    Raises:
        MissingExtraError: PyAV is not installed.
        ImageError: it cannot be opened, holds no video, or a part of it cannot be read.
    """
    av = import_av()
    with _opened(av, film) as (container, stream):
        number, damaged, why = 0, 0, ""
        first: float | None = None
        for packet in _packets(av, container, stream, film):
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                damaged, why = damaged + 1, _reason(av, error)
                if isinstance(error, av.error.ArgumentError):
                    why = f"damaged, or more than {LARGEST_FRAME // 10**6} million pixels"
                continue
            for frame in frames:
                damaged += frame.is_corrupt
                first = frame.time if first is None else first
                yield Frame(number, _time(frame, first, number, stream), _upright(frame))
                number += 1
        expected = stream.frames
    if damaged or number < expected:
        of = f" of {expected}" if expected else ""
        lost = f"{damaged} damaged pieces ({why or 'concealed by the decoder'})" if damaged else "its end is missing"
        raise ImageError(f"'{film.name}': {number}{of} frames can be read: {lost}; a repaired or whole file has all")


def is_live(film: Film) -> bool:
    """Whether its frames are to be taken as they come: a camera, or an address that does not say how long it is.

    Errors are those of ``read_frames``.
    """
    if film.path is not None:
        return False
    if film.format is not None:
        return True
    with _opened(import_av(), film) as (container, _):
        return container.duration is None


def frames_expected(film: Film) -> int:
    """How many frames a film says that it has, by its index or its length and rate; 0 where it does not, as live ones.

    Errors are those of ``read_frames``.
    """
    with _opened(import_av(), film) as (container, stream):
        if stream.frames:
            return int(stream.frames)
        seconds = (container.duration or 0) / 1_000_000
        return round(seconds * float(stream.average_rate or 0))


def newest_frames(film: Film, note_dropped: Callable[[int], object] = lambda _: None) -> Generator[Frame]:
    """The newest frame of a camera or stream whenever one is asked for, until it ends; the last one is always given.

    At the end ``note_dropped`` gets the number of frames that were read and not given. Errors are those of
    ``read_frames``, after the frames before them.
    """
    import_av()
    slot: queue.Queue[Frame | BaseException | None] = queue.Queue(1)  # the newest frame; behind the last how it ended
    stopped, dropped = threading.Event(), 0

    def read() -> None:
        nonlocal dropped
        end: BaseException | None = None
        try:
            for frame in read_frames(film):
                with suppress(queue.Empty):
                    slot.get_nowait()
                    dropped += 1
                slot.put(frame)
                if stopped.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - raised where the frames are taken
            end = error
        slot.put(end)

    reader = threading.Thread(target=read, name="xdet-camera", daemon=True)
    reader.start()
    try:
        while True:
            try:
                item = slot.get(timeout=0.2)  # a signal is handled in between
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        with suppress(queue.Empty):  # room for what the reader may be waiting to put
            slot.get_nowait()
        reader.join(1.0)  # it ends with the next frame, or with the program
        note_dropped(dropped)


@contextmanager
def _opened(av: Any, film: Film) -> Iterator[tuple[Any, Any]]:
    """The open container and its best video stream."""
    live = {} if film.path is not None else {"timeout": (OPENING_S, READING_S)}
    try:
        if film.path is not None:
            with open_regular(film.path, LARGEST_VIDEO):
                pass
        container = av.open(film.place, format=film.format, options=dict(film.options), **live)
    except (av.FFmpegError, OSError, ValueError) as error:
        what = f"cannot open '{film.name}'"
        if film.name != film.place and film.format is not None:
            what += f" ({film.place})"
        raise ImageError(f"{what}: {_reason(av, error)}") from error
    with container:
        stream = next(iter(container.streams.video), None)
        if stream is None:
            raise ImageError(f"'{film.name}' holds no video")
        if stream.codec_context is None:
            raise ImageError(f"'{film.name}' is of a codec that this FFmpeg cannot decode; convert it to H.264 first")
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > LARGEST_FRAME:
            raise ImageError(f"'{film.name}' has frames of {width} x {height} pixels: too large; scale it down first")
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.options = {"max_pixels": str(LARGEST_FRAME)}
        yield container, stream


def _packets(av: Any, container: Any, stream: Any, film: Film) -> Iterator[Any]:
    """A connection that breaks ends them with an error."""
    try:
        yield from container.demux(stream)
    except (av.FFmpegError, OSError) as error:
        raise ImageError(f"'{film.name}' ended: {_reason(av, error)}") from error


def _time(frame: Any, first: float | None, number: int, stream: Any) -> float:
    if frame.time is None or first is None:
        return round(number / float(stream.average_rate or 25), 6)
    return round(float(frame.time) - first, 6)


def _upright(frame: Any) -> NDArray[np.uint8]:
    """RGB, turned as the video's display matrix says.

    On one thread: several are woken for 0.2 ms of work, wait for the workers' processors, and take 1.2 ms.
    """
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24", threads=1)
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _reason(av: Any, error: Exception) -> str:
    """FFmpeg's words, or better ones."""
    if isinstance(error, av.error.ExitError):
        return f"nothing came for {READING_S:.0f} s"
    if isinstance(error, av.error.InvalidDataError):
        return "the data are damaged, or no video"
    if isinstance(error, av.error.ArgumentError):
        return "it is no video of a kind that xdet reads"
    return reason(error)


def recording_paths(names: Sequence[str], folder: Path) -> list[Path]:
    """One video per name in ``folder``: its own name and container, MP4 where none is written.

    >>> from pathlib import Path
    >>> [path.name for path in recording_paths(["a/1.mov", "b/1.mov", "camera 0", "2.avi"], Path("out"))]
    ['1.mov', '1-2.mov', 'camera 0.mp4', '2.avi.mp4']
    """
    from xdet.pictures.render import unique_paths

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
    """A video that is being written, made at its first frame, which decides the size; finished where the block ends.

    Raises:
        OutputError: it cannot be written; from each method.
    """

    def __init__(self, path: Path) -> None:
        from fractions import Fraction  # with decimal, which photographs do without

        self._path, self._av, self._time_base = path, import_av(), Fraction(1, _TICKS)
        self._container: Any = None
        self._stream: Any = None
        self._last = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, pixels: NDArray[np.uint8], time_s: float) -> None:
        """Append a frame, uint8 ``(height, width, 3)``, RGB; one of another size than the first is stretched to it."""
        try:
            if self._container is None:
                self._open(pixels.shape[1], pixels.shape[0])
            frame = self._av.VideoFrame.from_ndarray(_even(pixels), format="rgb24")
            frame = frame.reformat(self._stream.width, self._stream.height, "yuv420p", threads=1)
            self._last = max(self._last + 1, round(time_s * _TICKS))
            frame.pts, frame.time_base = self._last, self._time_base
            self._container.mux(self._stream.encode(frame))
        except (self._av.FFmpegError, OSError) as error:
            raise self._problem(error) from error

    def close(self) -> None:
        """Finish the file."""
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
        self._stream.time_base = self._stream.codec_context.time_base = self._time_base

    def _problem(self, error: Exception) -> OutputError:
        return OutputError(f"cannot write '{self._path}': {reason(error)}")


def _even(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The last row and column twice where their number is odd: H.264 halves the resolution of colours."""
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), "edge") if height % 2 or width % 2 else pixels
