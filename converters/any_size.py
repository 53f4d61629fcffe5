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
from typing import TYPE_CHECKING, Any

import numpy as np

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
    a = Arithmetic(GraphWriter.appending(graph))
    outputs = {str(value.name): value for value in graph.outputs}
    real = [
        [a.cast(side, ir.DataType.DOUBLE) for side in pair]
        for pair in ((sides.left, sides.top), (sides.width, sides.height))
    ]
    start, size = (a.op("Concat", *pair, axis=0) for pair in real)
    for name, inner in NETWORK_VALUES.items():
        if name not in outputs:
            continue
        value = outputs[name]
        _rename(value, inner)
        points = a.reshape(a.cast(value, ir.DataType.DOUBLE), 1, value.shape[1], -1, 2)  # type: ignore[index,arg-type]  # static
        points = a.op("Mul", points, a.constant([image.width, image.height], np.float64))
        points = a.op("Div", a.op("Sub", points, start), size)
        if name == BOXES:
            points = a.op("Min", a.op("Max", points, a.constant(0, np.float64)), a.constant(1, np.float64))
        is_row = a.op("Less", a.constant(-1, np.int32), a.reshape(outputs[ROWS], 1, -1, 1, 1))
        points = a.op("Where", is_row, a.cast(points, ir.DataType.FLOAT), a.constant(0, np.float32))
        mapped = a.reshape(points, *value.shape)  # type: ignore[misc]  # static
        _rename(mapped, name)
        mapped.type, mapped.shape = value.type, value.shape
        graph.outputs[list(graph.outputs).index(value)] = mapped


def _rename(value: ir.Value, name: str) -> None:
    """A value and the node that computes it, which bears its name."""
    node = value.producer()
    assert node is not None, "computed"  # noqa: S101
    value.name = node.name = name


class Arithmetic:
    """Operators on values and numbers, named after ``ANY_SIZE``; constants are written once."""

    def __init__(self, writer: GraphWriter) -> None:
        self._writer = writer
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], ir.Value] = {}

    def constant(self, value: object, dtype: type[np.generic] = np.int64) -> ir.Value:
        """A number or array as an initialiser."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.tobytes(), array.shape)
        if key not in self._constants:
            self._constants[key] = self._writer.constant(array, f"{ANY_SIZE}/constant")
        return self._constants[key]

    def op(self, op_type: str, *operands: ir.Value | int, **attributes: Any) -> ir.Value:
        """A node; a whole number is an int64 ``[1]``."""
        values = [self.constant([value]) if isinstance(value, int) else value for value in operands]
        return self._writer.op(op_type, values, f"{ANY_SIZE}/{op_type}", **attributes)

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The value in another dtype; fractions are cut."""
        return self.op("Cast", value, to=int(dtype))

    def reshape(self, value: ir.Value, *sizes: ir.Value | int) -> ir.Value:
        """The value in another shape; sizes are numbers or int64 ``[1]``."""
        if all(isinstance(size, int) for size in sizes):
            return self.op("Reshape", value, self.constant(sizes))
        return self.op("Reshape", value, self.op("Concat", *sizes, axis=0))

    def count(self, number: ir.Value) -> ir.Value:
        """0 .. number - 1, int64."""
        zero, one = self.constant(0), self.constant(1)
        return self.op("Range", zero, self.op("Reshape", number, self.constant(np.empty(0))), one)

    def thirds(self, value: ir.Value, size: int) -> Sequence[ir.Value]:
        """The value ``[n, 3 * size, m]`` cut in three along its second axis."""
        return self._writer.ops("Split", [value, self.constant([size] * 3)], [f"{ANY_SIZE}/part"] * 3, axis=1)


@dataclass(frozen=True, eq=False)
class Sides:
    """Where a photograph stands in the network's picture, as int64 ``[1]`` each."""

    left: ir.Value  # columns before it
    top: ir.Value  # rows above it
    width: ir.Value  # its columns there
    height: ir.Value  # its rows there


def network_picture(writer: GraphWriter, photograph: ir.Value, image: ImageInput) -> tuple[ir.Value, Sides | None]:
    """Append the nodes of the resize rule and of the colours behind a photograph, uint8 ``[1, height, width, 3]``, RGB.

    Returns:
        The picture, uint8 ``[1, H, W, C]``; and of a letterbox where the photograph stands in it, else None.
    """
    a = Arithmetic(writer)
    shape = a.op("Shape", photograph)
    height, width = (a.op("Gather", shape, place, axis=0) for place in (1, 2))
    sides = None
    if image.resize == "nearest":
        pixels = _nearest(a, photograph, (height, width), image)
    elif image.resize == "bilinear":
        targets = a.constant([image.height]), a.constant([image.width])
        pixels = _bilinear(a, photograph, (height, width), targets)
    elif image.resize == "bilinear-antialias":
        pixels = _antialiased(a, photograph, (height, width), image)
    else:
        sides = _placement(a, height, width, image)
        pixels = _bilinear(a, photograph, (height, width), (sides.height, sides.width))
        pixels = _with_bars(a, pixels, sides, image)
    return _in_colors(a, pixels, image), sides


def _nearest(a: Arithmetic, photograph: ir.Value, sizes: Sequence[ir.Value], image: ImageInput) -> ir.Value:
    rows, columns = (
        a.op("Min", a.cast(_centres(a, size, a.constant([target])), ir.DataType.INT64), a.op("Sub", size, 1))
        for size, target in zip(sizes, (image.height, image.width), strict=True)
    )
    lines = _turned(a, a.reshape(a.op("Gather", photograph, rows, axis=1), image.height, -1))
    lines = a.op("Gather", a.reshape(lines, sizes[1], -1), columns, axis=0)  # [x; c, y]: whole columns, not pixels
    return a.reshape(_turned(a, a.reshape(lines, -1, image.height)), 1, image.height, image.width, 3)


def _centres(a: Arithmetic, source: ir.Value, target: ir.Value) -> ir.Value:
    """(i + 0.5) * (source / target) of every result pixel, each step in float32, as the rule says."""
    ratio = a.op("Div", a.cast(source, ir.DataType.FLOAT), a.cast(target, ir.DataType.FLOAT))
    steps = a.cast(a.count(target), ir.DataType.FLOAT)
    return a.op("Mul", a.op("Add", steps, a.constant(0.5, np.float32)), ratio)


def _bilinear(a: Arithmetic, photograph: ir.Value, sizes: Sequence[ir.Value], targets: Sequence[ir.Value]) -> ir.Value:
    (tops, bottoms, down), (lefts, rights, across) = (
        _neighbours(a, source, target) for source, target in zip(sizes, targets, strict=True)
    )
    between = []
    for rows in (tops, bottoms):
        lines = _turned(a, a.reshape(a.op("Gather", photograph, rows, axis=1), targets[0], -1))
        lines = a.reshape(lines, sizes[1], -1)  # [x; c, y]: whole columns are gathered, not pixels
        left, right = (a.cast(a.op("Gather", lines, columns, axis=0), ir.DataType.FLOAT) for columns in (lefts, rights))
        mixed = _mixed(a, left, right, a.reshape(across, -1, 1))
        between.append(a.reshape(mixed, -1, targets[0]))  # [x, c; y]
    pixels = a.cast(a.op("Round", _mixed(a, between[0], between[1], down)), ir.DataType.UINT8)
    return a.reshape(_turned(a, pixels), 1, *targets, 3)


def _neighbours(a: Arithmetic, source: ir.Value, target: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The two source pixels of every result pixel along one axis, and the weight of the second, float32."""
    centres = a.op("Sub", _centres(a, source, target), a.constant(0.5, np.float32))
    floors, last = a.op("Floor", centres), a.op("Sub", source, 1)
    low, high = (
        a.op("Min", a.op("Max", a.cast(place, ir.DataType.INT64), 0), last) for place in (floors, a.op("Ceil", centres))
    )
    return low, high, a.op("Sub", centres, floors)


def _mixed(a: Arithmetic, first: ir.Value, second: ir.Value, weights: ir.Value) -> ir.Value:
    """``(second - first) * weights + first``, each step in float32."""
    return a.op("Add", a.op("Mul", a.op("Sub", second, first), weights), first)


def _placement(a: Arithmetic, height: ir.Value, width: ir.Value, image: ImageInput) -> Sides:
    """``ImageInput.placement``; ``round(n / 2 - 0.1)`` of a whole n is n / 2, cut."""
    real = [a.cast(side, ir.DataType.DOUBLE) for side in (height, width)]
    network = image.height, image.width
    ratios = [a.op("Div", a.constant([n], np.float64), side) for n, side in zip(network, real, strict=True)]
    scale = a.op("Min", *ratios)
    inner, before = [], []
    for side, whole in zip(real, network, strict=True):
        rounded = a.cast(a.op("Round", a.op("Mul", side, scale)), ir.DataType.INT64)
        inner.append(a.op("Max", rounded, 1))
        before.append(a.op("Div", a.op("Sub", whole, inner[-1]), 2))
    return Sides(before[1], before[0], inner[1], inner[0])


def _with_bars(a: Arithmetic, pixels: ir.Value, sides: Sides, image: ImageInput) -> ir.Value:
    bottom, right = (
        a.op("Sub", a.op("Sub", whole, inner), before)
        for whole, inner, before in ((image.height, sides.height, sides.top), (image.width, sides.width, sides.left))
    )
    none = a.constant([0])
    pads = a.op("Concat", none, sides.top, sides.left, none, none, bottom, right, none, axis=0)
    padded = a.op("Pad", pixels, pads, a.constant(PADDING, np.uint8))
    return a.reshape(padded, 1, image.height, image.width, 3)


def _antialiased(a: Arithmetic, photograph: ir.Value, sizes: Sequence[ir.Value], image: ImageInput) -> ir.Value:
    height, width = sizes
    rows, columns = a.constant([image.height]), a.constant([image.width])
    shrink, narrow = a.op("Sub", height, rows), a.op("Sub", width, columns)
    columns_first = a.op("Greater", shrink, a.op("Max", a.op("Mul", narrow, 2), 0))
    group = gcd(image.height, image.width, GROUP)

    def chosen(if_columns: ir.Value | int, if_rows: ir.Value | int) -> ir.Value:
        return a.op("Where", columns_first, if_columns, if_rows)

    # rows (along the width) first: [y; x, c] -> [x, c; y], shrunk x -> [y; x, c], shrunk y
    # columns first: [y; x, c], shrunk y -> [x, c; y], shrunk x -> [y; x, c]
    source, target = chosen(height, width), chosen(rows, columns)
    pixels = _turned(a, a.reshape(photograph, chosen(1, height), -1))
    pixels = _pass(a, a.reshape(pixels, source, -1), source, target, group)
    pixels = _turned(a, a.reshape(pixels, -1, chosen(a.op("Mul", width, 3), height)))
    source, target = chosen(width, height), chosen(columns, rows)
    pixels = _pass(a, a.reshape(pixels, source, -1), source, target, group)
    pixels = _turned(a, a.reshape(pixels, chosen(a.op("Mul", columns, 3), 1), -1))
    return a.reshape(pixels, 1, image.height, image.width, 3)


def _turned(a: Arithmetic, matrix: ir.Value) -> ir.Value:
    return a.op("Transpose", matrix, perm=[1, 0])


def _pass(a: Arithmetic, lines: ir.Value, source: ir.Value, target: ir.Value, group: int) -> ir.Value:
    """Shrink or stretch a matrix of ``source`` lines, uint8, to ``target`` lines, ``group`` of them from one window.

    Twice the target size times all places and widths are whole numbers: the middle of result line i is ``(2 i + 1) *
    source``, that of source line j ``(2 j + 1) * target``, and the triangle reaches ``2 * max(source, target)`` to
    either side.
    """
    reach = a.op("Mul", a.op("Max", source, target), 2)
    double = a.op("Mul", target, 2)
    middles = a.op("Mul", a.op("Add", a.op("Mul", a.count(target), 2), 1), source)
    middles = a.reshape(middles, -1, group)
    first = a.op("Gather", middles, a.constant([0]), axis=1)
    start = a.op("Div", a.op("Add", a.op("Sub", first, reach), target), double)
    window = a.op("Add", a.op("Add", a.op("Mul", source, group - 1), reach), a.op("Sub", target, 1))
    window = a.op("Min", a.op("Div", window, target), source)
    places = a.op("Add", a.op("Max", start, 0), a.count(window))  # [groups, window]
    picked = a.op("Gather", lines, a.op("Min", places, a.op("Sub", source, 1)), axis=0)

    taps = a.op("Mul", a.op("Add", a.op("Mul", places, 2), 1), target)
    distance = a.op("Abs", a.op("Sub", a.reshape(taps, -1, 1, window), a.reshape(middles, -1, group, 1)))
    overlap = a.op("Max", a.op("Sub", reach, distance), 0)
    inside = a.cast(a.op("Less", places, source), ir.DataType.INT64)
    overlap = a.op("Mul", overlap, a.reshape(inside, -1, 1, window))
    return a.reshape(_weighted(a, picked, overlap, group), target, -1)


def _weighted(a: Arithmetic, picked: ir.Value, overlap: ir.Value, group: int) -> ir.Value:
    """Pixels ``[groups, window, n]`` times overlaps ``[groups, group, window]`` in 22 bit fixed point, as uint8."""
    total = a.op("ReduceSum", overlap, a.constant([2]))
    parts, rest = [], overlap
    for bits in (7, 8):
        scaled = a.op("Mul", rest, 1 << bits)
        parts.append(a.op("Div", scaled, total))
        rest = a.op("Sub", scaled, a.op("Mul", parts[-1], total))
    parts.append(a.op("Div", a.op("Add", a.op("Mul", rest, 256), total), a.op("Mul", total, 2)))
    weights = a.cast(a.op("Concat", *parts, axis=1), ir.DataType.UINT8)
    sums = a.thirds(a.op("MatMulInteger", weights, picked), group)
    high, middle = (
        a.op("Mul", part, a.constant(1 << shift, np.int32)) for part, shift in zip(sums, (15, 7), strict=False)
    )
    exact = a.op("Add", a.op("Add", high, middle), a.op("Add", sums[2], a.constant(1 << 21, np.int32)))
    return a.cast(a.op("Div", exact, a.constant(1 << 22, np.int32)), ir.DataType.UINT8)


def _in_colors(a: Arithmetic, pixels: ir.Value, image: ImageInput) -> ir.Value:
    if image.color == "bgr":
        return a.op("Gather", pixels, a.constant([2, 1, 0]), axis=3)
    if image.color == "grey":
        luma = a.op("Mul", a.cast(pixels, ir.DataType.FLOAT), a.constant(LUMA, np.float32))
        luma = a.op("Add", a.op("ReduceSum", luma, a.constant([3])), a.constant(32768, np.float32))
        luma = a.op("Floor", a.op("Mul", luma, a.constant(1 / 65536, np.float32)))
        return a.cast(luma, ir.DataType.UINT8)
    return pixels
