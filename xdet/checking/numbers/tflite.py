"""Static part for TFLite sources: integers are equal, or proven to compute the same codes. Nothing is run.

A source's operators as layers, and which of them a node of the graph stands for: by the tensor map.

A TRANSPOSE_CONV is the convolution whose taps carry every input to its outputs; an AVERAGE_POOL_2D that the pass
``average as convolution`` wrote is a depthwise one with weights of 1 and the scale 1 / places.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from converters.sources.tflite.operators import WEIGHTED
from xdet.checking.numbers import compare_picture
from xdet.checking.numbers.activations import compare_activations
from xdet.checking.numbers.codes import compare_steps
from xdet.checking.numbers.comparison import NO_PADS, CheckedSource, Pool, Product, StaticComparison, added, same_pads
from xdet.checking.numbers.products import compare_limits, compare_product, pool_fault, require_integer_form, stored
from xdet.checking.numbers.slopes import compare_slope, compare_sum, leaky_sum_of, promised_of
from xdet.checking.numbers.tflite_source import PRODUCTS, SourceGraph, TfliteComparison, owners_of
from xdet.checking.numbers.wiring import compare_wiring
from xdet.errors import converter_errors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.sources.tflite.reader import TfliteOperator
    from converters.spec import ModelDocument
    from xdet.checking.numbers.comparison import Pads
    from xdet.model.file import ModelFile
    from xdet.model.graph import FinishedGraph, Node

AVERAGE = "average as convolution"
TAPS = "every tap stands where it carries its input to its output"
OIHW = {"CONV_2D": (0, 3, 1, 2), "DEPTHWISE_CONV_2D": (3, 0, 1, 2), "FULLY_CONNECTED": (0, 1)}
POOLS = {"MAX_POOL_2D": "MaxPool", "AVERAGE_POOL_2D": "AveragePool"}
LIMITS = {"RELU": (0.0, None), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}
BETWEEN = frozenset({"QuantizeLinear", "Reshape", "Transpose", "Cast", "Relu", "Clip"})  # a product and its result


def read_tflite_source(source: ModelFile, document: ModelDocument) -> CheckedSource:
    """What a TFLite source states and computes, as the checks compare it."""
    from converters.sources.tflite.facts import facts_from_tflite
    from converters.sources.tflite.importer import dequantized
    from converters.sources.tflite.reader import read_tflite
    from converters.sources.tflite.supported import is_dynamic_range, is_float, require_sound, require_supported

    with converter_errors():
        records = read_tflite(source.data, source.file)
        (require_sound if document.is_taken_over else require_supported)(records)  # as its conversion did
        facts = facts_from_tflite(records)
    is_rounded = document.dequantize and not is_float(records)
    graph = SourceGraph(dequantized(records), records) if is_rounded else SourceGraph(records)
    layers, rounds = graph.layers(document), is_dynamic_range(records)
    if document.is_taken_over:
        problem = "tf2onnx wrote the graph in its own form, spread and head judge it"
        return CheckedSource(facts, layers, rounds, graph, problem=problem)
    return CheckedSource(facts, layers, rounds, graph, compare=partial(compare_tflite, graph))


def compare_tflite(source: SourceGraph, graph: FinishedGraph, document: ModelDocument) -> StaticComparison:
    """The numbers of a TFLite source: integers exactly, or proven to compute the same codes."""
    context = TfliteComparison(graph, document, source)
    compare_picture(context)
    compare_operators(context)
    compare_steps(context)
    compare_activations(context)
    compare_wiring(context, source.layers(document))
    return context


def compare_operators(context: TfliteComparison) -> None:
    """Compare every product, pool and LeakyReLU of the network with its source operator."""
    compared = set()
    for node in context.graph.nodes:
        if node.op in PRODUCTS:
            op = _operator_at(context, node)
            compared.add(None if op is None else op.outputs[0])
            _compare_product(context, node, op)
        elif node.op == "ConvInteger":
            _compare_sums(context, node)
        elif node.op in POOLS.values():
            _compare_pool(context, node)
        elif node.op == "LeakyRelu":
            compare_slope(context, node)
        elif (total := leaky_sum_of(context.graph, node)) is not None:
            compare_sum(context, total, promised_of(context, owners_of(context, total.whole.inputs[0])))
    for op in context.source.model.operators:
        if context.document.activations == "float32":
            _compare_limits(context, op)
        if op.op in WEIGHTED and op.outputs[0] not in compared and _data_of(context, op.inputs[1]) is not None:
            name, layer = context.source.names[op.inputs[1]], context.source.output_name(op)
            message = f"the weights {name!r} of {layer!r} are read by no product of the graph; convert the source again"
            context.fault("missing-tensor", layer, message)


def _compare_limits(context: TfliteComparison, op: TfliteOperator) -> None:
    """The limits of an activation of float32 numbers; codes have theirs by scale and zero-point."""
    limits = LIMITS.get(op.op) or LIMITS.get(str(op.options.get("fused_activation")))
    layer = context.source.output_name(op)
    node = context.graph.producers.get(context.uncast(context.value_of(layer)))
    if limits is not None and node is not None and node.op in ("Clip", "Relu"):
        compare_limits(context, layer, limits, node)


def _operator_at(context: TfliteComparison, node: Node) -> TfliteOperator | None:
    """The source operator of a Conv or Gemm: by the weights that it reads, or by the result behind it."""
    if (owner := context.reader_of_weights(node)) is not None:
        return owner
    wanted = {*WEIGHTED, *(["AVERAGE_POOL_2D"] if AVERAGE in context.document.passes else [])}
    behind: Node | None = node
    while behind is not None:
        makers = (context.source.makers.get(i) for i in context.tensors_by_value.get(behind.outputs[0], ()))
        maker = next((op for op in makers if op is not None and op.op in wanted), None)
        if maker is not None:
            return maker
        reader = context.graph.only_reader(behind.outputs[0])
        behind = reader if reader is not None and reader.op in BETWEEN else None
    return None


def _compare_product(context: TfliteComparison, node: Node, op: TfliteOperator | None) -> None:
    if op is None:
        message = f"the weights of {node.op} {node.name!r} belong to no tensor of the source; convert the source again"
        context.fault("missing-tensor", None, message)
        return
    layer, name = context.source.output_name(op), context.source.names[op.inputs[min(1, len(op.inputs) - 1)]]
    if op.op == "AVERAGE_POOL_2D":
        product: Product | None = _averaging(context, node, op)
        proof, name = f"all weights are 1, and their scale is 1 / {math.prod(_two(op, 'filter'))}", layer
    elif op.op == "TRANSPOSE_CONV":
        product, proof = _transposed(context, node, op), TAPS
    else:
        product, proof = _convolution(context, node, op), ""
    if product is None:
        require_integer_form(context, node, layer)
        context.fault("weight", layer, f"weights of {layer!r}: the {node.op} has others than the source's taps")
        return
    faults = len(context.findings)
    compare_product(context, product, node)
    if proof and len(context.findings) == faults:
        context.prove(name, layer, "weights", proof)


def _compare_sums(context: TfliteComparison, node: Node) -> None:
    """A TRANSPOSE_CONV that is requantised step by step: the taps, and the bias added behind; the rest is run."""
    op, held = context.reader_of_weights(node), stored(context, node, 1)
    if op is None or op.op != "TRANSPOSE_CONV" or held is None:
        return
    layer, names = context.source.output_name(op), context.source.names
    product = _transposed(context, node, op)
    context.compared += held.values.size
    if product is None or not np.array_equal(product.kernel, held.values):
        context.fault("weight", layer, f"weights of {layer!r}: the {node.op} has others than the source's taps")
        return
    context.prove(names[op.inputs[1]], layer, "weights", TAPS)
    data = _data_of(context, op.inputs[3]) if len(op.inputs) > 3 and op.inputs[3] >= 0 else None
    if data is None:
        return
    bias = context.graph.constant(context.value_of(names[op.inputs[3]]))
    context.compared += data.size
    if bias is None or not np.array_equal(bias.reshape(-1), data.reshape(-1)):
        context.fault("bias", layer, f"bias {names[op.inputs[3]]!r} of {layer!r} is not the source's")


def _convolution(context: TfliteComparison, node: Node, op: TfliteOperator) -> Product:
    """A CONV_2D, DEPTHWISE_CONV_2D or FULLY_CONNECTED; a PAD in front that was folded adds its pixels."""
    tensors = context.source.model.tensors
    kernel, product = tensors[op.inputs[1]].shape, _constants(context, op, op.inputs[0], (1, 2))
    if op.op == "FULLY_CONNECTED":
        return product
    channels = tensors[op.inputs[0]].shape[3]
    dilations = _two(op, "dilation")
    return replace(
        product,
        strides=_two(op, "stride"),
        dilations=dilations,
        groups=channels if op.op == "DEPTHWISE_CONV_2D" else channels // kernel[3],
        **_padding(context, node, op, kernel[1:3], dilations),
    )


def _constants(context: TfliteComparison, op: TfliteOperator, picture: int, places: tuple[int, int]) -> Product:
    """A product's weights and bias, as the graph must hold them; their ``places`` among the operands."""
    tensors, names = context.source.model.tensors, context.source.names
    weights, bias = (op.inputs[place] if place < len(op.inputs) else -1 for place in places)
    data, quant, read = _data_of(context, weights), tensors[weights].quant, tensors[picture].quant
    kernel, zero_point, channels = np.empty(0), 0, tensors[weights].shape[0]
    if data is not None:
        twin = context.document.tensors.get(names[weights])
        zero_point = 0 if quant is None else int(quant.zero_point.flat[0])
        kernel, zero_point = _shifted(data, zero_point, 0 if twin is None else twin.zero_point_shift)
        kernel = kernel.transpose(OIHW.get(op.op, range(kernel.ndim)))
        channels = len(kernel)
    offsets = None if bias < 0 else _data_of(context, bias)
    is_code = tensors[weights].dtype != "float32"
    return Product(
        kernel,
        np.zeros(channels, np.int32) if offsets is None else offsets.reshape(-1),
        scales=quant.scale if is_code and quant is not None else None,
        zero_point=zero_point,
        input_scales=(read.scalar_scale,) if is_code and read is not None else (),
        layers=(context.source.output_name(op),),
        tensors=tuple(names[index] for index in (weights, bias) if index >= 0),
    )


def _data_of(context: TfliteComparison, index: int) -> NDArray[Any] | None:
    """The value of a constant, or of float16 numbers that the source widens."""
    tensor, maker = context.tensor(index), context.source.makers.get(index)
    if maker is None or maker.op != "DEQUANTIZE":
        return tensor.data
    half = context.tensor(maker.inputs[0]).data
    return half.astype(np.float32) if half is not None and half.dtype == np.float16 else tensor.data


def _shifted(codes: NDArray[Any], zero_point: int, shift: int) -> tuple[NDArray[Any], int]:
    """Weights and their zero-point, moved as the graph's are: as int8, or as int16 where they are none."""
    if not shift:
        return codes, zero_point
    numbers, kind = codes.astype(np.int16) + np.int16(shift), np.iinfo(np.int8)
    fits = numbers.min() >= kind.min and numbers.max() <= kind.max
    return numbers.astype(np.int8) if fits else numbers, zero_point + shift


def _padding(
    context: TfliteComparison,
    node: Node,
    op: TfliteOperator,
    window: tuple[int, ...],
    dilations: tuple[int, int] = (1, 1),
) -> dict[str, Any]:
    """``pads`` and ``size`` of a product."""
    height, width = context.tensor(op.inputs[0]).shape[1:3]
    is_same = op.options["padding"] == "SAME"
    pads = same_pads((height, width), window, _two(op, "stride"), dilations) if is_same else NO_PADS
    top, left, bottom, right = folded = _folded_padding(context, node, op)
    return {"pads": added((pads, folded)), "size": (height - top - bottom, width - left - right)}


def _folded_padding(context: TfliteComparison, node: Node, op: TfliteOperator) -> Pads:
    """Top, left, bottom, right of a source PAD that no node computes any more; zeros without one."""
    pad = context.source.makers.get(op.inputs[0])
    before = context.graph.producers.get(node.inputs[0])
    is_kept = op.inputs[0] in context.tensors_by_value.get(node.inputs[0], ())  # float networks keep the PAD
    if pad is None or pad.op != "PAD" or before is None or is_kept:
        return NO_PADS
    owners = owners_of(context, before.inputs[0]) if before.inputs else ()
    amounts = context.tensor(pad.inputs[1]).data
    if amounts is None or (op.inputs[0] in owners and pad.inputs[0] not in owners):
        return NO_PADS
    return (int(amounts[1, 0]), int(amounts[2, 0]), int(amounts[1, 1]), int(amounts[2, 1]))


def _averaging(context: TfliteComparison, node: Node, op: TfliteOperator) -> Product:
    """An AVERAGE_POOL_2D as a convolution."""
    channels, window = context.tensor(op.inputs[0]).shape[3], _two(op, "filter")
    return Product(
        np.ones((channels, 1, *window), np.int8),
        np.zeros(channels, np.int32),
        strides=_two(op, "stride"),
        groups=channels,
        scales=np.array([1 / math.prod(window)], np.float32),
        layers=(context.source.output_name(op),),
        **_padding(context, node, op, window),
    )


def _transposed(context: TfliteComparison, node: Node, op: TfliteOperator) -> Product | None:
    """A TRANSPOSE_CONV as a convolution with the node's pads and size, tap by tap, if one does the same.

    Every tap ``t`` carries input ``i`` to output ``i * stride + t - cropped``; between the taps stands the zero-point.
    Outputs that lie one stride apart are channels of one phase.
    """
    plain, weights = _constants(context, op, op.inputs[2], (1, 3)), stored(context, node, 1)
    picture, image = (context.tensor(index).shape for index in (op.inputs[2], op.outputs[0]))
    if weights is None or weights.values.ndim != 4 or not plain.kernel.size:
        return None
    channels, *sizes, depth = plain.kernel.shape
    strides, spans, pads = _two(op, "stride"), weights.values.shape[2:], node.attributes.get("pads", NO_PADS)
    kernel = np.full((*strides, channels, depth, *spans), plain.zero_point, plain.kernel.dtype)
    cropped = [
        max((size - 1) * stride + length - new_size, 0) // 2 if op.options["padding"] == "SAME" else 0
        for size, new_size, stride, length in zip(picture[1:3], image[1:3], strides, sizes, strict=True)
    ]
    for taps in np.ndindex(*sizes):
        # the output that input 0 reaches by this tap
        places = [divmod(tap - cut, stride) for tap, cut, stride in zip(taps, cropped, strides, strict=True)]
        (y, py), (x, px) = places
        ky, kx = pads[0] - y, pads[1] - x
        if not (0 <= ky < spans[0] and 0 <= kx < spans[1]):
            return None
        kernel[py, px, :, :, ky, kx] = plain.kernel[:, taps[0], taps[1]]
    return plain.repeated(kernel.reshape(-1, depth, *spans), pads=pads, size=(picture[1], picture[2]))


def _compare_pool(context: TfliteComparison, node: Node) -> None:
    """A pool that reads what a source pool reads, or an activation of it (they may have changed places)."""
    before = context.graph.producers.get(node.inputs[0])
    if before is None or before.op != "DequantizeLinear":
        return
    # in a wide stem the four members of a window stand side by side
    is_wide = node.attributes.get("kernel_shape") == node.attributes.get("strides") == (1, 4)
    owners = owners_of(context, before.inputs[0])
    pools = [op for o in owners for op in context.source.pools_behind(o) if POOLS.get(op.op) == node.op]
    if not pools or is_wide:
        return
    faults = []
    for op in pools:
        window, strides, size = _two(op, "filter"), _two(op, "stride"), context.tensor(op.inputs[0]).shape[1:3]
        pads = same_pads(size, window, strides) if op.options["padding"] == "SAME" else NO_PADS
        pool = Pool(POOLS[op.op], window, strides, pads)
        faults.append(pool_fault(pool, context.source.output_name(op), node, size))
    context.compared += 3
    if all(faults):
        cause, message = next(fault for fault in faults if fault)
        context.fault(cause, context.source.output_name(pools[0]), message)


def _two(op: TfliteOperator, option: str) -> tuple[int, int]:
    """An option of both axes: down, right."""
    down, right = (cast("int", op.options[f"{option}_{axis}"]) for axis in "hw")
    return down, right
