"""What a value of a QDQ graph is while it is evaluated in integers: float32 arrays exist only where codes do not suffice.

A ``DequantizeLinear`` computes nothing here. It says how codes are to be read, and the operator behind it works on the codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """Codes and how to read them: ``real = scale * (code - zero_point)``.

    Attributes:
        codes: int8, uint8 or int32, any shape.
        scale: float32, ``()`` or ``(channels,)``.
        zero_point: int32, the shape of ``scale``.
        axis: axis of the channels; means nothing for a single scale.
    """

    codes: NDArray[Any]
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    axis: int = 0

    @property
    def relative(self) -> NDArray[np.int32]:
        """int32 codes minus the zero-point."""
        return np.asarray(
            self.codes.astype(np.int32) - _along(self.zero_point, self.axis, self.codes.ndim), np.int32
        )

    def with_codes(self, codes: NDArray[Any]) -> Quantized:
        """Other codes, read alike."""
        return Quantized(codes, self.scale, self.zero_point, self.axis)

    def reads_like(self, other: Quantized) -> bool:
        """Whether both map codes to the same reals, bit for bit, with one scale."""
        return (
            self.scale.size == other.scale.size == 1
            and self.codes.dtype == other.codes.dtype
            and bool(self.scale == other.scale)
            and bool(self.zero_point == other.zero_point)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Tabulated:
    """A function of one 8-bit tensor, known by its 256 results.

    Attributes:
        codes: int8 or uint8, any shape.
        reals: float32 ``(256,)``, the result by code as a byte (int8 -1 is 255).
        exact: whether every runtime computes these very floats.
    """

    codes: NDArray[Any]
    reals: NDArray[np.float32]
    exact: bool


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """The integers a convolution or matrix product adds up, bias included.

    Attributes:
        sums: int32, channels on axis 1.
        scale_x: float32 ``()``, scale of the input.
        scale_w: float32 ``()`` or ``(channels,)``, scale of the weights.
    """

    sums: NDArray[np.int32]
    scale_x: NDArray[np.float32]
    scale_w: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Reals:
    """float32 numbers (or integers, for shapes and indices).

    Attributes:
        array: any shape.
        exact: whether every runtime computes these very numbers.
        doubt: where they are not exact, how far a runtime's numbers may be from these; infinite where nothing bounds it.
    """

    array: NDArray[Any]
    exact: bool = True
    doubt: float = np.inf


Value = Quantized | Tabulated | Sums | Reals


def to_reals(value: Value) -> Reals:
    """The numbers that a value stands for, in float32 as ONNX defines them."""
    match value:
        case Reals():
            return value
        case Tabulated():
            return Reals(value.reals[value.codes.view(np.uint8)], value.exact)
        case Quantized():
            scale = _along(value.scale, value.axis, value.codes.ndim)
            return Reals(value.relative.astype(np.float32) * scale)
        case Sums():
            scale = _along(value.scale_x * value.scale_w, 1, value.sums.ndim)
            return Reals(value.sums.astype(np.float32) * scale, exact=False)


def _along(vector: NDArray[Any], axis: int, rank: int) -> NDArray[Any]:
    """A vector shaped to broadcast along one axis; a single number as it is."""
    if vector.size == 1:
        return vector.reshape(())
    shape = [1] * rank
    shape[axis] = vector.size
    return vector.reshape(shape)
