"""Static part, products and pools: strides, padding, groups, windows, and the form that runtimes run in integers.

One comparison for every source: of a layer (``layers``), in the form that passes gave it (``rewrites``), with its node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdet.checking.numbers.constants import compare_constants, stored
from xdet.checking.numbers.layers import NO_PADS, added, same_pads
from xdet.checking.numbers.rewrites import as_written, chooses_others, wrong_pixels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from xdet.checking.numbers.context import StaticComparison
    from xdet.checking.numbers.layers import Affine, Pads, Pool, Product
    from xdet.checking.result import Cause
    from xdet.model.graph import Node

PLAIN = {"strides": (1, 1), "dilations": (1, 1), "group": 1}


def compare_product(
    context: StaticComparison, product: Product, node: Node, *, padded: Pads = NO_PADS, behind: Iterable[Affine] = ()
) -> str | None:
    """Compare a Conv or Gemm with a product of the source.

    Args:
        context: the comparison.
        product: the source's.
        node: the graph's.
        padded: by Pad nodes in front of it that belong to it.
        behind: what the graph computes of its result by channels, where the source folds it.

    Returns:
        The pass that repeated the source's channels in it, if one did.
    """
    layer = product.layers[0]
    require_integer_form(context, node, layer)
    weights = stored(context, node, 1)
    written = as_written(product, () if weights is None else weights.values.shape, context.document.passes)
    wrong = wrong_pixels(context.graph, node, product, written)
    if wrong is not None:
        context.fault("padding", layer, f"{layer!r} on groups of pixels reads {wrong}")
    if len(written.product.kernel) > len(product.kernel) and chooses_others(context.graph, node, len(product.kernel)):
        context.fault("attributes", layer, f"the channels that are taken of {layer!r} are not the source's")
    if written.by is not None:
        proof = f"all {written.copies} copies equal the source's, and everything between them is zero ({written.by})"
        names = product.tensors or product.layers[:1]
        for name in names:
            context.prove(name, layer, "weights", proof)
    compare_constants(context, written.product, node, behind)
    if node.op == "Conv":
        _compare_geometry(context, written.product, node, NO_PADS if written.by else padded)
    return written.by


def _compare_geometry(context: StaticComparison, product: Product, node: Node, padded: Pads) -> None:
    layer = product.layers[0]
    expected = {"strides": product.strides, "dilations": product.dilations, "group": product.groups}
    found = {name: node.attributes.get(name, PLAIN[name]) for name in expected}
    context.compared += len(expected)
    for name, wanted in expected.items():
        if found[name] != wanted:
            context.fault("attributes", layer, f"{name} of {layer!r}: expected {wanted}, found {found[name]}")
    if product.pads is None or product.size is None:
        context.uncompared.append(f"padding of {layer!r}")
        return
    window = {"kernel_shape": product.kernel.shape[2:], "strides": found["strides"], "dilations": found["dilations"]}
    (height, width), (top, left, bottom, right) = product.size, padded
    size = height + top + bottom, width + left + right
    pads = added([actual_pads(node, size, window), padded])
    compare_pads(context, layer, product.pads, pads)


def compare_pads(context: StaticComparison, layer: str, expected: Pads, found: Pads) -> None:
    """Compare top, left, bottom and right."""
    context.compared += 4
    if found != expected:
        context.fault("padding", layer, pads_text(layer, expected, found))


def pads_text(layer: str, expected: Pads, found: Pads) -> str:
    """Two paddings that differ, in words."""
    return f"padding of {layer!r} (top, left, bottom, right): expected {expected}, found {found}"


def actual_pads(node: Node, size: Sequence[int], window: Mapping[str, tuple[int, ...]]) -> Pads:
    """What a pool or convolution really pads: top, left, bottom, right; ``size`` is its input's height and width."""
    rule = node.attributes.get("auto_pad", "NOTSET")
    if rule not in ("SAME_UPPER", "SAME_LOWER"):
        top, left, bottom, right = node.attributes.get("pads", NO_PADS) if rule == "NOTSET" else NO_PADS
        return (top, left, bottom, right)
    same = same_pads(tuple(size), window["kernel_shape"], window["strides"], window.get("dilations", (1, 1)))
    return same if rule == "SAME_UPPER" else (*same[2:], *same[:2])


def pool_fault(pool: Pool, layer: str, node: Node, size: Sequence[int]) -> tuple[Cause, str] | None:
    """How a pool differs from the source's, whose input has this size; None where it does not, as far as is known."""
    expected = {"kernel_shape": pool.window, "strides": pool.strides}
    found = {name: node.attributes.get(name, (1, 1)) for name in expected}
    if node.op != pool.op or found != expected:
        return "attributes", f"the pool {layer!r}: expected {pool.op} {expected}, found {node.op} {found}"
    pads = actual_pads(node, size, expected)
    if pool.pads is None or pads == pool.pads:
        return None
    return "padding", pads_text(layer, pool.pads, pads)


def compare_limits(
    context: StaticComparison, layer: str, limits: tuple[float | None, float | None], node: Node
) -> None:
    """Compare the lower and the upper limit of a ReLU with those of a Relu or Clip."""
    found: tuple[float | None, ...] = (0.0, None)
    if node.op == "Clip":
        stored = (context.graph.constant(name) for name in (*node.inputs[1:], "", "")[:2])
        found = tuple(float(a.item()) if a is not None and a.size == 1 else None for a in stored)
    context.compared += 2
    if found != limits:
        message = f"expected {limits[0]} to {limits[1]}, found {found[0]} to {found[1]}"
        context.fault("attributes", layer, f"limits of {layer!r}: {message}")


def require_integer_form(context: StaticComparison, node: Node, layer: str) -> None:
    """DequantizeLinear on every operand, one QuantizeLinear behind: the only form that runtimes run in integers."""
    if context.document.activations == "float32":
        return
    operands = node.inputs[:2] if context.document.symmetric else node.inputs  # a symmetric one's bias is float32
    for position, name in enumerate(operands):
        producer = context.graph.producers.get(name)
        while node.op == "Gemm" and producer is not None and producer.op in ("Reshape", "Transpose"):
            producer = context.graph.producers.get(producer.inputs[0])  # rows of a Gemm: runtimes move the codes
        if name and (producer is None or producer.op != "DequantizeLinear"):
            what = "a float constant" if producer is None else f"{producer.op} {producer.name!r}"
            context.fault(
                "float-convolution",
                layer,
                f"{node.op} of {layer!r} reads {what} as operand {position}, expected DequantizeLinear: "
                f"it runs in float instead of integers",
            )
    readers = context.graph.readers(node.outputs[0])
    found = ", ".join(f"{reader.op} {reader.name!r}" for reader in readers) or "nothing"
    if [reader.op for reader in readers] not in (["QuantizeLinear"], ["Reshape"]):
        context.fault(
            "float-convolution",
            layer,
            f"the result of {layer!r} is read by {found}, expected one QuantizeLinear: "
            "it runs in float instead of integers",
        )
