"""What was found in one image, as people use it: a sequence that can be cut, filtered, drawn, saved and handed on."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from converters.errors import quote_some
from xdet.errors import ImageError, RuntimeUnavailableError, UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from converters.heads.base import BatchDetections
    from xdet.pictures.preparation import Prepared


def require_classes(names: Iterable[str], class_names: Sequence[str], *, what: str) -> None:
    """Refuse names of classes that a model does not find, told as those of ``what``.

    Raises:
        UsageError: there are some.
    """
    unknown = [name for name in dict.fromkeys(names) if name not in class_names]
    if unknown:
        raise UsageError(f"{what}: the model finds no {quote_some(unknown)}; it finds {quote_some(class_names)}")


@dataclass(frozen=True, slots=True)
class Detection:
    """One box.

    Attributes:
        box_xyxy_px: x1, y1, x2, y2 in pixels of the photograph, origin at its top left corner.
        score: confidence in 0..1.
        class_id: index into the model's classes.
        class_name: of that index.
        anchor: index of the source box in the head.
    """

    box_xyxy_px: tuple[float, float, float, float]
    score: float
    class_id: int
    class_name: str
    anchor: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON files hold it: the box rounded to 1/100 pixel, the score as the shortest decimal of its float32."""
        exact = {"class_id": self.class_id, "class_name": self.class_name, "anchor": self.anchor}
        return {"box_xyxy_px": round_box(self.box_xyxy_px), "score": shortest_float32(self.score), **exact}


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """What was found in one image, best score first.

    Attributes:
        image: the image's name as the caller gave it.
        width: of the photograph in pixels, after EXIF orientation where that was honoured.
        height: likewise.
        boxes_xyxy: float32 ``(n, 4)``, fractions 0..1 of the photograph.
        scores: float32 ``(n,)``, 0..1.
        classes: int32 ``(n,)``, indices into ``class_names``.
        anchors: int32 ``(n,)``, indices of the source boxes in the head.
        class_names: the model's classes.
    """

    image: str
    width: int
    height: int
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int32]
    anchors: NDArray[np.int32]
    class_names: tuple[str, ...]

    @classmethod
    def from_batch(
        cls, batch: BatchDetections, index: int, image: Prepared, class_names: tuple[str, ...]
    ) -> Detections:
        """Cut the valid rows of image ``index`` out of a batch; ``image`` says what it was and where it stood."""
        n = int(batch.num_detections[index])
        return cls(
            image=image.name,
            width=image.size_wh[0],
            height=image.size_wh[1],
            boxes_xyxy=image.placement.to_photograph(batch.boxes_xyxy[index, :n]),
            scores=batch.scores[index, :n],
            classes=batch.classes[index, :n],
            anchors=batch.anchors[index, :n],
            class_names=class_names,
        )

    @property
    def boxes_xyxy_px(self) -> NDArray[np.float32]:
        """float32 ``(n, 4)``: the boxes in pixels of the photograph."""
        return self.boxes_xyxy * np.array([self.width, self.height, self.width, self.height], np.float32)

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        boxes, scores = self.boxes_xyxy_px.tolist(), self.scores.tolist()
        classes, anchors = self.classes.tolist(), self.anchors.tolist()
        for box, score, class_id, anchor in zip(boxes, scores, classes, anchors, strict=True):
            yield Detection(tuple(box), score, class_id, self.class_names[class_id], anchor)

    @overload
    def __getitem__(self, index: int) -> Detection: ...
    @overload
    def __getitem__(self, index: slice | NDArray[np.bool_] | NDArray[np.integer[Any]]) -> Detections: ...
    def __getitem__(self, index: Any) -> Detection | Detections:
        """One detection by its number, or several by a slice, a mask or an array of numbers."""
        if isinstance(index, int | np.integer):
            number = range(len(self))[index]
            return next(iter(self[number : number + 1]))
        return replace(
            self,
            boxes_xyxy=self.boxes_xyxy[index],
            scores=self.scores[index],
            classes=self.classes[index],
            anchors=self.anchors[index],
        )

    def filter(self, *, classes: Iterable[str] | None = None, min_score: float = 0.0) -> Detections:
        """Those of some classes (names; None is every class), with at least a score in 0..1.

        Raises:
            UsageError: a name that the model does not know.
        """
        keep = self.scores >= np.float32(min_score)
        if classes is not None:
            names = [classes] if isinstance(classes, str) else list(classes)
            require_classes(names, self.class_names, what="`classes`")
            keep &= np.isin(self.classes, [i for i, name in enumerate(self.class_names) if name in names])
        return self[keep]

    def plot(self, picture: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """The photograph with labelled boxes, uint8 ``(height, width, 3)``, RGB.

        Args:
            picture: likewise; None reads the file that ``image`` names.

        Raises:
            ImageError: the file cannot be read, or the picture is not the one that was looked at.
        """
        from xdet.pictures.images import read_image
        from xdet.pictures.render import draw_detections

        if picture is None:
            if not Path(self.image).is_file():
                raise ImageError(
                    f"'{self.image}' is no file to draw on; give the picture: plot(picture), save(path, picture)"
                )
            picture = read_image(Path(self.image), honour_exif=True)
        return draw_detections(picture, self)

    def save(
        self, path: str | os.PathLike[str], picture: NDArray[np.uint8] | None = None, *, force: bool = False
    ) -> Path:
        """Write ``plot(picture)`` to a file and return it; its folder must exist, its suffix names the format.

        Raises:
            UsageError: the file exists and is no picture of xdet (``force`` replaces it), or is the photograph itself.
            ImageError: as ``plot``.
            OutputError: it cannot be written.
        """
        from xdet.pictures.render import save_picture
        from xdet.writing.files import PICTURE_MARK, Output, require_outputs

        target = Path(path)
        require_outputs([Output(target, PICTURE_MARK)], [Path(self.image)], force=force)
        save_picture(target, self.plot(picture))
        return target

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: image, width, height, and a list of detections (docs/json.md)."""
        detections = [detection.to_dict() for detection in self]
        return {"image": self.image, "width": self.width, "height": self.height, "detections": detections}

    def to_json(self) -> str:
        """``to_dict`` as one line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def to_yolo(self, *, scores: bool = True) -> str:
        """Lines of ``class x_center y_center width height score``, fractions of the image, as in YOLO label files.

        Files to train with have no ``scores``.
        """
        corners = self.boxes_xyxy.astype(np.float64)
        centers, sizes = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        rows = np.concatenate([centers, sizes, *([self.scores[:, np.newaxis]] if scores else [])], axis=1)
        return "".join(
            f"{class_id} {' '.join(f'{number:.6f}' for number in row)}\n"
            for class_id, row in zip(self.classes.tolist(), rows.tolist(), strict=True)
        )

    def to_voc(self) -> str:
        """Pascal VOC XML: corners in whole pixels from 1, both within the box, as the VOC development kit counts."""
        from xml.sax.saxutils import escape

        def text(name: str) -> str:
            return escape("".join(letter if letter.isprintable() else "?" for letter in name))

        path = PurePath(self.image)
        objects = []
        size = (self.width, self.height)
        for detection in self:
            box_px = np.array(detection.box_xyxy_px).round().astype(int)
            low, high = (box_px[:2] + 1).clip(1, size), box_px[2:].clip(1, size)
            values = zip(("xmin", "ymin", "xmax", "ymax"), (*low, *np.maximum(low, high)), strict=True)
            box = "".join(f"<{corner}>{value}</{corner}>" for corner, value in values)
            objects.append(
                f"  <object><name>{text(detection.class_name)}</name><pose>Unspecified</pose><truncated>0</truncated>"
                f"<difficult>0</difficult><bndbox>{box}</bndbox></object>\n"
            )
        return (
            f"<annotation>\n  <folder>{text(path.parent.name)}</folder>\n  <filename>{text(path.name)}</filename>\n"
            f"  <size><width>{self.width}</width><height>{self.height}</height><depth>3</depth></size>\n"
            f"  <segmented>0</segmented>\n{''.join(objects)}</annotation>\n"
        )

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with one row per detection; RuntimeUnavailableError where pandas is not installed."""
        corners = dict(zip(("x1", "y1", "x2", "y2"), self.boxes_xyxy_px.T, strict=True))
        names = [self.class_names[class_id] for class_id in self.classes]
        columns = {"class_id": self.classes, "class_name": names, "score": self.scores, "anchor": self.anchors}
        return _import("pandas").DataFrame({"image": [self.image] * len(self), **corners, **columns})

    def to_supervision(self) -> Any:
        """A ``supervision.Detections`` in pixels, with class names and anchors in its ``data``; raises alike."""
        names = np.array([self.class_names[class_id] for class_id in self.classes], dtype=str)
        return _import("supervision").Detections(
            xyxy=self.boxes_xyxy_px,
            confidence=self.scores,
            class_id=self.classes.astype(int),
            data={"class_name": names, "anchor": self.anchors},
        )

    def __repr__(self) -> str:
        counts = {name: int((self.classes == i).sum()) for i, name in enumerate(self.class_names)}
        counted = ", ".join(f"{count} x {name}" for name, count in counts.items() if count) or "nothing"
        return f"<Detections of {self.image!r} ({self.width} x {self.height}): {counted}>"

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        from xdet.writing.blocks import Inline, Table, Text
        from xdet.writing.html import block_html

        rows: tuple[tuple[Inline, ...], ...] = tuple((d.class_name, d.score, *round_box(d.box_xyxy_px)) for d in self)
        table = block_html(Table(("class", "score", "x1", "y1", "x2", "y2"), rows)) if rows else ""
        return block_html(Text(repr(self))) + table


def _import(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise RuntimeUnavailableError(f"{package} is not installed; install it with: pip install {package}") from error


def round_box(box: Iterable[float]) -> list[float]:
    """Pixel coordinates to 1/100, never -0.0."""
    return [round(value, 2) + 0.0 for value in box]


def shortest_float32(value: float) -> float:
    """The double whose shortest decimal is also the shortest that reads back as float32 ``value``.

    >>> shortest_float32(float(np.float32(0.93)))
    0.93
    """
    return float(str(np.float32(value)))
