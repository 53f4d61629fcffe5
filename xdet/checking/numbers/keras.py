"""Static part for Keras sources: the file holds the numbers that follow from the source's. Nothing is run.

Segment by segment: products with what is folded into them, pools, slopes and clamps, and for models that were quantised
at conversion every scale and zero-point. These come from photographs, and the source does not know them; the graph
itself must agree: a value is read with the numbers with which it was written, pools and other movers have one pair on
both sides, and the pixels' pair is their rescaling. A convolution and the batch normalisations behind it are folded in
float64: ``w * gamma / sqrt(variance + epsilon)`` and ``beta + (b - mean) * gamma / sqrt(variance + epsilon)``. The
scales of codes are those of docs/keras.md. The comparison shares the file readers with the converter, but none of its
translation.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from xdet.checking.numbers import compare_picture
from xdet.checking.numbers.activations import Expected, network_pairs
from xdet.checking.numbers.comparison import (
    MOVERS,
    NO_PADS,
    ChannelAffine,
    CheckedSource,
    Clamp,
    Leaky,
    Other,
    Padding,
    Pair,
    Pool,
    Product,
    SourceLayer,
    added,
    pair_of,
)
from xdet.checking.numbers.keras_layers import PICTURE, KerasComparison, network_steps
from xdet.checking.numbers.products import (
    LARGEST_BIAS_CODE,
    LARGEST_CODE,
    compare_limits,
    compare_pads,
    compare_product,
    pool_fault,
    require_integer_form,
)
from xdet.checking.numbers.rewrites import SHIFTED_ROWS, WIDE_STEM, copies_of_rows
from xdet.checking.numbers.slopes import between_pairs, compare_sum, is_leaky_sum, leaky_sum_of
from xdet.errors import ModelError, converter_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from converters.spec import ModelDocument
    from xdet.checking.numbers.comparison import Pads
    from xdet.checking.numbers.keras_layers import KerasStep, KerasSteps, Segment
    from xdet.model.file import ModelFile
    from xdet.model.graph import FinishedGraph, Node

Matched = TypeVar("Matched", Pool, Leaky, Clamp)
AFFINE = frozenset({"Mul", "Add", "Sub", "Div", "BatchNormalization"})
POOLS = frozenset({"MaxPool", "AveragePool"})
CLAMPS = frozenset({"Relu", "Clip"})
BETWEEN = frozenset({"QuantizeLinear", "DequantizeLinear", "Transpose", "Reshape", "Identity", "Cast", "Pad"})
PIXELS = ("pixels", "image")
SAME_PAIR = MOVERS - {"Max", "Min", "ReduceMax", "ReduceMin", "Clip"}  # on both sides, where photographs tell the pairs
OTHERS = {
    "Add": "Add",
    "Multiply": "Mul",
    "Subtract": "Sub",
    "Maximum": "Max",
    "Minimum": "Min",
    "Concatenate": "Concat",
    "UpSampling2D": "Resize",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
}


def read_keras_source(source: ModelFile, document: ModelDocument) -> CheckedSource:
    """Layers and weights, read as data: neither Keras nor TensorFlow is loaded."""
    from converters.errors import MissingExtraError, UnsupportedModelError
    from converters.facts import SourceFacts, SourceOutput
    from converters.sources.keras.stored import read_keras, read_network

    spec = document.spec
    outputs = tuple(SourceOutput(output.name, output.shape) for output in spec.network_outputs)
    facts = SourceFacts(source.file, spec.image.height, spec.image.width, outputs, "float32", None, spec.image.channels)
    layers: tuple[SourceLayer, ...] = ()
    with converter_errors():
        try:
            records = read_keras(source.data, source.file)
            layers = tuple(
                SourceLayer(layer.name, layer.kind, (), None, is_compared=layer.kind != "InputLayer")
                for layer in records.layers
            )
            steps = network_steps(read_network(records))
        except (UnsupportedModelError, MissingExtraError) as error:  # an archive's layers are read without h5py
            return CheckedSource(facts, layers, problem=str(error))
    return CheckedSource(facts, layers, compare=partial(compare_keras, steps))


def compare_keras(source: KerasSteps, graph: FinishedGraph, document: ModelDocument) -> KerasComparison:
    """Compare the whole network, from the pixels to the raw head."""
    codes = "" if document.activations == "float32" else " and quantised"
    context = KerasComparison(graph, document, source, how=f" with the source's, as folded{codes}")
    compare_picture(context)
    for segment in context.segments():
        if segment.source_reads != segment.graph_reads:
            reads = segment.graph_reads, segment.source_reads
            actual, expected = (", ".join(map(repr, sorted(names))) for names in reads)
            message = f"{segment.layer!r} is computed from {actual}, expected {expected}; convert the source again"
            context.fault("missing-tensor", segment.layer, message)
        else:
            _compare_segment(context, segment)
    if context.document.activations != "float32":
        compare_pairs(context)
    return context


def _compare_segment(context: KerasComparison, segment: Segment) -> None:
    """Every step of a segment with its node."""
    products = [(index, step) for index, step in segment.steps if isinstance(step.act, Product)]
    convolutions = [node for node in segment.nodes if node.op == "Conv"]
    if _counts_differ(context, segment, "Conv", len(products), len(convolutions)):
        return
    padded = added(_node_pads(context, node) for node in segment.nodes if node.op == "Pad")
    rewritten: list[str | None] = []
    for (index, step), node in zip(products, convolutions, strict=True):
        folded = _padded(context, index, fold(context, segment, index, step))
        is_float = context.document.activations == "float32"
        product = folded if is_float else quantised(context, folded, node)
        if product is None:
            require_integer_form(context, node, step.layer)
            continue
        behind = affines_behind(context, node, len(product.bias)) if is_float else ()
        rewritten.append(compare_product(context, product, node, padded=padded, behind=behind))
    is_wide = WIDE_STEM in rewritten
    if not is_wide:
        _compare_pools(context, segment)
    _compare_slopes(context, segment)
    _compare_clamps(context, segment)
    if not is_wide:
        _compare_rest(context, segment, products=bool(products))


def _counts_differ(context: KerasComparison, segment: Segment, op: str, expected: int, actual: int) -> bool:
    if expected != actual:
        message = f"expected {expected} {op} in front of it, found {actual}; convert the source again"
        context.fault("missing-tensor", segment.layer, f"{segment.layer!r}: {message}")
    return expected != actual


def _padded(context: KerasComparison, index: int, product: Product) -> Product:
    """With the ZeroPadding2D layers in front of it that no value shows any more."""
    shown = {context.source.last[layer] for layer in context.values}
    (before,) = context.source.steps[index].inputs
    while isinstance(act := context.source.steps[before].act, Padding) and before not in shown:
        (before,) = context.source.steps[before].inputs
        size = context.source.steps[before].size
        pads = None if product.pads is None else added([product.pads, act.pads])
        product = replace(product, pads=pads, size=None if size is None else size[:2])
    return product


def _node_pads(context: KerasComparison, node: Node) -> Pads:
    """What a Pad node adds: top, left, bottom, right."""
    amounts = context.graph.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if amounts is None or amounts.size != 8:
        return NO_PADS
    return (int(amounts[2]), int(amounts[3]), int(amounts[6]), int(amounts[7]))


def _matched(
    context: KerasComparison, segment: Segment, kind: type[Matched], nodes: Sequence[Node], what: str
) -> Iterator[tuple[KerasStep, Matched, Node]]:
    """Steps of a kind, each with its node; a fault where there are not as many."""
    steps = [(step, step.act) for _, step in segment.steps if isinstance(step.act, kind)]
    if not _counts_differ(context, segment, what, len(steps), len(nodes)):
        for (step, act), node in zip(steps, nodes, strict=True):
            yield step, act, node


def _compare_pools(context: KerasComparison, segment: Segment) -> None:
    nodes = [node for node in segment.nodes if node.op in POOLS]
    for step, pool, node in _matched(context, segment, Pool, nodes, "pools"):
        size = context.source.steps[step.inputs[0]].size
        context.compared += 2 if pool.pads is None else 6
        if pool.pads is None or size is None:
            context.uncompared.append(f"padding of {step.layer!r}")
        fault = pool_fault(pool, step.layer, node, (0, 0) if size is None else size[:2])
        if fault is not None:
            context.fault(fault[0], step.layer, fault[1])


def _compare_slopes(context: KerasComparison, segment: Segment) -> None:
    """LeakyReLUs: a node with the source's slope, or a sum that gives the same codes."""
    nodes = [node for node in segment.nodes if node.op == "LeakyRelu" or leaky_sum_of(context.graph, node)]
    for step, leaky, node in _matched(context, segment, Leaky, nodes, "LeakyRelu"):
        total = leaky_sum_of(context.graph, node)
        if total is not None:
            promised = between_pairs(context, total, step.layer, leaky.slope)
            compare_sum(context, total, () if promised is None else (promised,))
            continue
        context.compared += 1
        slope, written = (np.float32(number) for number in (leaky.slope, node.attributes.get("alpha", 0.01)))
        if slope != written:
            message = f"expected {float(slope):.6g}, found {float(written):.6g}"
            context.fault("slope", step.layer, f"slope of {step.layer!r}: {message}")


def _compare_clamps(context: KerasComparison, segment: Segment) -> None:
    """ReLUs: a node with their limits, or codes that cannot leave them."""
    nodes = [node for node in segment.nodes if node.op in CLAMPS]
    if context.document.activations != "float32" and not nodes:
        for _, step in segment.steps:
            if isinstance(step.act, Clamp):
                keeps_limits(context, segment, step.layer, step.act)
        return
    for step, clamp, node in _matched(context, segment, Clamp, nodes, "ReLU"):
        compare_limits(context, step.layer, (0.0, clamp.high), node)


def _compare_rest(context: KerasComparison, segment: Segment, *, products: bool) -> None:
    """Every step and node that nothing above took: known by kind, or told as not compared."""
    kinds = Counter(step.act.kind for _, step in segment.steps if isinstance(step.act, Other))
    unknown = sorted(kind for kind in kinds if kind not in OTHERS)
    lone = any(isinstance(step.act, ChannelAffine) for _, step in segment.steps) and not products
    if unknown or lone:
        context.uncompared.append(f"{segment.layer!r} ({', '.join(unknown) or 'BatchNormalization by itself'})")
        return
    expected = Counter(OTHERS[kind] for kind in kinds.elements())
    taken = {"Conv", "LeakyRelu", *POOLS, *CLAMPS, *BETWEEN}
    shifted = SHIFTED_ROWS in context.document.passes
    rows = [copies_of_rows(context.graph, node) for node in segment.nodes if node.op == "Conv" and shifted]
    rest = [
        node
        for node in segment.nodes
        if node.op not in taken and node not in rows and not is_leaky_sum(context.graph, node)
    ]
    repeated = [node for node in rest if node.op == "Concat" and len(set(node.inputs)) == 1]  # two per enlargement
    # factors and offsets of channels, which are compared with the weights in front of them
    affine = [n for n in rest if n.op in AFFINE and any(context.graph.constant(name) is not None for name in n.inputs)]
    actual = Counter(node.op for node in rest if node not in affine and node not in repeated)
    actual += Counter({"Resize": len(repeated) // 2})
    if actual != expected:
        message = f"expected {dict(expected) or 'no other operator'}, found {dict(actual)}"
        context.fault("missing-tensor", segment.layer, f"{segment.layer!r}: {message}; convert the source again")
    if not products:
        steps = [step.act.pads for _, step in segment.steps if isinstance(step.act, Padding)]
        nodes = [_node_pads(context, node) for node in segment.nodes if node.op == "Pad"]
        if steps or nodes:
            compare_pads(context, segment.layer, added(steps), added(nodes))


def fold(context: KerasComparison, segment: Segment, index: int, step: KerasStep) -> Product:
    """A convolution with every affine step that follows it, in the same segment, and alone reads it.

    Raises:
        ModelError: a step has another number of channels than the convolution.
    """
    act, behind = step.act, dict(segment.steps)
    assert isinstance(act, Product)  # noqa: S101 - the caller chose
    folded = act
    while context.readers[index] == 1:
        following = next((n for n in behind if behind[n].inputs == (index,)), None)
        if following is None:
            break
        affine, layer = behind[following].act, behind[following].layer
        if not isinstance(affine, ChannelAffine):
            break
        if affine.offset.shape != folded.bias.shape:
            message = f"layer {layer!r} has {len(affine.offset)} channels, expected {len(folded.bias)}"
            raise ModelError(f"{message} as in {step.layer!r}; save the source again")
        folded = folded.then(affine, layer)
        index = following
    return folded


def quantised(context: KerasComparison, product: Product, node: Node) -> Product | None:
    """A product with the scales that its codes have by the rule of docs/keras.md; None where no codes go in."""
    source = context.graph.producers.get(node.inputs[0])
    if source is None or source.op != "DequantizeLinear":
        return None  # told as a float convolution
    product, inputs = _with_pixel_shift(context, product, node), _input_scales(context, source)
    x_scale = float(inputs[0])
    largest = np.abs(product.kernel).reshape(len(product.kernel), -1).max(axis=1) / LARGEST_CODE
    for_bias = np.abs(product.bias) / (x_scale * LARGEST_BIAS_CODE)
    scales = np.maximum(np.maximum(largest, for_bias), np.finfo(np.float32).tiny / x_scale)
    if context.document.quantization == "int8 per-tensor":
        scales = scales.max(keepdims=True)
    return replace(product, scales=scales, input_scales=inputs)


def _with_pixel_shift(context: KerasComparison, folded: Product, node: Node) -> Product:
    """Where no pixel means 0 exactly, the first convolution's bias takes back what rounding the zero-point moved."""
    source = context.graph.producers.get(node.inputs[0])
    codes = "" if source is None else source.inputs[0]
    while (before := context.graph.producers.get(codes)) is not None and codes != context.picture:
        if before.op not in ("Reshape", "Transpose", "Pad"):
            return folded
        codes = before.inputs[0]
    if codes != context.picture:
        return folded
    rescaling, zero_point = context.document.spec.image.rescaling, _zero_of_pixels(context)
    if not -0.5 <= -rescaling.offset / rescaling.scale <= 255.5:
        return folded
    shift = rescaling.offset + zero_point * rescaling.scale
    sums = folded.kernel.reshape(len(folded.kernel), -1)
    return replace(
        folded, bias=folded.bias + shift * sums.sum(axis=1), terms=folded.terms + abs(shift) * np.abs(sums).sum(axis=1)
    )


def _zero_of_pixels(context: KerasComparison) -> int:
    """The pixel that is nearest to 0 behind the rescaling."""
    rescaling = context.document.spec.image.rescaling
    return min(max(round(-rescaling.offset / rescaling.scale), 0), 255)


def _input_scales(context: KerasComparison, source: Node) -> tuple[np.float32, ...]:
    """The scale of a convolution's input: by its DequantizeLinear, and by whoever wrote the codes.

    Where they disagree, that is told with the activations, and the bias must agree with one of them.
    """
    writer = context.graph.producers.get(source.inputs[0])
    nodes = [source, *([writer] if writer is not None and writer.op == "QuantizeLinear" else [])]
    scales = [context.graph.constant(node.inputs[1]) for node in nodes]
    numbers = [np.float32(scale.reshape(-1)[0]) for scale in scales if scale is not None]
    of_pixels = [np.float32(context.document.spec.image.rescaling.scale)]
    return (*numbers, *(of_pixels if source.inputs[0] == context.picture else ()))


def affines_behind(context: KerasComparison, node: Node, channels: int) -> Iterator[ChannelAffine]:
    """Channel factors and offsets that stand behind a convolution as nodes of their own."""
    behind = context.graph.only_reader(node.outputs[0])
    while behind is not None and node.outputs[0] not in context.layers:
        numbers = [context.graph.constant(name) for name in behind.inputs[1:]]
        if behind.op not in ("Mul", "Add", "BatchNormalization") or any(
            n is None or n.size not in (1, channels) for n in numbers
        ):
            return
        arrays = [np.broadcast_to(np.asarray(n, np.float64).reshape(-1), (channels,)) for n in numbers]
        factor, offset = np.ones(channels), np.zeros(channels)
        if behind.op == "BatchNormalization":
            scale, beta, mean, variance = arrays
            factor = scale / np.sqrt(variance + float(behind.attributes.get("epsilon", 1e-5)))
            offset = beta - mean * factor
        elif behind.op == "Mul":
            factor = arrays[0]
        else:
            offset = arrays[0]
        yield ChannelAffine(factor, offset, np.abs(offset))
        node = behind
        behind = context.graph.only_reader(node.outputs[0])


def compare_pairs(context: KerasComparison) -> None:
    """Compare every pair with the others on the same codes."""
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in network_pairs(context):
        context.compared += 2
        groups[_root(context, pair.codes)].append(pair)
    for root, pairs in groups.items():
        expected = _expected(context, root, pairs)
        for pair in pairs:
            if (difference := expected.difference(pair)) is not None:
                cause, message = difference
                context.fault(cause, expected.layer, f"{cause} of {expected.layer!r} in {pair.title}: {message}")


def _root(context: KerasComparison, codes: str) -> str:
    """The value whose codes these are, in front of everything that only moves them."""
    while True:
        writer = context.graph.producers.get(codes)
        if writer is None:
            return codes
        if writer.op in SAME_PAIR:
            codes = _moved(context, writer)
            continue
        if writer.op != "QuantizeLinear":
            return codes
        mover = context.graph.producers.get(writer.inputs[0])
        while mover is not None and mover.op in SAME_PAIR:
            before = context.graph.producers.get(_moved(context, mover))
            if before is not None and before.op == "DequantizeLinear":
                codes = before.inputs[0]
                break
            mover = before
        else:
            return codes


def _moved(context: KerasComparison, mover: Node) -> str:
    """What a node moves: its first operand that is no constant."""
    return next((name for name in mover.inputs if context.graph.constant(name) is None), mover.inputs[0])


def _expected(context: KerasComparison, root: str, pairs: list[Pair]) -> Expected:
    """What all pairs on one value must be: the pixels' rescaling, else what most of them are."""
    layer = _layer_of(context, root)
    if root in PIXELS:
        scale, zero = np.float32(context.document.spec.image.rescaling.scale), _zero_of_pixels(context)
        shift = 0 if pairs[0].unsigned else -128
        return Expected(layer, scale, zero + shift, pairs[0].unsigned, " as in the rescaling")
    if context.document.symmetric:
        return Expected(layer, pairs[0].scale, 0, unsigned=False, like=" as in a symmetric network")
    same = [sum((p.scale, p.zero_point) == (q.scale, q.zero_point) for q in pairs) for p in pairs]
    most = pairs[int(np.argmax(same))]
    return Expected(layer, most.scale, most.zero_point, most.unsigned, f" as in {most.title}")


def _layer_of(context: KerasComparison, root: str) -> str:
    """The layer whose codes a value holds, or the next one behind it."""
    waiting, visited = [root], set[str]()
    while waiting:
        value = waiting.pop(0)
        if value in context.layers:
            return context.layers[value]
        if value not in visited:
            visited.add(value)
            waiting += [name for node in context.graph.readers(value) for name in node.outputs]
    return PICTURE if root in PIXELS else context.source.output


def keeps_limits(context: KerasComparison, segment: Segment, layer: str, clamp: Clamp) -> None:
    """A ReLU without a node: the codes behind it must begin at 0, and end at its upper limit if it has one."""
    writers = [node for node in segment.nodes if node.op == "QuantizeLinear"]
    pair = pair_of(context, writers[-1]) if writers else None
    if pair is None:
        return
    step = float(pair.scale)
    low, high = ((code - pair.zero_point) * step for code in ((0, 255) if pair.unsigned else (-128, 127)))
    context.compared += 2
    if low < -step / 2 or (clamp.high is not None and high > clamp.high + step / 2):
        limits = f"0 to {clamp.high}" if clamp.high is not None else "0 upwards"
        actual = f"found {low:.6g} to {high:.6g} in QuantizeLinear {writers[-1].name!r}"
        message = (
            f"{layer!r} has no ReLU of its own, so its codes must not leave its range: expected {limits}, {actual}"
        )
        context.fault("zero-point", layer, message)
