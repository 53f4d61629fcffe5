"""An ONNX source's nodes behind uint8 pixels, whose layout and scale are brought to the source's in the graph.

::

    image (uint8, NHWC) -> Transpose -> Cast -> x scale + offset -> the source's own nodes -> outputs, channels last

Numeric effect: none behind the pixels. Every operator computes what it computes in the source, so the raw outputs are
bit for bit those of the source on the same kernels, fed with ``pixel * scale + offset`` in float32.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from converters._ir import ir
from converters.errors import OptionError
from converters.facts import match_outputs
from converters.graph import NCHW_TO_NHWC, constant_at, constant_of, image_pixels, rescaled_pixels
from converters.sources.base import ImportedNetwork, as_raw_output
from converters.sources.onnx.dequantized import OF_CODES, dequantize_graph
from converters.sources.onnx.network import facts_from_onnx, fixed_graph, turned_outputs
from converters.spec import CONTRACT_NAMES, TensorTwin

if TYPE_CHECKING:
    from converters.graph import GraphWriter
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
    _require_choices(source.file, codes, options)
    as_float = options.dequantize and source.dtype == "float32"
    pixels = image_pixels(writer, spec.image, options.batch_size, as_float=as_float)
    if source.dtype == "float32":
        pixels = rescaled_pixels(writer, pixels, spec.image.rescaling)
    if not source.is_nchw:
        pixels = writer.op("Transpose", [pixels], "pixels/nhwc", perm=list(NCHW_TO_NHWC))
    writer.graph.opset_imports[""] = graph.opset_imports[""]
    ours = _taken_over(graph, writer, pixels)
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


def _require_choices(file: str, codes: ActivationCodes, options: ConvertOptions) -> None:
    if codes != "float32" and options.quantize != "none":
        raise OptionError(f"{file}: is quantised already; leave --quantize out")
    if options.quantize == "none" and options.activations != "uint8":
        raise OptionError(
            f"{file}: an ONNX source keeps the codes that it has, {codes}; leave --activations {options.activations} "
            "out"
        )


def _taken_over(graph: ir.Graph, writer: GraphWriter, pixels: ir.Value) -> dict[ir.Value, ir.Value]:
    """Append every node under its own names; every reader of a scale or zero-point gets a constant of its own.

    Two weights that share one make ONNX Runtime's exact kernels on x86 fail (``converters.graph``).
    """
    ours = {graph.inputs[0]: pixels}
    for node in graph:
        name = str(node.outputs[0].name)
        own = {1: f"{name}/scale", 2: f"{name}/zero_point"} if node.op_type in OF_CODES else {}
        operands = [
            None if value is None else _operand(writer, ours, value, own.get(place))
            for place, value in enumerate(node.inputs)
        ]
        attributes = {key: attribute.value for key, attribute in node.attributes.items()}
        names = [_free(str(value.name or f"{name}:{place}")) for place, value in enumerate(node.outputs)]
        for old, new in zip(node.outputs, writer.ops(node.op_type, operands, names, **attributes), strict=True):
            new.type, new.shape = old.type, old.shape
            ours[old] = new
    return ours


def _operand(writer: GraphWriter, ours: dict[ir.Value, ir.Value], value: ir.Value, own: str | None) -> ir.Value:
    """Our value for one of the source's; a constant becomes an initialiser, under ``own`` for this reader alone."""
    if value in ours:
        return ours[value]
    array = constant_of(value)
    assert array is not None, "fixed_graph knows every value"  # noqa: S101
    constant = writer.constant(array, own or _free(str(value.name)))
    if own is None:
        ours[value] = constant
    return constant


def _free(name: str) -> str:
    """A name that is none of the contract's."""
    return f"{name}#source" if name in CONTRACT_NAMES else name


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
