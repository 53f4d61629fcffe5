"""ADD, SUB, MUL and DIV of 8-bit codes as LiteRT's kernels compute them, for every pair of codes.

XNNPACK, with ``r_x = s_x / s_out`` in float32 and codes relative to their zero-points:

* ADD and SUB: ``shift = 20 - floor(log2(max(r_a, r_b)))``, multipliers ``m_x = round(r_x * 2^shift)``, and the result
  is ``(a * m_a + b * m_b + 2^(shift - 1)) >> shift`` (half up), plus the output's zero-point; SUB has ``-m_b``.
* MUL: ``a * b`` times the float32 number ``(s_a * s_b) / s_out``, rounded to float32, then half to even, plus the
  zero-point.

Outside the ranges of ``xnnpack_takes``, and always for DIV, LiteRT leaves the operator to its built-in kernels: 31-bit
fixed point, each rescaling rounded twice (``converters.integer.functions``):

* ADD and SUB shift codes up by 20 bits, rescale them to twice the larger scale, add or subtract, and rescale the sum.
* MUL rescales the product of the codes.
* DIV finds the reciprocal of the divisor's code by three steps of Newton's method, multiplies and rescales. A divisor
  of 0 has no result that is defined, in LiteRT either; the table has that of 1 there.

Source of XNNPACK's recipes: google/XNNPACK, ``src/microparams-init.c`` (qs8_add_minmax, qs8_mul_minmax); of the ranges:
``tensorflow/lite/delegates/xnnpack/xnnpack_delegate.cc``. The built-in kernels are those of
tensorflow/lite/kernels/{add,sub,mul,div}.cc with kernels/internal/reference/{add,sub,mul,div}.h and GetReciprocal in
kernels/internal/common.h, and gemmlowp's one_over_one_plus_x_for_x_in_0_1. These files were not read: what is known of
the recipes was written down and mended until all codes of generated operators were LiteRT's (docs/operators.md says how
many were tried).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from converters.integer.functions import (
    Integers,
    divided,
    high_number,
    high_product,
    quantized_multiplier,
    rescaled,
    wrapped,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

PairOp = Literal["ADD", "SUB", "MUL", "DIV"]

SUM_RATIOS = (2.0**-10, 2.0**8)  # of each operand's scale to the output's
PRODUCT_RATIOS = (2.0**-16, 2.0**8)  # of the product of both scales to the output's
UP = 20  # bits by which a built-in sum is finer than its codes


@dataclass(frozen=True, slots=True)
class Affine:
    """``real = scale * (code - zero_point)``, with a float32 scale."""

    scale: np.float32
    zero_point: int


@dataclass(frozen=True, slots=True)
class PairCase:
    """One quantised operator on two tensors of 8-bit codes."""

    op: PairOp  # TFLite's name
    a: Affine  # quantisation of the first operand
    b: Affine  # of the second
    out: Affine  # of the result
    lowest: int  # lowest code of the dtype, -128 or 0; the highest is 255 more

    def clamped(self, codes: NDArray[Any]) -> NDArray[Any]:
        """Codes inside the dtype's range."""
        return np.asarray(np.clip(codes, self.lowest, self.lowest + 255))

    @property
    def ratios(self) -> tuple[np.float32, np.float32]:
        """float32 scales of both operands in units of the output's."""
        with np.errstate(over="ignore", under="ignore"):
            return self.a.scale / self.out.scale, self.b.scale / self.out.scale


@dataclass(frozen=True, slots=True)
class SumMultipliers:
    """XNNPACK's integers for a sum: ``(a * m_a + b * m_b + 2^(shift - 1)) >> shift``."""

    m_a: int
    m_b: int
    shift: int


def product_factor(case: PairCase) -> np.float32:
    """The float32 factor of a product of codes."""
    with np.errstate(over="ignore", under="ignore"):
        return np.float32(case.a.scale * case.b.scale) / case.out.scale


def xnnpack_takes(case: PairCase) -> bool:
    """Whether XNNPACK computes the operator; otherwise LiteRT's built-in kernel does (``builtin_codes``)."""
    if case.op == "DIV":
        return False
    if case.op == "MUL":
        return bool(PRODUCT_RATIOS[0] <= product_factor(case) < PRODUCT_RATIOS[1])
    return all(SUM_RATIOS[0] <= ratio < SUM_RATIOS[1] for ratio in case.ratios)


def sum_multipliers(case: PairCase) -> SumMultipliers:
    """The integers of an ADD or SUB that XNNPACK takes."""
    ratios = [float(ratio) for ratio in case.ratios]
    shift = 21 - int(np.frexp(max(ratios))[1])
    m_a, m_b = (int(np.rint(np.ldexp(ratio, shift))) for ratio in ratios)
    return SumMultipliers(m_a, -m_b if case.op == "SUB" else m_b, shift)


def xnnpack_codes(case: PairCase, a: Integers, b: Integers) -> Integers:
    """Output codes of an operator that XNNPACK takes, for arrays of codes that broadcast."""
    x, y = a - case.a.zero_point, b - case.b.zero_point
    if case.op == "MUL":
        steps = np.rint((x * y).astype(np.float32) * product_factor(case)).astype(np.int64)
    else:
        m = sum_multipliers(case)
        steps = (x * m.m_a + y * m.m_b + (1 << (m.shift - 1))) >> m.shift
    return case.clamped(steps + case.out.zero_point)


def all_codes(case: PairCase) -> Integers:
    """int64 ``(256,)``: every code of the dtype."""
    return np.arange(case.lowest, case.lowest + 256, dtype=np.int64)


def builtin_codes(case: PairCase) -> Integers:
    """int64 ``(256, 256)``: output codes for all codes of the first operand (rows) and the second, ascending."""
    x, y = (all_codes(case) - affine.zero_point for affine in (case.a, case.b))
    x, y = x[:, None], y[None]
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        if case.op == "MUL":
            steps = rescaled(x * y, float(case.a.scale * case.b.scale / case.out.scale))
        elif case.op == "DIV":
            steps = _quotients(x, y, float(case.a.scale / (case.b.scale * case.out.scale)))
        else:
            steps = _sums(case, x, y)
    return case.clamped(steps + case.out.zero_point)


def _sums(case: PairCase, x: Integers, y: Integers) -> Integers:
    widest = 2 * float(max(case.a.scale, case.b.scale))
    a = rescaled(x << UP, float(case.a.scale) / widest)
    b = rescaled(y << UP, float(case.b.scale) / widest)
    total = a - b if case.op == "SUB" else a + b
    return rescaled(total, widest / ((1 << UP) * float(case.out.scale)))


def _quotients(x: Integers, y: Integers, factor: float) -> Integers:
    sign, size = np.where(y < 0, -1, 1), np.maximum(np.abs(y), 1)
    reciprocals = np.array([_reciprocal(value) for value in range(1, 257)], np.int64)
    inverse, inverse_shift = reciprocals[size - 1].transpose(2, 0, 1)
    multiplier, shift = quantized_multiplier(factor)
    x = x * sign
    lengths = np.array([int(value).bit_length() for value in range(257)])
    room = 31 - lengths[np.abs(x)] + ((x < 0) & (np.abs(x) & (np.abs(x) - 1) == 0))  # -2^n needs a bit less
    quotients = high_product(wrapped(x << room), inverse)
    return _divided_by_any(high_product(quotients, multiplier), inverse_shift + room - shift)


def _divided_by_any(values: Integers, bits: Integers) -> Integers:
    """``divided``; of more than 31 bits or fewer than 0 processors take the last five binary digits."""
    beyond = (values >> (bits % 32)) + (values > np.where(values < 0, 0, -1))
    return np.where((bits < 0) | (bits > 31), beyond, divided(values, np.clip(bits, 0, 31)))


def _reciprocal(value: int) -> tuple[int, int]:
    """``1 / value`` as ``multiplier / 2^(31 + shift)``."""
    shift = value.bit_length() - 1
    above = (value << (31 - shift)) - (1 << 31)
    half = (above + (1 << 31)) // 2  # (x + 1) / 2 with 1 as 2^31 - 1, to nearest
    x = 1515870810 + high_number(half, -1010580540)  # 48/17 and -32/17 with two bits above the point
    for _ in range(3):
        x += high_number(x, (1 << 29) - high_number(half, x)) << 2
    return min(x << 1, (1 << 31) - 1), shift
