"""What a rewrite is: an in-place ``onnx_ir`` pass that tells what it did, what moved where, and why it declined.

Reading and writing QDQ patterns: the integer nodes between which every rewrite looks.

A *link* is one QuantizeLinear or DequantizeLinear with per-tensor constants.
"""

from __future__ import annotations

import abc
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A place that a rewrite looked at and left alone.

    Attributes:
        node: name of the node it looked at.
        reason: why, in words for the user of ``--verbose``.
    """

    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class Moved:
    """A value that lives on under another name.

    Attributes:
        old: its name before, which nothing has any more.
        new: the value that carries it now.
        perm: how the axes were permuted: axis i of the new value is axis ``perm[i]`` of the old; None: not at all.
        replicated: whether the new value holds several copies of the old, in an arrangement that the rewrite's
            documentation tells.
        shift: what was added to its codes and zero-point.
    """

    old: str
    new: str
    perm: tuple[int, ...] | None = None
    replicated: bool = False
    shift: int = 0


@dataclass(frozen=True, slots=True)
class Changed:
    """A place that a rewrite changed.

    Attributes:
        what: in words for the user of ``--verbose``.
        moved: values that carry what others carried before; those that are gone without a successor need no entry.
    """

    what: str
    moved: tuple[Moved, ...] = ()


class Rewrite(ir.passes.InPlacePass):
    """A pass that changes a graph place by place.

    Attributes:
        title: name in reports and in the model's metadata.
    """

    title: str

    @abc.abstractmethod
    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | Skipped]:
        """Change ``graph``; yield a ``Changed`` per change and a ``Skipped`` for every place that was left alone."""

    def changes(self, model: ir.Model) -> tuple[Changed, ...]:
        """Run ``rewrite``, log what it tells, and return its changes."""
        changes = []
        for outcome in self.rewrite(model.graph):
            if isinstance(outcome, Skipped):
                logger.info("%s: declined at %s: %s", self.title, outcome.node, outcome.reason)
            else:
                changes.append(outcome)
                logger.info("%s: %s", self.title, outcome.what)
        return tuple(changes)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run ``rewrite`` as an ``onnx_ir`` pass."""
        return ir.passes.PassResult(model, modified=bool(self.changes(model)))


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


def node(op_type: str, inputs: Sequence[ir.Value | None], name: str, attributes: Iterable[ir.Attr] = ()) -> ir.Node:
    """A node of one result; both carry ``name``."""
    return ir.Node("", op_type, inputs, attributes, outputs=[ir.Value(name=name)], name=name)


def _present(value: ir.Value | None) -> ir.Value:
    assert value is not None, "Q/DQ inputs are never omitted in the graphs that importers write"  # noqa: S101
    return value
