"""What a rewrite is: an in-place ``onnx_ir`` pass that tells what it did, what moved where, and why it declined."""

from __future__ import annotations

import abc
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    """

    old: str
    new: str
    perm: tuple[int, ...] | None = None
    replicated: bool = False


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
