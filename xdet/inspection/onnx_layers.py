"""The layers of an ONNX network. Quantised operators are read as one layer with the Q and DQ nodes around them.

Before -> after: DequantizeLinear on everything that is not constant, an operator, QuantizeLinear on everything it gives ->
one layer that reads codes and writes codes, as integer kernels run it. A DequantizeLinear whose value goes elsewhere, too,
stays a layer of its own. Nodes that only compute constants are no layers.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xdet.inspection.layers import Layer, TensorSummary
from xdet.inspection.memory import Buffer, Network, Step
from xdet.model.graph import INTEGER_OPERATORS, WEIGHT_INPUT, attribute, node_macs, shape_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from xdet.inspection.memory import StepKind
    from xdet.model.graph import OnnxGraph

DQ, Q = "DequantizeLinear", "QuantizeLinear"
CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "QLinearConv"})
POOLS = frozenset({"AveragePool", "MaxPool"})
# fmt: off
ELEMENTWISE = frozenset({
    "Abs", "Add", "Cast", "Clip", DQ, "Div", "Elu", "Exp", "Flatten", "Gelu", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "Max", "Min", "Mul", "Neg", "PRelu", Q, "Relu", "Reshape", "Sigmoid", "Sqrt", "Squeeze", "Sub", "Tanh",
    "Unsqueeze",
})
# fmt: on
BITS = {"bool": 8, "int4": 4, "uint4": 4, "bfloat16": 16, "string": 0}


@dataclass(frozen=True, eq=False, slots=True)
class _Unit:
    """A layer before its costs: the node, the values it reads (no constants) and writes, and its output's quantiser."""

    node: onnx.NodeProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    quantizer: onnx.NodeProto | None = None


def onnx_layers(graph: OnnxGraph) -> tuple[Layer, ...]:
    """One record per layer, in the file's order; a weight that two layers share counts for the first.

    Raises:
        ModelError: a shape is not known.
    """
    counted: set[str] = set()
    layers = []
    for unit in _units(graph):
        weights = {name: t for name, t in _weights(graph, unit.node).items() if name not in counted}
        counted.update(weights)
        layers.append(
            Layer(
                op=unit.node.op_type,
                inputs=tuple(shape_of(graph, name) for name in unit.inputs),
                output=_summary(graph, unit),
                macs=node_macs(graph, unit.node),
                parameters=sum(math.prod(shape) for _, shape in weights.values()),
                weight_bytes=sum(_bytes(dtype, shape) for dtype, shape in weights.values()),
                weight_scales=_weight_scales(graph, unit.node),
                activation_bytes=sum(_value_bytes(graph, name) for name in unit.outputs),
                integer=unit.quantizer is not None or unit.node.op_type in INTEGER_OPERATORS,
            )
        )
    return tuple(layers)


def onnx_network(graph: OnnxGraph) -> Network:
    """The same layers as memory sees them.

    Raises:
        ModelError: a shape is not known.
    """
    units = _units(graph)
    names = dict.fromkeys(
        [*graph.inputs, *(name for unit in units for name in (*unit.inputs, *unit.outputs))]
    )
    return Network(
        steps=tuple(_step(unit) for unit in units),
        buffers={name: Buffer(_value_bytes(graph, name), _row_bytes(graph, name)) for name in names},
        inputs=graph.inputs,
        outputs=tuple(name for name in graph.outputs if name in names),
    )


def _units(graph: OnnxGraph) -> list[_Unit]:
    """The layers: quantised operators merged with their Q and DQ, then whatever of those is still needed."""
    merged = {id(node): q for node in graph.nodes if (q := _quantizer(graph, node)) is not None}
    swallowed = {id(q) for q in merged.values()}
    units = []
    for node in graph.nodes:
        if id(node) in swallowed or all(name in graph.constants for name in node.output):
            continue
        if node.op_type == DQ and _only_feeds(graph, node, merged):
            continue
        q = merged.get(id(node))
        read = [name for name in node.input if name and name not in graph.constants]
        if q is not None:
            read = [graph.writers[name].input[0] for name in read]
        outputs = tuple(name for name in (node if q is None else q).output if name)
        units.append(_Unit(node, tuple(dict.fromkeys(read)), outputs, q))
    return units


def _quantizer(graph: OnnxGraph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The QuantizeLinear behind a node whose inputs are all dequantised and whose only output it alone reads."""
    if node.op_type in (DQ, Q) or len(node.output) != 1 or node.output[0] in graph.outputs:
        return None
    read = [name for name in node.input if name and name not in graph.constants]
    readers = graph.readers.get(node.output[0], ())
    dequantised = [name in graph.writers and graph.writers[name].op_type == DQ for name in read]
    if not read or not all(dequantised) or len(readers) != 1 or readers[0].op_type != Q:
        return None
    return readers[0]


def _only_feeds(graph: OnnxGraph, node: onnx.NodeProto, merged: dict[int, onnx.NodeProto]) -> bool:
    name = node.output[0]
    readers = graph.readers.get(name, ())
    return name not in graph.outputs and bool(readers) and all(id(reader) in merged for reader in readers)


def _weights(graph: OnnxGraph, node: onnx.NodeProto) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Weight and bias of a matrix operator as stored: initializer -> dtype and shape; scales and zero-points left out."""
    if node.op_type not in WEIGHT_INPUT:
        return {}
    place = WEIGHT_INPUT[node.op_type]
    bias = {"QLinearConv": 8, "Conv": 2, "ConvTranspose": 2, "Gemm": 2}.get(node.op_type, len(node.input))
    roots = [graph.roots.get(node.input[i]) for i in (place, bias) if i < len(node.input) and node.input[i]]
    return {
        root.name: (graph.values[root.name].dtype or "uint8", tuple(root.dims))
        for root in roots
        if root is not None
    }


def _weight_scales(graph: OnnxGraph, node: onnx.NodeProto) -> int:
    if node.op_type not in WEIGHT_INPUT:
        return 0
    place = WEIGHT_INPUT[node.op_type]
    if node.op_type in ("QLinearConv", "QLinearMatMul"):
        return math.prod(shape_of(graph, node.input[place + 1]))
    writer = graph.writers.get(node.input[place])
    return math.prod(shape_of(graph, writer.input[1])) if writer is not None and writer.op_type == DQ else 0


def _summary(graph: OnnxGraph, unit: _Unit) -> TensorSummary:
    name = unit.outputs[0]
    value = graph.values.get(name)
    quantizer = unit.quantizer
    for reader in () if quantizer is not None else graph.readers.get(name, ()):
        quantizer = reader if reader.op_type == DQ and reader.input[0] == name else quantizer
    scale, zero_point = (None, None) if quantizer is None else _parameters(graph, quantizer)
    return TensorSummary(name, (value and value.dtype) or "unknown", shape_of(graph, name), scale, zero_point)


def _parameters(graph: OnnxGraph, node: onnx.NodeProto) -> tuple[float | None, int | None]:
    """Scale and zero-point of a Q or DQ node that has one of each as initializers."""
    from onnx import numpy_helper

    tensors = [graph.initializers.get(name) for name in node.input[1:3]]
    if not tensors or any(t is None or math.prod(t.dims) != 1 for t in tensors):
        return None, None
    scale, *zero_points = [np.asarray(numpy_helper.to_array(t)).reshape(()) for t in tensors if t is not None]
    return float(scale), int(zero_points[0]) if zero_points else 0


def _step(unit: _Unit) -> Step:
    op = unit.node.op_type
    kind: StepKind = "elementwise" if op in ELEMENTWISE else "other"
    rows = 0
    if op in CONVOLUTIONS:
        kind = "convolution"
    elif op in POOLS:
        kind, rows = "pool", int(attribute(unit.node, "kernel_shape", [1])[0])
    return Step(kind, unit.inputs, unit.outputs, rows)


def _value_bytes(graph: OnnxGraph, name: str) -> int:
    value = graph.values.get(name)
    return _bytes((value and value.dtype) or "float32", shape_of(graph, name))


def _row_bytes(graph: OnnxGraph, name: str) -> int:
    """Bytes of one row of an NCHW picture."""
    shape, size = shape_of(graph, name), _value_bytes(graph, name)
    return size // shape[2] if len(shape) == 4 and shape[2] else size


def _bytes(dtype: str, shape: Sequence[int]) -> int:
    digits = re.search(r"\d+", dtype)  # "int8", "float8e4m3fn"; a type without any counts nothing
    bits = BITS.get(dtype, int(digits[0]) if digits else 0)
    return (math.prod(shape) * bits + 7) // 8
