"""Average as convolution: a quantised average pool, as a depthwise convolution with weights of 1.

Before (uint8 codes, NCHW)::

    q -> DQ -> AveragePool -> Q

After, with n places per window::

    q -> DQ -> Conv, depthwise, weights of 1 with scale 1 / n -> Q

Why: ONNX Runtime averages every channel and window by itself; its depthwise kernel takes 16 channels at once, in a
twentieth of the time. A Pad in front can become the convolution's own.

A mean commutes with a shift and a scaling of all codes: both sides take the numbers of the codes themselves, not those
at which LiteRT's ties fall, so that a Pad of the same numbers can be folded.

Preconditions: windows of an odd number of places, whose means are never ties, and which lie inside the picture; uint8
codes, equal zero-points and (but for a nudge of 2^-14) scales on both sides. Numeric effect: bit exact: both forms
round the same mean, and none lies near a tie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.graph import GraphWriter
from converters.passes.base import Changed, DeclinedError, Link, NodeRewrite, link, pair_around, producer, take_over
from converters.passes.weights import dequantized

if TYPE_CHECKING:
    import onnx_ir as ir

NUDGE = 2.0**-14  # by which scales may differ
LARGEST = 31  # places of a window: 255 nudged codes stay nearer to their mean than it is to a tie, 1 / (2 * 31)


class AverageAsConvolution(NodeRewrite):
    """Writes average pools as depthwise convolutions."""

    title = "average as convolution"
    op_type = "AveragePool"

    def rewrite_at(self, graph: ir.Graph, node: ir.Node) -> Changed:
        """Convolve each channel with weights of 1."""
        before, after = pair_around(node)
        window = node.attributes.get_ints("kernel_shape", [1, 1])
        places = int(np.prod(window))
        _require_plain_mean(node, before, after, places)
        # the pair that wrote the codes; or the pool's own, where it has no nudge
        own = link(producer(before.source), "QuantizeLinear") or (before if before.matches(after) else None)
        channels = None if before.source.shape is None else before.source.shape[1]
        if own is None or not isinstance(channels, int):
            raise DeclinedError("the numbers of its codes, or of its channels, are unknown")
        writer, numbers, name = GraphWriter.inserting(graph, node), own.node.inputs[1:], f"{node.name}/sum"
        weights = np.ones((channels, 1, *window), np.int8)
        source = writer.op("DequantizeLinear", [before.source, *numbers], f"{name}/dequantized")
        kernel = dequantized(writer, (weights, np.float32(1 / places), np.int8(0)), f"{name}/weights")
        strides = node.attributes.get_ints("strides", [1, 1])
        real = writer.op(
            "Conv", [source, kernel], f"{name}/float", kernel_shape=window, strides=strides, group=channels
        )
        take_over(graph, writer.op("QuantizeLinear", [real, *numbers], name), after.result)
        return Changed(f"{node.name}: {channels} channels, weights of 1/{places}")


def _require_plain_mean(pool: ir.Node, before: Link, after: Link, places: int) -> None:
    """Decline a pool whose means are not those of codes, or may be ties."""
    if before.dtype != np.uint8 or after.dtype != np.uint8 or before.zero_point != after.zero_point:
        raise DeclinedError("its codes are int8, or it changes the zero-point")
    if abs(float(before.scale) / float(after.scale) - 1) > NUDGE:
        raise DeclinedError("it changes the scale")
    padding = pool.attributes.get_string("auto_pad", "NOTSET")
    if padding not in ("NOTSET", "VALID") or any(pool.attributes.get_ints("pads", [])):
        raise DeclinedError("it pads, and does not count what it pads")
    if pool.attributes.get_int("ceil_mode", 0) or set(pool.attributes.get_ints("dilations", [1])) != {1}:
        raise DeclinedError("its windows are dilated, or reach beyond the picture")
    if places % 2 == 0 or places > LARGEST:
        raise DeclinedError(f"a mean of {places} codes may be a tie, or next to one")
