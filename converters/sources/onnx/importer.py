"""An ONNX source's nodes behind uint8 pixels, whose layout and scale are brought to the source's in the graph.

::

    image (uint8, NHWC) -> Transpose -> Cast -> x scale + offset -> the source's own nodes -> outputs, channels last

Numeric effect: none behind the pixels. Every operator computes what it computes in the source, so the raw outputs are
bit for bit those of the source on the same kernels, fed with ``pixel * scale + offset`` in float32.

The float network of a quantised (QDQ) file: the same operators on the real numbers that its codes stand for. Before ->
after: a DequantizeLinear of constants -> their float32 numbers; QuantizeLinear and the DequantizeLinear behind it -> a
Clip to what the codes can hold, or nothing where no number lies beyond. The Clip is not left out on trust: quantisers
drop a Relu or Clip whose limits the codes keep. Numeric effect: no activation is rounded any more. Given the source's
own numbers in front of a pair, the result is within half a step of the source's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx_ir.passes import common

from converters._ir import ir
from converters.errors import OptionError, UnsupportedModelError, list_some
from converters.graph import NCHW_TO_NHWC, OF_CODES, GraphWriter, constant_at, free_name, image_pixels, rescaled_pixels
from converters.heads.base import match_outputs
from converters.quant import QuantParams, real_numbers
from converters.sources import ImportedNetwork, as_raw_output
from converters.sources.onnx.network import facts_from_onnx, fixed_graph, quant_params, turned_outputs
from converters.spec import TensorTwin

if TYPE_CHECKING:
    from converters.options import ConvertOptions
    from converters.sources.onnx.reader import OnnxSource
    from converters.spec import ActivationCodes, DetectorSpec

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def import_onnx(
    source: OnnxSource, writer: GraphWriter, spec: DetectorSpec, options: ConvertOptions
) -> ImportedNetwork:
    """Write an ONNX detector network into ``writer``'s graph.

    Raises:
        OptionError: a batch that the file does not take, or codes that it does not have.
        UnsupportedModelError: as ``fixed_graph``.
    """
    if options.batch != 1 and not source.any_batch:
        raise OptionError(
            f"{source.file}: takes one image, and --batch {options.batch} needs a model whose batch is open; export it "
            "so (Ultralytics: dynamic=True), or leave --batch out"
        )
    graph = fixed_graph(source, options.batch_size)
    quantization = summarise_quantization(graph)
    if options.dequantize:
        dequantize_graph(graph, source.file)
        quantization = f"float32 of {quantization}"
    codes = activation_codes(graph)
    if codes != "float32" and options.quantize != "none":
        raise OptionError(f"{source.file}: is quantised already; leave --quantize out")
    if options.quantize == "none" and options.activations != "uint8":
        raise OptionError(
            f"{source.file}: an ONNX source keeps the codes that it has, {codes}; leave --activations "
            f"{options.activations} out"
        )
    as_float = options.dequantize and source.dtype == "float32"
    pixels = image_pixels(writer, spec.image, options.batch_size, as_float=as_float)
    if source.dtype == "float32":
        pixels = rescaled_pixels(writer, pixels, spec.image.rescaling)
    if not source.is_nchw:
        pixels = writer.op("Transpose", [pixels], "pixels/nhwc", perm=list(NCHW_TO_NHWC))
    writer.graph.opset_imports[""] = graph.opset_imports[""]
    ours = {graph.inputs[0]: pixels}
    for node in graph:
        name = str(node.outputs[0].name)
        names = [str(value.name or f"{name}:{place}") for place, value in enumerate(node.outputs)]
        writer.copy(node, ours, names, lambda _, value: free_name(str(value.name)), node.attributes)
    turned, shapes = turned_outputs(graph), [output.shape for output in facts_from_onnx(source).outputs]
    raw = []
    for output, place in zip(spec.network_outputs, match_outputs(shapes, spec.network_outputs), strict=True):
        value = ours[graph.outputs[place]]
        if turned[place]:
            value = writer.op("Transpose", [value], f"{output.value_name}/nhwc", perm=list(NCHW_TO_NHWC))
        raw.append(as_raw_output(writer, value, shapes[place], output))
    return ImportedNetwork(
        outputs=tuple(raw),
        twins={
            str(old.name): TensorTwin(str(new.name), "same", 0)
            for old, new in ours.items()
            if old.name and not old.is_graph_input()
        },
        quantization=quantization,
        activations=codes,
        canonical=False,
        leaky_relu="float",
    )


def activation_codes(graph: ir.Graph) -> ActivationCodes:
    """The dtype of most codes that QuantizeLinear writes; ``"float32"`` where it writes none."""
    written = Counter(value.dtype for node in graph if node.op_type == "QuantizeLinear" for value in node.outputs)
    kinds: dict[ir.DataType | None, ActivationCodes] = {ir.DataType.UINT8: "uint8", ir.DataType.INT8: "int8"}
    counts = [(count, kinds[dtype]) for dtype, count in written.items() if dtype in kinds]
    return max(counts)[1] if counts else "float32"


def summarise_quantization(graph: ir.Graph) -> str:
    """The weights' dtypes and granularity: ``"int8 per-channel"``, ``"float32"``."""
    dtypes, scales = set(), [0]
    for node in graph:
        weight = node.inputs[1] if node.op_type in WEIGHTED and len(node.inputs) > 1 else None
        producer = None if weight is None else weight.producer()
        if producer is not None and producer.op_type == "DequantizeLinear" and producer.inputs[0] is not None:
            dtypes.add(str(producer.inputs[0].dtype).lower())
            scale = constant_at(producer, 1)
            scales.append(1 if scale is None else scale.size)
        elif weight is not None and weight.dtype is not None:
            dtypes.add(weight.dtype.numpy().name)
    granularity = ["", " per-tensor", " per-channel"][min(max(scales), 2)]
    return "/".join(sorted(dtypes)) + granularity if dtypes else "none"


INTEGER_OPERATORS = frozenset({"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"})
KEEP = frozenset({"Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
Range = tuple[float, float]


@dataclass(frozen=True, eq=False)
class QdqPair:
    """A QuantizeLinear of an activation and the first DequantizeLinear behind it.

    ``value`` names the real numbers behind it, in the source and in the float network; ``codes`` are the least and the
    greatest.
    """

    value: str
    params: QuantParams
    codes: tuple[int, int]

    @property
    def reals(self) -> Range:
        """What the codes can hold, rounded to float32 as a DequantizeLinear does."""
        low, high = (real_numbers(np.array([code]), self.params).item() for code in self.codes)
        return low, high


def dequantize_graph(graph: ir.Graph, file: str) -> tuple[QdqPair, ...]:
    """Take every QuantizeLinear and DequantizeLinear out of a graph, in place.

    The graph is one of ``fixed_graph``. Returns the pairs that were taken out, in execution order.

    Raises:
        OptionError: it has none.
        UnsupportedModelError: codes go elsewhere than to a DequantizeLinear of the same numbers.
    """
    quantizers = [node for node in graph if node.op_type == "QuantizeLinear"]
    if not any(node.op_type in OF_CODES | INTEGER_OPERATORS for node in graph):
        raise OptionError(
            f"{file}: --dequantize is for quantised networks, and this one computes on float32 numbers; leave it out"
        )
    integers = Counter(node.op_type for node in graph if node.op_type in INTEGER_OPERATORS)
    wrong = [f"{name} x{n}" for name, n in sorted(integers.items())]
    if not wrong:
        _unfold_constants(graph)
        pairs = {node: _pair(node) for node in quantizers}
        wrong = [f"QuantizeLinear {str(node.outputs[0].name)!r}" for node, pair in pairs.items() if pair is None]
    if wrong:
        raise UnsupportedModelError(
            f"{file}: --dequantize has no float form for {list_some(wrong)}; it takes QuantizeLinear with one scale, "
            "whose codes only DequantizeLinear of the same scale read: export the file in QDQ form, or leave the "
            "option out"
        )
    bounds: dict[ir.Value, Range] = {}
    for node in list(graph):
        pair = pairs.get(node)
        if pair is not None:
            _take_out(graph, node, pair, bounds)
        elif node.op_type != "DequantizeLinear" and node.inputs and node.inputs[0] in bounds:
            bounds.update(_bounds_behind(node, bounds[node.inputs[0]]))
    common.RemoveUnusedNodesPass()(ir.Model(graph, ir_version=9))
    return tuple(pair for pair in pairs.values() if pair is not None)


def _unfold_constants(graph: ir.Graph) -> None:
    """Write the real numbers of every constant that a DequantizeLinear reads, in its place."""
    writer = GraphWriter.appending(graph)
    for node in list(graph):
        codes = constant_at(node, 0) if node.op_type == "DequantizeLinear" else None
        params = None if codes is None else quant_params(node, node.attributes.get_int("axis", 1))
        if codes is None or params is None:
            continue
        value = writer.constant(real_numbers(codes, params), f"{node.outputs[0].name}/real")
        node.outputs[0].replace_all_uses_with(value)
        graph.remove(node, safe=True)


def _pair(node: ir.Node) -> QdqPair | None:
    """A QuantizeLinear's pair; None where its codes go elsewhere, or mean other numbers there."""
    params, codes = quant_params(node), node.outputs[0]
    readers = [use.node for use in codes.uses()]
    if params is None or not readers or codes.is_graph_output():
        return None
    read = [quant_params(reader) if reader.op_type == "DequantizeLinear" else None for reader in readers]
    if not all(other is not None and params.same_as(other) for other in read):
        return None
    zero_point = constant_at(node, 2)
    info = np.iinfo(np.uint8 if zero_point is None else zero_point.dtype)
    return QdqPair(str(readers[0].outputs[0].name), params, (int(info.min), int(info.max)))


def _take_out(graph: ir.Graph, node: ir.Node, pair: QdqPair, bounds: dict[ir.Value, Range]) -> None:
    """Put a Clip in the place of a pair; nothing where it would cut nothing off."""
    real, readers = node.inputs[0], [use.node for use in node.outputs[0].uses()]
    assert real is not None, "QuantizeLinear has an input"  # noqa: S101
    (low, high), room = pair.reals, float(pair.params.scalar_scale) / 2
    limits = bounds.get(real)
    within = limits is not None and limits[0] >= low - room and limits[1] <= high + room
    if not within or any(reader.outputs[0].is_graph_output() for reader in readers):
        writer, old = GraphWriter.inserting(graph, node), readers[0].outputs[0]
        ends = [writer.constant(np.float32(at), f"{pair.value}/{side}") for side, at in (("min", low), ("max", high))]
        clipped = writer.op("Clip", [real, *ends], f"{pair.value}/clipped")
        clipped.type, clipped.shape = old.type, old.shape
        old.name, clipped.name = f"{pair.value}/rounded", pair.value
        real = clipped
        bounds[real] = (low, high)
    for reader in readers:
        ir.convenience.replace_all_uses_with(reader.outputs[0], real, replace_graph_outputs=True)
        graph.remove(reader, safe=True)
    graph.remove(node, safe=True)


def _bounds_behind(node: ir.Node, bounds: Range) -> dict[ir.Value, Range]:
    """What an operator's result lies between, where its input's bounds tell."""
    low, high = bounds
    result = node.outputs[0]
    if node.op_type in KEEP:
        return {result: bounds}
    if node.op_type == "Relu":
        return {result: (max(low, 0.0), max(high, 0.0))}
    if node.op_type == "LeakyRelu":
        ends = [x if x > 0 else x * node.attributes.get_float("alpha", 0.01) for x in (low, high)]
        return {result: (min(*ends, 0.0), max(*ends, 0.0))}
    if node.op_type == "Sigmoid":
        return {result: (0.0, 1.0)}
    return {}
