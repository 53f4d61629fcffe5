"""Detecting in many files: pictures saved as they come, failures listed, one report at the end or each result at once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from xdet.detection.report import DetectionReport, FailedImage
from xdet.detection.rows import NamedImage
from xdet.errors import ImageError
from xdet.pictures.images import hash_photograph
from xdet.pictures.preparation import Preparation, prepare, through_network
from xdet.pictures.render import draw_detections, save_picture

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
) -> int:
    """As ``detect_files``, each result written when it is there and kept nowhere.

    Images that ``results`` has are left out, but for those without a result, which are tried again.

    Returns:
        How many images have changed since ``results`` got them, and were detected anew.
    """
    todo, changed = [], 0
    for index, image in enumerate(images):
        name = image.as_posix()
        known = results.done.get(name)
        differs = known is not None and known != hash_photograph(image)
        changed += differs
        if known is None or differs or name in results.errors:
            todo.append(index)
    digests: dict[Path, str] = {}

    def take_digest(image: Path) -> None:
        digests[image] = hash_photograph(image)

    if progress is not None:
        progress(len(images) - len(todo))
    drawn = None if pictures is None else [pictures[index] for index in todo]
    stream = detect_stream(
        detector, [images[index] for index in todo], pictures=drawn, classes=classes, before=take_digest
    )
    with closing(stream):
        for image, outcome in stream:
            named = NamedImage(image.as_posix(), digests[image])
            if isinstance(outcome, ImageError):
                results.add_failure(named, str(outcome).replace(str(image), named.name))
            else:
                results.add(named, outcome)
            if progress is not None:
                progress(1)
    return changed


def detect_stream(
    detector: Detector,
    images: Sequence[Path],
    *,
    pictures: Sequence[Path] | None = None,
    classes: Sequence[str] | None = None,
    before: Callable[[Path], object] | None = None,
) -> Generator[tuple[Path, Detections | ImageError]]:
    """Each image with its detections, or with why it has none, in order.

    The arguments are those of ``detect_files``; ``before`` gets each image before it is read, maybe on another thread.
    """
    targets = {} if pictures is None else dict(zip(map(str, images), pictures, strict=True))

    def detect_and_draw(batch: Sequence[Prepared]) -> list[Detections]:
        results = detector.detect_prepared(batch)
        if classes is not None:
            results = [detections.filter(classes=classes) for detections in results]
        for image, detections in zip(batch, results, strict=True):
            if image.original is not None:
                save_picture(targets[image.name], draw_detections(image.original, detections))
        return results

    how = Preparation(detector.spec.image, keep_original=pictures is not None)

    def ready(image: Path) -> Prepared:
        if before is not None:
            before(image)
        return prepare(image, how)

    yield from through_network(images, ready, detect_and_draw, batch=detector.batch, workers=detector.workers)
