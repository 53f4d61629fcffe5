"""Part (a), static, for Keras sources: the file holds the numbers that follow from the source's. Nothing is run.

Segment by segment (``keras_segments``): weights and biases with batch normalisation folded in (``keras_constants``), strides,
padding, windows and clamps here, slopes (``keras_slopes``), and for models that were quantised at conversion every scale and
zero-point (``keras_pairs``). The comparison shares the file readers with the converter, but none of its translation.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from xdet.checking.numbers.full_channels import FULL_CHANNELS, full
from xdet.checking.numbers.keras_constants import compare_constants
from xdet.checking.numbers.keras_scales import compare_pairs, keeps_limits
from xdet.checking.numbers.keras_slopes import compare_slopes, is_leaky_sum
from xdet.checking.numbers.keras_steps import NO_PADS, Affine, Clamp, Other, Padding, Pool, Product
from xdet.checking.numbers.operators import PLAIN, WIDE_STEM, actual_pads, require_integer_form
from xdet.checking.numbers.strided import strided_attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdet.checking.numbers.keras_constants import Stem
    from xdet.checking.numbers.keras_segments import KerasContext, Segment
    from xdet.checking.numbers.keras_steps import Pads, Size, Step
    from xdet.model.graph import Node

AFFINE = frozenset({"Mul", "Add", "Sub", "Div", "BatchNormalization"})
POOLS = frozenset({"MaxPool", "AveragePool"})
CLAMPS = frozenset({"Relu", "Clip"})
MOVERS = frozenset({"QuantizeLinear", "DequantizeLinear", "Transpose", "Reshape", "Identity", "Cast", "Pad"})
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


def compare_keras(context: KerasContext) -> None:
    """Compare the whole network, from the pixels to the raw head."""
    _compare_picture(context)
    for segment in context.segments():
        if segment.source_reads != segment.graph_reads:
            found, expected = (
                ", ".join(map(repr, sorted(names))) for names in (segment.graph_reads, segment.source_reads)
            )
            context.fault(
                "missing-tensor",
                segment.layer,
                f"{segment.layer!r} is computed from {found}, expected {expected}; convert the source again",
            )
            continue
        _compare_segment(context, segment)
    if context.document.activations != "float32":
        compare_pairs(context)


def _compare_picture(context: KerasContext) -> None:
    """What stands between the image and the network: a transposition, and the rescaling."""
    rescaling = context.document.spec.image.rescaling
    wanted = {"Mul": rescaling.scale, "Add": rescaling.offset}
    name = context.picture
    while (node := context.graph.producers.get(name)) is not None:
        constants = [context.graph.constant(value) for value in node.inputs[1:]]
        found = constants[0] if constants else None
        if node.op == "Gather" and found is not None and found.tolist() == [2, 1, 0]:
            context.fault(
                "colour-order",
                None,
                f"Gather {node.name!r} exchanges red and blue in front of the network: the graph takes BGR where the "
                f"contract says RGB",
            )
        elif node.op in wanted and found is not None:
            context.compared += 1
            if found.size != 1 or found.reshape(-1)[0] != np.float32(wanted[node.op]):
                context.fault(
                    "image-input",
                    None,
                    f"the rescaling {node.op} {node.name!r}: expected {np.float32(wanted[node.op]):.9g}, "
                    f"found {found.reshape(-1)[:4].tolist()}",
                )
        elif node.op not in ("Transpose", "Cast", "QuantizeLinear", "DequantizeLinear"):
            context.fault(
                "image-input",
                None,
                f"{node.op} {node.name!r} stands between the image and the network, expected none; convert the source again",
            )
        name = node.inputs[0]


def _compare_segment(context: KerasContext, segment: Segment) -> None:
    """Every step of a segment with its node."""
    products = [(index, step) for index, step in segment.steps if isinstance(step.act, Product)]
    convolutions = [node for node in segment.nodes if node.op == "Conv"]
    if _counts_differ(context, segment, "Conv", len(products), len(convolutions)):
        return
    wide = False
    for (index, step), node in zip(products, convolutions, strict=True):
        require_integer_form(context, node, step.layer)
        pads = _source_pads(context, index, step)
        stem = compare_constants(context, segment, (index, step), node, pads[1] if pads else 0)
        wide = wide or stem == "wide"
        _compare_product(context, segment, (step, pads), node, stem)
    if not wide:
        _compare_pools(context, segment)
    compare_slopes(context, segment)
    _compare_clamps(context, segment)
    if not wide:
        _compare_rest(context, segment, products=bool(products))


def _counts_differ(context: KerasContext, segment: Segment, op: str, expected: int, found: int) -> bool:
    if expected != found:
        context.fault(
            "missing-tensor",
            segment.layer,
            f"{segment.layer!r}: expected {expected} {op} in front of it, found {found}; convert the source again",
        )
    return expected != found


def _compare_product(
    context: KerasContext, segment: Segment, padded: tuple[Step, Pads | None], node: Node, stem: Stem | None
) -> None:
    """Strides, dilations, groups and padding, that of a ZeroPadding2D in front included."""
    (step, pads), act = padded, padded[0].act
    assert isinstance(act, Product)  # noqa: S101 - the caller chose
    expected: dict[str, Any] = {"strides": act.strides, "dilations": act.dilations, "group": act.groups}
    expected["pads"] = pads or NO_PADS
    if FULL_CHANNELS in context.document.passes and 1 < act.groups == len(act.kernel):
        weights = context.graph.constant(context.graph.producers[node.inputs[1]].inputs[0])
        if weights is not None and len(weights) == full(act.groups):
            expected["group"] = full(act.groups)
    if stem is not None:
        expected = WIDE_STEM if stem == "wide" else strided_attributes(expected, act.kernel.shape[3])
    for name, wanted in expected.items():
        if name == "pads":
            continue
        context.compared += 1
        found = node.attributes.get(name, PLAIN[name])
        if found != wanted:
            context.fault(
                "attributes", step.layer, f"{name} of {step.layer!r}: expected {wanted}, found {found}"
            )
    size = context.source.steps[step.inputs[0]].size
    if pads is None or size is None:
        context.uncompared.append(f"padding of {step.layer!r}")
        return
    window = {
        name: node.attributes.get(name, PLAIN.get(name, act.kernel.shape[2:]))
        for name in ("kernel_shape", "strides", "dilations")
    }
    before = [_node_pads(context, n) for n in segment.nodes if n.op == "Pad" and stem != "wide"]
    _compare_pads(
        context,
        step.layer,
        expected["pads"],
        _sum([actual_pads(node, _behind_pads(size, before), window), *before]),
    )


def _compare_pads(context: KerasContext, layer: str, expected: Pads, found: Pads) -> None:
    context.compared += 4
    if found != expected:
        context.fault(
            "padding",
            layer,
            f"padding of {layer!r} (top, left, bottom, right): expected {expected}, found {found}",
        )


def _source_pads(context: KerasContext, index: int, step: Step) -> Pads | None:
    """A product's padding, that of a ZeroPadding2D in front included; None where it is not known."""
    act = step.act
    assert isinstance(act, Product)  # noqa: S101 - the caller chose
    return None if act.pads is None else _sum([act.pads, *_paddings_before(context, index)])


def _paddings_before(context: KerasContext, index: int) -> Iterator[Pads]:
    """ZeroPadding2D layers in front of a product that no value shows any more."""
    shown = {context.source.last[layer] for layer in context.values}
    (before,) = context.source.steps[index].inputs
    while isinstance(act := context.source.steps[before].act, Padding) and before not in shown:
        yield act.pads
        (before,) = context.source.steps[before].inputs


def _node_pads(context: KerasContext, node: Node) -> Pads:
    """What a Pad node adds: top, left, bottom, right."""
    amounts = context.graph.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if amounts is None or amounts.size != 8:
        return NO_PADS
    return (int(amounts[2]), int(amounts[3]), int(amounts[6]), int(amounts[7]))


def _behind_pads(size: Size, pads: list[Pads]) -> tuple[int, int]:
    """Height and width of a picture behind Pad nodes."""
    top, left, bottom, right = _sum(pads)
    return size[0] + top + bottom, size[1] + left + right


def _sum(pads: list[Any]) -> Pads:
    top, left, bottom, right = (sum(int(p[side]) for p in pads) for side in range(4))
    return (top, left, bottom, right)


def _compare_pools(context: KerasContext, segment: Segment) -> None:
    steps = [step for _, step in segment.steps if isinstance(step.act, Pool)]
    nodes = [node for node in segment.nodes if node.op in POOLS]
    if _counts_differ(context, segment, "pools", len(steps), len(nodes)):
        return
    for step, node in zip(steps, nodes, strict=True):
        act, size = step.act, context.source.steps[step.inputs[0]].size
        assert isinstance(act, Pool)  # noqa: S101 - chosen above
        wanted = {"kernel_shape": act.window, "strides": act.strides}
        context.compared += 2
        found = {name: node.attributes.get(name, (1, 1)) for name in wanted}
        if node.op != act.op or found != wanted:
            told = f"expected {act.op} {wanted}, found {node.op} {found}"
            context.fault("attributes", step.layer, f"the pool {step.layer!r}: {told}")
        elif act.pads is None or size is None:
            context.uncompared.append(f"padding of {step.layer!r}")
        else:
            pads = _sum([actual_pads(node, size[:2], wanted)])
            _compare_pads(context, step.layer, act.pads, pads)


def _compare_clamps(context: KerasContext, segment: Segment) -> None:
    """ReLUs: a node with their limits, or codes that cannot leave them."""
    steps = [step for _, step in segment.steps if isinstance(step.act, Clamp)]
    nodes = [node for node in segment.nodes if node.op in CLAMPS]
    absorbed = context.document.activations != "float32" and not nodes
    if absorbed:
        for step in steps:
            assert isinstance(step.act, Clamp)  # noqa: S101 - chosen above
            keeps_limits(context, segment, step.layer, step.act)
        return
    if _counts_differ(context, segment, "ReLU", len(steps), len(nodes)):
        return
    for step, node in zip(steps, nodes, strict=True):
        assert isinstance(step.act, Clamp)  # noqa: S101 - chosen above
        limits: list[float | None] = [0.0, None]
        if node.op == "Clip":
            stored = [context.graph.constant(name) for name in (*node.inputs[1:], "", "")[:2]]
            limits = [
                float(array.item()) if array is not None and array.size == 1 else None for array in stored
            ]
        context.compared += 2
        if limits != [0.0, step.act.high]:
            told = f"expected 0 to {step.act.high}, found {limits[0]} to {limits[1]}"
            context.fault("attributes", step.layer, f"limits of {step.layer!r}: {told}")


def _compare_rest(context: KerasContext, segment: Segment, *, products: bool) -> None:
    """Every step and node that nothing above took: known by kind, or told as not compared."""
    kinds = Counter(step.act.kind for _, step in segment.steps if isinstance(step.act, Other))
    unknown = sorted(kind for kind in kinds if kind not in OTHERS)
    lone = any(isinstance(step.act, Affine) for _, step in segment.steps) and not products
    if unknown or lone:
        context.uncompared.append(
            f"{segment.layer!r} ({', '.join(unknown) or 'BatchNormalization by itself'})"
        )
        return
    expected = Counter(OTHERS[kind] for kind in kinds.elements())
    taken = {"Conv", "LeakyRelu", *POOLS, *CLAMPS, *MOVERS}
    rest = [node for node in segment.nodes if node.op not in taken and not is_leaky_sum(context, node)]
    repeated = [
        node for node in rest if node.op == "Concat" and len(set(node.inputs)) == 1
    ]  # two per enlargement
    found = Counter(node.op for node in rest if not _has_constant(context, node) and node not in repeated)
    found += Counter({"Resize": len(repeated) // 2})
    if found != expected:
        told = f"expected {dict(expected) or 'no other operator'}, found {dict(found)}"
        context.fault("missing-tensor", segment.layer, f"{segment.layer!r}: {told}; convert the source again")
    if not products:
        steps = [step.act.pads for _, step in segment.steps if isinstance(step.act, Padding)]
        nodes = [_node_pads(context, node) for node in segment.nodes if node.op == "Pad"]
        if steps or nodes:
            _compare_pads(context, segment.layer, _sum(steps), _sum(nodes))


def _has_constant(context: KerasContext, node: Node) -> bool:
    """A channel's factor or offset behind a convolution, which is compared with its weights."""
    return node.op in AFFINE and any(context.graph.constant(name) is not None for name in node.inputs)
