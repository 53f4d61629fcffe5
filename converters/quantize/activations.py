"""Scale and zero-point of every activation, from its range; one for all values that an operator only moves.

A range is widened to hold 0, which padding needs. Operators of ``keeps_values`` (pools, reshapes, concatenations, ...)
give out what they take in: the values on both sides share the union of their ranges, so that no code changes on the
way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters._ir import ir
from converters.errors import ContractError
from converters.quant import QuantParams

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.calibration import Ranges

MOVERS = frozenset({
    *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "MaxPool", "Pad", "Reshape", "Slice", "SpaceToDepth"),
    *("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
})  # fmt: skip
SMALLEST_SCALE = 1e-30
LARGEST_CODE = 127  # of weights, and of symmetric activations


def keeps_values(node: ir.Node) -> bool:
    """Whether the node's results are some of its inputs' values, and zeros."""
    if node.op_type == "Pad":
        return _pads_with_zero(node)
    if node.op_type == "Resize":
        return node.attributes.get_string("mode", "nearest") == "nearest"
    return node.op_type in MOVERS


def is_activation(value: ir.Value | None) -> bool:
    """Whether a value is computed, float32, and so has to be quantised."""
    return (
        value is not None
        and value.dtype == ir.DataType.FLOAT
        and value.producer() is not None
        and ir.convenience.get_const_tensor(value) is None
    )


def activation_params(
    graph: ir.Graph, ranges: Ranges, fixed: Mapping[ir.Value, QuantParams], *, symmetric: bool = False
) -> dict[ir.Value, QuantParams]:
    """Quantisation of every activation as uint8 codes.

    Args:
        graph: the float network.
        ranges: value name -> (smallest, largest).
        fixed: quantisations that are given, such as the pixels'; values moved from them share theirs.
        symmetric: zero-points in the middle, which are 0 as int8 codes.

    Raises:
        ContractError: a value has no range.
    """
    groups = _Groups()
    activations = [value for node in graph for value in node.outputs if is_activation(value)]
    for node in graph:
        if keeps_values(node):
            members = [value for value in (*node.inputs, *node.outputs) if value is not None and is_activation(value)]
            for value in members[1:]:
                groups.join(members[0], value)
    bounds: dict[ir.Value, tuple[float, float]] = {}
    for value in activations:
        if value.name not in ranges:
            raise ContractError(f"calibration gave no range for {value.name!r}: please report this")
        low, high = ranges[str(value.name)]
        root = groups.root(value)
        seen_low, seen_high = bounds.get(root, (0.0, 0.0))
        bounds[root] = (min(low, seen_low), max(high, seen_high))
    given = {groups.root(value): params for value, params in fixed.items()}
    params = symmetric_params if symmetric else params_of_range
    by_root = {root: params(*span) for root, span in bounds.items()} | given
    return {value: by_root[groups.root(value)] for value in activations}


def params_of_range(low: float, high: float) -> QuantParams:
    """uint8 quantisation of a range that holds 0.

    Example:
        >>> params = params_of_range(-1.0, 2.0)
        >>> float(params.scalar_scale), params.scalar_zero_point
        (0.0117647061124444, 85)
    """
    scale = np.float32(max((high - low) / 255, SMALLEST_SCALE))
    zero_point = round(float(np.clip(np.rint(-low / float(scale)), 0, 255)))
    return QuantParams.per_tensor(float(scale), zero_point)


def symmetric_params(low: float, high: float) -> QuantParams:
    """uint8 quantisation with zero-point 128: of -127..127 as int8, which leaves out -128.

    Example:
        >>> params = symmetric_params(-1.0, 2.0)
        >>> float(params.scalar_scale), params.scalar_zero_point
        (0.015748031437397003, 128)
    """
    return QuantParams.per_tensor(max(-low, high, SMALLEST_SCALE * LARGEST_CODE) / LARGEST_CODE, 128)


def _pads_with_zero(node: ir.Node) -> bool:
    if node.attributes.get_string("mode", "constant") != "constant":
        return True  # reflections and edges are the input's own values
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    value = ir.convenience.get_const_tensor(node.inputs[2])
    return value is not None and not value.numpy().any()


class _Groups:
    """Values that share a quantisation: a union-find."""

    def __init__(self) -> None:
        self._parents: dict[ir.Value, ir.Value] = {}

    def root(self, value: ir.Value) -> ir.Value:
        """The group's representative."""
        while value in self._parents:
            value = self._parents[value]
        return value

    def join(self, first: ir.Value, second: ir.Value) -> None:
        """Make two groups one."""
        first, second = self.root(first), self.root(second)
        if first is not second:
            self._parents[second] = first
