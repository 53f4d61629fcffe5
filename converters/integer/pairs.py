"""ADD, SUB and MUL of 8-bit codes as LiteRT's XNNPACK kernels compute them, for every pair of codes.

With ``r_x = s_x / s_out`` in float32 and codes relative to their zero-points:

* ADD and SUB: ``shift = 20 - floor(log2(max(r_a, r_b)))``, multipliers ``m_x = round(r_x * 2^shift)``, and the result
  is ``(a * m_a + b * m_b + 2^(shift - 1)) >> shift`` (half up), plus the output's zero-point; SUB has ``-m_b``.
* MUL: ``a * b`` times the float32 number ``(s_a * s_b) / s_out``, rounded to float32, then half to even, plus the
  zero-point.

Outside the ranges of ``xnnpack_takes``, and always for DIV, LiteRT leaves the operator to its built-in kernels
(``converters.integer.builtin_pairs``).

Source of the recipes: google/XNNPACK, ``src/microparams-init.c`` (qs8_add_minmax, qs8_mul_minmax); of the ranges:
``tensorflow/lite/delegates/xnnpack/xnnpack_delegate.cc``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

PairOp = Literal["ADD", "SUB", "MUL", "DIV"]
Integers = NDArray[np.int64]

SUM_RATIOS = (2.0**-10, 2.0**8)  # of each operand's scale to the output's
PRODUCT_RATIOS = (2.0**-16, 2.0**8)  # of the product of both scales to the output's


@dataclass(frozen=True, slots=True)
class Affine:
    """``real = scale * (code - zero_point)``, with a float32 scale."""

    scale: np.float32
    zero_point: int


@dataclass(frozen=True, slots=True)
class PairCase:
    """One quantised operator on two tensors of 8-bit codes.

    Attributes:
        op: TFLite's name.
        a: quantisation of the first operand.
        b: of the second.
        out: of the result.
        lowest: lowest code of the dtype, -128 or 0; the highest is 255 more.
    """

    op: PairOp
    a: Affine
    b: Affine
    out: Affine
    lowest: int

    def clamped(self, codes: NDArray[Any]) -> NDArray[Any]:
        """Codes inside the dtype's range."""
        clamped: NDArray[Any] = np.clip(codes, self.lowest, self.lowest + 255)
        return clamped

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
    """Whether XNNPACK computes the operator; otherwise LiteRT's built-in kernel does (``builtin_pairs``)."""
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
