"""Detecting in videos, cameras and streams: frame by frame into a results file, with the boxes as a video beside it.

Files: every frame in its order. Live sources: the newest frame when the network is free, one at a time, so that what is
shown is never older than one detection. Memory holds a few frames however long a film is.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdet.detection.results import NamedImage
from xdet.errors import ImageError
from xdet.pictures.images import hash_file
from xdet.pictures.preparation import Preparation, Prepared, prepare, through_network
from xdet.pictures.render import draw_detections
from xdet.pictures.video import LARGEST_VIDEO, Film, Frame, is_live, newest_frames, read_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from xdet.detection.detector import Detector
    from xdet.detection.results import ResultsFile
    from xdet.detections import Detections


@dataclass(frozen=True, eq=False, slots=True)
class SeenFrame:
    """A frame and what was found in it; the ``image`` of these detections is the film's name.

    ``drawn`` is the frame with boxes, uint8 ``(height, width, 3)``, RGB, where that was asked for.
    """

    frame: Frame
    found: Detections
    drawn: NDArray[np.uint8] | None = None


def detect_frames(
    detector: Detector,
    film: Film,
    *,
    live: bool = False,
    classes: Sequence[str] | None = None,
    draw: bool = False,
    skip: int = 0,
    note_dropped: Callable[[int], object] = lambda _: None,
) -> Generator[SeenFrame]:
    """Detect in the frames of a film, in order; close it where it is left early.

    Args:
        detector: an open detector; of a file its ``workers`` each take a frame.
        film: a video file, a camera or a stream.
        live: take the newest frame whenever the network is free, as ``xdet.pictures.video.newest_frames`` does.
        classes: names of the classes to keep; None keeps all.
        draw: draw the boxes, too.
        skip: frames at the beginning that are passed over.
        note_dropped: as for ``newest_frames``.

    Raises:
        MissingExtraError: PyAV is not installed.
        ImageError: the film cannot be opened, or a part of it cannot be read; after the frames that can.
        UsageError: the model does not know one of ``classes``.
    """
    how = Preparation(detector.spec.image, keep_original=draw)

    def ready(frame: Frame | ImageError) -> Prepared:
        if isinstance(frame, ImageError):
            raise frame
        return prepare(frame.pixels, how, name=film.name)

    def detect_and_draw(batch: Sequence[Prepared]) -> list[tuple[Detections, NDArray[np.uint8] | None]]:
        results = detector.detect_prepared(batch, classes=classes)
        return [
            (detections, None if image.original is None else draw_detections(image.original, detections))
            for image, detections in zip(batch, results, strict=True)
        ]

    size, workers = (1, 1) if live else (detector.batch, detector.workers)
    with closing(newest_frames(film, note_dropped) if live else read_frames(film)) as frames:
        stream = through_network(_with_error(frames, skip), ready, detect_and_draw, batch=size, workers=workers)
        for frame, outcome in stream:
            if isinstance(outcome, ImageError):
                raise outcome
            if isinstance(frame, Frame):
                yield SeenFrame(frame, *outcome)


def _with_error(frames: Iterable[Frame], skip: int) -> Iterator[Frame | ImageError]:
    """The frames behind the first ``skip``, and at the end the error, so that frames before it are not lost."""
    try:
        for frame in frames:
            if frame.number >= skip:
                yield frame
    except ImageError as error:
        yield error


@dataclass(frozen=True, slots=True)
class FilmEnd:
    """How detecting in a film ended."""

    frames: int  # that were detected in
    live: bool  # it was a camera or a live stream
    dropped: int  # frames of a live one that were too many for the network
    stopped: bool  # a live one was ended by the user


def detect_film_to_file(
    detector: Detector,
    film: Film,
    results: ResultsFile | None,
    *,
    classes: Sequence[str] | None = None,
    recording: Path | None = None,
    show: Callable[[SeenFrame], object] = lambda _: None,
) -> FilmEnd:
    """As ``detect_frames``, each result written when it is there; frames that ``results`` has are passed over.

    Whether the film is live, its server says. Ctrl-C is how a live source ends: what was seen is kept, and nothing is
    raised. ``results`` of None keeps none; ``recording`` is a video with boxes to write; ``show`` gets each frame that
    was detected in.

    Raises:
        ImageError: as ``detect_frames``, without ``results``, which take such a failure as a line of the film.
        OutputError: a result cannot be written.
    """
    from xdet.pictures.video import Recording

    whole = NamedImage(film.name, "" if film.path is None else hash_file(film.path, LARGEST_VIDEO))
    skip = 0 if results is None else results.frames_done(whole)
    frames, dropped, live, stopped = 0, [0], False, False
    with ExitStack() as stack:
        try:
            live = is_live(film)
            writer = None if recording is None else stack.enter_context(Recording(recording))
            stream = detect_frames(
                detector,
                film,
                live=live,
                classes=classes,
                draw=writer is not None,
                skip=skip,
                note_dropped=dropped.append,
            )
            for seen in stack.enter_context(closing(stream)):
                if results is not None:
                    results.add(whole._replace(frame=seen.frame.number, time_s=seen.frame.time_s), seen.found)
                if writer is not None and seen.drawn is not None:
                    writer.add(seen.drawn, seen.frame.time_s)
                frames += 1
                show(seen)
        except ImageError as error:
            if results is None:
                raise
            results.add_failure(whole, str(error))
        except KeyboardInterrupt:
            if not live:
                raise
            stopped = True
    return FilmEnd(frames, live, sum(dropped), stopped)
