"""An ONNX file's main graph with what every value is: dtype, shape, constant or not, who writes and who reads it.

Nothing is run. Shapes are those of the file, completed by ONNX's own shape inference; a free leading dimension (the batch)
reads 1.

A finished model's graph, read-only: who computes a value, who reads it, and what a constant holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from xdet.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


@dataclass(frozen=True, slots=True)
class OnnxValue:
    """A value's numpy dtype and shape; None where the file does not tell."""

    dtype: str | None
    shape: tuple[int, ...] | None


@dataclass(frozen=True, eq=False, slots=True)
class OnnxGraph:
    """A graph that has been read.

    Attributes:
        file: the file's name, for messages.
        nodes: in the file's order.
        values: by name, as far as known.
        initializers: constants that stand in the file; with defaults of optional inputs.
        constants: names of all values that no input reaches.
        roots: constant value -> the initializer behind it: itself, or the first operand of what computes it (DQ, Transpose).
        writers: value -> the node that computes it.
        readers: value -> the nodes that read it, in order.
        inputs: what the caller must feed.
        outputs: what the caller reads.
    """

    file: str
    nodes: tuple[onnx.NodeProto, ...]
    values: Mapping[str, OnnxValue]
    initializers: Mapping[str, onnx.TensorProto]
    constants: frozenset[str]
    roots: Mapping[str, onnx.TensorProto]
    writers: Mapping[str, onnx.NodeProto]
    readers: Mapping[str, Sequence[onnx.NodeProto]]
    inputs: tuple[str, ...]
    outputs: frozenset[str]


def load_onnx(data: bytes, file: str) -> onnx.ModelProto:
    """Decode an ONNX file.

    Raises:
        ModelError: it is damaged; see ``converters.sources.onnx.reader``.
    """
    from converters.errors import SourceFileError
    from converters.sources.onnx.reader import decode_onnx

    try:
        return decode_onnx(data, file)
    except SourceFileError as error:
        raise ModelError(*error.lines) from error


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
    """Check a model against the standard: operators have the inputs and attributes that they need, in an order that runs.

    Raises:
        ModelError: it breaks the standard, or is of a newer one than the installed onnx knows.
    """
    from converters.errors import SourceFileError
    from converters.sources.onnx import reader

    try:
        reader.require_valid(model, file)
    except SourceFileError as error:
        raise ModelError(*error.lines) from error


def read_graph(model: onnx.ModelProto, file: str) -> OnnxGraph:
    """Index the main graph of a model."""
    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    constants, roots = set(initializers), dict(initializers)
    writers: dict[str, onnx.NodeProto] = {}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        if not node.attribute or not any(a.HasField("g") for a in node.attribute):
            named = [name for name in node.input if name]
            if all(name in constants for name in named) and (named or node.op_type == "Constant"):
                constants.update(node.output)
                if node.input and node.input[0] in roots:
                    roots.update(dict.fromkeys(node.output, roots[node.input[0]]))
        writers.update(dict.fromkeys(node.output, node))
        for name in dict.fromkeys(node.input):
            readers.setdefault(name, []).append(node)
    return OnnxGraph(
        file=file,
        nodes=tuple(graph.node),
        values=_values(model),
        initializers=initializers,
        constants=frozenset(constants),
        roots=roots,
        writers=writers,
        readers=readers,
        inputs=tuple(v.name for v in graph.input if v.name not in initializers),
        outputs=frozenset(v.name for v in graph.output),
    )


def node_macs(graph: OnnxGraph, node: onnx.NodeProto) -> int:
    """Multiply-accumulates of one node for one image, edges counted as if the picture went on; 0 for other operators.

    Raises:
        ModelError: a shape that is needed is not known.
    """
    if node.op_type not in WEIGHT_INPUT:
        return 0
    weights = shape_of(graph, node.input[WEIGHT_INPUT[node.op_type]])
    if len(weights) < (2 if node.op_type == "Gemm" else 1):
        raise ModelError(
            f"'{graph.file}': {node.op_type} {node.name!r:.60} has weights of shape {list(weights)}"
        )
    if (
        node.op_type == "ConvTranspose"
    ):  # [in, out / groups, height, width]: every input value meets the kernel
        return math.prod(shape_of(graph, node.input[0])) * math.prod(weights[1:])
    values = math.prod(shape_of(graph, node.output[0]))
    if node.op_type in ("Conv", "ConvInteger", "QLinearConv"):  # [out, in / groups, height, width]
        return values * math.prod(weights[1:])
    if node.op_type == "Gemm":
        return values * weights[-1 if attribute(node, "transB", 0) else 0]
    return values * (weights[-2] if len(weights) > 1 else weights[0])


def shape_of(graph: OnnxGraph, name: str) -> tuple[int, ...]:
    """A value's shape.

    Raises:
        ModelError: it is not known.
    """
    value = graph.values.get(name)
    if value is None or value.shape is None:
        raise ModelError(
            f"'{graph.file}': the shape of value {name!r} is not fixed, so its bytes and operations cannot be counted; "
            f"export the model with fixed sizes"
        )
    return value.shape


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """A node's attribute, or ``default`` where it has none of that name."""
    from onnx import helper

    found = [entry for entry in node.attribute if entry.name == name]
    return helper.get_attribute_value(found[0]) if found else default


def _values(model: onnx.ModelProto) -> dict[str, OnnxValue]:
    """Dtype and shape of every value that the file or shape inference tells."""
    import onnx

    graph = model.graph
    named = {v.name for v in (*graph.value_info, *graph.output)}
    if any(name and name not in named for node in graph.node for name in node.output):
        try:
            graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        except (onnx.shape_inference.InferenceError, ValueError, OverflowError):
            graph = model.graph  # what is missing is told where it is needed
    found = {v.name: _value(v) for v in (*graph.value_info, *graph.output, *graph.input)}
    for tensor in model.graph.initializer:
        found[tensor.name] = OnnxValue(dtype_name(tensor.data_type), tuple(tensor.dims))
    return found


def _value(value: onnx.ValueInfoProto) -> OnnxValue:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return OnnxValue(dtype_name(tensor.elem_type), None)
    sizes = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    if sizes and sizes[0] is None:
        sizes[0] = 1  # the batch
    known = [size for size in sizes if size is not None]
    return OnnxValue(dtype_name(tensor.elem_type), tuple(known) if len(known) == len(sizes) else None)


def dtype_name(element: int) -> str | None:
    """Numpy's name of an ONNX element type (ONNX's own where numpy has none)."""
    from onnx import TensorProto

    if element == TensorProto.UNDEFINED or element not in TensorProto.DataType.values():
        return None
    name: str = TensorProto.DataType.Name(element).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


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
    """The main graph of an ONNX model by the names of its values, which a document's tensor map speaks of.

    Args:
        proto: the model, decoded.
        file: its name, for messages.

    Attributes:
        model: the same as onnx-ir holds it; to be read, not changed.
        nodes: its operators, in the file's order.

    Raises:
        ModelError: it breaks the standard: an operator without an input that it needs,
            codes that are read with a scale that is no positive number.
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
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """Value name -> the nodes that read it."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

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
            told = f"{scale.dtype} {list(scale.shape)}"
            if zero_point is not None:
                told += f", zero-point {zero_point.dtype} {list(zero_point.shape)}"
            raise ModelError(
                f"'{self.file}': {node.op} {node.name!r}: expected positive float32 scales and as many zero-points, found "
                f"{told}{'' if positive else ', not all positive'}; convert its source again"
            )

    def readers(self, name: str) -> tuple[Node, ...]:
        """The nodes that read a value."""
        return self.consumers.get(name, ())

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
