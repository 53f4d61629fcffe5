"""Functions of one number: on 8-bit codes a table of 256 float32 results, else applied to every number.

``EXACT`` names those whose float32 result is defined to the last bit, so that every runtime that keeps to float32 makes the
same table; the exponential of a sigmoid is each runtime's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.integer.rounding import tabulate
from converters.integer.values import Quantized, Reals, Tabulated, Value, to_reals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

EXACT = frozenset({"LeakyRelu", "Relu", "Clip", "Round"})


def apply_function(node: ir.Node, inputs: Sequence[Value | None]) -> Value:
    """The result of a ``LeakyRelu``, ``Relu``, ``Clip``, ``Round`` or ``Sigmoid`` node."""
    x = inputs[0]
    assert x is not None, "a function has an argument"  # noqa: S101
    function, exact = _function(node, inputs), node.op_type in EXACT
    if isinstance(x, Quantized) and x.codes.dtype.itemsize == 1 and x.scale.size == 1:
        x = tabulate(x)
    if isinstance(x, Tabulated):
        return Tabulated(x.codes, function(x.reals), exact=x.exact and exact)
    reals = to_reals(x)
    return Reals(function(reals.array), exact=reals.exact and exact)


def _function(
    node: ir.Node, inputs: Sequence[Value | None]
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    if node.op_type == "LeakyRelu":
        slope = np.float32(node.attributes.get_float("alpha", 0.01))
        return lambda x: np.where(x >= 0, x, x * slope)
    if node.op_type == "Relu":
        return lambda x: np.maximum(x, np.float32(0))
    if node.op_type == "Round":
        return np.rint
    if node.op_type == "Clip":
        low, high = (_limit(inputs, position) for position in (1, 2))
        return lambda x: np.clip(x, low, high)
    return lambda x: np.float32(1) / (np.float32(1) + np.exp(-x))


def _limit(inputs: Sequence[Value | None], position: int) -> Any:
    """A bound of a Clip as float32; infinite where it is left out."""
    value = inputs[position] if len(inputs) > position else None
    return np.float32((-np.inf, np.inf)[position - 1]) if value is None else to_reals(value).array
