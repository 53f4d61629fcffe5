"""MAX_POOL_2D and AVERAGE_POOL_2D.

MAX_POOL_2D is bit exact. AVERAGE_POOL_2D runs on LiteRT's built-in kernel, which adds the codes and divides once,
ties away from code 0; with the zero-point of the pair there (``ops.pivot``) it is bit exact, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.tflite.context import ImportContext, int_option
from converters.tflite.ops.clamp import close_with_activation
from converters.tflite.ops.pivot import pivot_at

if TYPE_CHECKING:
    import onnx_ir as ir

    from converters.tflite.records import TfliteOperator


def max_pool_2d(context: ImportContext, op: TfliteOperator) -> None:
    """MAX_POOL_2D; padding never wins the maximum in either format."""
    close_with_activation(context, op, _pool(context, op, "MaxPool", context.float_of(op.inputs[0])))


def average_pool_2d(context: ImportContext, op: TfliteOperator) -> None:
    """AVERAGE_POOL_2D; padded pixels are not counted in either format."""
    pivot = pivot_at(context, op.inputs[0], op.outputs[0], stored_code=0)
    source = context.adjusted_float_of(op.inputs[0], pivot.before, op.outputs[0])
    close_with_activation(
        context, op, _pool(context, op, "AveragePool", source, count_include_pad=0), pivot.after
    )


def _pool(
    context: ImportContext, op: TfliteOperator, op_type: str, source: ir.Value, **attributes: Any
) -> ir.Value:
    return context.writer.op(
        op_type,
        [source],
        context.name(op),
        kernel_shape=[int_option(op, "filter_h"), int_option(op, "filter_w")],
        strides=[int_option(op, "stride_h"), int_option(op, "stride_w")],
        # auto_pad, not pads: the ONNX reference evaluator pools wrongly with explicit one-sided pads
        auto_pad="SAME_UPPER" if op.options["padding"] == "SAME" else "VALID",
        **attributes,
    )
