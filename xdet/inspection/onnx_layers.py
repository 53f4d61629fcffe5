"""The layers of an ONNX network. Quantised operators are read as one layer with the Q and DQ nodes around them.

Before -> after: DequantizeLinear on everything that is not constant, an operator, QuantizeLinear on everything it gives
-> one layer that reads codes and writes codes, as integer kernels run it. A DequantizeLinear whose value goes
elsewhere, too, stays a layer of its own. Nodes that only compute constants are no layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.graph import constant_of
from xdet.inspection.costs import Layer, Network, Step, TensorSummary, picture_buffer, tensor_bytes
from xdet.model.graph import (
    INTEGER_OPERATORS,
    WEIGHT_INPUT,
    constant_values,
    dtype_name,
    node_macs,
    readers_of,
    root_of,
    shape_of,
)

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    import onnx_ir as ir

    from xdet.inspection.costs import StepKind

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


@dataclass(frozen=True, eq=False, slots=True)
class _Unit:
    """A layer before its costs: the node, the values it reads (no constants) and writes, and its output's quantiser."""

    node: ir.Node
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    quantizer: ir.Node | None = None


def onnx_layers(graph: ir.Graph, file: str) -> tuple[Layer, ...]:
    """One record per layer, in the file's order; a weight that two layers share counts for the first.

    Args:
        graph: with every shape, as ``inferred_model`` gives it.
        file: for messages.

    Raises:
        ModelError: a shape is not known.
    """
    constants = constant_values(graph)
    counted: set[ir.Value] = set()
    layers = []
    for unit in _units(graph, constants):
        node = unit.node
        weights = [root for root in _weights(node, constants) if root not in counted]
        counted.update(weights)
        layers.append(
            Layer(
                op=node.op_type,
                inputs=tuple(shape_of(value, file) for value in unit.inputs),
                output=_summary(unit, file),
                macs=node_macs(node, file),
                parameters=sum(math.prod(shape_of(root, file)) for root in weights),
                weight_bytes=sum(_bytes(root, file, "uint8") for root in weights),
                weight_scales=_weight_scales(node, file),
                activation_bytes=sum(_bytes(value, file) for value in unit.outputs),
                integer=unit.quantizer is not None or node.op_type in INTEGER_OPERATORS,
            )
        )
    return tuple(layers)


def onnx_network(graph: ir.Graph, file: str) -> Network:
    """The same layers as memory sees them.

    Raises:
        ModelError: a shape is not known.
    """
    units = _units(graph, constant_values(graph))
    inputs = [value for value in graph.inputs if not value.is_initializer()]
    values = dict.fromkeys([*inputs, *(value for unit in units for value in (*unit.inputs, *unit.outputs))])
    return Network(
        steps=tuple(_step(unit) for unit in units),
        buffers={str(v.name): picture_buffer(shape_of(v, file), _bytes(v, file), rows_axis=2) for v in values},  # NCHW
        inputs=_names(inputs),
        outputs=_names(value for value in graph.outputs if value in values),
    )


def _units(graph: ir.Graph, constants: Container[ir.Value]) -> list[_Unit]:
    """The layers: quantised operators merged with their Q and DQ, then whatever of those is still needed."""
    quantizers = {node: _quantizer(node, constants) for node in graph}
    merged = {node: q for node, q in quantizers.items() if q is not None}
    swallowed = set(merged.values())
    units = []
    for node in graph:
        if node in swallowed or all(value in constants for value in node.outputs):
            continue
        if node.op_type == DQ and _only_feeds(node, merged):
            continue
        q = merged.get(node)
        read = _read(node, constants)
        if q is not None:
            dequantizers = [value.producer() for value in read]
            read = [dq.inputs[0] for dq in dequantizers if dq is not None and dq.inputs[0] is not None]
        outputs = tuple(value for value in (node if q is None else q).outputs if value.name)
        units.append(_Unit(node, tuple(dict.fromkeys(read)), outputs, q))
    return units


def _read(node: ir.Node, constants: Container[ir.Value]) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None and value not in constants]


def _quantizer(node: ir.Node, constants: Container[ir.Value]) -> ir.Node | None:
    """The QuantizeLinear behind a node whose inputs are all dequantised and whose only output it alone reads."""
    if node.op_type in (DQ, Q) or len(node.outputs) != 1 or node.outputs[0].is_graph_output():
        return None
    before = [value.producer() for value in _read(node, constants)]
    readers = readers_of(node.outputs[0])
    if not before or not all(dq is not None and dq.op_type == DQ for dq in before):
        return None
    return readers[0] if len(readers) == 1 and readers[0].op_type == Q else None


def _only_feeds(node: ir.Node, merged: Container[ir.Node]) -> bool:
    value = node.outputs[0]
    readers = readers_of(value)
    return not value.is_graph_output() and bool(readers) and all(reader in merged for reader in readers)


def _weights(node: ir.Node, constants: Container[ir.Value]) -> list[ir.Value]:
    """Weight and bias of a matrix operator as stored, initialisers; scales and zero-points left out."""
    if node.op_type not in WEIGHT_INPUT:
        return []
    bias = {"QLinearConv": 8, "Conv": 2, "ConvTranspose": 2, "Gemm": 2}.get(node.op_type, len(node.inputs))
    places = (WEIGHT_INPUT[node.op_type], bias)
    roots = [root_of(node.inputs[i], constants) for i in places if i < len(node.inputs)]
    return list(dict.fromkeys(root for root in roots if root is not None))


def _weight_scales(node: ir.Node, file: str) -> int:
    if node.op_type not in WEIGHT_INPUT:
        return 0
    place = WEIGHT_INPUT[node.op_type]
    if node.op_type in ("QLinearConv", "QLinearMatMul"):
        return math.prod(shape_of(node.inputs[place + 1], file))
    weights = node.inputs[place]
    writer = None if weights is None else weights.producer()
    return math.prod(shape_of(writer.inputs[1], file)) if writer is not None and writer.op_type == DQ else 0


def _summary(unit: _Unit, file: str) -> TensorSummary:
    value, quantizer = unit.outputs[0], unit.quantizer
    for reader in () if quantizer is not None else readers_of(value):
        quantizer = reader if reader.op_type == DQ and reader.inputs[0] is value else quantizer
    scale, zero_point = (None, None) if quantizer is None else _parameters(quantizer)
    return TensorSummary(str(value.name), _dtype(value) or "unknown", shape_of(value, file), scale, zero_point)


def _parameters(node: ir.Node) -> tuple[float | None, int | None]:
    """Scale and zero-point of a Q or DQ node that has one of each as constants."""
    arrays = [constant_of(value) for value in node.inputs[1:3]]
    scalars = [array.reshape(()) for array in arrays if array is not None and array.size == 1]
    if not scalars or len(scalars) < len(arrays):
        return None, None
    return float(scalars[0]), int(scalars[1]) if len(scalars) > 1 else 0


def _step(unit: _Unit) -> Step:
    op = unit.node.op_type
    kind: StepKind = "elementwise" if op in ELEMENTWISE else "other"
    rows = 0
    if op in CONVOLUTIONS:
        kind = "convolution"
    elif op in POOLS:
        kind, rows = "pool", unit.node.attributes.get_ints("kernel_shape", [1])[0]
    return Step(kind, _names(unit.inputs), _names(unit.outputs), rows)


def _names(values: Iterable[ir.Value]) -> tuple[str, ...]:
    return tuple(str(value.name) for value in values)


def _dtype(value: ir.Value) -> str | None:
    dtype = value.dtype if value.const_value is None else value.const_value.dtype
    return None if dtype is None else dtype_name(dtype)


def _bytes(value: ir.Value, file: str, unknown: str = "float32") -> int:
    return tensor_bytes(shape_of(value, file), _dtype(value) or unknown)
