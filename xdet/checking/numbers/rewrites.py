"""What passes make of a product, layer to layer; derived from their descriptions, not by the passes that wrote them.

* ``full channels``: channels of zeros beside the source's, up to a multiple of 16; their scale is the last one's.
* ``full outputs``: likewise, behind the source's outputs alone; a Slice takes them away again.
* ``wide stem``: eight copies of a 3 x 3 kernel of the picture, each at its place, zeros between them.
* ``strided stem``: the picture is read in groups of four pixels, and one position computes two neighbouring columns.
* ``shifted rows``: a depthwise convolution on groups of pixels. Every row stands as often as the kernel has columns, a
  group is computed at a time, and what stands between the copies is the code of 0.

The last two write weights without zero-point. A number that is no int8 then is the sum of the largest int8 numbers of
its sign and of what is left: every further summand of a column (shifted rows) or of a row (strided stem) reads the same
pixels again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from xdet.checking.numbers.comparison import NO_PADS, Product, writer_past

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from numpy.typing import NDArray

    from xdet.model.graph import FinishedGraph, Node

FULL_CHANNELS, FULL_OUTPUTS, WIDE_STEM = "full channels", "full outputs", "wide stem"
STRIDED_STEM, SHIFTED_ROWS = "strided stem", "shifted rows"
BLOCK = 16  # channels are filled up to a multiple of it
WIDE_COPIES = 8  # of the kernel in a wide stem: 2 x 2 pixels of a pool window, 2 windows side by side
STRIDED_COPIES = 2  # of the kernel in a strided stem: two columns, two pixels apart
PIXELS = 4  # of a group that a stem reads
ROWS, COLUMNS = 2, 3  # axes of OIHW
MOVES = ("DequantizeLinear", "Transpose", "Reshape")  # between a product and what writes its codes


@dataclass(frozen=True, eq=False, slots=True)
class WrittenProduct:
    """A product as the graph holds it: in how many copies, and by which pass."""

    product: Product
    by: str | None = None
    copies: int = 1


def as_written(product: Product, shape: tuple[int, ...], passes: Collection[str]) -> WrittenProduct:
    """The form of a product in which its weights have this shape, by one of ``passes``; itself where none has."""
    if product.kernel.shape == shape or not product.kernel.size:
        return WrittenProduct(product)
    filled = FULL_CHANNELS in passes or FULL_OUTPUTS in passes
    for form in _filled_forms(product) if filled else (product,):
        if form.kernel.shape == shape:
            return WrittenProduct(form)
        for title, rewrite in REPEATING.items():
            rewritten = rewrite(form, shape) if title in passes else None
            if rewritten is not None and rewritten.kernel.shape == shape:
                return WrittenProduct(rewritten, title, len(rewritten.kernel) // len(form.kernel))
    return WrittenProduct(product)


def _filled_forms(product: Product) -> Iterator[Product]:
    yield product
    outputs, inputs = ((-n) % BLOCK for n in product.kernel.shape[:2])
    for more_outputs, more_inputs in ((outputs, 0), (0, inputs), (outputs, inputs)):
        yield _filled(product, more_outputs, more_inputs)


def _filled(product: Product, outputs: int, inputs: int) -> Product:
    """With so many channels of zeros beside the source's."""
    kernel, scales, depthwise = product.kernel, product.scales, 1 < product.groups == len(product.kernel)
    more = ((0, outputs), (0, inputs), *((0, 0) for _ in kernel.shape[2:]))
    return replace(
        product,
        kernel=np.pad(kernel, more, constant_values=product.zero_point),
        bias=np.pad(product.bias, (0, outputs)),
        terms=None if product.terms is None else np.pad(product.terms, (0, outputs)),
        scales=scales if scales is None or scales.size == 1 else np.pad(scales, (0, outputs), mode="edge"),
        groups=product.groups + outputs if depthwise else product.groups,
    )


def _widened(product: Product, _shape: tuple[int, ...]) -> Product | None:
    """The wide stem, whose weights ``(8 * O, 12, 4, 2)`` are built place by place of ``(O, 3, 3, 3)``, OIHW.

    Output channel ``((row * 2 + column) * 2 + window) * O + o`` computes pixel (row, column) of a pool window; input
    channel ``pixel * 3 + colour`` of kernel column ``group`` is picture column ``group * 4 + pixel``; the old kernel
    starts at row ``row`` and picture column ``2 * window + column``.
    """
    kernel = product.kernel
    if kernel.shape[1:] != (3, 3, 3):
        return None
    channels = kernel.shape[0]
    wide = np.zeros((WIDE_COPIES * channels, 12, 4, 2), kernel.dtype)
    for copy in range(WIDE_COPIES):
        row, column, window = copy >> 2, copy >> 1 & 1, copy & 1
        rows = slice(copy * channels, (copy + 1) * channels)
        for x in range(3):
            group, pixel = divmod(2 * window + column + x, PIXELS)
            wide[rows, pixel * 3 : pixel * 3 + 3, row : row + 3, group] = kernel[:, :, :, x]
    return product.repeated(wide, strides=(2, 1), pads=(1, 0, 1, 0))


def _strided(product: Product, _shape: tuple[int, ...]) -> Product | None:
    kernel, stride = product.kernel, product.strides[0]
    if kernel.ndim != 4 or kernel.shape[1] >= PIXELS:
        return None
    top, left, bottom, _ = product.pads or NO_PADS
    front, behind = group_padding(kernel.shape[3], left)
    if is_beyond_int8(kernel):
        rows = repeated_rows(product)
        top, bottom = int(np.count_nonzero(rows < 0)), int(np.count_nonzero(rows >= _height(product)))
        kernel, stride = split_kernel(kernel, ROWS, stride), sum(taps(kernel, ROWS, stride)[1])
    pads = None if product.pads is None else (top, front, bottom, behind)
    grouped = strided_kernel(kernel, left, product.zero_point)  # files of older versions keep a zero-point
    return product.repeated(grouped, strides=(stride, 1), pads=pads)


def strided_kernel(kernel: NDArray[Any], left: int, zero_point: int = 0) -> NDArray[Any]:
    """The strided stem's weights, built place by place.

    Args:
        kernel: ``(O, C, kh, kw)``, OIHW.
        left: padding of the source's convolution.
        zero_point: of the weights; it stands between the copies.

    Returns:
        ``(2 * O, 4 * C, kh, groups)``. Output channel ``column * O + o`` computes every second column from ``column``
        on; input channel ``pixel * C + c`` of kernel column ``group`` is picture column ``(group - front) * 4 +
        pixel``, where ``front`` is the number of groups of padding.
    """
    channels, depth, height, width = kernel.shape
    front, behind = group_padding(width, left)
    shape = (STRIDED_COPIES * channels, PIXELS * depth, height, front + 1 + behind)
    wide = np.full(shape, zero_point, kernel.dtype)
    for column in range(STRIDED_COPIES):
        rows = slice(column * channels, (column + 1) * channels)
        for x in range(width):
            group, pixel = divmod(front * PIXELS + 2 * column + x - left, PIXELS)
            wide[rows, pixel * depth : (pixel + 1) * depth, :, group] = kernel[:, :, :, x]
    return wide


def group_padding(kernel_width: int, left: int) -> tuple[int, int]:
    """Groups of padding in front of a row and behind it."""
    last = 2 - left + kernel_width - 1  # the last column that the second of the first two results reads
    return -(-left // PIXELS), last // PIXELS


def _shifted(product: Product, shape: tuple[int, ...]) -> Product | None:
    channels = len(product.kernel)
    pixels = shape[0] // channels if shape else 0  # weights that are no constant have no shape
    if product.groups != channels or product.pads is None or product.size is None or not pixels:
        return None
    top, _, bottom, _ = product.pads
    kernel = product.kernel
    kernel = split_kernel(kernel, COLUMNS, kernel.shape[3]) if is_beyond_int8(kernel) else kernel
    return product.repeated(
        np.tile(kernel, (pixels, 1, 1, 1)),
        pads=(top, 0, bottom, 0),
        dilations=(1, _groups_apart(product, pixels)),
        groups=pixels * channels,
    )


REPEATING: Mapping[str, Callable[[Product, tuple[int, ...]], Product | None]] = {
    WIDE_STEM: _widened,
    STRIDED_STEM: _strided,
    SHIFTED_ROWS: _shifted,
}


def _groups_apart(product: Product, pixels: int) -> int:
    """From one copy of a row to the next, in groups of pixels."""
    assert product.pads is not None  # noqa: S101 - its form is known
    assert product.size is not None  # noqa: S101 - likewise
    return -(-(product.size[1] + max(1, product.pads[1], product.pads[3])) // pixels)


def is_beyond_int8(kernel: NDArray[Any]) -> bool:
    """Whether a kernel of integers is no int8."""
    return kernel.dtype == np.int16


def taps(numbers: NDArray[Any], axis: int, stride: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Rows or columns of a split kernel: old one and summand; how often each of ``stride`` neighbours is read."""
    others = tuple(a for a in range(numbers.ndim) if a != axis)
    summands = np.maximum(np.ceil(numbers.max(axis=others) / 127), np.ceil(-numbers.min(axis=others) / 128))
    needed = [max(1, int(count)) for count in summands]
    times = [max(needed[phase::stride], default=1) for phase in range(stride)]
    limits = [times[tap % stride] for tap in range(len(needed) - 1)] + needed[-1:]
    return [(tap, k) for tap, limit in enumerate(limits) for k in range(limit)], times


def split_kernel(numbers: NDArray[Any], axis: int, stride: int) -> NDArray[np.int8]:
    """A kernel ``(O, I, kh, kw)`` that is no int8, as the graph stores it."""
    parts = []
    for tap, k in taps(numbers, axis, stride)[0]:
        old = np.take(numbers, tap, axis=axis)
        parts.append(np.where(old > 0, np.clip(old - 127 * k, 0, 127), np.clip(old + 128 * k, -128, 0)))
    return np.stack(parts, axis=axis).astype(np.int8)


def repeated_rows(product: Product) -> NDArray[np.int64]:
    """The picture's row for every row that a stem with split weights reads; beyond the picture is padding."""
    (top, _, bottom, _), stride, height = product.pads or NO_PADS, product.strides[0], _height(product)
    read, times = taps(product.kernel, ROWS, stride)
    results = (height + top + bottom - product.kernel.shape[2]) // stride + 1
    padded = np.arange(-top, height + bottom)
    count = (results - 1) * sum(times) + len(read)
    return np.repeat(padded, [times[place % stride] for place in range(len(padded))])[:count]


def _height(product: Product) -> int:
    assert product.size is not None  # noqa: S101 - only a TFLite source's numbers are split, whose sizes are known
    return product.size[0]


def wrong_pixels(graph: FinishedGraph, node: Node, product: Product, written: WrittenProduct) -> str | None:
    """What is wrong with the pixels that a convolution on groups, or a stem with split weights, reads."""
    if written.by == SHIFTED_ROWS:
        return _wrong_copies(graph, node, product, written)
    if written.by != STRIDED_STEM or not is_beyond_int8(product.kernel):
        return None
    gather, expected = writer_past(graph, node.inputs[0], MOVES), repeated_rows(product)
    index = graph.constant(gather.inputs[1]) if gather is not None and gather.op == "Gather" else None
    if gather is None or index is None or gather.attributes.get("axis") != 1:
        return "no repeated rows"
    inside = expected[(expected >= 0) & (expected < _height(product))]
    return None if np.array_equal(index, inside) else "other rows, or others twice"


def chooses_others(graph: FinishedGraph, node: Node, channels: int) -> bool:
    """Whether a Slice behind the codes of a product takes other channels than the first ones, the source's."""
    quantize = graph.only_reader(node.outputs[0])
    chosen = None if quantize is None else graph.only_reader(quantize.outputs[0])
    if chosen is None or chosen.op != "Slice":
        return False
    bounds = [graph.constant(name) for name in chosen.inputs[1:]]
    return [None if bound is None else bound.tolist() for bound in bounds] != [[0], [channels], [1]]


def _wrong_copies(graph: FinishedGraph, node: Node, product: Product, written: WrittenProduct) -> str | None:
    dequantize, concat = graph.producers.get(node.inputs[0]), copies_of_rows(graph, node)
    if dequantize is None or concat is None or len(dequantize.inputs) < 3:
        return "no copies of rows"
    zero_point = graph.constant(dequantize.inputs[2])
    if zero_point is None:
        return "no constant zero-point"
    assert product.pads is not None  # noqa: S101 - its form is known
    assert product.size is not None  # noqa: S101 - likewise
    channels, pixels, width = (len(written.product.kernel) // written.copies, written.copies, product.kernel.shape[3])
    columns = list(range(width))
    if is_beyond_int8(product.kernel):
        columns = [column for column, _ in taps(product.kernel, COLUMNS, width)[0]]
    apart = pixels * _groups_apart(product, pixels)
    between = [apart - (b - a) - product.size[1] for a, b in pairwise(columns)]
    expected, actual, rows = [product.pads[1], *between, product.pads[3]], [0], set()
    for name in concat.inputs:
        edge = graph.constant(name)
        if edge is None:
            rows.add(name)
            actual.append(0)
        elif (edge != zero_point.reshape(-1)[0]).any():
            return "padding between its copies that is not the code of 0"
        else:
            actual[-1] += edge.shape[-1] // channels
    if len(rows) != 1 or concat.attributes.get("axis") != 3:
        return "copies of different rows"
    return None if actual == expected else f"padding of {actual} pixels around its copies, expected {expected}"


def copies_of_rows(graph: FinishedGraph, conv: Node) -> Node | None:
    """The Concat that writes what a convolution on groups reads; None where there is none."""
    node = writer_past(graph, conv.inputs[0], MOVES)
    return node if node is not None and node.op == "Concat" else None
