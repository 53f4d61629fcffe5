"""A finished graph of fixed size -> one that takes a photograph of any size.

Before::

    image [1, H, W, C] -> network, head -> detection_boxes, ...

After::

    image [1, height, width, 3] -> resize rule, colours -> network_image [1, H, W, C] -> network, head -> ...

``image`` is RGB, as decoded and turned upright. Boxes and key points are fractions of the photograph: of a stretched
one they are those of the network's picture, of a letterbox they are mapped back in float64 as
``Placement.to_photograph`` does, boxes cut to 0..1, rows of padding kept at 0. All nodes that are added have names that
begin with ``any_size/``, and the values that the mapping reads are ``network_boxes`` and ``network_keypoints``: taken
away, the fixed graph is left. Numeric effect: none on the network's picture and all behind it, in runtimes that compute
float32 and float64 as IEEE 754 says.

The resize rule, the twin of ``xdet.pictures.images``, gives the same bits as ``network_pixels``, in standard operators
without subgraphs, opset 13.

- ``nearest`` and ``bilinear``: rows and columns are gathered by indices that are computed as the rule says, in float32.
- ``letterbox``: its place is computed in float64, as Python does; then ``bilinear`` and a Pad.
- ``bilinear-antialias``: Pillow's coefficients in whole numbers, and its 22 bit fixed point. A coefficient is the
  quotient n / s of two integers (a tap's overlap, and the sum of them), rounded to 1 / 2^22: long division gives it in
  three parts of 7, 8 and 7 bits, so that products with pixels are those of 8 bit integers. Pillow divides in float64,
  which gives the same rounding: unless it is a tie, n / s is at least 1 / (2^23 s) away from one, and float64 errs by
  less while source size^2 / network size is below 10^7.

Which axis Pillow shrinks first depends on the sizes. Both orders are one sequence of nodes: before each pass a matrix
is transposed, whose number of rows is 1 where nothing is to move.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from converters._ir import ir
from converters.graph import GraphWriter
from converters.spec import ANY_SIZE, IMAGE, NETWORK_IMAGE, NETWORK_VALUES, PADDING, PHOTOGRAPH_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.spec import ImageInput, ModelDocument

BOXES, ROWS = "detection_boxes", "detection_anchors"
GROUP = 8  # rows that an antialiased pass computes from one window, at most
LUMA = (19595, 38470, 7471)  # ITU-R BT.601 in 16 bit: sums stay below 2^24, where float32 is exact


def take_any_size(graph: ir.Graph, document: ModelDocument) -> ModelDocument:
    """Put the resize rule in front of a finished graph of one picture per call, in place; undo a letterbox behind it.

    Returns:
        The document of the new graph.
    """
    image = document.spec.image
    pixels = next(value for value in graph.inputs if value.name == IMAGE)
    first, readers = graph[0], list(pixels.uses())
    pixels.shape = ir.Shape([1, *PHOTOGRAPH_SIZE, 3])
    writer = GraphWriter.inserting(graph, first)
    picture, sides = network_picture(writer, pixels, image)
    _rename(picture, NETWORK_IMAGE)
    picture.type, picture.shape = ir.TensorType(ir.DataType.UINT8), ir.Shape([1, *image.shape])
    for use in readers:
        use.node.replace_input_with(use.idx, picture)
    if sides is not None:
        _undo_letterbox(graph, sides, image)
    twins = {
        name: replace(twin, onnx=NETWORK_IMAGE) if twin.onnx == IMAGE else twin
        for name, twin in document.tensors.items()
    }
    spec = replace(document.spec, image=replace(image, any_size=True))
    return replace(document, spec=spec, tensors=twins)


def _undo_letterbox(graph: ir.Graph, sides: Sides, image: ImageInput) -> None:
    nodes = Nodes(GraphWriter.appending(graph))
    outputs = {str(value.name): value for value in graph.outputs}
    real = [
        [Number(side.value, nodes).cast(ir.DataType.DOUBLE) for side in pair]
        for pair in ((sides.left, sides.top), (sides.width, sides.height))
    ]
    start, size = (node("Concat", *pair, axis=0) for pair in real)
    for name, inner in NETWORK_VALUES.items():
        if name not in outputs:
            continue
        value = outputs[name]
        _rename(value, inner)
        points = Number(value, nodes).cast(ir.DataType.DOUBLE).reshape(1, value.shape[1], -1, 2)  # type: ignore[index,arg-type]  # static
        points = (points * np.array([image.width, image.height], np.float64) - start) / size
        if name == BOXES:
            points = node("Min", node("Max", points, np.float64(0)), np.float64(1))
        padding = nodes.number(np.int32(-1))
        is_row = node("Less", padding, Number(outputs[ROWS], nodes).reshape(1, -1, 1, 1))
        points = node("Where", is_row, points.cast(ir.DataType.FLOAT), np.float32(0))
        mapped = points.reshape(*value.shape).value  # type: ignore[misc]  # static
        _rename(mapped, name)
        mapped.type, mapped.shape = value.type, value.shape
        graph.outputs[list(graph.outputs).index(value)] = mapped


def _rename(value: ir.Value, name: str) -> None:
    """A value and the node that computes it, which bears its name."""
    writer = value.producer()
    assert writer is not None, "computed"  # noqa: S101
    value.name = writer.name = name


class Nodes:
    """Where nodes are written, named after ``ANY_SIZE``; constants are written once."""

    def __init__(self, writer: GraphWriter) -> None:
        self.writer = writer
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], ir.Value] = {}

    def number(self, operand: Operand) -> Number:
        """An operand as a value of the graph: an array as an initialiser, a whole number as an int64 ``[1]``."""
        if isinstance(operand, Number):
            return operand
        array = np.array([operand], np.int64) if isinstance(operand, int) else np.asarray(operand)
        key = (array.dtype.str, array.tobytes(), array.shape)
        if key not in self._constants:
            self._constants[key] = self.writer.constant(array, f"{ANY_SIZE}/constant")
        return Number(self._constants[key], self)


@dataclass(frozen=True, eq=False)
class Number:
    """A value of the graph as a number: what is computed with it becomes nodes. Integers are divided towards zero."""

    __array_ufunc__: ClassVar = None  # numpy's scalars leave the arithmetic to this class
    value: ir.Value
    nodes: Nodes

    def __add__(self, other: Operand) -> Number:
        return node("Add", self, other)

    def __sub__(self, other: Operand) -> Number:
        return node("Sub", self, other)

    def __rsub__(self, other: Operand) -> Number:
        return node("Sub", other, self)

    def __mul__(self, other: Operand) -> Number:
        return node("Mul", self, other)

    def __truediv__(self, other: Operand) -> Number:
        return node("Div", self, other)

    def cast(self, dtype: ir.DataType) -> Number:
        """The value in another dtype; fractions are cut."""
        return node("Cast", self, to=int(dtype))

    def reshape(self, *sizes: Number | int) -> Number:
        """The value in another shape; sizes are numbers or int64 ``[1]``."""
        if all(isinstance(size, int) for size in sizes):
            return node("Reshape", self, np.array(sizes, np.int64))
        return node("Reshape", self, node("Concat", *sizes, axis=0))

    def transpose(self) -> Number:
        """A matrix with rows and columns exchanged."""
        return node("Transpose", self, perm=[1, 0])

    def count(self) -> Number:
        """0 .. number - 1, int64."""
        zero, one = (self.nodes.number(np.int64(n)) for n in (0, 1))
        return node("Range", zero, node("Reshape", self, np.empty(0, np.int64)), one)


Operand = Number | int | np.generic | NDArray[Any]


def node(op_type: str, *operands: Operand, **attributes: Any) -> Number:
    """The result of a node; at least one operand is of the graph already."""
    nodes = next(operand.nodes for operand in operands if isinstance(operand, Number))
    values = [nodes.number(operand).value for operand in operands]
    return Number(nodes.writer.op(op_type, values, f"{ANY_SIZE}/{op_type}", **attributes), nodes)


@dataclass(frozen=True, eq=False)
class Sides:
    """Where a photograph stands in the network's picture, as int64 ``[1]`` each."""

    left: Number  # columns before it
    top: Number  # rows above it
    width: Number  # its columns there
    height: Number  # its rows there


def network_picture(writer: GraphWriter, photograph: ir.Value, image: ImageInput) -> tuple[ir.Value, Sides | None]:
    """Append the nodes of the resize rule and of the colours behind a photograph, uint8 ``[1, height, width, 3]``, RGB.

    Returns:
        The picture, uint8 ``[1, H, W, C]``; and of a letterbox where the photograph stands in it, else None.
    """
    nodes = Nodes(writer)
    pixels, sides = Number(photograph, nodes), None
    shape = node("Shape", pixels)
    height, width = (node("Gather", shape, place, axis=0) for place in (1, 2))
    if image.resize == "nearest":
        pixels = _nearest(pixels, (height, width), image)
    elif image.resize == "bilinear":
        pixels = _bilinear(pixels, (height, width), (nodes.number(image.height), nodes.number(image.width)))
    elif image.resize == "bilinear-antialias":
        pixels = _antialiased(pixels, (height, width), image)
    else:
        sides = _placement(height, width, image)
        pixels = _bilinear(pixels, (height, width), (sides.height, sides.width))
        pixels = _with_bars(pixels, sides, image)
    return _in_colors(pixels, image).value, sides


def _nearest(photograph: Number, sizes: Sequence[Number], image: ImageInput) -> Number:
    rows, columns = (
        node("Min", _centres(size, size.nodes.number(target)).cast(ir.DataType.INT64), size - 1)
        for size, target in zip(sizes, (image.height, image.width), strict=True)
    )
    lines = node("Gather", photograph, rows, axis=1).reshape(image.height, -1).transpose()
    lines = node("Gather", lines.reshape(sizes[1], -1), columns, axis=0)  # [x; c, y]: whole columns, not pixels
    return lines.reshape(-1, image.height).transpose().reshape(1, image.height, image.width, 3)


def _centres(source: Number, target: Number) -> Number:
    """(i + 0.5) * (source / target) of every result pixel, each step in float32, as the rule says."""
    ratio = source.cast(ir.DataType.FLOAT) / target.cast(ir.DataType.FLOAT)
    return (target.count().cast(ir.DataType.FLOAT) + np.float32(0.5)) * ratio


def _bilinear(photograph: Number, sizes: Sequence[Number], targets: Sequence[Number]) -> Number:
    (tops, bottoms, down), (lefts, rights, across) = map(_neighbours, sizes, targets)
    between = []
    for rows in (tops, bottoms):
        lines = node("Gather", photograph, rows, axis=1).reshape(targets[0], -1).transpose()
        lines = lines.reshape(sizes[1], -1)  # [x; c, y]: whole columns are gathered, not pixels
        left, right = (node("Gather", lines, columns, axis=0).cast(ir.DataType.FLOAT) for columns in (lefts, rights))
        weights = across.reshape(-1, 1)
        between.append(((right - left) * weights + left).reshape(-1, targets[0]))  # [x, c; y]
    upper, lower = between
    pixels = node("Round", (lower - upper) * down + upper).cast(ir.DataType.UINT8)
    return pixels.transpose().reshape(1, *targets, 3)


def _neighbours(source: Number, target: Number) -> tuple[Number, Number, Number]:
    """The two source pixels of every result pixel along one axis, and the weight of the second, float32."""
    centres = _centres(source, target) - np.float32(0.5)
    floors, last = node("Floor", centres), source - 1
    low, high = (
        node("Min", node("Max", place.cast(ir.DataType.INT64), 0), last) for place in (floors, node("Ceil", centres))
    )
    return low, high, centres - floors


def _placement(height: Number, width: Number, image: ImageInput) -> Sides:
    """``ImageInput.placement``; ``round(n / 2 - 0.1)`` of a whole n is n / 2, cut."""
    real = [side.cast(ir.DataType.DOUBLE) for side in (height, width)]
    network = image.height, image.width
    ratios = [node("Div", np.array([n], np.float64), side) for n, side in zip(network, real, strict=True)]
    scale = node("Min", *ratios)
    inner, before = [], []
    for side, whole in zip(real, network, strict=True):
        inner.append(node("Max", node("Round", side * scale).cast(ir.DataType.INT64), 1))
        before.append((whole - inner[-1]) / 2)
    return Sides(before[1], before[0], inner[1], inner[0])


def _with_bars(pixels: Number, sides: Sides, image: ImageInput) -> Number:
    bottom, right = image.height - sides.height - sides.top, image.width - sides.width - sides.left
    pads = node("Concat", 0, sides.top, sides.left, 0, 0, bottom, right, 0, axis=0)
    return node("Pad", pixels, pads, np.uint8(PADDING)).reshape(1, image.height, image.width, 3)


def _antialiased(photograph: Number, sizes: Sequence[Number], image: ImageInput) -> Number:
    height, width = sizes
    rows, columns = (photograph.nodes.number(size) for size in (image.height, image.width))
    columns_first = node("Greater", *(height - rows, node("Max", (width - columns) * 2, 0)))
    group = gcd(image.height, image.width, GROUP)

    def chosen(if_columns: Number | int, if_rows: Number | int) -> Number:
        return node("Where", columns_first, if_columns, if_rows)

    # rows (along the width) first: [y; x, c] -> [x, c; y], shrunk x -> [y; x, c], shrunk y
    # columns first: [y; x, c], shrunk y -> [x, c; y], shrunk x -> [y; x, c]
    source, target = chosen(height, width), chosen(rows, columns)
    pixels = photograph.reshape(chosen(1, height), -1).transpose()
    pixels = _pass(pixels.reshape(source, -1), source, target, group)
    pixels = pixels.reshape(-1, chosen(width * 3, height)).transpose()
    source, target = chosen(width, height), chosen(columns, rows)
    pixels = _pass(pixels.reshape(source, -1), source, target, group)
    pixels = pixels.reshape(chosen(columns * 3, 1), -1).transpose()
    return pixels.reshape(1, image.height, image.width, 3)


def _pass(lines: Number, source: Number, target: Number, group: int) -> Number:
    """Shrink or stretch a matrix of ``source`` lines, uint8, to ``target`` lines, ``group`` of them from one window.

    Twice the target size times all places and widths are whole numbers: the middle of result line i is ``(2 i + 1) *
    source``, that of source line j ``(2 j + 1) * target``, and the triangle reaches ``2 * max(source, target)`` to
    either side.
    """
    reach = node("Max", source, target) * 2
    double = target * 2
    middles = ((target.count() * 2 + 1) * source).reshape(-1, group)
    first = node("Gather", middles, 0, axis=1)
    start = (first - reach + target) / double
    window = node("Min", (source * (group - 1) + reach + (target - 1)) / target, source)
    places = node("Max", start, 0) + window.count()  # [groups, window]
    picked = node("Gather", lines, node("Min", places, source - 1), axis=0)

    taps = (places * 2 + 1) * target
    distance = node("Abs", taps.reshape(-1, 1, window) - middles.reshape(-1, group, 1))
    overlap = node("Max", reach - distance, 0)
    inside = node("Less", places, source).cast(ir.DataType.INT64)
    overlap = overlap * inside.reshape(-1, 1, window)
    return _weighted(picked, overlap, group).reshape(target, -1)


def _weighted(picked: Number, overlap: Number, group: int) -> Number:
    """Pixels ``[groups, window, n]`` times overlaps ``[groups, group, window]`` in 22 bit fixed point, as uint8."""
    total = node("ReduceSum", overlap, 2)
    parts, rest = [], overlap
    for bits in (7, 8):
        scaled = rest * (1 << bits)
        parts.append(scaled / total)
        rest = scaled - parts[-1] * total
    parts.append((rest * 256 + total) / (total * 2))
    weights = node("Concat", *parts, axis=1).cast(ir.DataType.UINT8)
    sums, nodes = node("MatMulInteger", weights, picked), picked.nodes
    names, thirds = [f"{ANY_SIZE}/part"] * 3, nodes.number(np.array([group] * 3, np.int64))
    high, middle, low = (
        Number(part, nodes) for part in nodes.writer.ops("Split", [sums.value, thirds.value], names, axis=1)
    )
    exact = high * np.int32(1 << 15) + middle * np.int32(1 << 7) + (low + np.int32(1 << 21))
    return (exact / np.int32(1 << 22)).cast(ir.DataType.UINT8)


def _in_colors(pixels: Number, image: ImageInput) -> Number:
    if image.color == "bgr":
        return node("Gather", pixels, np.array([2, 1, 0], np.int64), axis=3)
    if image.color == "grey":
        luma = pixels.cast(ir.DataType.FLOAT) * np.array(LUMA, np.float32)
        luma = node("ReduceSum", luma, 3) + np.float32(32768)
        return node("Floor", luma * np.float32(1 / 65536)).cast(ir.DataType.UINT8)
    return pixels
