"""The codes of LiteRT's functions of one number for all 256 input codes.

EXP, LOG and GELU (built-in kernels) hold a table, too: the real function in float32, divided by the output's scale,
rounded to nearest with halves away from zero; TANH (XNNPACK) as ``converters.integer.late_sum`` says. LOG gives the
lowest code for numbers that have none. SQRT divides in float32 and rounds towards zero. RSQRT finds a root in fixed
point by five steps of Newton's method. ABS rescales in 31-bit fixed point, or not at all. NEG turns the sign of the
code itself, whatever scales and zero-points are, and -128 stays -128.

Where XNNPACK does not take them, built-in kernels compute QUANTIZE, LEAKY_RELU, PRELU and RELU in 31-bit fixed point:
codes are rescaled by ``s_in / s_out``, those below the zero-point of the leaky ones by the slope as well, each with a
31-bit multiplier and a shift, rounded twice.

The kernels are those of tensorflow/lite/kernels/{exp,elementwise,neg,activations,quantize}.cc with
kernels/internal/reference/{prelu,leaky_relu,gelu,requantize}.h, LUTPopulate, MultiplyByQuantizedMultiplier and
GetInvSqrtQuantizedMultiplierExp in kernels/internal/common.{h,cc}. These files were not read: what is known of the
recipes was written down and mended until all codes of generated operators were LiteRT's (docs/operators.md says how
many were tried).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters.integer.late_sum import late_codes
from converters.leaky import xnnpack_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from converters.leaky import LeakyCase, Table

Integers = NDArray[np.int64]
INT32 = 1 << 32
ROOT_STEPS = 5
BLOCK = 16  # values that the built-in QUANTIZE takes at once


def _gelu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    half, turned = np.float32(0.5) * x, x * np.float32(-math.sqrt(0.5))
    shares: NDArray[np.float32] = np.array([math.erfc(float(v)) for v in turned], np.float32)
    return half * shares


def _gelu_by_tanh(x: NDArray[np.float32]) -> NDArray[np.float32]:
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    return np.float32(0.5) * x * (np.float32(1) + np.tanh(inner.astype(np.float64)).astype(np.float32))


def _tanh(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """As C libraries compute it: from ``exp(2 |x|) - 1``, below 1 from ``exp(-2 |x|) - 1``, with float32 steps."""
    twice = 2 * np.abs(x.astype(np.float64))
    with np.errstate(over="ignore"):
        above, below = np.expm1(twice).astype(np.float32), np.expm1(-twice).astype(np.float32)
    two = np.float32(2)
    sizes = np.where(twice < 2, -below / (below + two), np.float32(1) - two / (above + two))
    signed: NDArray[np.float32] = np.copysign(sizes, x)
    return signed


def _float32(function: np.ufunc) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    return lambda x: np.asarray(function(x.astype(np.float64)), np.float32)


REALS: Mapping[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "EXP": _float32(np.exp),
    "TANH": _tanh,
    "LOG": _float32(np.log),
    "GELU": _gelu,
    "GELU, approximate": _gelu_by_tanh,
}


def function_table(op: str, case: LeakyCase) -> Table:
    """int64 ``(256,)``: output code for input codes -128..127.

    Args:
        op: ABS, NEG, SQRT, RSQRT, or one of ``REALS``.
        case: scales and zero-points of input and output; its slope is not used.
    """
    x = np.arange(-128, 128, dtype=np.int64) - case.zero_point_in
    ratio = np.float32(case.scale_in) / np.float32(case.scale_out)
    if op == "NEG":
        negated: Table = np.where(x + case.zero_point_in == -128, -128, -x - case.zero_point_in)
        return negated
    if op == "ABS":
        steps = np.abs(x) if case.scale_in == case.scale_out else rescaled(np.abs(x), float(ratio))
    elif op == "SQRT":
        roots = np.sqrt(np.float32(case.scale_in) * np.maximum(x, 0).astype(np.float32))
        steps = _bounded(np.trunc(roots / np.float32(case.scale_out)))
    elif op == "RSQRT":
        steps = _inverse_roots(x, case)
    else:
        steps = _rounded_reals(op, x, case)
    table: Table = np.clip(steps + case.zero_point_out, -128, 127)
    return table


def _bounded(steps: NDArray[Any]) -> Integers:
    """Whole numbers of any size, as int64 that still lie beyond all codes."""
    found: Integers = np.clip(steps, -512, 512).astype(np.int64)
    return found


def _rounded_reals(op: str, x: Integers, case: LeakyCase) -> Integers:
    reals = np.float32(case.scale_in) * x.astype(np.float32)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        found = REALS[op](reals)
        if op == "LOG":
            found = np.where(reals > 0, found, np.float32(-128 - case.zero_point_out) * case.scale_out)
        if op == "TANH":
            return late_codes(case, found) - case.zero_point_out
        found = found * (np.float32(1) / np.float32(case.scale_out))
        return _bounded(np.sign(found) * np.floor(np.abs(found) + np.float32(0.5)))


def _inverse_roots(x: Integers, case: LeakyCase) -> Integers:
    """Of codes above the zero-point; the highest code elsewhere, as for 0: LiteRT stops at numbers below."""
    factor = 1 / float(np.sqrt(np.float32(case.scale_in)) * np.float32(case.scale_out))
    fraction, shift = math.frexp(factor)
    found = np.full(256, 512, np.int64)
    for place in np.flatnonzero(x > 0):
        root, root_shift = _inverse_root(int(x[place]))
        fine = rescaled(np.array([1]), math.ldexp(root / (1 << 31), 20 - root_shift))
        found[place] = rescaled(fine, math.ldexp(fraction, shift - 20))[0]
    return found


def _inverse_root(value: int) -> tuple[int, int]:
    """``1 / sqrt(value)`` as ``multiplier / 2^(31 + shift)``."""
    if value == 1:
        return (1 << 31) - 1, 0
    pairs = (31 - value.bit_length()) // 2 - 1
    shift, half = 11 - pairs, (((value << 2 * pairs) >> 1) + 1) >> 1
    x = 1 << 28
    for _ in range(ROOT_STEPS):
        cube = _high(_high(x, x), x) << 6
        x = (_high(3 << 27, x) - _high(half, cube)) << 3
    x = _high(x, 1518500250)  # sqrt(1/2)
    return (x << -shift, 0) if shift < 0 else (x, shift)


def _high(a: int, b: int) -> int:
    """The upper half of ``2 * a * b``, to nearest."""
    product = a * b
    return (product + (1 << 30)) // (1 << 31) if product >= 0 else -((-product + (1 << 30) - 1) // (1 << 31))


def requantized_table(op: str, case: LeakyCase, *, changes_type: bool, count: int) -> Table:
    """``function_table`` of a QUANTIZE or LEAKY_RELU: XNNPACK's where it takes it, which it does between equal types alone.

    The built-in QUANTIZE rounds halves up in blocks of 16 values, and away from zero behind the last block.

    Args:
        op: which of both.
        case: scales, zero-points and the slope.
        changes_type: whether int8 becomes uint8, or uint8 int8.
        count: number of values in the tensor.
    """
    table = None if changes_type else xnnpack_table(case)
    return rescaled_table(op, case, halves_up=op == "QUANTIZE" and count >= BLOCK) if table is None else table


def rescaled_table(op: str, case: LeakyCase, *, halves_up: bool = False) -> Table:
    """``function_table`` of a built-in QUANTIZE, LEAKY_RELU or RELU, which is not clamped to its bounds.

    Args:
        op: which of them.
        case: scales, zero-points and, of LEAKY_RELU, the slope.
        halves_up: how the second rounding takes halves, else away from zero.
    """
    x = np.arange(-128, 128, dtype=np.int64) - case.zero_point_in
    with np.errstate(over="ignore"):
        narrow = np.float32(case.scale_in) / np.float32(case.scale_out)
        sloped = np.float32(case.scale_in) * np.float32(case.slope) / np.float32(case.scale_out)
    factor = float(case.scale_in) / float(case.scale_out) if op == "QUANTIZE" else float(narrow)
    steps = rescaled(x, factor, halves_up=halves_up)
    if op == "LEAKY_RELU":
        steps = np.where(x >= 0, steps, rescaled(x, float(sloped)))
    table: Table = np.clip(steps + case.zero_point_out, -128, 127)
    return table


def prelu_tables(case: LeakyCase, slopes: Integers, slope_scale: np.float32) -> Integers:
    """int64 ``(slopes, 256)``: output code for input codes -128..127.

    Args:
        case: scales and zero-points of input and output; its slope is not used.
        slopes: int64 ``(n,)``, codes of the slopes, less their zero-point.
        slope_scale: what one of them stands for.
    """
    x = np.arange(-128, 128, dtype=np.int64) - case.zero_point_in
    with np.errstate(over="ignore"):
        narrow = np.float32(case.scale_in) / np.float32(case.scale_out)
        sloped = np.float32(case.scale_in) * np.float32(slope_scale) / np.float32(case.scale_out)
    above = rescaled(x, float(narrow))
    below = rescaled(x * slopes[:, None], float(sloped))
    codes: Integers = np.clip(np.where(x >= 0, above, below) + case.zero_point_out, -128, 127)
    return codes


def rescaled(values: Integers, factor: float, *, halves_up: bool = False) -> Integers:
    """``values * factor`` by a 31-bit multiplier: to nearest, then divided by a power of two, halves away from zero or up.

    Factors above 1 shift in 32 bits first, which wraps around.
    """
    multiplier, shift = quantized_multiplier(factor)
    high, bits = high_product(wrapped(values << (max(shift, 0) % 32)), multiplier), max(-shift, 0)
    return (high + (1 << bits >> 1)) >> bits if halves_up else divided(high, bits)


def quantized_multiplier(factor: float) -> tuple[int, int]:
    """``factor`` as ``multiplier * 2^(shift - 31)``, the multiplier of 31 bits."""
    fraction, shift = math.frexp(factor)
    multiplier = math.floor(abs(fraction) * (1 << 31) + 0.5) * (-1 if fraction < 0 else 1)
    if abs(multiplier) == 1 << 31:
        multiplier, shift = multiplier // 2, shift + 1
    return (0, 0) if shift < -31 else (multiplier, shift)


def wrapped(values: Integers) -> Integers:
    """As 32 bits hold them."""
    found: Integers = (values + (INT32 >> 1)) % INT32 - (INT32 >> 1)
    return found


def high_product(values: Integers, multiplier: int | Integers) -> Integers:
    """``values * multiplier / 2^31``, to nearest, halves of negative ones towards zero."""
    products = values * multiplier
    high = np.where(products >= 0, products + (1 << 30), products + 1 - (1 << 30))
    found: Integers = np.sign(high) * (np.abs(high) >> 31)
    return found


def divided(values: Integers, bits: int | Integers) -> Integers:
    """``values / 2^bits``, halves away from zero."""
    mask = (np.int64(1) << bits) - 1
    found: Integers = (values >> bits) + ((values & mask) > (mask >> 1) + (values < 0))
    return found
