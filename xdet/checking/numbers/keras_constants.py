"""Static part for Keras sources, constants: weights and biases, with what is folded into them.

A convolution and the batch normalisations behind it are folded here in float64: ``w * gamma / sqrt(variance + epsilon)`` and
``beta + (b - mean) * gamma / sqrt(variance + epsilon)``. The graph's float32 numbers may differ by the rounding of the four
operations that its converter needed, ``ROUNDING`` relative to the terms of the sum. Integers must be the nearest codes of
these numbers, |w / scale - code| <= 1/2 but for that rounding, and their scales those of the documented rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from xdet.checking.numbers.constants import told_scales, wide_kernel
from xdet.checking.numbers.full_channels import (
    FULL_CHANNELS,
    first_channels,
    full,
    is_filled,
    without_filling,
)
from xdet.checking.numbers.keras_steps import Affine, Product
from xdet.checking.numbers.strided import is_strided, strided_kernel
from xdet.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from xdet.checking.numbers.keras_segments import KerasContext, Segment
    from xdet.checking.numbers.keras_steps import Step
    from xdet.checking.result import Cause
    from xdet.model.graph import Node

ROUNDING = 8 * 2.0**-24  # eight times half a unit in the last place of float32
HALF_ROUNDING = 2.0**-10  # a weight and what is folded into it, each rounded to float16
SMALLEST_HALF = 2.0**-24
LARGEST_CODE, LARGEST_BIAS_CODE = 127, 2**30
COPIES = 8  # of a kernel in a wide stem
Stem = Literal["wide", "strided"]


@dataclass(frozen=True, eq=False, slots=True)
class Folded:
    """What a convolution must hold.

    Attributes:
        kernel: float64 ``(O, I / groups, H, W)``.
        bias: float64 ``(O,)``.
        terms: float64 ``(O,)``, the sum of the magnitudes that the bias was added up from.
        layers: the source's layers in it.
    """

    kernel: NDArray[np.float64]
    bias: NDArray[np.float64]
    terms: NDArray[np.float64]
    layers: tuple[str, ...]

    def then(self, affine: Affine, layer: str) -> Folded:
        """With ``y = factor * x + offset`` behind it."""
        factor, magnitude = affine.factor, np.abs(affine.factor)
        return Folded(
            self.kernel * factor.reshape(-1, 1, 1, 1),
            self.bias * factor + affine.offset,
            self.terms * magnitude + affine.terms,
            (*self.layers, layer),
        )

    @property
    def told(self) -> str:
        """The layers in words."""
        first, *rest = (repr(layer) for layer in self.layers)
        return f"{first} (with {', '.join(rest)} folded in)" if rest else first


def compare_constants(
    context: KerasContext, segment: Segment, numbered: tuple[int, Step], node: Node, left: int
) -> Stem | None:
    """Compare one convolution's weights and bias; tells which stem it is. ``left`` is the padding in front of its rows."""
    index, step = numbered
    expected = fold(context, segment, index, step)
    if context.document.activations == "float32":
        _compare_floats(context, step.layer, expected, node)
        return None
    return _compare_codes(context, step.layer, expected, node, left)


def fold(context: KerasContext, segment: Segment, index: int, step: Step) -> Folded:
    """A convolution with every affine step that follows it, in the same segment, and alone reads it.

    Raises:
        ModelError: a step has another number of channels than the convolution.
    """
    act, behind = step.act, dict(segment.steps)
    assert isinstance(act, Product)  # noqa: S101 - the caller chose
    folded = Folded(act.kernel, act.bias, np.abs(act.bias), (step.layer,))
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


def _compare_floats(context: KerasContext, layer: str, expected: Folded, node: Node) -> None:
    kernel = context.graph.constant(node.inputs[1])
    bias = context.graph.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    if kernel is None:
        context.fault(
            "missing-tensor",
            layer,
            f"the weights of {expected.told} are no constant of the graph; convert the source again",
        )
        return
    if kernel.shape != expected.kernel.shape:
        told = f"expected {list(expected.kernel.shape)}, found {list(kernel.shape)}"
        context.fault("weight", layer, f"weights of {expected.told}: {told}; convert the source again")
        return
    if bias is not None and bias.shape != expected.bias.shape:
        told = f"expected {list(expected.bias.shape)}, found {list(bias.shape)}"
        context.fault("bias", layer, f"bias of {expected.told}: {told}; convert the source again")
        return
    found = Folded(np.asarray(kernel, np.float64), np.zeros(len(kernel)), np.zeros(len(kernel)), (layer,))
    if bias is not None:
        found = found.then(_affine(np.ones(len(kernel)), bias.astype(np.float64)), "")
    for affine in _affines_behind(context, node, len(kernel)):
        found = found.then(affine, "")
    rounding, least = (
        (HALF_ROUNDING, SMALLEST_HALF) if context.document.float16 else (ROUNDING, np.finfo(np.float32).tiny)
    )
    room = rounding * np.abs(expected.kernel) + least
    if _colours_exchanged(context, layer, expected, found.kernel, room):
        return
    _compare(context, "weight", layer, expected.told, (expected.kernel, found.kernel, room))
    _compare(
        context,
        "bias",
        layer,
        expected.told,
        (expected.bias, found.bias, rounding * expected.terms + max(least, 1e-30)),
    )


def _affines_behind(context: KerasContext, node: Node, channels: int) -> Iterator[Affine]:
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


def _compare(
    context: KerasContext,
    cause: Cause,
    layer: str,
    told: str,
    numbers: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
) -> None:
    """Expected, found, and the difference that rounding may make, element by element."""
    expected, found, room = numbers
    context.compared += expected.size
    wrong = np.argwhere(~(np.abs(found - expected) <= room))
    if len(wrong):
        first = tuple(int(i) for i in wrong[0])
        what = {"weight": "weights", "bias": "bias"}.get(cause, cause)
        context.fault(
            cause,
            layer,
            f"{what} of {told}: {len(wrong)} of {expected.size} differ by more than rounding, first at {list(first)}: "
            f"expected {expected[first]:.9g}, found {found[first]:.9g}",
        )


def _colours_exchanged(
    context: KerasContext, layer: str, expected: Folded, found: NDArray[Any], room: NDArray[Any]
) -> bool:
    """Whether a kernel on three colours is the source's with red and blue exchanged."""
    if expected.kernel.shape[1] != 3:
        return False
    straight, exchanged = (
        bool((np.abs(found - kernel) <= allowed).all())
        for kernel, allowed in (
            (expected.kernel, room),
            (expected.kernel[:, ::-1], room[:, ::-1]),
        )
    )
    if exchanged and not straight:
        context.fault(
            "colour-order",
            layer,
            f"the weights of {expected.told} are the source's with red and blue exchanged: the graph takes BGR where the "
            f"contract says RGB",
        )
    return exchanged and not straight


def _compare_codes(context: KerasContext, layer: str, expected: Folded, node: Node, left: int) -> Stem | None:
    """Integers and their scales; in a wide or strided stem all copies must be the kernel."""
    stored = _dequantized(context, node, 1)
    source = context.graph.producers.get(node.inputs[0])
    if stored is None or source is None or source.op != "DequantizeLinear":
        return None  # told as a float convolution
    codes, scales, zeros = stored
    context.compared += scales.size + zeros.size
    if np.any(zeros):
        context.fault(
            "zero-point",
            layer,
            f"zero-point of the weights of {expected.told}: expected 0, found {np.unique(zeros).tolist()[:4]}",
        )
    channels = len(expected.kernel)
    stem: Stem | None = None
    filled = FULL_CHANNELS in context.document.passes
    sizes = {channels, full(channels)} if filled else {channels}
    if codes.shape in {(COPIES * n, 12, 4, 2) for n in sizes} and expected.kernel.shape[1:] == (3, 3, 3):
        stem, expected = "wide", _copied(expected, wide_kernel(expected.kernel))
    elif any(is_strided(expected.kernel.shape, codes.shape, n) for n in sizes):
        stem, expected = "strided", _copied(expected, strided_kernel(expected.kernel, left))
    shape, copies = expected.kernel.shape, len(expected.kernel) // channels
    if filled and is_filled(codes.shape, shape, copies):
        part = without_filling(codes, shape, copies, 0)
        if part is None:
            context.fault(
                "weight", layer, f"weights of {expected.told}: channels beside the source's are not zero"
            )
            return stem
        codes, scales = part, first_channels(scales, shape[0], copies)
    if codes.shape != expected.kernel.shape or codes.dtype != np.int8:
        context.fault(
            "weight",
            layer,
            f"weights of {expected.told}: expected int8 {list(expected.kernel.shape)}, "
            f"found {codes.dtype} {list(codes.shape)}",
        )
        return stem
    expected = _with_pixel_shift(context, expected, node)
    steps = _input_scales(context, source)
    used = _compare_scales(context, layer, expected, scales, steps[0])
    by_channel = used.astype(np.float64).reshape(-1, 1, 1, 1)
    reals = np.clip(expected.kernel / by_channel, -LARGEST_CODE, LARGEST_CODE)
    room = 0.5 + ROUNDING * (np.abs(reals) + 1)
    if not _colours_exchanged(
        context,
        layer,
        Folded(reals, expected.bias, expected.terms, expected.layers),
        codes.astype(np.float64),
        np.broadcast_to(room, reals.shape),
    ):
        _compare(
            context, "weight", layer, f"{expected.told}, in codes", (reals, codes.astype(np.float64), room)
        )
    _compare_bias_codes(context, layer, expected, node, (used, steps, copies))
    return stem


def _copied(folded: Folded, kernel: NDArray[Any]) -> Folded:
    """What a stem must hold whose copies of the weights are arranged in ``kernel``."""
    copies = len(kernel) // len(folded.kernel)
    return Folded(kernel, np.tile(folded.bias, copies), np.tile(folded.terms, copies), folded.layers)


def _with_pixel_shift(context: KerasContext, folded: Folded, node: Node) -> Folded:
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
    return Folded(
        folded.kernel,
        folded.bias + shift * sums.sum(axis=1),
        folded.terms + abs(shift) * np.abs(sums).sum(axis=1),
        folded.layers,
    )


def _dequantized(
    context: KerasContext, node: Node, position: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None:
    """Codes, scales and zero-points of a constant operand."""
    name = node.inputs[position] if len(node.inputs) > position else ""
    producer = context.graph.producers.get(name)
    if producer is None or producer.op != "DequantizeLinear":
        return None
    codes, scale = (context.graph.constant(value) for value in producer.inputs[:2])
    zeros = context.graph.constant(producer.inputs[2]) if len(producer.inputs) > 2 else np.zeros(1, np.int8)
    if codes is None or scale is None or zeros is None:
        return None
    return codes, np.atleast_1d(scale), np.atleast_1d(zeros)


def _input_scales(context: KerasContext, source: Node) -> list[np.float32]:
    """The scale of a convolution's input: by its DequantizeLinear, and by whoever wrote the codes.

    Where they disagree, that is told with the activations, and the bias must agree with one of them.
    """
    writer = context.graph.producers.get(source.inputs[0])
    nodes = [source, *([writer] if writer is not None and writer.op == "QuantizeLinear" else [])]
    scales = [context.graph.constant(node.inputs[1]) for node in nodes]
    found = [np.float32(scale.reshape(-1)[0]) for scale in scales if scale is not None]
    of_pixels = [np.float32(context.document.spec.image.rescaling.scale)]
    return [*found, *(of_pixels if source.inputs[0] == context.picture else [])]


def _compare_scales(
    context: KerasContext, layer: str, expected: Folded, scales: NDArray[Any], x_scale: np.float32
) -> NDArray[np.float32]:
    """The weights' scales by the rule of docs/keras.md; returns those to go on with: the expected where they are wrong."""
    largest = np.abs(expected.kernel).reshape(len(expected.kernel), -1).max(axis=1) / LARGEST_CODE
    for_bias = np.abs(expected.bias) / (float(x_scale) * LARGEST_BIAS_CODE)
    wanted = np.maximum(np.maximum(largest, for_bias), np.finfo(np.float32).tiny / float(x_scale))
    if context.document.quantization == "int8 per-tensor":
        wanted = np.asarray(wanted.max(keepdims=True), np.float64)
    context.compared += wanted.size
    rule: NDArray[np.float32] = wanted.astype(np.float32)
    if scales.shape != rule.shape:
        context.fault("scale", layer, f"scale of the weights of {expected.told}: {told_scales(rule, scales)}")
        return rule
    wrong = np.abs(scales - wanted) > 2 * ROUNDING * wanted
    used = np.asarray(np.where(wrong, rule, scales), np.float32)
    if wrong.any():
        context.fault("scale", layer, f"scale of the weights of {expected.told}: {told_scales(used, scales)}")
    return used


def _compare_bias_codes(
    context: KerasContext,
    layer: str,
    expected: Folded,
    node: Node,
    scales: tuple[NDArray[np.float32], list[np.float32], int],
) -> None:
    """The bias' codes and scale, which is exactly that of the input times that of the weights.

    ``scales`` are those of the weights, those that the input may have, and how many copies of the channels there are.
    """
    used, inputs, copies = scales
    products = [np.asarray(x * used, np.float32) for x in inputs]
    stored = _dequantized(context, node, 2)
    plain = (
        context.graph.constant(node.inputs[2])
        if context.document.symmetric and len(node.inputs) > 2
        else None
    )
    if plain is not None and plain.shape == np.broadcast_shapes(plain.shape, products[0].shape):
        stored = np.rint(plain / products[0].astype(np.float64)).astype(np.int32), products[0], np.zeros(1)
    if stored is None:
        if len(node.inputs) < 3 or not node.inputs[2]:
            _compare(
                context,
                "bias",
                layer,
                expected.told,
                (expected.bias, np.zeros(len(expected.bias)), ROUNDING * expected.terms),
            )
        return
    codes, scale, zeros = stored
    context.compared += scale.size + zeros.size
    if FULL_CHANNELS in context.document.passes and is_filled(codes.shape, expected.bias.shape, copies):
        part = without_filling(codes, expected.bias.shape, copies, 0)
        if part is None:
            context.fault(
                "bias", layer, f"bias of {expected.told}: channels beside the source's are not zero"
            )
            return
        codes, scale = part, first_channels(scale, len(expected.bias), copies)
    if np.any(zeros):
        context.fault("zero-point", layer, f"zero-point of the bias of {expected.told}: expected 0")
    near = [
        p for p in products if p.shape == scale.shape and np.allclose(p, scale, rtol=4 * ROUNDING, atol=0)
    ]
    if not near:
        context.fault(
            "scale", layer, f"scale of the bias of {expected.told}: {told_scales(products[0], scale)}"
        )
    steps = (near or products)[0].astype(np.float64)
    limits = np.iinfo(np.int32)
    reals = np.clip(expected.bias / steps, limits.min, limits.max)
    room = 0.5 + ROUNDING * (expected.terms / steps + np.abs(reals))
    if codes.shape != reals.shape or codes.dtype != np.int32:
        told = f"expected int32 {list(reals.shape)}, found {codes.dtype} {list(codes.shape)}"
        context.fault("bias", layer, f"bias of {expected.told}: {told}")
        return
    _compare(context, "bias", layer, f"{expected.told}, in codes", (reals, codes.astype(np.float64), room))
