"""A Keras source's products as the graph must hold them: with what is folded into them, and the scales of their codes by rule.

A convolution and the batch normalisations behind it are folded in float64: ``w * gamma / sqrt(variance + epsilon)`` and
``beta + (b - mean) * gamma / sqrt(variance + epsilon)``. The scales of codes are those of docs/keras.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from xdet.checking.numbers.constants import LARGEST_BIAS_CODE, LARGEST_CODE
from xdet.checking.numbers.layers import Affine, Product
from xdet.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from xdet.checking.numbers.keras_layers import Step
    from xdet.checking.numbers.segments import KerasContext, Segment
    from xdet.model.graph import Node


def fold(context: KerasContext, segment: Segment, index: int, step: Step) -> Product:
    """A convolution with every affine step that follows it, in the same segment, and alone reads it.

    Raises:
        ModelError: a step has another number of channels than the convolution.
    """
    act, behind = step.act, dict(segment.steps)
    assert isinstance(act, Product)  # noqa: S101 - the caller chose
    folded = act
    while context.readers[index] == 1:
        found = next((n for n in behind if behind[n].inputs == (index,)), None)
        if found is None:
            break
        affine = behind[found].act
        if not isinstance(affine, Affine):
            break
        if affine.offset.shape != folded.bias.shape:
            raise ModelError(
                f"layer {behind[found].layer!r} has {len(affine.offset)} channels, expected {len(folded.bias)} as in "
                f"{step.layer!r}; save the source again"
            )
        folded = folded.then(affine, behind[found].layer)
        index = found
    return folded


def quantised(context: KerasContext, product: Product, node: Node) -> Product | None:
    """A product with the scales that its codes have by the rule of docs/keras.md; None where no codes go in.

    Where no pixel means 0 exactly, the first convolution's bias takes back what rounding the zero-point moved.
    """
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


def _with_pixel_shift(context: KerasContext, folded: Product, node: Node) -> Product:
    """Where no pixel means 0 exactly, the first convolution's bias takes back what rounding the zero-point moved."""
    source = context.graph.producers.get(node.inputs[0])
    codes = "" if source is None else source.inputs[0]
    while (before := context.graph.producers.get(codes)) is not None and codes != context.picture:
        if before.op not in ("Reshape", "Transpose", "Pad"):
            return folded
        codes = before.inputs[0]
    if codes != context.picture:
        return folded
    rescaling = context.document.spec.image.rescaling
    zero_point = min(max(round(-rescaling.offset / rescaling.scale), 0), 255)
    if not -0.5 <= -rescaling.offset / rescaling.scale <= 255.5:
        return folded
    shift = rescaling.offset + zero_point * rescaling.scale
    sums = folded.kernel.reshape(len(folded.kernel), -1)
    return replace(
        folded, bias=folded.bias + shift * sums.sum(axis=1), terms=folded.terms + abs(shift) * np.abs(sums).sum(axis=1)
    )


def _input_scales(context: KerasContext, source: Node) -> tuple[np.float32, ...]:
    """The scale of a convolution's input: by its DequantizeLinear, and by whoever wrote the codes.

    Where they disagree, that is told with the activations, and the bias must agree with one of them.
    """
    writer = context.graph.producers.get(source.inputs[0])
    nodes = [source, *([writer] if writer is not None and writer.op == "QuantizeLinear" else [])]
    scales = [context.graph.constant(node.inputs[1]) for node in nodes]
    found = [np.float32(scale.reshape(-1)[0]) for scale in scales if scale is not None]
    of_pixels = [np.float32(context.document.spec.image.rescaling.scale)]
    return (*found, *(of_pixels if source.inputs[0] == context.picture else ()))


def affines_behind(context: KerasContext, node: Node, channels: int) -> Iterator[Affine]:
    """Channel factors and offsets that stand behind a convolution as nodes of their own."""
    behind = context.graph.only_reader(node.outputs[0])
    while behind is not None and node.outputs[0] not in context.layers:
        numbers = [context.graph.constant(name) for name in behind.inputs[1:]]
        if behind.op not in ("Mul", "Add", "BatchNormalization") or any(
            n is None or n.size not in (1, channels) for n in numbers
        ):
            return
        arrays = [np.broadcast_to(np.asarray(n, np.float64).reshape(-1), (channels,)) for n in numbers]
        if behind.op == "BatchNormalization":
            scale, offset, mean, variance = arrays
            factor = scale / np.sqrt(variance + float(behind.attributes.get("epsilon", 1e-5)))
            yield _affine(factor, offset - mean * factor)
        elif behind.op == "Mul":
            yield _affine(arrays[0], np.zeros(channels))
        else:
            yield _affine(np.ones(channels), arrays[0])
        node = behind
        behind = context.graph.only_reader(node.outputs[0])


def _affine(factor: NDArray[np.float64], offset: NDArray[np.float64]) -> Affine:
    return Affine(factor, offset, np.abs(offset))
