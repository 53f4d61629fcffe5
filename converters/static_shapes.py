"""Which shapes a finished graph states between its inputs and outputs.

Every value of the network (all that leads to the raw head) states its dtype and shape where the shape is fixed, the batch
aside: compilers for phones and NPUs partition graphs by them. Nothing else does: behind the head, and behind
reshapes that leave a dynamic batch to the runtime, shape inference invents names (``unk__0``) that nobody reads and
that differ between its releases. So a model's bytes depend on it only for shapes that have one answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_ir.passes import common

from converters.spec import HEAD

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir


def infer_shapes(model: ir.Model) -> None:
    """State every dtype and shape that ONNX can infer, in place."""
    common.ShapeInferencePass(data_prop=True)(model)


def keep_static_shapes(model: ir.Model, batch: int | str) -> None:
    """Of the inferred shapes keep the fixed ones of the network, in place; inputs and outputs are untouched."""
    for constant in model.graph.initializers.values():
        if not constant.is_graph_input():
            constant.shape = constant.type = None  # its tensor says both
    network = set(network_nodes(model.graph))
    for node in model.graph:
        for value in node.outputs:
            if value.is_graph_output() or (node in network and is_static(value, batch)):
                continue
            value.shape = value.type = None


def network_nodes(graph: ir.Graph) -> Sequence[ir.Node]:
    """The nodes from which the value ``head`` is computed, in execution order; none where there is no such value."""
    open_values = [value for node in graph for value in node.outputs if value.name == HEAD]
    found: set[ir.Node] = set()
    while open_values:
        node = open_values.pop().producer()
        if node is not None and node not in found:
            found.add(node)
            open_values.extend(value for value in node.inputs if value is not None)
    return [node for node in graph if node in found]


def is_static(value: ir.Value, batch: int | str) -> bool:
    """Whether a value's dtype and every size is known, but a leading dynamic batch by the name ``batch``."""
    if value.dtype is None or value.shape is None:
        return False
    sizes = value.shape.dims
    return all(
        isinstance(size, int) or (axis == 0 and isinstance(batch, str) and str(size) == batch)
        for axis, size in enumerate(sizes)
    )
