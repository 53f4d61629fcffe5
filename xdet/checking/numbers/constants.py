"""Static part, constants: every weight and bias of the source stands in the graph, code by code, with its scales.

Weights that a pass wrote several times (``wide stem``, ``strided stem``) are taken apart again: every copy must be the
source's kernel, at its place, and everything between the copies zero.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.sources.tflite.operators import WEIGHTED
from xdet.checking.numbers.full_channels import FULL_CHANNELS, first_channels, is_filled, without_filling
from xdet.checking.numbers.operators import expected_attributes
from xdet.checking.numbers.shifted import SHIFTED_ROWS, groups_of
from xdet.checking.numbers.split import COLUMNS, ROWS, numbers_beyond_int8, split_kernel
from xdet.checking.numbers.strided import STRIDED_STEM, strided_kernel
from xdet.checking.result import ProvenChange

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.sources.tflite.reader import TfliteOperator, TfliteTensor
    from converters.spec import TensorTwin
    from xdet.checking.numbers.context import StaticContext
    from xdet.checking.result import Cause

ROLES = ("input", "weight", "bias")
COPIES_BY = {"wide stem": 8, STRIDED_STEM: 2}
COPIES = 8  # of the kernel in a wide stem: 2 x 2 pixels of a pool window, 2 windows side by side
PIXELS = 8  # columns that its kernel covers: two groups of four


def compare_constants(context: StaticContext) -> None:
    """Compare the weights and biases of every product with their twins."""
    for op in context.source.model.operators:
        if op.op not in WEIGHTED:
            continue
        for position, index in enumerate(op.inputs[:3]):
            tensor = context.source.model.tensors[index] if index >= 0 else None
            data = None if tensor is None else _data_of(context, tensor)
            if position and tensor is not None and data is not None:
                _compare_constant(context, op, position, replace(tensor, data=data))


def _data_of(context: StaticContext, tensor: TfliteTensor) -> NDArray[Any] | None:
    """The value of a constant, or of float16 numbers that the source widens."""
    maker = context.source.makers.get(tensor.index)
    if maker is None or maker.op != "DEQUANTIZE":
        return tensor.data
    half = context.source.model.tensors[maker.inputs[0]].data
    return half.astype(np.float32) if half is not None and half.dtype == np.float16 else tensor.data


def _compare_constant(
    context: StaticContext, op: TfliteOperator, position: int, tensor: TfliteTensor
) -> None:
    name, layer, role = context.source.names[tensor.index], context.source.output_name(op), ROLES[position]
    twin = context.document.tensors.get(name)
    found = None if twin is None or twin.onnx is None else context.graph.constant(twin.onnx)
    if twin is None or twin.onnx is None or found is None:
        context.fault(
            "missing-tensor",
            layer,
            f"the {role} {name!r} of {layer!r} has no constant in the graph, expected one; convert the source again",
        )
        return
    assert tensor.data is not None  # noqa: S101 - the caller looked
    expected = _permuted(tensor.data, twin.layout)
    scales = _expected_scales(context, op, position)
    zero_point = 0 if role == "bias" or tensor.quant is None else int(tensor.quant.zero_point[0])
    expected, zero_point = _shifted(expected, zero_point, twin.zero_point_shift)
    if position == 1 and twin.by in (SHIFTED_ROWS, STRIDED_STEM) and twin.zero_point_shift == -zero_point:
        expected, zero_point = _split(context, op, expected, twin.by), 0
    copies = COPIES_BY.get(str(twin.by), 1) if twin.fate == "replicated" else 1
    if twin.by == SHIFTED_ROWS:
        copies = groups_of(context, twin.onnx)
    if copies > 1:
        left = _left_padding(context, twin.onnx, op) if twin.by == STRIDED_STEM else None
        if twin.by == SHIFTED_ROWS:
            every = (copies, *(1,) * (expected.ndim - 1))
            expected, scales = (
                np.tile(expected, every),
                np.tile(scales, copies) if scales.size > 1 else scales,
            )
        else:
            expected, scales = _replicated(expected, scales, copies, left)
        _tell_copies(context, name, layer, copies, twin)
    if FULL_CHANNELS in context.document.passes and is_filled(found.shape, expected.shape, copies):
        part = without_filling(found, expected.shape, copies, zero_point)
        if part is None:
            cause: Cause = "weight" if role == "weight" else "bias"
            context.fault(
                cause, layer, f"{role} {name!r} of {layer!r}: channels beside the source's are not zero"
            )
            return
        found = part
    if context.document.float16 and found.dtype == np.float16 and expected.dtype == np.float32:
        expected = expected.astype(np.float16)
    _compare_codes(context, layer, f"{role} {name!r} of {layer!r}", expected, found)
    if tensor.dtype == "float32":
        return  # the numbers themselves, without a scale
    _compare_scales(context, layer, (role, twin.onnx), scales, (zero_point, copies))


def _tell_copies(context: StaticContext, name: str, layer: str, copies: int, twin: TensorTwin) -> None:
    proof = f"all {copies} copies equal the source's, and everything between them is zero ({twin.by})"
    context.proven.append(ProvenChange(name, layer, "weights", None, None, proof))


def _permuted(array: NDArray[Any], layout: str) -> NDArray[Any]:
    """A source constant as the graph stores it: ``"OHWI->OIHW"`` names its axes before and after."""
    if "->" not in layout:
        return array
    before, after = layout.split("->")
    return np.transpose(array, [before.index(axis) for axis in after])


def _shifted(codes: NDArray[Any], zero_point: int, shift: int) -> tuple[NDArray[Any], int]:
    """uint8 weights and their zero-point as int8 (pass ``signed weights``); as they are where that loses any."""
    numbers, kind = codes.astype(np.int64) + shift, np.iinfo(np.int8)
    fits = (
        numbers.min() >= kind.min and numbers.max() <= kind.max and kind.min <= zero_point + shift <= kind.max
    )
    return (
        (numbers.astype(np.int8), zero_point + shift)
        if shift and fits and codes.dtype == np.uint8
        else (codes, zero_point)
    )


def _split(context: StaticContext, op: TfliteOperator, codes: NDArray[Any], by: str) -> NDArray[Any]:
    """Weights that are no int8 without their zero-point, as sums of int8 ones; others as they are."""
    numbers = numbers_beyond_int8(context, op)
    if numbers is None:
        return codes
    if by == SHIFTED_ROWS:
        return split_kernel(numbers, COLUMNS, numbers.shape[COLUMNS])
    stride = op.options["stride_h"]
    assert isinstance(stride, int)  # noqa: S101 - the schema's type
    return split_kernel(numbers, ROWS, stride)


def _expected_scales(context: StaticContext, op: TfliteOperator, position: int) -> NDArray[np.float32]:
    """float32 ``(1,)`` or ``(channels,)``: the weights' own; a bias has ``x_scale * w_scale``, product in float32."""
    tensors = context.source.model.tensors
    quant = tensors[op.inputs[1]].quant
    weights = np.ones(1, np.float32) if quant is None else quant.scale
    if position == 1:
        return weights
    picture = tensors[op.inputs[0]].quant
    return weights if picture is None else np.asarray(picture.scalar_scale * weights, np.float32)


def _left_padding(context: StaticContext, codes: str, op: TfliteOperator) -> int:
    """The source's padding in front of a row, for the convolution that reads ``codes``."""
    for dequantize in context.graph.readers(codes):
        node = context.graph.only_reader(dequantize.outputs[0])
        if node is not None:
            return int(expected_attributes(context, node, op)["pads"][1])
    return 0


def _replicated(
    codes: NDArray[Any], scales: NDArray[np.float32], copies: int, left: int | None
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """What a stem must hold, derived here from its description, not by the pass that wrote it.

    ``left`` is the padding of a strided one, None for a wide one.
    """
    repeated = np.tile(scales, copies) if scales.size > 1 else scales
    if codes.ndim == 1:
        return np.tile(codes, copies), repeated
    return wide_kernel(codes) if left is None else strided_kernel(codes, left), repeated


def wide_kernel(kernel: NDArray[Any]) -> NDArray[Any]:
    """The wide stem's weights, built place by place.

    Args:
        kernel: ``(O, 3, 3, 3)``, OIHW.

    Returns:
        ``(8 * O, 12, 4, 2)``. Output channel ``((row * 2 + column) * 2 + window) * O + o`` computes pixel (row, column) of a
        pool window; input channel ``pixel * 3 + colour`` of kernel column ``group`` is picture column
        ``group * 4 + pixel``; the old kernel starts at row ``row`` and picture column ``2 * window + column``.
    """
    channels = kernel.shape[0]
    wide = np.zeros((COPIES * channels, 12, 4, 2), kernel.dtype)
    for copy in range(COPIES):
        row, column, window = copy >> 2, copy >> 1 & 1, copy & 1
        rows = slice(copy * channels, (copy + 1) * channels)
        for x in range(3):
            picture_column = 2 * window + column + x
            group, pixel = divmod(picture_column, PIXELS // 2)
            wide[rows, pixel * 3 : pixel * 3 + 3, row : row + 3, group] = kernel[:, :, :, x]
    return wide


def _compare_codes(
    context: StaticContext, layer: str, what: str, expected: NDArray[Any], found: NDArray[Any]
) -> None:
    cause: Cause = "weight" if what.startswith("weight") else "bias"
    context.compared += expected.size
    if expected.shape != found.shape or expected.dtype != found.dtype:
        context.fault(
            cause,
            layer,
            f"{what}: expected {expected.dtype} {list(expected.shape)}, "
            f"found {found.dtype} {list(found.shape)}",
        )
        return
    wrong = np.argwhere(expected != found)
    if len(wrong):
        first = tuple(int(i) for i in wrong[0])
        context.fault(
            cause,
            layer,
            f"{what}: {len(wrong):,} of {expected.size:,} codes differ, first at {list(first)}: "
            f"expected {expected[first]}, found {found[first]}",
        )


def _compare_scales(
    context: StaticContext,
    layer: str,
    named: tuple[str, str],
    expected: NDArray[np.float32],
    stored: tuple[int, int],
) -> None:
    """Compare what reads the codes of a constant, ``named`` by its role and its value in the graph.

    ``stored`` are its zero-point and how many copies stand there.
    """
    (role, codes), (zero_point, copies) = named, stored
    readers = context.graph.readers(codes)
    for node in readers:
        if node.op != "DequantizeLinear":
            context.fault(
                "float-convolution",
                layer,
                f"the {role} of {layer!r} is read by {node.op} {node.name!r}, expected DequantizeLinear: "
                f"without it the layer does not run in integers",
            )
            continue
        scale = np.atleast_1d(np.asarray(context.graph.constant(node.inputs[1])))
        if FULL_CHANNELS in context.document.passes:
            scale = first_channels(scale, expected.size, copies)
        zero_points = context.graph.constant(node.inputs[2]) if len(node.inputs) > 2 else None
        context.compared += scale.size
        if scale.shape != expected.shape or not np.array_equal(scale, expected):
            context.fault("scale", layer, f"scale of the {role} of {layer!r}: {told_scales(expected, scale)}")
        if np.any((0 if zero_points is None else zero_points) != np.int64(zero_point)):
            context.fault(
                "zero-point",
                layer,
                f"zero-point of the {role} of {layer!r}: expected {zero_point}, "
                f"found {0 if zero_points is None else np.unique(zero_points).tolist()[:4]}",
            )


def told_scales(expected: NDArray[np.float32], found: NDArray[Any]) -> str:
    """Two lists of scales that differ, in words."""
    if expected.shape != found.shape:
        return f"expected {expected.size} numbers, found {found.size}"
    wrong = np.flatnonzero(expected != found)
    first = int(wrong[0])
    ratio = float(found[first]) / float(expected[first]) - 1
    where = f" of channel {first}" if expected.size > 1 else ""
    return (
        f"{len(wrong)} of {expected.size} differ; expected {expected[first]:.9g}{where}, found {found[first]:.9g} "
        f"({ratio:+.2%})"
    )
