"""A thin writer over onnx_ir: nodes, constants, and names that are unique and the same on every run.

Importers and the head append to a graph of their own (``GraphWriter(name)``) or to one that exists
(``GraphWriter.appending``); rewrites insert into a finished one (``GraphWriter.inserting``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

OPSET = 19  # while a graph is written; ``converters.opset`` decides what the file gets
IR_VERSION = 9


class GraphWriter:
    """Adds nodes to one ``onnx_ir.Graph`` in execution order.

    Names come from the caller; a name that is taken gets ``_2``, ``_3`` and so on, so the order of calls decides them.
    """

    def __init__(self, name: str) -> None:
        self.graph = ir.Graph([], [], nodes=[], name=name, opset_imports={"": OPSET})
        self._taken: set[str] = set()
        self._before: ir.Node | None = None

    @classmethod
    def inserting(cls, graph: ir.Graph, before: ir.Node) -> GraphWriter:
        """A writer whose nodes go in front of ``before`` in an existing graph."""
        writer = cls(str(graph.name))
        writer.graph, writer._before, writer._taken = graph, before, _names_in(graph)
        return writer

    @classmethod
    def appending(cls, graph: ir.Graph) -> GraphWriter:
        """A writer whose nodes go to the end of an existing graph."""
        writer = cls(str(graph.name))
        writer.graph, writer._taken = graph, _names_in(graph)
        return writer

    def unique(self, name: str) -> str:
        """Reserve ``name``, or the first free variation of it."""
        candidate, n = name, 1
        while candidate in self._taken:
            n += 1
            candidate = f"{name}_{n}"
        self._taken.add(candidate)
        return candidate

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        """Declare a graph input."""
        value = ir.Value(name=self.unique(name), type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.graph.inputs.append(value)
        return value

    def constant(self, array: NDArray[Any] | np.generic, name: str) -> ir.Value:
        """Add an initialiser holding ``array`` in its own dtype."""
        unique = self.unique(name)
        tensor = ir.tensor(np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array), name=unique)
        value = ir.Value(
            name=unique, type=ir.TensorType(tensor.dtype), shape=ir.Shape(np.shape(array)), const_value=tensor
        )
        self.graph.register_initializer(value)
        return value

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        *,
        outputs: int = 1,
        **attributes: Any,
    ) -> ir.Value:
        """Append a node and return its first output; the node and its output carry ``name``."""
        return self.ops(op_type, inputs, [name] + [f"{name}:{i}" for i in range(1, outputs)], **attributes)[0]

    def ops(
        self, op_type: str, inputs: Sequence[ir.Value | None], names: Sequence[str], **attributes: Any
    ) -> Sequence[ir.Value]:
        """Append a node with one output per entry of ``names`` and return its outputs."""
        unique = [self.unique(name) for name in names]
        node = ir.node(
            op_type,
            inputs,
            attributes=attributes or None,
            outputs=[ir.Value(name=name) for name in unique],
            name=unique[0],
        )
        if self._before is None:
            self.graph.append(node)
        else:
            self.graph.insert_before(self._before, node)
        return node.outputs


def _names_in(graph: ir.Graph) -> set[str]:
    values = [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]
    return {str(value.name) for value in values}
