"""Functions of one number: ABS, EXP and TANH, on codes a table of LiteRT's; NEG, SQRT, RSQRT and SQUARE on float32 alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.integer.functions import function_table
from converters.sources.tflite.ops.activations import close_by_table, leaky_case

if TYPE_CHECKING:
    from converters.sources.tflite.context import ImportContext
    from converters.sources.tflite.reader import TfliteOperator

NODES = {
    "ABS": ("Abs",),
    "EXP": ("Exp",),
    "TANH": ("Tanh",),
    "NEG": ("Neg",),
    "SQRT": ("Sqrt",),
    "RSQRT": ("Sqrt", "Reciprocal"),
    "SQUARE": ("Mul",),
}


def function(context: ImportContext, op: TfliteOperator) -> None:
    """The table of LiteRT's codes; the real function on float32, or where LiteRT is not matched."""
    source, target = op.inputs[0], op.outputs[0]
    if context.match_litert and context.is_quantized(target):
        close_by_table(context, op, function_table(op.op, leaky_case(context, source, target, 1.0)))
        return
    real = context.float_of(source)
    for node in NODES[op.op]:
        real = context.writer.op(node, [real] * (2 if node == "Mul" else 1), context.name(op, node.lower()))
    context.close(target, real)
