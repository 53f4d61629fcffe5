"""Convolutions read and written anew: constants behind DequantizeLinear nodes, more channels, views of NHWC bytes.

Signed weights: uint8 weights of convolutions, as int8 ones; and weights beyond int8 as sums of them.

Before::

    w (uint8) -> DQ(scale, z) -> Conv

After::

    w - z (int8) -> DQ(scale, 0) -> Conv               where all of w - z fit
    w - 128 (int8) -> DQ(scale, z - 128) -> Conv       else

Why: ONNX Runtime's fast kernels take int8 weights without zero-point: half to a third of the time. With a zero-point
int8 weights are still faster than uint8 ones, but for depthwise convolutions, which then stay as they are.

Preconditions: constant weights with one zero-point. Numeric effect: bit exact: ``w - z`` is the same number.

``shifted rows`` and ``strided stem`` take weights that are no int8 less their zero-point as sums of int8 weights, which
read the same pixels: they multiply a column or a row of the kernel with a copy of the pixels for every summand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.graph import GraphWriter, constant_of
from converters.passes.base import Changed, DeclinedError, Moved, Rewrite, producer

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.passes.base import Link

Constants = tuple["NDArray[Any]", "NDArray[Any] | np.generic", "NDArray[Any] | np.generic"]
"""Codes, scale and zero-point: one or one per output channel."""


def viewed(
    writer: GraphWriter, value: ir.Value, shape_hwc: tuple[int, int, int], name: str, *, from_nchw: bool = True
) -> ir.Value:
    """The same bytes in NHWC order under another height, width and channels, as NCHW."""
    if from_nchw:
        value = writer.op("Transpose", [value], f"{name}/nhwc", perm=[0, 2, 3, 1])
    value = writer.op("Reshape", [value, ([-1, *shape_hwc], f"{name}/shape")], f"{name}/view")
    return writer.op("Transpose", [value], name, perm=[0, 3, 1, 2])


def dequantized(writer: GraphWriter, constants: Constants, name: str) -> ir.Value:
    """Constants behind a DequantizeLinear, per output channel where there are several scales."""
    parts = zip(constants, ("codes", "scale", "zero_point"), strict=True)
    values = [(array, f"{name}/{part}") for array, part in parts]
    attributes = {"axis": 0} if constants[1].ndim == 1 else {}
    return writer.op("DequantizeLinear", values, f"{name}/dequantized", **attributes)


def convolved_anew(
    writer: GraphWriter,
    conv: ir.Node,
    links: tuple[Link, Link],
    pixels: ir.Value,
    kernel: NDArray[np.int8],
    *,
    name: str,
    shift: int = 0,
    **attributes: Any,
) -> tuple[ir.Value, tuple[Moved, ...]]:
    """A convolution written anew on a view of its picture: its codes, and where weights and bias went.

    ``links`` are the DequantizeLinear in front of ``conv`` and the QuantizeLinear behind it, ``pixels`` the codes of
    the view, ``kernel`` the new weights without zero-point, ``shift`` what the old ones were more, ``attributes`` the
    new Conv's. The bias and all scales are repeated for every copy of the old channels.
    """
    before, after = links
    copies = len(kernel) // len(constants_behind(conv.inputs[1])[0])
    source = writer.op("DequantizeLinear", [pixels, *before.node.inputs[1:]], f"{pixels.name}/dequantized")
    operands, moved = [source], []
    for value, role in zip(conv.inputs[1:], ("weights", "bias"), strict=False):
        codes, scale, zero_point = constants_behind(value)
        scale, zero_point = (np.tile(a, copies) if a.ndim == 1 else a for a in (scale, zero_point))
        if role == "weights":
            codes, zero_point = kernel, np.zeros(zero_point.shape, kernel.dtype)
        else:
            codes = np.tile(codes, copies)
        operands.append(dequantized(writer, (codes, scale, zero_point), f"{name}/{role}"))
        moved.append(codes_moved(value, operands[-1], shift=-shift if role == "weights" else 0))
    real = writer.op("Conv", operands, f"{name}/float", kernel_shape=list(kernel.shape[2:]), **attributes)
    return writer.op("QuantizeLinear", [real, *after.node.inputs[1:]], f"{name}/codes"), tuple(moved)


def add_channels(writer: GraphWriter, conv: ir.Node, outputs: int, inputs: int, name: str) -> list[Moved]:
    """Give a convolution so many more channels of real zeros, in place; its bias changes with the outputs alone."""
    moved = []
    for position, role in zip(range(1, len(conv.inputs)), ("weights", "bias"), strict=False):
        if outputs or (inputs and role == "weights"):
            old = conv.inputs[position]
            new = dequantized(writer, filled(constants_behind(old), outputs, inputs), f"{name}/{role}")
            conv.replace_input_with(position, new)
            moved.append(codes_moved(old, new))
    return moved


def filled(constants: tuple[NDArray[Any], NDArray[Any], NDArray[Any]], outputs: int, inputs: int) -> Constants:
    """Weights OIHW or a bias ``(O,)``, with so many more channels of real zeros.

    New output channels take scale and zero-point of the last one.
    """
    codes, scale, zero_point = constants
    if scale.ndim:
        scale, zero_point = (np.pad(array, (0, outputs), mode="edge") for array in (scale, zero_point))
    shape = (len(codes) + outputs, *(n + inputs * (axis == 0) for axis, n in enumerate(codes.shape[1:])))
    full = np.broadcast_to(zero_point.reshape(-1, *(1,) * (codes.ndim - 1)), shape).astype(codes.dtype)
    full[tuple(slice(n) for n in codes.shape)] = codes
    return full, scale, zero_point


def codes_moved(old: ir.Value | None, new: ir.Value, *, replicated: bool = True, shift: int = 0) -> Moved:
    """Constant codes behind a DequantizeLinear; ``replicated`` where others hold them several times, or among zeros."""
    before, after = (node_of(value).inputs[0] for value in (old, new))
    assert before is not None and after is not None, "a DequantizeLinear has an input"  # noqa: S101, PT018
    return Moved(str(before.name), str(after.name), replicated=replicated, shift=shift)


def omit_zero_points(graph: ir.Graph) -> None:
    """Leave out the zero-points of constant codes that are 0, which the standard means where none stands.

    Weights of as many channels have equal zero-points. Graph optimisers merge equal constants, and ONNX Runtime's
    session entry ``session.x64quantprecision`` fails on a zero-point that two weights share. Numeric effect: none.
    """
    for node in graph:
        codes, zero_point = node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None
        if node.op_type != "DequantizeLinear" or codes is None or zero_point is None:
            continue
        value = constant_of(zero_point)
        if constant_of(codes) is None or value is None or value.any():
            continue
        node.resize_inputs(2)
        if not zero_point.uses():
            del graph.initializers[str(zero_point.name)]


def constants_behind(value: ir.Value | None) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Codes, scale and zero-point that a match found to be constants behind a DequantizeLinear."""
    codes, scale, zero_point = (required(constant) for constant in node_of(value).inputs)
    return codes, scale, zero_point


def codes_behind(value: ir.Value | None) -> NDArray[Any] | None:
    """The constant codes behind a DequantizeLinear."""
    node = producer(value)
    return None if node is None or node.op_type != "DequantizeLinear" else constant_of(node.inputs[0])


def is_depthwise(conv: ir.Node) -> bool:
    """Whether a node convolves every channel by itself, into one."""
    weights = codes_behind(conv.inputs[1]) if conv.op_type == "Conv" else None
    return weights is not None and weights.ndim == 4 and 1 < len(weights) == conv.attributes.get_int("group", 1)


def required(value: ir.Value | None) -> NDArray[Any]:
    """The array of what a match found to be a constant."""
    array = constant_of(value)
    assert array is not None, "the match found constants"  # noqa: S101
    return array


def node_of(value: ir.Value | None) -> ir.Node:
    """The node that writes what a match found to be computed."""
    node = producer(value)
    assert node is not None, "the match found a node here"  # noqa: S101
    return node


INT8 = np.iinfo(np.int8)


class SignedWeights(Rewrite):
    """Writes uint8 weights as int8."""

    title = "signed weights"
    op_type = "Conv"

    def rewrite_at(self, graph: ir.Graph, node: ir.Node) -> Changed | None:
        """Rewrite the weights of a convolution."""
        old, codes = node.inputs[1], codes_behind(node.inputs[1])
        if codes is None or codes.dtype != np.uint8:
            return None
        shift = zero_point_of(node)
        fits = codes.min() >= shift + INT8.min and codes.max() <= shift + INT8.max
        if not fits and node.attributes.get_int("group", 1) > 1:
            raise DeclinedError(f"its weights, less their zero-point {shift}, are no int8")
        shift = shift if fits else -INT8.min
        _, scale, zero_point = constants_behind(old)
        less, zero = ((array.astype(np.int16) - shift).astype(np.int8) for array in (codes, zero_point))
        new = dequantized(GraphWriter.inserting(graph, node), (less, scale, zero), f"{node.name}/signed")
        node.replace_input_with(1, new)
        return Changed(f"{node.name}: weights less {shift}", (codes_moved(old, new, replicated=False, shift=-shift),))


def zero_point_of(conv: ir.Node) -> int:
    """The one zero-point of a convolution's weights."""
    scale, zero_point = (constant_of(value) for value in node_of(conv.inputs[1]).inputs[1:])
    if scale is None or zero_point is None or len(set(zero_point.flat)) != 1:
        raise DeclinedError("its weights have more than one zero-point, or computed ones")
    return int(zero_point.flat[0])


def int8_parts(numbers: NDArray[Any]) -> list[NDArray[np.int8]]:
    """The fewest arrays of int8 whose sum is ``numbers``; the first one is as close to them as int8 reaches."""
    parts: list[NDArray[np.int8]] = []
    rest = numbers.astype(np.int32)
    while not parts or rest.any():
        part = np.clip(rest, INT8.min, INT8.max)
        parts.append(part.astype(np.int8))
        rest = rest - part
    return parts


def split_columns(numbers: NDArray[Any]) -> tuple[NDArray[np.int8], tuple[int, ...]]:
    """A kernel ``(O, I, kh, kw)`` as int8, with one column more for every column that needs another summand.

    Returns:
        The kernel ``(O, I, kh, columns)``, and the old column of every new one, in ascending order.

    Example:
        >>> kernel, columns = split_columns(np.array([[[[5, -200]]]]))
        >>> kernel.tolist(), columns
        ([[[[5, -128, -72]]]], (0, 1, 1))
    """
    parts = int8_parts(numbers)
    new = [
        (column, part[..., column])
        for column in range(numbers.shape[3])
        for part in parts
        if part is parts[0] or part[..., column].any()
    ]
    return np.stack([codes for _, codes in new], axis=3), tuple(column for column, _ in new)


@dataclass(frozen=True, slots=True)
class SplitRows:
    """A kernel that reads some rows of its picture several times."""

    weights: NDArray[np.int8]  # ``(O, I, rows, kw)``, int8
    stride: int  # rows of the repeated picture from one result to the next
    # the picture's row for every row of the repeated one; None where none is repeated
    picture: NDArray[np.int64] | None
    padding: tuple[int, int]  # rows of padding above and below it


def split_rows(numbers: NDArray[Any], stride: int, height: int, padding: tuple[int, int]) -> SplitRows:
    """A kernel ``(O, I, kh, kw)`` as int8, on a picture whose rows stand there once per summand.

    Stride, height and padding above and below are in rows of the picture.
    """
    parts, rows = int8_parts(numbers), numbers.shape[2]
    if len(parts) == 1:
        return SplitRows(parts[0], stride, None, padding)
    needed = [max(k + 1 for k, part in enumerate(parts) if k == 0 or part[:, :, row].any()) for row in range(rows)]
    times = [max(needed[phase::stride], default=1) for phase in range(stride)]  # of every row in a stride
    taps = [(row, k) for row in range(rows) for k in range(times[row % stride] if row + 1 < rows else needed[row])]
    results = (height + sum(padding) - rows) // stride + 1
    read = (results - 1) * sum(times) + len(taps)
    padded = range(-padding[0], height + padding[1])
    repeated = [row for n, row in enumerate(padded) for _ in range(times[n % stride])][:read]
    picture = np.array([row for row in repeated if 0 <= row < height], np.int64)
    outside = sum(row < 0 for row in repeated), sum(row >= height for row in repeated)
    weights = np.stack([parts[k][:, :, row] for row, k in taps], axis=2)
    return SplitRows(weights, sum(times), picture, outside)
