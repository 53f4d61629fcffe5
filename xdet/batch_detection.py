"""Detecting in many files: pictures saved as they come, failures listed, one report at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xdet.preparation import Preparation, in_batches, prepare_many
from xdet.processors import reading_threads
from xdet.render import draw_detections, save_picture
from xdet.results_json import DetectionReport, FailedImage

if TYPE_CHECKING:
    from xdet.detections import Detections
    from xdet.detector import Detector
    from xdet.errors import ImageError

Progress = Callable[[int], object]


def detect_files(
    detector: Detector,
    images: Sequence[Path],
    *,
    pictures: Sequence[Path] | None = None,
    progress: Progress | None = None,
) -> DetectionReport:
    """Detect in image files; one that cannot be read is listed and the others go on.

    Args:
        detector: an open detector.
        images: files, as ``xdet.images.find_images`` lists them.
        pictures: where to write the annotated picture of each image, as ``xdet.picture_names`` names them; None draws none.
        progress: called with the number of images that are done since the last call.

    Raises:
        OutputError: a picture cannot be written.
    """
    failed: list[FailedImage] = []
    found: list[Detections] = []
    targets = {} if pictures is None else dict(zip(map(str, images), pictures, strict=True))

    def remember_failure(name: str, error: ImageError) -> None:
        failed.append(FailedImage(name, str(error)))
        if progress is not None:
            progress(1)

    how = Preparation(detector.spec.image, keep_original=pictures is not None)
    prepared = prepare_many(images, how, workers=reading_threads(), on_failure=remember_failure)
    for batch in in_batches(prepared, detector.batch):
        for image, detections in zip(batch, detector.detect_prepared(batch), strict=True):
            if image.original is not None:
                save_picture(targets[image.name], draw_detections(image.original, detections))
            found.append(detections)
            if progress is not None:
                progress(1)
    return DetectionReport(
        Path(detector.runtime.file).name,
        detector.runtime.sha256,
        detector.thresholds,
        tuple(found),
        tuple(failed),
    )
