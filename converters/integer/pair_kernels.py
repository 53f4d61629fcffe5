"""How runtimes compute a quantised sum or product in float32: every order of evaluation that is known, in numpy.

A graph says ``DequantizeLinear x 2 -> Add -> QuantizeLinear``; which operations that becomes is the runtime's own:

* ONNX Runtime's QLinearAdd on x86 adds ``zp_out - (r_a * zp_a + r_b * zp_b)``, ``r_b * b`` and ``r_a * a``, where
  ``r_x = s_x / s_out``, with fused multiply-adds (AVX2) or without (SSE2, another order), and rounds the sum with its
  zero-point half to even. int8 codes are turned into uint8 codes there, unless a session option forbids it, and an
  operator between int8 and uint8 codes is not fused;
* on Arm it multiplies by 22-bit integers and rounds half away from the zero-point;
* elsewhere (wasm), and wherever nothing is fused, operands are dequantised, added and divided by the output's scale.

QLinearMul multiplies the product of centred codes by ``s_a * s_b / s_out``. There is no QLinearSub: a SUB always runs
unfused. These functions say what such kernels give for a form's numbers; ``converters.integer.pair_search`` looks for
numbers with which all agree.

Source of the orders: microsoft/onnxruntime, ``onnxruntime/core/mlas/lib`` (qladd.cpp, qlmul.cpp,
intrinsics/avx2/qladd_avx2.cpp).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters.integer.functions import Integers

if TYPE_CHECKING:
    from converters.integer.pairs import PairCase, PairOp

Floats = NDArray[np.floating[Any]]
Kernel = Callable[["Forms", Integers, Integers], Floats]

UNFUSED = "float32"


@dataclass(frozen=True, slots=True)
class Forms:
    """The numbers of one or several Q/DQ forms of an operator, in the order in which the graph has the operands."""

    scale_a: Floats  # float32 ``(forms, 1)``, of the first operand's DequantizeLinear
    scale_b: Floats  # the same of the second
    scale_out: np.float32  # of the QuantizeLinear
    zero_points: tuple[int, int, int]  # of the first, the second and the output

    @property
    def swapped(self) -> Forms:
        """The same with the operands exchanged."""
        z = self.zero_points
        return Forms(self.scale_b, self.scale_a, self.scale_out, (z[1], z[0], z[2]))

    def pick(self, chosen: Any) -> Forms:
        """Some of the forms."""
        return Forms(self.scale_a[chosen], self.scale_b[chosen], self.scale_out, self.zero_points)


@dataclass(frozen=True, slots=True)
class Kernels:
    """What is known of one operator on one dtype."""

    required: Mapping[str, Kernel]  # name -> kernel that x86 with AVX2 may run; every pair must be right with it
    others: Mapping[str, Kernel]  # those with which as many pairs as possible should be

    @property
    def all(self) -> Mapping[str, Kernel]:
        """Both, the required ones first."""
        return {**self.required, **self.others}


def kernels_of(case: PairCase) -> Kernels:
    """The kernels: functions from forms and codes ``(pairs,)`` to unclamped output codes ``(forms, pairs)``."""
    (first, kernel), *rest = KERNELS[case.op].items()
    required, others = {first: kernel}, dict(rest)
    if case.lowest < 0 and case.op != "SUB":
        required[f"{first}, as uint8"] = partial(_as_uint8, kernel)
        required[UNFUSED] = others.pop(UNFUSED)
        others.update(
            {f"{name}, as uint8": partial(_as_uint8, kernel) for name, kernel in rest if name.startswith("x86")}
        )
    return Kernels(required, others)


def _as_uint8(kernel: Kernel, forms: Forms, a: Integers, b: Integers) -> Floats:
    """int8 codes computed as uint8 codes."""
    za, zb, zc = forms.zero_points
    shifted = Forms(forms.scale_a, forms.scale_b, forms.scale_out, (za + 128, zb + 128, zc + 128))
    return np.asarray(kernel(shifted, a + 128, b + 128) - 128, np.float32)


def _fused(forms: Forms, a: Integers, b: Integers, *, contracted: bool) -> Floats:
    """AVX2; compilers may contract the first product of the fixed part, too."""
    ratio_a, ratio_b, za, zb, zc = _ratios(forms)
    fixed = zc - (_fma(ratio_a, za, ratio_b * zb) if contracted else ratio_a * za + ratio_b * zb)
    return np.rint(_fma(ratio_a, _reals(a), _fma(ratio_b, _reals(b), fixed)))


def _plain_sum(forms: Forms, a: Integers, b: Integers, *, dense: bool) -> Floats:
    """SSE2, whose order depends on whether one operand is a single number."""
    ratio_a, ratio_b, za, zb, zc = _ratios(forms)
    fixed = zc - (ratio_a * za + ratio_b * zb)
    x, y = _reals(a) * ratio_a, _reals(b) * ratio_b
    return np.rint((fixed + x) + y if dense else (fixed + y) + x)


def _fixed_point(forms: Forms, a: Integers, b: Integers) -> Floats:
    """Arm: 22-bit multipliers, half away from the zero-point."""
    ratio_a, ratio_b, *_ = _ratios(forms)
    za, zb, zc = forms.zero_points
    shift = 22 - np.frexp(np.maximum(ratio_a, ratio_b))[1].astype(np.int64)
    m_a, m_b = (np.rint(np.ldexp(ratio, shift)).astype(np.int64) for ratio in (ratio_a, ratio_b))
    total = (a - za) * m_a + (b - zb) * m_b
    steps = np.sign(total) * ((np.abs(total) + (1 << (shift - 1))) >> shift)
    return np.asarray(steps + zc, np.float32)


def _unfused_sum(forms: Forms, a: Integers, b: Integers, *, sign: int = 1, late: bool = False) -> Floats:
    """Dequantised, added, divided; ``late``: the zero-point is added before the rounding."""
    za, zb, zc = (np.float32(z) for z in forms.zero_points)
    x, y = (_reals(a) - za) * forms.scale_a, (_reals(b) - zb) * forms.scale_b
    steps = (x + sign * y) / forms.scale_out
    return np.rint(steps + zc) if late else np.rint(steps) + zc


def _product(forms: Forms, a: Integers, b: Integers, *, contracted: bool) -> Floats:
    za, zb, zc = forms.zero_points
    products = ((a - za) * (b - zb)).astype(np.float32)
    factor = forms.scale_a * forms.scale_b / forms.scale_out
    return np.rint(_fma(factor, products, np.float32(zc)) if contracted else products * factor + np.float32(zc))


def _unfused_product(forms: Forms, a: Integers, b: Integers, *, late: bool) -> Floats:
    za, zb, zc = (np.float32(z) for z in forms.zero_points)
    steps = ((_reals(a) - za) * forms.scale_a) * ((_reals(b) - zb) * forms.scale_b) / forms.scale_out
    return np.rint(steps + zc) if late else np.rint(steps) + zc


def _ratios(forms: Forms) -> tuple[Floats, Floats, np.float32, np.float32, np.float32]:
    za, zb, zc = (np.float32(z) for z in forms.zero_points)
    return forms.scale_a / forms.scale_out, forms.scale_b / forms.scale_out, za, zb, zc


def _reals(codes: Integers) -> Floats:
    return codes.astype(np.float32)


def _fma(x: Any, y: Any, z: Any) -> Floats:
    """``x * y + z`` rounded once: the product is exact in float64, and the sum nearly."""
    return (np.asarray(x, np.float64) * np.asarray(y, np.float64) + np.asarray(z, np.float64)).astype(np.float32)


KERNELS: Mapping[PairOp, Mapping[str, Kernel]] = {
    "ADD": {
        "x86 with AVX2": lambda f, a, b: _fused(f, a, b, contracted=True),
        "x86 with AVX2, another compiler": lambda f, a, b: _fused(f, a, b, contracted=False),
        "x86 without AVX2": lambda f, a, b: _plain_sum(f, a, b, dense=True),
        "x86 without AVX2, one number added": lambda f, a, b: _plain_sum(f, a, b, dense=False),
        "Arm": _fixed_point,
        UNFUSED: _unfused_sum,
        "wasm": lambda f, a, b: _unfused_sum(f, a, b, late=True),
    },
    "SUB": {UNFUSED: lambda f, a, b: _unfused_sum(f, a, b, sign=-1)},
    "MUL": {
        "x86": lambda f, a, b: _product(f, a, b, contracted=False),
        "Arm": lambda f, a, b: _product(f, a, b, contracted=True),
        UNFUSED: lambda f, a, b: _unfused_product(f, a, b, late=False),
        "wasm": lambda f, a, b: _unfused_product(f, a, b, late=True),
    },
}
