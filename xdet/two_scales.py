"""Finds quantised tensors of an ONNX graph that are read with another scale than they were written with.

Such graphs are legal, and xdet writes them on purpose: the DequantizeLinear in front of a LeakyRelu has a scale of its own,
so that ONNX Runtime's table equals LiteRT's (docs/contract.md), and so have both readings of a LeakyReLU that stands as a sum.
Compilers that keep one scale per tensor compute something else. Codes keep their scale through operators that only move or
compare them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

# Operators whose output codes are among their first input's.
MOVERS = frozenset(
    {
        *(
            "DepthToSpace",
            "Expand",
            "Flatten",
            "Gather",
            "Identity",
            "Max",
            "MaxPool",
            "Reshape",
            "Slice",
            "SpaceToDepth",
        ),
        *("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)


@dataclass(frozen=True, slots=True)
class TwoScales:
    """A tensor of codes with two scales.

    Attributes:
        tensor: its name, at the place where it is read.
        written: the scale of the QuantizeLinear that made it.
        read: the scale of the DequantizeLinear that reads it.
    """

    tensor: str
    written: float
    read: float


def find_two_scales(graph: onnx.GraphProto) -> tuple[TwoScales, ...]:
    """Every reading of a tensor with another scale than it was written with, in the graph's order; per-tensor scales only."""
    constants = _scalars(graph)
    scales: dict[str, float] = {}
    found: list[TwoScales] = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[1] in constants:
            scales[node.output[0]] = constants[node.input[1]]
        elif node.op_type in MOVERS and node.input[0] in scales:
            scales.update(dict.fromkeys(node.output, scales[node.input[0]]))
        elif node.op_type == "DequantizeLinear":
            written, read = scales.get(node.input[0]), constants.get(node.input[1])
            if written is not None and read is not None and written != read:
                found.append(TwoScales(node.input[0], written, read))
    return tuple(found)


def _scalars(graph: onnx.GraphProto) -> Mapping[str, float]:
    """Float initialisers of one element, which scales per tensor are."""
    import onnx

    return {
        tensor.name: float(onnx.numpy_helper.to_array(tensor).reshape(()))
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and all(size == 1 for size in tensor.dims)
    }
