"""What a rewrite is: an in-place ``onnx_ir`` pass that tells what it did, what moved where, and why it declined.

All look between links: QuantizeLinear and DequantizeLinear nodes with per-tensor constants.
"""

from __future__ import annotations

import abc
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from converters.graph import constant_at, constant_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Moved:
    """A value that lives on under another name."""

    old: str  # its name before, which nothing has any more
    new: str  # the value that carries it now
    # how the axes were permuted: axis i of the new value is axis ``perm[i]`` of the old; None: not at all
    perm: tuple[int, ...] | None = None
    # whether the new value holds several copies of the old, in an arrangement that the rewrite's documentation tells
    replicated: bool = False
    shift: int = 0  # what was added to its codes and zero-point


@dataclass(frozen=True, slots=True)
class Changed:
    """A place that a rewrite changed."""

    what: str  # in words for the user of ``--verbose``
    # values that carry what others carried before; those that are gone without a successor need no entry
    moved: tuple[Moved, ...] = ()


class DeclinedError(Exception):
    """A place stays as it is; the message says why. Raised before anything of it is changed."""


class Rewrite(ir.passes.InPlacePass):
    """A pass that changes a graph place by place.

    Attributes:
        title: name in reports and in the model's metadata.
        op_type: the operator at whose nodes it looks.
    """

    title: str
    op_type: str

    def places(self, graph: ir.Graph) -> Iterable[ir.Node | ir.Value]:
        """Where to look: at every node of ``op_type`` that the graph has at the beginning."""
        return [node for node in graph if node.op_type == self.op_type]

    @abc.abstractmethod
    def rewrite_at(self, graph: ir.Graph, place: Any, /) -> Changed | None:
        """Change the graph around a place; None where there is nothing to change.

        Raises:
            DeclinedError: the place has to stay.
        """

    def rewrite(self, graph: ir.Graph) -> Iterator[Changed | DeclinedError]:
        """Change ``graph`` in place and log what is done; yield every change, and every refusal."""
        for place in self.places(graph):
            try:
                changed = self.rewrite_at(graph, place)
            except DeclinedError as reason:
                logger.info("%s: declined at %s: %s", self.title, place.name, reason)
                yield reason
            else:
                if changed is not None:
                    logger.info("%s: %s", self.title, changed.what)
                    yield changed

    def changes(self, model: ir.Model) -> tuple[Changed, ...]:
        """Run ``rewrite`` and return its changes."""
        return tuple(outcome for outcome in self.rewrite(model.graph) if isinstance(outcome, Changed))

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run ``rewrite`` as an ``onnx_ir`` pass."""
        return ir.passes.PassResult(model, modified=bool(self.changes(model)))


@dataclass(frozen=True, slots=True)
class Link:
    """A per-tensor QuantizeLinear or DequantizeLinear."""

    node: ir.Node
    scale: np.float32
    zero_point: int
    dtype: np.dtype[np.generic]  # of the codes

    @property
    def source(self) -> ir.Value:
        """What the node reads."""
        value = self.node.inputs[0]
        assert value is not None, "Q/DQ inputs are never omitted in the graphs that importers write"  # noqa: S101
        return value

    @property
    def result(self) -> ir.Value:
        """What the node writes."""
        return self.node.outputs[0]

    def matches(self, other: Link) -> bool:
        """Whether both map codes to the same reals, bit for bit."""
        return (self.scale, self.zero_point, self.dtype) == (other.scale, other.zero_point, other.dtype)


def link(node: ir.Node | None, op_type: str) -> Link | None:
    """``node`` as a link if it is an ``op_type`` with constant scalar scale and zero-point."""
    if node is None or node.op_type != op_type or len(node.inputs) != 3:
        return None
    scale, zero_point = (constant_of(value) for value in node.inputs[1:])
    if scale is None or zero_point is None or scale.size != 1 or zero_point.size != 1:
        return None
    return Link(node, np.float32(scale.reshape(())), int(zero_point.reshape(())), zero_point.dtype)


def dequantize_before(value: ir.Value | None) -> Link | None:
    """The DequantizeLinear that gives ``value``."""
    return link(producer(value), "DequantizeLinear")


def quantize_behind(value: ir.Value) -> Link | None:
    """The QuantizeLinear that alone reads ``value``."""
    return link(only_consumer(value), "QuantizeLinear")


def pair_around(node: ir.Node) -> tuple[Link, Link]:
    """The DequantizeLinear in front of a node and the QuantizeLinear behind it.

    Raises:
        DeclinedError: it is not between such a pair, or others read its result.
    """
    before = dequantize_before(node.inputs[0])
    after = quantize_behind(node.outputs[0])
    if before is None or after is None:
        raise DeclinedError("not between one DequantizeLinear and one QuantizeLinear that nothing else reads")
    return before, after


def equal_pair_around(node: ir.Node) -> tuple[Link, Link]:
    """``pair_around``, of one scale and zero-point."""
    before, after = pair_around(node)
    if not before.matches(after):
        raise DeclinedError("it changes scale or zero-point")
    return before, after


def pair_before(value: ir.Value | None) -> tuple[Link, Link] | None:
    """The QuantizeLinear and the DequantizeLinear behind it that give ``value``."""
    dequantize = dequantize_before(value)
    quantize = None if dequantize is None else link(producer(dequantize.source), "QuantizeLinear")
    return None if dequantize is None or quantize is None else (quantize, dequantize)


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads ``value``; None where several do, or where it is a graph output."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    return next(iter(uses)).node


def require_zeros(pad: ir.Node, what: str) -> None:
    """Decline a Pad that fills with anything but a constant 0; the reason calls it ``what``."""
    if pad.attributes.get_string("mode", "constant") != "constant":
        raise DeclinedError(f"{what} does not pad with a constant")
    value = constant_at(pad, 2)
    if (len(pad.inputs) > 2 and pad.inputs[2] is not None) and (value is None or value.any()):
        raise DeclinedError(f"{what} pads with another value than 0")


def require_stated_padding(node: ir.Node) -> None:
    """Decline a node whose padding follows from its input's size."""
    if node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise DeclinedError("its padding is automatic")


def producer(value: ir.Value | None) -> ir.Node | None:
    """The node that writes ``value``; None for inputs, initialisers and absent operands."""
    return None if value is None else value.producer()


def new_node(op_type: str, inputs: Sequence[ir.Value | None], name: str, attributes: Iterable[ir.Attr] = ()) -> ir.Node:
    """A node of one result; both carry ``name``."""
    return ir.Node("", op_type, inputs, attributes, outputs=[ir.Value(name=name)], name=name)


def take_over(graph: ir.Graph, new: ir.Value, old: ir.Value) -> None:
    """Let ``new`` stand for ``old``, under its name; what nobody reads any more is removed."""
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    new.name, new.type, new.shape, old.name = old.name, old.type, old.shape, None
    remove_unread(graph, producer(old))


def remove_unread(graph: ir.Graph, node: ir.Node | None) -> None:
    """Remove a node whose results nobody reads, then those in front of it likewise."""
    if node is None or node.graph is None or any(value.uses() or value.is_graph_output() for value in node.outputs):
        return
    sources = [producer(value) for value in node.inputs]
    graph.remove(node, safe=True)
    for source in sources:
        remove_unread(graph, source)
