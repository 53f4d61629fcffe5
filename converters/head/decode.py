"""YOLO v2 arithmetic as ONNX nodes: raw head -> boxes and scores. Each function's twin is in xdet/decode.py.

Flatten order is row, column, anchor; per anchor tx, ty, tw, th, objectness, class logits. B is the number
of boxes per image, NC of classes. Logits of any finite size are safe: an overflowing ``Exp`` is infinity,
and clips to the border.

The sigmoid is written out as ``1 / (1 + exp(-x))``. ONNX Runtime's ``Sigmoid`` is a rational
approximation with an absolute error of 1.4e-7 that is *not monotone* beyond 7 either side of 0 (measured,
1.32): the better of two logits could get the lower score, and every runtime would rank its own way.
Written out it is monotone and within 4 units in the last place on ONNX Runtime, OpenVINO and numpy alike,
for three small nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

    from converters.graph import GraphWriter
    from converters.spec import Anchors, DetectorSpec


def split_head(
    writer: GraphWriter, head_nhwc: ir.Value, spec: DetectorSpec
) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value | None]:
    """Flatten the head to boxes and cut it into its parts.

    Args:
        writer: the graph to append to.
        head_nhwc: float32 ``[N, grid_h, grid_w, A * (5 + NC)]``.
        spec: the detector.

    Returns:
        Raw xy ``[N, B, 2]``, wh ``[N, B, 2]``, objectness ``[N, B, 1]`` and class logits ``[N, B, NC]``; None
        for the logits of a single class.
    """
    num_classes = len(spec.class_names)
    shape = writer.constant(np.array([-1, spec.num_boxes, 5 + num_classes], np.int64), "head/rows_shape")
    rows = writer.op("Reshape", [head_nhwc, shape], "head/rows")
    sizes = writer.constant(np.array([2, 2, 1, num_classes], np.int64), "head/part_sizes")
    names = ["head/raw_xy", "head/raw_wh", "head/raw_objectness", "head/class_logits"]
    xy, wh, objectness, class_logits = writer.ops("Split", [rows, sizes], names, axis=2)
    return xy, wh, objectness, class_logits if num_classes > 1 else None


def decode_boxes(
    writer: GraphWriter, xy: ir.Value, wh: ir.Value, spec: DetectorSpec, anchors: Anchors
) -> ir.Value:
    """Turn raw offsets and sizes into boxes: ``(sigmoid(xy) + cell) / grid`` and ``exp(wh) * anchor``.

    Args:
        writer: the graph to append to.
        xy: float32 ``[N, B, 2]``, raw.
        wh: float32 ``[N, B, 2]``, raw.
        spec: the detector: its grid.
        anchors: its anchors.

    Returns:
        float32 ``[N, B, 4]``: x1, y1, x2, y2 as fractions of the image, clipped to 0..1.
    """
    fractions = np.array(anchors.in_image_fractions(spec.grid_h, spec.grid_w), np.float64)
    rows, columns = np.divmod(np.arange(spec.num_boxes) // len(fractions), spec.grid_w)
    cells_xy = np.stack([columns, rows], axis=-1).astype(np.float32)
    half_anchors_wh = np.tile(fractions / 2, (spec.grid_h * spec.grid_w, 1)).astype(np.float32)

    offsets = sigmoid(writer, xy, "head/offsets_xy")
    shifted = writer.op("Add", [offsets, writer.constant(cells_xy, "head/cells_xy")], "head/centers_xy_cells")
    grid = writer.constant(np.array([spec.grid_w, spec.grid_h], np.float32), "head/grid_wh")
    centers = writer.op("Div", [shifted, grid], "head/centers_xy")
    powers = writer.op("Exp", [wh], "head/anchor_multiples_wh")
    half_sizes = writer.op(
        "Mul", [powers, writer.constant(half_anchors_wh, "head/half_anchors_wh")], "head/half_sizes_wh"
    )
    corners = [
        writer.op("Sub", [centers, half_sizes], "head/top_left_xy"),
        writer.op("Add", [centers, half_sizes], "head/bottom_right_xy"),
    ]
    unclipped = writer.op("Concat", corners, "head/boxes_unclipped", axis=2)
    limits = [writer.constant(np.float32(0), "head/zero"), writer.constant(np.float32(1), "head/one")]
    return writer.op("Clip", [unclipped, *limits], "head/boxes")


def decode_scores(writer: GraphWriter, objectness: ir.Value, class_logits: ir.Value | None) -> ir.Value:
    """Score every class of every box: ``sigmoid(objectness) * softmax(class_logits)``.

    A single class has probability 1, exactly.

    Args:
        writer: the graph to append to.
        objectness: float32 ``[N, B, 1]``, raw.
        class_logits: float32 ``[N, B, NC]``, raw, or None for one class.

    Returns:
        float32 ``[N, B, NC]``, 0..1.
    """
    confidence = sigmoid(writer, objectness, "head/objectness")
    if class_logits is None:
        return confidence
    probabilities = writer.op("Softmax", [class_logits], "head/class_probabilities", axis=2)
    return writer.op("Mul", [confidence, probabilities], "head/scores")


def sigmoid(writer: GraphWriter, x: ir.Value, name: str) -> ir.Value:
    """``1 / (1 + exp(-x))`` in float32, 0..1, monotone; exactly 0 and 1 far out."""
    power = writer.op("Exp", [writer.op("Neg", [x], f"{name}:negated")], f"{name}:power")
    one = writer.constant(np.float32(1), f"{name}:one")
    return writer.op("Div", [one, writer.op("Add", [power, one], f"{name}:divisor")], name)
