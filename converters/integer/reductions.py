"""Sums, means and extremes over constant axes, in float32 as ONNX defines them; the order of a sum is each runtime's own.

Sums of integers, and of products of codes, are exact.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.integer.values import Reals, Value, to_reals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

REDUCTIONS: dict[str, Callable[..., NDArray[Any]]] = {
    "ReduceMax": lambda x, **over: x.max(**over),
    "ReduceMean": lambda x, **over: x.mean(dtype=np.float32, **over),
    "ReduceMin": lambda x, **over: x.min(**over),
    "ReduceSum": lambda x, **over: x.sum(dtype=x.dtype if x.dtype.kind == "i" else np.float32, **over),
}


def arg_max(node: ir.Node, x: Value) -> Value:
    """The first place of the largest number along an axis; of equal float32 numbers the first is each runtime's, too."""
    array, axis = to_reals(x).array, node.attributes.get_int("axis", 0)
    places = np.asarray(array.argmax(axis))
    return Reals(np.expand_dims(places, axis) if node.attributes.get_int("keepdims", 1) else places)


def integer_product(inputs: Sequence[Value | None]) -> Value:
    """MatMulInteger of two matrices of codes and their zero-points: int32 sums."""
    a, b, zero_a, zero_b = (to_reals(value).array.astype(np.float64) for value in inputs if value is not None)
    return Reals(((a - zero_a) @ (b - zero_b)).astype(np.int32))


def add_up(inputs: Sequence[Value | None]) -> Value:
    """Sum of any number of operands, in their order."""
    operands = [to_reals(value) for value in inputs if value is not None]
    array = reduce(np.add, [value.array for value in operands])
    return Reals(array, exact=all(value.exact for value in operands))


def running_sums(inputs: Sequence[Value | None]) -> Value:
    """CumSum along a constant axis, from the first element on."""
    x, axis = (to_reals(value) for value in inputs if value is not None)
    return Reals(np.cumsum(x.array, axis=int(axis.array), dtype=x.array.dtype), exact=x.exact)


def reduce_values(node: ir.Node, inputs: Sequence[Value | None]) -> Value:
    """A node of ``REDUCTIONS`` over constant axes: an operand or, in older opsets, an attribute."""
    x, *operand = (to_reals(value).array for value in inputs if value is not None)
    axes = operand[0] if operand else node.attributes.get_ints("axes", [])
    keep = bool(node.attributes.get_int("keepdims", 1))
    found = REDUCTIONS[node.op_type](x, axis=tuple(int(axis) for axis in axes), keepdims=keep)
    return Reals(found, exact=found.dtype.kind == "i" or node.op_type in ("ReduceMax", "ReduceMin"))
