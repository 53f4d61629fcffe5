"""ADD, SUB, MUL and DIV of 8-bit codes as LiteRT's built-in kernels compute them, where XNNPACK does not take the operator.

All in 31-bit fixed point, each rescaling rounded twice (``converters.integer.functions``):

* ADD and SUB shift codes up by 20 bits, rescale them to twice the larger scale, add or subtract, and rescale the sum.
* MUL rescales the product of the codes.
* DIV finds the reciprocal of the divisor's code by three steps of Newton's method, multiplies and rescales. A divisor
  of 0 has no result that is defined, in LiteRT either; the table has that of 1 there.

The kernels are those of tensorflow/lite/kernels/{add,sub,mul,div}.cc with
kernels/internal/reference/{add,sub,mul,div}.h and GetReciprocal in kernels/internal/common.h, and gemmlowp's
one_over_one_plus_x_for_x_in_0_1. These files were not read: what is known of the recipes was written down and mended
until all codes of generated operators were LiteRT's (docs/operators.md says how many were tried).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.integer.functions import divided, high_product, quantized_multiplier, rescaled, wrapped
from converters.integer.pairs import all_codes

if TYPE_CHECKING:
    from converters.integer.pairs import Integers, PairCase

UP = 20  # bits by which a sum is finer than its codes


def builtin_codes(case: PairCase) -> Integers:
    """int64 ``(256, 256)``: output codes for all codes of the first operand (rows) and the second, in ascending order."""
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
    found = np.array([_reciprocal(value) for value in range(1, 257)], np.int64)
    inverse, inverse_shift = found[:, 0][size - 1], found[:, 1][size - 1]
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
    x = 1515870810 + _high(half, -1010580540)  # 48/17 and -32/17 with two bits above the point
    for _ in range(3):
        x += _high(x, (1 << 29) - _high(half, x)) << 2
    return min(x << 1, (1 << 31) - 1), shift


def _high(a: int, b: int) -> int:
    return int(high_product(np.array(a, np.int64), b))
