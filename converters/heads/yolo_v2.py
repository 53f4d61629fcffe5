"""YOLO v2 arithmetic as ONNX nodes: raw head -> boxes and scores. Each function's twin is in converters/heads/oracle.py.

Flatten order is row, column, anchor; per anchor tx, ty, tw, th, objectness, class logits. B is the number
of boxes per image, NC of classes. Logits of any finite size are safe: an overflowing ``Exp`` is infinity,
and clips to the border.

The sigmoid is written out as ``1 / (1 + exp(-x))``. ONNX Runtime's ``Sigmoid`` is a rational
approximation with an absolute error of 1.4e-7 that is *not monotone* beyond 7 either side of 0 (measured,
1.32): the better of two logits could get the lower score, and every runtime would rank its own way.
Written out it is monotone and within 4 units in the last place on ONNX Runtime, OpenVINO and numpy alike,
for three small nodes.

The fused YOLO v2 head: raw head -> the five outputs of the model contract, version 1.

Standard operators only. Before: a float32 NHWC value. After: ``num_detections``, ``detection_boxes``, ``detection_scores``,
``detection_classes``, ``detection_anchors``, and the optional inputs ``score_threshold`` and
``iou_threshold``. Numeric effect: float32 rounding of ``Exp`` as the runtime does it; everything behind
is exact. The oracle is converters/heads/oracle.py.

What ties anchors and classes to a YOLO v2 head: ``channels = A * (5 + NC)``, A and NC at least 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from converters.errors import ContractError, OptionError
from converters.heads.base import default_class_names
from converters.heads.nms_nodes import limit_candidates, pad_candidates, select_best, suppress
from converters.spec import contract_io

if TYPE_CHECKING:
    from converters.facts import SourceFacts
    from converters.graph import GraphWriter
    from converters.spec import Anchors, ContractTensor, DetectorSpec


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


def add_yolo_v2_head(
    writer: GraphWriter, head_nhwc: ir.Value, spec: DetectorSpec, *, batch: int | str, freeze_thresholds: bool
) -> None:
    """Append the head's nodes, the optional threshold inputs, and the contract's outputs.

    Args:
        writer: the graph, whose input ``image`` exists already.
        head_nhwc: float32 ``[N, grid_h, grid_w, A * (5 + NC)]``.
        spec: the detector, with the default thresholds and K.
        batch: N, or the name of the dynamic dimension.
        freeze_thresholds: bake the thresholds in instead of declaring optional inputs.

    Raises:
        ContractError: the detector has no head to decode, the value is not its head, or the graph uses a name of
            the contract for something else.
    """
    anchors = _require_anchors(head_nhwc, spec)
    score_threshold = _add_threshold(
        writer, "score_threshold", spec.thresholds.score, frozen=freeze_thresholds
    )
    iou_threshold = _add_threshold(writer, "iou_threshold", spec.thresholds.iou, frozen=freeze_thresholds)

    xy, wh, objectness, class_logits = split_head(writer, head_nhwc, spec)
    boxes = decode_boxes(writer, xy, wh, spec, anchors)
    scores = limit_candidates(writer, decode_scores(writer, objectness, class_logits), spec)
    padded = pad_candidates(writer, boxes, scores, spec)
    kept_scores = suppress(writer, padded, score_threshold, iou_threshold, spec)
    rows = select_best(writer, padded, kept_scores, spec)
    for promised in contract_io(spec, batch, freeze_thresholds=freeze_thresholds)[1]:
        _add_output(writer, promised, rows[promised.name])


def _require_anchors(head_nhwc: ir.Value, spec: DetectorSpec) -> Anchors:
    """The detector's anchors; raises ContractError unless ``head_nhwc`` is a YOLO v2 head of this detector."""
    if spec.head != "yolo_v2" or spec.anchors is None:
        msg = f"this detector's head is {spec.head!r}: only 'yolo_v2' with anchors can be written as nodes"
        raise ContractError(msg)
    expected = (spec.grid_h, spec.grid_w, spec.head_channels)
    if head_nhwc.shape is not None and tuple(head_nhwc.shape.dims[1:]) != expected:
        wanted = ", ".join(map(str, expected))
        msg = f"the head {head_nhwc.name!r} is {head_nhwc.shape}, expected [N, {wanted}], NHWC"
        raise ContractError(msg)
    return spec.anchors


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


def fit_class_names(
    facts: SourceFacts, num_anchors: int, class_names: tuple[str, ...] | None
) -> tuple[str, ...]:
    """Check the names against the head, or make up as many as the head has classes.

    Raises:
        OptionError: no number of classes, or another one than was named, fits the head's channels.
    """
    channels = facts.head_channels
    if class_names is None:
        num_classes = channels // num_anchors - 5
        if channels % num_anchors or num_classes < 1:
            msg = (
                f"'{facts.file}': {_count(num_anchors, 'anchor', 'anchors')} x (5 + classes) cannot make "
                f"the head's {channels} channels; {describe_fit(channels)}: check --anchors"
            )
            raise OptionError(msg)
        return default_class_names(num_classes)
    made = num_anchors * (5 + len(class_names))
    if made != channels:
        msg = (
            f"'{facts.file}': {_count(num_anchors, 'anchor', 'anchors')} x (5 + "
            f"{_count(len(class_names), 'class', 'classes')}) = {made} channels, the head has {channels}; "
            f"{describe_fit(channels)}: check --anchors and --classes"
        )
        raise OptionError(msg)
    return class_names


def describe_fit(channels: int) -> str:
    """Which numbers of anchors and classes a head with so many channels can have, as part of a sentence."""
    fits = fitting_counts(channels)
    if not fits:
        return f"no anchors and classes make {channels} channels: no YOLO v2 head (--head none keeps it raw)"
    parts = [f"{_count(a, 'anchor', 'anchors')} with {_count(nc, 'class', 'classes')}" for a, nc in fits]
    return f"{channels} channels fit {' or '.join(parts)}"


def fitting_counts(channels: int) -> tuple[tuple[int, int], ...]:
    """All (anchors, classes) with ``anchors * (5 + classes) == channels``, fewest anchors first."""
    return tuple((a, channels // a - 5) for a in range(1, channels // 6 + 1) if channels % a == 0)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
