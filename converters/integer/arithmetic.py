"""Operators on several real numbers: sums, products, means, softmax, interpolation, in float32 as ONNX defines them.

Runtimes order these operations as they like, so the last bit of a result is their own (``Reals.exact`` is False), and a
code that lies on an edge may come out one higher or lower. One sum or product of float32 numbers has only one result, but
two dequantised operands are fused with what is around them.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.integer.rounding import FUSED_ROUNDING
from converters.integer.values import Quantized, Reals, Value, to_reals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray


def combine(node: ir.Node, inputs: Sequence[Value | None]) -> Value:
    """Add, Sub, Mul or Div with broadcasting."""
    operands = [value for value in inputs if value is not None]
    a, b = (to_reals(value) for value in operands)
    array = BINARY[node.op_type](a.array, b.array)
    scales = [float(value.scale.max()) for value in operands if isinstance(value, Quantized)]
    if len(scales) < len(operands):
        return Reals(array, exact=a.exact and b.exact)
    # kernels fuse the two readings with what is around them: a sum of codes then differs by roundings of its terms
    doubt = np.inf if node.op_type == "Mul" else FUSED_ROUNDING * 255 * sum(scales)
    return Reals(array, exact=False, doubt=doubt)


def maximum(inputs: Sequence[Value | None]) -> Value:
    """Max of any number of operands, codes or reals, with broadcasting."""
    operands = [to_reals(value) for value in inputs if value is not None]
    array = reduce(np.maximum, [value.array for value in operands])
    return Reals(array, exact=all(value.exact for value in operands))


def softmax(node: ir.Node, x: Value) -> Value:
    """Softmax along one axis."""
    real, axis = to_reals(x).array, node.attributes.get_int("axis", -1)
    raised = np.exp(real - real.max(axis, keepdims=True))
    return Reals(raised / raised.sum(axis, keepdims=True, dtype=np.float32), exact=False)


def reduce_mean(node: ir.Node, inputs: Sequence[Value | None]) -> Value:
    """ReduceMean over constant axes."""
    x, axes = (to_reals(value).array for value in inputs if value is not None)
    keep = bool(node.attributes.get_int("keepdims", 1))
    return Reals(x.mean(tuple(int(axis) for axis in axes), dtype=np.float32, keepdims=keep), exact=False)


def resize(node: ir.Node, inputs: Sequence[Value | None]) -> Value:
    """Resize of images ``(N, C, H, W)`` by scales: nearest by whole factors, or linear.

    Raises:
        NotImplementedError: another kind of resize than importers write.
    """
    x, scales = inputs[0], inputs[2] if len(inputs) > 2 else None
    if x is None or scales is None or len(inputs) > 3:
        msg = "resizes to sizes, not by scales"
        raise NotImplementedError(msg)
    reals = to_reals(x)
    factors = [float(factor) for factor in to_reals(scales).array[2:]]
    mode = node.attributes.get_string("mode", "nearest")
    if mode == "nearest":
        array = reals.array
        for axis, factor in zip((2, 3), factors, strict=True):
            array = array.repeat(round(factor), axis)
        return Reals(array, reals.exact)
    rule = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    array = reals.array
    for axis, factor in zip((2, 3), factors, strict=True):
        array = _interpolated(array, axis, factor, str(rule))
    return Reals(array, exact=False)


def _interpolated(array: NDArray[Any], axis: int, factor: float, rule: str) -> NDArray[np.float32]:
    """Linear interpolation along one axis."""
    size = array.shape[axis]
    new = np.arange(int(size * factor))
    if rule == "half_pixel":
        position = (new + 0.5) / factor - 0.5
    elif rule == "align_corners":
        position = new * (size - 1) / max(len(new) - 1, 1)
    else:
        position = new / factor
    position = np.clip(position, 0, size - 1)
    low = np.floor(position).astype(np.int64)
    weight = (position - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(array.ndim)])
    below, above = array.take(low, axis), array.take(np.minimum(low + 1, size - 1), axis)
    return np.asarray(below * (1 - weight) + above * weight, np.float32)


def _divide(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Integers are divided towards zero."""
    quotient = np.asarray(a / b)
    return np.trunc(quotient).astype(a.dtype) if a.dtype.kind == "i" else quotient


BINARY: dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]] = {
    "Add": np.add,
    "Div": _divide,
    "Mul": np.multiply,
    "Sub": np.subtract,
}
