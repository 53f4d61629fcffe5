"""A label file per photograph, as annotation tools and trainers read them: YOLO text and Pascal VOC XML.

They hold boxes and classes without scores. A photograph without boxes has an empty file, one that cannot be read has
none.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from xdet.detection.batch import detect_stream
from xdet.detection.report import FailedImage
from xdet.errors import DataError, ImageError
from xdet.pictures.render import picture_paths
from xdet.writing.files import write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from xdet.detection.detector import Detector
    from xdet.detections import Detections
    from xdet.pictures.addresses import Address

# Name of the format -> suffix, and what makes the text.
LABELS: dict[str, tuple[str, Callable[[Detections], str]]] = {
    "yolo": (".txt", lambda found: found.to_yolo(scores=False)),
    "voc": (".xml", lambda found: found.to_voc()),
}


def label_paths(images: Sequence[Path], folder: Path, layout: str) -> list[Path]:
    """One label file per image in ``folder``, named as ``xdet.pictures.render.picture_paths`` names pictures.

    Raises:
        DataError: two images would share one.
    """
    owner: dict[str, Path] = {}
    paths = []
    for image, picture in zip(images, picture_paths(images, folder), strict=True):
        path = picture.parent / f"{picture.name.removesuffix('.png').removesuffix(image.suffix)}{LABELS[layout][0]}"
        other = owner.setdefault(path.name.casefold(), image)
        if other is not image:
            raise DataError(f"'{other}' and '{image}' share the label file '{path.name}'; write two folders")
        paths.append(path)
    return paths


def detect_to_labels(
    detector: Detector,
    images: Sequence[Path | Address],
    labels: Sequence[Path],
    layout: str,
    *,
    pictures: Sequence[Path] | None = None,
    classes: Sequence[str] | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> list[FailedImage]:
    """Detect in images, and write each one's labels when they are there.

    Args:
        detector: as for ``xdet.detection.batch.detect_files``.
        images: as for ``detect_files``.
        labels: a file for each, as ``label_paths`` names them; their folder must exist.
        layout: a key of ``LABELS``.
        pictures: as for ``detect_files``.
        classes: as for ``detect_files``.
        progress: as for ``detect_files``.

    Returns:
        The images without a result, and why.

    Raises:
        OutputError: a file cannot be written.
    """
    failed = []
    to_text = LABELS[layout][1]
    with closing(detect_stream(detector, images, pictures=pictures, classes=classes)) as stream:
        for path, (image, outcome) in zip(labels, stream, strict=True):
            if isinstance(outcome, ImageError):
                failed.append(FailedImage(str(image), str(outcome)))
            else:
                write_text(path, to_text(outcome))
            progress(1)
    return failed
