"""Kernels of the exact evaluation: real arithmetic, functions, reductions, and moving of numbers.

Operators on several real numbers: sums, products, means, softmax, interpolation, in float32 as ONNX defines them.
Runtimes order these operations as they like, so the last bit of a result is their own (``Reals.exact`` is False), and a
code that lies on an edge may come out one higher or lower. One sum or product of float32 numbers has only one result,
but two dequantised operands are fused with what is around them. Sums of integers are exact.

Functions of one number: on 8-bit codes a table of 256 float32 results, else applied to every number. ``EXACT`` names
those whose float32 result is defined to the last bit, so that every runtime that keeps to float32 makes the same table;
the exponential of a sigmoid is each runtime's own.

Operators that only move numbers: codes are moved as they are, and keep scale and zero-point.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from converters.integer.values import (
    FUSED_ROUNDING,
    Quantized,
    Reals,
    Tabulated,
    Value,
    first_of,
    reals_of,
    tabulate,
    to_reals,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from converters.integer.values import Inputs

CAST_TARGETS = (ir.DataType.INT32, ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.UINT8, ir.DataType.INT8)
REDUCTIONS: dict[str, Callable[..., NDArray[Any]]] = {
    "ReduceMax": lambda x, **over: x.max(**over),
    "ReduceMean": lambda x, **over: x.mean(dtype=np.float32, **over),
    "ReduceMin": lambda x, **over: x.min(**over),
    "ReduceSum": lambda x, **over: x.sum(dtype=x.dtype if x.dtype.kind == "i" else np.float32, **over),
}


def cast(node: ir.Node, inputs: Inputs) -> Value:
    """Cast between numbers of the dtypes that importers write."""
    array, target = to_reals(first_of(inputs)).array, ir.DataType(node.attributes.get_int("to"))
    if array.dtype.kind not in "iubf" or target not in CAST_TARGETS:
        raise NotImplementedError(f"casts {array.dtype} to {target}")
    return Reals(array.astype(target.numpy()))


def combine(node: ir.Node, inputs: Inputs) -> Value:
    """Add, Sub, Mul, Div or Pow with broadcasting."""
    a, b = reals_of(inputs)
    array = BINARY[node.op_type](a.array, b.array)
    scales = [float(value.scale.max()) for value in inputs if isinstance(value, Quantized)]
    if len(scales) < len(inputs):
        return Reals(array, exact=a.exact and b.exact and node.op_type != "Pow")
    # kernels fuse the two readings with what is around them: a sum of codes then differs by roundings of its terms
    doubt = np.inf if node.op_type == "Mul" else FUSED_ROUNDING * 255 * sum(scales)
    return Reals(array, exact=False, doubt=doubt)


def mat_mul(_node: ir.Node, inputs: Inputs) -> Value:
    """MatMul of computed operands, with broadcasting; runtimes multiply codes, or reals in an order of their own."""
    a, b = (value.array.astype(np.float64) for value in reals_of(inputs))
    return Reals((a @ b).astype(np.float32), exact=False)


def fold(node: ir.Node, inputs: Inputs) -> Value:
    """Max, Min or Sum of any number of operands, in their order, codes or reals, with broadcasting."""
    operands = reals_of(inputs)
    array = reduce(FOLDS[node.op_type], [value.array for value in operands])
    return Reals(array, exact=all(value.exact for value in operands))


def prelu(_node: ir.Node, inputs: Inputs) -> Value:
    """PRelu with broadcast slopes."""
    x, slopes = reals_of(inputs)
    return Reals(np.where(x.array >= 0, x.array, x.array * slopes.array), x.exact and slopes.exact)


def softmax(node: ir.Node, inputs: Inputs) -> Value:
    """Softmax along one axis."""
    real, axis = to_reals(first_of(inputs)).array, node.attributes.get_int("axis", -1)
    raised = np.exp(real - real.max(axis, keepdims=True))
    return Reals(raised / raised.sum(axis, keepdims=True, dtype=np.float32), exact=False)


def arg_max(node: ir.Node, inputs: Inputs) -> Value:
    """The first place of the largest number along an axis; of equal numbers every runtime takes the first, too."""
    array, axis = to_reals(first_of(inputs)).array, node.attributes.get_int("axis", 0)
    places = np.asarray(array.argmax(axis))
    return Reals(np.expand_dims(places, axis) if node.attributes.get_int("keepdims", 1) else places)


def cum_sum(_node: ir.Node, inputs: Inputs) -> Value:
    """CumSum along a constant axis, from the first element on."""
    x, axis = reals_of(inputs)
    return Reals(np.cumsum(x.array, axis=int(axis.array), dtype=x.array.dtype), exact=x.exact)


def reduce_values(node: ir.Node, inputs: Inputs) -> Value:
    """A node of ``REDUCTIONS`` over constant axes: an operand or, in older opsets, an attribute."""
    x, *operand = (value.array for value in reals_of(inputs))
    axes = operand[0] if operand else node.attributes.get_ints("axes", [])
    keep = bool(node.attributes.get_int("keepdims", 1))
    array = REDUCTIONS[node.op_type](x, axis=tuple(int(axis) for axis in axes), keepdims=keep)
    return Reals(array, exact=array.dtype.kind == "i" or node.op_type in ("ReduceMax", "ReduceMin"))


def resize(node: ir.Node, inputs: Inputs) -> Value:
    """Resize of images ``(N, C, H, W)`` by scales: nearest by whole factors, or linear.

    Raises:
        NotImplementedError: another kind of resize than importers write.
    """
    scales = inputs[2] if len(inputs) == 3 else None
    if scales is None:
        raise NotImplementedError("resizes to sizes, not by scales")
    reals = to_reals(first_of(inputs))
    array = reals.array
    nearest = node.attributes.get_string("mode", "nearest") == "nearest"
    rule = str(node.attributes.get_string("coordinate_transformation_mode", "half_pixel"))
    for axis, factor in enumerate(map(float, to_reals(scales).array[2:]), 2):
        array = array.repeat(round(factor), axis) if nearest else _interpolated(array, axis, factor, rule)
    return Reals(array, exact=nearest and reals.exact)


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


FOLDS = {"Max": np.maximum, "Min": np.minimum, "Sum": np.add}
BINARY: dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]] = {
    "Add": np.add,
    "Div": _divide,
    "Mul": np.multiply,
    "Pow": np.power,
    "Sub": np.subtract,
}


EXACT = frozenset({"Abs", "Floor", "Sign", "LeakyRelu", "Neg", "Relu", "Clip", "Round"})
PLAIN: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "Abs": np.abs,
    "Exp": np.exp,
    "Floor": np.floor,
    "Log": np.log,
    "Neg": np.negative,
    "Reciprocal": np.reciprocal,
    "Round": np.rint,
    "Sign": np.sign,
    "Sqrt": np.sqrt,
    "Tanh": np.tanh,
}


def apply_function(node: ir.Node, inputs: Inputs) -> Value:
    """The result of a ``LeakyRelu``, ``Relu``, ``Clip``, ``Sigmoid`` or ``HardSigmoid`` node, or one of ``PLAIN``."""
    x = first_of(inputs)
    function, exact = _function(node, inputs), node.op_type in EXACT
    if isinstance(x, Quantized) and x.codes.dtype.itemsize == 1 and x.scale.size == 1:
        x = tabulate(x)
    if isinstance(x, Tabulated):
        return Tabulated(x.codes, function(x.reals), exact=x.exact and exact)
    reals = to_reals(x)
    return Reals(function(reals.array), exact=reals.exact and exact)


def _function(node: ir.Node, inputs: Inputs) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    if node.op_type == "LeakyRelu":
        slope = np.float32(node.attributes.get_float("alpha", 0.01))
        return lambda x: np.where(x >= 0, x, x * slope)
    if node.op_type == "Relu":
        return lambda x: np.maximum(x, np.float32(0))
    if node.op_type in PLAIN:
        return PLAIN[node.op_type]
    if node.op_type == "Clip":
        low, high = (_limit(inputs, position) for position in (1, 2))
        return lambda x: np.clip(x, low, high)
    if node.op_type == "HardSigmoid":
        slope, half = (np.float32(node.attributes.get_float(*pair)) for pair in (("alpha", 0.2), ("beta", 0.5)))
        return lambda x: np.clip(x * slope + half, np.float32(0), np.float32(1))
    return lambda x: np.float32(1) / (np.float32(1) + np.exp(-x))


def _limit(inputs: Inputs, position: int) -> Any:
    """A bound of a Clip as float32; infinite where it is left out."""
    value = inputs[position] if len(inputs) > position else None
    return np.float32((-np.inf, np.inf)[position - 1]) if value is None else to_reals(value).array


def move(node: ir.Node, inputs: Inputs) -> list[Value]:
    """The results of a node of ``MOVERS``; one, but for Split."""
    x = first_of(inputs)
    operands = [None if value is None else to_reals(value).array for value in inputs[1:]]
    if isinstance(x, Tabulated) or (isinstance(x, Quantized) and x.scale.size == 1):
        return [replace(x, codes=codes) for codes in MOVERS[node.op_type](node, x.codes, operands)]
    reals = to_reals(x)
    return [Reals(array, reals.exact) for array in MOVERS[node.op_type](node, reals.array, operands)]


def pad(node: ir.Node, inputs: Inputs) -> Value:
    """Pad with a constant: real 0 is the zero-point, another value stands for itself."""
    x, (pads, *value) = first_of(inputs), reals_of(inputs[1:])
    fill = value[0].array.reshape(()) if value else np.float32(0)
    if node.attributes.get_string("mode", "constant") != "constant":
        raise NotImplementedError("pads with another mode than 'constant'")
    widths = np.reshape(pads.array, (2, -1)).T
    if isinstance(x, Quantized) and x.scale.size == 1 and fill == 0:
        return x.with_codes(np.pad(x.codes, widths, constant_values=int(x.zero_point)))
    reals = to_reals(x)
    return Reals(np.pad(reals.array, widths, constant_values=fill), reals.exact)


def concatenate(node: ir.Node, inputs: Inputs) -> Value:
    """Concat: of codes where all are read alike, else of reals."""
    axis, values = node.attributes.get_int("axis", 0), [value for value in inputs if value is not None]
    first = values[0]
    if isinstance(first, Quantized) and all(isinstance(v, Quantized) and first.reads_like(v) for v in values):
        codes = [value.codes for value in values if isinstance(value, Quantized)]
        return first.with_codes(np.concatenate(codes, axis))
    reals = [to_reals(value) for value in values]
    return Reals(np.concatenate([r.array for r in reals], axis), exact=all(r.exact for r in reals))


def _reshape(node: ir.Node, x: NDArray[Any], operands: Sequence[Any]) -> list[NDArray[Any]]:
    if node.attributes.get_int("allowzero", 0):
        raise NotImplementedError("reshapes to sizes of 0")
    sizes = [x.shape[axis] if size == 0 else int(size) for axis, size in enumerate(operands[0])]
    return [x.reshape(sizes)]


def _slice(_node: ir.Node, x: NDArray[Any], operands: Sequence[Any]) -> list[NDArray[Any]]:
    starts, ends, *rest = operands  # axes and steps may be left out
    axes = rest[0] if rest and rest[0] is not None else range(len(starts))
    steps = rest[1] if len(rest) > 1 and rest[1] is not None else [1] * len(starts)
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        stop = int(end) if end > np.iinfo(np.int64).min else None  # ONNX's word for "before the first"
        index[int(axis)] = slice(int(start), stop, int(step))
    return [x[tuple(index)]]


MOVERS: dict[str, Callable[[ir.Node, NDArray[Any], Sequence[Any]], list[NDArray[Any]]]] = {
    "Gather": lambda node, x, operands: [np.take(x, operands[0], axis=node.attributes.get_int("axis", 0))],
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": lambda node, x, sizes: np.split(x, np.cumsum(sizes[0])[:-1], node.attributes.get_int("axis", 0)),
    "Tile": lambda _, x, operands: [np.tile(x, operands[0])],
    "Transpose": lambda node, x, _: [x.transpose(node.attributes.get_ints("perm", tuple(range(x.ndim))[::-1]))],
}
