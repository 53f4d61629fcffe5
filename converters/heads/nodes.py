"""What heads share as ONNX nodes: the twins of the functions of the same names in ``converters.heads.arithmetic``.

They do the same float32 operations in the same order. The sigmoid is written out: ONNX Runtime's ``Sigmoid`` is not
monotone beyond 7 either side of 0, so the better of two logits could get the lower score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from converters.graph import GraphWriter
    from converters.heads.arithmetic import Float32


def sigmoid(writer: GraphWriter, x: ir.Value, name: str) -> ir.Value:
    """``1 / (1 + exp(-x))``, written out."""
    power = writer.op("Exp", [writer.op("Neg", [x], f"{name}:negated")], f"{name}:power")
    one = writer.constant(np.float32(1), f"{name}:one")
    return writer.op("Div", [one, writer.op("Add", [power, one], f"{name}:divisor")], name)


def clip_xyxy(writer: GraphWriter, boxes: ir.Value, name: str) -> ir.Value:
    """The twin of ``clip_xyxy``."""
    return writer.op("Clip", [boxes, (np.float32(0), "head/zero"), (np.float32(1), "head/one")], name)


def clipped_corners(
    writer: GraphWriter, centers: ir.Value, half_sizes: ir.Value, name: str, *, axis: int = -1
) -> ir.Value:
    """The twin of ``clipped_corners``."""
    corners = [
        writer.op("Sub", [centers, half_sizes], "head/top_left_xy"),
        writer.op("Add", [centers, half_sizes], "head/bottom_right_xy"),
    ]
    return clip_xyxy(writer, writer.op("Concat", corners, "head/boxes_unclipped", axis=axis), name)


def exponential_boxes(
    writer: GraphWriter,
    centers: ir.Value,
    logarithms: ir.Value,
    sizes_wh: Float32,
    *,
    of: str = "anchor",
    axis: int = -1,
) -> ir.Value:
    """The twin of ``exponential_boxes``; ``of`` is what the sizes are of, for names."""
    multiples = writer.op("Exp", [logarithms], f"head/{of}_multiples_wh")
    half_sizes = writer.op("Mul", [multiples, (sizes_wh / np.float32(2), f"head/half_{of}s_wh")], "head/half_sizes_wh")
    return clipped_corners(writer, centers, half_sizes, "head/boxes", axis=axis)


def split(writer: GraphWriter, value: ir.Value, sizes: Mapping[str, int], *, axis: int) -> Sequence[ir.Value]:
    """Cut a value into named parts of these sizes along an axis."""
    return writer.ops("Split", [value, ([*sizes.values()], "head/part_sizes")], [*sizes], axis=axis)


def concat(writer: GraphWriter, values: Sequence[ir.Value], name: str, *, axis: int) -> ir.Value:
    """Values one behind the other; a lone one is itself."""
    return values[0] if len(values) == 1 else writer.op("Concat", values, name, axis=axis)


def sliced(writer: GraphWriter, value: ir.Value, name: str, **bounds: Sequence[int]) -> ir.Value:
    """A part of a value: starts, ends and axes, by whatever names, which those of the constants end in."""
    return writer.op("Slice", [value, *(([*numbers], f"{name}:{role}") for role, numbers in bounds.items())], name)


def append_boxes(writer: GraphWriter, value: ir.Value, count: int, fill: float, name: str) -> ir.Value:
    """Append ``count`` rows of ``fill`` on axis 1 of a rank-3 value."""
    return writer.op("Pad", [value, ([0, 0, 0, 0, count, 0], f"{name}:pads"), (np.float32(fill), f"{name}:fill")], name)


def gathered(writer: GraphWriter, values: ir.Value, indices: ir.Value, name: str) -> ir.Value:
    """Entries of each image: values ``[N, many, ...]``, indices ``[N, C]`` -> ``[N, C, ...]``."""
    where = writer.op("Unsqueeze", [indices, ([2], f"{name}:axis")], f"{name}:indices")
    return writer.op("GatherND", [values, where], name, batch_dims=1)
