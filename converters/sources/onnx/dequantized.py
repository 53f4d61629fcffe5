"""The float network of a quantised (QDQ) ONNX file: the same operators on the real numbers that its codes stand for.

Before -> after: a DequantizeLinear of constants -> their float32 numbers; QuantizeLinear and the DequantizeLinear
behind it -> a Clip to what the codes can hold, or nothing where no number lies beyond. The Clip is not left out on
trust: quantisers drop a Relu or Clip whose limits the codes keep. Numeric effect: no activation is rounded any more.
Given the source's own numbers in front of a pair, the result is within half a step of the source's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from converters.errors import OptionError, UnsupportedModelError, list_some
from converters.graph import GraphWriter, constant_at
from converters.quant import QuantParams, real_numbers

OF_CODES = frozenset({"DequantizeLinear", "QuantizeLinear"})
INTEGER_OPERATORS = frozenset({"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"})
KEEP = frozenset({"Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
Range = tuple[float, float]


@dataclass(frozen=True, eq=False)
class QdqPair:
    """A QuantizeLinear of an activation and the first DequantizeLinear behind it.

    ``value`` names the real numbers behind it, in the source and in the float network; ``codes`` are the least and the
    greatest.
    """

    value: str
    params: QuantParams
    codes: tuple[int, int]

    @property
    def reals(self) -> Range:
        """What the codes can hold, rounded to float32 as a DequantizeLinear does."""
        low, high = (real_numbers(np.array([code]), self.params).item() for code in self.codes)
        return low, high


def dequantize_graph(graph: ir.Graph, file: str) -> tuple[QdqPair, ...]:
    """Take every QuantizeLinear and DequantizeLinear out of a graph, in place.

    The graph is one of ``fixed_graph``. Returns the pairs that were taken out, in execution order.

    Raises:
        OptionError: it has none.
        UnsupportedModelError: codes go elsewhere than to a DequantizeLinear of the same numbers.
    """
    quantizers = [node for node in graph if node.op_type == "QuantizeLinear"]
    if not any(node.op_type in OF_CODES | INTEGER_OPERATORS for node in graph):
        raise OptionError(
            f"{file}: --dequantize is for quantised networks, and this one computes on float32 numbers; leave it out"
        )
    wrong = [
        f"{name} x{n}" for name, n in sorted(Counter(n.op_type for n in graph).items()) if name in INTEGER_OPERATORS
    ]
    if not wrong:
        _unfold_constants(graph)
        pairs = [_pair(node) for node in quantizers]
        wrong = [
            f"QuantizeLinear {str(n.outputs[0].name)!r}" for n, p in zip(quantizers, pairs, strict=True) if p is None
        ]
    if wrong:
        raise UnsupportedModelError(
            f"{file}: --dequantize has no float form for {list_some(wrong)}; it takes QuantizeLinear with one scale, "
            "whose codes only DequantizeLinear of the same scale read: export the file in QDQ form, or leave the "
            "option out"
        )
    bounds: dict[ir.Value, Range] = {}
    by_node = dict(zip(quantizers, pairs, strict=True))
    for node in list(graph):
        pair = by_node.get(node)
        if pair is not None:
            _take_out(graph, node, pair, bounds)
        elif node.op_type != "DequantizeLinear" and node.inputs and node.inputs[0] in bounds:
            bounds.update(_bounds_behind(node, bounds[node.inputs[0]]))
    common.RemoveUnusedNodesPass()(ir.Model(graph, ir_version=9))
    return tuple(pair for pair in pairs if pair is not None)


def _unfold_constants(graph: ir.Graph) -> None:
    """Write the real numbers of every constant that a DequantizeLinear reads, in its place."""
    writer = GraphWriter.appending(graph)
    for node in list(graph):
        codes = constant_at(node, 0) if node.op_type == "DequantizeLinear" else None
        params = None if codes is None else _params(node, node.attributes.get_int("axis", 1))
        if codes is None or params is None:
            continue
        value = writer.constant(real_numbers(codes, params), f"{node.outputs[0].name}/real")
        node.outputs[0].replace_all_uses_with(value)
        graph.remove(node, safe=True)


def _pair(node: ir.Node) -> QdqPair | None:
    """A QuantizeLinear's pair; None where its codes go elsewhere, or mean other numbers there."""
    params, codes = _params(node, None), node.outputs[0]
    readers = [use.node for use in codes.uses()]
    if params is None or not readers or codes.is_graph_output():
        return None
    read = [_params(reader, None) if reader.op_type == "DequantizeLinear" else None for reader in readers]
    if not all(other is not None and params.same_as(other) for other in read):
        return None
    zero_point = constant_at(node, 2)
    info = np.iinfo(np.uint8 if zero_point is None else zero_point.dtype)
    return QdqPair(str(readers[0].outputs[0].name), params, (int(info.min), int(info.max)))


def _take_out(graph: ir.Graph, node: ir.Node, pair: QdqPair, bounds: dict[ir.Value, Range]) -> None:
    """Put a Clip in the place of a pair; nothing where it would cut nothing off."""
    real, readers = node.inputs[0], [use.node for use in node.outputs[0].uses()]
    assert real is not None, "QuantizeLinear has an input"  # noqa: S101
    (low, high), room = pair.reals, float(pair.params.scalar_scale) / 2
    limits = bounds.get(real)
    within = limits is not None and limits[0] >= low - room and limits[1] <= high + room
    if not within or any(reader.outputs[0].is_graph_output() for reader in readers):
        writer, old = GraphWriter.inserting(graph, node), readers[0].outputs[0]
        ends = [writer.constant(np.float32(at), f"{pair.value}/{side}") for side, at in (("min", low), ("max", high))]
        clipped = writer.op("Clip", [real, *ends], f"{pair.value}/clipped")
        clipped.type, clipped.shape = old.type, old.shape
        old.name, clipped.name = f"{pair.value}/rounded", pair.value
        real = clipped
        bounds[real] = (low, high)
    for reader in readers:
        ir.convenience.replace_all_uses_with(reader.outputs[0], real, replace_graph_outputs=True)
        graph.remove(reader, safe=True)
    graph.remove(node, safe=True)


def _bounds_behind(node: ir.Node, bounds: Range) -> dict[ir.Value, Range]:
    """What an operator's result lies between, where its input's bounds tell."""
    low, high = bounds
    result = node.outputs[0]
    if node.op_type in KEEP:
        return {result: bounds}
    if node.op_type == "Relu":
        return {result: (max(low, 0.0), max(high, 0.0))}
    if node.op_type == "LeakyRelu":
        ends = [x if x > 0 else x * node.attributes.get_float("alpha", 0.01) for x in (low, high)]
        return {result: (min(*ends, 0.0), max(*ends, 0.0))}
    if node.op_type == "Sigmoid":
        return {result: (0.0, 1.0)}
    return {}


def _params(node: ir.Node, axis: int | None) -> QuantParams | None:
    """Scale and zero-point of a node, whole where ``axis`` is one, else the only ones; None where they are computed."""
    scale, zero_point = constant_at(node, 1), constant_at(node, 2)
    if scale is None or (len(node.inputs) > 2 and zero_point is None) or (axis is None and scale.size != 1):
        return None
    points = np.zeros(scale.size, np.int64) if zero_point is None else zero_point.reshape(-1).astype(np.int64)
    return QuantParams(scale.reshape(-1).astype(np.float32), points, None if scale.size == 1 else axis)
