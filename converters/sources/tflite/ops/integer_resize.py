"""RESIZE_BILINEAR step by step, where ONNX's Resize cannot be exact.

XNNPACK's weights are whole multiples of 2^-11: per axis ``2048 - w`` of the lower neighbour and ``w`` of the upper one.
The sum over both axes is an int32 number of 22 fractional bits, rounded half up.

Before: a Resize between two pairs. After: codes as int32, per axis two Gather and a weighted sum, a division by 2^22.
Bit exact on every runtime; about fifteen elementwise operators instead of one.

Source of the recipe: google/XNNPACK, ``src/indirection.c`` (xnn_indirection_init_resize_bilinear2d_hwc_q11) and
``src/s8-ibilinear``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters._ir import ir

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.sources.tflite.context import ImportContext
    from converters.sources.tflite.reader import TfliteOperator

ONE = 2048
LIFT = 128  # turns int8 codes into such that are never below zero, so that a division rounds down
COARSE = (
    ONE // 8
)  # Resize is exact for multiples of this weight: ties and the nudge of ``ops.pivot`` are then far apart


@dataclass(frozen=True, slots=True)
class AxisWeights:
    """How new positions of one axis are made of old ones.

    Attributes:
        lower: int64 ``(new size,)``, the old position below.
        upper: the one above, with ``weight``.
        weight: int32, 0..2048.
    """

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    weight: NDArray[np.int32]

    @property
    def is_coarse(self) -> bool:
        """Whether ONNX's Resize gives the same codes."""
        return not bool((self.weight % COARSE).any())


def axis_weights(op: TfliteOperator, size: int, new_size: int) -> AxisWeights:
    """XNNPACK's weights along one axis, in its float32 arithmetic."""
    aligned = bool(op.options["align_corners"]) and new_size > 1
    ratio = np.float32(size - aligned) / np.float32(new_size - aligned)
    half = np.float32(0.5 if op.options["half_pixel_centers"] else 0.0)
    position = np.clip((np.arange(new_size, dtype=np.float32) + half) * ratio - half, 0, np.float32(size - 1))
    lower = position.astype(np.int64)
    weight = np.rint((position - lower.astype(np.float32)) * np.float32(ONE)).astype(np.int32)
    return AxisWeights(lower, np.minimum(lower + 1, size - 1), weight)


def close_in_integers(context: ImportContext, op: TfliteOperator, rows: AxisWeights, columns: AxisWeights) -> None:
    """Resize the codes of an operator's input along height and width."""
    target, writer = op.outputs[0], context.writer
    lift = LIFT if context.activations == "int8" else 0
    codes = context.codes_of(op.inputs[0])
    value = writer.op("Cast", [codes], context.name(op, "wide"), to=int(ir.DataType.INT32))
    if lift:
        value = writer.op("Add", [value, _number(context, op, lift, "lift")], context.name(op, "lifted"))
    for axis, weights, what in ((3, columns, "columns"), (2, rows, "rows")):
        value = _interpolated(context, op, value, (axis, weights, what))
    value = writer.op("Add", [value, _number(context, op, ONE * ONE // 2, "half")], context.name(op, "half up"))
    value = writer.op("Div", [value, _number(context, op, ONE * ONE, "one")], context.name(op, "steps"))
    if lift:
        value = writer.op("Sub", [value, _number(context, op, lift, "lift")], context.name(op, "codes"))
    to = ir.DataType.from_numpy(np.dtype(context.code_dtype))
    context.define(target, writer.op("Cast", [value], context.names[target], to=int(to)))
    context.tell(target, target, "table")
    context.notes.append(
        f"{op.op} {context.names[target]!r} is computed step by step in integers: ONNX's Resize has other weights than LiteRT"
    )


def _interpolated(
    context: ImportContext, op: TfliteOperator, value: ir.Value, along: tuple[int, AxisWeights, str]
) -> ir.Value:
    """Both neighbours along an axis of an int32 image ``(N, C, H, W)``, weighted and added."""
    axis, weights, what = along
    writer, terms = context.writer, []
    sides = (("lower", weights.lower, ONE - weights.weight), ("upper", weights.upper, weights.weight))
    for side, positions, factors in sides:
        where = writer.constant(positions, context.name(op, f"{what}/{side} positions"))
        taken = writer.op("Gather", [value, where], context.name(op, f"{what}/{side}"), axis=axis)
        shape = (-1, 1) if axis == 2 else (-1,)
        factor = writer.constant(factors.astype(np.int32).reshape(shape), context.name(op, f"{what}/{side} weights"))
        terms.append(writer.op("Mul", [taken, factor], context.name(op, f"{what}/{side} weighted")))
    return writer.op("Add", terms, context.name(op, what))


def _number(context: ImportContext, op: TfliteOperator, number: int, name: str) -> ir.Value:
    return context.writer.constant(np.int32(number), context.name(op, f"{name}/number"))
