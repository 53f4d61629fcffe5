"""Detecting in many files: pictures saved as they come, failures listed, one report at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from xdet.detection.report import DetectionReport, FailedImage
from xdet.errors import ImageError
from xdet.pictures.preparation import Preparation, prepare, through_network
from xdet.pictures.render import draw_detections, save_picture

if TYPE_CHECKING:
    from xdet.detection.detector import Detector
    from xdet.detections import Detections
    from xdet.pictures.preparation import Prepared

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
        detector: an open detector; its ``workers`` each take an image all the way, from its file to its annotated picture.
        images: files, as ``xdet.pictures.images.find_images`` lists them.
        pictures: where to write the annotated picture of each image, as ``xdet.pictures.names`` names them; None draws none.
        progress: called with the number of images that are done since the last call.

    Raises:
        OutputError: a picture cannot be written.
    """
    found: list[Detections] = []
    failed: list[FailedImage] = []
    targets = {} if pictures is None else dict(zip(map(str, images), pictures, strict=True))

    def detect_and_draw(batch: Sequence[Prepared]) -> list[Detections]:
        results = detector.detect_prepared(batch)
        for image, detections in zip(batch, results, strict=True):
            if image.original is not None:
                save_picture(targets[image.name], draw_detections(image.original, detections))
        return results

    ready = partial(prepare, how=Preparation(detector.spec.image, keep_original=pictures is not None))
    for image, outcome in through_network(
        images, ready, detect_and_draw, batch=detector.batch, workers=detector.workers
    ):
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
