"""Planted faults for models of ``make_keras_models``, edited as a careless tool would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import onnx
    from numpy.typing import NDArray

CONV2 = "net/conv2/BiasAdd/Conv"  # the third convolution's value, behind a folded ZeroPadding2D


def one_weight(proto: onnx.ModelProto) -> None:
    """One code, or one part in 100,000 of one float."""

    def change(weights: NDArray[Any]) -> NDArray[Any]:
        flat = weights.reshape(-1).copy()
        place = np.argmax(np.abs(flat))
        flat[place] = flat[place] * np.float32(1 + 1e-5) if flat.dtype == np.float32 else flat[place] // 2
        return flat.reshape(weights.shape)

    edit(proto, constant_of(proto, CONV2, 1), change)


def one_bias(proto: onnx.ModelProto) -> None:
    def change(bias: NDArray[Any]) -> NDArray[Any]:
        step = 1e-4 if bias.dtype == np.float32 else 2
        return np.asarray(bias + np.eye(1, bias.size, 5)[0] * step)

    edit(proto, constant_of(proto, CONV2, 2), change)


def weight_scale(proto: onnx.ModelProto) -> None:
    """One percent on the last channel's, or the only one."""

    def change(scales: NDArray[Any]) -> NDArray[Any]:
        changed = scales.copy()
        changed.reshape(-1)[-1] *= np.float32(1.01)
        return changed

    edit(proto, writer(proto, convolution(proto, CONV2).input[1]).input[1], change)


def bias_scale(proto: onnx.ModelProto) -> None:
    edit(proto, writer(proto, convolution(proto, CONV2).input[2]).input[1], lambda s: s * np.float32(1.01))


def activation_scale(proto: onnx.ModelProto) -> None:
    edit(proto, writer(proto, convolution(proto, CONV2).input[0]).input[1], lambda s: s * np.float32(1.01))


def pixel_scale(proto: onnx.ModelProto) -> None:
    edit(proto, writer(proto, convolution(proto, FIRST).input[0]).input[1], lambda s: s * np.float32(1.01))


def zero_point(proto: onnx.ModelProto) -> None:
    edit(proto, writer(proto, convolution(proto, CONV2).input[0]).input[2], lambda zero: zero + 1)


def padding_before(proto: onnx.ModelProto) -> None:
    """The odd pixel of a strided convolution on the wrong side."""
    (pads,) = [a for a in convolution(proto, CONV2).attribute if a.name == "pads"]
    assert list(pads.ints) == [0, 0, 1, 1]
    pads.ints[:] = [1, 1, 0, 0]


def pool_before(proto: onnx.ModelProto) -> None:
    pools = [n for n in proto.graph.node if n.op_type == "MaxPool"]
    (rule,) = [a for a in pools[-1].attribute if a.name == "auto_pad"]
    assert rule.s == b"SAME_UPPER"
    rule.s = b"SAME_LOWER"


def strides(proto: onnx.ModelProto) -> None:
    (found,) = [a for a in convolution(proto, CONV2).attribute if a.name == "strides"]
    found.ints[:] = [1, 1]


def slope(proto: onnx.ModelProto) -> None:
    """Darknet's 0.1 where Keras means 0.2; a sum's two scales so that it, too, has that slope."""
    leaky = [n for n in proto.graph.node if n.op_type == "LeakyRelu"]
    if leaky:
        leaky[-1].attribute[0].f = 0.1
        return
    add = [n for n in proto.graph.node if n.op_type == "Add" and n.name.endswith("/sum")][-1]
    whole, excess = (writer(proto, name).input[1] for name in add.input)
    total = array(proto, whole) + array(proto, excess)
    edit(proto, whole, lambda _: total * np.float32(0.1))
    edit(proto, excess, lambda _: total * np.float32(0.9))


def limit(proto: onnx.ModelProto) -> None:
    """ReLU6 becomes ReLU5."""
    (clip,) = [n for n in proto.graph.node if n.op_type == "Clip" and n.name.startswith("net/")]
    edit(proto, clip.input[2], lambda _: np.float32(5))


def range_below_zero(proto: onnx.ModelProto) -> None:
    """A ReLU without a node whose codes reach below zero: every scale and zero-point of it agrees."""
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and RELU in (node.input[0], node.output[0]):
            edit(proto, node.input[2], lambda _: np.uint8(9))


def colours_of_the_kernel(proto: onnx.ModelProto) -> None:
    edit(proto, constant_of(proto, FIRST, 1), lambda w: np.ascontiguousarray(w[:, ::-1]))


def rescaling(proto: onnx.ModelProto) -> None:
    edit(proto, "rescaling/scale", lambda s: s * 2)


def left_out(proto: onnx.ModelProto) -> None:
    """The last LeakyRelu is bypassed."""
    leaky = [n for n in proto.graph.node if n.op_type == "LeakyRelu"][-1]
    for node in proto.graph.node:
        node.input[:] = [leaky.input[0] if name == leaky.output[0] else name for name in node.input]


def anchors_in_another_unit(proto: onnx.ModelProto) -> None:
    """The decoder's numbers are those of a conversion that took cells for fractions; the grid has 8."""
    edit(proto, "head/half_anchors_wh", lambda sizes: sizes * np.float32(8))


def float_convolution(proto: onnx.ModelProto) -> None:
    """The weights folded to float, as optimisers of float graphs do."""
    conv = convolution(proto, CONV2)
    dequantize = writer(proto, conv.input[1])
    codes, scale = (array(proto, name) for name in dequantize.input[:2])
    folded = codes.astype(np.float32) * scale.reshape(-1, 1, 1, 1)
    proto.graph.initializer.append(numpy_helper.from_array(folded, "folded"))
    proto.graph.node.remove(dequantize)
    conv.input[1] = "folded"


FIRST = "net/bn1/FusedBatchNormV3"
RELU = "net/pointwise/Relu"


def edit(proto: onnx.ModelProto, name: str, change: Callable[[NDArray[Any]], Any]) -> None:
    (tensor,) = [t for t in proto.graph.initializer if t.name == name]
    before = numpy_helper.to_array(tensor)
    after = np.asarray(change(before)).astype(before.dtype)
    assert after.shape == before.shape
    assert (after != before).any()
    tensor.CopyFrom(numpy_helper.from_array(after, name))


def array(proto: onnx.ModelProto, name: str) -> NDArray[Any]:
    (tensor,) = [t for t in proto.graph.initializer if t.name == name]
    return np.asarray(numpy_helper.to_array(tensor))


def writer(proto: onnx.ModelProto, value: str) -> onnx.NodeProto:
    nodes: Iterable[onnx.NodeProto] = proto.graph.node
    return next(node for node in nodes if value in node.output)


def convolution(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """The convolution behind a value, in a float model or a quantised one."""
    nodes: Iterable[onnx.NodeProto] = proto.graph.node
    return next(node for node in nodes if node.op_type == "Conv" and node.name in (name, f"{name}/float"))


def constant_of(proto: onnx.ModelProto, name: str, position: int) -> str:
    """The initialiser of an operand, in front of its DequantizeLinear if it has one."""
    operand = convolution(proto, name).input[position]
    stored = {tensor.name for tensor in proto.graph.initializer}
    return str(operand if operand in stored else writer(proto, operand).input[0])
