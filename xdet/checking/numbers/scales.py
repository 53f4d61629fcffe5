"""Static part, activations: every QuantizeLinear and DequantizeLinear has the scale and zero-point of its source tensor.

Whose codes a value holds tells ``static_owners``; numbers that differ must be proven harmless (``static_proofs``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdet.checking.numbers.context import QUANTIZERS, owners_of, pair_of, shift_of
from xdet.checking.numbers.pairs import combination_at
from xdet.checking.numbers.proofs import prove
from xdet.checking.numbers.slopes import announced, is_summand

if TYPE_CHECKING:
    import numpy as np

    from xdet.checking.numbers.context import StaticContext
    from xdet.checking.result import Cause
    from xdet.model.graph import Node

Fault = tuple["Cause", str, str]  # cause, layer, in words


def compare_activations(context: StaticContext) -> None:
    """Compare every pair of the network; the decoder behind ``head`` is float and has none."""
    faults: dict[Fault, list[str]] = {}
    for node in context.graph.nodes:
        if node.op not in QUANTIZERS or context.graph.constant(node.inputs[0]) is not None:
            continue
        if node.op == "DequantizeLinear" and is_summand(context.graph, node):
            continue  # judged with its sum
        if (combination := combination_at(context, node)) is not None and combination.steps:
            continue  # judged by its codes (``compare_steps``)
        codes = node.inputs[0] if node.op == "DequantizeLinear" else node.outputs[0]
        owners = owners_of(context, codes, set())
        if not owners:
            context.unaccounted.append(codes)
        elif (fault := _compare(context, node, owners)) is not None:
            faults.setdefault(fault, []).append(f"{node.op} {node.name!r}")
    for (cause, layer, told), nodes in faults.items():
        context.fault(cause, layer, f"{cause} of {layer!r} in {', '.join(nodes)}: {told}")


def _compare(context: StaticContext, node: Node, owners: tuple[int, ...]) -> Fault | None:
    """What is wrong with one node's numbers, unless they are proven harmless."""
    layer, found = context.source.names[owners[0]], pair_of(context, node)
    if found is None:
        return "scale", layer, "expected one constant number, found none; convert the source again"
    context.compared += 2
    differences = [_difference(context, index, found) for index in owners]
    if not all(differences) or prove(context, node, owners):
        return None
    cause, told = next(difference for difference in differences if difference)
    return cause, layer, told


def _difference(
    context: StaticContext, index: int, found: tuple[np.float32, int, bool]
) -> tuple[Cause, str] | None:
    """What differs from source tensor ``index``: (cause, message), or None."""
    quant = context.source.model.tensors[index].quant
    assert quant is not None  # noqa: S101 - owners are quantised
    scale, zero_point, unsigned = found
    expected = quant.scalar_zero_point + shift_of(context, index, unsigned=unsigned)
    if scale != quant.scalar_scale and (zero_point == expected or not _is_announced(context, index, scale)):
        ratio = float(scale) / float(quant.scalar_scale) - 1
        return "scale", f"expected {quant.scalar_scale:.9g}, found {scale:.9g} ({ratio:+.2%})"
    if zero_point != expected:
        return "zero-point", f"expected {expected}, found {zero_point}"
    return None


def _is_announced(context: StaticContext, index: int, scale: np.float32) -> bool:
    """Whether the document says that an activation reads this tensor with this scale; what else differs is to blame."""
    quant = context.source.model.tensors[index].quant
    assert quant is not None  # noqa: S101 - owners are quantised
    operators = [context.source.output_name(op) for op in context.source.activations_of(index)]
    return any(scale == announced(context, operator, "scale", quant.scalar_scale) for operator in operators)
