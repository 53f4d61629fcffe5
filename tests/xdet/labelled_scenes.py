"""Small annotated photographs for the identity detector of ``finished_models``: what it finds is known in advance.

A photograph has 200 x 100 pixels in four flat quarters; a quarter of red value r is one detection of score r / 255 with
the box x 0, y 0, width 100, height 25 in pixels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tests.xdet.finished_models import SPEC, document, finished_model
from xdet.evaluation.evaluate import evaluate

if TYPE_CHECKING:
    from pathlib import Path

    from converters.spec import DetectorSpec
    from xdet.evaluation.evaluate import Evaluation

FOUND_XYWH_PX: list[float] = [0, 0, 100, 25]
ELSEWHERE_XYWH_PX: list[float] = [120, 50, 60, 40]
ORIENTATION = 274  # the EXIF tag


@dataclass
class Scene:
    """A folder of photographs that grows, with its annotations."""

    folder: Path
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    categories: list[dict[str, Any]] = field(default_factory=lambda: [{"id": 1, "name": "person"}])

    def add(
        self, *reds: int, truths: list[list[float]], crowds: list[list[float]] | None = None, orientation: int = 1
    ) -> Path:
        """Add a photograph with these reds and boxes of category 1; returns its file."""
        image_id = len(self.images) + 1
        path = self.folder / f"{image_id}.png"
        pixels = np.zeros((2, 2, 3), np.uint8)
        pixels[..., 0].flat[: len(reds)] = reds
        upright = Image.fromarray(pixels).resize((200, 100), Image.Resampling.NEAREST)
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        stored = upright if orientation == 1 else upright.transpose(Image.Transpose.ROTATE_90)
        stored.save(path, exif=exif)
        self.images.append({"id": image_id, "file_name": path.name, "width": 200, "height": 100})
        for box, crowd in [(box, 0) for box in truths] + [(box, 1) for box in crowds or []]:
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": crowd,
                }
            )
        return path

    def write(self) -> Path:
        """The annotations' file."""
        path = self.folder / "annotations.json"
        sections = {"images": self.images, "annotations": self.annotations, "categories": self.categories}
        path.write_text(json.dumps(sections), encoding="utf-8")
        return path

    def measure(self, models: Path | list[Path], **options: Any) -> Evaluation:
        """Evaluate models on it."""
        return evaluate(models, self.folder, self.write(), max_detections=4, threads=1, **options)


def two_people(folder: Path) -> Scene:
    """The first is found with score 1, a wrong box of score 0.5 instead of the second."""
    scene = Scene(folder)
    scene.add(255, truths=[FOUND_XYWH_PX])
    scene.add(0, 128, truths=[ELSEWHERE_XYWH_PX])
    return scene


def write_model(path: Path, *, spec: DetectorSpec = SPEC, batch: int | str = 1, freeze: bool = False) -> Path:
    """The identity detector as a file."""
    path.write_bytes(finished_model(batch=batch, freeze=freeze, metadata=document(spec, freeze=freeze).to_json()))
    return path
