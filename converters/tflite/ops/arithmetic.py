"""ADD, SUB and MUL with broadcasting: DequantizeLinear x 2 -> Add, Sub or Mul -> QuantizeLinear."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.tflite.ops.clamp import close_with_activation
from converters.tflite.ops.layout import reshape

if TYPE_CHECKING:
    import onnx_ir as ir

    from converters.tflite.context import ImportContext
    from converters.tflite.records import TfliteOperator


def add(context: ImportContext, op: TfliteOperator) -> None:
    """ADD."""
    _binary(context, op, "Add")


def sub(context: ImportContext, op: TfliteOperator) -> None:
    """SUB."""
    _binary(context, op, "Sub")


def mul(context: ImportContext, op: TfliteOperator) -> None:
    """MUL."""
    _binary(context, op, "Mul")


def _binary(context: ImportContext, op: TfliteOperator, op_type: str) -> None:
    operands = [_operand(context, op, position) for position in (0, 1)]
    close_with_activation(context, op, context.writer.op(op_type, operands, context.name(op)))


def _operand(context: ImportContext, op: TfliteOperator, position: int) -> ir.Value:
    """An operand whose axes stand where the output's are, so that broadcasting meets the right ones."""
    index, rank = op.inputs[position], len(context.tensor(op.outputs[0]).shape)
    shape = context.tensor(index).shape
    real = context.float_of(index)
    if len(shape) == rank or (len(shape) != 4 and rank != 4):
        return real
    full = (1,) * (rank - len(shape)) + tuple(shape)
    return reshape(context, real, shape, full, context.name(op, f"operand{position}"))
