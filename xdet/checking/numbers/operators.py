"""Static part, operators: strides, padding, groups, windows and slopes, and the form that lets a product run in integers.

Padding in pixels, as sources state it and as nodes of the graph do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.leaky import FloatForm
from converters.sources.tflite.operators import WEIGHTED
from xdet.checking.numbers.averaged import averaged_behind, compare_averaged
from xdet.checking.numbers.context import PRODUCTS, owners_of, pair_of
from xdet.checking.numbers.full_channels import FULL_CHANNELS, full
from xdet.checking.numbers.proofs import announced, compare_sum, leaky_match
from xdet.checking.numbers.shifted import SHIFTED_ROWS, shifted_attributes, wrong_rows
from xdet.checking.numbers.source_graph import number
from xdet.checking.numbers.split import columns_of, numbers_beyond_int8, wrong_repeats
from xdet.checking.numbers.strided import STRIDED_STEM, strided_attributes
from xdet.checking.numbers.transposed import compare_transposed, transposed_behind
from xdet.checking.result import ProvenChange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.sources.tflite.reader import TfliteOperator
    from xdet.checking.numbers.context import Comparison, StaticContext
    from xdet.model.graph import Node


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """SAME padding of one axis, (before, after): the odd pixel goes after, in TFLite as in Keras.

    Source: tensorflow/lite/kernels/padding.h.
    """
    covered = (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1
    total = max(covered - size, 0)
    return total // 2, total - total // 2


def actual_pads(node: Node, sizes: Sequence[int], window: Mapping[str, tuple[int, int]]) -> tuple[int, ...]:
    """What a pool or convolution really pads: top, left, bottom, right.

    Args:
        node: the node, with ``pads`` or ``auto_pad``.
        sizes: height and width of its input.
        window: its ``kernel_shape``, ``strides`` and, where it has them, ``dilations``.
    """
    rule = node.attributes.get("auto_pad", "NOTSET")
    if rule not in ("SAME_UPPER", "SAME_LOWER"):
        return tuple(node.attributes.get("pads", (0, 0, 0, 0))) if rule == "NOTSET" else (0, 0, 0, 0)
    pads = [
        same_padding(size, k, s, d)
        for size, k, s, d in zip(
            sizes, window["kernel_shape"], window["strides"], window.get("dilations", (1, 1)), strict=True
        )
    ]
    if rule == "SAME_LOWER":
        pads = [(after, before) for before, after in pads]
    return (pads[0][0], pads[1][0], pads[0][1], pads[1][1])


POOL_TYPES = {"MAX_POOL_2D": "MaxPool", "AVERAGE_POOL_2D": "AveragePool"}
WIDE_STEM = {"strides": (2, 1), "pads": (1, 0, 1, 0), "dilations": (1, 1), "group": 1}
PLAIN = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "group": 1}


def compare_operators(context: StaticContext) -> None:
    """Compare every product, pool and LeakyRelu of the network with its source operator."""
    for node in context.graph.nodes:
        if node.op in PRODUCTS:
            _compare_product(context, node)
        elif node.op in POOL_TYPES.values():
            _compare_pool(context, node)
        elif node.op == "LeakyRelu":
            _compare_slope(context, node)
        elif node.op == "Add":
            compare_sum(context, node)


def _compare_product(context: StaticContext, node: Node) -> None:
    op = context.operator_of(node) or _operator_behind(context, node)
    if op is None and (transposed := transposed_behind(context, node)) is not None:
        require_integer_form(context, node, context.source.output_name(transposed))
        compare_transposed(context, node, transposed)
        return
    if op is None and (averaged := averaged_behind(context, node)) is not None:
        require_integer_form(context, node, context.source.output_name(averaged))
        compare_averaged(context, node, averaged, _folded_padding(context, node, averaged))
        return
    if op is None:
        context.fault(
            "missing-tensor",
            None,
            f"the weights of {node.op} {node.name!r} belong to no tensor of the source; convert the source again",
        )
        return
    layer = context.source.output_name(op)
    require_integer_form(context, node, layer)
    if node.op == "Conv":
        expected, rewrite = expected_attributes(context, node, op), context.replicated_by(node)
        if rewrite == STRIDED_STEM:
            expected = _on_columns(context, node, op, expected)
        if op.op == "DEPTHWISE_CONV_2D" and rewrite == FULL_CHANNELS:
            expected["group"] = full(expected["group"])
        if rewrite == SHIFTED_ROWS:
            expected = _on_groups(context, node, op, expected)
        _compare_attributes(context, node, layer, WIDE_STEM if rewrite == "wide stem" else expected)


def _on_columns(
    context: StaticContext, node: Node, op: TfliteOperator, expected: dict[str, Any]
) -> dict[str, Any]:
    """What a strided stem must have, the rows that it reads twice compared on the way."""
    numbers, stride, pads = numbers_beyond_int8(context, op), expected["strides"][0], expected["pads"]
    expected = strided_attributes(expected, context.source.model.tensors[op.inputs[1]].shape[2])
    if numbers is None:
        return expected
    wrong, layer = wrong_repeats(context, node, numbers, stride, pads), context.source.output_name(op)
    if wrong is not None:
        context.fault("padding", layer, f"{layer!r} on groups of pixels reads {wrong}")
    (_, front, _, behind), found = expected["pads"], node.attributes.get("pads", (0, 0, 0, 0))
    strides = node.attributes.get("strides", (1, 1))  # told above where they are wrong
    return {**expected, "strides": strides, "pads": (found[0], front, found[2], behind)}


def _on_groups(
    context: StaticContext, node: Node, op: TfliteOperator, expected: dict[str, Any]
) -> dict[str, Any]:
    """What a depthwise convolution on groups of pixels must have, its copies compared on the way."""
    folded = _folded_padding(context, node, op)
    width = context.source.model.tensors[op.inputs[0]].shape[2] - folded[1] - folded[3]
    wrong = wrong_rows(context, node, expected["pads"], width, columns_of(context, op))
    if wrong is not None:
        layer = context.source.output_name(op)
        context.fault("padding", layer, f"{layer!r} on groups of pixels reads {wrong}")
    return shifted_attributes(context, node, expected, width)


def _operator_behind(context: StaticContext, node: Node) -> TfliteOperator | None:
    """The source operator whose result stands behind a product: for one whose weights were replaced."""
    for quantize in context.graph.readers(node.outputs[0]):
        for index in context.tensors_by_value.get(quantize.outputs[0], ()):
            op = context.source.makers.get(index)
            if op is not None and op.op in WEIGHTED:
                return op
    return None


def require_integer_form(context: Comparison, node: Node, layer: str) -> None:
    """DequantizeLinear on every operand, one QuantizeLinear behind: the only form that runtimes run in integers."""
    if context.document.activations == "float32":
        return
    operands = (
        node.inputs[:2] if context.document.symmetric else node.inputs
    )  # a symmetric one's bias is float32
    for position, name in enumerate(operands):
        producer = context.graph.producers.get(name)
        while node.op == "Gemm" and producer is not None and producer.op in ("Reshape", "Transpose"):
            producer = context.graph.producers.get(
                producer.inputs[0]
            )  # rows of a Gemm: runtimes move the codes
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
    behind = [r.op for r in readers]
    if behind not in (["QuantizeLinear"], ["Reshape"]):
        context.fault(
            "float-convolution",
            layer,
            f"the result of {layer!r} is read by {found}, expected one QuantizeLinear: it runs in float instead of integers",
        )


def expected_attributes(context: StaticContext, node: Node, op: TfliteOperator) -> dict[str, Any]:
    """What the source's options make of a Conv; a PAD in front that was folded adds its pixels."""
    tensors, options = context.source.model.tensors, op.options
    picture, kernel = tensors[op.inputs[0]], tensors[op.inputs[1]].shape
    strides = (_whole(options["stride_h"]), _whole(options["stride_w"]))
    dilations = (_whole(options["dilation_h"]), _whole(options["dilation_w"]))
    pads = [0, 0, 0, 0]
    if options["padding"] == "SAME":
        for axis in (0, 1):
            before, after = same_padding(
                picture.shape[1 + axis], kernel[1 + axis], strides[axis], dilations[axis]
            )
            pads[axis], pads[axis + 2] = before, after
    folded = _folded_padding(context, node, op)
    groups = picture.shape[3] if op.op == "DEPTHWISE_CONV_2D" else picture.shape[3] // kernel[3]
    return {
        "strides": strides,
        "pads": tuple(a + b for a, b in zip(pads, folded, strict=True)),
        "dilations": dilations,
        "group": groups,
    }


def _folded_padding(context: StaticContext, node: Node, op: TfliteOperator) -> tuple[int, ...]:
    """Top, left, bottom, right of a source PAD that no node computes any more; zeros without one."""
    pad = context.source.makers.get(op.inputs[0])
    before = context.graph.producers.get(node.inputs[0])
    if pad is None or pad.op != "PAD" or before is None:
        return (0, 0, 0, 0)
    if op.inputs[0] in context.tensors_by_value.get(node.inputs[0], ()):
        return (0, 0, 0, 0)  # float networks keep the PAD
    owners = owners_of(context, before.inputs[0], set()) if before.inputs else ()
    amounts = context.source.model.tensors[pad.inputs[1]].data
    if amounts is None or (op.inputs[0] in owners and pad.inputs[0] not in owners):
        return (0, 0, 0, 0)
    return (int(amounts[1, 0]), int(amounts[2, 0]), int(amounts[1, 1]), int(amounts[2, 1]))


def _compare_attributes(context: StaticContext, node: Node, layer: str, expected: Mapping[str, Any]) -> None:
    context.compared += len(expected)
    if node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        context.fault(
            "padding",
            layer,
            f"padding of {layer!r}: expected {expected['pads']}, found auto_pad {node.attributes['auto_pad']}",
        )
    for name, wanted in expected.items():
        found = node.attributes.get(name, PLAIN[name])
        if found != wanted:
            context.fault(
                "padding" if name == "pads" else "attributes",
                layer,
                f"{name} of {layer!r}: expected {wanted}, found {found}",
            )


def _compare_pool(context: StaticContext, node: Node) -> None:
    """A pool that reads what a source pool reads, or an activation of it (they may have changed places)."""
    before = context.graph.producers.get(node.inputs[0])
    if before is None or before.op != "DequantizeLinear":
        return
    owners = owners_of(context, before.inputs[0], set())
    pools = [op for o in owners for op in context.source.pools_behind(o) if POOL_TYPES.get(op.op) == node.op]
    if not pools or _is_wide(node):
        return
    faults = [_pool_fault(context, node, op) for op in pools]
    context.compared += 3
    if all(faults):
        cause, layer, message = next(f for f in faults if f)
        context.fault("padding" if cause == "padding" else "attributes", layer, message)


def _is_wide(node: Node) -> bool:
    """The pool of a wide stem: the maximum over the four members of a window, which stand side by side."""
    return node.attributes.get("kernel_shape") == (1, 4) and node.attributes.get("strides") == (1, 4)


def _pool_fault(context: StaticContext, node: Node, op: TfliteOperator) -> tuple[str, str, str] | None:
    layer, options = context.source.output_name(op), op.options
    wanted = {
        "kernel_shape": (_whole(options["filter_h"]), _whole(options["filter_w"])),
        "strides": (_whole(options["stride_h"]), _whole(options["stride_w"])),
    }
    for name, value in wanted.items():
        found = node.attributes.get(name, (1, 1))
        if found != value:
            return "attributes", layer, f"{name} of {layer!r}: expected {value}, found {found}"
    sizes = context.source.model.tensors[op.inputs[0]].shape[1:3]
    expected = (0, 0, 0, 0)
    if options["padding"] == "SAME":
        (top, bottom), (left, right) = (
            same_padding(size, k, s, 1)
            for size, k, s in zip(sizes, wanted["kernel_shape"], wanted["strides"], strict=True)
        )
        expected = (top, left, bottom, right)
    actual = actual_pads(node, sizes, wanted)
    if actual != expected:
        return (
            "padding",
            layer,
            f"padding of {layer!r} (top, left, bottom, right): expected {expected}, found {actual}",
        )
    return None


def _compare_slope(context: StaticContext, node: Node) -> None:
    """The slope, proven by the table it makes with the scale in front of it (whose own fault is found with the activations)."""
    before = context.graph.producers.get(node.inputs[0])
    pair = pair_of(context, before) if before is not None and before.op == "DequantizeLinear" else None
    if before is None or pair is None:
        return
    owners = owners_of(context, before.inputs[0], set())
    alpha = np.float32(node.attributes.get("alpha", 0.01))
    matched = leaky_match(context, FloatForm(pair[0], alpha), owners)
    context.compared += 1
    if matched is None:
        context.fault("slope", None, f"LeakyRelu {node.name!r} stands for no operator of the source")
        return
    op, differing, size = matched
    layer, slope = context.source.output_name(op), np.float32(number(op, "alpha", 1.0))
    if differing and alpha != announced(context, layer, "slope", slope):
        context.fault(
            "slope",
            layer,
            f"{differing} of {size} codes behind {op.op} {layer!r} differ from the source's (slope {float(slope):.6g}): "
            f"the graph has slope {float(alpha):.6g} behind scale {float(pair[0]):.6g}",
        )
    elif not differing and alpha != slope:
        name = context.source.names[op.inputs[0]]
        proof = f"all {size} codes behind {op.op} equal LiteRT's"
        context.proven.append(ProvenChange(name, layer, "slope", float(slope), float(alpha), proof))


def _whole(value: object) -> int:
    assert isinstance(value, int)  # noqa: S101 - the schema's type
    return value
