"""Affine quantisation: parameters and reference arithmetic in numpy.

``real = scale * (code - zero_point)``. Scales are float32, as every file format here stores them; rounding is half to
even in float32, as ONNX QuantizeLinear and LiteRT's XNNPACK kernels do it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class QuantParams:
    """Scale and zero-point of one tensor."""

    scale: NDArray[np.float32]  # float32 ``(1,)`` per tensor or ``(channels,)`` per channel; every entry finite and > 0
    zero_point: NDArray[np.int64]  # int64, the shape of ``scale``
    axis: int | None = None  # the channel axis in the source's layout, or None per tensor

    def __post_init__(self) -> None:
        if self.scale.ndim != 1 or self.scale.shape != self.zero_point.shape or not self.scale.size:
            raise ValueError(f"scale {self.scale.shape} and zero_point {self.zero_point.shape} must be equal vectors")
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise ValueError("every scale must be finite and above zero")
        if self.axis is None and self.scale.size != 1:
            raise ValueError(f"{self.scale.size} scales need an axis")

    @classmethod
    def per_tensor(cls, scale: float, zero_point: int) -> QuantParams:
        """Parameters of a tensor with one scale (rounded to float32) and one zero-point."""
        return cls(np.array([scale], np.float32), np.array([zero_point], np.int64))

    @property
    def scalar_scale(self) -> np.float32:
        """The one scale of a per-tensor quantisation."""
        if self.scale.size != 1:
            raise ValueError(f"per-channel quantisation with {self.scale.size} scales has no single scale")
        return np.float32(self.scale[0])

    @property
    def scalar_zero_point(self) -> int:
        """The one zero-point of a per-tensor quantisation."""
        if self.zero_point.size != 1:
            raise ValueError(f"per-channel quantisation with {self.zero_point.size} zero-points has no single one")
        return int(self.zero_point[0])

    def extremes(self, dtype: str) -> tuple[float, float]:
        """The largest and the smallest real number that codes of a dtype with one scale stand for."""
        limits, scale = np.iinfo(dtype), float(self.scalar_scale)
        return scale * (limits.max - self.scalar_zero_point), scale * (limits.min - self.scalar_zero_point)

    def shifted(self, by: int) -> QuantParams:
        """The same scale with the zero-point moved: 128 turns int8 codes into uint8 codes."""
        return QuantParams(self.scale, self.zero_point + by, self.axis)

    def same_as(self, other: QuantParams) -> bool:
        """Whether both describe the same mapping, bit for bit."""
        return (
            self.axis == other.axis
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )


def quantize(real: NDArray[np.float32], scale: np.float32, zero_point: int, dtype: type[Any]) -> NDArray[Any]:
    """Quantise float32 values as ONNX QuantizeLinear does: divide in float32, round half to even, add, saturate."""
    info = np.iinfo(dtype)
    codes = np.rint(real.astype(np.float32) / np.float32(scale)).astype(np.float64) + zero_point
    clipped: NDArray[Any] = np.clip(codes, info.min, info.max).astype(dtype)
    return clipped


def dequantize(codes: NDArray[Any], scale: np.float32, zero_point: int) -> NDArray[np.float32]:
    """Dequantise as ONNX DequantizeLinear does: subtract in int32, multiply in float32."""
    return (codes.astype(np.int32) - zero_point).astype(np.float32) * np.float32(scale)


def real_numbers(codes: NDArray[Any], params: QuantParams) -> NDArray[np.float32]:
    """float32 ``scale * (code - zero_point)`` of constants, along ``params.axis`` where there are several scales.

    Rounded once: the factors, and all products of 8-bit codes, are exact in float64.

    Example:
        >>> real_numbers(np.array([1, 2], np.int8), QuantParams(np.float32([0.5, 2]), np.array([0, 1]), 0)).tolist()
        [0.5, 2.0]
    """
    shape = [1] * codes.ndim
    if params.axis is not None and codes.ndim:
        shape[params.axis] = params.scale.size
    scale, zero_point = params.scale.reshape(shape), params.zero_point.reshape(shape)
    return np.asarray((codes.astype(np.float64) - zero_point) * scale.astype(np.float64)).astype(np.float32)
