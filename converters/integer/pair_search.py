"""Numbers with which a fused ADD, SUB or MUL gives XNNPACK's codes for every pair, in every runtime's float32.

A graph says ``DequantizeLinear x 2 -> Add -> QuantizeLinear``; which operations that becomes is the runtime's own.
``KERNELS`` has every order of evaluation that is known:

* ONNX Runtime's QLinearAdd on x86 adds ``zp_out - (r_a * zp_a + r_b * zp_b)``, ``r_b * b`` and ``r_a * a``, where
  ``r_x = s_x / s_out``, with fused multiply-adds (AVX2) or without (SSE2, another order), and rounds the sum with its
  zero-point half to even. int8 codes are turned into uint8 codes there, unless a session option forbids it, and an
  operator between int8 and uint8 codes is not fused;
* on Arm it multiplies by 22-bit integers and rounds half away from the zero-point;
* elsewhere (wasm), and wherever nothing is fused, operands are dequantised, added and divided by the output's scale.

QLinearMul multiplies the product of centred codes by ``s_a * s_b / s_out``. There is no QLinearSub: a SUB always runs
unfused. Source of the orders: microsoft/onnxruntime, ``onnxruntime/core/mlas/lib`` (qladd.cpp, qlmul.cpp,
intrinsics/avx2/qladd_avx2.cpp).

XNNPACK's result is linear in both codes before it is rounded (for a product: in their product), and so is a runtime's;
they round near-ties alike if the runtime's factors are chosen well. The factors tried are the file's own; those of
XNNPACK's integer multipliers, a few float32 steps around them; and points beyond these, as seen from the file's own,
where the rounding of the multipliers decides ties. The zero-points may move, too, where that changes no sum: with codes
counted from lower ones, ties go up more easily.

A form must hold for the required kernels, those of x86 with AVX2; among such forms the one that holds for most other
kernels is taken, and among these the one that stays furthest from every edge. Nothing is assumed: a form that is
returned was tried on all pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters.integer.functions import Integers
from converters.integer.pairs import Affine, all_codes, product_factor, sum_multipliers, xnnpack_codes

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def kernels_of(case: PairCase) -> tuple[dict[str, Kernel], int]:
    """The kernels: functions from forms and codes ``(pairs,)`` to unclamped output codes ``(forms, pairs)``.

    The second number says how many of them, the first ones, x86 with AVX2 may run: with those every pair must be right,
    with the others as many as possible.
    """
    kernels = dict(KERNELS[case.op])
    if case.lowest == 0 or case.op == "SUB":
        return kernels, 1
    first = next(iter(kernels))
    for name in [name for name in kernels if name.startswith("x86")]:
        kernels[f"{name}, as uint8"] = partial(_as_uint8, kernels[name])
    required = (first, f"{first}, as uint8", UNFUSED)
    return {name: kernels[name] for name in (*required, *kernels)}, len(required)


def _as_uint8(kernel: Kernel, forms: Forms, a: Integers, b: Integers) -> Floats:
    """int8 codes computed as uint8 codes."""
    za, zb, zc = forms.zero_points
    shifted = replace(forms, zero_points=(za + 128, zb + 128, zc + 128))
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


def _product(forms: Forms, a: Integers, b: Integers, *, contracted: bool) -> Floats:
    za, zb, zc = forms.zero_points
    products = ((a - za) * (b - zb)).astype(np.float32)
    factor = forms.scale_a * forms.scale_b / forms.scale_out
    return np.rint(_fma(factor, products, np.float32(zc)) if contracted else products * factor + np.float32(zc))


def _unfused(forms: Forms, a: Integers, b: Integers, *, combine: np.ufunc, late: bool = False) -> Floats:
    """Dequantised, combined, divided; ``late``: the zero-point is added before the rounding."""
    za, zb, zc = (np.float32(z) for z in forms.zero_points)
    x, y = (_reals(a) - za) * forms.scale_a, (_reals(b) - zb) * forms.scale_b
    steps = combine(x, y) / forms.scale_out
    return np.asarray(np.rint(steps + zc) if late else np.rint(steps) + zc)


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
        "x86 with AVX2": partial(_fused, contracted=True),
        "x86 with AVX2, another compiler": partial(_fused, contracted=False),
        "x86 without AVX2": partial(_plain_sum, dense=True),
        "x86 without AVX2, one number added": partial(_plain_sum, dense=False),
        "Arm": _fixed_point,
        UNFUSED: partial(_unfused, combine=np.add),
        "wasm": partial(_unfused, combine=np.add, late=True),
    },
    "SUB": {UNFUSED: partial(_unfused, combine=np.subtract)},
    "MUL": {
        "x86": partial(_product, contracted=False),
        "Arm": partial(_product, contracted=True),
        UNFUSED: partial(_unfused, combine=np.multiply),
        "wasm": partial(_unfused, combine=np.multiply, late=True),
    },
}


NEAR = 2.0**-10  # of a code: further from an edge no kernel's float32 roundings reach
SIGMOID_ERROR = 2.0**-20  # of every runtime's float32 sigmoid, and more
FEW = 128  # pairs on which all forms of a stage are tried
BEST = 24  # forms of a stage that are tried on every pair that is near an edge
PROVEN = 8  # forms of a stage that are tried on all pairs
PIVOTS = 6  # sets of zero-points
REQUIRED = 100  # points of a form that holds for the required kernels; every kernel counts one
FINE = np.array([0, *(s * k for k in (*range(1, 13), 16, 26, 41, 66, 105, 168, 268, 429, 687, 1100) for s in (1, -1))])
COARSE = np.array([0, 1, -1, 2, -2, 4, -4, 8, -8, 16, -16, 64, -64])
BEYOND = (4, 16, 64, 256, 1024, 4096)  # times the difference between XNNPACK's factors and the file's


@dataclass(frozen=True, slots=True)
class PairForm:
    """The numbers of ``DequantizeLinear x 2 -> operator -> QuantizeLinear``."""

    a: Affine  # of the DequantizeLinear of the operator's first operand
    b: Affine  # of its second
    out: Affine  # of the QuantizeLinear
    swapped: bool = False  # whether the graph has the second operand first
    failing: tuple[str, ...] = ()  # kernels with which some pair differs


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of codes and what they give."""

    a: Integers  # int64 ``(pairs,)``
    b: Integers  # the same
    wanted: Integers  # XNNPACK's codes

    @property
    def swapped(self) -> Pairs:
        """The same with the operands exchanged."""
        return Pairs(self.b, self.a, self.wanted)

    def pick(self, chosen: NDArray[np.int64]) -> Pairs:
        """Some of the pairs."""
        return Pairs(self.a[chosen], self.b[chosen], self.wanted[chosen])


def pairs_of(case: PairCase, a: Integers, b: Integers) -> Pairs:
    """Every pair of codes of an operator that XNNPACK takes, with the codes ``(n,)`` that either operand may have."""
    left, right = np.repeat(a, b.size), np.tile(b, a.size)
    return Pairs(left, right, xnnpack_codes(case, left, right))


def gated_pairs(case: PairCase, gate: int) -> Pairs:
    """The pairs of a MUL of codes and of their own LOGISTIC (SiLU): one for each code, two where a rounding is close.

    ``gate`` is the operand that is the LOGISTIC of the other, 0 or 1.
    """
    affine, gated = (case.a, case.b) if gate == 0 else (case.b, case.a)
    codes = all_codes(case)
    reals = (codes - gated.zero_point) * float(gated.scale)
    with np.errstate(over="ignore"):
        steps = 1 / (1 + np.exp(-reals)) / float(affine.scale) + affine.zero_point
    off = SIGMOID_ERROR / float(affine.scale)
    gates = case.clamped(np.rint(np.stack([steps - off, steps, steps + off]))).astype(np.int64)
    left, right = np.unique(np.stack([np.tile(codes, 3), gates.reshape(-1)]), axis=1)
    a, b = (right, left) if gate == 0 else (left, right)
    return Pairs(a, b, xnnpack_codes(case, a, b))


def squared_pairs(case: PairCase, codes: Integers) -> Pairs:
    """The pairs of a MUL of a tensor with itself, whose ``codes`` are XNNPACK's: each code with its own."""
    return Pairs(all_codes(case), all_codes(case), codes)


def failing_kernels(case: PairCase, form: PairForm, pairs: Pairs) -> tuple[str, ...]:
    """The kernels that give another code than XNNPACK for some pair."""
    a, b = (np.array([[affine.scale]], np.float32) for affine in (form.a, form.b))
    forms = Forms(a, b, form.out.scale, (form.a.zero_point, form.b.zero_point, form.out.zero_point))
    holds = _holds(case, *((forms.swapped, pairs.swapped) if form.swapped else (forms, pairs)))
    return tuple(name for name, good in zip(kernels_of(case)[0], holds[:, 0], strict=True) if not good)


def is_proven(case: PairCase, form: PairForm, pairs: Pairs) -> bool:
    """Whether the form gives XNNPACK's codes for all pairs with the required kernels."""
    kernels, required = kernels_of(case)
    return not set(list(kernels)[:required]) & set(failing_kernels(case, form, pairs))


def search_form(case: PairCase, pairs: Pairs, *, may_swap: bool) -> PairForm | None:
    """The best form, or None where the required kernels have none; ``pairs`` are all that may occur."""
    own = PairForm(case.a, case.b, case.out)
    failing = failing_kernels(case, own, pairs)
    if not failing:
        return own
    near = pairs.pick(_near_edges(case, pairs))
    count = len(kernels_of(case)[0])
    best, score = (own, count - len(failing) + REQUIRED * is_proven(case, own, pairs))
    for forms in _stages(case):
        form, points = _best_of(case, forms, near, pairs)
        if points > score:
            best, score = form, points
        if may_swap and case.op == "ADD":
            form, points = _best_of(case, forms.swapped, near.swapped, pairs.swapped)
            if points > score:
                best, score = replace(form, a=form.b, b=form.a, swapped=True), points
        if score == REQUIRED + count:
            break
    if score < REQUIRED:
        return None
    proven = replace(best, failing=failing_kernels(case, best, pairs))
    return proven if is_proven(case, proven, pairs) else None


def _best_of(case: PairCase, forms: Forms, near: Pairs, pairs: Pairs) -> tuple[PairForm, int]:
    """The best of several forms and its score, tried on the pairs that are near an edge, then on all."""
    few = near.pick(np.linspace(0, near.a.size - 1, min(FEW, near.a.size)).astype(np.int64))
    forms = forms.pick(np.argsort(-_scores(case, forms, few), kind="stable")[:BEST])
    scores = _scores(case, forms, near)
    ranking = np.lexsort((-_room(case, forms, near), -scores))
    (za, zb, zc), scale_out = forms.zero_points, forms.scale_out
    several = [
        PairForm(Affine(np.float32(scale_a), za), Affine(np.float32(scale_b), zb), Affine(scale_out, zc))
        for scale_a, scale_b in zip(forms.scale_a[ranking, 0], forms.scale_b[ranking, 0], strict=True)
    ]
    scores = scores[ranking]
    for form, score in zip(several[:PROVEN], scores, strict=False):
        # one that went far may miss a pair that is not near
        if score >= REQUIRED and is_proven(case, form, pairs):
            return form, int(score)
    return several[0], int(scores[0]) % REQUIRED


def _scores(case: PairCase, forms: Forms, pairs: Pairs) -> Integers:
    holds, (_, required) = _holds(case, forms, pairs), kernels_of(case)
    return np.asarray(holds.sum(0) + REQUIRED * holds[:required].all(0), np.int64)


def _holds(case: PairCase, forms: Forms, pairs: Pairs) -> NDArray[np.bool_]:
    """Bool ``(kernels, forms)``: whether all pairs come out as wanted; both have the graph's order of operands."""
    kernels, _ = kernels_of(case)
    with np.errstate(over="ignore", invalid="ignore"):
        codes = (case.clamped(kernel(forms, pairs.a, pairs.b)) for kernel in kernels.values())
        return np.array([(of_kernel == pairs.wanted).all(1) for of_kernel in codes])


def _room(case: PairCase, forms: Forms, near: Pairs) -> NDArray[np.float64]:
    """float64 ``(forms,)``: the smallest distance of any result from an edge between codes."""
    x = (near.a - forms.zero_points[0]) * forms.scale_a.astype(np.float64)
    y = (near.b - forms.zero_points[1]) * forms.scale_b.astype(np.float64)
    real = x * y if case.op == "MUL" else x - y if case.op == "SUB" else x + y
    return np.asarray(_distance(real / float(forms.scale_out)).min(1, initial=0.5))


def _near_edges(case: PairCase, pairs: Pairs) -> Integers:
    """Which pairs a kernel's float32 roundings could decide."""
    x, y = pairs.a - case.a.zero_point, pairs.b - case.b.zero_point
    if case.op == "MUL":
        steps = (x * y) * float(product_factor(case))
    else:
        m = sum_multipliers(case)
        steps = (x * m.m_a + y * m.m_b) * 2.0**-m.shift
    inside = np.abs(steps + case.out.zero_point - case.lowest - 127.5) < 129
    return np.flatnonzero(inside & (_distance(steps) < NEAR))


def _distance(steps: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    return np.asarray(np.abs(steps - np.floor(steps) - 0.5))


def _stages(case: PairCase) -> Iterator[Forms]:
    """Sets of forms, the likeliest first."""
    own = (float(case.a.scale), float(case.b.scale))
    zero_points = (case.a.zero_point, case.b.zero_point, case.out.zero_point)
    if case.op == "MUL":
        yield _grid(case, own, FINE, zero_points)
        return
    m = sum_multipliers(case)
    exact = tuple(float(case.out.scale) * abs(factor) / 2.0**m.shift for factor in (m.m_a, m.m_b))
    pivots = _pivots(case)
    for pivot in pivots:
        yield _grid(case, exact, FINE, pivot)
    for times in BEYOND:
        beyond = tuple(s + times * (e - s) for s, e in zip(own, exact, strict=True))
        for pivot in pivots[:3]:
            yield _grid(case, beyond, COARSE * max(1, times // 16), pivot)
    yield _grid(case, exact, np.arange(-40, 41), zero_points)


def _grid(case: PairCase, centre: tuple[float, ...], steps: Integers, zero_points: tuple[int, int, int]) -> Forms:
    """All pairs of scales some float32 steps from a centre."""
    scales = []
    for number in centre:
        bits = int(np.float32(number).view(np.int32)) + steps
        scales.append(np.clip(bits, 1, 0x7F7FFFFF).astype(np.int32).view(np.float32))
    a, b = (grid.reshape(-1, 1) for grid in np.meshgrid(*scales, indexing="ij"))
    return Forms(a, b, case.out.scale, zero_points)


def _pivots(case: PairCase) -> list[tuple[int, int, int]]:
    """Zero-points with which all sums are the same: the file's own, then the lowest ones."""
    m, low = sum_multipliers(case), case.lowest
    moved_a, moved_b = (np.arange(low, low + 256) - affine.zero_point for affine in (case.a, case.b))
    total = moved_a[:, None] * m.m_a + moved_b[None] * m.m_b
    out = case.out.zero_point + (total >> m.shift)
    whole = (total % (1 << m.shift) == 0) & (out >= low) & (out < low + 256)
    pivots = [(int(i) + low, int(j) + low, int(out[i, j])) for i, j in zip(*np.nonzero(whole), strict=True)]
    own = (case.a.zero_point, case.b.zero_point, case.out.zero_point)
    upward = -1 if case.op == "SUB" else 1
    return sorted(pivots, key=lambda z: (z != own, z[0] + upward * z[1]))[:PIVOTS]
