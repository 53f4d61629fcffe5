"""Heads of one to three raw grids with anchors: YOLO v3 and v4, raw YOLO v5, and ``st_yolo_x``, from facts and anchors.

Anchors are stated finest grid first, as many for each grid. YOLO v3 and v5 take them in pixels (or fractions) of the
picture, ``st_yolo_x`` in cells of their own grid, and there one list may serve all grids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.description.values import require_pixels
from converters.errors import OptionError
from converters.heads.grids import AnchorGrid, YoloV3, YoloV5Raw

if TYPE_CHECKING:
    from converters.description.recognition import Stated
    from converters.description.values import StatedAnchors, StatedUnit
    from converters.facts import SourceFacts
    from converters.heads.base import Head

MOST_LEVELS = 3


def are_no_grids(facts: SourceFacts, *, least: int) -> str | None:
    """Why outputs are no raw grids ``[rows, columns, anchors * (5 + classes)]``; None where they are."""
    shapes = [output.shape for output in facts.outputs]
    fits = least <= len(shapes) <= MOST_LEVELS and all(len(shape) == 3 for shape in shapes)
    if fits and len({shape[2] for shape in shapes}) == 1 and len(set(shapes)) == len(shapes):
        return None
    grid = "[1, rows, columns, anchors * (5 + classes)]"
    return f"{least} to {MOST_LEVELS} outputs {grid} of different grids are expected"


def are_anchors_first(facts: SourceFacts) -> bool:
    """Whether outputs are grids as PyTorch has them, ``[anchors, rows, columns, 5 + classes]``."""
    shapes = [output.shape for output in facts.outputs]
    fits = 1 <= len(shapes) <= MOST_LEVELS and all(len(shape) == 4 and shape[3] > 5 for shape in shapes)
    return fits and len({(shape[0], shape[3]) for shape in shapes}) == 1 and len(set(shapes)) == len(shapes)


def build_yolo_v3(facts: SourceFacts, stated: Stated) -> Head:
    """YOLO v3 or v4."""
    grids, classes = _grids(facts, stated, "YOLO v3", in_cells=False, xy_scales=stated.xy_scales)
    return YoloV3(grids, classes, (float(facts.width), float(facts.height)))


def build_st_yolo_x(facts: SourceFacts, stated: Stated) -> Head:
    """YOLO v2 over several grids, as STMicroelectronics decodes its ``st_yolo_x``."""
    grids, classes = _grids(facts, stated, "st_yolo_x", in_cells=True)
    return YoloV3(grids, classes, (float(facts.width), float(facts.height)), "softmax")


def build_yolo_v5_raw(facts: SourceFacts, stated: Stated) -> Head:
    """YOLO v5 or v7 before activation."""
    grids, classes = _grids(facts, stated, "raw YOLO v5", in_cells=False)
    size = float(facts.width), float(facts.height)
    return YoloV5Raw(grids, classes, size, anchors_first=are_anchors_first(facts))


def _grids(
    facts: SourceFacts, stated: Stated, title: str, *, in_cells: bool, xy_scales: tuple[float, ...] = ()
) -> tuple[tuple[AnchorGrid, ...], int]:
    """The grids in the order of the outputs, with their anchors in pixels, and the number of classes."""
    anchors_first, shape = are_anchors_first(facts), facts.outputs[0].shape
    corner = 1 if anchors_first else 0
    sides = [output.shape[corner : corner + 2] for output in facts.outputs]
    channels = shape[0] * shape[3] if anchors_first else shape[2]
    if stated.anchors is None:
        grids = ", ".join(f"{rows} x {columns}" for rows, columns in sides)
        raise OptionError(
            f"'{facts.file}': its {title} head (grids {grids}, {channels} channels) needs anchors of all grids, the "
            f"finest grid's first, and no one states them; {stated.ask_for_anchors}; --head none keeps the raw outputs"
        )
    sizes, each = stated.anchors.sizes_wh, len(stated.anchors.sizes_wh) // len(sides)
    if in_cells and not _makes(channels, each, len(sizes), len(sides), stated):
        sizes, each = sizes * len(sides), len(sizes)  # one list for all grids
    if not _makes(channels, each, len(sizes), len(sides), stated) or (anchors_first and each != shape[0]):
        raise OptionError(
            f"'{facts.file}': {len(stated.anchors.sizes_wh)} anchors ({stated.anchors.where}) over {len(sides)} grids "
            f"cannot make {channels} = anchors * (5 + classes) channels each; check --anchors"
        )
    stated.require_names(facts, channels // each - 5)
    unit = stated.unit or ("cell" if in_cells else "pixel")
    _require_unit(stated.anchors, stated.unit, in_cells=in_cells)
    finest_first = sorted(range(len(sides)), key=lambda index: -sides[index][0] * sides[index][1])
    scales = xy_scales or (1.0,) * len(sides)
    if len(scales) != len(sides):
        raise OptionError(
            f"'{facts.file}': {len(scales)} numbers of scale_x_y are stated, expected one of each of {len(sides)} grids"
        )
    grids_of_outputs = {}
    for place, index in enumerate(finest_first):
        rows, columns = sides[index]
        factors = {"cell": (facts.width / columns, facts.height / rows), "image": (facts.width, facts.height)}
        by_w, by_h = factors.get(unit, (1, 1))
        pixels = tuple((w * by_w, h * by_h) for w, h in sizes[place * each : (place + 1) * each])
        grids_of_outputs[index] = AnchorGrid(rows, columns, pixels, scales[place])
    return tuple(grids_of_outputs[index] for index in range(len(sides))), channels // each - 5


def _makes(channels: int, each: int, count: int, levels: int, stated: Stated) -> bool:
    """Whether so many anchors a grid make its channels, with the classes that are named."""
    fits = each > 0 and count == each * levels and channels % each == 0 and channels // each > 5
    return fits and (stated.class_names is None or levels > 1 or channels // each - 5 == len(stated.class_names))


def _require_unit(anchors: StatedAnchors, unit: StatedUnit | None, *, in_cells: bool) -> None:
    if unit == "cell" and not in_cells:
        raise OptionError(
            f"{anchors.where}: anchors of several grids are taken in pixels or fractions of the image, since cells "
            "differ from grid to grid; multiply them by the strides, and say --anchor-unit pixel"
        )
    if unit == "pixel" or (unit is None and not in_cells):
        require_pixels(anchors.sizes_wh, f"{anchors.where}, in pixels" + (", the default" if unit is None else ""))
