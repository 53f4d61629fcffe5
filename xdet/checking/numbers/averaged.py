"""Static part, AVERAGE_POOL_2D as a depthwise convolution (pass ``average as convolution``), derived from what a mean is.

Its weights are ones of scale 1 / places for every channel of the source, and zeros where channels were filled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from xdet.checking.numbers.full_channels import FULL_CHANNELS, full
from xdet.checking.result import ProvenChange

if TYPE_CHECKING:
    from converters.sources.tflite.reader import TfliteOperator
    from xdet.checking.numbers.context import StaticContext
    from xdet.checking.result import Cause
    from xdet.model.graph import Node

AVERAGE = "average as convolution"
PLAIN = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}


def averaged_behind(context: StaticContext, node: Node) -> TfliteOperator | None:
    """The AVERAGE_POOL_2D whose result stands behind a Conv; None where that pass did not run."""
    if AVERAGE not in context.document.passes or node.op != "Conv":
        return None
    makers = (
        context.source.makers.get(index)
        for quantize in context.graph.readers(node.outputs[0])
        for index in context.tensors_by_value.get(quantize.outputs[0], ())
    )
    return next((op for op in makers if op is not None and op.op == "AVERAGE_POOL_2D"), None)


def compare_averaged(context: StaticContext, node: Node, op: TfliteOperator, pads: tuple[int, ...]) -> None:
    """Compare weights, scale, window, strides and pads of the convolution that stands for an average pool.

    Args:
        context: the comparison.
        node: the convolution.
        op: the source's pool, VALID.
        pads: what a folded PAD in front of the pool adds.
    """
    layer = context.source.output_name(op)
    channels = context.source.model.tensors[op.inputs[0]].shape[3]
    window = tuple(cast("int", op.options[f"filter_{side}"]) for side in "hw")
    dequantize = context.graph.producers.get(node.inputs[1])
    numbers = [] if dequantize is None else [context.graph.constant(name) for name in dequantize.inputs[:2]]
    if len(numbers) < 2 or numbers[0] is None or numbers[1] is None or len(node.inputs) > 2:
        context.fault("weight", layer, f"weights of {layer!r}: expected constants and no bias")
        return
    weights, scale = numbers[0], np.atleast_1d(numbers[1])
    context.compared += weights.size + scale.size + 4
    groups = (
        full(channels) if len(weights) != channels and FULL_CHANNELS in context.document.passes else channels
    )
    expected = np.zeros((groups, 1, *window), np.int8)
    expected[:channels] = 1
    if weights.dtype != np.int8 or not np.array_equal(weights, expected):
        context.fault(
            "weight", layer, f"weights of {layer!r}: expected ones for {channels} channels of {window}"
        )
    elif (scale != np.float32(1 / int(np.prod(window)))).any():
        context.fault(
            "scale",
            layer,
            f"scale of the weights of {layer!r}: expected 1 / {np.prod(window)}, found {scale[0]}",
        )
    strides = tuple(cast("int", op.options[f"stride_{side}"]) for side in "hw")
    wanted = {"strides": strides, "pads": pads, "dilations": (1, 1), "group": groups}
    for name, value in wanted.items():
        found = node.attributes.get(name, PLAIN.get(name))
        if found != value:
            cause: Cause = "padding" if name == "pads" else "attributes"
            context.fault(cause, layer, f"{name} of {layer!r}: expected {value}, found {found}")
    proof = f"all weights are 1, and their scale is 1 / {np.prod(window)}"
    context.proven.append(ProvenChange(layer, layer, "weights", None, None, proof))
