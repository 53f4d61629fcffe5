"""Transposes that undo each other cancel, and shuffles in many steps become one choice of channels; others stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.passes import follow_twins, run_pipeline
from converters.passes.movements import CancelTransposes, ChannelChoice
from converters.spec import TensorTwin
from tests.converters.passes.networks import (
    assert_bits_stay,
    assert_declined,
    assert_equal,
    kinds,
    parse,
    rewritten,
    run,
)

if TYPE_CHECKING:
    import onnx_ir as ir

TRANSPOSES = """
g (uint8[1,2,3,4] x) => (float[1,2,3,4] y)
<float s = {0.05}, uint8 z = {125}>
{
  d = DequantizeLinear(x, s, z)
  r = Relu(d)
  a = Transpose<perm = [0, 2, 3, 1]>(r)
  q = QuantizeLinear(a, s, z)
  e = DequantizeLinear(q, s, z)
  b = Transpose<perm = PERM>(e)
  y = Neg(b)
}"""
INVERSE = "[0, 3, 1, 2]"
# [N, H, W, C] as groups x C / groups, exchanged, and split in two, as TFLite's operators are written in NCHW
SHUFFLE = """g (uint8[BATCH,CHANNELS,2,3] x) => (uint8[a,b,c,d] y, uint8[e,f,g,h] w)
<float s = {0.05}, float s2 = {OTHER}, uint8 z = {7}, int64[5] wide = {LEAD,2,3,GROUPS,EACH},
 int64[4] flat = {LEAD,2,3,CHANNELS}, int64[2] halves = {HALF,HALF}>
{
  a = DequantizeLinear(x, s, z)
  b = Transpose<perm = [0, 2, 3, 1]>(a)
  c = Reshape(b, wide)
  grouped = QuantizeLinear(c, s, z)
  d = DequantizeLinear(grouped, s, z)
  e = Transpose<perm = [0, PERM]>(d)
  exchanged = QuantizeLinear(e, s2, z)
  f = DequantizeLinear(exchanged, s, z)
  g = Reshape(f, flat)
  h = Transpose<perm = [0, 3, 1, 2]>(g)
  shuffled = QuantizeLinear(h, s, z)
  i = DequantizeLinear(shuffled, s, z)
  j, k = Split<axis = 1>(i, halves)
  y = QuantizeLinear(j, s, z)
  w = QuantizeLinear(k, s, z)
}"""
NUMBERS = {
    "BATCH": 1, "CHANNELS": 12, "GROUPS": 2, "EACH": 6, "HALF": 6, "LEAD": 0, "OTHER": 0.05, "PERM": "1, 2, 4, 3",
}  # fmt: skip


def shuffle(**changes: object) -> ir.Model:
    return parse(SHUFFLE, **NUMBERS | changes)


@settings(max_examples=20)
@given(groups=st.integers(2, 4), each=st.integers(1, 3).map(lambda n: 2 * n), batch=st.sampled_from([1, 2, "N"]))
def test_every_shuffle_gives_the_same_codes(groups: int, each: int, batch: int | str) -> None:
    channels = groups * each
    numbers = {"GROUPS": groups, "EACH": each, "CHANNELS": channels, "HALF": channels // 2, "BATCH": batch}
    assert_bits_stay(ChannelChoice(), lambda: shuffle(**numbers))


def test_both_halves_are_one_gather_each_and_what_lay_between_is_told() -> None:
    model = shuffle()
    kept = ("kept", None)
    fates = {"x": kept, "shuffled": ("removed", "channel choice"), "y": kept, "w": kept}
    assert rewritten(model, "x", "shuffled", "y", "w") == (("channel choice",), fates)
    assert kinds(model) == "Gather Gather"


def test_neighbouring_channels_are_a_slice() -> None:
    model = assert_bits_stay(ChannelChoice(), lambda: shuffle(PERM="1, 2, 3, 4"))
    assert kinds(model) == "Slice Slice"


def test_places_that_move_too_are_left_alone() -> None:
    reason = "do more than to choose channels"
    assert_declined(ChannelChoice(), shuffle(PERM="2, 1, 4, 3"), reason, reason)


def test_a_change_of_scale_ends_a_chain() -> None:
    model = shuffle(OTHER=0.06)
    run_pipeline(model, "cpu")
    assert "Gather" not in kinds(model)
    assert_equal(run(model), run(shuffle(OTHER=0.06)))


def test_cancelled_transposes_tell_where_codes_went() -> None:
    model = parse(TRANSPOSES, PERM=INVERSE)
    changes = CancelTransposes().changes(model)
    moves = [move for change in changes for move in change.moved]
    twins = {"t": TensorTwin("q", "same", 128)}
    found = follow_twins(twins, "cancel transposes", moves, model.graph)["t"]
    assert found == TensorTwin("q/untransposed", "NHWC->NCHW", 128)


def test_the_raw_head_keeps_its_name_when_transposes_cancel() -> None:
    text = TRANSPOSES.replace("b = Transpose", "head = Transpose").replace("Neg(b)", "Neg(head)")
    model = parse(text, PERM=INVERSE)
    assert CancelTransposes()(model).modified
    assert kinds(model) == "DequantizeLinear Relu QuantizeLinear DequantizeLinear Neg"
    assert "head" in {value.name for node in model.graph for value in node.outputs}


def test_a_head_between_bare_transposes_is_left_alone() -> None:
    text = """g (float[1,2,3,4] x) => (float[1,2,3,4] y)
    { a = Transpose<perm = [0, 2, 3, 1]>(x)  head = Transpose<perm = [0, 3, 1, 2]>(a)  y = Neg(head) }"""
    model = parse(text)
    assert not CancelTransposes()(model).modified


def test_inverse_transposes_cancel_across_a_quantisation() -> None:
    model = assert_bits_stay(CancelTransposes(), lambda: parse(TRANSPOSES, PERM=INVERSE))
    assert kinds(model) == "DequantizeLinear Relu QuantizeLinear DequantizeLinear Neg"


@pytest.mark.parametrize(
    ("outputs", "perm", "reason"),
    [
        pytest.param("(float[1,4,2,3] y)", "[0, 2, 3, 1]", "not its inverse", id="not inverse"),
        pytest.param("(float[1,2,3,4] y, uint8[1,3,4,2] q)", INVERSE, "read elsewhere", id="another reader"),
    ],
)
def test_other_transposes_stay(outputs: str, perm: str, reason: str) -> None:
    text = TRANSPOSES.replace("(float[1,2,3,4] y)", outputs)
    assert_declined(CancelTransposes(), parse(text, PERM=perm), reason)
