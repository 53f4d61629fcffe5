"""The layers of a network, TFLite or ONNX: what each reads, writes and costs, and what memory sees of it.

In ONNX, quantised operators are read as one layer with the Q and DQ nodes around them. Before -> after:
DequantizeLinear on everything that is not constant, an operator, QuantizeLinear on everything it gives -> one layer
that reads codes and writes codes, as integer kernels run it. A DequantizeLinear whose value goes elsewhere, too, stays
a layer of its own. Nodes that only compute constants are no layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.graph import constant_of
from xdet.inspection.costs import Network, OperatorCost, Step, TensorSummary, picture_buffer, tensor_bytes
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
    from collections.abc import Container, Iterable, Sequence

    import onnx_ir as ir

    from converters.sources.tflite.reader import TfliteModel, TfliteOperator
    from converters.sources.tflite.tensors import TfliteTensor
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
TFLITE_CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"})
# Operators without a translation, and so without a row: the weights of some, and those that could work in place.
FOREIGN_WEIGHTS = {"DIV": (0, 1), "MAXIMUM": (0, 1), "MINIMUM": (0, 1), "PRELU": (1,), "TRANSPOSE_CONV": (1, 3)}
FOREIGN_ELEMENTWISE = frozenset({"ABS", "DIV", "ELU", "EXP", "GELU", "NEG", "RSQRT", "SQRT"} | {"SQUARE", "TANH"})


@dataclass(frozen=True, eq=False, slots=True)
class _Unit:
    """A layer before its costs: the node, the values it reads (no constants) and writes, and its output's quantiser."""

    node: ir.Node
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    quantizer: ir.Node | None = None


def onnx_layers(graph: ir.Graph, file: str) -> tuple[OperatorCost, ...]:
    """One record per layer, in the file's order; a weight that two layers share counts for the first.

    ``graph`` has every shape, as ``inferred_model`` gives it.

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
            OperatorCost(
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
    """The same layers as memory sees them."""
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


def tflite_layers(model: TfliteModel) -> tuple[OperatorCost, ...]:
    """One record per operator, in the file's order; a constant that two operators share counts for the first."""
    counted: set[int] = set()
    layers = []
    for op in model.operators:
        weights = [t for t in weights_of(op, model) if t.index not in counted]
        counted.update(tensor.index for tensor in weights)
        outputs = [model.tensors[index] for index in op.outputs]
        layers.append(
            OperatorCost(
                op=op.op,
                inputs=tuple(tensor.shape for tensor in _computed(model, op.inputs)),
                output=summarise_tensor(outputs[0]) if outputs else TensorSummary("", "none", ()),
                macs=count_macs(op, model),
                parameters=sum(math.prod(tensor.shape) for tensor in weights),
                weight_bytes=sum(map(_bytes_of, weights)),
                weight_scales=weights[0].quant.scale.size if weights and weights[0].quant is not None else 0,
                activation_bytes=sum(map(_bytes_of, outputs)),
                integer=bool(outputs) and all(t.dtype in ("int8", "uint8", "int16") for t in _operands(op, model)),
            )
        )
    return tuple(layers)


def tflite_network(model: TfliteModel) -> Network:
    """The same operators as memory sees them."""
    computed = [tensor for tensor in model.tensors if not tensor.is_constant]
    return Network(
        steps=tuple(_tflite_step(op, model) for op in model.operators),
        buffers={str(t.index): picture_buffer(t.shape, _bytes_of(t), rows_axis=1) for t in computed},  # NHWC
        inputs=tuple(map(str, model.inputs)),
        outputs=tuple(str(index) for index in model.outputs if not model.tensors[index].is_constant),
    )


def weights_of(op: TfliteOperator, model: TfliteModel) -> list[TfliteTensor]:
    """The constants of an operator that flash has to hold: weights, biases, and constant operands of arithmetic.

    Shapes, axes, paddings and the like are parameters of the operator, not counted.
    """
    from converters.sources.tflite.operators import OPERATORS

    places = OPERATORS[op.op].constants if op.op in OPERATORS else FOREIGN_WEIGHTS.get(op.op, ())
    indices = [op.inputs[place] for place in places if place < len(op.inputs)]
    return [model.tensors[index] for index in indices if index >= 0 and model.tensors[index].is_constant]


def count_macs(op: TfliteOperator, model: TfliteModel) -> int:
    """Multiply-accumulates of one operator for one image, edges counted as if the picture went on."""
    if op.op not in TFLITE_CONVOLUTIONS | {"FULLY_CONNECTED", "BATCH_MATMUL"}:
        return 0
    values = math.prod(model.tensors[op.outputs[0]].shape)
    operand = model.tensors[op.inputs[1]].shape
    match op.op:
        case "CONV_2D":  # [out, height, width, in]
            return values * math.prod(operand[1:])
        case "DEPTHWISE_CONV_2D":  # [1, height, width, out]
            return values * math.prod(operand[1:3])
        case "TRANSPOSE_CONV":  # [out, height, width, in]: every input value meets the whole kernel
            return math.prod(model.tensors[op.inputs[2]].shape) * math.prod(operand[:3])
        case "FULLY_CONNECTED":  # [out, in]
            return values * operand[-1]
        case _:
            return values * model.tensors[op.inputs[0]].shape[-1]


def summarise_tensor(tensor: TfliteTensor) -> TensorSummary:
    """Name, dtype, shape, and scale and zero-point where it has one of each."""
    if tensor.quant is None or tensor.quant.scale.size != 1:
        return TensorSummary(tensor.name, tensor.dtype, tensor.shape)
    scale, zero_point = float(tensor.quant.scalar_scale), tensor.quant.scalar_zero_point
    return TensorSummary(tensor.name, tensor.dtype, tensor.shape, scale, zero_point)


def _bytes_of(tensor: TfliteTensor) -> int:
    return tensor_bytes(tensor.shape, tensor.dtype)


def _computed(model: TfliteModel, indices: Sequence[int]) -> list[TfliteTensor]:
    tensors = [model.tensors[index] for index in indices if index >= 0]
    return [tensor for tensor in tensors if not tensor.is_constant]


def _operands(op: TfliteOperator, model: TfliteModel) -> list[TfliteTensor]:
    """What decides whether an operator computes on integers: what it reads, biases left out, and what it writes."""
    read = op.inputs[:2] if op.op in TFLITE_CONVOLUTIONS | {"FULLY_CONNECTED"} else op.inputs[:1]
    return [model.tensors[index] for index in (*read, *op.outputs[:1]) if index >= 0]


def _tflite_step(op: TfliteOperator, model: TfliteModel) -> Step:
    from converters.sources.tflite.operators import OPERATORS

    foreign: StepKind = "elementwise" if op.op in FOREIGN_ELEMENTWISE else "other"
    kind = OPERATORS[op.op].step if op.op in OPERATORS else foreign
    inputs = tuple(dict.fromkeys(str(tensor.index) for tensor in _computed(model, op.inputs)))
    rows = op.options.get("filter_h", 0) if kind == "pool" else 0
    return Step(kind, inputs, tuple(map(str, op.outputs)), rows if isinstance(rows, int) else 0)
