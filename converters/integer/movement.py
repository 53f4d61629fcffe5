"""Operators that only move numbers: codes are moved as they are, and keep scale and zero-point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.integer.values import Quantized, Reals, Tabulated, Value, to_reals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray


def move(node: ir.Node, inputs: Sequence[Value | None]) -> list[Value]:
    """The results of a node of ``MOVERS``; one, but for Split."""
    x = inputs[0]
    assert x is not None, "something is moved"  # noqa: S101
    operands = [None if value is None else to_reals(value).array for value in inputs[1:]]
    carrier, moved = _carrier(x)
    arrays = MOVERS[node.op_type](node, moved, operands)
    return [_carried(carrier, array) for array in arrays]


def pad(node: ir.Node, inputs: Sequence[Value | None]) -> Value:
    """Pad with a constant: real 0 is the zero-point, another value stands for itself."""
    x, pads = inputs[0], inputs[1]
    assert x is not None, "something is padded"  # noqa: S101
    assert pads is not None, "by something"  # noqa: S101
    value = inputs[2] if len(inputs) > 2 else None
    fill = np.float32(0) if value is None else to_reals(value).array.reshape(())
    if node.attributes.get_string("mode", "constant") != "constant":
        msg = "pads with another mode than 'constant'"
        raise NotImplementedError(msg)
    widths = np.reshape(to_reals(pads).array, (2, -1)).T
    if isinstance(x, Quantized) and x.scale.size == 1 and fill == 0:
        return x.with_codes(np.pad(x.codes, widths, constant_values=int(x.zero_point)))
    reals = to_reals(x)
    return Reals(np.pad(reals.array, widths, constant_values=fill), reals.exact)


def concatenate(node: ir.Node, inputs: Sequence[Value | None]) -> Value:
    """Concat: of codes where all are read alike, else of reals."""
    axis, values = node.attributes.get_int("axis", 0), [value for value in inputs if value is not None]
    first = values[0]
    if isinstance(first, Quantized) and all(isinstance(v, Quantized) and first.reads_like(v) for v in values):
        codes = [value.codes for value in values if isinstance(value, Quantized)]
        return first.with_codes(np.concatenate(codes, axis))
    reals = [to_reals(value) for value in values]
    return Reals(np.concatenate([r.array for r in reals], axis), exact=all(r.exact for r in reals))


def _carrier(value: Value) -> tuple[Value, NDArray[Any]]:
    """What keeps the meaning, and the array that is moved."""
    if isinstance(value, Tabulated) or (isinstance(value, Quantized) and value.scale.size == 1):
        return value, value.codes
    reals = to_reals(value)
    return reals, reals.array


def _carried(carrier: Value, array: NDArray[Any]) -> Value:
    if isinstance(carrier, Quantized):
        return carrier.with_codes(array)
    if isinstance(carrier, Tabulated):
        return Tabulated(array, carrier.reals, carrier.exact)
    return Reals(array, to_reals(carrier).exact)


def _reshape(node: ir.Node, x: NDArray[Any], operands: Sequence[Any]) -> list[NDArray[Any]]:
    if node.attributes.get_int("allowzero", 0):
        msg = "reshapes to sizes of 0"
        raise NotImplementedError(msg)
    sizes = [x.shape[axis] if size == 0 else int(size) for axis, size in enumerate(operands[0])]
    return [x.reshape(sizes)]


def _transpose(node: ir.Node, x: NDArray[Any], _operands: Sequence[Any]) -> list[NDArray[Any]]:
    return [x.transpose(node.attributes.get_ints("perm", tuple(range(x.ndim))[::-1]))]


def _slice(_node: ir.Node, x: NDArray[Any], operands: Sequence[Any]) -> list[NDArray[Any]]:
    starts, ends, axes, steps = operands
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        stop = int(end) if end > np.iinfo(np.int64).min else None  # ONNX's word for "before the first"
        index[int(axis)] = slice(int(start), stop, int(step))
    return [x[tuple(index)]]


def _split(node: ir.Node, x: NDArray[Any], operands: Sequence[Any]) -> list[NDArray[Any]]:
    return list(np.split(x, np.cumsum(operands[0])[:-1], node.attributes.get_int("axis", 0)))


def _gather(node: ir.Node, x: NDArray[Any], operands: Sequence[Any]) -> list[NDArray[Any]]:
    return [np.take(x, operands[0], axis=node.attributes.get_int("axis", 0))]


def _tile(_node: ir.Node, x: NDArray[Any], operands: Sequence[Any]) -> list[NDArray[Any]]:
    return [np.tile(x, operands[0])]


MOVERS: dict[str, Callable[[ir.Node, NDArray[Any], Sequence[Any]], list[NDArray[Any]]]] = {
    "Gather": _gather,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Tile": _tile,
    "Transpose": _transpose,
}
