"""A finished model's graph, read-only: who computes a value, who reads it, and what a constant holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from xdet.errors import ModelError
from xdet.onnx_graph import load_onnx

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One operator of the graph.

    Attributes:
        name: its name.
        op: its type, such as ``"Conv"``.
        inputs: value names; empty text where an optional input is absent.
        outputs: value names.
        attributes: by name, as Python numbers, texts (bytes decoded) and tuples.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


class FinishedGraph:
    """The main graph of an ONNX model.

    Args:
        model: the file's bytes.
        file: its name, for messages.

    Raises:
        ModelError: the bytes are no ONNX model, or one that breaks the standard: an operator without an input that it needs,
            codes that are read with a scale that is no positive number.
    """

    def __init__(self, model: bytes, *, file: str) -> None:
        import onnx

        proto = load_onnx(model, file)
        try:
            onnx.checker.check_model(proto)
        except onnx.checker.ValidationError as error:
            reason = " ".join(str(error).split())
            raise ModelError(
                f"'{file}' is no valid ONNX model: {reason}; convert its source again"
            ) from error
        self.file = file
        self._initializers = {tensor.name: tensor for tensor in proto.graph.initializer}
        self.nodes = tuple(
            Node(
                node.name or node.output[0],
                node.op_type,
                tuple(node.input),
                tuple(node.output),
                {a.name: _plain(onnx.helper.get_attribute_value(a)) for a in node.attribute},
            )
            for node in proto.graph.node
        )
        for node in self.nodes:
            self._require_readable(node)

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """Value name -> the node that computes it."""
        return {output: node for node in self.nodes for output in node.outputs}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """Value name -> the nodes that read it."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    def constant(self, name: str) -> NDArray[Any] | None:
        """The array of an initialiser, None where ``name`` is none."""
        from onnx import numpy_helper

        tensor = self._initializers.get(name)
        return None if tensor is None else np.asarray(numpy_helper.to_array(tensor))

    def _require_readable(self, node: Node) -> None:
        """Refuse a QuantizeLinear or DequantizeLinear whose constants give its codes no meaning."""
        if node.op not in ("QuantizeLinear", "DequantizeLinear"):
            return
        scale, zero_point = (self.constant(name) for name in (*node.inputs[1:3], "")[:2])
        if scale is None:
            return
        positive = scale.dtype == np.float32 and scale.size and (np.isfinite(scale) & (scale > 0)).all()
        if not positive or (zero_point is not None and zero_point.size != scale.size):
            told = f"{scale.dtype} {list(scale.shape)}"
            if zero_point is not None:
                told += f", zero-point {zero_point.dtype} {list(zero_point.shape)}"
            raise ModelError(
                f"'{self.file}': {node.op} {node.name!r}: expected positive float32 scales and as many zero-points, found "
                f"{told}{'' if positive else ', not all positive'}; convert its source again"
            )

    def has(self, name: str) -> bool:
        """Whether a value of this name exists."""
        return name in self._initializers or name in self.producers or name in self.consumers

    def readers(self, name: str) -> tuple[Node, ...]:
        """The nodes that read a value."""
        return self.consumers.get(name, ())

    def only_reader(self, name: str) -> Node | None:
        """The one node that reads a value; None where none or several do."""
        readers = self.readers(name)
        return readers[0] if len(readers) == 1 else None


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return tuple(value) if hasattr(value, "__len__") and not isinstance(value, str) else value
