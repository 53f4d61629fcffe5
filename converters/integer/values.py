"""What a value of a QDQ graph is while it is evaluated: float32 arrays exist only where codes do not suffice.

A ``DequantizeLinear`` computes nothing here. It says how codes are to be read, and the operator behind it works on the
codes.

Reals to codes, as XNNPACK and ONNX Runtime round them: one float32 factor or division, half to even, then clamped.

``Rounding`` can move every decision by a fraction of a code. The real kernels never do; it measures how much the head
owes to near-ties, that is, how far two honest kernels may be apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.leaky import ROUNDINGS

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """Codes and how to read them: ``real = scale * (code - zero_point)``."""

    codes: NDArray[Any]  # int8, uint8 or int32, any shape
    scale: NDArray[np.float32]  # float32, ``()`` or ``(channels,)``
    zero_point: NDArray[np.int32]  # int32, the shape of ``scale``
    axis: int = 0  # axis of the channels; means nothing for a single scale

    @property
    def relative(self) -> NDArray[np.int32]:
        """int32 codes minus the zero-point."""
        zero_point = _along(self.zero_point, self.axis, self.codes.ndim)
        return np.asarray(np.subtract(self.codes, zero_point, dtype=np.int32))

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
    """A function of one 8-bit tensor, known by its 256 results."""

    codes: NDArray[Any]  # int8 or uint8, any shape
    reals: NDArray[np.float32]  # float32 ``(256,)``, the result by code as a byte (int8 -1 is 255)
    exact: bool  # whether every runtime computes these very floats


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """The integers a convolution or matrix product adds up, bias included."""

    sums: NDArray[np.int32]  # int32, channels on axis 1
    scale_x: NDArray[np.float32]  # float32 ``()``, scale of the input
    scale_w: NDArray[np.float32]  # float32 ``()`` or ``(channels,)``, scale of the weights


@dataclass(frozen=True, slots=True, eq=False)
class Reals:
    """float32 numbers (or integers, for shapes and indices)."""

    array: NDArray[Any]  # any shape
    exact: bool = True  # whether every runtime computes these very numbers
    # where they are not exact, how far a runtime's numbers may be from these; infinite where nothing bounds it
    doubt: float = np.inf


Value = Quantized | Tabulated | Sums | Reals
Inputs = Sequence[Value | None]
"""Operands of a node; None where one is left out."""


def first_of(inputs: Inputs) -> Value:
    """The first operand, which is never left out."""
    (first, *_) = inputs
    assert first is not None  # noqa: S101
    return first


def reals_of(inputs: Inputs) -> list[Reals]:
    """The numbers of all operands that are there."""
    return [to_reals(value) for value in inputs if value is not None]


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


# Relative to the largest number that a fused sum handles: the room that ``converters.leaky`` leaves.
FUSED_ROUNDING = ROUNDINGS * 2.0**-24


@dataclass(frozen=True, slots=True)
class Rounding:
    """How far decisions are moved, in codes, before they are rounded."""

    exact: float = 0.0  # for integer operators, whose result is defined to the bit
    inexact: float = 0.0  # for operators in float32, whose last bit is the runtime's own

    def offset(self, *, exact: bool) -> np.float32:
        """The shift for one operator."""
        return np.float32(self.exact if exact else self.inexact)


def quantize_value(value: Value, like: Quantized, rounding: Rounding) -> NDArray[Any]:
    """The codes of a QuantizeLinear; ``like`` is an empty tensor of its dtype, scale and zero-point, per tensor."""
    match value:
        case Quantized() if value.reads_like(like):
            return value.codes
        case Quantized() if value.codes.dtype.itemsize == 1 and value.scale.size == 1:
            return quantize_value(tabulate(value), like, rounding)
        case Tabulated():
            table = _rounded(value.reals / like.scale.reshape(()), like, rounding.offset(exact=value.exact))
            return np.asarray(table[value.codes.view(np.uint8)])
        case Sums():
            factor = (value.scale_x.reshape(()) * value.scale_w) / like.scale.reshape(())
            if factor.size > 1:
                factor = factor.reshape(-1, *[1] * (value.sums.ndim - 2))
            steps = value.sums.astype(np.float32)
            steps *= factor
            return _rounded(steps, like, rounding.offset(exact=True))
        case _:
            reals = to_reals(value)
            steps = np.asarray(reals.array.astype(np.float32) / like.scale.reshape(()))
            return _rounded(steps, like, rounding.offset(exact=is_settled(value, like)))


def is_settled(value: Value, like: Quantized) -> bool:
    """Whether every honest runtime rounds ``value`` to the same codes: it is exact, or far enough from every edge."""
    if not isinstance(value, Reals) or value.exact:
        return getattr(value, "exact", True)
    scale = float(like.scale.reshape(()))
    room = value.doubt / scale + 256 * FUSED_ROUNDING
    if not room < 0.5:
        return False
    steps = value.array.astype(np.float64) / scale
    return bool((np.abs(np.abs(steps - np.rint(steps)) - 0.5) > room).all())


def tabulate(value: Quantized) -> Tabulated:
    """The identity on 8-bit codes with one scale, as a table to which functions are applied."""
    codes = np.arange(256, dtype=np.uint8).view(value.codes.dtype)
    return Tabulated(value.codes, to_reals(value.with_codes(codes)).array, exact=True)


def _rounded(steps: NDArray[np.float32], like: Quantized, offset: np.float32) -> NDArray[Any]:
    """Codes from float32 ``real / scale``: half to even, plus the zero-point, clamped. Overwrites ``steps``."""
    info, zero_point = np.iinfo(like.codes.dtype), float(like.zero_point)
    steps += offset
    # clamped first, as kernels do: a float beyond int32 has no integer to be rounded to
    np.clip(steps, np.float32(info.min - zero_point), np.float32(info.max - zero_point), out=steps)
    np.rint(steps, out=steps)
    steps += np.float32(zero_point)
    return steps.astype(like.codes.dtype)
