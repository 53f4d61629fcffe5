"""Numbers of fused sums and products with which every pair of codes is XNNPACK's, in every known kernel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.integer.pair_search import (
    PairForm,
    failing_kernels,
    gated_pairs,
    is_proven,
    kernels_of,
    pairs_of,
    search_form,
)
from converters.integer.pairs import Affine, PairCase, PairOp, all_codes, sum_multipliers, xnnpack_codes, xnnpack_takes


def case_of(
    op: PairOp, scales: tuple[float, float, float], zero_points: tuple[int, int, int] = (128, 128, 128), lowest: int = 0
) -> PairCase:
    a, b, out = (Affine(np.float32(s), z) for s, z in zip(scales, zero_points, strict=True))
    return PairCase(op, a, b, out, lowest)


def found(case: PairCase, *, may_swap: bool = True) -> PairForm | None:
    pairs = pairs_of(case, all_codes(case), all_codes(case))
    form = search_form(case, pairs, may_swap=may_swap)
    assert form is None or is_proven(case, form, pairs)
    return form


def test_multipliers_have_21_bits() -> None:
    assert sum_multipliers(case_of("ADD", (0.5, 0.25, 1.0))).shift == 21
    m = sum_multipliers(case_of("SUB", (0.1, 0.3, 0.2)))
    assert (m.m_a, m.m_b, m.shift) == (2**19, -round(1.5 * 2**20), 20)


def test_sums_round_half_up_and_products_half_to_even() -> None:
    codes = np.array([127, 129, 131])
    half = case_of("ADD", (0.5, 0.5, 1.0))
    assert xnnpack_codes(half, codes, np.array(128)).tolist() == [128, 129, 130]
    product = case_of("MUL", (0.5, 1.0, 1.0))
    assert xnnpack_codes(product, codes, np.array(129)).tolist() == [128, 128, 130]


@pytest.mark.parametrize(
    ("op", "scales", "taken"),
    [
        ("ADD", (1.0, 2.0**-10, 1.0), True),
        ("ADD", (1.0, 2.0**-10 * 0.99, 1.0), False),
        ("SUB", (255.0, 1.0, 1.0), True),
        ("SUB", (256.0, 1.0, 1.0), False),
        ("MUL", (2.0**-8, 2.0**-8, 1.0), True),
        ("MUL", (2.0**-8, 2.0**-9, 1.0), False),
        ("MUL", (16.0, 16.0, 1.0), False),
    ],
)
def test_the_range_of_xnnpack(op: PairOp, scales: tuple[float, float, float], *, taken: bool) -> None:
    assert xnnpack_takes(case_of(op, scales)) is taken


def test_numbers_that_are_right_for_every_kernel_stay() -> None:
    case = case_of("ADD", (0.05, 0.05, 0.05), (125, 140, 168))
    assert found(case) == PairForm(case.a, case.b, case.out)


def test_scales_are_nudged_by_a_millionth() -> None:
    case = case_of("ADD", (0.0371, 0.0583, 0.0911), (125, 145, 133))
    form = found(case)
    assert form is not None
    assert form.failing == ()
    assert form.out == case.out
    assert float(form.a.scale / case.a.scale) == pytest.approx(1, abs=2e-6)
    assert float(form.b.scale / case.b.scale) == pytest.approx(1, abs=2e-6)


def test_zero_points_move_where_half_of_all_sums_are_ties() -> None:
    form = found(case_of("ADD", (0.05, 0.05, 0.1)))
    assert form is not None
    assert form.failing == ()
    assert form.a.zero_point < 128 or form.b.zero_point < 128


def test_a_product_with_ties_and_an_odd_zero_point_has_no_form() -> None:
    """QLinearMul adds the zero-point before it rounds to even."""
    assert found(case_of("MUL", (0.5, 1.0, 1.0), (128, 128, 129))) is None


def test_codes_that_a_constant_lacks_need_not_be_right() -> None:
    case = case_of("MUL", (0.5, 1.0, 1.0), (128, 128, 129))
    pairs = pairs_of(case, all_codes(case), np.array([128, 130]))
    assert search_form(case, pairs, may_swap=False) is not None


def test_int8_forms_hold_as_uint8_and_unfused_too() -> None:
    assert kernels_of(case_of("ADD", (1.0, 1.0, 1.0)))[1] == 1
    kernels, required = kernels_of(case_of("MUL", (1.0, 1.0, 1.0), lowest=-128))
    assert list(kernels)[:required] == ["x86", "x86, as uint8", "float32"]


def test_exchanged_operands_are_another_form() -> None:
    """Kernels add the second operand first."""
    case = case_of("ADD", (0.07653573, 0.017662697, 0.09159819), (64, 98, 35))
    pairs = pairs_of(case, all_codes(case), all_codes(case))
    form = search_form(case, pairs, may_swap=True)
    assert form is not None
    if form.swapped:
        straight = PairForm(form.a, form.b, form.out)
        assert failing_kernels(case, straight, pairs) != failing_kernels(case, form, pairs)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["ADD", "SUB"]),
    st.floats(-4, 1.5),
    st.floats(-4, 1.5),
    st.tuples(*[st.integers(0, 255)] * 3),
    st.sampled_from([0, -128]),
)
def test_every_form_is_proven_on_all_pairs(
    op: PairOp, log_a: float, log_b: float, zero_points: tuple[int, int, int], lowest: int
) -> None:
    """``found`` asserts it; irregular scales nearly always have a form."""
    za, zb, zc = (z + lowest for z in zero_points)
    found(case_of(op, (0.0713 * 2**log_a, 0.0713 * 2**log_b, 0.0713), (za, zb, zc), lowest))


@pytest.mark.parametrize("gate", [0, 1])
def test_a_silu_needs_its_own_pairs_alone(gate: int) -> None:
    """Scales that make thousands of ties: of all pairs some are wrong in every form, of those that occur none."""
    case = case_of("MUL", (0.1, 1 / 256, 0.06), (120, 0, 11))
    if gate == 0:
        case = replace(case, a=case.b, b=case.a)
    assert found(case) is None
    pairs = gated_pairs(case, gate)
    assert 256 <= pairs.a.size <= 300
    form = search_form(case, pairs, may_swap=False)
    assert form is not None
    assert form.failing == ()
