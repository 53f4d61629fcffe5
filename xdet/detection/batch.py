"""Detecting in many files: pictures saved as they come, failures listed, one report at the end or each result at once.

A label file holds boxes and classes without scores, as annotation tools and trainers read them. A photograph without
boxes has an empty one, one that cannot be read has none.

Of a video file every frame counts, in its order. Of live sources the newest frame when the network is free, one at a
time, so that what is shown is never older than one detection. Memory holds a few frames however long a film is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xdet.detection.report import DetectionReport, FailedImage
from xdet.errors import DataError, ImageError
from xdet.pictures.images import Encoded, hash_file
from xdet.pictures.preparation import Preparation, prepare, through_network
from xdet.pictures.render import draw_detections, picture_paths, save_picture
from xdet.pictures.video import LARGEST_VIDEO, Film, Frame, Recording, is_live, newest_frames, read_frames
from xdet.writing.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from xdet.detection.detector import Detector
    from xdet.detection.results import ResultsFile
    from xdet.detections import Detections
    from xdet.pictures.addresses import Address
    from xdet.pictures.preparation import Prepared

Progress = Callable[[int], object]

# Layout of label files -> suffix, and what makes the text.
LABELS: dict[str, tuple[str, Callable[[Detections], str]]] = {
    "yolo": (".txt", lambda detections: detections.to_yolo(scores=False)),
    "voc": (".xml", lambda detections: detections.to_voc()),
}


def detect_files(
    detector: Detector,
    images: Sequence[Path | Address],
    *,
    pictures: Sequence[Path] | None = None,
    classes: Sequence[str] | None = None,
    progress: Progress = lambda _: None,
) -> DetectionReport:
    """Detect in image files; one that cannot be read is listed and the others go on.

    Args:
        detector: an open one; its ``workers`` each take an image all the way, from its file to its annotated picture.
        images: files and addresses, as ``xdet.pictures.listing.list_inputs`` lists them.
        pictures: where to write the annotated picture of each image; None draws none.
        classes: names of the classes to keep; None keeps all.
        progress: called with the number of images that are done since the last call.

    Raises:
        OutputError: a picture cannot be written.
        UsageError: the model does not know one of ``classes``.
    """
    results: list[Detections] = []
    stream = detect_stream(detector, images, pictures=pictures, classes=classes)
    failed = _take_results(stream, results.append, progress)
    return DetectionReport(
        detector.runtime.model,
        detector.thresholds,
        tuple(results),
        tuple(failed),
        detector.score_by_class,
        detector.decode,
    )


def detect_to_file(
    detector: Detector,
    images: Sequence[Path | Address],
    results: ResultsFile,
    *,
    pictures: Sequence[Path] | None = None,
    classes: Sequence[str] | None = None,
    progress: Progress = lambda _: None,
) -> int:
    """As ``detect_files``, each result written when it is there and kept nowhere.

    Images that ``results`` has are left out, but for those without a result, which are tried again. An address is known
    by its name alone, and not fetched again.

    Returns:
        How many images have changed since ``results`` got them, and were detected anew.
    """
    from xdet.detection.results import NamedImage

    todo, changed = [], 0
    for index, image in enumerate(images):
        name = result_name(image)
        digest = results.done.get(name)
        differs = digest is not None and isinstance(image, Path) and digest != hash_file(image)
        changed += differs
        if digest is None or differs or name in results.errors:
            todo.append(index)
    progress(len(images) - len(todo))
    digests: dict[str, str] = {}
    stream = detect_stream(
        detector,
        [images[index] for index in todo],
        pictures=None if pictures is None else [pictures[index] for index in todo],
        classes=classes,
        note_digest=digests.__setitem__,
    )
    with closing(stream):
        for image, outcome in stream:
            named = NamedImage(result_name(image), digests.pop(result_name(image), ""))
            if isinstance(outcome, ImageError):
                results.add_failure(named, str(outcome).replace(str(image), named.name))
            else:
                results.add(named, outcome)
            progress(1)
    return changed


def detect_to_labels(
    detector: Detector,
    images: Sequence[Path | Address],
    labels: Sequence[Path],
    layout: str,
    *,
    pictures: Sequence[Path] | None = None,
    classes: Sequence[str] | None = None,
    progress: Progress = lambda _: None,
) -> list[FailedImage]:
    """As ``detect_files``, each image's boxes written to its file of ``labels``, whose folder must exist.

    Gives the images without a result, and why.
    """
    paths = {str(image): path for image, path in zip(images, labels, strict=True)}
    stream = detect_stream(detector, images, pictures=pictures, classes=classes)
    return _take_results(stream, lambda result: write_text(paths[result.image], LABELS[layout][1](result)), progress)


def _take_results(
    stream: Generator[tuple[Path | Address, Detections | ImageError]],
    take: Callable[[Detections], object],
    progress: Progress,
) -> list[FailedImage]:
    """Hand every result on; gives the images without one, and why."""
    failed = []
    with closing(stream):
        for image, outcome in stream:
            if isinstance(outcome, ImageError):
                failed.append(FailedImage(str(image), str(outcome)))
            else:
                take(outcome)
            progress(1)
    return failed


def label_paths(images: Sequence[Path], folder: Path, layout: str) -> list[Path]:
    """One label file per image in ``folder``, named as ``picture_paths`` does; a ``DataError`` where two share one."""
    owner: dict[str, Path] = {}
    paths = []
    for image, picture in zip(images, picture_paths(images, folder), strict=True):
        path = picture.parent / f"{picture.name.removesuffix('.png').removesuffix(image.suffix)}{LABELS[layout][0]}"
        other = owner.setdefault(path.name.casefold(), image)
        if other is not image:
            raise DataError(f"'{other}' and '{image}' share the label file '{path.name}'; write two folders")
        paths.append(path)
    return paths


def result_name(image: Path | Address) -> str:
    """How lines of results call an image."""
    return image.as_posix() if isinstance(image, Path) else str(image)


def detect_stream(
    detector: Detector,
    images: Sequence[Path | Address],
    *,
    pictures: Sequence[Path] | None = None,
    classes: Sequence[str] | None = None,
    note_digest: Callable[[str, str], object] | None = None,
) -> Generator[tuple[Path | Address, Detections | ImageError]]:
    """Each image with its detections, or with why it has none, in order.

    The arguments are those of ``detect_files``; ``note_digest`` gets each image's ``result_name`` and SHA-256 before it
    is decoded, maybe on another thread.
    """
    targets = {} if pictures is None else dict(zip(map(str, images), pictures, strict=True))
    how = Preparation(detector.spec.image, keep_original=pictures is not None, reduced=detector.decode == "reduced")

    def ready(image: Path | Address) -> Prepared:
        if isinstance(image, Path):
            if note_digest is not None:
                note_digest(result_name(image), hash_file(image))
            return prepare(image, how)
        from xdet.pictures.download import fetch

        data = fetch(image)
        if note_digest is not None:
            note_digest(result_name(image), hashlib.sha256(data).hexdigest())
        return prepare(Encoded(str(image), data), how)

    def detect_and_draw(batch: Sequence[Prepared]) -> list[Detections]:
        results = detector.detect_prepared(batch, classes=classes)
        for image, detections in zip(batch, results, strict=True):
            if image.original is not None:
                save_picture(targets[image.name], draw_detections(image.original, detections))
        return results

    yield from through_network(images, ready, detect_and_draw, batch=detector.batch, workers=detector.workers)


@dataclass(frozen=True, eq=False, slots=True)
class FrameDetections:
    """A frame and what was found in it."""

    frame: Frame
    detections: Detections  # their ``image`` is the film's name
    drawn: NDArray[np.uint8] | None = None  # the frame with boxes, uint8 ``(height, width, 3)``, RGB, where asked for


def detect_frames(
    detector: Detector,
    film: Film,
    *,
    live: bool = False,
    classes: Sequence[str] | None = None,
    draw: bool = False,
    skip: int = 0,
    note_dropped: Callable[[int], object] = lambda _: None,
) -> Generator[FrameDetections]:
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
                yield FrameDetections(frame, *outcome)


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
    show: Callable[[FrameDetections], object] = lambda _: None,
) -> FilmEnd:
    """As ``detect_frames``, each result written when it is there; frames that ``results`` has are passed over.

    Whether the film is live, its server says. Ctrl-C is how a live source ends: what was seen is kept, and nothing is
    raised. ``results`` of None keeps none; ``recording`` is a video with boxes to write; ``show`` gets each frame that
    was detected in.

    Raises:
        ImageError: as ``detect_frames``, without ``results``, which take such a failure as a line of the film.
        OutputError: a result cannot be written.
    """
    from xdet.detection.results import NamedImage

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
            for each in stack.enter_context(closing(stream)):
                if results is not None:
                    results.add(whole._replace(frame=each.frame.number, time_s=each.frame.time_s), each.detections)
                if writer is not None and each.drawn is not None:
                    writer.add(each.drawn, each.frame.time_s)
                frames += 1
                show(each)
        except ImageError as error:
            if results is None:
                raise
            results.add_failure(whole, str(error))
        except KeyboardInterrupt:
            if not live:
                raise
            stopped = True
    return FilmEnd(frames, live, sum(dropped), stopped)
