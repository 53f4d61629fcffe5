"""The layers of a TFLite network: what each operator reads, writes and costs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from converters.sources.tflite.operators import OPERATORS
from xdet.inspection.costs import Layer, Network, Step, TensorSummary, picture_buffer, tensor_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.sources.tflite.reader import TfliteModel, TfliteOperator
    from converters.sources.tflite.tensors import TfliteTensor
    from xdet.inspection.costs import StepKind

CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"})
# Operators without a translation, and so without a row: the weights of some, and those that could work in place.
FOREIGN_WEIGHTS = {"DIV": (0, 1), "MAXIMUM": (0, 1), "MINIMUM": (0, 1), "PRELU": (1,), "TRANSPOSE_CONV": (1, 3)}
FOREIGN_ELEMENTWISE = frozenset({"ABS", "DIV", "ELU", "EXP", "GELU", "NEG", "RSQRT", "SQRT"} | {"SQUARE", "TANH"})


def tflite_layers(model: TfliteModel) -> tuple[Layer, ...]:
    """One record per operator, in the file's order; a constant that two operators share counts for the first."""
    counted: set[int] = set()
    layers = []
    for op in model.operators:
        weights = [t for t in weights_of(op, model) if t.index not in counted]
        counted.update(tensor.index for tensor in weights)
        outputs = [model.tensors[index] for index in op.outputs]
        layers.append(
            Layer(
                op=op.op,
                inputs=tuple(tensor.shape for tensor in _computed(model, op.inputs)),
                output=summarise_tensor(outputs[0]) if outputs else TensorSummary("", "none", ()),
                macs=count_macs(op, model),
                parameters=sum(math.prod(tensor.shape) for tensor in weights),
                weight_bytes=sum(map(_bytes, weights)),
                weight_scales=weights[0].quant.scale.size if weights and weights[0].quant is not None else 0,
                activation_bytes=sum(map(_bytes, outputs)),
                integer=bool(outputs) and all(t.dtype in ("int8", "uint8", "int16") for t in _operands(op, model)),
            )
        )
    return tuple(layers)


def tflite_network(model: TfliteModel) -> Network:
    """The same operators as memory sees them."""
    computed = [tensor for tensor in model.tensors if not tensor.is_constant]
    return Network(
        steps=tuple(_step(op, model) for op in model.operators),
        buffers={str(t.index): picture_buffer(t.shape, _bytes(t), rows_axis=1) for t in computed},  # NHWC
        inputs=tuple(map(str, model.inputs)),
        outputs=tuple(str(index) for index in model.outputs if not model.tensors[index].is_constant),
    )


def weights_of(op: TfliteOperator, model: TfliteModel) -> list[TfliteTensor]:
    """The constants of an operator that flash has to hold: weights, biases, and constant operands of arithmetic.

    Shapes, axes, paddings and the like are parameters of the operator, not counted.
    """
    places = OPERATORS[op.op].constants if op.op in OPERATORS else FOREIGN_WEIGHTS.get(op.op, ())
    indices = [op.inputs[place] for place in places if place < len(op.inputs)]
    return [model.tensors[index] for index in indices if index >= 0 and model.tensors[index].is_constant]


def count_macs(op: TfliteOperator, model: TfliteModel) -> int:
    """Multiply-accumulates of one operator for one image, edges counted as if the picture went on."""
    if op.op not in CONVOLUTIONS | {"FULLY_CONNECTED", "BATCH_MATMUL"}:
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


def _bytes(tensor: TfliteTensor) -> int:
    return tensor_bytes(tensor.shape, tensor.dtype)


def _computed(model: TfliteModel, indices: Sequence[int]) -> list[TfliteTensor]:
    tensors = [model.tensors[index] for index in indices if index >= 0]
    return [tensor for tensor in tensors if not tensor.is_constant]


def _operands(op: TfliteOperator, model: TfliteModel) -> list[TfliteTensor]:
    """What decides whether an operator computes on integers: what it reads, biases left out, and what it writes."""
    read = op.inputs[:2] if op.op in CONVOLUTIONS | {"FULLY_CONNECTED"} else op.inputs[:1]
    return [model.tensors[index] for index in (*read, *op.outputs[:1]) if index >= 0]


def _step(op: TfliteOperator, model: TfliteModel) -> Step:
    foreign: StepKind = "elementwise" if op.op in FOREIGN_ELEMENTWISE else "other"
    kind = OPERATORS[op.op].step if op.op in OPERATORS else foreign
    inputs = tuple(dict.fromkeys(str(tensor.index) for tensor in _computed(model, op.inputs)))
    rows = op.options.get("filter_h", 0) if kind == "pool" else 0
    return Step(kind, inputs, tuple(map(str, op.outputs)), rows if isinstance(rows, int) else 0)
