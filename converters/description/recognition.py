"""Which head a network ends in, and that head from what is stated: one row per head.

A head is recognised by what the network is: number and shapes of its outputs, and the operators in front of them. Where
none or several of the table fit, the person chooses; every message says why each does not fit.

Detectors of the YOLO families with strides 8, 16 and 32 have one box per cell (v8, YOLOX) or three (v5), which tells
them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from converters.description.grid_heads import are_anchors_first, are_no_grids, build_grids
from converters.description.ssd import build_ssd, is_no_ssd
from converters.description.values import how_to_state_anchors, settle_unit
from converters.errors import OptionError
from converters.heads.blazeface import BlazeFace
from converters.heads.decoded import YoloV5, YoloV8
from converters.heads.fastestdet import FastestDet
from converters.heads.fomo import Fomo
from converters.heads.yolo_v2 import YoloV2, describe_fit, fit_num_classes, fitting_counts, grid_of
from converters.heads.yolox import Yolox

if TYPE_CHECKING:
    from collections.abc import Callable

    from converters.description.precedence import AllStatements
    from converters.facts import SourceFacts
    from converters.heads.base import Head
    from converters.heads.decoded import DecodedHead

STRIDES = (8, 16, 32)
LARGEST_FRACTION = 4.0  # codes that reach no further are fractions of the picture; pixels reach its size
PROBABILITY_SLACK = 0.01  # codes of probabilities overshoot 0..1 by rounding of their scale alone
NO_PROBABILITIES = "a FOMO head is a grid of probabilities, and its output holds other numbers"
KEEP = "--head none converts it without a decoder"


@dataclass(frozen=True, slots=True)
class Recognition:
    """One head of the table.

    Attributes:
        misfit: facts, and whether somebody names it (``by_name``) -> why it cannot be this head; None where it can.
        build: makes the head, of facts that fit.
        anchors: whether it needs anchors.
    """

    misfit: Callable[..., str | None]
    build: Callable[[AllStatements], Head]
    anchors: bool = False


def recognise(facts: SourceFacts) -> str:
    """The kind of the only head that fits."""
    _require_detector(facts)
    misfits = {kind: head.misfit(facts, by_name=False) for kind, head in RECOGNITIONS.items()}
    fits = [kind for kind, why in misfits.items() if why is None]
    if len(fits) == 1:
        return fits[0]
    listed = _listed(facts)
    if fits:
        choices = [f"  --head {kind}" for kind in fits]
        raise OptionError(f"'{facts.file}': several heads fit its output {listed}; choose one:", *choices)
    reasons = [f"  {kind}: {why}" for kind, why in misfits.items()]
    raise OptionError(f"'{facts.file}': no head fits its output {listed}; {KEEP}", *reasons)


def _require_detector(facts: SourceFacts) -> None:
    """Refuse a network of another task: its output holds more than boxes and classes, in a list of the same shape."""
    for part in facts.metadata:
        if part.task is not None:
            raise OptionError(
                f"'{facts.file}': {part.where} says that the network's task is {part.task!r}, expected 'detect': its "
                f"output holds other numbers than boxes and classes; {KEEP}, --head KIND decodes it all the same"
            )


def require_fit(facts: SourceFacts, kind: str, *, by_name: bool) -> tuple[str, ...]:
    """Refuse a stated head that cannot be; notes on what speaks against one that ``--head`` names (``by_name``)."""
    misfit = RECOGNITIONS[kind].misfit(facts, by_name=True)
    takes_raw = RECOGNITIONS[kind].anchors
    why = misfit or (_raw(facts, by_name=by_name) if takes_raw else None)
    if why is not None:
        insist = "" if misfit else f", --head {kind} decodes it all the same"
        raise OptionError(f"'{facts.file}': {kind}: {why}; found {_listed(facts)}; {KEEP}{insist}")
    activated = _activations(facts)
    if activated and takes_raw:
        return (f"{activated} in front of its output: the {kind} decoder, as asked, activates these numbers once more",)
    return ()


def _listed(facts: SourceFacts) -> str:
    return ", ".join(f"'{output.name}' {[1, *output.shape]}" for output in facts.outputs)


def _activations(facts: SourceFacts) -> str:
    return " and ".join(dict.fromkeys(name for output in facts.outputs for name in output.activations))


def _raw(facts: SourceFacts, *, by_name: bool) -> str | None:
    """Why a decoder of raw numbers does not suit what the network has activated already."""
    activated = _activations(facts)
    if not activated or by_name:
        return None
    why = "this head holds raw numbers, so it is another, or would be activated twice"
    return f"{activated} in front of its output: {why}"


def _cells(facts: SourceFacts) -> int:
    """Cells of the three usual levels; 0 where the picture is no multiple of 32."""
    if facts.height % STRIDES[-1] or facts.width % STRIDES[-1]:
        return 0
    return sum((facts.height // stride) * (facts.width // stride) for stride in STRIDES)


def _is_no_yolo_v2(facts: SourceFacts, *, by_name: bool) -> str | None:
    if len(facts.outputs) != 1 or grid_of(facts.outputs[0].shape) is None:
        return "a YOLO v2 head is one output [1, rows, columns, anchors * (5 + classes)]"
    if not by_name and not fitting_counts(facts.outputs[0].shape):
        return f"no anchors and classes make {facts.outputs[0].shape[2]} channels of a YOLO v2 head"
    return _raw(facts, by_name=by_name)


def _build_yolo_v2(statements: AllStatements) -> Head:
    facts, stated, names = statements.facts, statements.anchors_or_default, statements.names_of_people
    grid = grid_of(facts.outputs[0].shape)
    assert grid is not None, "it fits"  # noqa: S101
    grid_h, grid_w, channels = grid
    if stated is None:
        raise OptionError(
            f"'{facts.file}': its YOLO v2 head ({grid_h} x {grid_w} x {channels}) needs anchors, and no one states "
            f"them; {how_to_state_anchors(facts, 'yolo_v2')}; --head none keeps the raw head; "
            f"{describe_fit(facts.outputs[0].shape)}"
        )
    anchors = settle_unit(stated, statements.unit_of(stated), facts, (grid_h, grid_w))
    named = None if names is None else len(names)
    classes = fit_num_classes(facts.file, facts.outputs[0].shape, len(anchors.sizes_wh), named)
    return YoloV2(grid_h, grid_w, anchors, classes)


def _is_no_yolo_v3(facts: SourceFacts, *, by_name: bool) -> str | None:
    return are_no_grids(facts, least=1 if by_name else 2) or _raw(facts, by_name=by_name)


def _is_no_st_yolo_x(facts: SourceFacts, *, by_name: bool) -> str | None:
    why = are_no_grids(facts, least=1)
    return why or (None if by_name else "raw grids are read as st_yolo_x only where --head st_yolo_x says so")


def _is_no_yolo_v5_raw(facts: SourceFacts, *, by_name: bool) -> str | None:
    if are_anchors_first(facts) and (by_name or len(facts.outputs) > 1):
        return _raw(facts, by_name=by_name)
    why = are_no_grids(facts, least=1)
    return why or (None if by_name else "such grids are read as raw YOLO v5 only where --head yolo_v5_raw says so")


def _is_no_list(facts: SourceFacts, *, by_name: bool, per_cell: int, least: int, by_box: bool = True) -> str | None:
    """Why an output is no list of so many boxes per cell (of any, by name), box by box or value by value."""
    shape = facts.outputs[0].shape
    if len(facts.outputs) != 1 or len(shape) != 2:
        return "one list of boxes is expected"
    boxes, values = shape if by_box else shape[::-1]
    if values < least or boxes <= values:
        order = "boxes by values" if by_box else "values by boxes"
        return f"one list of boxes is expected, {order}, of {least} values or more"
    expected = per_cell * _cells(facts)
    if boxes == expected or by_name:
        return None
    return f"{per_cell} boxes in each cell of the strides {STRIDES} make {expected} boxes, found {boxes}"


def _extent(facts: SourceFacts) -> tuple[float, float]:
    """What boxes are fractions of: pixels of the picture where codes or strides reach that far, else the picture."""
    output = facts.outputs[0]
    if max(output.largest or 0, output.reach or 0) <= LARGEST_FRACTION:
        return 1.0, 1.0
    return float(facts.width), float(facts.height)


def _build_decoded(head: type[DecodedHead], statements: AllStatements) -> Head:
    shape = statements.facts.outputs[0].shape
    boxes, classes = (shape[0], shape[1] - 5) if head is YoloV5 else (shape[1], shape[0] - 4)
    statements.require_names(classes)
    return head(boxes, classes, _extent(statements.facts))


def _build_grid(head: type[Fomo | FastestDet], others: int, statements: AllStatements) -> Head:
    """A grid whose cells hold ``others`` numbers besides those of the classes."""
    rows, columns, values = statements.facts.outputs[0].shape
    statements.require_names(values - others)
    return head(rows, columns, values - others)


def _is_no_yolox(facts: SourceFacts, *, by_name: bool) -> str | None:  # noqa: ARG001 - a table's call
    why = _is_no_list(facts, by_name=False, per_cell=1, least=6)
    if why is None and facts.outputs[0].reach is not None:
        return "its boxes are decoded already (a constant multiplies them): --head yolo_v5 reads such rows"
    return why


def _build_yolox(statements: AllStatements) -> Head:
    facts = statements.facts
    classes = facts.outputs[0].shape[1] - 5
    statements.require_names(classes)
    activated = bool(facts.outputs[0].activations)
    return Yolox((facts.width, facts.height), classes, STRIDES, activated=activated)


def _is_no_fomo(facts: SourceFacts, *, by_name: bool) -> str | None:
    shape = facts.outputs[0].shape
    if len(facts.outputs) != 1 or len(shape) != 3 or shape[2] < 2:
        return "a FOMO head is one output [1, rows, columns, 1 + classes]"
    if not by_name:
        return "a grid of probabilities is read as FOMO only where --head fomo says so"
    smallest, largest = facts.outputs[0].smallest, facts.outputs[0].largest
    if smallest is None or largest is None:
        return None if facts.outputs[0].activations else f"{NO_PROBABILITIES}: no softmax or sigmoid stands in front"
    if smallest < -PROBABILITY_SLACK or largest > 1 + PROBABILITY_SLACK:
        return f"{NO_PROBABILITIES}: its codes hold {smallest:.4g} to {largest:.4g}, expected 0 to 1"
    return None


def _is_no_fastestdet(facts: SourceFacts, *, by_name: bool) -> str | None:
    shape = facts.outputs[0].shape
    if len(facts.outputs) != 1 or len(shape) != 3 or shape[2] < 6:
        return "a FastestDet head is one output [1, rows, columns, 5 + classes]"
    if not by_name and len(facts.outputs[0].activations) < 2:
        return "a FastestDet head activates its objectness by a sigmoid and its classes by a softmax"
    return None


BLAZEFACE_LEVELS = (
    ((8, 2), (16, 6)),
    ((16, 2), (32, 6)),
    ((8, 2), (16, 2), (32, 6)),
    ((4, 1),),
)  # (stride, boxes per cell): close range and palms; back cameras; poses; full range


def _blazeface_levels(facts: SourceFacts) -> tuple[tuple[int, int, int], ...] | None:
    """Rows, columns and boxes per cell of the levels whose boxes the outputs have; None where they have others."""
    counts = [output.shape[0] for output in facts.outputs]
    for strides in BLAZEFACE_LEVELS:
        if any(facts.height % stride or facts.width % stride for stride, _ in strides):
            continue
        levels = tuple((facts.height // stride, facts.width // stride, each) for stride, each in strides)
        boxes = [rows * columns * each for rows, columns, each in levels]
        if sorted(counts) in ([sum(boxes)] * 2, sorted(boxes * 2)):
            return levels
    return None


def _is_no_blazeface(facts: SourceFacts, *, by_name: bool) -> str | None:
    shapes = [output.shape for output in facts.outputs]
    flat = len(shapes) in (2, 4) and all(len(shape) == 2 for shape in shapes)
    widths = {shape[1] for shape in shapes} - {1} if flat else set()
    even = len(widths) == 1
    if facts.postprocess is not None or not even or min(widths) < 4 or min(widths) % 2:
        return "a BlazeFace head is boxes [1, n, 4 + 2 * keypoints] and scores [1, n, 1], of all levels or of each"
    if [shape[-1] for shape in shapes].count(1) != len(shapes) // 2 or _blazeface_levels(facts) is None:
        levels = (", ".join(f"{each} a cell of stride {s}" for s, each in level) for level in BLAZEFACE_LEVELS)
        return f"its boxes are none of a BlazeFace of this picture's size: {' or '.join(levels)}"
    return _raw(facts, by_name=by_name)


def _build_blazeface(statements: AllStatements) -> Head:
    facts = statements.facts
    levels = _blazeface_levels(facts)
    assert levels is not None, "it fits"  # noqa: S101
    statements.require_names(1)
    keypoints = (max(output.shape[-1] for output in facts.outputs) - 4) // 2
    size = float(facts.width), float(facts.height)
    return BlazeFace(size, levels, keypoints, separate=len(facts.outputs) > 2)


RECOGNITIONS: dict[str, Recognition] = {
    "yolo_v2": Recognition(_is_no_yolo_v2, _build_yolo_v2, anchors=True),
    "yolo_v3": Recognition(_is_no_yolo_v3, partial(build_grids, "yolo_v3"), anchors=True),
    "st_yolo_x": Recognition(_is_no_st_yolo_x, partial(build_grids, "st_yolo_x"), anchors=True),
    "yolo_v5_raw": Recognition(_is_no_yolo_v5_raw, partial(build_grids, "yolo_v5_raw"), anchors=True),
    "yolo_v5": Recognition(partial(_is_no_list, per_cell=3, least=6), partial(_build_decoded, YoloV5)),
    "yolo_v8": Recognition(partial(_is_no_list, per_cell=1, least=5, by_box=False), partial(_build_decoded, YoloV8)),
    "yolox": Recognition(_is_no_yolox, _build_yolox),
    "fomo": Recognition(_is_no_fomo, partial(_build_grid, Fomo, 1)),
    "fastestdet": Recognition(_is_no_fastestdet, partial(_build_grid, FastestDet, 5)),
    "blazeface": Recognition(_is_no_blazeface, _build_blazeface),
    "ssd": Recognition(is_no_ssd, build_ssd),
}
