"""Static part, TRANSPOSE_CONV: the convolution that stands for it, tap by tap.

Its weights are derived here from what a transposed convolution is, not by the code that wrote them: every tap ``t`` of the
source carries input ``i`` to output ``i * stride + t - cropped``, and between the taps stands the zero-point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from xdet.checking.result import ProvenChange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from converters.sources.tflite.reader import TfliteOperator
    from xdet.checking.numbers.context import StaticContext
    from xdet.checking.result import Cause
    from xdet.model.graph import Node


def transposed_behind(context: StaticContext, node: Node) -> TfliteOperator | None:
    """The TRANSPOSE_CONV whose weights a Conv reads; by its name where several share them."""
    producer = context.graph.producers.get(node.inputs[1])
    codes = node.inputs[1] if producer is None else producer.inputs[0]
    found = [
        op
        for index in context.tensors_by_value.get(codes, ())
        for op in context.source.readers.get(index, ())
        if op.op == "TRANSPOSE_CONV"
    ]
    named = (op for op in found if node.name.startswith(context.source.output_name(op)))
    return next(named, found[0] if found else None)


def compare_transposed(context: StaticContext, node: Node, op: TfliteOperator) -> None:
    """Compare the pads, weights, scales and bias of the convolution that stands for a transposed one."""
    tensors, layer = context.source.model.tensors, context.source.output_name(op)
    kernel, picture, data = tensors[op.inputs[1]], tensors[op.inputs[2]], context.graph.constant
    read = [(context.graph.producers.get(name), name) for name in node.inputs[1:]]
    found = [[data(n) for n in ((name,) if maker is None else maker.inputs[:2])] for maker, name in read]
    if kernel.data is None or any(array is None for arrays in found for array in arrays):
        context.fault("weight", layer, f"weights of {layer!r}: expected constants, found what is computed")
        return
    arrays = cast("list[list[NDArray[Any]]]", found)
    expected = transposed_kernel(
        context, op, node.attributes.get("pads", (0, 0, 0, 0)), arrays[0][0].shape[2:]
    )
    phases = 0 if expected is None else expected.shape[0] // kernel.shape[0]
    wanted: list[tuple[Cause, Any, Any]] = [("weight", expected, arrays[0][0])]
    if len(arrays) > 1:
        bias = tensors[op.inputs[3]].data
        wanted.append(("bias", None if bias is None else np.tile(bias.reshape(-1), phases), arrays[1][0]))
    if kernel.quant is not None and picture.quant is not None:
        own = kernel.quant.scale
        scales = np.tile(own, phases) if own.size > 1 else own
        expected_scales = [scales, picture.quant.scalar_scale * scales]
        wanted += [
            ("scale", ours, np.atleast_1d(entry[-1]))
            for ours, entry in zip(expected_scales, arrays, strict=False)
        ]
    for cause, ours, theirs in wanted:
        context.compared += theirs.size
        if ours is None or not np.array_equal(ours, theirs):
            context.fault(
                cause, layer, f"{cause} of {layer!r}: the {node.op} has others than the source's taps"
            )
            return
    name = context.source.names[op.inputs[1]]
    proof = f"every tap stands where it carries its input to its output, in {phases} phases"
    context.proven.append(ProvenChange(name, layer, "weights", None, None, proof))


def transposed_kernel(
    context: StaticContext, op: TfliteOperator, pads: Sequence[int], spans: tuple[int, ...]
) -> NDArray[Any] | None:
    """The weights of a convolution with these pads and sizes that does what the operator does; None where none does."""
    weights, picture, image = (context.source.model.tensors[i] for i in (*op.inputs[1:3], op.outputs[0]))
    channels, *sizes, depth = weights.shape
    strides = [cast("int", op.options[name]) for name in ("stride_h", "stride_w")]
    zero = 0 if weights.quant is None else int(weights.quant.zero_point.flat[0])
    kernel = np.full((*strides, channels, depth, *spans), zero, weights.dtype)
    cropped = [
        max((size - 1) * stride + length - new_size, 0) // 2 if op.options["padding"] == "SAME" else 0
        for size, new_size, stride, length in zip(
            picture.shape[1:3], image.shape[1:3], strides, sizes, strict=True
        )
    ]
    for taps in np.ndindex(*sizes):
        # the output that input 0 reaches by this tap
        places = [divmod(tap - cut, stride) for tap, cut, stride in zip(taps, cropped, strides, strict=True)]
        (y, py), (x, px) = places
        ky, kx = pads[0] - y, pads[1] - x
        if not (0 <= ky < spans[0] and 0 <= kx < spans[1]):
            return None
        assert weights.data is not None  # noqa: S101 - the caller looked
        kernel[py, px, :, :, ky, kx] = weights.data[:, taps[0], taps[1]]
    return kernel.reshape(-1, depth, *spans)
