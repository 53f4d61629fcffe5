"""A clamp between a pair becomes a clamp of codes; whatever is none of that kind stays, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.passes.base import Skipped
from converters.passes.clamp_codes import ClampCodes
from converters.passes.pipelines import run_pipeline
from converters.spec import TensorTwin
from tests.converters.passes.test_pipelines import kinds, parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLAMP = """g (uint8[256] x) => (uint8[256] y)
<float s = {SCALE}, uint8 z = {ZERO}, float s2 = {OTHER}, float low = {LOW}, float high = {HIGH}>
{ f = DequantizeLinear(x, s, z)  c = Clip(f, low, high)  y = QuantizeLinear(c, s2, z) }"""
NUMBERS = {"SCALE": 0.0272, "ZERO": 0, "OTHER": 0.0272, "LOW": 0, "HIGH": 6}


def clamp(text: str = CLAMP, **changes: object) -> ir.Model:
    numbers = {name: f"{{{value}}}" for name, value in {**NUMBERS, **changes}.items()}
    for name, value in numbers.items():
        text = text.replace(f"{{{name}}}", value)
    return parse(text)


def run(model: ir.Model) -> NDArray[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": np.arange(256, dtype=np.uint8)})[0])


@given(
    scale=st.floats(2**-10, 1, width=32),
    zero=st.integers(0, 255),
    bounds=st.tuples(st.floats(-8, 8, width=32), st.floats(-8, 8, width=32)).map(sorted),
)
def test_every_code_is_the_same(scale: float, zero: int, bounds: list[float]) -> None:
    numbers: dict[str, Any] = {"SCALE": scale, "OTHER": scale, "ZERO": zero, "LOW": bounds[0], "HIGH": bounds[1]}
    before, after = clamp(**numbers), clamp(**numbers)
    assert ClampCodes()(after).modified
    assert kinds(after) == "Clip"
    np.testing.assert_array_equal(run(after), run(before))


@pytest.mark.parametrize(
    ("clip", "expected"), [("Clip(f, low)", (0, 255)), ("Clip(f, , high)", (0, 221)), ("Clip(f)", (0, 255))]
)
def test_a_bound_may_be_left_out(clip: str, expected: tuple[int, int]) -> None:
    model = clamp(CLAMP.replace("Clip(f, low, high)", clip))
    assert ClampCodes()(model).modified
    codes = run(model)
    assert (codes.min(), codes.max()) == expected


def test_the_pipeline_keeps_the_tensors_on_both_sides() -> None:
    twins = {name: TensorTwin(name, "same", 0) for name in ("x", "y")}
    rewritten = run_pipeline(clamp(), "cpu", twins)
    assert rewritten.passes == ("clamp codes",)
    assert rewritten.twins == twins


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(CLAMP.replace("{OTHER}", "{0.03}"), "it changes scale or zero-point", id="requantised"),
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
    model = clamp(text)
    before = kinds(model)
    (skipped,) = ClampCodes().rewrite(model.graph)
    assert isinstance(skipped, Skipped)
    assert skipped.reason == reason
    assert kinds(model) == before
