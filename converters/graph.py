"""Graphs on onnx-ir: a writer, the canonical QDQ form, parts that are cut out, and which shapes are stated.

``GraphWriter`` gives nodes and constants names that are unique and the same on every run. Importers and the head append
to a graph of their own (``GraphWriter(name)``) or to one that exists (``GraphWriter.appending``); rewrites insert into
a finished one (``GraphWriter.inserting``).

The canonical QDQ form, from pixels to weights, which every importer writes through these functions.

::

    image -> Transpose -> codes                                       pixels (codes are the pixels where scales allow)
    codes -> DequantizeLinear ----------------    weights (int8, OIHW) -> DequantizeLinear --> Conv -> QuantizeLinear ->
    codes bias (int32) -> DequantizeLinear(x * w) ----/

Every DequantizeLinear has its own scale and zero-point initialisers (two weights that share one make ONNX Runtime's
``session.x64quantprecision`` fail), a bias has exactly the scale ``x_scale * w_scale`` in float32, and
activations live in NCHW where they have rank 4.

``keep_static_shapes``: which shapes a finished graph states between its inputs and outputs. Every value of the network
(all that leads to the raw head) states its dtype and shape where the shape is fixed, the batch aside: compilers for
phones and NPUs partition graphs by them. Nothing else does: behind the head, and behind reshapes that leave a dynamic
batch to the runtime, shape inference invents names (``unk__0``) that nobody reads and that differ between its releases.
So a model's bytes depend on it only for shapes that have one answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters._ir import ir
from converters.errors import SourceFileError
from converters.heads.base import is_raw_output
from converters.quant import QuantParams, quantize
from converters.spec import CONTRACT_NAMES, IMAGE, NETWORK_IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from converters.spec import ImageInput, Rescaling

LARGEST_WEIGHT = 1e30  # two of them have a product beyond float32
OF_CODES = frozenset({"DequantizeLinear", "QuantizeLinear"})
FUSED_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})  # by ONNX Runtime, between pairs
OPSET = 19  # while a graph is written; ``converters.opset`` decides what the file gets
IR_VERSION = 9


Numbers = NDArray[Any] | np.generic | list[int]
Operand = ir.Value | tuple[Numbers, str] | None
"""What a node reads: a value, nothing, or the numbers and the name of a constant."""


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
        return cls.appending(graph, before)

    @classmethod
    def appending(cls, graph: ir.Graph, before: ir.Node | None = None) -> GraphWriter:
        """A writer whose nodes go to the end of an existing graph, or in front of ``before``."""
        writer = cls(str(graph.name))
        values = [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]
        writer.graph, writer._before, writer._taken = graph, before, {str(value.name) for value in values}
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

    def constant(self, numbers: Numbers, name: str) -> ir.Value:
        """Add an initialiser holding an array in its own dtype, or a list as int64."""
        array = np.array(numbers, np.int64) if isinstance(numbers, list) else numbers
        unique = self.unique(name)
        # not ir.tensor, which asks 0.1 ms long what kind of array it is
        tensor = ir.Tensor(np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array), name=unique)
        kind, shape = ir.TensorType(tensor.dtype), ir.Shape(np.shape(array))
        value = ir.Value(name=unique, type=kind, shape=shape, const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def op(self, op_type: str, inputs: Sequence[Operand], name: str, **attributes: Any) -> ir.Value:
        """Append a node of one output and return it; both carry ``name``."""
        return self.ops(op_type, inputs, [name], **attributes)[0]

    def ops(
        self, op_type: str, inputs: Sequence[Operand], names: Sequence[str], **attributes: Any
    ) -> Sequence[ir.Value]:
        """Append a node with one output per entry of ``names`` and return its outputs."""
        operands = [self.constant(*operand) if isinstance(operand, tuple) else operand for operand in inputs]
        unique = [self.unique(name) for name in names]
        outputs = [ir.Value(name=name) for name in unique]
        node = ir.node(op_type, operands, attributes=attributes or None, outputs=outputs, name=unique[0])
        if self._before is None:
            self.graph.append(node)
        else:
            self.graph.insert_before(self._before, node)
        return node.outputs

    def copy(
        self,
        node: ir.Node,
        ours: dict[ir.Value, ir.Value],
        names: Sequence[str],
        constant_name: Callable[[int, ir.Value], str],
        attributes: Mapping[str, ir.Attr],
    ) -> None:
        """Append another graph's node with results of these names, or near ones where the contract has them.

        ``ours`` says what the other graph's values are here, and is told the results. Constants become initialisers,
        called by their place and value; every reader of a scale or zero-point gets its own (shared ones make ONNX
        Runtime's exact kernels on x86 fail).
        """
        operands: list[ir.Value | None] = []
        for place, value in enumerate(node.inputs):
            if value is None or value in ours:
                operands.append(None if value is None else ours[value])
                continue
            array = constant_of(value)
            assert array is not None, f"{value.name} is neither computed nor constant"  # noqa: S101 - a sound graph
            if place and node.op_type in OF_CODES:
                operands.append(self.constant(array, f"{names[0]}/{'scale' if place == 1 else 'zero_point'}"))
            else:
                ours[value] = self.constant(array, constant_name(place, value))
                operands.append(ours[value])
        free = [free_name(name) for name in names]
        values = {name: attribute.value for name, attribute in attributes.items()}
        for old, new in zip(node.outputs, self.ops(node.op_type, operands, free, **values), strict=True):
            new.type, new.shape = old.type, old.shape
            ours[old] = new


NHWC_TO_NCHW = (0, 3, 1, 2)
NCHW_TO_NHWC = (0, 2, 3, 1)
CodeDtype = type[np.uint8] | type[np.int8]


def quantize_node(writer: GraphWriter, real: ir.Value, params: QuantParams, dtype: CodeDtype, name: str) -> ir.Value:
    """QuantizeLinear with one scale and zero-point; the codes are called ``name``."""
    return writer.op("QuantizeLinear", [real, *_numbers(writer, params, dtype, name)], name)


def dequantize_node(
    writer: GraphWriter, codes: ir.Value, params: QuantParams, dtype: type[np.integer[Any]], name: str
) -> ir.Value:
    """DequantizeLinear with one scale and zero-point, initialisers of its own; the reals are called ``name``."""
    return writer.op("DequantizeLinear", [codes, *_numbers(writer, params, dtype, name)], name)


def _numbers(writer: GraphWriter, params: QuantParams, dtype: type[np.integer[Any]], name: str) -> list[ir.Value]:
    scale = writer.constant(params.scalar_scale, f"{name}/scale")
    return [scale, writer.constant(dtype(params.scalar_zero_point), f"{name}/zero_point")]


def constant_node(
    writer: GraphWriter, codes: NDArray[np.integer[Any]], params: QuantParams, name: str
) -> tuple[ir.Value, ir.Value]:
    """Weights or a bias as an initialiser ``<name>/codes`` behind a DequantizeLinear.

    Args:
        writer: the graph to append to.
        codes: weights, output channels first, ``(O, I / groups, H, W)`` for Conv, ``(O, I)`` for Gemm with ``transB``;
            or an int32 bias ``(O,)``.
        params: one scale, or one per output channel; of a bias what ``bias_params`` gives.
        name: of the source tensor; made unique, since two operators may share one.

    Returns:
        (codes, reals).
    """
    name = writer.unique(name)
    value, real, dtype = writer.constant(codes, f"{name}/codes"), f"{name}/dequantized", codes.dtype.type
    if params.scale.size == 1:
        return value, dequantize_node(writer, value, params, dtype, real)
    numbers = (params.scale, f"{real}/scale"), (params.zero_point.astype(dtype), f"{real}/zero_point")
    return value, writer.op("DequantizeLinear", [value, *numbers], real, axis=0)


def bias_params(source: QuantParams, weights: QuantParams) -> QuantParams:
    """The only quantisation a bias may have: float32 ``x_scale * w_scale``, zero-point 0, per channel as weights."""
    scale = source.scalar_scale * weights.scale
    return QuantParams(scale, np.zeros(scale.shape, np.int64), None if scale.size == 1 else 0)


def image_pixels(writer: GraphWriter, image: ImageInput, batch: int | str, *, as_float: bool = False) -> ir.Value:
    """Declare the graph input ``image``, uint8 ``[N, H, W, C]``; returns the pixels as uint8 ``[N, C, H, W]``.

    ``as_float`` casts them first: TensorRT takes bytes as an input, and lets nothing but a Cast read them.
    """
    value = writer.input(IMAGE, ir.DataType.UINT8, [batch, *image.shape])
    if as_float:
        value = writer.op("Cast", [value], "pixels/float", to=int(ir.DataType.FLOAT))
        pixels = writer.op("Transpose", [value], "pixels", perm=list(NHWC_TO_NCHW))
        pixels.dtype = ir.DataType.FLOAT
        return pixels
    return writer.op("Transpose", [value], "pixels", perm=list(NHWC_TO_NCHW))


def rescaled_pixels(writer: GraphWriter, pixels: ir.Value, rescaling: Rescaling) -> ir.Value:
    """Pixels as the float32 numbers a network sees: ``p * scale + offset``, both steps rounded to float32."""
    real = pixels
    if pixels.dtype != ir.DataType.FLOAT:
        real = writer.op("Cast", [pixels], "pixels/float", to=int(ir.DataType.FLOAT))
    scaled = writer.op("Mul", [real, (np.float32(rescaling.scale), "rescaling/scale")], "pixels/scaled")
    return writer.op("Add", [scaled, (np.float32(rescaling.offset), "rescaling/offset")], "pixels/rescaled")


def pixel_codes(writer: GraphWriter, pixels: ir.Value, params: QuantParams, dtype: CodeDtype, name: str) -> ir.Value:
    """Codes of a tensor whose uint8 codes are the pixels: the pixels themselves, or shifted by 128 for int8.

    ``pixels`` are uint8, and ``params`` the tensor's quantisation in codes of ``dtype``.
    """
    if dtype is np.uint8:
        return pixels
    real = dequantize_node(writer, pixels, params.shifted(128), np.uint8, f"{name}/pixels")
    return quantize_node(writer, real, params, np.int8, name)


def pixels_are_codes(rescaling: Rescaling, params: QuantParams, dtype: CodeDtype) -> bool:
    """Whether quantising the rescaled pixel gives the pixel back (as uint8 code), for all 256 of them."""
    shift = 0 if dtype is np.uint8 else 128
    pixels = np.arange(256, dtype=np.float32)
    real = pixels * np.float32(rescaling.scale) + np.float32(rescaling.offset)
    codes = quantize(real, params.scalar_scale, params.scalar_zero_point + shift, np.uint8)
    return bool((codes == pixels).all())


def require_finite(graph: ir.Graph, file: str) -> None:
    """Refuse weights that no training ends with; lone numbers may be as large as a limit of an activation.

    Raises:
        SourceFileError: a constant holds NaN, or an array of them infinity or more than ``LARGEST_WEIGHT``.
    """
    for name, value in graph.initializers.items():
        array = None if value.const_value is None else value.const_value.numpy()
        if array is None or array.dtype.kind != "f" or not array.size:
            continue
        largest = float(np.abs(array).max())  # NaN where one is
        if np.isnan(largest) or (array.size > 1 and largest > LARGEST_WEIGHT):
            raise SourceFileError(
                f"{file}: constant {name!r} holds {largest:g}, expected numbers up to {LARGEST_WEIGHT:g}; "
                "train or export again"
            )


def constant_of(value: ir.Value | None) -> NDArray[Any] | None:
    """The array of a constant; None for anything else."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def constant_at(node: ir.Node, position: int) -> NDArray[Any] | None:
    """The array of an operand that is constant; None where it is computed or absent."""
    return constant_of(node.inputs[position]) if position < len(node.inputs) else None


def free_name(name: str) -> str:
    """A name that is none of the contract's."""
    return f"{name}#source" if name in CONTRACT_NAMES else name


def static_shape(value: ir.Value | None, *, open_batch: bool = False) -> tuple[int, ...] | None:
    """A value's shape; None where a size is open. ``open_batch`` reads an open first size as 1."""
    if value is None or value.shape is None:
        return None
    sizes = list(value.shape.dims)
    if open_batch and sizes and not isinstance(sizes[0], int):
        sizes[0] = 1
    fixed = tuple(size for size in sizes if isinstance(size, int))
    return fixed if len(fixed) == len(sizes) else None


def infer_shapes(model: ir.Model) -> None:
    """State every dtype and shape that ONNX can infer, in place."""
    from onnx_ir.passes import common

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
    """The nodes from which the raw outputs are computed, in execution order; none where there are no such values.

    Of what makes the network's picture of a photograph of any size only the last.
    """
    resized = {v for node in graph if node.outputs[0].name == NETWORK_IMAGE for v in node.inputs if v is not None}
    inside = nodes_before(raw_values(graph), resized)
    return [node for node in graph if node in inside]


def raw_values(graph: ir.Graph) -> list[ir.Value]:
    """The raw outputs, inside a graph or at its end."""
    return [value for node in graph for value in node.outputs if is_raw_output(str(value.name))]


def nodes_before(outputs: Iterable[ir.Value], sources: Collection[ir.Value] = ()) -> set[ir.Node]:
    """The nodes that compute some values, back to the graph's inputs or to ``sources`` inside it."""
    open_values, nodes = list(outputs), set[ir.Node]()
    while open_values:
        value = open_values.pop()
        node = None if value in sources else value.producer()
        if node is not None and node not in nodes:
            nodes.add(node)
            open_values.extend(value for value in node.inputs if value is not None)
    return nodes


def float_products(graph: ir.Graph) -> list[ir.Node]:
    """Products of int8 codes that ONNX Runtime computes in float32 on processors other than Arm's.

    There it makes uint8 codes of int8 ones first, but only of those that one QuantizeLinear writes for one reader. A
    product that reads or gives other ones is not fused (session entry ``session.qdqisint8allowed`` fuses it), and its
    sums may fall on the other side of a half step.

    Source: microsoft/onnxruntime, onnxruntime/core/optimizer/qdq_transformer/qdq_s8_to_u8.cc.
    """
    return [node for node in graph if node.op_type in FUSED_PRODUCTS and _stays_in_float(node)]


def _stays_in_float(node: ir.Node) -> bool:
    behind = [use.node for use in node.outputs[0].uses()]
    if [reader.op_type for reader in behind] != ["QuantizeLinear"]:
        return False  # fused by no session
    read = [None if value is None else value.producer() for value in node.inputs]
    pairs = [source.inputs[0] for source in read if source is not None and source.op_type == "DequantizeLinear"]
    codes = [value for value in pairs if value is not None and constant_of(value) is None]
    zero_point = constant_at(behind[0], 2)
    if not codes or zero_point is None or zero_point.dtype != np.int8:
        return False
    return not all(_has_one_pair(value) for value in (*codes, behind[0].outputs[0]))


def _has_one_pair(codes: ir.Value) -> bool:
    """Whether a QuantizeLinear writes some codes, and one operator reads them, behind a DequantizeLinear."""
    writer, readers = codes.producer(), [use.node for use in codes.uses()]
    if writer is None or writer.op_type != "QuantizeLinear" or codes.is_graph_output():
        return False
    return [reader.op_type for reader in readers] == ["DequantizeLinear"] and len(readers[0].outputs[0].uses()) == 1


def cut_graph(graph: ir.Graph, outputs: Sequence[ir.Value], sources: Collection[ir.Value] = ()) -> ir.Graph:
    """A copy of the part of a graph that computes ``outputs``, with the constants that it reads.

    ``sources``, values inside the graph and none of ``outputs``, become inputs of the part, behind those of the graph.
    """
    inside = nodes_before(outputs, sources)
    read = {value for node in inside for value in node.inputs}
    part = ir.GraphView(
        [value for value in dict.fromkeys([*graph.inputs, *sources]) if value in read],
        outputs,
        nodes=[node for node in graph if node in inside],
        initializers=[value for value in graph.initializers.values() if value in read],
        opset_imports=graph.opset_imports,
        name=graph.name,
    )
    return part.clone()


def is_static(value: ir.Value, batch: int | str) -> bool:
    """Whether a value's dtype and every size is known, but a leading dynamic batch by the name ``batch``."""
    if value.dtype is None or value.shape is None:
        return False
    sizes = value.shape.dims
    return all(
        isinstance(size, int) or (axis == 0 and isinstance(batch, str) and str(size) == batch)
        for axis, size in enumerate(sizes)
    )
