"""What a head is, and what all share: raw outputs, finished detections, and names for classes that nobody named.

::

    raw outputs -> decode -> boxes, scores -> candidates -> suppression -> rows       (the last three: any head's tail)

A head is a frozen dataclass of its parameters. It decodes in numpy (``decode``) and as ONNX nodes (``decode_nodes``):
the same float32 operations in the same order, so the two differ by the rounding of ``exp`` alone. ``encode`` is the way
back: raw outputs that decode to requested boxes and scores.

Boxes of a ``CellHead`` are flattened row, column, box of the cell within a grid unless a head says otherwise, and grid
behind grid.

``converters.heads.HEADS`` is the table of heads. Runtimes hand raw outputs over as one array: the output itself where
there is one, else all of them flattened side by side.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np

from converters import require
from converters.errors import counted
from converters.heads import nodes
from converters.heads.arithmetic import Float32, cells_xy, centers_and_sizes, corners_from_centers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.description.precedence import AllStatements
    from converters.facts import SourceFacts
    from converters.graph import GraphWriter

Level = tuple[int, int, int]  # rows, columns, boxes per cell
Shift = float | Float32  # of all cells, or of every box's

HEAD = "head"  # the raw output; where there are several, each is called head_<name>


def is_raw_output(name: str) -> bool:
    """Whether a name is that of a raw output."""
    return name == HEAD or name.startswith(f"{HEAD}_")


@dataclass(frozen=True, slots=True)
class RawOutput:
    """A float32 output that a head needs of its network."""

    name: str  # what it holds, ``"scores"``; ``""`` where the head has one output only
    shape: tuple[int, ...]  # without the batch

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"the name of a raw output must be text, got {self.name!r}")  # noqa: TRY004 - malformed data
        for size in require.entries(self.shape, "shape of a raw output"):
            require.count(size, "each size of a raw output")

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Read ``{"name": "", "shape": [6, 6, 30]}``."""
        return cls(data["name"], tuple(require.entries(data["shape"], "shape of a raw output")))  # type: ignore[arg-type]  # sizes are checked

    @property
    def value_name(self) -> str:
        """Its name in the graph."""
        return f"{HEAD}_{self.name}" if self.name else HEAD

    @property
    def size(self) -> int:
        """Numbers per image."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Head(ABC):
    """A detection head: a frozen dataclass of its parameters. B boxes per image, NC classes, N images."""

    kind: ClassVar[str]  # its row in ``converters.heads.HEADS``
    # parameter -> what reads it from JSON, where lists as tuples do not do
    readers: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}
    # what ``--anchor-unit`` may say of its anchors, the advised one first; none where it has none
    anchor_units: ClassVar[tuple[str, ...]] = ()
    anchor_lists: ClassVar[str] = ""  # names of lists that ``--anchors`` takes for it, as part of a sentence

    if TYPE_CHECKING:  # parameters of some heads, which would take an inherited property for their default

        @property
        def num_boxes(self) -> int:
            """B, over all levels in their order."""

        @property
        def num_classes(self) -> int:
            """NC, the classes that the raw outputs score, without a background."""

    @classmethod
    @abstractmethod
    def misfit(cls, facts: SourceFacts, *, by_name: bool) -> str | None:
        """Why a network cannot end in this head; None where it can. With ``by_name`` somebody says that it does."""

    @classmethod
    @abstractmethod
    def from_statements(cls, statements: AllStatements) -> Head:
        """The head of a network that fits, from its facts and what is stated of it.

        Raises:
            OptionError: something is not stated, or contradicts the network.
        """

    @classmethod
    def asks_for_priors(cls, facts: SourceFacts) -> bool:  # noqa: ARG003 - of heads that have priors
        """Whether somebody must state priors, which the file does not hold."""
        return False

    @abstractmethod
    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """The outputs it needs of the network, in the order in which ``decode`` takes them."""

    def decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]:
        """Turn raw outputs into boxes and scores.

        Args:
            outputs: float32, one per raw output, ``(N, *shape)``.

        Returns:
            Boxes float32 ``(N, B, 4)``: x1, y1, x2, y2 as fractions of the image, clipped to 0..1. Scores float32
            ``(N, B, NC)``.

        Raises:
            ValueError: the arrays are not this head's.
        """
        wanted = self.raw_outputs()
        is_float = all(array.dtype == np.float32 for array in outputs)
        is_one_batch = len({array.shape[:1] for array in outputs}) == 1
        if [array.shape[1:] for array in outputs] != [raw.shape for raw in wanted] or not (is_float and is_one_batch):
            expected = ", ".join(f"{raw.name} float32 {_sizes(('N', *raw.shape))}".strip() for raw in wanted)
            actual = ", ".join(f"{array.dtype} {_sizes(array.shape)}" for array in outputs)
            raise ValueError(f"a {self.kind} head takes {expected}, got {actual or 'nothing'}")
        with np.errstate(over="ignore"):  # what is beyond float32 is infinite, and clips to the border
            return self._decode(outputs)

    @abstractmethod
    def _decode(self, outputs: Sequence[Float32]) -> tuple[Float32, Float32]: ...

    @abstractmethod
    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """Write what ``decode`` does as ONNX nodes behind a graph.

        Args:
            writer: the graph to append to.
            outputs: float32, one per raw output, ``[N, *shape]``.

        Returns:
            Boxes ``[N, B, 4]`` and scores ``[N, B, NC]``.
        """

    @abstractmethod
    def default_boxes(self) -> Float32:
        """A box for every place that the head holds with ease: its prior, or its part of the picture.

        Returns:
            float32 ``(B, 4)``: x1, y1, x2, y2 as fractions of the image.
        """

    @abstractmethod
    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Make raw outputs that decode to these boxes and scores, or to the nearest that the head can hold.

        Args:
            boxes_xyxy: float32 ``(N, B, 4)``: x1, y1, x2, y2 as fractions of the image.
            scores: float32 ``(N, B, NC)``, 0..1.

        Returns:
            float32, one per raw output, ``(N, *shape)``; finite.
        """

    @abstractmethod
    def rows(self, outputs: Sequence[Float32]) -> Float32:
        """The raw numbers of each box, float32 ``(N, B, R)``: four of its place first, one per class last."""

    def describe(self, width: int, height: int) -> tuple[tuple[str, str], ...]:
        """Lines of (title, text) for people, of a network that takes pictures of this size."""
        boxes = self.default_boxes()
        sizes = (boxes[:, 2:] - boxes[:, :2]) * np.array([width, height], np.float32)
        order = np.argsort(sizes.prod(axis=1), kind="stable")
        least, most = (f"{sizes[i, 0]:.0f} x {sizes[i, 1]:.0f}" for i in order[[0, -1]])
        count = counted(self.num_boxes, "box", "boxes")
        return (
            ("head", f"{self.kind}, {count}, {counted(self.num_classes, 'class', 'classes')}"),
            ("default boxes", f"in pixels (w x h): {least} to {most}"),
        )

    def to_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values, with the key ``kind``."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote; keys that this version does not know are left alone.

        Raises:
            ValueError: a key is missing, or its value is of another type or out of range.
        """
        if not isinstance(data, dict):
            raise ValueError(f"a {cls.kind} head must be an object of parameters, got {data!r}")  # noqa: TRY004 - one error type for malformed data
        if data.get("kind") != cls.kind:
            raise ValueError(f"a {cls.kind} head cannot be read from one of kind {data.get('kind')!r}")
        names = [parameter.name for parameter in fields(cls)]
        if missing := [name for name in names if name not in data]:
            raise ValueError(f"the {cls.kind} head lacks {', '.join(missing)}")
        return cls(**{name: cls.readers.get(name, lists_to_tuples)(data[name]) for name in names})


@dataclass(frozen=True, slots=True)
class CellHead(Head):
    """A row of raw numbers for every box of every cell, in one output per grid unless a head says otherwise."""

    @abstractmethod
    def _levels(self) -> Sequence[Level]:
        """The grids in the order of the boxes."""

    @property
    def num_boxes(self) -> int:
        """Boxes over all grids."""
        return sum(self._counts())

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """An output per grid, ``[rows, columns, boxes per cell * numbers of a box]``."""
        return level_outputs([(rows, columns, each * self._width()) for rows, columns, each in self._levels()])

    def rows(self, outputs: Sequence[Float32]) -> Float32:
        """tx, ty, tw, th, objectness and classes of each box; see ``Head``."""
        return np.concatenate([output.reshape(len(output), -1, self._width()) for output in outputs], axis=1)

    def _row_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> ir.Value:
        """The twin of ``rows``."""
        rows = []
        for output, count in zip(outputs, self._counts(), strict=True):
            rows.append(writer.op("Reshape", [output, ([-1, count, self._width()], "head/rows_shape")], "head/rows"))
        return nodes.concat(writer, rows, "head/all_rows", axis=1)

    def _outputs_of(self, *parts: Float32) -> tuple[Float32, ...]:
        """Raw outputs whose ``rows`` are these parts side by side."""
        rows, wanted = np.concatenate(parts, axis=-1).astype(np.float32), self.raw_outputs()
        ends = np.cumsum([raw.size // self._width() for raw in wanted])[:-1]
        levels = zip(np.split(rows, ends, axis=1), wanted, strict=True)
        return tuple(level.reshape(len(rows), *raw.shape) for level, raw in levels)

    def default_boxes(self) -> Float32:
        """Every prior in the middle of its cell."""
        return corners_from_centers(self._centers(), self._priors_wh() / np.float32(2))

    def _priors_wh(self) -> Float32:
        """The prior size of every box as fractions of the image, ``(B, 2)``: its cell's, unless a head has others."""
        _, grid_wh = self._cells_and_grids()
        return np.asarray(np.float32(1) / grid_wh, np.float32)

    def _by_cell(self, of_levels: Sequence[Sequence[Sequence[float]]]) -> Float32:
        """Pairs of every box of a cell, level by level, for every box: ``(B, 2)``."""
        pairs = []
        for (rows, columns, _), own in zip(self._levels(), of_levels, strict=True):
            cells, by_cell = rows * columns, self._is_cell_by_cell()
            pairs.append(np.tile(own, (cells, 1)) if by_cell else np.repeat(own, cells, axis=0))
        return np.concatenate(pairs).astype(np.float32)

    def _width(self) -> int:
        """Raw numbers of a box."""
        return 5 + self.num_classes

    def _counts(self) -> list[int]:
        return [rows * columns * each for rows, columns, each in self._levels()]

    def _is_cell_by_cell(self) -> bool:
        """Whether the boxes of a cell stand side by side; otherwise a grid is flattened box, row, column."""
        return True

    def _cells_and_grids(self) -> tuple[Float32, Float32]:
        """Column and row of every box's cell, and columns and rows of its grid: ``(B, 2)`` each."""
        cells, grids = [], []
        for rows, columns, each in self._levels():
            own = cells_xy(rows, columns)
            cells.append(np.repeat(own, each, axis=0) if self._is_cell_by_cell() else np.tile(own, (each, 1)))
            grids.append(np.full((rows * columns * each, 2), (columns, rows), np.float32))
        return np.concatenate(cells), np.concatenate(grids)

    def _centers(self) -> Float32:
        """The middle of every box's cell, as fractions of the image: ``(B, 2)``."""
        cells, grid_wh = self._cells_and_grids()
        return (cells + np.float32(0.5)) / grid_wh

    def _moves_and_sizes(self, boxes_xyxy: Float32) -> tuple[Float32, Float32]:
        """How far centres are from the corners of their cells, in cells, and sizes as fractions of the image."""
        (cells, grid_wh), (centers, sizes) = self._cells_and_grids(), centers_and_sizes(boxes_xyxy)
        return centers * grid_wh - cells, sizes

    def _centers_in_grid(self, offsets_xy: Float32, shift: Shift = 0) -> Float32:
        """Centres as fractions of the image, of offsets from cells that are shifted up and to the left, in cells."""
        cells, grid_wh = self._cells_and_grids()
        return np.asarray((offsets_xy + (cells - np.float32(shift))) / grid_wh, np.float32)

    def _center_nodes(
        self, writer: GraphWriter, offsets: ir.Value, shift: Shift = 0, *, one_grid: bool = False
    ) -> ir.Value:
        """The twin of ``_centers_in_grid``; with ``one_grid`` its size is written once instead of for every box."""
        cells, grid_wh = self._cells_and_grids()
        shifted = writer.op("Add", [offsets, (cells - np.float32(shift), "head/cells_xy")], "head/centers_xy_cells")
        return writer.op("Div", [shifted, (grid_wh[0] if one_grid else grid_wh, "head/grid_wh")], "head/centers_xy")


class KeypointHead(Protocol):
    """A head that has points besides its boxes."""

    @property
    def num_keypoints(self) -> int:
        """P, of each box; may be 0."""

    def decode_keypoints(self, outputs: Sequence[Float32]) -> Float32:
        """The points of every box, float32 ``(N, B, 2 P)``: x and y in turns, as fractions of the image, unclipped."""

    def keypoint_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> ir.Value:
        """The twin of ``decode_keypoints``."""


def keypoints_of(head: Head | None) -> int:
    """How many points each box of a head has besides its corners."""
    return int(getattr(head, "num_keypoints", 0))


def lists_to_tuples(value: Any) -> Any:
    """A JSON value as a parameter that can be hashed."""
    return tuple(map(lists_to_tuples, value)) if isinstance(value, list) else value


def level_outputs(shapes: Sequence[tuple[int, ...]]) -> tuple[RawOutput, ...]:
    """A raw output per level of a head."""
    return tuple(RawOutput(f"level_{index}" if shapes[1:] else "", shape) for index, shape in enumerate(shapes))


def _sizes(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def join_outputs(arrays: Sequence[Float32]) -> Float32:
    """Raw outputs ``(N, *shape)`` as the one array in which runtimes hand them over."""
    if len(arrays) == 1:
        return arrays[0]
    return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)


def split_outputs(head: Float32, outputs: Sequence[RawOutput]) -> list[Float32]:
    """The raw outputs ``(N, *shape)`` in what ``join_outputs`` made; raises ValueError where it does not hold them."""
    expected = outputs[0].shape if len(outputs) == 1 else (sum(output.size for output in outputs),)
    if head.shape[1:] != expected or head.ndim != len(expected) + 1 or head.dtype != np.float32:
        wanted = ", ".join(map(str, expected))
        raise ValueError(f"the head is {head.dtype} {head.shape}, expected float32 (N, {wanted})")
    if len(outputs) == 1:
        return [head]
    edges = np.cumsum([output.size for output in outputs])[:-1]
    parts = np.split(head, edges, axis=1)
    return [part.reshape(len(head), *output.shape) for part, output in zip(parts, outputs, strict=True)]


def match_outputs(shapes: Sequence[tuple[int, ...]], wanted: Sequence[RawOutput]) -> tuple[int, ...]:
    """Which of a network's outputs is each raw output of a head.

    Args:
        shapes: of the network's outputs, without the batch.
        wanted: the raw outputs, all of the network's.

    Returns:
        An index into ``shapes`` per raw output. Equal shapes belong together in their order; then shapes that hold as
        many numbers, which a reshape at the network's end moves nowhere.

    Raises:
        ValueError: they do not belong together.
    """
    left, places = list(range(len(shapes))), []
    for output in wanted:
        fits = [i for i in left if shapes[i] == output.shape]
        fits += [i for i in left if math.prod(shapes[i]) == output.size]
        if not fits:
            break
        places.append(fits[0])
        left.remove(fits[0])
    if left or len(places) < len(wanted):
        listed = ", ".join(f"{output.value_name} {list(output.shape)}" for output in wanted)
        raise ValueError(f"expected the outputs {listed}, found {', '.join(str(list(s)) for s in shapes)}")
    return tuple(places)


@dataclass(frozen=True, eq=False)
class BatchDetections:
    """The five outputs of the model contract for a batch of N images, K rows each."""

    num_detections: NDArray[np.int32]  # int32 ``(N,)``, count of valid rows
    boxes_xyxy: Float32  # float32 ``(N, K, 4)``, x1, y1, x2, y2 in 0..1 of the image; padded rows 0
    scores: Float32  # float32 ``(N, K)``, falling; padded rows 0
    classes: NDArray[np.int32]  # int32 ``(N, K)``; padded rows -1
    # int32 ``(N, K)``, index of the source box (row, column, anchor flattened); padded rows -1
    anchors: NDArray[np.int32]

    def __post_init__(self) -> None:
        n, k = self.scores.shape
        expected = {"num_detections": (n,), "boxes_xyxy": (n, k, 4), "classes": (n, k), "anchors": (n, k)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
