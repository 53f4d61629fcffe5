"""The codes of LiteRT's functions of one number for all 256 input codes, and scales with which runtimes give them.

* XNNPACK computes LOGISTIC, TANH and the product of a tensor with itself in float32: the real result times
  ``1 / scale``, then plus the zero-point *of the file's own dtype*, then half to even. The sum is rounded to float32,
  too, so a result within about 0.000004 of a tie becomes one. For uint8 codes the zero-point is another, and so are
  such ties. Measured, not read: of 150 LOGISTICs of int8 codes with a result near a tie, all 150 come out so, and of
  600 squares at round and irregular scales all 600; no other order of the steps gives more than 133 and 584.
* EXP, LOG and GELU (built-in kernels) are the real function in float32, divided by the output's scale, rounded to
  nearest with halves away from zero. LOG gives the lowest code for numbers that have none. SQRT divides in float32 and
  rounds towards zero. RSQRT finds a root in fixed point by five steps of Newton's method. ABS rescales in 31-bit fixed
  point, or not at all. NEG turns the sign of the code itself, whatever scales and zero-points are, and -128 stays -128.
* Where XNNPACK does not take them, built-in kernels compute QUANTIZE, LEAKY_RELU, PRELU and RELU in 31-bit fixed point:
  codes are rescaled by ``s_in / s_out``, those below the zero-point of the leaky ones by the slope as well, each with a
  31-bit multiplier and a shift, rounded twice.
* HARD_SWISH, ``x * clip(x / 6 + 1/2, 0, 1)`` in 16-bit fixed point, which XNNPACK does not take: the input with 7 more
  bits is scaled once to ``x / 3`` in units of 2^-15, once to the output's scale, and multiplied, rounded at every step.
* A uint8 CONCATENATION whose operands have other scales (int8 files give all one scale), which XNNPACK does not take:
  ``round(x * f - zp_in * f) + zp_out`` with ``f = s_in * (1 / s_out)``, every step in float32, halves away from zero. A
  result of 2^31 codes or more gets the lowest code.
* SOFTMAX (built-in on x86; XNNPACK has none for codes): with ``d`` a code's distance from the row's largest one, a
  table holds ``exp(-scale * beta * d)`` in float32, a row's entries are added up one by one in float32, and
  ``entry * (1 / (sum * scale_out))`` is rounded to nearest, of uint8 codes by adding 0.5 and cutting off, of int8 codes
  with halves away from zero. The codes of 150 random SOFTMAXs, 288,704 in all, are LiteRT's. On 64-bit Arm LiteRT has a
  kernel of its own, in 16-bit fixed point.

Sources, all under tensorflow/lite/kernels: {exp,elementwise,neg,activations,quantize}.cc with
internal/reference/{prelu,leaky_relu,gelu,requantize}.h, LUTPopulate, MultiplyByQuantizedMultiplier and
GetInvSqrtQuantizedMultiplierExp in internal/common.{h,cc}: these were not read; what is known of the recipes was
written down and mended until all codes of generated operators were LiteRT's (docs/operators.md says how many were
tried). internal/reference/hard_swish.h and HardSwishPrepare in activations.cc; ConcatenationWithScaling in
internal/reference/concatenation.h; Softmax, PopulateSoftmaxLookupTable and QuantizeSoftmaxOutput in
internal/optimized/optimized_ops.h, as public copies have it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters.leaky import TRIED, FloatForm, edges, factor_bounds, float_table, safest_factor, xnnpack_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from converters.leaky import CodeTable, LeakyCase

Integers = NDArray[np.int64]
INT32 = 1 << 32
INT16 = np.iinfo(np.int16)
UNIT = 1 << 15  # of HARD_SWISH's 16-bit numbers
ROOT_STEPS = 5
BLOCK = 16  # values that the built-in QUANTIZE takes at once
STEPS = 256  # of LOGISTIC's only output scale
ROOM = 3e-4  # of these steps, by which runtimes may miss: a millionth of the function's range
BEYOND = 2.0**31  # x86 makes the lowest int32 number of every float32 number that has none
UINT8 = 128  # what turns int8 codes into the uint8 codes on which CONCATENATION computes
HALVES = {"uint8": np.float32(0.5), "int8": np.nextafter(np.float32(0.5), np.float32(0))}
"""Dtype of the source's codes -> what SOFTMAX adds before a float32 number from 0 to 256 is rounded down.

The number below 0.5 takes 0.5 - 2^-25 to 0, and every other number where halves away from zero take it.
"""


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
    return np.asarray(np.copysign(sizes, x))


def _float32(function: np.ufunc) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    return lambda x: np.asarray(function(x.astype(np.float64)), np.float32)


REALS: Mapping[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "EXP": _float32(np.exp),
    "TANH": _tanh,
    "LOG": _float32(np.log),
    "GELU": _gelu,
    "GELU, approximate": _gelu_by_tanh,
}


def function_table(op: str, case: LeakyCase) -> CodeTable:
    """int64 ``(256,)``: output code for input codes -128..127 of ABS, NEG, SQRT, RSQRT, or one of ``REALS``."""
    x = case.relative_inputs
    ratio = np.float32(case.scale_in) / np.float32(case.scale_out)
    if op == "NEG":
        return np.asarray(np.where(x + case.zero_point_in == -128, -128, -x - case.zero_point_in))
    if op == "ABS":
        return case.outputs(np.abs(x) if case.scale_in == case.scale_out else rescaled(np.abs(x), float(ratio)))
    if op == "SQRT":
        roots = np.sqrt(np.float32(case.scale_in) * np.maximum(x, 0).astype(np.float32))
        return case.outputs(_bounded(np.trunc(roots / np.float32(case.scale_out))))
    if op == "RSQRT":
        return case.outputs(_inverse_roots(x, case))
    reals = np.float32(case.scale_in) * x.astype(np.float32)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        results = REALS[op](reals)
        if op == "LOG":
            results = np.where(reals > 0, results, np.float32(-128 - case.zero_point_out) * case.scale_out)
        if op == "TANH":
            return _late_codes(case, results)
        results = results * (np.float32(1) / np.float32(case.scale_out))
        return case.outputs(_bounded(np.sign(results) * np.floor(np.abs(results) + np.float32(0.5))))


def _bounded(steps: NDArray[Any]) -> Integers:
    """Whole numbers of any size, as int64 that still lie beyond all codes."""
    return np.asarray(np.clip(steps, -512, 512), np.int64)


def _late_codes(case: LeakyCase, reals: NDArray[np.float32]) -> CodeTable:
    """int64 codes -128..127 of float32 results, as XNNPACK rounds them."""
    shift = 128 if case.unsigned else 0
    with np.errstate(over="ignore"):
        steps = reals * (np.float32(1) / case.scale_out) + np.float32(case.zero_point_out + shift)
    return np.asarray(np.clip(np.rint(steps), shift - 128, shift + 127), np.int64) - shift


def square_table(case: LeakyCase) -> CodeTable:
    """int64 ``(256,)``: output code for input codes -128..127 of a MUL of a tensor with itself."""
    reals = case.scale_in * case.relative_inputs.astype(np.float32)
    with np.errstate(over="ignore"):
        return _late_codes(case, reals * reals)


def logistic_table(case: LeakyCase) -> CodeTable:
    """int64 ``(256,)``: output code for input codes -128..127, at the only output scale there is."""
    x = case.scale_in * case.relative_inputs.astype(np.float32)
    with np.errstate(over="ignore"):
        return _late_codes(case, (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32))


def settled_scale(case: LeakyCase, wanted: CodeTable) -> np.float32 | None:
    """The scale of a LOGISTIC's input with which no result is near an edge between two codes.

    Runtimes compute the function in approximations of their own, a few ten-millionths away; only a result that lies
    that near to an edge could come out otherwise.

    Returns:
        The tensor's own scale if it keeps away from all edges, else the one nearby that keeps furthest; None if none
        does.
    """
    if keeps_away(case, case.scale_in, wanted):
        return case.scale_in
    x, steps = case.relative_inputs.astype(np.float64), wanted.astype(np.float64) + 128
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = (np.log(share / (1 - share)) for share in ((steps - 0.5) / STEPS, (steps + 0.5) / STEPS))
    low, high = np.where(steps == 0, -np.inf, low), np.where(steps == STEPS - 1, np.inf, high)
    bounds = factor_bounds(x[x != 0], low[x != 0], high[x != 0])
    if bounds is None or bounds[0] <= 0:
        return None
    scales = np.linspace(*bounds, TRIED + 2)[1:-1].astype(np.float32)
    rooms = [_logistic_room(x * float(scale), wanted) for scale in scales]
    best = int(np.argmax(rooms))
    return scales[best] if rooms[best] > ROOM else None


def keeps_away(case: LeakyCase, scale: np.float32, wanted: CodeTable) -> bool:
    """Whether every runtime's Sigmoid gives the codes of a table with this scale."""
    return _logistic_room(case.relative_inputs.astype(np.float64) * float(scale), wanted) > ROOM


def _logistic_room(reals: NDArray[np.float64], wanted: CodeTable) -> float:
    """How far, in steps, results are from the next edge; below 0 where one gives another code."""
    with np.errstate(over="ignore"):
        steps = STEPS / (1 + np.exp(-reals))
    codes = wanted + 128
    above = np.where(codes == 0, np.inf, steps - (codes - 0.5))
    below = np.where(codes == STEPS - 1, np.inf, codes + 0.5 - steps)
    return float(np.minimum(above, below).min())


def concatenated_table(case: LeakyCase) -> CodeTable:
    """int64 ``(256,)``: output code for input codes -128..127 of an operand of a CONCATENATION."""
    factor = case.scale_in * (np.float32(1) / case.scale_out)
    codes: NDArray[np.float32] = np.arange(256, dtype=np.float32)
    steps = codes * factor + np.float32(-(case.zero_point_in + UINT8)) * factor
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.trunc(steps + np.copysign(np.float64(0.5), steps))
        return case.outputs(np.where(np.abs(rounded) < BEYOND, rounded, -BEYOND).astype(np.int64))


def fitted_scale(case: LeakyCase, wanted: CodeTable) -> np.float32 | None:
    """The scale with which float32 arithmetic, half to even, gives ``wanted``.

    Returns:
        The tensor's own where it does, else the one that keeps all 256 results furthest from every edge; None where
        none does.
    """
    one, x = np.float32(1), case.relative_inputs.astype(np.float64)
    if np.array_equal(float_table(case, FloatForm(case.scale_in, one)), wanted):
        return case.scale_in
    low, high = edges(case, wanted)
    factor = safest_factor(x[x != 0], low[x != 0], high[x != 0])
    if factor is None:
        return None
    scale = np.float32(factor * float(case.scale_out))
    return scale if np.array_equal(float_table(case, FloatForm(scale, one)), wanted) else None


def exponentials(scale: np.float32) -> NDArray[np.float32]:
    """float32 ``(256,)`` by distance from the largest code, as C's ``expf`` gives them; ``scale`` times ``beta``."""
    with np.errstate(over="ignore"):
        steps = np.float32(-scale) * np.arange(256).astype(np.float32)
    return np.exp(steps.astype(np.float64)).astype(np.float32)


def hard_swish_table(case: LeakyCase) -> CodeTable:
    """int64 ``(256,)``: output code for input codes -128..127; the slope of ``case`` is not used.

    Raises:
        ValueError: the output's scale is so small that LiteRT refuses the operator.
    """
    fine, fine_scale = case.relative_inputs << 7, np.float32(case.scale_in) * np.float32(1 / 128)
    to_output, output_shift = _multiplier16(float(fine_scale / np.float32(case.scale_out)))
    to_thirds, shift = _multiplier16(float(fine_scale / (np.float32(3) / np.float32(UNIT))))
    if output_shift > 0:
        raise ValueError(f"the output's scale {case.scale_out} is below a 128th of the input's {case.scale_in}")
    scaled = _int16(fine << min(shift - 1, 32)) if shift > 0 else fine  # beyond 32 bits all saturate
    thirds = high_product(scaled, to_thirds, bits=15)
    thirds = _int16(_int16(thirds) << 1) if shift > 0 else _divided16(_int16(thirds), -shift)
    product = ((thirds + UNIT) >> 1) * _int16(high_product(fine, to_output, bits=15))
    steps = _int16(np.sign(product) * (np.abs(product) >> 15))
    return case.outputs(_divided16(steps, -output_shift))


def _multiplier16(factor: float) -> tuple[int, int]:
    """``factor`` as ``multiplier * 2^(shift - 15)``, the multiplier rounded to 31 bits first and then to 15."""
    wide, shift = quantized_multiplier(factor)
    return min((wide + UNIT) >> 16, INT16.max), shift


def _int16(values: Integers) -> Integers:
    """Values that saturate where 16 bits end."""
    return np.asarray(np.clip(values, INT16.min, INT16.max))


def _divided16(values: Integers, bits: int) -> Integers:
    """``divided``; the kernel's 16-bit mask makes the sign of it beyond 15 bits, and 1 of 0."""
    return np.where(values < 0, -1, 1) if bits > 15 else divided(values, bits)


def _inverse_roots(x: Integers, case: LeakyCase) -> Integers:
    """Of codes above the zero-point; the highest code elsewhere, as for 0: LiteRT stops at numbers below."""
    factor = 1 / float(np.sqrt(np.float32(case.scale_in)) * np.float32(case.scale_out))
    fraction, shift = math.frexp(factor)
    steps = np.full(256, 512, np.int64)
    for place in np.flatnonzero(x > 0):
        root, root_shift = _inverse_root(int(x[place]))
        fine = rescaled(np.array([1]), math.ldexp(root / (1 << 31), 20 - root_shift))
        steps[place] = rescaled(fine, math.ldexp(fraction, shift - 20))[0]
    return steps


def _inverse_root(value: int) -> tuple[int, int]:
    """``1 / sqrt(value)`` as ``multiplier / 2^(31 + shift)``."""
    if value == 1:
        return (1 << 31) - 1, 0
    pairs = (31 - value.bit_length()) // 2 - 1
    shift, half = 11 - pairs, (((value << 2 * pairs) >> 1) + 1) >> 1
    x = 1 << 28
    for _ in range(ROOT_STEPS):
        cube = high_number(high_number(x, x), x) << 6
        x = (high_number(3 << 27, x) - high_number(half, cube)) << 3
    x = high_number(x, 1518500250)  # sqrt(1/2)
    return (x << -shift, 0) if shift < 0 else (x, shift)


def requantized_table(op: str, case: LeakyCase, *, changes_type: bool, count: int) -> CodeTable:
    """``function_table`` of a QUANTIZE or LEAKY_RELU: XNNPACK's where it takes it, between equal types alone.

    The built-in QUANTIZE rounds halves up in blocks of 16 of ``count`` values, and away from zero behind them.
    """
    table = None if changes_type else xnnpack_table(case)
    return rescaled_table(op, case, halves_up=op == "QUANTIZE" and count >= BLOCK) if table is None else table


def rescaled_table(op: str, case: LeakyCase, *, halves_up: bool = False) -> CodeTable:
    """``function_table`` of a built-in QUANTIZE, LEAKY_RELU or RELU, which is not clamped to its bounds.

    ``halves_up`` is how the second rounding takes halves, else away from zero.
    """
    if op == "LEAKY_RELU":
        (table,) = prelu_tables(case, np.ones(1, np.int64), case.slope)
        return np.asarray(table)
    with np.errstate(over="ignore"):
        narrow = np.float32(case.scale_in) / np.float32(case.scale_out)
    factor = float(case.scale_in) / float(case.scale_out) if op == "QUANTIZE" else float(narrow)
    return case.outputs(rescaled(case.relative_inputs, factor, halves_up=halves_up))


def prelu_tables(case: LeakyCase, slopes: Integers, slope_scale: np.float32) -> Integers:
    """int64 ``(n, 256)``: output code for input codes -128..127 by slope, int64 ``(n,)`` less its zero-point."""
    x = case.relative_inputs
    with np.errstate(over="ignore"):
        narrow = np.float32(case.scale_in) / np.float32(case.scale_out)
        sloped = np.float32(case.scale_in) * np.float32(slope_scale) / np.float32(case.scale_out)
    below = rescaled(x * slopes[:, None], float(sloped))
    return case.outputs(np.where(x >= 0, rescaled(x, float(narrow)), below))


def rescaled(values: Integers, factor: float, *, halves_up: bool = False) -> Integers:
    """``values * factor`` by a 31-bit multiplier, to nearest, then by a power of two, halves away from zero or up.

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
    return np.asarray((values + (INT32 >> 1)) % INT32 - (INT32 >> 1))


def high_product(values: Integers, multiplier: int | Integers, *, bits: int = 31) -> Integers:
    """``values * multiplier / 2^bits``, to nearest, halves of negative ones towards zero."""
    products, half = values * multiplier, 1 << (bits - 1)
    high = np.where(products >= 0, products + half, products + 1 - half)
    return np.asarray(np.sign(high) * (np.abs(high) >> bits))


def high_number(a: int, b: int) -> int:
    """``high_product`` of two numbers."""
    return int(high_product(np.array(a, np.int64), b))


def divided(values: Integers, bits: int | Integers) -> Integers:
    """``values / 2^bits``, halves away from zero."""
    mask = (np.int64(1) << bits) - 1
    return np.asarray((values >> bits) + ((values & mask) > (mask >> 1) + (values < 0)))
