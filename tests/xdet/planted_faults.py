"""Faults to plant into a finished model's graph: each a function that edits it in place, named after the fault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def edited(model_bytes: bytes, edit: Callable[[onnx.GraphProto], None]) -> bytes:
    """The model with one fault."""
    model = onnx.load_from_string(model_bytes)
    edit(model.graph)
    return bytes(model.SerializeToString())


def constant(graph: onnx.GraphProto, wanted: Callable[[np.ndarray[Any, Any], str], bool]) -> onnx.TensorProto:
    tensors: Iterable[onnx.TensorProto] = graph.initializer
    return next(tensor for tensor in tensors if wanted(numpy_helper.to_array(tensor), tensor.name))


def change(tensor: onnx.TensorProto, new: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> None:
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(new(array.copy()).astype(array.dtype), tensor.name))


def one_weight(graph: onnx.GraphProto) -> None:
    """The sign bit of one weight of the fifth convolution's first channel."""

    def flip(weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        flat = weights.reshape(-1)
        flat[np.argmax(np.abs(flat))] *= -1
        return weights

    change(constant(graph, lambda a, _: a.dtype == np.int8 and a.shape == (256, 128, 3, 3)), flip)


def one_scale(graph: onnx.GraphProto) -> None:
    """One percent on the scale behind the third convolution, on both sides."""
    node = convolution(graph, 2)
    (quantize,) = [n for n in graph.node if n.input[:1] == [node.output[0]]]
    change(constant(graph, lambda _, name: name == quantize.input[1]), lambda a: a * np.float32(1.01))


def one_zero_point(graph: onnx.GraphProto) -> None:
    node = convolution(graph, 2)
    (quantize,) = [n for n in graph.node if n.input[:1] == [node.output[0]]]
    change(constant(graph, lambda _, name: name == quantize.input[2]), lambda a: a + 1)


def padding_on_the_other_side(graph: onnx.GraphProto) -> None:
    node = convolution(graph, 0)
    (pads,) = [a for a in node.attribute if a.name == "pads"]
    assert list(pads.ints) == [1, 1, 1, 1]
    pads.ints[:] = [2, 2, 0, 0]


def another_slope(graph: onnx.GraphProto) -> None:
    node = next(n for n in graph.node if n.op_type == "LeakyRelu")
    node.attribute[0].f = 0.1


def red_and_blue_swapped(graph: onnx.GraphProto) -> None:
    change(constant(graph, lambda a, _: a.shape == (16, 3, 3, 3)), lambda a: a[:, ::-1])


def convolution(graph: onnx.GraphProto, index: int) -> onnx.NodeProto:
    nodes: Iterable[onnx.NodeProto] = graph.node
    return [node for node in nodes if node.op_type == "Conv"][index]


def stripped_quantisation(graph: onnx.GraphProto) -> None:
    """What tools for float graphs do: every QuantizeLinear -> DequantizeLinear pair of activations is taken out."""
    quantized = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    renamed = {
        node.output[0]: quantized[node.input[0]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in quantized
    }
    kept = [n for n in graph.node if n.output[0] not in renamed and n.op_type != "QuantizeLinear"]
    for node in kept:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    del graph.node[:]
    graph.node.extend(kept)
