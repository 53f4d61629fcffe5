"""Heads of one to three raw grids with anchors: YOLO v3 and v4, raw YOLO v5, and ``st_yolo_x``, from facts and anchors.

Anchors are stated finest grid first, as many for each grid. YOLO v3 and v5 take them in pixels (or fractions) of the
picture, ``st_yolo_x`` in cells of their own grid, and there one list may serve all grids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.description.values import how_to_state_anchors, require_pixels
from converters.errors import OptionError
from converters.heads.grids import AnchorGrid, YoloV3, YoloV5Raw

if TYPE_CHECKING:
    from converters.description.precedence import AllStatements
    from converters.description.values import StatedAnchors, StatedUnit
    from converters.facts import SourceFacts
    from converters.heads.base import Head

MOST_LEVELS = 3
TITLES = {"yolo_v3": "YOLO v3", "st_yolo_x": "st_yolo_x", "yolo_v5_raw": "raw YOLO v5"}


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


def build_grids(kind: str, statements: AllStatements) -> Head:
    """YOLO v3 or v4; ``st_yolo_x``, as STMicroelectronics decodes it; YOLO v5 or v7 before activation."""
    facts = statements.facts
    grids, classes = _grids(kind, statements)
    size = float(facts.width), float(facts.height)
    if kind == "yolo_v5_raw":
        return YoloV5Raw(grids, classes, size, anchors_first=are_anchors_first(facts))
    return YoloV3(grids, classes, size, "softmax" if kind == "st_yolo_x" else "sigmoid")


def _grids(kind: str, statements: AllStatements) -> tuple[tuple[AnchorGrid, ...], int]:
    """The grids in the order of the outputs, with their anchors in pixels, and the number of classes."""
    facts, anchors, in_cells = statements.facts, statements.anchors_or_default, kind == "st_yolo_x"
    anchors_first, shape = are_anchors_first(facts), facts.outputs[0].shape
    corner = 1 if anchors_first else 0
    sides = [output.shape[corner : corner + 2] for output in facts.outputs]
    channels = shape[0] * shape[3] if anchors_first else shape[2]
    if anchors is None:
        grids = ", ".join(f"{rows} x {columns}" for rows, columns in sides)
        raise OptionError(
            f"'{facts.file}': its {TITLES[kind]} head (grids {grids}, {channels} channels) needs anchors of all grids, "
            f"the finest grid's first, and no one states them; {how_to_state_anchors(facts, kind)}; "
            "--head none keeps the raw outputs"
        )
    sizes, each = anchors.sizes_wh, len(anchors.sizes_wh) // len(sides)
    if in_cells and not _makes(channels, each, len(sizes), len(sides), statements):
        sizes, each = sizes * len(sides), len(sizes)  # one list for all grids
    if not _makes(channels, each, len(sizes), len(sides), statements) or (anchors_first and each != shape[0]):
        raise OptionError(
            f"'{facts.file}': {len(anchors.sizes_wh)} anchors ({anchors.where}) over {len(sides)} grids "
            f"cannot make {channels} = anchors * (5 + classes) channels each; check --anchors"
        )
    statements.require_names(channels // each - 5)
    unit = statements.unit_of(anchors)
    _require_unit(anchors, unit, in_cells=in_cells)
    finest_first = sorted(range(len(sides)), key=lambda index: -sides[index][0] * sides[index][1])
    scales = (statements.xy_scales if kind == "yolo_v3" else ()) or (1.0,) * len(sides)
    if len(scales) != len(sides):
        raise OptionError(
            f"'{facts.file}': {len(scales)} numbers of scale_x_y are stated, expected one of each of {len(sides)} grids"
        )
    grids_of_outputs = {}
    for place, index in enumerate(finest_first):
        rows, columns = sides[index]
        factors = {"cell": (facts.width / columns, facts.height / rows), "image": (facts.width, facts.height)}
        by_w, by_h = factors.get(unit or ("cell" if in_cells else "pixel"), (1, 1))
        pixels = tuple((w * by_w, h * by_h) for w, h in sizes[place * each : (place + 1) * each])
        grids_of_outputs[index] = AnchorGrid(rows, columns, pixels, scales[place])
    return tuple(grids_of_outputs[index] for index in range(len(sides))), channels // each - 5


def _makes(channels: int, each: int, count: int, levels: int, statements: AllStatements) -> bool:
    """Whether so many anchors a grid make its channels, with the classes that are named."""
    fits = each > 0 and count == each * levels and channels % each == 0 and channels // each > 5
    names = statements.names_of_people
    return fits and (names is None or levels > 1 or channels // each - 5 == len(names))


def _require_unit(anchors: StatedAnchors, unit: StatedUnit | None, *, in_cells: bool) -> None:
    if unit == "cell" and not in_cells:
        raise OptionError(
            f"{anchors.where}: anchors of several grids are taken in pixels or fractions of the image, since cells "
            "differ from grid to grid; multiply them by the strides, and say --anchor-unit pixel"
        )
    if unit == "pixel" or (unit is None and not in_cells):
        require_pixels(anchors.sizes_wh, f"{anchors.where}, in pixels" + (", the default" if unit is None else ""))
