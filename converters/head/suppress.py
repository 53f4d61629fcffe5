"""Class-aware suppression as ONNX nodes: boxes and scores -> scores of the boxes that stay.

``NonMaxSuppression`` returns as many rows as it likes: none at all, or some runtimes' padding of -1.
Nothing here trusts that number, or the order of the rows. Behind the B real boxes stands a *sentinel* of
no area, with a score above every threshold, so that at least one row per class always comes back; the
rows are scattered into a table over all candidates, in which the sentinel's slot (where an index of -1
lands, too) counts for nothing. Numeric effect: none, scores pass unchanged.

The score threshold is applied before: scores that are not above it become 0, and ``NonMaxSuppression`` gets the constant
threshold 0, the one that every runtime takes. So no candidate that does not count uses up a place or a comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from converters.graph import GraphWriter
    from converters.spec import DetectorSpec

SENTINEL_SCORE = 2.0  # above every score threshold, which lie in 0..1
NOT_A_BOX = -2  # equals no box index, and not the -1 of padding


@dataclass(frozen=True, slots=True)
class PaddedCandidates:
    """Boxes and scores with padding behind them, the sentinel last.

    Attributes:
        boxes: float32 ``[N, B + P, 4]``; padding is 0.
        scores: float32 ``[N, B + P, NC]``; padding is 0, the last row ``SENTINEL_SCORE``.
        padding: P >= 1, and large enough that a TopK can take K.
    """

    boxes: ir.Value
    scores: ir.Value
    padding: int


def limit_candidates(writer: GraphWriter, scores: ir.Value, spec: DetectorSpec) -> ir.Value:
    """Let only the best ``spec.num_candidates`` scores through; others become 0, which no threshold admits.

    No nodes at all where every (box, class) pair is a candidate.

    Args:
        writer: the graph to append to.
        scores: float32 ``[N, B, NC]``.
        spec: the detector.

    Returns:
        float32 ``[N, B, NC]``; of equal scores at the limit the lower (box, class) index goes through, where the runtime's
        TopK breaks ties as ONNX says.
    """
    total = spec.num_boxes * len(spec.class_names)
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
        np.array([-1, spec.num_boxes, len(spec.class_names)], np.int64), "head/scores_shape"
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
    rows_needed = -(-spec.thresholds.max_detections // len(spec.class_names))
    padding = max(1, rows_needed - spec.num_boxes)
    if padding > 1:
        scores = _append_boxes(writer, scores, padding - 1, 0.0, "head/scores_filled_up")
    return PaddedCandidates(
        boxes=_append_boxes(writer, boxes, padding, 0.0, "head/boxes_and_sentinel"),
        scores=_append_boxes(writer, scores, 1, SENTINEL_SCORE, "head/scores_and_sentinel"),
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
    cap = writer.constant(
        np.array([spec.thresholds.max_detections + 1], np.int64), "head/max_boxes_per_class"
    )
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
