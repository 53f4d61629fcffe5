"""The last step as ONNX nodes: kept scores -> K sorted, padded rows.

Rows are ordered by score, ties by lower (box, class) index. ONNX asks ``TopK`` for exactly that, but
OpenVINO's breaks ties in any order (measured, 2026.4), and int8 heads tie often. So ties are settled by a
second ``TopK``, over keys that are unique: a candidate's rank among the *distinct* scores, times the
number of candidates, plus its index, which comes back as the key's remainder. Numeric effect: none.

Keys are float32, because some runtimes sort nothing else, and exact: they are whole numbers below 2^24. K rows hold no
rank of K or above, so all these ranks may be one. Only above 2^24 / (K + 1) candidates keys are int64, then below 2^31 up
to half a million candidates, for runtimes that compute int64 in int32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from converters.spec import MAX_CANDIDATES

FLOAT32_COUNTS_TO = 2**24  # every whole number up to here is a float32

if TYPE_CHECKING:
    from converters.graph import GraphWriter
    from converters.head.suppress import PaddedCandidates
    from converters.spec import DetectorSpec


def select_best(
    writer: GraphWriter, padded: PaddedCandidates, kept_scores: ir.Value, spec: DetectorSpec
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
    num_classes = len(spec.class_names)
    scores, indices = _sort_candidates(
        writer, kept_scores, (spec.num_boxes + padded.padding) * num_classes, spec
    )
    zero = writer.constant(np.float32(0), "head/padded_score")
    valid = writer.op("Greater", [scores, zero], "head/is_valid")
    count = writer.op("Cast", [valid], "head/valid_as_int", to=ir.DataType.INT32)

    anchors, classes = indices, None
    if num_classes > 1:
        divisor = writer.constant(np.int64(num_classes), "head/num_classes")
        anchors = writer.op("Div", [indices, divisor], "head/row_anchors")
        classes = writer.op("Mod", [indices, divisor], "head/row_classes")
    row_axis = writer.constant(np.array([1], np.int64), "head/row_axis")
    return {
        "num_detections": writer.op("ReduceSum", [count, row_axis], "num_detections", keepdims=0),
        "detection_boxes": _gather_boxes(writer, padded, anchors, valid, spec),
        "detection_scores": scores,
        "detection_classes": _class_or_minus_one(writer, classes, valid, count),
        "detection_anchors": _index_or_minus_one(writer, anchors, valid, "detection_anchors"),
    }


def _sort_candidates(
    writer: GraphWriter, kept_scores: ir.Value, num_slots: int, spec: DetectorSpec
) -> tuple[ir.Value, ir.Value]:
    """The K best scores and their flattened (box, class) indices, ``[N, K]`` each.

    At most K candidates per class are kept (suppress sees to it), so no tie is cut off before it is settled.
    """
    num_rows = spec.thresholds.max_detections
    at_most_kept = min(num_slots, max(2, num_rows * len(spec.class_names)), MAX_CANDIDATES)
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


def _gather_boxes(
    writer: GraphWriter, padded: PaddedCandidates, anchors: ir.Value, valid: ir.Value, spec: DetectorSpec
) -> ir.Value:
    """The rows' boxes, ``[N, K, 4]``; padded rows gather the sentinel, whose box is 0."""
    sentinel = writer.constant(np.int64(spec.num_boxes + padded.padding - 1), "head/sentinel_index")
    sources = writer.op("Where", [valid, anchors, sentinel], "head/row_sources")
    last_axis = writer.constant(np.array([2], np.int64), "head/index_axis")
    picks = writer.op("Unsqueeze", [sources, last_axis], "head/row_source_indices")
    return writer.op("GatherND", [padded.boxes, picks], "detection_boxes", batch_dims=1)


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
