"""What a head is, and what every head shares: raw outputs, finished detections, and names for classes that nobody named.

::

    raw outputs -> decode -> boxes, scores -> candidates -> suppression -> rows       (the last three: any head's tail)

A head is a frozen dataclass of its parameters. It decodes in numpy (``decode``) and as ONNX nodes (``decode_nodes``): the same
float32 operations in the same order, so the two differ by the rounding of ``exp`` alone. ``encode`` is the way back: raw
outputs that decode to asked boxes and scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np

from converters.spec.checks import require_entries, require_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.graph import GraphWriter

    Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RawOutput:
    """A float32 output that a head needs of its network.

    Attributes:
        name: what it holds, ``"scores"``; ``""`` where the head has one output only.
        shape: without the batch.
    """

    name: str
    shape: tuple[int, ...]


class Head(Protocol):
    """A detection head and its parameters; B is the number of boxes per image, NC of classes, N of images."""

    kind: ClassVar[str]

    def __hash__(self) -> int: ...

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """The outputs it needs of the network, in the order in which ``decode`` takes them."""

    @property
    def num_boxes(self) -> int:
        """B, over all levels in their order."""

    @property
    def num_classes(self) -> int:
        """NC, the classes that the raw outputs score, without a background."""

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

    def decode_nodes(self, writer: GraphWriter, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
        """Write what ``decode`` does as ONNX nodes.

        Args:
            writer: the graph to append to.
            outputs: float32, one per raw output, ``[N, *shape]``.

        Returns:
            Boxes ``[N, B, 4]`` and scores ``[N, B, NC]``.

        Raises:
            ValueError: the values have known shapes that are not this head's.
        """

    def default_boxes(self) -> Float32:
        """A box for every place that the head holds with ease: its prior, or its part of the picture.

        Returns:
            float32 ``(B, 4)``: x1, y1, x2, y2 as fractions of the image.
        """

    def encode(self, boxes_xyxy: Float32, scores: Float32) -> tuple[Float32, ...]:
        """Make raw outputs that decode to these boxes and scores, or to the nearest that the head can hold.

        Args:
            boxes_xyxy: float32 ``(N, B, 4)``: x1, y1, x2, y2 as fractions of the image.
            scores: float32 ``(N, B, NC)``, 0..1.

        Returns:
            float32, one per raw output, ``(N, *shape)``; finite.
        """

    def to_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values, with the key ``kind``."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote; keys that this version does not know are left alone.

        Raises:
            ValueError: a key is missing, or its value is of another type or out of range.
        """


def require_arrays(head: Head, outputs: Sequence[Float32]) -> None:
    """Raise ValueError unless these are the head's raw outputs, float32, all of one batch."""
    wanted = head.raw_outputs()
    found = [(array.shape, array.dtype == np.float32) for array in outputs]
    batches = {array.shape[:1] for array in outputs}
    fits = [(shape[1:], is_float) for shape, is_float in found] == [(raw.shape, True) for raw in wanted]
    if not fits or len(batches) != 1:
        told = ", ".join(f"{array.dtype} {_sizes(array.shape)}" for array in outputs) or "nothing"
        raise ValueError(f"a {head.kind} head takes {_describe(wanted)}, got {told}")


def require_values(head: Head, outputs: Sequence[ir.Value]) -> None:
    """Raise ValueError unless these can be the head's raw outputs; a size that is not known fits."""
    wanted = head.raw_outputs()
    if len(outputs) == len(wanted) and all(map(_can_be, outputs, wanted)):
        return
    told = ", ".join(f"{value.name!r} {value.shape}" for value in outputs) or "nothing"
    raise ValueError(f"a {head.kind} head takes {_describe(wanted)}, got {told}")


def read_values(kind: str, data: Mapping[str, Any], *keys: str) -> tuple[Any, ...]:
    """The values of these keys of a head's dict; raises ValueError where one is missing, or it is of another kind."""
    if not isinstance(data, dict):
        raise ValueError(f"a {kind} head must be an object of parameters, got {data!r}")  # noqa: TRY004 - one error type for malformed data
    if data.get("kind") != kind:
        raise ValueError(f"a {kind} head cannot be read from one of kind {data.get('kind')!r}")
    if missing := [key for key in keys if key not in data]:
        raise ValueError(f"the {kind} head lacks {', '.join(missing)}")
    return tuple(data[key] for key in keys)


def require_pair(value: object, what: str) -> tuple[float, float]:
    """A (width, height) pair of numbers above 0."""
    pair = [require_number(entry, f"each of {what}") for entry in require_entries(value, what)]
    if len(pair) != 2 or min(pair) <= 0:
        raise ValueError(f"{what} must be a (width, height) pair above 0, got {value!r}")
    return pair[0], pair[1]


def _can_be(value: ir.Value, wanted: RawOutput) -> bool:
    if value.shape is None:
        return True
    sizes = value.shape.dims
    return len(sizes) == len(wanted.shape) + 1 and all(
        not isinstance(size, int) or size == expected
        for size, expected in zip(sizes[1:], wanted.shape, strict=True)
    )


def _describe(wanted: Sequence[RawOutput]) -> str:
    return ", ".join(f"{raw.name} float32 {_sizes(('N', *raw.shape))}".strip() for raw in wanted)


def _sizes(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def default_class_names(count: int) -> tuple[str, ...]:
    """``class_0`` .. for classes that nobody named."""
    return tuple(f"class_{index}" for index in range(count))


@dataclass(frozen=True, eq=False)
class BatchDetections:
    """The five outputs of the model contract for a batch of N images, K rows each.

    Attributes:
        num_detections: int32 ``(N,)``, count of valid rows.
        boxes_xyxy: float32 ``(N, K, 4)``, x1, y1, x2, y2 in 0..1 of the image; padded rows 0.
        scores: float32 ``(N, K)``, falling; padded rows 0.
        classes: int32 ``(N, K)``; padded rows -1.
        anchors: int32 ``(N, K)``, index of the source box (row, column, anchor flattened); padded rows -1.
    """

    num_detections: NDArray[np.int32]
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int32]
    anchors: NDArray[np.int32]

    def __post_init__(self) -> None:
        n, k = self.scores.shape
        expected = {
            "num_detections": (n,),
            "boxes_xyxy": (n, k, 4),
            "classes": (n, k),
            "anchors": (n, k),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                msg = f"{name} has shape {getattr(self, name).shape}, expected {shape}"
                raise ValueError(msg)
