"""Planted faults: a finished model with one thing wrong, edited with onnx as a careless tool would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from numpy.typing import NDArray

Edit = Callable[[onnx.ModelProto], None]
CONV3 = "tiny_yolo_v2/bn3/FusedBatchNormV3;tiny_yolo_v2/conv3/Conv2D1"
LEAKY7 = "tiny_yolo_v2/leaky7/LeakyRelu"


def planted(model: bytes, edit: Edit) -> bytes:
    """The model's bytes after ``edit``."""
    proto = onnx.load_model_from_string(model)
    edit(proto)
    serialized: bytes = proto.SerializeToString()
    return serialized


def one_weight_byte(proto: onnx.ModelProto) -> None:
    def change(codes: NDArray[Any]) -> NDArray[Any]:
        flat = codes.reshape(-1).copy()
        flat[np.argmax(np.abs(flat))] ^= 0x40
        return flat.reshape(codes.shape)

    _edit_constant(proto, "tiny_yolo_v2/conv3/Conv2D/codes", change)


def one_bias(proto: onnx.ModelProto) -> None:
    name = "tiny_yolo_v2/bn4/FusedBatchNormV3;tiny_yolo_v2/conv4/Conv2D/codes"
    _edit_constant(proto, name, lambda codes: codes + np.eye(1, codes.size, 5, dtype=np.int32)[0] * 1000)


def scale_off_by_one_percent(proto: onnx.ModelProto) -> None:
    _edit_constant(proto, _operand(proto, CONV3, 1), lambda scale: scale * np.float32(1.01))


def weight_scale_off_by_one_percent(proto: onnx.ModelProto) -> None:
    def change(scales: NDArray[Any]) -> NDArray[Any]:
        changed = scales.copy()
        changed[7] *= np.float32(1.01)
        return changed

    _edit_constant(proto, "tiny_yolo_v2/conv2/Conv2D/dequantized/scale", change)


def zero_point_off_by_one(proto: onnx.ModelProto) -> None:
    _edit_constant(proto, _operand(proto, CONV3, 2), lambda zero: zero + np.uint8(1))


def zero_point_in_front_of_a_leaky_off_by_one(proto: onnx.ModelProto) -> None:
    """The scale there is not the source's, on purpose; the zero-point is, and is to blame."""
    dequantize = _node(proto, "tiny_yolo_v2/pool5/MaxPool/input")
    _edit_constant(proto, dequantize.input[2], lambda zero: zero + np.uint8(1))


def pool_pads_before(proto: onnx.ModelProto) -> None:
    (pool,) = [n for n in proto.graph.node if n.op_type == "MaxPool" and _ints(n, "strides") in ([1, 1], [])]
    (rule,) = [a for a in pool.attribute if a.name == "auto_pad"]
    rule.s = b"SAME_LOWER"


def convolution_pads_before(proto: onnx.ModelProto) -> None:
    conv = _node(proto, f"{CONV3}/float")
    (pads,) = [a for a in conv.attribute if a.name == "pads"]
    pads.ints[:] = [2, 2, 0, 0]


def slope_of_darknet(proto: onnx.ModelProto) -> None:
    leaky = _node(proto, f"{LEAKY7}/float")
    (alpha,) = [a for a in leaky.attribute if a.name == "alpha"]
    alpha.f = 0.1


def float_convolution(proto: onnx.ModelProto) -> None:
    """The weights folded to float, as optimisers of float graphs do."""
    conv = _node(proto, f"{CONV3}/float")
    (dequantize,) = [n for n in proto.graph.node if n.output[0] == conv.input[1]]
    codes, scale = (_array(proto, name) for name in dequantize.input[:2])
    weights = codes.astype(np.float32) * scale.reshape(-1, 1, 1, 1)
    proto.graph.initializer.append(numpy_helper.from_array(weights, "folded"))
    proto.graph.node.remove(dequantize)
    conv.input[1] = "folded"


def blue_and_red_exchanged(proto: onnx.ModelProto) -> None:
    order = numpy_helper.from_array(np.array([2, 1, 0]), "bgr")
    proto.graph.initializer.append(order)
    for node in proto.graph.node:
        for position, name in enumerate(node.input):
            if name == "image":
                node.input[position] = "image_bgr"
    proto.graph.node.insert(0, helper.make_node("Gather", ["image", "bgr"], ["image_bgr"], axis=3))


def defaults_exchanged(proto: onnx.ModelProto) -> None:
    score, iou = (_array(proto, name) for name in ("score_threshold", "iou_threshold"))
    _edit_constant(proto, "score_threshold", lambda _: iou)
    _edit_constant(proto, "iou_threshold", lambda _: score)


def wires_exchanged(proto: onnx.ModelProto) -> None:
    other = {"score_threshold": "iou_threshold", "iou_threshold": "score_threshold"}
    for node in proto.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = other.get(name, name)


def anchors_of_the_graph_in_another_unit(proto: onnx.ModelProto) -> None:
    """The decoder's numbers are those of a conversion that took cells for fractions; the document is left alone."""
    _edit_constant(proto, "head/half_anchors_wh", lambda sizes: sizes * np.float32(7))


def suppression_at_equality(proto: onnx.ModelProto) -> None:
    """``>=`` for ``>``: the IoU threshold of the suppression is the float32 below the one that was asked for."""
    _lower(proto, "iou_threshold:vector")


def scores_at_equality(proto: onnx.ModelProto) -> None:
    """``>=`` for ``>``: the score threshold, likewise."""
    _lower(proto, "score_threshold:vector")


def ties_in_reverse(proto: onnx.ModelProto) -> None:
    """Rows of equal score stand by falling index: the sort's keys hold the last index minus the index."""
    width = _array(proto, "head/num_slots")
    last_key = numpy_helper.from_array(width - width.dtype.type(1), "last_key")
    last_slot = numpy_helper.from_array(width.astype(np.int64) - 1, "last_slot")
    proto.graph.initializer.extend([last_key, last_slot])
    _insert_before(proto, "head/unique_keys", 1, "Sub", ["last_key", None])
    _insert_behind(proto, "head/row_slots", "Sub", ["last_slot", None])


def worse_box_suppresses(proto: onnx.ModelProto) -> None:
    """The suppression sees the indices of equal scores from behind: boxes and scores go in reversed."""
    (suppression,) = [n for n in proto.graph.node if n.op_type == "NonMaxSuppression"]
    count = int(_array(proto, "head/box_indices").shape[0])
    backwards = numpy_helper.from_array(np.arange(count)[::-1].copy(), "backwards")
    back = numpy_helper.from_array(np.array([0, 0, count - 1]), "last_box")
    sign = numpy_helper.from_array(np.array([1, 1, -1]), "mirrored")
    proto.graph.initializer.extend([backwards, back, sign])
    name = suppression.output[0]
    _insert_before(proto, name, 0, "Gather", [None, "backwards"], axis=1)
    _insert_before(proto, name, 1, "Gather", [None, "backwards"], axis=2)
    _insert_behind(proto, name, "Add", [None, "last_box"])
    _insert_behind(proto, name, "Mul", [None, "mirrored"])  # between the two


def one_row_less(proto: onnx.ModelProto) -> None:
    """The limit of boxes per class is off by one."""
    _edit_constant(proto, "head/max_boxes_per_class", lambda limit: limit - 1)


def only_the_best_class(proto: onnx.ModelProto) -> None:
    """A box has no class but its best: decoders that take the argmax first."""
    best = helper.make_node("ReduceMax", ["head/scores"], ["best_score"], axes=[2], keepdims=1)
    is_best = helper.make_node("Equal", ["head/scores", "best_score"], ["is_best"])
    _insert_behind(proto, "head/scores", "Where", ["is_best", None, "head/zero"], before=[best, is_best])


def classes_reversed(proto: onnx.ModelProto) -> None:
    """Class 0 is told as the last one, and the other way round."""
    last = numpy_helper.from_array(_array(proto, "head/num_classes") - 1, "last_class")
    proto.graph.initializer.append(last)
    _insert_behind(proto, "head/row_classes", "Sub", ["last_class", None])


def boxes_unclipped(proto: onnx.ModelProto) -> None:
    """Boxes reach over the picture's edge."""
    _edit_constant(proto, "head/zero", lambda zero: zero - np.float32(1000))
    _edit_constant(proto, "head/one", lambda one: one + np.float32(1000))


def _lower(proto: onnx.ModelProto, name: str) -> None:
    """The float32 below: 1 - 2^-24 rounds every product down by one unit in the last place."""
    below = numpy_helper.from_array(np.array([1 - 2**-24], np.float32), f"{name}/below")
    proto.graph.initializer.append(below)
    _insert_behind(proto, name, "Mul", [None, f"{name}/below"])


def _insert_before(
    proto: onnx.ModelProto, output: str, position: int, op: str, inputs: list[str | None], **attributes: Any
) -> None:
    """Put a node between an operand and the node that computes ``output``; None among ``inputs`` is the operand."""
    (index,) = [i for i, node in enumerate(proto.graph.node) if output in node.output]
    node = proto.graph.node[index]
    operand, name = node.input[position], f"{output}/planted/{position}"
    node.input[position] = name
    planted = helper.make_node(op, [operand if i is None else i for i in inputs], [name], **attributes)
    proto.graph.node.insert(index, planted)


def _insert_behind(
    proto: onnx.ModelProto, output: str, op: str, inputs: list[str | None], *, before: Sequence[onnx.NodeProto] = ()
) -> None:
    """Put a node, and others in front of it, behind ``output``, for all readers; None in ``inputs`` is the value."""
    (index,) = [i for i, node in enumerate(proto.graph.node) if output in node.output]
    name = f"{output}/planted/{op}"
    for node in proto.graph.node:
        node.input[:] = [name if i == output else i for i in node.input]
    planted = helper.make_node(op, [output if i is None else i for i in inputs], [name])
    for position, node in enumerate([*before, planted]):
        proto.graph.node.insert(index + 1 + position, node)


def _edit_constant(proto: onnx.ModelProto, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    (tensor,) = [t for t in proto.graph.initializer if t.name == name]
    before = numpy_helper.to_array(tensor)
    after = np.asarray(change(before))
    assert after.dtype == before.dtype
    assert after.shape == before.shape
    tensor.CopyFrom(numpy_helper.from_array(after, name))


def _array(proto: onnx.ModelProto, name: str) -> NDArray[Any]:
    (tensor,) = [t for t in proto.graph.initializer if t.name == name]
    return np.asarray(numpy_helper.to_array(tensor))


def _node(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    node: onnx.NodeProto
    (node,) = [n for n in proto.graph.node if n.name == name]
    return node


def _operand(proto: onnx.ModelProto, name: str, position: int) -> str:
    return str(_node(proto, name).input[position])


def _ints(node: onnx.NodeProto, name: str) -> list[int]:
    return [i for a in node.attribute if a.name == name for i in a.ints]
