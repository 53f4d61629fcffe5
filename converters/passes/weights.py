"""Constants behind DequantizeLinear nodes, read and written anew; views of NHWC bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.graph import constant_of
from converters.passes.base import producer

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.graph import GraphWriter


def viewed(
    writer: GraphWriter, value: ir.Value, shape_hwc: tuple[int, int, int], name: str, *, from_nchw: bool = True
) -> ir.Value:
    """The same bytes in NHWC order under another height, width and channels, as NCHW."""
    if from_nchw:
        value = writer.op("Transpose", [value], f"{name}/nhwc", perm=[0, 2, 3, 1])
    shape = writer.constant(np.array([-1, *shape_hwc], np.int64), f"{name}/shape")
    value = writer.op("Reshape", [value, shape], f"{name}/view")
    return writer.op("Transpose", [value], name, perm=[0, 3, 1, 2])


def dequantized(writer: GraphWriter, arrays: tuple[NDArray[Any], NDArray[Any], NDArray[Any]], name: str) -> ir.Value:
    """Codes, scale and zero-point as constants behind a DequantizeLinear, per output channel where there are several scales."""
    parts = zip(arrays, ("codes", "scale", "zero_point"), strict=True)
    constants = [writer.constant(array, f"{name}/{part}") for array, part in parts]
    attributes = {"axis": 0} if arrays[1].ndim == 1 else {}
    return writer.op("DequantizeLinear", constants, f"{name}/dequantized", **attributes)


def omit_zero_points(graph: ir.Graph) -> None:
    """Leave out the zero-points of constant codes that are 0, which the standard means where none stands.

    Weights of as many channels have equal zero-points. Graph optimisers merge equal constants, and ONNX Runtime's
    session entry ``session.x64quantprecision`` fails on a zero-point that two weights share. Numeric effect: none.
    """
    for found in graph:
        codes, zero_point = found.inputs[0], found.inputs[2] if len(found.inputs) > 2 else None
        if found.op_type != "DequantizeLinear" or codes is None or zero_point is None:
            continue
        value = constant_of(zero_point)
        if constant_of(codes) is None or value is None or value.any():
            continue
        found.resize_inputs(2)
        if not zero_point.uses():
            del graph.initializers[str(zero_point.name)]


def repeated(
    value: ir.Value | None, copies: int, codes: NDArray[Any] | None = None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Codes, scale and zero-point behind ``value``, ``copies`` times per channel.

    ``codes``, without a zero-point, take the place of the codes.
    """
    old, scale, zero_point = (required(constant) for constant in node_of(value).inputs)
    scale, zero_point = (np.tile(a, copies) if a.ndim == 1 else a for a in (scale, zero_point))
    if codes is not None:
        return codes, scale, np.zeros(zero_point.shape, codes.dtype)
    return np.tile(old, copies), scale, zero_point


def codes_behind(value: ir.Value | None) -> NDArray[Any] | None:
    """The constant codes behind a DequantizeLinear."""
    node = producer(value)
    return None if node is None or node.op_type != "DequantizeLinear" else constant_of(node.inputs[0])


def is_depthwise(conv: ir.Node) -> bool:
    """Whether a node convolves every channel by itself, into one."""
    weights = codes_behind(conv.inputs[1]) if conv.op_type == "Conv" else None
    return weights is not None and weights.ndim == 4 and 1 < len(weights) == conv.attributes.get_int("group", 1)


def required(value: ir.Value | None) -> NDArray[Any]:
    """The array of what a match found to be a constant."""
    array = constant_of(value)
    assert array is not None, "the match found constants"  # noqa: S101
    return array


def node_of(value: ir.Value | None) -> ir.Node:
    """The node that writes what a match found to be computed."""
    node = producer(value)
    assert node is not None, "the match found a node here"  # noqa: S101
    return node
