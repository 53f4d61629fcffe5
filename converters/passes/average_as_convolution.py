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
import onnx_ir as ir

from converters.graph import GraphWriter
from converters.passes.base import Changed, Link, Rewrite, Skipped, link, only_consumer, producer
from converters.passes.weights import dequantized

if TYPE_CHECKING:
    from collections.abc import Iterator

NUDGE = 2.0**-14  # by which scales may differ
LARGEST = 31  # places of a window: 255 nudged codes stay nearer to their mean than it is to a tie, 1 / (2 * 31)


class AverageAsConvolution(Rewrite):
    """Writes average pools as depthwise convolutions."""

    title = "average as convolution"

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Rewrite every AveragePool between a pair; yield one line per pool."""
        for pool in [node for node in graph if node.op_type == "AveragePool"]:
            before = link(producer(pool.inputs[0]), "DequantizeLinear")
            after = link(only_consumer(pool.outputs[0]), "QuantizeLinear")
            if before is None or after is None:
                yield Skipped(str(pool.name), "not between one pair that nothing else reads")
                continue
            places = int(np.prod(pool.attributes.get_ints("kernel_shape", [1, 1])))
            channels = None if before.source.shape is None else before.source.shape[1]
            reason, numbers = _refusal(pool, before, after, places), _own(before, after)
            if reason is not None or numbers is None or not isinstance(channels, int):
                yield Skipped(str(pool.name), reason or "the numbers of its codes, or of its channels, are unknown")
                continue
            _replace(graph, pool, (numbers, after), (channels, places))
            yield Changed(f"{pool.name}: {channels} channels, weights of 1/{places}")


def _own(before: Link, after: Link) -> Link | None:
    """The pair that wrote the codes; or the pool's own, where it has no nudge."""
    own = link(producer(before.source), "QuantizeLinear")
    return own or (before if before.matches(after) else None)


def _refusal(pool: ir.Node, before: Link, after: Link, places: int) -> str | None:
    """Why the pool must stay; None if it need not."""
    if before.dtype != np.uint8 or after.dtype != np.uint8 or before.zero_point != after.zero_point:
        return "its codes are int8, or it changes the zero-point"
    if abs(float(before.scale) / float(after.scale) - 1) > NUDGE:
        return "it changes the scale"
    padding = pool.attributes.get_string("auto_pad", "NOTSET")
    if padding not in ("NOTSET", "VALID") or any(pool.attributes.get_ints("pads", [])):
        return "it pads, and does not count what it pads"
    if pool.attributes.get_int("ceil_mode", 0) or set(pool.attributes.get_ints("dilations", [1])) != {1}:
        return "its windows are dilated, or reach beyond the picture"
    if places % 2 == 0 or places > LARGEST:
        return f"a mean of {places} codes may be a tie, or next to one"
    return None


def _replace(graph: ir.Graph, pool: ir.Node, pair: tuple[Link, Link], counts: tuple[int, int]) -> None:
    (own, after), (channels, places), name = pair, counts, f"{pool.name}/sum"
    writer, old, numbers = GraphWriter.inserting(graph, pool), after.result, own.node.inputs[1:]
    codes = own.result if own.node.op_type == "QuantizeLinear" else own.source
    window = pool.attributes.get_ints("kernel_shape", [1, 1])
    weights = np.ones((channels, 1, *window), np.int8)
    scale, zero_point = np.array(1 / places, np.float32), np.array(0, np.int8)
    source = writer.op("DequantizeLinear", [codes, *numbers], f"{name}/dequantized")
    kernel = dequantized(writer, (weights, scale, zero_point), f"{name}/weights")
    real = writer.op(
        "Conv",
        [source, kernel],
        f"{name}/float",
        kernel_shape=window,
        strides=pool.attributes.get_ints("strides", [1, 1]),
        group=channels,
    )
    result = writer.op("QuantizeLinear", [real, *numbers], name)
    ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
    graph.remove([after.node, pool], safe=True)
    result.name, result.type, result.shape, old.name = old.name, old.type, old.shape, None
