"""Repeat pixels: an enlargement by whole factors, as bytes put together.

Before (uint8 codes, NCHW)::

    [N, C, H, W] -> DQ -> Resize, nearest, factors fh and fw -> Q

After::

    [N, C, H, W] -> NHWC -> Concat of fw copies, [N, H, W, fw C] -> view [N, H, 1, fw W C]
                 -> Concat of fh copies -> view [N, fh H, fw W, C]

The views cost nothing in NHWC, which is what ONNX Runtime's CPU kernels use.

Why: ONNX Runtime looks every byte of an enlarged picture up by its place; two Concat copy whole pixels and whole rows,
in an eighth of the time.

Preconditions: a fixed size, the form of Resize that importers write for whole factors (asymmetric, floor), equal scale
and zero-point on both sides. Numeric effect: bit exact: codes are moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from converters.graph import GraphWriter, constant_of
from converters.passes.base import Changed, Link, Rewrite, Skipped, link, only_consumer, producer

if TYPE_CHECKING:
    from collections.abc import Iterator

FORM = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
DEFAULTS = {"mode": "nearest", "coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_floor"}


class RepeatPixels(Rewrite):
    """Writes enlargements by whole factors as two concatenations."""

    title = "repeat pixels"

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Rewrite every Resize between a pair; yield one line per Resize."""
        for resize in [node for node in graph if node.op_type == "Resize"]:
            before = link(producer(resize.inputs[0]), "DequantizeLinear")
            after = link(only_consumer(resize.outputs[0]), "QuantizeLinear")
            factors = _factors(resize)
            if before is None or after is None or not before.matches(after):
                yield Skipped(str(resize.name), "not between one pair of equal scale and zero-point")
            elif isinstance(factors, str):
                yield Skipped(str(resize.name), factors)
            elif (size := _size(before.source)) is None:
                yield Skipped(str(resize.name), "its picture has no fixed size")
            else:
                _replace(graph, (before, resize, after), size, factors)
                yield Changed(f"{resize.name}: every row {factors[0]} times, every pixel {factors[1]} times")


def _factors(resize: ir.Node) -> tuple[int, int] | str:
    """How often a Resize repeats rows and pixels, or why it does something else."""
    found = {name: resize.attributes.get_string(name, DEFAULTS[name]) for name in FORM}
    if found != FORM:
        return f"it is {found}, not {FORM}"
    scales = constant_of(resize.inputs[2]) if len(resize.inputs) == 3 else None
    if scales is None or scales.shape != (4,):
        return "its scales are no constant for four axes"
    if (scales != np.floor(scales)).any() or (scales < 1).any() or scales[:2].tolist() != [1, 1]:
        return f"its scales are {scales.tolist()}, not whole factors of height and width"
    return int(scales[2]), int(scales[3])


def _size(codes: ir.Value) -> tuple[int, int, int] | None:
    """Channels, height and width."""
    sizes = () if codes.shape is None else tuple(n for n in codes.shape.dims[1:] if isinstance(n, int))
    return (sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 else None


def _replace(
    graph: ir.Graph, found: tuple[Link, ir.Node, Link], size: tuple[int, int, int], factors: tuple[int, int]
) -> None:
    (before, resize, after), (channels, height, width), (rows, pixels) = found, size, factors
    writer, old, name = GraphWriter.inserting(graph, after.node), after.result, f"{resize.name}/repeated"
    value = writer.op("Transpose", [before.source], f"{name}/nhwc", perm=[0, 2, 3, 1])
    for copies, what, shape in (
        (pixels, "pixels", (height, 1, pixels * width * channels)),
        (rows, "rows", (rows * height, pixels * width, channels)),
    ):
        value = writer.op("Concat", [value] * copies, f"{name}/{what}", axis=3)
        sizes = writer.constant(np.array([-1, *shape], np.int64), f"{name}/{what}/shape")
        value = writer.op("Reshape", [value, sizes], f"{name}/{what}/view")
    result = writer.op("Transpose", [value], name, perm=[0, 3, 1, 2])
    ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
    graph.remove([after.node, resize], safe=True)
    if not before.result.uses():
        graph.remove(before.node, safe=True)
    result.name, result.type, result.shape, old.name = old.name, old.type, old.shape, None
