"""Suppression as ONNX nodes: boxes and scores -> scores of the boxes that stay.

It is class-aware; where boxes suppress each other across classes, everything here sees detections of one class.

``NonMaxSuppression`` returns as many rows as it likes: none at all, or some runtimes' padding of -1.
Nothing here trusts that number, or the order of the rows. Behind the B real boxes stands a *sentinel* of
no area, with a score above every threshold, so that at least one row per class always comes back; the
rows are scattered into a table over all slots, in which the sentinel's slot (where an index of -1
lands, too) counts for nothing. Numeric effect: none, scores pass unchanged.

The score threshold is applied before: scores that are not above it become 0, and ``NonMaxSuppression`` gets the
constant threshold 0, the one that every runtime takes. So no candidate that does not count uses up a place or a
comparison.

Two forms with the same rows. Where every (box, class) pair is a candidate, all steps are over the whole table of scores
(``suppress``). Where there are more, the best are picked first, and all steps but NonMaxSuppression are over the few
that were picked (``suppress_best``): 8,400 boxes of 80 classes have 672,000 scores and 4,096 candidates.

Picking: a maximum with the threshold makes all scores alike that do not count, which spares TopK much of its work. Of
very many scores, first the groups of neighbours with the best maxima are picked. As many groups as candidates are
enough: a score outside them has a better one in each of these groups, or an equal one of lower index. They are put back
in order, so that ties are cut as among all. What is below the least of these maxima is no candidate either, and made
alike, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters._ir import ir
from converters.heads import nodes
from converters.heads.nms import MAX_CANDIDATES

if TYPE_CHECKING:
    from converters.graph import GraphWriter
    from converters.spec import DetectorSpec

SENTINEL_SCORE = 2.0  # above every score threshold, which lie in 0..1
FIRST_SENTINEL_SCORE = 3e38  # above every score: where few of a class stay, the sentinel must be counted first
NOT_A_BOX = -2  # equals no box index, and not the -1 of padding
GROUP = 16  # neighbouring scores, at most: a TopK over 42,000 maxima and one over 65,536 scores instead of 672,000
MANY = 32 * MAX_CANDIDATES  # scores from which groups pay
FLOAT32_COUNTS_TO = 2**24  # every whole number up to here is a float32


@dataclass(frozen=True, slots=True)
class Places:
    """Where candidates are, as numbers that rise with their slots in the table of all scores."""

    values: ir.Value  # int64 ``[N, C]``
    below: int  # what they are below
    count: int  # C
    size: int = 1  # scores of a group
    # int64 ``[N, G]``, the groups in which they are counted, rising; None where places are slots
    groups: ir.Value | None = None

    def slots(self, writer: GraphWriter, values: ir.Value, name: str) -> ir.Value:
        """The slots of places ``[N, any]``."""
        if self.groups is None:
            return values
        size = writer.constant(np.int64(self.size), f"{name}:group_size")
        position = writer.op("Div", [values, size], f"{name}:position_of_group")
        group = nodes.gathered(writer, self.groups, position, f"{name}:group")
        start = writer.op("Mul", [group, size], f"{name}:start")
        return writer.op("Add", [start, writer.op("Mod", [values, size], f"{name}:inside")], name)


@dataclass(frozen=True, slots=True)
class Kept:
    """Boxes, and the scores of those that stay."""

    boxes: ir.Value  # float32 ``[N, B + P, 4]``; padding is 0, and the last box is the sentinel
    # float32 ``[N, B + P, NC]``, 0 where suppressed; with ``places`` ``[N, C]`` of the candidates alone
    scores: ir.Value
    padding: int  # P >= 1, and large enough that a TopK can take K
    # of the candidates; slots are those of the table ``[B + P, NC]``, or ``[NC, B + P]`` where ties are settled class
    # first. None where ``scores`` is that table, box first.
    places: Places | None = None


def suppress(
    writer: GraphWriter,
    boxes: ir.Value,
    scores: ir.Value,
    spec: DetectorSpec,
    *,
    score_threshold: ir.Value,
    iou_threshold: ir.Value,
) -> Kept:
    """Drop every candidate that scores too low or overlaps a better one of its class.

    Of equal scores at the limit of candidates those of lower (box, class) index are candidates, where the runtime's
    TopK breaks ties as ONNX says.

    Args:
        writer: the graph to append to.
        boxes: float32 ``[N, B, 4]``.
        scores: float32 ``[N, B, NC]``, NC of the classes that are suppressed one by one.
        spec: the detector.
        score_threshold: float32 ``[1]``; a candidate needs a score above it.
        iou_threshold: float32 ``[1]``; a box falls when its IoU is above it.
    """
    most = spec.suppression.max_boxes(spec.thresholds.max_detections)
    rows_needed = -(-most // spec.competing_classes)
    padding = max(1, rows_needed - spec.num_boxes)
    boxes = nodes.append_boxes(writer, boxes, padding, 0.0, "head/boxes_and_sentinel")
    total = spec.num_boxes * spec.competing_classes
    form = _suppress_all if spec.num_candidates == total else _suppress_best
    return form(writer, Kept(boxes, scores, padding), score_threshold, iou_threshold, spec)


def _suppress_all(
    writer: GraphWriter, competing: Kept, score_threshold: ir.Value, iou_threshold: ir.Value, spec: DetectorSpec
) -> Kept:
    """``suppress`` where every pair is a candidate."""
    scores, padding = competing.scores, competing.padding
    padded = _with_sentinel(writer, scores, padding, spec)
    zero = writer.constant(np.float32(0), "head/no_score")
    counts = writer.op("Greater", [padded, score_threshold], "head/is_above_threshold")
    scores = writer.op("Where", [counts, padded, zero], "head/scores_above_threshold")
    by_class = writer.op("Transpose", [scores], "head/scores_by_class", perm=[0, 2, 1])
    selected = _selected(writer, competing.boxes, by_class, iou_threshold, spec)

    order = [0, 2, 1], "head/batch_box_class_order"
    places = writer.op("Gather", [selected, order], "head/selected_batch_box_class", axis=1)
    box_indices = writer.op("Gather", [selected, (np.int64(2), "head/box_column")], "head/selected_boxes", axis=1)
    shape = writer.op("Shape", [scores], "head/nothing_kept:shape")
    nothing = ir.tensor(np.full(1, -1, np.int64))
    blank = writer.op("ConstantOfShape", [shape], "head/nothing_kept", value=nothing)
    table = writer.op("ScatterND", [blank, places, box_indices], "head/kept_boxes")

    own_index = np.arange(spec.num_boxes + padding).reshape(-1, 1)
    own_index[spec.num_boxes :] = NOT_A_BOX
    kept = writer.op("Equal", [table, (own_index, "head/box_indices")], "head/is_kept")
    return Kept(competing.boxes, writer.op("Where", [kept, scores, zero], "head/kept_scores"), padding)


def _suppress_best(
    writer: GraphWriter, competing: Kept, score_threshold: ir.Value, iou_threshold: ir.Value, spec: DetectorSpec
) -> Kept:
    """``suppress`` where more pairs exist than may be candidates; the one row of padding is the sentinel's."""
    best, places = _best(writer, competing.scores, score_threshold, spec)
    slots = places.slots(writer, places.values, "head/candidate_slots")
    zero = writer.constant(np.float32(0), "head/no_score")
    counts = writer.op("Greater", [best, score_threshold], "head/is_above_threshold")
    scores = writer.op("Where", [counts, best, zero], "head/candidate_scores_above_threshold")

    num_classes = writer.constant(np.int64(spec.competing_classes), "head/candidate_num_classes")
    boxes = writer.op("Div", [slots, num_classes], "head/candidate_boxes")
    classes = writer.op("Mod", [slots, num_classes], "head/candidate_classes")
    width = np.int64(spec.num_boxes + 1), "head/boxes_and_sentinel_of_a_class"
    of_class = writer.op("Mul", [classes, width], "head/candidate_class_starts")
    by_class = writer.op("Add", [of_class, boxes], "head/candidate_slots_by_class")
    table = _table_by_class(writer, by_class, scores, spec)
    selected = _selected(writer, competing.boxes, table, iou_threshold, spec)

    # what stays is marked by numbers below 0 in the same table, which nothing else reads any more
    box_indices = writer.op("Gather", [selected, (np.int64(2), "head/box_column")], "head/selected_boxes", axis=1)
    numbers = writer.op("Cast", [box_indices], "head/selected_boxes_float", to=ir.DataType.FLOAT)
    marks = writer.op("Sub", [(np.float32(-1), "head/mark_of_box_0"), numbers], "head/selected_marks")
    # as it is: TVM cannot compute with the rows of NonMaxSuppression, but with what a Gather gives of them
    order = [0, 1, 2], "head/batch_class_box_order"
    where = writer.op("Gather", [selected, order], "head/selected_batch_class_box_again", axis=1)
    marked = writer.op("ScatterND", [table, where, marks], "head/marked_scores")
    shape = [-1, (spec.num_boxes + 1) * spec.competing_classes], "head/marked_scores_shape"
    marked = writer.op("Reshape", [marked, shape], "head/marked_scores_flat")
    stays = writer.op("Less", [nodes.gathered(writer, marked, by_class, "head/marks"), zero], "head/is_kept")
    if spec.suppression.class_first:
        places = Places(by_class, (spec.num_boxes + 1) * spec.competing_classes, spec.num_candidates)
    return Kept(
        competing.boxes, writer.op("Where", [stays, scores, zero], "head/kept_scores"), competing.padding, places
    )


def _table_by_class(writer: GraphWriter, slots: ir.Value, scores: ir.Value, spec: DetectorSpec) -> ir.Value:
    """Scores of candidates in their slots, the sentinel's behind each class, else 0: float32 ``[N, NC, B + 1]``."""
    classes, width = spec.competing_classes, spec.num_boxes + 1
    shape = writer.op("Shape", [slots], "head/candidates_shape")
    batch = writer.op("Slice", [shape, ([0], "head/batch_start"), ([1], "head/batch_stop")], "head/batch")
    size, one = (
        writer.op("Concat", [batch, ([number], f"{name}:width")], name, axis=0)
        for number, name in ((classes * width, "head/table_shape"), (1, "head/sentinels_shape"))
    )
    blank = writer.op("ConstantOfShape", [size], "head/no_scores", value=ir.tensor(np.zeros(1, np.float32)))
    own_slots = np.arange(1, classes + 1, dtype=np.int64)[None] * width - 1
    own_scores = np.full((1, classes), _sentinel_score(spec), np.float32)
    operands = []
    for value, of_sentinel, name in ((slots, own_slots, "slots"), (scores, own_scores, "scores")):
        of_all = writer.op("Expand", [(of_sentinel, f"head/sentinel_{name}_of_one"), one], f"head/sentinel_{name}")
        operands.append(writer.op("Concat", [value, of_all], f"head/{name}_and_sentinels", axis=1))
    flat = writer.op("ScatterElements", [blank, *operands], "head/scores_by_class_flat", axis=1)
    return writer.op("Reshape", [flat, ([-1, classes, width], "head/scores_by_class_shape")], "head/scores_by_class")


def _best(
    writer: GraphWriter, scores: ir.Value, score_threshold: ir.Value, spec: DetectorSpec
) -> tuple[ir.Value, Places]:
    """The best ``spec.num_candidates`` scores ``[N, C]``, none below the threshold, and where they are."""
    total, count = spec.num_boxes * spec.competing_classes, spec.num_candidates
    limit = writer.constant([count], "head/num_candidates")
    size = max(n for n in range(1, GROUP + 1) if total % n == 0) if total >= MANY else 1
    picked, chosen, width, least = scores, None, total, score_threshold
    if size > 1:
        groups = writer.op("Reshape", [scores, ([-1, total // size, size], "head/groups_shape")], "head/groups")
        maxima = writer.op("ReduceMax", [groups, ([2], "head/group_axis")], "head/group_maxima", keepdims=0)
        maxima = writer.op("Max", [maxima, score_threshold], "head/group_maxima_or_threshold")
        names = ["head/best_maxima", "head/best_groups"]
        best, chosen = writer.ops("TopK", [maxima, limit], names, axis=1)
        least = _just_below(writer, best, count)
        exact = total // size <= FLOAT32_COUNTS_TO  # as float32 then, which every TopK takes
        keys = writer.op("Cast", [chosen], "head/group_keys", to=ir.DataType.FLOAT) if exact else chosen
        names = ["head/groups_rising", "head/groups_order"]
        chosen = writer.ops("TopK", [keys, limit], names, axis=1, largest=0)[0]
        chosen = writer.op("Cast", [chosen], "head/groups_in_order", to=ir.DataType.INT64) if exact else chosen
        picked, width = nodes.gathered(writer, groups, chosen, "head/groups_of_candidates"), count * size
    flat = writer.op("Reshape", [picked, ([-1, width], "head/flat_scores_shape")], "head/all_scores")
    flat = writer.op("Max", [flat, least], "head/flat_scores")
    names = ["head/candidate_scores", "head/candidate_indices"]
    best, indices = writer.ops("TopK", [flat, limit], names, axis=1)
    return best, Places(indices, width, count, size, chosen)


def _just_below(writer: GraphWriter, falling: ir.Value, count: int) -> ir.Value:
    """Less than the last of ``[N, count]`` falling numbers of 0 or more, by one or two float32 at most: ``[N, 1]``."""
    last = writer.op("Gather", [falling, ([count - 1], "head/last_candidate")], "head/least_maximum", axis=1)
    below_one = np.nextafter(np.float32(1), np.float32(0)), "head/just_below_one"
    smallest = np.nextafter(np.float32(0), np.float32(1)), "head/smallest_number"
    scaled = writer.op("Mul", [last, below_one], "head/least_maximum_scaled")
    return writer.op("Sub", [scaled, smallest], "head/just_below_maximum")


def _selected(
    writer: GraphWriter, boxes: ir.Value, by_class: ir.Value, iou_threshold: ir.Value, spec: DetectorSpec
) -> ir.Value:
    """What NonMaxSuppression selects of boxes and their scores ``[N, NC, B + P]``: batch, class and box, ``[n, 3]``."""
    most = spec.suppression.max_boxes(spec.thresholds.max_detections)
    limits = (most, spec.suppression.per_class or MAX_CANDIDATES)
    cap = [min(limits) + 1], "head/max_boxes_per_class"
    above_zero = np.array([0], np.float32), "head/nms_score_threshold"
    name = "head/selected_batch_class_box"
    return writer.op("NonMaxSuppression", [boxes, by_class, cap, iou_threshold, above_zero], name)


def _sentinel_score(spec: DetectorSpec) -> float:
    return SENTINEL_SCORE if spec.suppression.per_class is None else FIRST_SENTINEL_SCORE


def _with_sentinel(writer: GraphWriter, scores: ir.Value, padding: int, spec: DetectorSpec) -> ir.Value:
    """Scores ``[N, B, NC]`` with padding of 0 behind them, the sentinel last."""
    name, sentinel = "head/scores_and_sentinel", _sentinel_score(spec)
    if padding == 1:
        return nodes.append_boxes(writer, scores, 1, sentinel, name)
    # no Pad behind a Pad, which IREE's compiler does not take
    filled = nodes.append_boxes(writer, scores, padding, 0.0, "head/scores_filled_up")
    is_last = np.arange(spec.num_boxes + padding).reshape(-1, 1) == spec.num_boxes + padding - 1
    own_score = np.float32(sentinel), "head/sentinel_score"
    return writer.op("Where", [(is_last, "head/is_sentinel"), own_score, filled], name)
