"""The fused YOLO v2 head: raw head -> the five outputs of the model contract, version 1.

Standard operators only. Before: a float32 NHWC value. After: ``num_detections``, ``detection_boxes``, ``detection_scores``,
``detection_classes``, ``detection_anchors``, and the optional inputs ``score_threshold`` and
``iou_threshold``. Numeric effect: float32 rounding of ``Exp`` as the runtime does it; everything behind
is exact. The oracle is xdet/decode.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from converters.errors import ContractError
from converters.head.decode import decode_boxes, decode_scores, split_head
from converters.head.select import select_best
from converters.head.suppress import limit_candidates, pad_candidates, suppress
from converters.spec import contract_io

if TYPE_CHECKING:
    from converters.graph import GraphWriter
    from converters.spec import Anchors, ContractTensor, DetectorSpec


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
