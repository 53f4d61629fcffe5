"""Clamps, Pads and enlargements between a pair work on codes; whatever is none of that kind stays, with the reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.passes.codes import ClampCodes, PadCodes, RepeatPixels
from tests.converters.passes.networks import assert_bits_stay, assert_declined, kinds, parse, rewritten, run

KEPT = {"x": ("kept", None), "y": ("kept", None)}
CLAMP = """g (uint8[1,2,32,32] x) => (uint8[1,2,32,32] y)
<float s = {SCALE}, uint8 z = {ZERO}, float s2 = {OTHER}, float low = {LOW}, float high = {HIGH}>
{ f = DequantizeLinear(x, s, z)  c = Clip(f, low, high)  y = QuantizeLinear(c, s2, z) }"""
CLAMPED = {"SCALE": 0.0272, "ZERO": 0, "OTHER": 0.0272, "LOW": 0, "HIGH": 6}
PAD = """g (CODES[1,2,3,4] x) => (CODES[a,b,c,d] y)
<float s = {SCALE}, CODES z = {ZERO}, float s2 = {OTHER}, int64[8] pads = {EDGES}, float value = {VALUE}>
{ f = DequantizeLinear(x, s, z)  p = Pad(f, pads, value)  y = QuantizeLinear(p, s2, z) }"""
PADDED = {"SCALE": 0.05, "ZERO": 7, "OTHER": 0.05, "EDGES": "0,0,1,0,0,0,2,1", "VALUE": 0, "CODES": "uint8"}
RESIZE = """g (uint8[BATCH,CHANNELS,HEIGHT,4] x) => (uint8[a,b,c,d] y)
<float s = {0.05}, float s2 = {OTHER}, uint8 z = {7}, float[4] scales = {1, 1, FACTORS}>
{
  f = DequantizeLinear(x, s, z)
  r = Resize<mode = "MODE", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">(f, , scales)
  y = QuantizeLinear(r, s2, z)
}"""
RESIZED = {"BATCH": 1, "CHANNELS": 3, "HEIGHT": 5, "OTHER": 0.05, "FACTORS": "2, 2", "MODE": "nearest"}


@given(
    scale=st.floats(2**-10, 1, width=32),
    zero=st.integers(0, 255),
    bounds=st.tuples(st.floats(-8, 8, width=32), st.floats(-8, 8, width=32)).map(sorted),
)
def test_every_clamped_code_is_the_same(scale: float, zero: int, bounds: list[float]) -> None:
    numbers = {"SCALE": scale, "OTHER": scale, "ZERO": zero, "LOW": bounds[0], "HIGH": bounds[1]}
    assert kinds(assert_bits_stay(ClampCodes(), lambda: parse(CLAMP, **numbers))) == "Clip"


@pytest.mark.parametrize(
    ("clip", "expected"), [("Clip(f, low)", (0, 255)), ("Clip(f, , high)", (0, 221)), ("Clip(f)", (0, 255))]
)
def test_a_bound_may_be_left_out(clip: str, expected: tuple[int, int]) -> None:
    model = parse(CLAMP.replace("Clip(f, low, high)", clip), **CLAMPED)
    assert ClampCodes()(model).modified
    (codes,) = run(model)
    assert (codes.min(), codes.max()) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(CLAMP.replace("OTHER", "0.03"), "it changes scale or zero-point", id="requantised"),
        pytest.param(
            CLAMP.replace("f, low", "f, l").replace("c =", "l = Exp(low) c ="), "its bounds are computed", id="computed"
        ),
        pytest.param(
            CLAMP.replace("y = Q", "e = Exp(c) y = Q"),
            "not between one DequantizeLinear and one QuantizeLinear that nothing else reads",
            id="read twice",
        ),
    ],
)
def test_other_clamps_stay_with_the_reason(text: str, reason: str) -> None:
    assert_declined(ClampCodes(), parse(text, **CLAMPED), reason)


@given(
    scale=st.floats(2**-10, 1, width=32),
    zero=st.integers(0, 255),
    pads=st.lists(st.integers(0, 3), min_size=8, max_size=8),
)
def test_every_padded_code_is_the_same(scale: float, zero: int, pads: list[int]) -> None:
    numbers = {**PADDED, "SCALE": scale, "OTHER": scale, "ZERO": zero, "EDGES": ",".join(map(str, pads))}
    assert kinds(assert_bits_stay(PadCodes(), lambda: parse(PAD, **numbers))) == "Pad"


def test_no_padding_value_means_zero() -> None:
    model = parse(PAD.replace("pads, value)", "pads)"), **PADDED)
    assert PadCodes()(model).modified
    np.testing.assert_array_equal(run(model), run(parse(PAD, **PADDED)))


@pytest.mark.parametrize(
    ("text", "changes", "reason"),
    [
        pytest.param(PAD, {"OTHER": 0.06}, "it changes scale or zero-point", id="requantised"),
        pytest.param(PAD, {"CODES": "int8"}, "its codes are int8", id="int8 codes"),
        pytest.param(PAD, {"VALUE": 1}, "it pads with another value than 0", id="another value"),
        pytest.param(PAD.replace("Pad(", 'Pad<mode = "edge">('), {}, "it does not pad with a constant", id="edges"),
        pytest.param(
            PAD.replace("y = Q", "e = Exp(p) y = Q"), {}, "one QuantizeLinear that nothing else reads", id="read twice"
        ),
    ],
)
def test_other_pads_stay_with_the_reason(text: str, changes: dict[str, Any], reason: str) -> None:
    assert_declined(PadCodes(), parse(text, **PADDED | changes), reason)


@settings(max_examples=20)
@given(
    factors=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    channels=st.integers(1, 9),
    batch=st.sampled_from([1, 2, "N"]),
)
def test_every_repeated_code_is_the_same(factors: tuple[int, int], channels: int, batch: int | str) -> None:
    numbers = {**RESIZED, "FACTORS": f"{factors[0]}, {factors[1]}", "CHANNELS": channels, "BATCH": batch}
    model = assert_bits_stay(RepeatPixels(), lambda: parse(RESIZE, **numbers))
    assert kinds(model) == "Transpose Concat Reshape Concat Reshape Transpose"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"FACTORS": "1.4, 2"}, "not whole factors", id="a fraction"),
        pytest.param({"MODE": "linear"}, "it is {'mode': 'linear'", id="bilinear"),
        pytest.param({"OTHER": 0.06}, "it changes scale or zero-point", id="requantised"),
        pytest.param({"HEIGHT": "H"}, "its picture has no fixed size", id="any size"),
    ],
)
def test_other_enlargements_stay_with_the_reason(changes: dict[str, Any], reason: str) -> None:
    assert_declined(RepeatPixels(), parse(RESIZE, **RESIZED | changes), reason)


@pytest.mark.parametrize(
    ("text", "numbers", "title"),
    [(CLAMP, CLAMPED, "clamp codes"), (PAD, PADDED, "pad codes"), (RESIZE, RESIZED, "repeat pixels")],
    ids=["clamp", "pad", "enlargement"],
)
def test_the_pipeline_keeps_the_tensors_on_both_sides(text: str, numbers: dict[str, Any], title: str) -> None:
    assert rewritten(parse(text, **numbers), "x", "y") == ((title,), KEPT)
