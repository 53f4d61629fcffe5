"""Annotated photographs: a COCO json beside a folder of images, every entry checked.

What is wrong with a single entry is a ``Problem``: that entry is left out, the others count, and whoever reports the
result reports the problems, too. A file that is no such json at all is an error.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.files import read_regular
from xdet.errors import DataError
from xdet.writing.text import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

LARGEST_ANNOTATIONS = 128 << 20  # COCO 2017's validation set has 20 MB, with masks; JSON unfolds to many times its size
SECTIONS = ("images", "annotations", "categories")
EDGE_TOLERANCE_PX = 1.0  # COCO's own boxes reach over the edge by rounding
SMALLEST_SIDE = 16  # of a photograph in which boxes of a pixel are no objects
LEAST_OVER_THE_EDGE = 0.02  # of boxes read by the wrong point: large ones reach over the far edges
MOST_OVER_THE_EDGE = 0.1  # of the boxes, by rounding and by objects that were annotated beyond it
MOST_PIXELS = 1e9  # of a coordinate or an area
# What can be left out, as counted in ``Dataset.ignored`` and in reports.
IGNORED = {
    "bad_categories": "category entries left out",
    "bad_images": "image entries left out",
    "missing_images": "images without a file",
    "unreadable_images": "images that could not be read",
    "images_of_another_size": "images of another size than annotated",
    "images_over_max_gt": "images with too many ground truths",
    "bad_annotations": "annotations left out",
    "annotations_of_ignored_images": "annotations of images left out",
    "annotations_of_other_categories": "annotations of categories that the model does not have",
    "crowds_dropped": "crowd annotations dropped",
    "detections_without_category": "detections of classes that the annotations do not have",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that was left out, and why."""

    kind: str  # a key of IGNORED
    message: str  # file, entry and reason, one line


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """One photograph with G ground truths, in the order of the file."""

    id: int  # its COCO id
    path: Path
    size_wh: tuple[int, int]  # width and height in pixels, as annotated
    boxes_xywh_px: NDArray[np.float64]  # (G, 4), x, y, width, height in pixels
    areas: NDArray[np.float64]  # (G,), in square pixels: width x height where none is annotated
    category_ids: NDArray[np.int64]  # (G,)
    crowd: NDArray[np.bool_]  # (G,)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Annotated photographs."""

    file: str  # the annotations, as the caller named them
    sha256: str  # of their bytes
    images: tuple[LabelledImage, ...]  # by rising id; equal scores are ranked in this order
    categories: dict[int, str]  # id -> name, by rising id
    problems: tuple[Problem, ...]  # what was left out, in the order of the file
    ignored: dict[str, int]  # how much was left out, by the keys of IGNORED
    over_the_edge: int  # boxes that reach more than a pixel over their image's edge; they are kept as they are
    warning: str | None  # what all boxes look like where that is not COCO's form; they are read as COCO all the same


def read_coco(annotations: Path, images: Path) -> Dataset:
    """Read annotations in COCO format; ``images`` is the folder that each ``file_name`` starts from.

    Raises:
        DataError: the json cannot be read, is none, or is not in this format; the folder is missing; nothing is left to
            use.
    """
    data = _read_bytes(annotations)
    sections = _sections(data, annotations)
    if not images.is_dir():
        raise DataError(f"'{images}' is not a folder; give `images` the folder that holds the photographs")
    reader = _Reader(str(annotations), images)
    reader.read_categories(sections["categories"])
    reader.read_images(sections["images"])
    reader.read_annotations(sections["annotations"])
    if not reader.entries or not reader.categories:
        what = "image" if not reader.entries else "category"
        first = f", the first because: {reader.problems[0].message}" if reader.problems else ""
        raise DataError(
            f"'{annotations}' leaves no {what} to evaluate: {len(sections['images'])} image entries, "
            f"{len(sections['categories'])} categories, {len(reader.problems)} left out{first}"
        )
    labelled = tuple(reader.labelled(image_id) for image_id in sorted(reader.entries))
    over_the_edge, warning = _look_at_boxes(str(annotations), labelled)
    return Dataset(
        file=str(annotations),
        sha256=hashlib.sha256(data).hexdigest(),
        images=labelled,
        categories=dict(sorted(reader.categories.items())),
        problems=tuple(reader.problems),
        ignored=dict(reader.ignored),
        over_the_edge=over_the_edge,
        warning=warning,
    )


class _Reader:
    """Collects sound entries and problems, section by section."""

    def __init__(self, file: str, folder: Path) -> None:
        self.file, self.folder = file, folder
        self.categories: dict[int, str] = {}
        self.entries: dict[int, dict[str, Any]] = {}
        self.truths: dict[int, list[dict[str, Any]]] = {}
        self.problems: list[Problem] = []
        self.ignored: Counter[str] = Counter()
        self._left_out: set[int] = set()
        self._annotation_ids: set[int] = set()
        self._folded_names: set[str] = set()

    def read_categories(self, entries: Sequence[Any]) -> None:
        for entry in self._sound("categories", "bad_categories", entries, self._category_fault):
            self.categories[entry["id"]] = entry["name"]
            self._folded_names.add(_folded(entry["name"]))

    def read_images(self, entries: Sequence[Any]) -> None:
        self._left_out = {entry["id"] for entry in entries if isinstance(entry, dict) and _is_id(entry.get("id"))}
        for entry in self._sound("images", "bad_images", entries, self._image_fault):
            if os.path.isfile(self.folder / entry["file_name"]):  # noqa: PTH113 - Path.is_file raises for long names
                self.entries[entry["id"]] = entry
                self.truths[entry["id"]] = []
            else:
                place = f"'{self.file}': image {entry['id']}"
                self._note("missing_images", f"{place}: there is no file '{self.folder / entry['file_name']}'")
        self._left_out -= self.entries.keys()

    def read_annotations(self, entries: Sequence[Any]) -> None:
        for entry in self._sound("annotations", "bad_annotations", entries, self._annotation_fault):
            self._annotation_ids.add(entry["id"])
            if entry["image_id"] in self._left_out:
                self.ignored["annotations_of_ignored_images"] += 1
            else:
                self.truths[entry["image_id"]].append(entry)

    def labelled(self, image_id: int) -> LabelledImage:
        entry, truths = self.entries[image_id], self.truths[image_id]
        boxes = np.array([truth["bbox"] for truth in truths], np.float64).reshape(-1, 4)
        areas = [truth.get("area", truth["bbox"][2] * truth["bbox"][3]) for truth in truths]
        return LabelledImage(
            id=image_id,
            path=self.folder / entry["file_name"],
            size_wh=_size(entry),
            boxes_xywh_px=boxes,
            areas=np.array(areas, np.float64),
            category_ids=np.array([truth["category_id"] for truth in truths], np.int64),
            crowd=np.array([truth.get("iscrowd", 0) for truth in truths], np.bool_),
        )

    def _sound(
        self, section: str, kind: str, entries: Sequence[Any], fault: Callable[[dict[str, Any]], str | None]
    ) -> Iterator[dict[str, Any]]:
        """The entries without fault; the others become problems."""
        for index, entry in enumerate(entries):
            place = f"'{self.file}': {section}[{index}]"
            if not isinstance(entry, dict):
                self._note(kind, f"{place} is {entry!r:.60}, expected an object")
                continue
            if not _is_id(entry.get("id")):
                self._note(kind, f"{place} has the id {entry.get('id')!r:.60}, expected an integer of 64 bits")
                continue
            problem = fault(entry)
            if problem is None:
                yield entry
            else:
                self._note(kind, f"{place} (id {entry['id']}) {problem}")

    def _note(self, kind: str, message: str) -> None:
        self.problems.append(Problem(kind, message))
        self.ignored[kind] += 1

    def _category_fault(self, entry: dict[str, Any]) -> str | None:
        name = entry.get("name")
        if not isinstance(name, str) or not name.strip():
            return f"has the name {name!r:.60}, expected a text"
        if entry["id"] in self.categories:
            return f"has the id of another category, '{self.categories[entry['id']]}'; that one counts"
        if _folded(name) in self._folded_names:
            return f"has the name of another category, '{name}'; that one counts"
        return None

    def _image_fault(self, entry: dict[str, Any]) -> str | None:
        name = entry.get("file_name")
        if not isinstance(name, str) or not name or "\0" in name:
            return f"has the file_name {name!r:.60}, expected a path"
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or Path(name).is_absolute():
            return f"has the file_name {name!r:.120}, which leads out of the folder of images"
        size: tuple[Any, Any] = (entry.get("width"), entry.get("height"))
        if not all(_is_number(side) and side >= 1 and side == int(side) for side in size):
            return f"has the size {size[0]!r:.30} x {size[1]!r:.30}, expected whole pixels"
        if entry["id"] in self.entries:
            return f"has the id of another image, '{self.entries[entry['id']]['file_name']}'; that one counts"
        return None

    def _annotation_fault(self, entry: dict[str, Any]) -> str | None:
        if entry["id"] in self._annotation_ids:
            return "has the id of an annotation before it; that one counts"
        image_id, category_id = entry.get("image_id"), entry.get("category_id")
        if type(image_id) is not int or not (image_id in self.entries or image_id in self._left_out):
            return f"belongs to image {image_id!r:.30}, which does not exist"
        if type(category_id) is not int or category_id not in self.categories:
            return f"belongs to category {category_id!r:.30}, which does not exist"
        area = entry.get("area", 0)
        if not _is_number(area) or area < 0:
            return f"has the area {area!r:.30}, expected square pixels"
        if entry.get("iscrowd", 0) not in (0, 1):
            return f"has iscrowd {entry['iscrowd']!r:.30}, expected 0 or 1"
        size = _size(self.entries[image_id]) if image_id in self.entries else None
        return _box_fault(entry.get("bbox"), size)


def _box_fault(box: object, size_wh: tuple[int, int] | None) -> str | None:
    """What is wrong with a box of an image of this size (None: unknown)."""
    shown = f"has the bbox {box!r:.120}"
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return f"{shown}, expected four finite numbers: x, y, width, height"
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return f"{shown}, whose width and height must be above 0"
    if size_wh is not None and (x >= size_wh[0] or y >= size_wh[1] or x + width <= 0 or y + height <= 0):
        return f"{shown}, which lies outside its image of {size_wh[0]} x {size_wh[1]} pixels"
    return None


def _look_at_boxes(file: str, images: Sequence[LabelledImage]) -> tuple[int, str | None]:
    """How many boxes reach over the edge; a warning if none, or hardly any, can be meant as it is read.

    Fractions, corners and centres are usual slips.
    """
    boxes = np.concatenate([image.boxes_xywh_px for image in images])
    if not len(boxes):
        return 0, None
    sides = np.repeat([image.size_wh for image in images], [len(image.areas) for image in images], axis=0)
    start, extent, far = boxes[:, :2], boxes[:, 2:], sides + EDGE_TOLERANCE_PX
    over_far = (start + extent > far).any(axis=1)
    over_any = over_far | (start < -EDGE_TOLERANCE_PX).any(axis=1)
    as_centres = (start >= extent / 2 - EDGE_TOLERANCE_PX) & (start + extent / 2 <= far)
    count, warning = f"'{file}': {int(over_far.sum())} of {len(boxes)} boxes reach over the", None
    if (boxes <= 1 + 1e-6).all() and (sides > SMALLEST_SIDE).all():
        warning = (
            f"'{file}': all {len(boxes)} boxes lie within the first pixel of their image; they look like fractions of "
            "the image, and COCO has pixels: multiply x and width by the image's width, y and height by its height"
        )
    elif (extent > start).all() and (extent <= far).all() and over_far.mean() > MOST_OVER_THE_EDGE:
        warning = (
            f"{count} edge, and none would as corners; they look like x1, y1, x2, y2; COCO has x, y, width, height: "
            "subtract the first corner from the second"
        )
    elif as_centres.all() and over_far.mean() > LEAST_OVER_THE_EDGE:
        warning = (
            f"{count} right or lower edge, and none would around x, y as its centre; x, y is the upper left corner in "
            "COCO: subtract half the width and half the height"
        )
    return int(over_any.sum()), warning


def _is_number(value: object) -> bool:
    """A number that pixels can be; NaN is none, and integers of any length are compared without becoming floats."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST_PIXELS


def _is_id(value: object) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _size(entry: dict[str, Any]) -> tuple[int, int]:
    return int(entry["width"]), int(entry["height"])


def _folded(name: str) -> str:
    return name.strip().casefold()


def _read_bytes(path: Path) -> bytes:
    try:
        return read_regular(path, LARGEST_ANNOTATIONS)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the annotations '{path}': {reason(error)}; check the path") from error


def _sections(data: bytes, path: Path) -> dict[str, list[Any]]:
    """The three lists of a COCO file."""
    advice = f"expected a COCO file: an object with the lists {', '.join(SECTIONS)}"
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise DataError(f"'{path}' is no JSON: {error}; {advice}") from error
    if isinstance(document, list):
        raise DataError(f"'{path}' holds a list, as COCO results do; {advice}")
    if not isinstance(document, dict):
        raise DataError(f"'{path}' holds {document!r:.60}; {advice}")
    wrong = [name for name in SECTIONS if not isinstance(document.get(name), list)]
    if wrong:
        raise DataError(f"'{path}' has no list named {', '.join(wrong)}; {advice}")
    return {name: document[name] for name in SECTIONS}
