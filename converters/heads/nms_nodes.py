"""The fused head: raw outputs -> a head's boxes and scores -> the outputs of the model contract.

Standard operators only. Before: float32 raw outputs. After: ``num_detections``, ``detection_boxes``,
``detection_scores``, ``detection_classes``, ``detection_anchors``, and the optional inputs ``score_threshold`` and
``iou_threshold``. Each function has its twin in ``converters.heads.nms``; suppression is in
``converters.heads.suppression_nodes``. The last step is here: kept scores -> K sorted, padded rows.

Rows are ordered by score, ties by lower (box, class) index. ONNX asks ``TopK`` for exactly that, but
OpenVINO's breaks ties in any order (measured, 2026.4), and int8 heads tie often. So ties are settled by a
second ``TopK``, over keys that are unique: a candidate's rank among the *distinct* scores, times the
number of places, plus its own place, which comes back as the key's remainder. Numeric effect: none.

Keys are float32, because some runtimes sort nothing else, and exact: they are whole numbers below 2^24. K rows hold no
rank of K or above, so all these ranks may be one. Only above 2^24 / (K + 1) places keys are int64, then below 2^31 up
to half a million places, for runtimes that compute int64 in int32.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from converters._ir import ir
from converters.errors import ContractError
from converters.heads import nodes
from converters.heads.base import keypoints_of
from converters.heads.nms import MAX_CANDIDATES
from converters.heads.suppression_nodes import FLOAT32_COUNTS_TO, Kept, Places, suppress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.graph import GraphWriter
    from converters.heads.base import KeypointHead
    from converters.spec import ContractTensor, DetectorSpec

KeyDtype = np.dtype[np.float32 | np.int64]


def add_head(
    writer: GraphWriter,
    outputs: Sequence[ir.Value],
    spec: DetectorSpec,
    promised: Sequence[ContractTensor],
    *,
    freeze_thresholds: bool,
) -> None:
    """Append the head's nodes, the optional threshold inputs, and the contract's outputs.

    Args:
        writer: the graph, whose input ``image`` exists already.
        outputs: the raw outputs, float32, in the head's order.
        spec: the detector, with the default thresholds and K.
        promised: the contract's outputs.
        freeze_thresholds: bake the thresholds in instead of declaring optional inputs.

    Raises:
        ContractError: the detector's head is not known, the values are not its raw outputs, or the graph uses a name
            of the contract for something else.
    """
    if spec.head is None:
        raise ContractError("this detector's head is not known (--head none): it cannot be written as nodes")
    for value, wanted in zip(outputs, spec.head.raw_outputs(), strict=True):
        if value.shape is not None and tuple(value.shape.dims[1:]) != wanted.shape:
            sizes = ", ".join(map(str, wanted.shape))
            raise ContractError(f"the head {value.name!r} is {value.shape}, expected [N, {sizes}]")
    limits = spec.thresholds
    score_threshold = _add_threshold(writer, "score_threshold", limits.score, frozen=freeze_thresholds)
    iou_threshold = _add_threshold(writer, "iou_threshold", limits.iou, frozen=freeze_thresholds)
    boxes, decoded = spec.head.decode_nodes(writer, outputs)
    competing, own_classes = decoded, None
    if spec.suppression.across_classes:
        # the lowest of equal ones
        own_classes = writer.op("ArgMax", [decoded], "head/best_classes", axis=2, keepdims=1)
        competing = writer.op("GatherElements", [decoded, own_classes], "head/best_class_scores", axis=2)
    kept = suppress(writer, boxes, competing, spec, score_threshold=score_threshold, iou_threshold=iou_threshold)
    if spec.suppression.classes_per_box > 1:
        kept, own_classes = with_further_classes(writer, kept, decoded, score_threshold, spec), None
    points = None
    if keypoints_of(spec.head):
        points = cast("KeypointHead", spec.head).keypoint_nodes(writer, outputs)
        points = nodes.append_boxes(writer, points, kept.padding, 0.0, "head/keypoints_and_sentinel")
    rows = select_best(writer, kept, spec, own_classes=own_classes, keypoints=points)
    for tensor in promised:
        value = rows[tensor.name]
        _require_name(value, tensor.name)
        value.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(tensor.dtype)))
        value.shape = ir.Shape(tensor.shape)
        writer.graph.outputs.append(value)


def _add_threshold(writer: GraphWriter, name: str, default: float, *, frozen: bool) -> ir.Value:
    """Declare a float32 ``[]`` input with a default; returns it as ``[1]``, the one rank every runtime takes."""
    if frozen:
        return writer.constant(np.array([default], np.float32), name)
    value = writer.constant(np.array(default, np.float32), name)
    _require_name(value, name)
    writer.graph.inputs.append(value)
    return writer.op("Reshape", [value, ([1], f"{name}:shape")], f"{name}:vector")


def _require_name(value: ir.Value, name: str) -> None:
    """Raise ContractError unless ``value`` got its contract name."""
    if value.name != name:
        raise ContractError(
            f"a tensor of the network is named {name!r}, which the contract needs: rename it in the source"
        )


def select_best(
    writer: GraphWriter,
    kept: Kept,
    spec: DetectorSpec,
    *,
    own_classes: ir.Value | None = None,
    keypoints: ir.Value | None = None,
) -> dict[str, ir.Value]:
    """Gather the best kept candidates into K rows, padded with boxes 0, score 0, class -1, anchor -1.

    Args:
        writer: the graph to append to.
        kept: boxes, and the scores that stay.
        spec: the detector.
        own_classes: int64 ``[N, B, 1]``, the class of each box where it has one alone.
        keypoints: float32 ``[N, B + P, 2 * points]``, of heads that have some; padding is 0.

    Returns:
        The contract's outputs by name, in its order.
    """
    rule, num_rows, num_slots = (spec.suppression, spec.thresholds.max_detections, spec.num_boxes + kept.padding)
    num_classes = spec.competing_classes if rule.classes_per_box == 1 else spec.num_classes
    class_first = rule.class_first and num_classes > 1
    if class_first and kept.places is None:
        by_class = writer.op("Transpose", [kept.scores], "head/kept_scores_by_class", perm=[0, 2, 1])
        kept = replace(kept, scores=by_class)
    length = num_slots * num_classes if kept.places is None else kept.places.count
    at_most_kept = num_rows * num_classes if rule.classes_per_box == 1 else length
    scores, indices = _sort_candidates(writer, kept, length, (num_rows, at_most_kept), "detection_scores")
    valid = writer.op("Greater", [scores, (np.float32(0), "head/padded_score")], "head/is_valid")
    count = writer.op("Cast", [valid], "head/valid_as_int", to=ir.DataType.INT32)

    anchors, classes = indices, None
    if num_classes > 1:
        width = num_slots if class_first else num_classes
        divisor = writer.constant(np.int64(width), "head/num_boxes" if class_first else "head/num_classes")
        names = ("head/row_classes", "head/row_anchors") if class_first else ("head/row_anchors", "head/row_classes")
        parts = [writer.op(op, [indices, divisor], name) for op, name in zip(("Div", "Mod"), names, strict=True)]
        anchors, classes = parts[::-1] if class_first else parts
    if own_classes is not None:
        classes = _gather_classes(writer, own_classes, anchors, valid)
    num_detections = writer.op("ReduceSum", [count, ([1], "head/row_axis")], "num_detections", keepdims=0)
    sentinel = np.int64(num_slots - 1), "head/sentinel_index"  # the box of padded rows, which is 0
    sources = writer.op("Where", [valid, anchors, sentinel], "head/row_sources")
    picks = writer.op("Unsqueeze", [sources, ([2], "head/index_axis")], "head/row_source_indices")
    name = "head/row_boxes_unclipped" if rule.unclipped else "detection_boxes"
    boxes = writer.op("GatherND", [kept.boxes, picks], name, batch_dims=1)
    if rule.unclipped:
        boxes = nodes.clip_xyxy(writer, boxes, "detection_boxes")
    if classes is not None:
        classes = _index_or_minus_one(writer, classes, valid, "detection_classes")
    else:  # with one class, 0 or -1 is what the validity says, less 1
        classes = writer.op("Sub", [count, (np.int32(1), "head/one_class")], "detection_classes")
    rows = {
        "num_detections": num_detections,
        "detection_boxes": boxes,
        "detection_scores": scores,
        "detection_classes": classes,
        "detection_anchors": _index_or_minus_one(writer, anchors, valid, "detection_anchors"),
    }
    if keypoints is not None:
        of_rows = writer.op("GatherND", [keypoints, picks], "head/row_keypoints", batch_dims=1)
        shape = [-1, num_rows, keypoints_of(spec.head), 2], "head/keypoints_shape"
        rows["detection_keypoints"] = writer.op("Reshape", [of_rows, shape], "detection_keypoints")
    return rows


def with_further_classes(
    writer: GraphWriter, kept: Kept, class_scores: ir.Value, score_threshold: ir.Value, spec: DetectorSpec
) -> Kept:
    """The boxes that stay, each with its best classes: a candidate per box and class, 0 where it does not count.

    Args:
        writer: the graph to append to.
        kept: boxes that stay, with the score of the best class of each.
        class_scores: float32 ``[N, B, NC]``, of all classes.
        score_threshold: float32 ``[1]``; a row needs a score above it.
        spec: the detector.
    """
    rule, num_classes = spec.suppression, spec.num_classes
    most, width = rule.max_boxes(spec.thresholds.max_detections), spec.num_boxes + kept.padding
    length = width if kept.places is None else kept.places.count
    scores, boxes = _sort_candidates(writer, kept, length, (most, most), "head/best_boxes_scores")
    axis = writer.constant([2], "head/class_score_axis")
    table = nodes.append_boxes(writer, class_scores, kept.padding, 0.0, "head/class_scores_and_sentinel")
    own = nodes.gathered(writer, table, boxes, "head/class_scores_of_boxes")
    zero = writer.constant(np.float32(0), "head/no_class_score")
    stays = writer.op("Unsqueeze", [writer.op("Greater", [scores, zero], "head/stays"), axis], "head/box_stays")
    above = writer.op("Greater", [own, score_threshold], "head/class_is_above_threshold")
    own = writer.op("Where", [writer.op("And", [above, stays], "head/class_counts"), own, zero], "head/class_scores")

    sizes = writer.constant([-1, most, rule.classes_per_box], "head/best_classes_shape")
    flat = writer.op("Reshape", [own, ([-1, num_classes], "head/box_rows")], "head/rows_of_classes")
    of_boxes, limits = replace(kept, scores=flat, places=None), (rule.classes_per_box, num_classes)
    best, classes = _sort_candidates(writer, of_boxes, num_classes, limits, "head/best_scores")
    count = np.int64(num_classes), "head/classes_of_a_box"
    starts = writer.op("Unsqueeze", [writer.op("Mul", [boxes, count], "head/box_starts"), axis], "head/starts_of_boxes")
    classes = writer.op("Reshape", [classes, sizes], "head/further_classes")
    total = most * rule.classes_per_box
    flat_sizes = writer.constant([-1, total], "head/further_places_shape")
    places = writer.op("Add", [classes, starts], "head/class_places")
    places = writer.op("Reshape", [places, flat_sizes], "head/further_places")
    scores = writer.op("Reshape", [best, flat_sizes], "head/further_scores")
    return replace(kept, scores=scores, places=Places(places, width * num_classes, total))


def _sort_candidates(
    writer: GraphWriter, kept: Kept, length: int, limits: tuple[int, int], name: str
) -> tuple[ir.Value, ir.Value]:
    """The best scores and their slots, ``[N, rows]`` each; ``limits``: rows, and the most scores above 0.

    At most K candidates per class are kept (suppress sees to it), so no tie is cut off before it is settled.
    """
    (num_rows, most), places = limits, kept.places
    below = length if places is None else places.below
    at_most_kept = min(length, max(2, most), MAX_CANDIDATES)
    flat = writer.op("Reshape", [kept.scores, ([-1, length], "head/flat_shape")], "head/kept_scores_flat")
    limit = [at_most_kept], "head/max_kept"
    by_score, own = writer.ops("TopK", [flat, limit], ["head/sorted_scores", "head/sorted_slots"], axis=1)
    if places is not None:
        own = nodes.gathered(writer, places.values, own, "head/sorted_places")

    holds_keys = min(at_most_kept, num_rows + 1) * below <= FLOAT32_COUNTS_TO
    dtype: KeyDtype = np.dtype(np.float32 if holds_keys else np.int64)
    width = writer.constant(dtype.type(below), "head/num_slots")
    rank = _rank_distinct(writer, by_score, at_most_kept, num_rows, dtype)
    if dtype != np.int64:
        own = writer.op("Cast", [own], "head/slots_float", to=ir.DataType.FLOAT)
    keys = writer.op("Add", [writer.op("Mul", [rank, width], "head/scaled_rank"), own], "head/unique_keys")
    rows = [num_rows], "head/num_rows"
    row_keys = writer.ops("TopK", [keys, rows], ["head/row_keys", "head/row_order"], axis=1, largest=0)[0]
    if dtype != np.int64:
        row_keys = writer.op("Cast", [row_keys], "head/row_keys_int64", to=ir.DataType.INT64)
    divisor = width if dtype == np.int64 else writer.constant(np.int64(below), "head/num_slots_int64")
    scores = nodes.sliced(writer, by_score, name, start=[0], stop=[num_rows], axis=[1])
    slots = writer.op("Mod", [row_keys, divisor], "head/row_slots")
    return scores, slots if places is None else places.slots(writer, slots, "head/row_slots_in_table")


def _rank_distinct(writer: GraphWriter, falling: ir.Value, length: int, num_rows: int, dtype: KeyDtype) -> ir.Value:
    """Rank falling float32 ``[N, length >= 2]``, best 0, equal values alike, ``num_rows`` at most: ``[N, length]``."""
    before = nodes.sliced(writer, falling, "head/scores_before", start=[0], stop=[length - 1], axis=[1])
    after = nodes.sliced(writer, falling, "head/scores_after", start=[1], stop=[length], axis=[1])
    drops = writer.op("Greater", [before, after], "head/score_drops")
    steps = writer.op("Cast", [drops], "head/score_steps", to=ir.DataType.from_numpy(dtype))
    pads, best = ([0, 1, 0, 0], "head/rank_pads"), (dtype.type(0), "head/best_rank")
    padded = writer.op("Pad", [steps, pads, best], "head/score_steps_from_best")
    rank = writer.op("CumSum", [padded, (np.int64(1), "head/rank_axis")], "head/rank")
    if length <= num_rows + 1:
        return rank
    return writer.op("Min", [rank, (dtype.type(num_rows), "head/first_rank_left_out")], "head/rank_of_row")


def _gather_classes(writer: GraphWriter, own_classes: ir.Value, anchors: ir.Value, valid: ir.Value) -> ir.Value:
    """The rows' classes where each box has one, ``[N, K]``; padded rows gather that of box 0."""
    boxes = writer.op("Where", [valid, anchors, (np.int64(0), "head/first_box")], "head/row_boxes")
    flat = writer.op("Squeeze", [own_classes, ([2], "head/class_axis")], "head/classes_of_boxes")
    return writer.op("GatherElements", [flat, boxes], "head/row_classes", axis=1)


def _index_or_minus_one(writer: GraphWriter, indices: ir.Value, valid: ir.Value, name: str) -> ir.Value:
    """``indices`` as int32, -1 in padded rows."""
    masked = writer.op("Where", [valid, indices, (np.int64(-1), f"{name}:padding")], f"{name}:int64")
    return writer.op("Cast", [masked], name, to=ir.DataType.INT32)
