"""What a rewrite is: an in-place ``onnx_ir`` pass that tells what it did and why it declined."""

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


class Rewrite(ir.passes.InPlacePass):
    """A pass that changes a graph place by place.

    Attributes:
        title: name in reports and in the model's metadata.
    """

    title: str

    @abc.abstractmethod
    def rewrite(self, graph: ir.Graph) -> Iterator[str | Skipped]:
        """Change ``graph``; yield a line for every change and a ``Skipped`` for every place that was left alone."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run ``rewrite`` and log what it tells."""
        changes = 0
        for outcome in self.rewrite(model.graph):
            if isinstance(outcome, Skipped):
                logger.info("%s: declined at %s: %s", self.title, outcome.node, outcome.reason)
            else:
                changes += 1
                logger.info("%s: %s", self.title, outcome)
        return ir.passes.PassResult(model, modified=changes > 0)
