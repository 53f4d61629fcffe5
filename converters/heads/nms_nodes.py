"""The fused head: raw outputs -> a head's boxes and scores -> the outputs of the model contract.

Standard operators only. Before: float32 raw outputs. After: ``num_detections``, ``detection_boxes``, ``detection_scores``,
``detection_classes``, ``detection_anchors``, and the optional inputs ``score_threshold`` and ``iou_threshold``. Each
function has its twin in ``converters.heads.nms``.

Suppression as ONNX nodes: boxes and scores -> scores of the boxes that stay. It is class-aware; where boxes suppress each other
across classes, everything behind ``best_classes`` sees detections of one class.

``NonMaxSuppression`` returns as many rows as it likes: none at all, or some runtimes' padding of -1.
Nothing here trusts that number, or the order of the rows. Behind the B real boxes stands a *sentinel* of
no area, with a score above every threshold, so that at least one row per class always comes back; the
rows are scattered into a table over all candidates, in which the sentinel's slot (where an index of -1
lands, too) counts for nothing. Numeric effect: none, scores pass unchanged.

The score threshold is applied before: scores that are not above it become 0, and ``NonMaxSuppression`` gets the constant
threshold 0, the one that every runtime takes. So no candidate that does not count uses up a place or a comparison.

The last step as ONNX nodes: kept scores -> K sorted, padded rows.

Rows are ordered by score, ties by lower (box, class) index. ONNX asks ``TopK`` for exactly that, but
OpenVINO's breaks ties in any order (measured, 2026.4), and int8 heads tie often. So ties are settled by a
second ``TopK``, over keys that are unique: a candidate's rank among the *distinct* scores, times the
number of candidates, plus its index, which comes back as the key's remainder. Numeric effect: none.

Keys are float32, because some runtimes sort nothing else, and exact: they are whole numbers below 2^24. K rows hold no
rank of K or above, so all these ranks may be one. Only above 2^24 / (K + 1) candidates keys are int64, then below 2^31 up
to half a million candidates, for runtimes that compute int64 in int32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from converters._ir import ir
from converters.errors import ContractError
from converters.heads.arithmetic import clip_nodes
from converters.heads.base import keypoints_of
from converters.heads.nms import MAX_CANDIDATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.graph import GraphWriter
    from converters.heads.base import KeypointHead
    from converters.spec import ContractTensor, DetectorSpec

SENTINEL_SCORE = 2.0  # above every score threshold, which lie in 0..1
FIRST_SENTINEL_SCORE = (
    3e38  # above every score: where few of a class stay, the sentinel must be the one that is counted first
)
NOT_A_BOX = -2  # equals no box index, and not the -1 of padding


@dataclass(frozen=True, slots=True)
class PaddedCandidates:
    """Boxes and scores with padding behind them, the sentinel last.

    Attributes:
        boxes: float32 ``[N, B + P, 4]``; padding is 0.
        scores: float32 ``[N, B + P, NC]``; padding is 0, the last row the sentinel's.
        padding: P >= 1, and large enough that a TopK can take K.
        own_classes: int64 ``[N, B, 1]``, the class of each box where it has one alone; else None.
        keypoints: float32 ``[N, B + P, 2 * points]``, of heads that have some; padding is 0.
    """

    boxes: ir.Value
    scores: ir.Value
    padding: int
    own_classes: ir.Value | None = None
    keypoints: ir.Value | None = None


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
    own_classes = None
    if spec.suppression.across_classes:
        decoded, own_classes = best_classes(writer, decoded)
    padded = pad_candidates(writer, boxes, limit_candidates(writer, decoded, spec), spec)
    kept_scores = suppress(writer, padded, score_threshold, iou_threshold, spec)
    if keypoints_of(spec.head):
        points = cast("KeypointHead", spec.head).keypoint_nodes(writer, outputs)
        points = _append_boxes(writer, points, padded.padding, 0.0, "head/keypoints_and_sentinel")
        padded = replace(padded, keypoints=points)
    rows = select_best(writer, replace(padded, own_classes=own_classes), kept_scores, spec)
    for tensor in promised:
        _add_output(writer, tensor, rows[tensor.name])


def _add_threshold(writer: GraphWriter, name: str, default: float, *, frozen: bool) -> ir.Value:
    """Declare a float32 ``[]`` input with a default; returns it as ``[1]``, the one rank every runtime takes."""
    if frozen:
        return writer.constant(np.array([default], np.float32), name)
    value = writer.constant(np.array(default, np.float32), name)
    _require_name(value, name)
    writer.graph.inputs.append(value)
    return writer.op(
        "Reshape", [value, writer.constant(np.array([1], np.int64), f"{name}:shape")], f"{name}:vector"
    )


def _add_output(writer: GraphWriter, promised: ContractTensor, value: ir.Value) -> None:
    """Make ``value`` the graph output that the contract promises."""
    _require_name(value, promised.name)
    dtype = ir.DataType.from_numpy(np.dtype(promised.dtype))
    value.type, value.shape = ir.TensorType(dtype), ir.Shape(promised.shape)
    writer.graph.outputs.append(value)


def _require_name(value: ir.Value, name: str) -> None:
    """Raise ContractError unless ``value`` got its contract name."""
    if value.name != name:
        msg = f"a tensor of the network is named {name!r}, which the contract needs: rename it in the source"
        raise ContractError(msg)


def best_classes(writer: GraphWriter, scores: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The best class of each box, the lowest of equal ones: scores ``[N, B, NC]`` -> its score and index ``[N, B, 1]``."""
    indices = writer.op("ArgMax", [scores], "head/best_classes", axis=2, keepdims=1)
    best = writer.op("GatherElements", [scores, indices], "head/best_class_scores", axis=2)
    return best, indices


def limit_candidates(writer: GraphWriter, scores: ir.Value, spec: DetectorSpec) -> ir.Value:
    """Let only the best ``spec.num_candidates`` scores through; others become 0, which no threshold admits.

    No nodes at all where every (box, class) pair is a candidate.

    Args:
        writer: the graph to append to.
        scores: float32 ``[N, B, NC]``, NC of the classes that are suppressed one by one, here and behind.
        spec: the detector.

    Returns:
        float32 ``[N, B, NC]``; of equal scores at the limit the lower (box, class) index goes through, where the runtime's
        TopK breaks ties as ONNX says.
    """
    total = spec.num_boxes * spec.competing_classes
    if spec.num_candidates == total:
        return scores
    flat_shape = writer.constant(np.array([-1, total], np.int64), "head/all_scores_shape")
    flat = writer.op("Reshape", [scores, flat_shape], "head/all_scores")
    limit = writer.constant(np.array([spec.num_candidates], np.int64), "head/num_candidates")
    names = ["head/candidate_scores", "head/candidate_indices"]
    best, indices = writer.ops("TopK", [flat, limit], names, axis=1)
    blank = _filled_like(writer, flat, np.float32(0), "head/no_scores")
    limited = writer.op("ScatterElements", [blank, indices, best], "head/limited_scores_flat", axis=1)
    shape = writer.constant(
        np.array([-1, spec.num_boxes, spec.competing_classes], np.int64), "head/scores_shape"
    )
    return writer.op("Reshape", [limited, shape], "head/limited_scores")


def pad_candidates(
    writer: GraphWriter, boxes: ir.Value, scores: ir.Value, spec: DetectorSpec
) -> PaddedCandidates:
    """Append the sentinel, and before it empty boxes if there are fewer candidates than rows.

    Args:
        writer: the graph to append to.
        boxes: float32 ``[N, B, 4]``.
        scores: float32 ``[N, B, NC]``.
        spec: the detector.

    Returns:
        The padded candidates.
    """
    rows_needed = -(-spec.thresholds.max_detections // spec.competing_classes)
    padding = max(1, rows_needed - spec.num_boxes)
    if padding > 1:
        scores = _append_boxes(writer, scores, padding - 1, 0.0, "head/scores_filled_up")
    sentinel = SENTINEL_SCORE if spec.suppression.per_class is None else FIRST_SENTINEL_SCORE
    return PaddedCandidates(
        boxes=_append_boxes(writer, boxes, padding, 0.0, "head/boxes_and_sentinel"),
        scores=_append_boxes(writer, scores, 1, sentinel, "head/scores_and_sentinel"),
        padding=padding,
    )


def suppress(
    writer: GraphWriter,
    padded: PaddedCandidates,
    score_threshold: ir.Value,
    iou_threshold: ir.Value,
    spec: DetectorSpec,
) -> ir.Value:
    """Drop every candidate that scores too low or overlaps a better one of its class.

    Args:
        writer: the graph to append to.
        padded: boxes and scores.
        score_threshold: float32 ``[1]``; a candidate needs a score above it.
        iou_threshold: float32 ``[1]``; a box falls when its IoU is above it.
        spec: the detector.

    Returns:
        float32 ``[N, B + P, NC]``: the scores of the candidates that stay, 0 elsewhere.
    """
    zero = writer.constant(np.float32(0), "head/no_score")
    counts = writer.op("Greater", [padded.scores, score_threshold], "head/is_above_threshold")
    scores = writer.op("Where", [counts, padded.scores, zero], "head/scores_above_threshold")
    by_class = writer.op("Transpose", [scores], "head/scores_by_class", perm=[0, 2, 1])
    limits = (spec.thresholds.max_detections, spec.suppression.per_class or MAX_CANDIDATES)
    cap = writer.constant(np.array([min(limits) + 1], np.int64), "head/max_boxes_per_class")
    above_zero = writer.constant(np.array([0], np.float32), "head/nms_score_threshold")
    inputs = [padded.boxes, by_class, cap, iou_threshold, above_zero]
    selected = writer.op("NonMaxSuppression", inputs, "head/selected_batch_class_box")

    order = writer.constant(np.array([0, 2, 1], np.int64), "head/batch_box_class_order")
    places = writer.op("Gather", [selected, order], "head/selected_batch_box_class", axis=1)
    box_column = writer.constant(np.array(2, np.int64), "head/box_column")
    box_indices = writer.op("Gather", [selected, box_column], "head/selected_boxes", axis=1)
    blank = _filled_like(writer, scores, np.int64(-1), "head/nothing_kept")
    table = writer.op("ScatterND", [blank, places, box_indices], "head/kept_boxes")

    own_index = np.arange(spec.num_boxes + padded.padding).reshape(-1, 1)
    own_index[spec.num_boxes :] = NOT_A_BOX
    kept = writer.op("Equal", [table, writer.constant(own_index, "head/box_indices")], "head/is_kept")
    return writer.op("Where", [kept, scores, zero], "head/kept_scores")


def _append_boxes(writer: GraphWriter, value: ir.Value, count: int, fill: float, name: str) -> ir.Value:
    """Append ``count`` rows of ``fill`` on axis 1 of a rank-3 value."""
    pads = writer.constant(np.array([0, 0, 0, 0, count, 0], np.int64), f"{name}:pads")
    return writer.op("Pad", [value, pads, writer.constant(np.float32(fill), f"{name}:fill")], name)


def _filled_like(writer: GraphWriter, value: ir.Value, fill: np.generic, name: str) -> ir.Value:
    """A tensor of ``value``'s shape, known or dynamic, holding ``fill`` everywhere."""
    shape = writer.op("Shape", [value], f"{name}:shape")
    return writer.op("ConstantOfShape", [shape], name, value=ir.tensor(np.array([fill])))


FLOAT32_COUNTS_TO = 2**24  # every whole number up to here is a float32


def select_best(
    writer: GraphWriter,
    padded: PaddedCandidates,
    kept_scores: ir.Value,
    spec: DetectorSpec,
) -> dict[str, ir.Value]:
    """Gather the best kept candidates into K rows and pad.

    Args:
        writer: the graph to append to.
        padded: boxes and scores.
        kept_scores: float32 ``[N, B + P, NC]``, 0 where suppressed.
        spec: the detector.

    Returns:
        The contract's outputs by name, in its order; padded rows hold boxes 0, score 0, class -1, anchor -1.
    """
    num_classes, num_slots = spec.competing_classes, spec.num_boxes + padded.padding
    class_first = spec.suppression.class_first and num_classes > 1
    if class_first:
        kept_scores = writer.op("Transpose", [kept_scores], "head/kept_scores_by_class", perm=[0, 2, 1])
    scores, indices = _sort_candidates(writer, kept_scores, num_slots * num_classes, spec)
    zero = writer.constant(np.float32(0), "head/padded_score")
    valid = writer.op("Greater", [scores, zero], "head/is_valid")
    count = writer.op("Cast", [valid], "head/valid_as_int", to=ir.DataType.INT32)

    anchors, classes = indices, None
    if num_classes > 1:
        width = num_slots if class_first else num_classes
        divisor = writer.constant(np.int64(width), "head/num_boxes" if class_first else "head/num_classes")
        names = (
            ("head/row_classes", "head/row_anchors")
            if class_first
            else ("head/row_anchors", "head/row_classes")
        )
        parts = [
            writer.op(op, [indices, divisor], name) for op, name in zip(("Div", "Mod"), names, strict=True)
        ]
        anchors, classes = parts[::-1] if class_first else parts
    if padded.own_classes is not None:
        classes = _gather_classes(writer, padded.own_classes, anchors, valid)
    row_axis = writer.constant(np.array([1], np.int64), "head/row_axis")
    num_detections = writer.op("ReduceSum", [count, row_axis], "num_detections", keepdims=0)
    picks = _row_sources(writer, padded, anchors, valid, spec)
    found = {
        "num_detections": num_detections,
        "detection_boxes": _gather_boxes(writer, padded, picks, spec),
        "detection_scores": scores,
        "detection_classes": _class_or_minus_one(writer, classes, valid, count),
        "detection_anchors": _index_or_minus_one(writer, anchors, valid, "detection_anchors"),
    }
    if padded.keypoints is not None:
        of_rows = writer.op("GatherND", [padded.keypoints, picks], "head/row_keypoints", batch_dims=1)
        sizes = [-1, spec.thresholds.max_detections, keypoints_of(spec.head), 2]
        shape = writer.constant(np.array(sizes, np.int64), "head/keypoints_shape")
        found["detection_keypoints"] = writer.op("Reshape", [of_rows, shape], "detection_keypoints")
    return found


def _sort_candidates(
    writer: GraphWriter, kept_scores: ir.Value, num_slots: int, spec: DetectorSpec
) -> tuple[ir.Value, ir.Value]:
    """The K best scores and their flattened (box, class) indices, ``[N, K]`` each.

    At most K candidates per class are kept (suppress sees to it), so no tie is cut off before it is settled.
    """
    num_rows = spec.thresholds.max_detections
    at_most_kept = min(num_slots, max(2, num_rows * spec.competing_classes), MAX_CANDIDATES)
    flat_shape = writer.constant(np.array([-1, num_slots], np.int64), "head/flat_shape")
    flat = writer.op("Reshape", [kept_scores, flat_shape], "head/kept_scores_flat")
    limit = writer.constant(np.array([at_most_kept], np.int64), "head/max_kept")
    by_score, slots = writer.ops("TopK", [flat, limit], ["head/sorted_scores", "head/sorted_slots"], axis=1)

    dtype = _key_dtype(num_slots, num_rows, at_most_kept)
    width = writer.constant(dtype.type(num_slots), "head/num_slots")
    rank = _rank_distinct(writer, by_score, at_most_kept, num_rows, dtype)
    own = slots if dtype == np.int64 else writer.op("Cast", [slots], "head/slots_float", to=ir.DataType.FLOAT)
    keys = writer.op("Add", [writer.op("Mul", [rank, width], "head/scaled_rank"), own], "head/unique_keys")
    rows = writer.constant(np.array([num_rows], np.int64), "head/num_rows")
    row_keys = writer.ops("TopK", [keys, rows], ["head/row_keys", "head/row_order"], axis=1, largest=0)[0]
    if dtype != np.int64:
        row_keys = writer.op("Cast", [row_keys], "head/row_keys_int64", to=ir.DataType.INT64)
    divisor = width if dtype == np.int64 else writer.constant(np.int64(num_slots), "head/num_slots_int64")
    scores = _cut(writer, by_score, 0, num_rows, "detection_scores")
    return scores, writer.op("Mod", [row_keys, divisor], "head/row_slots")


def _key_dtype(num_slots: int, num_rows: int, at_most_kept: int) -> np.dtype[np.float32 | np.int64]:
    """float32 where it holds every key exactly, else int64."""
    ranks = min(at_most_kept, num_rows + 1)
    return np.dtype(np.float32 if ranks * num_slots <= FLOAT32_COUNTS_TO else np.int64)


def _rank_distinct(
    writer: GraphWriter, falling: ir.Value, length: int, num_rows: int, dtype: np.dtype[np.float32 | np.int64]
) -> ir.Value:
    """Rank falling float32 ``[N, length >= 2]``, best 0, equal values alike, ``num_rows`` at most: ``[N, length]``."""
    before = _cut(writer, falling, 0, length - 1, "head/scores_before")
    after = _cut(writer, falling, 1, length, "head/scores_after")
    drops = writer.op("Greater", [before, after], "head/score_drops")
    steps = writer.op("Cast", [drops], "head/score_steps", to=ir.DataType.from_numpy(dtype))
    pads = writer.constant(np.array([0, 1, 0, 0], np.int64), "head/rank_pads")
    best = writer.constant(dtype.type(0), "head/best_rank")
    padded = writer.op("Pad", [steps, pads, best], "head/score_steps_from_best")
    rank = writer.op("CumSum", [padded, writer.constant(np.int64(1), "head/rank_axis")], "head/rank")
    if length <= num_rows + 1:
        return rank
    return writer.op(
        "Min", [rank, writer.constant(dtype.type(num_rows), "head/first_rank_left_out")], "head/rank_of_row"
    )


def _cut(writer: GraphWriter, value: ir.Value, start: int, stop: int, name: str) -> ir.Value:
    """Columns ``start..stop - 1`` of a ``[N, length]`` value."""
    bounds = [
        writer.constant(np.array([number], np.int64), f"{name}:{role}")
        for role, number in (("start", start), ("stop", stop), ("axis", 1))
    ]
    return writer.op("Slice", [value, *bounds], name)


def _row_sources(
    writer: GraphWriter, padded: PaddedCandidates, anchors: ir.Value, valid: ir.Value, spec: DetectorSpec
) -> ir.Value:
    """The box of each row, ``[N, K, 1]``; padded rows take the sentinel."""
    sentinel = writer.constant(np.int64(spec.num_boxes + padded.padding - 1), "head/sentinel_index")
    sources = writer.op("Where", [valid, anchors, sentinel], "head/row_sources")
    last_axis = writer.constant(np.array([2], np.int64), "head/index_axis")
    return writer.op("Unsqueeze", [sources, last_axis], "head/row_source_indices")


def _gather_boxes(
    writer: GraphWriter, padded: PaddedCandidates, picks: ir.Value, spec: DetectorSpec
) -> ir.Value:
    """The rows' boxes, ``[N, K, 4]``; that of the sentinel is 0."""
    if not spec.suppression.unclipped:
        return writer.op("GatherND", [padded.boxes, picks], "detection_boxes", batch_dims=1)
    unclipped = writer.op("GatherND", [padded.boxes, picks], "head/row_boxes_unclipped", batch_dims=1)
    return clip_nodes(writer, unclipped, "detection_boxes")


def _gather_classes(
    writer: GraphWriter, own_classes: ir.Value, anchors: ir.Value, valid: ir.Value
) -> ir.Value:
    """The rows' classes where each box has one, ``[N, K]``; padded rows gather that of box 0."""
    first = writer.constant(np.int64(0), "head/first_box")
    boxes = writer.op("Where", [valid, anchors, first], "head/row_boxes")
    axis = writer.constant(np.array([2], np.int64), "head/class_axis")
    flat = writer.op("Squeeze", [own_classes, axis], "head/classes_of_boxes")
    return writer.op("GatherElements", [flat, boxes], "head/row_classes", axis=1)


def _class_or_minus_one(
    writer: GraphWriter, classes: ir.Value | None, valid: ir.Value, count: ir.Value
) -> ir.Value:
    """The rows' classes, int32 ``[N, K]``; with one class, 0 or -1 is what the validity says, less 1."""
    if classes is not None:
        return _index_or_minus_one(writer, classes, valid, "detection_classes")
    return writer.op("Sub", [count, writer.constant(np.int32(1), "head/one_class")], "detection_classes")


def _index_or_minus_one(writer: GraphWriter, indices: ir.Value, valid: ir.Value, name: str) -> ir.Value:
    """``indices`` as int32, -1 in padded rows."""
    minus_one = writer.constant(np.int64(-1), f"{name}:padding")
    masked = writer.op("Where", [valid, indices, minus_one], f"{name}:int64")
    return writer.op("Cast", [masked], name, to=ir.DataType.INT32)
