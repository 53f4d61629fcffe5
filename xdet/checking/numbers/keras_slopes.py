"""Static part for Keras sources, LeakyReLUs: a node with the source's slope, or a sum that gives the same 256 codes.

The sum is the work of the pass ``leaky as sum`` (``static_sums``): neither of its two scales is the tensor's own, so both are
judged by the table that they make.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.leaky import LeakyCase, SumForm, float_table, plain_form, sum_table
from xdet.checking.numbers.context import QUANTIZERS, pair_of
from xdet.checking.numbers.keras_steps import Leaky
from xdet.checking.numbers.proofs import leaky_sum_of

if TYPE_CHECKING:
    from xdet.checking.numbers.keras_segments import KerasContext, Segment
    from xdet.model.graph import Node


def compare_slopes(context: KerasContext, segment: Segment) -> None:
    """Compare every LeakyReLU of a segment with its node or nodes."""
    steps = [step for _, step in segment.steps if isinstance(step.act, Leaky)]
    nodes = [node for node in segment.nodes if node.op != "Max" and _is_leaky(context, node)]
    if len(steps) != len(nodes):
        context.fault(
            "missing-tensor",
            segment.layer,
            f"{segment.layer!r}: expected {len(steps)} LeakyRelu in front of it, found {len(nodes)}; "
            f"convert the source again",
        )
        return
    for step, node in zip(steps, nodes, strict=True):
        assert isinstance(step.act, Leaky)  # noqa: S101 - chosen above
        context.compared += 1
        slope = np.float32(step.act.slope)
        if node.op == "Add":
            _compare_sum(context, step.layer, slope, node)
            continue
        found = np.float32(node.attributes.get("alpha", 0.01))
        if slope != found:
            context.fault(
                "slope",
                step.layer,
                f"slope of {step.layer!r}: expected {float(slope):.6g}, found {float(found):.6g}",
            )


def _is_leaky(context: KerasContext, node: Node) -> bool:
    return node.op == "LeakyRelu" or is_leaky_sum(context, node)


def is_leaky_sum(context: KerasContext, node: Node) -> bool:
    """Whether a node is the Add, or the Max, of a LeakyReLU that stands as a sum."""
    if node.op == "Max":
        behind = context.graph.only_reader(node.outputs[0])
        add = None if behind is None else context.graph.only_reader(behind.outputs[0])
        return add is not None and add.op == "Add" and leaky_sum_of(context.graph, add) is not None
    return node.op == "Add" and leaky_sum_of(context.graph, node) is not None


def _compare_sum(context: KerasContext, layer: str, slope: np.float32, add: Node) -> None:
    """The 256 codes of a sum beside those of the real function."""
    found = leaky_sum_of(context.graph, add)
    assert found is not None  # noqa: S101 - the caller looked
    writer = context.graph.producers.get(found.whole.inputs[0])
    while writer is not None and writer.op in ("Transpose", "Reshape"):
        writer = context.graph.producers.get(writer.inputs[0])
    behind = context.graph.only_reader(add.outputs[0])
    pairs = [_numbers(context, node) for node in (writer, behind, found.whole, found.excess)]
    floor = context.graph.constant(found.maximum.inputs[1])
    if any(pair is None for pair in pairs) or floor is None or floor.dtype != np.uint8:
        context.fault("scale", layer, f"the sum behind {layer!r}: expected constant scales, found none")
        return
    (scale_in, zero_in), (scale_out, zero_out), whole, excess = (pair for pair in pairs if pair is not None)
    for node, zero in ((found.whole, whole[1]), (found.excess, excess[1]), (found.maximum, floor.item())):
        if zero != zero_in:
            told = f"expected {zero_in}, found {zero}"
            context.fault("zero-point", layer, f"zero-point of {layer!r} in {node.op} {node.name!r}: {told}")
    case = LeakyCase(scale_in, zero_in - 128, scale_out, zero_out - 128, slope)
    form = SumForm(whole[0], excess[0])
    differing = int((sum_table(case, form) != float_table(case, plain_form(case))).sum())
    context.compared += 256
    if differing:
        written = float(form.whole) / (float(form.whole) + float(form.excess))
        context.fault(
            "slope",
            layer,
            f"{differing} of 256 codes behind {layer!r} differ from the source's (slope {float(slope):.6g}): "
            f"the graph adds with slope {written:.6g}",
        )


def _numbers(context: KerasContext, node: Node | None) -> tuple[np.float32, int] | None:
    """Scale and uint8 zero-point of a QuantizeLinear or DequantizeLinear."""
    known = node is not None and node.op in QUANTIZERS and len(node.inputs) > 2
    pair = pair_of(context, node) if known and node is not None else None
    return None if pair is None or not pair[2] else pair[:2]
