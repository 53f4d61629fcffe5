"""Operators between a DequantizeLinear and a QuantizeLinear of one scale and zero-point, written on codes.

Numeric effect of all: bit exact.

Clamp codes: ``q -> DQ -> Clip(low, high) -> Q`` becomes ``q -> Clip(code of low, code of high)``. The clamp of a RELU6
whose output reaches beyond 6 costs three passes over float32 values; on bytes it costs next to nothing. Preconditions:
constant bounds. The codes of the bounds are what QuantizeLinear makes of them, and rounding never falls.

Pad codes: ``q -> DQ(s, z) -> Pad(0) -> Q(s, z)`` becomes ``q -> Pad(z)``. A Pad in front of a pool, or one that several
operators read, costs three passes over float32 values. Preconditions: uint8 codes (behind a Pad of int8 codes ONNX
Runtime leaves convolutions in float), a constant of 0, whose code is the zero-point.

Repeat pixels: an enlargement by whole factors, as bytes put together. Before (uint8 codes, NCHW)::

    [N, C, H, W] -> DQ -> Resize, nearest, factors fh and fw -> Q

After::

    [N, C, H, W] -> NHWC -> Concat of fw copies, [N, H, W, fw C] -> view [N, H, 1, fw W C]
                 -> Concat of fh copies -> view [N, fh H, fw W, C]

The views cost nothing in NHWC, which is what ONNX Runtime's CPU kernels use. ONNX Runtime looks every byte of an
enlarged picture up by its place; two Concat copy whole pixels and whole rows, in an eighth of the time. Preconditions:
a fixed size, and the form of Resize that importers write for whole factors (asymmetric, floor).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.graph import GraphWriter, constant_at, constant_of, static_shape
from converters.passes.base import Changed, DeclinedError, Rewrite, equal_pair_around, require_zeros, take_over
from converters.quant import quantize

if TYPE_CHECKING:
    import onnx_ir as ir

RESIZE = {
    "mode": ("nearest", "nearest"),
    "coordinate_transformation_mode": ("half_pixel", "asymmetric"),
    "nearest_mode": ("round_prefer_floor", "floor"),
}
"""Attribute -> its default, and what the rewrite takes."""


class ClampCodes(Rewrite):
    """Takes Clip nodes out of their QDQ pairs."""

    title = "clamp codes"
    op_type = "Clip"

    def rewrite_at(self, graph: ir.Graph, node: ir.Node) -> Changed:
        """Clamp codes instead of reals."""
        before, after = equal_pair_around(node)
        if any(value is not None and constant_of(value) is None for value in node.inputs[1:]):
            raise DeclinedError("its bounds are computed")
        writer, name = GraphWriter.inserting(graph, node), f"{node.name}/codes"
        reals = [constant_at(node, position) for position in (1, 2)]
        codes = [None if x is None else quantize(x, after.scale, after.zero_point, after.dtype.type) for x in reals]
        bounds = [
            None if code is None else (code, f"{name}/{side}")
            for code, side in zip(codes, ("lowest", "highest"), strict=True)
        ]
        take_over(graph, writer.op("Clip", [before.source, *bounds[: len(node.inputs) - 1]], name), after.result)
        return Changed(f"{node.name}: codes {codes[0]} to {codes[1]}")


class PadCodes(Rewrite):
    """Takes Pad nodes out of their QDQ pairs."""

    title = "pad codes"
    op_type = "Pad"

    def rewrite_at(self, graph: ir.Graph, node: ir.Node) -> Changed:
        """Pad codes instead of reals."""
        before, after = equal_pair_around(node)
        if before.dtype != np.uint8:
            raise DeclinedError("its codes are int8")
        require_zeros(node, "it")
        writer, name = GraphWriter.inserting(graph, node), f"{node.name}/codes"
        zero = np.uint8(after.zero_point), f"{name}/padding"
        codes = writer.op("Pad", [before.source, node.inputs[1], zero, *node.inputs[3:]], name)
        take_over(graph, codes, after.result)
        return Changed(f"{node.name}: code {after.zero_point}")


class RepeatPixels(Rewrite):
    """Writes enlargements by whole factors as two concatenations."""

    title = "repeat pixels"
    op_type = "Resize"

    def rewrite_at(self, graph: ir.Graph, node: ir.Node) -> Changed:
        """Put copies of pixels side by side, then copies of rows."""
        before, after = equal_pair_around(node)
        factor_h, factor_w = _whole_factors(node)
        shape = static_shape(before.source, open_batch=True)
        if shape is None or len(shape) != 4:
            raise DeclinedError("its picture has no fixed size")
        _, channels, height, width = shape
        writer, name = GraphWriter.inserting(graph, after.node), f"{node.name}/repeated"
        value = writer.op("Transpose", [before.source], f"{name}/nhwc", perm=[0, 2, 3, 1])
        for copies, what, view in (
            (factor_w, "pixels", (height, 1, factor_w * width * channels)),
            (factor_h, "rows", (factor_h * height, factor_w * width, channels)),
        ):
            value = writer.op("Concat", [value] * copies, f"{name}/{what}", axis=3)
            value = writer.op("Reshape", [value, ([-1, *view], f"{name}/{what}/shape")], f"{name}/{what}/view")
        take_over(graph, writer.op("Transpose", [value], name, perm=[0, 3, 1, 2]), after.result)
        return Changed(f"{node.name}: every row {factor_h} times, every pixel {factor_w} times")


def _whole_factors(resize: ir.Node) -> tuple[int, int]:
    """How often a Resize repeats rows and pixels."""
    stated = {name: resize.attributes.get_string(name, default) for name, (default, _) in RESIZE.items()}
    taken = {name: form for name, (_, form) in RESIZE.items()}
    if stated != taken:
        raise DeclinedError(f"it is {stated}, not {taken}")
    scales = constant_at(resize, 2) if len(resize.inputs) == 3 else None
    if scales is None or scales.shape != (4,):
        raise DeclinedError("its scales are no constant for four axes")
    if (scales != np.floor(scales)).any() or (scales < 1).any() or scales[:2].tolist() != [1, 1]:
        raise DeclinedError(f"its scales are {scales.tolist()}, not whole factors of height and width")
    return int(scales[2]), int(scales[3])
