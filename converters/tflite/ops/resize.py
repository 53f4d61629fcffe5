"""RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR.

Nearest is bit exact: a whole factor becomes Resize, which every runtime agrees on; other sizes become a Gather per
axis over TFLite's own index table, because no two runtimes round the coordinates alike. Bilinear is bit exact, too: as a
Resize whose ties go up as in XNNPACK (``ops.pivot``) where all weights are multiples of 1/8 (factors 2 and 4), else step by
step with XNNPACK's 11-bit weights (``ops.integer_resize``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.errors import SourceFileError
from converters.tflite.context import ImportContext, describe
from converters.tflite.ops.integer_resize import axis_weights, close_in_integers
from converters.tflite.ops.pivot import lowest_code, pivot_at

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.tflite.records import TfliteOperator

MAX_SIZE = 1 << 15  # pixels per side: nothing larger is a picture, and index tables stay small


def resize_nearest_neighbor(context: ImportContext, op: TfliteOperator) -> None:
    """RESIZE_NEAREST_NEIGHBOR."""
    source = op.inputs[0]
    _, height, width, _ = context.tensor(source).shape
    new_height, new_width = _sizes(context, op)
    rows, columns = _nearest_indices(op, height, new_height), _nearest_indices(op, width, new_width)
    real = context.moved_float_of(source, op.outputs[0])
    if _is_repetition(rows, height) and _is_repetition(columns, width):
        scales = np.array([1, 1, new_height // height, new_width // width], np.float32)
        real = context.writer.op(
            "Resize",
            [real, None, context.writer.constant(scales, context.name(op, "scales"))],
            context.name(op),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    else:
        for axis, table, what in ((2, rows, "rows"), (3, columns, "columns")):
            where = context.writer.constant(table, context.name(op, what))
            real = context.writer.op("Gather", [real, where], context.name(op, f"{what}/gathered"), axis=axis)
    context.close(op.outputs[0], real)


def resize_bilinear(context: ImportContext, op: TfliteOperator) -> None:
    """RESIZE_BILINEAR."""
    source, target = op.inputs[0], op.outputs[0]
    sizes = zip(context.tensor(source).shape[1:3], _sizes(context, op), strict=True)
    weights = [axis_weights(op, size, new_size) for size, new_size in sizes]
    same = context.is_quantized(source) and context.params(source).same_as(context.params(target))
    if context.match_litert and same and not all(axis.is_coarse for axis in weights):
        close_in_integers(context, op, *weights)
        return
    pivot = pivot_at(context, source, target, lowest_code(context, source))
    real = context.adjusted_float_of(source, pivot.before, target)
    context.define_quantized(target, _linear(context, op, real), pivot.after)


def _linear(context: ImportContext, op: TfliteOperator, real: ir.Value) -> ir.Value:
    """Resize by scales, not sizes: sizes would pin the batch."""
    _, height, width, _ = context.tensor(op.inputs[0]).shape
    new_height, new_width = _sizes(context, op)
    scales = np.array([1, 1, _scale(height, new_height), _scale(width, new_width)], np.float32)
    if op.options["align_corners"]:
        mode = "align_corners"
    else:
        mode = "half_pixel" if op.options["half_pixel_centers"] else "asymmetric"
    return context.writer.op(
        "Resize",
        [real, None, context.writer.constant(scales, context.name(op, "scales"))],
        context.name(op),
        mode="linear",
        coordinate_transformation_mode=mode,
    )


def _scale(size: int, new_size: int) -> np.float32:
    """The float32 ratio from which ONNX's ``floor(size * scale)`` gives ``new_size``."""
    scale = np.float32(new_size) / np.float32(size)
    while size * float(scale) < new_size:
        scale = np.nextafter(scale, np.float32(np.inf))
    return scale


def _sizes(context: ImportContext, op: TfliteOperator) -> tuple[int, int]:
    """New height and width in pixels."""
    sizes = context.constant_of(op, 1).reshape(-1).tolist()
    if len(sizes) != 2 or min(sizes) < 1 or max(sizes) > MAX_SIZE:
        msg = f"{context.model.file}: {describe(context, op)} resizes to {sizes}, expected height and width in 1..{MAX_SIZE}"
        raise SourceFileError(msg)
    if op.options["align_corners"] and op.options["half_pixel_centers"]:
        msg = f"{context.model.file}: {describe(context, op)} asks for align_corners and half_pixel_centers at once"
        raise SourceFileError(msg)
    return int(sizes[0]), int(sizes[1])


def _nearest_indices(op: TfliteOperator, size: int, new_size: int) -> NDArray[np.int64]:
    """int64 ``(new_size,)``: the source position of every new one, in TFLite's float32 arithmetic.

    Source: tensorflow/lite/kernels/internal/reference/resize_nearest_neighbor.h.
    """
    aligned = bool(op.options["align_corners"]) and new_size > 1
    ratio = (
        np.float32(size - 1) / np.float32(new_size - 1)
        if aligned
        else np.float32(size) / np.float32(new_size)
    )
    offset = np.float32(0.5 if op.options["half_pixel_centers"] else 0.0)
    position = (np.arange(new_size, dtype=np.float32) + offset) * ratio
    rounded = np.floor(position + np.float32(0.5)) if op.options["align_corners"] else np.floor(position)
    return np.asarray(np.clip(rounded.astype(np.int64), 0, size - 1))


def _is_repetition(table: NDArray[np.int64], size: int) -> bool:
    """Whether every source position is simply repeated a whole number of times."""
    factor, rest = divmod(len(table), size)
    return rest == 0 and bool(np.array_equal(table, np.arange(len(table)) // factor))
