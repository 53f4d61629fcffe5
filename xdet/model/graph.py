"""An ONNX file as onnx-ir's graph: decoded and checked at this border, never run or changed.

``FinishedGraph`` is the same graph by the names that a document speaks of.
"""

from __future__ import annotations

import math
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from xdet.errors import ModelError, converter_errors

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    import onnx
    import onnx_ir as ir
    from numpy.typing import NDArray

# Matrix operators and which of their inputs is the weight (the right operand).
WEIGHT_INPUT = {
    "Conv": 1,
    "ConvInteger": 1,
    "ConvTranspose": 1,
    "Gemm": 1,
    "MatMul": 1,
    "MatMulInteger": 1,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
}
INTEGER_OPERATORS = frozenset({"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"})


def load_onnx(data: bytes, file: str) -> onnx.ModelProto:
    """Decode an ONNX file.

    Raises:
        ModelError: it is damaged; see ``converters.sources.onnx.reader``.
    """
    from converters.sources.onnx.reader import decode_onnx

    with converter_errors():
        return decode_onnx(data, file)


def model_from_proto(proto: onnx.ModelProto, file: str) -> ir.Model:
    """The same model as onnx-ir holds it; constants are shared, not copied.

    Raises:
        ModelError: onnx-ir does not know something in it.
    """
    from converters._ir import ir

    try:
        return ir.from_proto(proto)
    except ir.serde.SerdeError as error:
        reason = error.__cause__ or error
        raise ModelError(f"'{file}' cannot be read: {reason}; export it again") from error


def require_valid(model: onnx.ModelProto, file: str) -> None:
    """Check a model against the standard: operators have the inputs and attributes that they need, in order.

    Raises:
        ModelError: it breaks the standard, or is of a newer one than the installed onnx knows.
    """
    from converters.sources.onnx import reader

    with converter_errors():
        reader.require_valid(model, file)


def inferred_model(proto: onnx.ModelProto, file: str) -> ir.Model:
    """As ``model_from_proto``, with every dtype and shape that ONNX's inference adds to those of the file."""
    import onnx

    typed = {value.name for value in (*proto.graph.value_info, *proto.graph.output)}
    if any(name and name not in typed for node in proto.graph.node for name in node.output):
        # What stays unknown is named where it is needed.
        with suppress(onnx.shape_inference.InferenceError, ValueError, OverflowError):
            proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    return model_from_proto(proto, file)


def constant_values(graph: ir.Graph) -> set[ir.Value]:
    """Values that no input reaches: initialisers, with defaults of optional inputs, and what is computed of them."""
    constants = set(graph.initializers.values())
    for node in graph:
        read = [value for value in node.inputs if value is not None]
        runs_graph = any(attribute.type.name == "GRAPH" for attribute in node.attributes.values())
        if not runs_graph and all(value in constants for value in read) and (read or node.op_type == "Constant"):
            constants.update(node.outputs)
    return constants


def root_of(value: ir.Value | None, constants: Container[ir.Value]) -> ir.Value | None:
    """The initialiser behind a constant: itself, or the first operand of what computes it (DQ, Transpose)."""
    while value is not None and value in constants and (node := value.producer()) is not None:
        value = node.inputs[0] if node.inputs else None
    return value if value in constants else None


def readers_of(value: ir.Value) -> list[ir.Node]:
    """The nodes that read a value, in order, each once."""
    return list(dict.fromkeys(use.node for use in value.uses()))


def node_macs(node: ir.Node, file: str) -> int:
    """Multiply-accumulates of one node for one image, edges counted as if the picture went on; 0 for other operators.

    Raises:
        ModelError: a shape that is needed is not known.
    """
    if node.op_type not in WEIGHT_INPUT:
        return 0
    weights = shape_of(node.inputs[WEIGHT_INPUT[node.op_type]], file)
    if len(weights) < (2 if node.op_type == "Gemm" else 1):
        raise ModelError(f"'{file}': {node.op_type} {node.name!r:.60} has weights of shape {list(weights)}")
    if node.op_type == "ConvTranspose":  # [in, out / groups, height, width]: every input value meets the kernel
        return math.prod(shape_of(node.inputs[0], file)) * math.prod(weights[1:])
    values = math.prod(shape_of(node.outputs[0], file))
    if node.op_type in ("Conv", "ConvInteger", "QLinearConv"):  # [out, in / groups, height, width]
        return values * math.prod(weights[1:])
    if node.op_type == "Gemm":
        return values * weights[-1 if node.attributes.get_int("transB", 0) else 0]
    return values * (weights[-2] if len(weights) > 1 else weights[0])


def shape_of(value: ir.Value | None, file: str) -> tuple[int, ...]:
    """A value's shape; a free leading dimension (the batch) reads 1.

    Raises:
        ModelError: it is not known.
    """
    shape = None if value is None else value.shape if value.const_value is None else value.const_value.shape
    sizes = [1 if place == 0 and not isinstance(size, int) else size for place, size in enumerate(shape or ())]
    fixed = tuple(size for size in sizes if isinstance(size, int))
    if shape is None or len(fixed) < len(sizes):
        raise ModelError(
            f"'{file}': the shape of value {'' if value is None else value.name!r} is not fixed, so its bytes and "
            f"operations cannot be counted; export the model with fixed sizes"
        )
    return fixed


def dtype_name(element: int) -> str | None:
    """Numpy's name of an ONNX element type (ONNX's own where numpy has none)."""
    from onnx import TensorProto

    if element == TensorProto.UNDEFINED or element not in TensorProto.DataType.values():
        return None
    name: str = TensorProto.DataType.Name(element).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One operator of the graph."""

    name: str  # the file's, or that of its first output
    op: str  # its type, such as "Conv"
    inputs: tuple[str, ...]  # value names; empty text where an optional input is absent
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]  # by name, as Python numbers, texts (bytes decoded) and tuples


class FinishedGraph:
    """The main graph of an ONNX model by the names of its values, which a document's tensor map speaks of.

    ``model`` is the same as onnx-ir holds it, to be read, not changed; ``nodes`` stand in the file's order.

    Raises:
        ModelError: it breaks the standard: an operator without an input that it needs, codes that are read with a scale
            that is no positive number.
    """

    def __init__(self, proto: onnx.ModelProto, *, file: str) -> None:
        require_valid(proto, file)
        self.file, self.proto, self.model = file, proto, model_from_proto(proto, file)
        self.nodes = tuple(_record(node) for node in self.model.graph)
        for node in self.nodes:
            self._require_readable(node)

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """Value name -> the node that computes it."""
        return {output: node for node in self.nodes for output in node.outputs}

    @cached_property
    def _readers(self) -> Mapping[str, list[Node]]:
        readers: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                readers[name].append(node)
        return readers

    def constant(self, name: str) -> NDArray[Any] | None:
        """The array of an initialiser, None where ``name`` is none."""
        value = self.model.graph.initializers.get(name)
        return None if value is None or value.const_value is None else value.const_value.numpy()

    def _require_readable(self, node: Node) -> None:
        """Refuse a QuantizeLinear or DequantizeLinear whose constants give its codes no meaning."""
        if node.op not in ("QuantizeLinear", "DequantizeLinear"):
            return
        scale, zero_point = (self.constant(name) for name in (*node.inputs[1:3], "")[:2])
        if scale is None:
            return
        positive = scale.dtype == np.float32 and scale.size and (np.isfinite(scale) & (scale > 0)).all()
        if not positive or (zero_point is not None and zero_point.size != scale.size):
            found = f"{scale.dtype} {list(scale.shape)}"
            if zero_point is not None:
                found += f", zero-point {zero_point.dtype} {list(zero_point.shape)}"
            raise ModelError(
                f"'{self.file}': {node.op} {node.name!r}: expected positive float32 scales and as many zero-points, "
                f"found {found}{'' if positive else ', not all positive'}; convert its source again"
            )

    def readers(self, name: str) -> tuple[Node, ...]:
        """The nodes that read a value."""
        return tuple(self._readers.get(name, ()))

    def only_reader(self, name: str) -> Node | None:
        """The one node that reads a value; None where none or several do."""
        readers = self.readers(name)
        return readers[0] if len(readers) == 1 else None


def _record(node: ir.Node) -> Node:
    outputs = tuple(str(value.name) for value in node.outputs)
    return Node(
        node.name or outputs[0],
        node.op_type,
        tuple("" if value is None else str(value.name) for value in node.inputs),
        outputs,
        {name: _plain(attribute.value) for name, attribute in node.attributes.items()},
    )


def _plain(value: Any) -> Any:
    return tuple(value) if hasattr(value, "__len__") and not isinstance(value, str) else value
