"""Shuffles in many steps become one choice of channels; other movements stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from converters.passes.channel_choice import ChannelChoice
from converters.passes.pipelines import run_pipeline
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
