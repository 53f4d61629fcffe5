"""Detecting in many files: pictures saved as they come, failures listed, one report at the end or each result at once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from xdet.detection.report import DetectionReport, FailedImage
from xdet.errors import ImageError
from xdet.pictures.preparation import Preparation, prepare, through_network
from xdet.pictures.render import draw_detections, save_picture
from xdet.writing.text import image_names

if TYPE_CHECKING:
    from xdet.detection.detector import Detector
    from xdet.detection.results import ResultsFile
    from xdet.detections import Detections
    from xdet.pictures.preparation import Prepared

Progress = Callable[[int], object]


def detect_files(
    detector: Detector,
    images: Sequence[Path],
    *,
    pictures: Sequence[Path] | None = None,
    classes: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> DetectionReport:
    """Detect in image files; one that cannot be read is listed and the others go on.

    Args:
        detector: an open detector; its ``workers`` each take an image all the way, from its file to its annotated picture.
        images: files, as ``xdet.pictures.images.find_images`` lists them.
        pictures: where to write the annotated picture of each image, as ``xdet.pictures.names`` names them; None draws none.
        classes: names of the classes to keep; None keeps all.
        progress: called with the number of images that are done since the last call.

    Raises:
        OutputError: a picture cannot be written.
        UsageError: the model does not know one of ``classes``.
    """
    found: list[Detections] = []
    failed: list[FailedImage] = []
    for image, outcome in detect_stream(detector, images, pictures=pictures, classes=classes):
        if isinstance(outcome, ImageError):
            failed.append(FailedImage(str(image), str(outcome)))
        else:
            found.append(outcome)
        if progress is not None:
            progress(1)
    return DetectionReport(
        Path(detector.runtime.file).name,
        detector.runtime.sha256,
        detector.thresholds,
        tuple(found),
        tuple(failed),
    )


def detect_to_file(
    detector: Detector,
    images: Sequence[Path],
    results: ResultsFile,
    *,
    pictures: Sequence[Path] | None = None,
    classes: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> None:
    """As ``detect_files``, each result written when it is there and kept nowhere; images that ``results`` has are left out."""
    names = image_names([str(image) for image in images])
    todo = [index for index, name in enumerate(names) if name not in results.done]
    if progress is not None:
        progress(len(images) - len(todo))
    drawn = None if pictures is None else [pictures[index] for index in todo]
    stream = detect_stream(detector, [images[index] for index in todo], pictures=drawn, classes=classes)
    with closing(stream):
        for index, (image, outcome) in zip(todo, stream, strict=True):
            name = names[index]
            if isinstance(outcome, ImageError):
                results.add_failure(name, str(outcome).replace(str(image), name))
            else:
                results.add(name, outcome)
            if progress is not None:
                progress(1)


def detect_stream(
    detector: Detector,
    images: Sequence[Path],
    *,
    pictures: Sequence[Path] | None = None,
    classes: Sequence[str] | None = None,
) -> Generator[tuple[Path, Detections | ImageError]]:
    """Each image with its detections, or with why it has none, in order; the arguments are those of ``detect_files``."""
    targets = {} if pictures is None else dict(zip(map(str, images), pictures, strict=True))

    def detect_and_draw(batch: Sequence[Prepared]) -> list[Detections]:
        results = detector.detect_prepared(batch)
        if classes is not None:
            results = [detections.filter(classes=classes) for detections in results]
        for image, detections in zip(batch, results, strict=True):
            if image.original is not None:
                save_picture(targets[image.name], draw_detections(image.original, detections))
        return results

    ready = partial(prepare, how=Preparation(detector.spec.image, keep_original=pictures is not None))
    yield from through_network(images, ready, detect_and_draw, batch=detector.batch, workers=detector.workers)
