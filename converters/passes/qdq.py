"""Reading and writing QDQ patterns: the integer nodes between which every rewrite looks.

A *link* is one QuantizeLinear or DequantizeLinear with per-tensor constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Link:
    """A per-tensor QuantizeLinear or DequantizeLinear.

    Attributes:
        node: the node.
        scale: float32 scale.
        zero_point: its zero-point.
        dtype: dtype of the codes.
    """

    node: ir.Node
    scale: np.float32
    zero_point: int
    dtype: np.dtype[np.generic]

    @property
    def source(self) -> ir.Value:
        """What the node reads."""
        return _present(self.node.inputs[0])

    @property
    def result(self) -> ir.Value:
        """What the node writes."""
        return self.node.outputs[0]

    def matches(self, other: Link) -> bool:
        """Whether both map codes to the same reals, bit for bit."""
        return (self.scale, self.zero_point, self.dtype) == (other.scale, other.zero_point, other.dtype)


def link(found: ir.Node | None, op_type: str) -> Link | None:
    """``found`` as a link if it is an ``op_type`` with constant scalar scale and zero-point."""
    if found is None or found.op_type != op_type or len(found.inputs) != 3:
        return None
    scale, zero_point = (ir.convenience.get_const_tensor(_present(value)) for value in found.inputs[1:])
    if scale is None or zero_point is None or scale.size != 1 or zero_point.size != 1:
        return None
    codes = zero_point.numpy()
    return Link(found, np.float32(scale.numpy().reshape(())), int(codes.reshape(())), codes.dtype)


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads ``value``; None where several do, or where it is a graph output."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    return next(iter(uses)).node


def producer(value: ir.Value | None) -> ir.Node | None:
    """The node that writes ``value``; None for inputs, initialisers and absent operands."""
    return None if value is None else value.producer()


def node(
    op_type: str, inputs: Sequence[ir.Value | None], name: str, attributes: Iterable[ir.Attr] = ()
) -> ir.Node:
    """A node of one result; both carry ``name``."""
    return ir.Node("", op_type, inputs, attributes, outputs=[ir.Value(name=name)], name=name)


def _present(value: ir.Value | None) -> ir.Value:
    assert value is not None, "Q/DQ inputs are never omitted in the graphs that importers write"  # noqa: S101
    return value
