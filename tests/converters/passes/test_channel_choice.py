"""Shuffles in many steps become one choice of channels; other movements stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.graph import infer_shapes
from converters.passes.base import Skipped
from converters.passes.channel_choice import ChannelChoice
from converters.passes.pipelines import run_pipeline
from converters.spec import TensorTwin
from tests.converters.passes.test_pipelines import kinds, parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

# [N, H, W, C] as groups x C / groups, exchanged, and split in two, as TFLite's operators are written in NCHW
SHUFFLE = """g (uint8[{N},{C},2,3] x) => (uint8[a,b,c,d] y, uint8[e,f,g,h] w)
<float s = {0.05}, float s2 = {OTHER}, uint8 z = {7}, int64[5] wide = {{LEAD},2,3,{GROUPS},{EACH}},
 int64[4] flat = {{LEAD},2,3,{C}}, int64[2] halves = {{HALF},{HALF}}>
{
  a = DequantizeLinear(x, s, z)
  b = Transpose<perm = [0, 2, 3, 1]>(a)
  c = Reshape(b, wide)
  grouped = QuantizeLinear(c, s, z)
  d = DequantizeLinear(grouped, s, z)
  e = Transpose<perm = [0, {PERM}]>(d)
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
NUMBERS = {"N": 1, "C": 12, "GROUPS": 2, "EACH": 6, "HALF": 6, "LEAD": 0, "OTHER": 0.05, "PERM": "1, 2, 4, 3"}


def shuffle(**changes: object) -> ir.Model:
    text = SHUFFLE.replace("{OTHER}", "{{OTHER}}")
    for name, value in {**NUMBERS, **changes}.items():
        text = text.replace(f"{{{name}}}", str(value))
    model = parse(text)
    infer_shapes(model)
    return model


def run(model: ir.Model, batch: int = 1) -> list[NDArray[Any]]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    shape = (batch, *session.get_inputs()[0].shape[1:])
    codes = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    return [np.asarray(result) for result in session.run(None, {"x": codes})]


@settings(max_examples=20)
@given(groups=st.integers(2, 4), each=st.integers(1, 3).map(lambda n: 2 * n), batch=st.sampled_from([1, 2, "N"]))
def test_every_shuffle_gives_the_same_codes(groups: int, each: int, batch: int | str) -> None:
    channels = groups * each
    numbers: dict[str, Any] = {"GROUPS": groups, "EACH": each, "C": channels, "HALF": channels // 2, "N": batch}
    before, after = shuffle(**numbers), shuffle(**numbers)
    assert ChannelChoice()(after).modified
    images = 3 if batch == "N" else int(batch)
    run_pipeline(after, "cpu")  # removes what nobody reads any more
    for found, expected in zip(run(after, images), run(before, images), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_both_halves_are_one_gather_each_and_what_lay_between_is_told() -> None:
    model = shuffle()
    twins = {name: TensorTwin(name, "NHWC->NCHW", 0) for name in ("x", "shuffled", "y", "w")}
    rewritten = run_pipeline(model, "cpu", twins)
    assert rewritten.passes == ("channel choice",)
    assert kinds(model) == "Gather Gather"
    fates = {name: (twin.fate, twin.by) for name, twin in rewritten.twins.items()}
    kept = ("kept", None)
    assert fates == {"x": kept, "shuffled": ("removed", "channel choice"), "y": kept, "w": kept}


def test_neighbouring_channels_are_a_slice() -> None:
    model = shuffle(PERM="1, 2, 3, 4")
    run_pipeline(model, "cpu")
    assert kinds(model) == "Slice Slice"
    for found, expected in zip(run(model), run(shuffle(PERM="1, 2, 3, 4")), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_places_that_move_too_are_left_alone() -> None:
    model = shuffle(PERM="2, 1, 4, 3")
    before = kinds(model)
    outcomes = list(ChannelChoice().rewrite(model.graph))
    assert [type(outcome) for outcome in outcomes] == [Skipped, Skipped]
    assert all("do more than to choose channels" in getattr(outcome, "reason", "") for outcome in outcomes)
    assert kinds(model) == before


def test_a_change_of_scale_ends_a_chain() -> None:
    model, changes = shuffle(OTHER=0.06), {"OTHER": 0.06}
    run_pipeline(model, "cpu")
    assert "Gather" not in kinds(model)
    for found, expected in zip(run(model), run(shuffle(**changes)), strict=True):
        np.testing.assert_array_equal(found, expected)
