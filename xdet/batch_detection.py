"""Detecting in many files: pictures saved as they come, failures listed, one report at the end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xdet.images import read_image
from xdet.outputs import make_folder
from xdet.render import draw_detections, save_picture
from xdet.results_json import DetectionReport, FailedImage, image_names

if TYPE_CHECKING:
    from xdet.detections import Detections
    from xdet.detector import Detector
    from xdet.errors import ImageError

Progress = Callable[[int], object]


def detect_files(
    detector: Detector,
    images: Sequence[Path],
    *,
    save: Path | None = None,
    progress: Progress | None = None,
) -> DetectionReport:
    """Detect in image files; one that cannot be read is listed and the others go on.

    Args:
        detector: an open detector.
        images: files, as ``xdet.images.find_images`` lists them.
        save: a folder for annotated pictures, made if it is missing.
        progress: called with the number of images that are done since the last call.

    Raises:
        OutputError: a picture cannot be written.
    """
    failed: list[FailedImage] = []
    found: list[Detections] = []
    pictures = _picture_paths(images, save)

    def remember_failure(name: str, error: ImageError) -> None:
        failed.append(FailedImage(name, str(error)))
        if progress is not None:
            progress(1)

    for detections in detector.detect_many(images, on_failure=remember_failure):
        if save is not None:
            original = read_image(Path(detections.image), honour_exif=True)
            save_picture(pictures[detections.image], draw_detections(original, detections))
        found.append(detections)
        if progress is not None:
            progress(1)
    return DetectionReport(
        Path(detector.runtime.file).name,
        hashlib.sha256(detector.runtime.model).hexdigest(),
        detector.thresholds,
        tuple(found),
        tuple(failed),
    )


def _picture_paths(images: Sequence[Path], save: Path | None) -> dict[str, Path]:
    """One PNG per image; images of equal names keep the folders that tell them apart, joined by underscores."""
    if save is None:
        return {}
    make_folder(save)
    names = image_names([str(image) for image in images])
    return {
        str(image): save / f"{name.replace('/', '_')}.png" for image, name in zip(images, names, strict=True)
    }
