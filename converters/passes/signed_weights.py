"""Signed weights: uint8 weights of convolutions, as int8 ones.

Before::

    w (uint8) -> DQ(scale, z) -> Conv

After::

    w - z (int8) -> DQ(scale, 0) -> Conv               where all of w - z fit
    w - 128 (int8) -> DQ(scale, z - 128) -> Conv       else

Why: ONNX Runtime's fast kernels take int8 weights without zero-point: half to a third of the time. With a zero-point
int8 weights are still faster than uint8 ones, but for depthwise convolutions, which then stay as they are; ``shifted
rows`` and ``strided stem`` split such weights.

Preconditions: constant weights with one zero-point. Numeric effect: bit exact: ``w - z`` is the same number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.graph import GraphWriter, constant_of
from converters.passes.base import Changed, Moved, Rewrite, Skipped, producer
from converters.passes.weights import codes_behind, dequantized

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

INT8 = np.iinfo(np.int8)


class SignedWeights(Rewrite):
    """Writes uint8 weights as int8."""

    title = "signed weights"

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Rewrite the weights of every convolution; yield one line per convolution with uint8 weights."""
        for conv in [node for node in graph if node.op_type == "Conv"]:
            real, codes = producer(conv.inputs[1]), codes_behind(conv.inputs[1])
            if real is None or codes is None or codes.dtype != np.uint8:
                continue
            scale, zero_point = (constant_of(value) for value in real.inputs[1:])
            if scale is None or zero_point is None or len(set(zero_point.flat)) != 1:
                yield Skipped(str(conv.name), "its weights have more than one zero-point, or computed ones")
                continue
            shift = int(zero_point.flat[0])
            fits = codes.min() >= shift + INT8.min and codes.max() <= shift + INT8.max
            if not fits and conv.attributes.get_int("group", 1) > 1:
                yield Skipped(str(conv.name), f"its weights, less their zero-point {shift}, are no int8")
                continue
            shift = shift if fits else -INT8.min
            arrays = (codes.astype(np.int16) - shift, scale, zero_point.astype(np.int16) - shift)
            arrays = (arrays[0].astype(np.int8), scale, arrays[2].astype(np.int8))
            writer, old = GraphWriter.inserting(graph, conv), real.inputs[0]
            new = dequantized(writer, arrays, f"{conv.name}/signed")
            conv.replace_input_with(1, new)
            carrier = producer(new)
            assert carrier is not None  # noqa: S101 - it was written just now
            assert carrier.inputs[0] is not None  # noqa: S101
            moved = Moved(str(old.name) if old else "", str(carrier.inputs[0].name), shift=-shift)
            yield Changed(f"{conv.name}: weights less {shift}", (moved,))
