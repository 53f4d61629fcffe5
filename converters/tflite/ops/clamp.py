"""Fused activations: RELU, RELU6 and RELU_N1_TO_1 behind another operator.

TFLite clamps codes: ``zero_point + round(bound / scale)``. Where the output's range ends there anyway, the
QuantizeLinear already clamps and nothing is written. Otherwise the clamp gets a QDQ pair of its own, so that the
operator in front keeps running in integers; its bounds are codes, dequantised, so it is bit exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.qdq import dequantize_node

if TYPE_CHECKING:
    import onnx_ir as ir

    from converters.quant import QuantParams
    from converters.tflite.context import ImportContext
    from converters.tflite.records import TfliteOperator

BOUNDS: dict[str, tuple[float | None, float | None]] = {
    "NONE": (None, None),
    "RELU": (0.0, None),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
}


def close_with_activation(
    context: ImportContext, op: TfliteOperator, real: ir.Value, params: QuantParams | None = None
) -> None:
    """Quantise ``real`` to the operator's output, by ``params`` or its own, applying its fused activation."""
    activation = str(op.options.get("fused_activation", "NONE"))
    close_with_bounds(context, op, real, BOUNDS[activation], params)


def close_with_bounds(
    context: ImportContext,
    op: TfliteOperator,
    real: ir.Value,
    bounds: tuple[float | None, float | None],
    first: QuantParams | None = None,
) -> None:
    """Quantise ``real`` to the operator's output (by ``first``, if given), clamped to real ``bounds`` (None: unbounded)."""
    index, dtype, writer = op.outputs[0], context.code_dtype, context.writer
    params, info = context.params(index), np.iinfo(context.code_dtype)
    scale, zero_point = params.scalar_scale, params.scalar_zero_point
    low, high = (None if bound is None else _code(bound, scale, zero_point) for bound in bounds)
    if (low is None or low <= info.min) and (high is None or high >= info.max):
        context.define_quantized(index, real, first)
        return
    codes = context.quantized(index, real, first or params, context.name(op, "unclamped"))
    real = dequantize_node(writer, codes, params, dtype, context.name(op, "clamp/dequantized"))
    limits = clip_limits(context, op, bounds)
    context.define_quantized(index, writer.op("Clip", [real, *limits], context.name(op, "clamp")))


def code_bounds(context: ImportContext, op: TfliteOperator) -> tuple[int, int]:
    """The lowest and the highest code of an operator's output, its fused activation included."""
    params, info = context.params(op.outputs[0]), np.iinfo(context.code_dtype)
    scale, zero_point = params.scalar_scale, params.scalar_zero_point
    low, high = (
        None if bound is None else _code(bound, scale, zero_point)
        for bound in BOUNDS[str(op.options.get("fused_activation", "NONE"))]
    )
    return max(info.min, info.min if low is None else low), min(info.max, info.max if high is None else high)


def clip_limits(
    context: ImportContext, op: TfliteOperator, bounds: tuple[float | None, float | None]
) -> list[ir.Value | None]:
    """Inputs 1 and 2 of a Clip to real ``bounds``, as the reals of the output's codes."""
    params = context.params(op.outputs[0])
    scale, zero_point = params.scalar_scale, params.scalar_zero_point
    return [
        None
        if bound is None
        else context.writer.constant(
            np.float32(_code(bound, scale, zero_point) - zero_point) * scale,
            context.name(op, f"clamp/{side}"),
        )
        for bound, side in zip(bounds, ("min", "max"), strict=True)
    ]


def _code(bound: float, scale: np.float32, zero_point: int) -> int:
    """The code of a real bound, rounded half away from zero as TFLite does; codes beyond the dtype's range are fine."""
    with np.errstate(over="ignore"):  # a denormal scale: int() of the infinity is refused by the importer
        steps = np.float32(bound) / scale
    return zero_point + int(np.sign(steps) * np.floor(np.abs(steps) + np.float32(0.5)))
